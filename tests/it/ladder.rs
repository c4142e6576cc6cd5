//! The ladder from outside: every state up and down, and the promises of each.

use std::sync::atomic::{AtomicBool, Ordering};

use http::{Method, StatusCode};
use pointsman::demo::http::Outage;
use pointsman::demo::world::Fault;
use serde_json::{Value, json};

use crate::support::origin::{Origin, OriginReply};
use crate::support::process::{Start, output_text};
use crate::support::raw_connection::RawConnection;
use crate::support::strace::Strace;
use crate::support::test_system::{TestSystem, id, some_order};
use crate::support::{FlagsDir, Pointsman, until};

fn is_from_engine(order: &Value) -> bool {
    order["id"].is_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_family_walks_up_through_its_gates_and_down_again() {
    let system = TestSystem::start().await;
    assert!(!is_from_engine(&system.order().await));
    system.climb_to("live").await;
    let made = system.order().await;
    assert!(is_from_engine(&made));
    assert_eq!(system.read(&made).await["total"], made["total"]);
    system.climb_to("only").await;
    system.legacy.outage(Outage::Gone);
    system.create_read_cancel().await;
    system.legacy.outage(Outage::None);
    system.lower("off").await;
    assert!(!is_from_engine(&system.order().await));
    assert_eq!(system.cancel(&made).await["status"], "cancelled");
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_leaves_the_engine_in_shadow_and_dark() {
    let system = TestSystem::start().await;
    system.climb_to("dark").await;
    system.create_read_cancel_many(20).await;
    system.wait_for_runs_to_end().await;
    assert!(system.world.ledger().entries().iter().all(|entry| !entry.by_engine()));
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_defect_is_found_in_shadow_shuts_the_gate_and_is_corrected_without_a_restart() {
    let system = TestSystem::with(|flags| {
        flags.edit("workflows/create-order.yaml", |text| text.replace("* 100.0 + 0.5)", "* 100.0)"));
    })
    .await;
    system.climb_to("shadow").await;
    system.create_read_cancel_many(30).await;
    let compared = [("route", "orders.create"), ("outcome", "mismatched")];
    system.pointsman.until_metric("a mismatch", |m| m.sum("pointsman_comparisons_total", &compared) > 0.0).await;
    for follower in ["orders.get", "orders.cancel"] {
        system.flip(follower, "dark", &["--reason", "followers first"]).await.expect("followers are not gated here");
    }
    let refused = system.flip("orders.create", "dark", &["--reason", "too early"]).await.expect_err("a shut gate");
    assert!(refused.contains("mismatch"), "{refused}");
    let diffs = output_text(&system.pointsman.cli(&["diffs", "orders.create"]).await);
    assert!(diffs.contains("$.total"), "{diffs}");
    system.flags.edit("workflows/create-order.yaml", |text| text.replace("* 100.0)", "* 100.0 + 0.5)"));
    system.climb_to("dark").await;
    system.finish().await;
}

/// After a corrected file is loaded, evidence counts the corrected workflow only, also under constant load.
#[tokio::test(flavor = "multi_thread")]
async fn a_defect_corrected_under_load_leaves_no_trace_in_the_new_evidence() {
    let (wrong, right) = ("* 100.0)", "* 100.0 + 0.5)");
    let system =
        TestSystem::with(|flags| flags.edit("workflows/create-order.yaml", |text| text.replace(right, wrong))).await;
    system.climb_to("shadow").await;
    let stopped = AtomicBool::new(false);
    let load = async {
        while !stopped.load(Ordering::SeqCst) {
            futures_util::future::join_all((0..4).map(|_| system.order())).await;
        }
    };
    let evidence = || async { system.pointsman.get("/api/v2/routes/orders.create/evidence").await["evidence"].clone() };
    let count = |evidence: &Value, name: &str| evidence[name].as_u64().unwrap_or_default();
    let correcting = async {
        for (from, to) in [(wrong, right), (right, wrong), (wrong, right), (right, wrong), (wrong, right)] {
            let before = until("pairs", || async {
                let now = evidence().await;
                (count(&now, "shadow_pairs") > 20).then_some(now)
            })
            .await;
            assert_eq!(
                count(&before, "mismatched") > 0,
                from == wrong,
                "the evidence is of one workflow only: {before}"
            );
            system.flags.edit("workflows/create-order.yaml", |text| text.replace(from, to));
            // A version that was in force before goes on with its own evidence.
            until("the evidence of the other version", || async {
                ((count(&evidence().await, "mismatched") > 0) == (to == wrong)).then_some(())
            })
            .await;
        }
        until("pairs", || async { (count(&evidence().await, "shadow_pairs") > 20).then_some(()) }).await;
        stopped.store(true, Ordering::SeqCst);
    };
    tokio::join!(load, correcting);
    system.wait_for_shadow_idle().await;
    let now = evidence().await;
    assert_eq!(count(&now, "mismatched"), 0, "{now}");
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_of_the_engine_stay_with_it_after_off_and_a_restart() {
    let mut system = TestSystem::start().await;
    system.climb_to("live").await;
    let (kept, cancelled) = (system.order().await, system.order().await);
    system.lower("off").await;
    assert_eq!(system.read(&kept).await["id"], kept["id"]);
    system.kill().await;
    system.restart().await;
    let status = system.pointsman.get("/api/v2/routes/orders.create").await;
    assert_eq!(status["row"]["requested"], "off", "the last flip wins over a restart");
    assert_eq!(system.read(&kept).await["payment_id"], kept["payment_id"]);
    assert_eq!(system.cancel(&cancelled).await["status"], "cancelled");
    let again = system.send(Method::POST, &format!("/orders/{}/cancel", id(&cancelled)), &Value::Null).await;
    assert_eq!(again.expect("a reply").status, StatusCode::CONFLICT);
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_stays_on_the_arm_of_its_first_try() {
    let system = TestSystem::start().await;
    system.climb_to("live").await;
    let (engine_key, legacy_key) = ([("idempotency-key", "k-engine")], [("idempotency-key", "k-legacy")]);
    let body = some_order(3);
    let first = system.send_with(Method::POST, "/orders", &engine_key, &body).await.expect("a reply").json();
    system.record_order(first.clone());
    assert!(is_from_engine(&first));
    system.lower("off").await;
    let retried = system.send_with(Method::POST, "/orders", &engine_key, &body).await.expect("a reply").json();
    assert_eq!(retried["id"], first["id"], "the engine took it, in off too");
    let second = system.send_with(Method::POST, "/orders", &legacy_key, &body).await.expect("a reply").json();
    system.record_order(second.clone());
    system.climb_to("live").await;
    let retried = system.send_with(Method::POST, "/orders", &legacy_key, &body).await.expect("a reply").json();
    assert_eq!(retried["id"], second["id"], "legacy took it, in live too");
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_with_another_body_is_refused_and_concurrent_repetitions_make_one_order() {
    let system = TestSystem::start().await;
    system.climb_to("live").await;
    let key = [("idempotency-key", "one")];
    let body = some_order(4);
    let all = futures_util::future::join_all((0..50).map(|_| system.send_with(Method::POST, "/orders", &key, &body)));
    let mut made: Vec<Value> = all
        .await
        .into_iter()
        .map(|reply| reply.expect("a reply"))
        .filter(|reply| reply.status == StatusCode::CREATED)
        .map(|reply| reply.json())
        .collect();
    assert!(!made.is_empty());
    made.dedup();
    assert_eq!(made.len(), 1, "identical answers");
    system.record_order(made.remove(0));
    let other = system.send_with(Method::POST, "/orders", &key, &some_order(5)).await.expect("a reply");
    assert_eq!(other.status, StatusCode::UNPROCESSABLE_ENTITY);
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn live_falls_back_where_nothing_had_begun() {
    let system = TestSystem::start().await;
    system.climb_to("live").await;
    system.world.fault("quote", Fault::Refuse(503), 8);
    let order = system.order().await;
    assert!(!is_from_engine(&order), "legacy answered: {order}");
    system.world.clear_faults();
    let fallbacks = system.pointsman.metrics().await.sum("pointsman_fallbacks_total", &[]);
    assert_eq!(fallbacks, 1.0);
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn legacy_is_never_called_in_only() {
    let system = TestSystem::start().await;
    system.climb_to("only").await;
    let served = system.legacy.served();
    system.world.fault("quote", Fault::Refuse(503), 8);
    let refused = system.send(Method::POST, "/orders", &some_order(1)).await.expect("a reply");
    assert!(refused.status.is_server_error());
    let problem = refused.json();
    assert_eq!(refused.headers["x-pointsman-source"], "workflow", "{problem}");
    system.world.clear_faults();
    system.create_read_cancel().await;
    assert_eq!(system.legacy.served(), served);
    system.finish().await;
}

/// The invariant I6 (support/checker.rs): in off, shadow and dark the caller's bytes are legacy's own.
#[tokio::test(flavor = "multi_thread")]
async fn responses_are_legacys_bytes_in_off_shadow_and_dark() {
    let origin =
        Origin::start(OriginReply::Json(r#"{"id":1, "odd" : [1.0,1e3,"\u00e9"],  "n":12345678901234567890}"#)).await;
    let flags = FlagsDir::passthrough(&origin.url());
    flags.write(
        "workflows/make.yaml",
        "workflow: make\nsteps: { id: { set: \"${run.id}\" } }\nrespond: { status: 200, body: { id: \"${steps.id.output}\" } }\n",
    );
    flags.write(
        "routes/things.yaml",
        "routes:\n- { id: things, match: { method: POST, path: /things }, legacy: shop, workflow: make, state: off }\n",
    );
    let dir = tempfile::tempdir().expect("a directory");
    let start = Start::on_sqlite(flags.path(), dir.path());
    let mut pointsman = Pointsman::start(&start).await;
    let answers = [
        OriginReply::Json(r#"{"a":1}"#),
        OriginReply::Status(404),
        OriginReply::Bytes(b"HTTP/1.1 200 Fine\r\nX-Odd: a\r\nx-odd: b\r\nset-cookie: c=1\r\nset-cookie: d=2\r\ncontent-length: 3\r\n\r\n\xff\x00!".to_vec()),
        OriginReply::Bytes(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n".to_vec()),
        OriginReply::Bytes(b"HTTP/1.1 204 None\r\nx: y\r\n\r\n".to_vec()),
        OriginReply::Bytes(b"HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n".to_vec()),
    ];
    let request = "POST /things?x=%20y&&z HTTP/1.1\r\nhost: shop.example\r\ncontent-type: application/json\r\ncontent-length: 8\r\n\r\n{\"a\": 1}";
    for state in ["off", "shadow", "dark"] {
        if state != "off" {
            let output =
                pointsman.cli(&["flip", "things", state, "--force", "--reason", "only bytes are looked at"]).await;
            assert!(output.status.success(), "{}", output_text(&output));
        }
        for answer in &answers {
            origin.script(answer.clone(), 2);
            let direct = RawConnection::connect(origin.address()).await.send(request).await.reply().await;
            let through = RawConnection::connect(pointsman.listen).await.send(request).await.reply().await;
            assert_eq!(through.without_hop_fields(), direct.without_hop_fields(), "in {state} for {answer:?}");
        }
    }
    let seen = origin.seen();
    assert!(seen.iter().all(|s| s.line == "POST /things?x=%20y&&z HTTP/1.1" && s.body == b"{\"a\": 1}"));
    crate::support::checker::check_balance(&pointsman.metrics().await);
    assert_eq!(pointsman.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn freeze_stops_new_instances_and_keeps_the_engines_own() {
    let system = TestSystem::start().await;
    system.climb_to("live").await;
    let made = system.order().await;
    let output = system.pointsman.cli(&["freeze", "--reason", "a look around"]).await;
    assert!(output.status.success(), "{}", output_text(&output));
    assert!(!is_from_engine(&system.order().await));
    assert_eq!(system.read(&made).await["id"], made["id"]);
    let output = system.pointsman.cli(&["freeze", "--off", "--reason", "seen enough"]).await;
    assert!(output.status.success(), "{}", output_text(&output));
    assert!(is_from_engine(&system.order().await));
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_commands_suggest_the_nearest_name() {
    let system = TestSystem::start().await;
    let unknown = system.pointsman.cli(&["flip", "orders.crate", "shadow"]).await;
    assert_eq!(unknown.status.code(), Some(1));
    assert!(output_text(&unknown).contains("orders.create"), "{}", output_text(&unknown));
    let two_rungs = system.pointsman.cli(&["flip", "orders.get", "dark", "--reason", "in a hurry"]).await;
    assert_eq!(two_rungs.status.code(), Some(1));
    let usage = system.pointsman.cli(&["flip", "orders.get", "sideways"]).await;
    assert_eq!(usage.status.code(), Some(2));
    let above = system.flip("orders.create", "shadow", &["--reason", "alone"]).await.expect_err("above its followers");
    assert!(above.contains("orders.get") || above.contains("follow"), "{above}");
    let status = system.pointsman.cli(&["status", "--json"]).await;
    let status: Value = serde_json::from_slice(&status.stdout).expect("JSON");
    assert_eq!(status["routes"].as_array().map(Vec::len), Some(5));
    assert_ne!(json!(null), status["routes"][0]["effective"]);
    system.finish().await;
}

/// On a first start, for routes and for a cohort: without a flip or evidence, a file puts no state above `shadow` in
/// force.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_alone_puts_nothing_above_shadow() {
    let staff = "    cohorts: [ { name: staff, when: '${request.headers[\"x-staff\"] == \"1\"}', state: live } ]\n";
    let system = TestSystem::with(|flags| {
        flags.edit("routes/orders.yaml", |text| {
            ["create-order", "get-order", "cancel-order"].iter().fold(text, |text, workflow| {
                let off = format!("workflow: {workflow}\n    state: off\n");
                text.replace(&off, &off.replace("off", "live"))
            })
        });
        flags.edit("routes/campaigns.yaml", |text| {
            text.replace("    state: off\n", &format!("    state: off\n{staff}"))
        });
    })
    .await;
    assert!(!is_from_engine(&system.order().await), "legacy answers");
    let row = async || system.pointsman.get("/api/v2/routes/orders.create").await;
    let shown = row().await;
    assert_eq!(shown["row"]["effective"], json!({ "state": "shadow", "why": "gate" }), "{shown}");
    assert!(shown["refused"].to_string().contains("force: { reason"), "{shown}");
    assert!(system.pointsman.log().contains("this route is below its requested state"));
    let checked = output_text(&system.pointsman.cli(&["check", &system.flags.path().display().to_string()]).await);
    assert!(checked.contains("goes no higher than `shadow` without evidence, and not to `live`"), "{checked}");
    assert!(checked.contains("the cohort `staff` goes no higher than the state that its route reached"), "{checked}");
    let staff = [("x-staff", "1")];
    let brief = json!({ "product": "tea", "audience": "everybody" });
    let runs = async || {
        let real = system.pointsman.get("/api/v2/orchestrate/runs?limit=100").await["runs"].clone();
        real.as_array().expect("a list").iter().filter(|run| run["route"] == "campaigns.create").count()
    };
    assert!(system.send_with(Method::POST, "/campaigns", &staff, &brief).await.expect("a reply").status.is_success());
    assert_eq!(runs().await, 0, "legacy answers the cohort too");

    // With `force` it takes effect, and stays marked as unproven.
    for file in ["routes/orders.yaml", "routes/campaigns.yaml"] {
        system.flags.edit(file, |text| {
            text.replace("state: live\n", "state: live\n    force: { reason: we know }\n")
                .replace("state: live }", "state: live, force: { reason: our own } }")
        });
    }
    until("the files", || async { (row().await["row"]["effective"]["state"] == "live").then_some(()) }).await;
    let shown = row().await["row"].clone();
    assert_eq!((&shown["effective"]["why"], &shown["forced"]), (&json!("unproven"), &json!("we know")));
    assert!(is_from_engine(&system.order().await));
    let _answered = system.send_with(Method::POST, "/campaigns", &staff, &brief).await.expect("a reply");
    until("the cohort's run", || async { (runs().await > 0).then_some(()) }).await;
    system.finish_with_open_runs().await;
}

/// The commands that a refused flip prints pass when they are typed unchanged.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_flip_prints_the_commands_that_pass() {
    let system = TestSystem::start().await;
    let run_commands_of = async |refusal: &str| {
        let commands: Vec<&str> = refusal.lines().filter_map(|line| line.trim().strip_prefix("pointsman ")).collect();
        assert!(!commands.is_empty(), "{refusal}");
        for command in &commands {
            let arguments: Vec<String> = command.split(' ').map(|word| word.trim_matches('\'').to_owned()).collect();
            let output = system.pointsman.cli(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).await;
            assert!(output.status.success(), "{command}: {}", output_text(&output));
        }
        commands.len()
    };
    let state = async || system.pointsman.get("/api/v2/routes/orders.create").await["row"]["requested"].clone();
    let followers_first = system.flip("orders.create", "shadow", &[]).await.expect_err("above its followers");
    assert_eq!((run_commands_of(&followers_first).await, state().await), (3, json!("shadow")));
    let gate = system.flip("orders.create", "only", &["--reason", "drill"]).await.expect_err("shut");
    assert!(gate.contains("--force --reason 'drill'"), "{gate}");
    assert_eq!((run_commands_of(&gate).await, state().await), (3, json!("only")));
    let down = system.flip("orders.create", "live", &[]).await.expect_err("needs an acknowledgement");
    assert!(down.contains("pointsman flip orders.create live --yes"), "{down}");
    assert_eq!((run_commands_of(&down).await, state().await), (1, json!("live")));
    let nothing_helps = system.flip("orders.list", "shadow", &[]).await.expect_err("no workflow");
    assert!(!nothing_helps.contains("pointsman flip"), "{nothing_helps}");
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_family_moves_in_one_command_and_stops_at_the_first_refusal() {
    let system = TestSystem::start().await;
    let states = async || {
        let rows = system.pointsman.get("/api/v2/routes").await;
        let of = |id: &str| {
            let row = rows.as_array().expect("a list").iter().find(|row| row["id"] == id).expect("a row").clone();
            row["requested"].as_str().expect("a state").to_owned()
        };
        ["orders.get", "orders.cancel", "orders.create", "orders.list"].map(of)
    };
    let up = system.flip("orders.*", "shadow", &["--reason", "together"]).await.expect("no gate");
    assert!(up.contains("orders.list has no workflow"), "{up}");
    assert_eq!(states().await, ["shadow", "shadow", "shadow", "off"]);
    // Followers pass, the creator has no pairs.
    let refused = system.flip("orders.*", "dark", &[]).await.expect_err("the creator's gate is shut");
    assert!(
        refused.contains("stopped at `orders.create`") && refused.contains("orders.get shadow -> dark"),
        "{refused}"
    );
    assert_eq!(states().await, ["dark", "dark", "shadow", "off"]);
    system.flip("orders.*", "live", &["--force", "--reason", "a drill"]).await.expect("by hand");
    assert_eq!(states().await, ["live", "live", "live", "off"]);
    let down = system.flip("orders.*", "off", &["--reason", "back"]).await.expect("down is always open");
    let first = down.lines().find(|line| line.contains("->")).expect("moves");
    assert!(first.contains("orders.create"), "the creator goes first: {down}");
    assert_eq!(states().await, ["off"; 4]);
    let none = system.flip("nobody.*", "off", &[]).await.expect_err("no such family");
    assert!(none.contains("nobody.*"), "{none}");
    system.finish().await;
}

/// `readyz` fails where the start of a run would be refused, so that a load balancer takes traffic away.
#[tokio::test(flavor = "multi_thread")]
async fn readyz_is_green_only_where_the_start_of_a_run_would_be_accepted() {
    let system = TestSystem::start().await;
    let ready = async || system.pointsman.try_api("/readyz").await.expect("a reply").status.as_u16();
    assert_eq!(ready().await, 200);
    let full = Strace::inject(system.pointsman.pid(), "pwrite64,pwritev", "error=ENOSPC").await;
    let channels = json!([{ "channel": "radio", "amount": 70 }]);
    let start = json!({ "workflow": "launch-campaign", "input": { "product": "tea", "channels": channels } });
    let refused = system.pointsman.api(Method::POST, "/api/v2/orchestrate/run", start).await;
    assert!(!refused.status.is_success(), "{}", refused.json());
    until("the probe to say so", || async { (ready().await == 503).then_some(()) }).await;
    full.end().await;
    until("the probe to be green", || async { (ready().await == 200).then_some(()) }).await;
    system.finish().await;
}

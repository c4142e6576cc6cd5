//! `rehearse: legacy` through the real binary: a rehearsed step takes the reply that legacy's own call got, so that a
//! right workflow is equal without a declared output, and a wrong amount differs instead of being replaced by legacy's.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};

use http::{Method, StatusCode};
use pointsman::demo::http::{Call, Client, Server, empty, json};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::Notify;

use crate::support::process::{Start, one_line, output_text};
use crate::support::{FlagsDir, LOCAL, PROMOTE_WITH_EFFECTS, Pointsman, WAIT_MAX, until};

/// The address of the egress listener; set once the process has started.
type EgressAddress = Arc<OnceLock<SocketAddr>>;

/// A bank that gives each charge a new id, which nobody can guess.
async fn bank(charges: Arc<AtomicU64>) -> Server {
    let handler = move |call: Call| {
        let charges = charges.clone();
        async move {
            let number = charges.fetch_add(1, SeqCst);
            match (call.path.as_str(), call.json()["amount"].as_u64()) {
                ("/charges", Some(666)) => Ok(json(StatusCode::PAYMENT_REQUIRED, &json!({ "why": "declined" }))),
                ("/charges", _) => {
                    let id = format!("pay-{}-{number}", fastrand::u32(1_000..));
                    Ok(json(StatusCode::CREATED, &json!({ "id": id, "fee": number * 3 })))
                }
                _ => Ok(json(StatusCode::CREATED, &json!({}))),
            }
        }
    };
    Server::start(LOCAL, handler).await.expect("a port")
}

/// A legacy whose charges for an order depend on its `kind`. One of kind `late` is charged after the reply, once
/// `may_charge` was notified.
async fn legacy(egress: EgressAddress, may_charge: Arc<Notify>) -> Server {
    let client = Arc::new(Client::new(WAIT_MAX));
    let handler = move |call: Call| {
        let (egress, client, may_charge) = (egress.clone(), client.clone(), may_charge.clone());
        async move {
            if call.method != Method::POST {
                return Ok(empty(StatusCode::NOT_FOUND));
            }
            let order = call.json();
            let amount = order["amount"].as_u64().unwrap_or(0);
            let bank = format!("http://{}/bank", egress.get().expect("it is listening"));
            let trace = call.header("traceparent").to_owned();
            let send = async move |path: &str, body: Value| {
                let headers = [("traceparent", trace.as_str())];
                let reply = client.json(Method::POST, &format!("{bank}{path}"), &headers, &body).await;
                reply.expect("the bank's reply")
            };
            let charge = |amount: u64| json!({ "order": order["ref"], "amount": amount });
            let charged = match order["kind"].as_str() {
                Some("wrong") => send("/charges", charge(amount + 1)).await,
                Some("missing") => send("/refunds", charge(amount)).await,
                Some("twice") => {
                    send("/charges", charge(amount)).await;
                    send("/charges", charge(amount)).await
                }
                Some("ambiguous") => {
                    send("/charges", charge(amount + 1)).await;
                    send("/charges", charge(amount - 1)).await
                }
                Some("late") => {
                    let body = charge(amount);
                    tokio::spawn(async move {
                        may_charge.notified().await;
                        send("/charges", body).await;
                    });
                    return Ok(json(StatusCode::CREATED, &json!({ "ref": order["ref"] })));
                }
                _ => send("/charges", charge(amount)).await,
            };
            if charged.status == StatusCode::PAYMENT_REQUIRED {
                return Ok(json(StatusCode::PAYMENT_REQUIRED, &json!({ "error": "declined" })));
            }
            let body = charged.json();
            Ok(json(StatusCode::CREATED, &json!({ "ref": order["ref"], "payment": body["id"], "fee": body["fee"] })))
        }
    };
    Server::start(LOCAL, handler).await.expect("a port")
}

struct Shop {
    pointsman: Pointsman,
    client: Client,
    may_charge: Arc<Notify>,
    charges: Arc<AtomicU64>,
    flags: FlagsDir,
    _servers: [Server; 2],
    _dir: TempDir,
}

/// A workflow that answers with the payment's id and fee.
const WITH_ID: &str =
    "{ ref: '${request.body.ref}', payment: '${steps.charge.output.id}', fee: '${steps.charge.output.fee}' }";

impl Shop {
    /// `window` is `egress.window`, `body` what the workflow answers.
    async fn start(window: &str, body: &str) -> Self {
        let (egress, may_charge, charges) = (EgressAddress::default(), Arc::new(Notify::new()), Arc::default());
        let (legacy, bank) = (legacy(egress.clone(), may_charge.clone()).await, bank(Arc::clone(&charges)).await);
        let flags = FlagsDir::empty();
        flags.write(
            "pointsman.yaml",
            &format!(
                "services:\n  shop: {}\n  bank: {}\ndefault_legacy: shop\n\
                 egress: {{ listen: 127.0.0.1:0, window: {window} }}\nlimits: {{ egress_rehearse_wait_ms: 10000 }}\n{PROMOTE_WITH_EFFECTS}",
                legacy.url(),
                bank.url()
            ),
        );
        flags.write(
            "workflows/create.yaml",
            &format!(
                "workflow: create\nsteps:\n  charge:\n    call: POST ${{services.bank}}/charges\n    \
                 body: {{ order: '${{request.body.ref}}', amount: '${{request.body.amount}}' }}\n    rehearse: legacy\n\
                 respond:\n  - when: ${{failed != null && failed.status == 402}}\n    status: 402\n    \
                 body: {{ error: declined }}\n  - status: 201\n    body: {body}\n"
            ),
        );
        flags.write(
            "routes/orders.yaml",
            "routes:\n  - { id: orders, match: { method: POST, path: /orders }, legacy: shop, workflow: create, state: shadow }\n",
        );
        let dir = tempfile::tempdir().expect("a directory");
        let store = format!("sqlite:{}", dir.path().join("db").display());
        let start = Start { flags: flags.path().to_owned(), store, log: dir.path().join("log"), env: Vec::new() };
        let pointsman = Pointsman::start(&start).await;
        egress.set(pointsman.egress.expect("an egress listener")).expect("set once");
        let client = Client::new(WAIT_MAX);
        Self { pointsman, client, may_charge, charges, flags, _servers: [legacy, bank], _dir: dir }
    }

    async fn order(&self, kind: &str, amount: u64) -> StatusCode {
        let body = json!({ "ref": format!("{kind}-{amount}"), "kind": kind, "amount": amount });
        let url = format!("{}/orders", self.pointsman.url());
        self.client.json(Method::POST, &url, &[], &body).await.expect("a reply").status
    }

    /// Waits until this many requests are compared, skipped or failed, and returns the evidence.
    async fn settled(&self, count: u64) -> Value {
        until("the outcomes", || async {
            let evidence = self.pointsman.get("/api/v2/routes/orders/evidence").await["evidence"].clone();
            let skipped = evidence["skipped"].as_object()?.values().filter_map(Value::as_u64).sum::<u64>();
            let failed = evidence["failed"].as_object()?.values().filter_map(Value::as_u64).sum::<u64>();
            let pairs = evidence["shadow_pairs"].as_u64()? + evidence["dark_pairs"].as_u64()?;
            (pairs + skipped + failed >= count).then_some(evidence)
        })
        .await
    }

    /// Waits until a sample with a difference of this kind is shown, and returns all differences of the route. A sample
    /// is kept after its pair is counted.
    async fn until_sample(&self, kind: &str) -> Value {
        until("the sample", || async {
            let diffs = self.pointsman.get("/api/v2/routes/orders/diffs").await;
            diffs.to_string().contains(kind).then_some(diffs)
        })
        .await
    }

    async fn cli(&self, arguments: &[&str]) -> String {
        output_text(&self.pointsman.cli(arguments).await)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_takes_the_reply_that_legacys_call_got_and_a_wrong_amount_differs() {
    let shop = Shop::start("1s", WITH_ID).await;
    for amount in 10..15 {
        assert_eq!(shop.order("right", amount).await, StatusCode::CREATED);
    }
    assert_eq!(shop.order("right", 666).await, StatusCode::PAYMENT_REQUIRED, "refused by the bank");
    let evidence = shop.settled(6).await;
    assert_eq!((&evidence["matched"], &evidence["skipped"]), (&json!(6), &json!({})), "{evidence}");
    assert_eq!(evidence["effects"]["charge"], json!({ "intents": 6, "compared": 6, "asserted": 0 }), "{evidence}");
    for (count, kind, path, difference) in
        [(7, "wrong", "effects.charge.body.amount", "effect_differs"), (8, "twice", "effects.charge", "effect_doubled")]
    {
        shop.order(kind, 20).await;
        let evidence = shop.settled(count).await;
        assert_eq!(evidence["skipped"], json!({}), "{kind}: {evidence}");
        let shown = shop.until_sample(difference).await.to_string();
        assert!(shown.contains(path), "{kind}: {shown}");
        assert!(kind == "twice" || !shown.contains("$.payment"), "the reply is equal: {shown}");
    }
    let taken = [("route", "orders"), ("outcome", "taken")];
    assert_eq!(shop.pointsman.metrics().await.sum("pointsman_effects_rehearsed_total", &taken), 8.0);
    assert_eq!(shop.charges.load(SeqCst), 9, "legacy made all charges, and the engine none");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_several_calls_correspond_the_pair_is_skipped_and_where_none_does_it_differs() {
    let shop = Shop::start("1s", WITH_ID).await;
    shop.order("ambiguous", 20).await;
    let evidence = shop.settled(1).await;
    assert_eq!(evidence["skipped"], json!({ "unresolved_effect": 1 }), "{evidence}");
    let shown = one_line(&shop.cli(&["evidence", "orders"]).await);
    assert!(shown.contains("2 calls by legacy fit equally"), "{shown}");
    shop.order("missing", 20).await;
    let evidence = shop.settled(2).await;
    assert_eq!(
        (&evidence["skipped"]["unresolved_effect"], &evidence["mismatched"]),
        (&json!(1), &json!(1)),
        "{evidence}"
    );
    let diffs = shop.until_sample("effect_extra").await;
    let found = diffs["groups"][0]["differences"].as_array().expect("differences").iter();
    let found: Vec<_> = found.map(|found| (found["path"].as_str(), found["kind"].as_str())).collect();
    assert_eq!(
        found,
        [(Some("effects.charge"), Some("effect_extra")), (Some("effects.bank POST /refunds"), Some("effect_missing")),],
        "the run could not go on after its charge, and neither the reply nor later calls are judged: {diffs}"
    );
    let engine = diffs["groups"][0]["sample"]["engine"].as_str().expect("a text");
    assert!(engine.contains("no call by legacy corresponds; the nearest is `POST "), "{engine}");
}

/// The run waits for the call, and neither the caller nor legacy waits for the run.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_legacy_makes_after_its_reply_is_waited_for() {
    let shop = Shop::start("4s", "{ ref: '${request.body.ref}' }").await;
    assert_eq!(shop.order("late", 20).await, StatusCode::CREATED);
    shop.may_charge.notify_one();
    let evidence = shop.settled(1).await;
    assert_eq!((&evidence["matched"], &evidence["skipped"]), (&json!(1), &json!({})), "{evidence}");
    let taken = [("route", "orders"), ("outcome", "taken")];
    assert_eq!(shop.pointsman.metrics().await.sum("pointsman_effects_rehearsed_total", &taken), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dark_run_takes_the_reply_too_and_its_event_says_from_which_call() {
    let shop = Shop::start("1s", WITH_ID).await;
    let dark = shop.cli(&["flip", "orders", "dark", "--force", "--reason", "a test"]).await;
    shop.order("right", 10).await;
    let evidence = shop.settled(1).await;
    assert_eq!((&evidence["dark_pairs"], &evidence["matched"]), (&json!(1), &json!(1)), "{evidence} {dark}");
    let runs = shop.pointsman.get("/api/v2/orchestrate/runs").await;
    let run = runs["runs"][0]["run_id"].as_str().expect("a dark run").to_owned();
    let events = shop.pointsman.get(&format!("/api/v2/orchestrate/run/{run}/events")).await;
    assert!(events.to_string().contains("\"taken\":{\"call\":"), "{events}");
    assert_eq!(shop.charges.load(SeqCst), 1, "legacy's own");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_refuses_it_where_the_calls_are_not_seen() {
    let flags = FlagsDir::empty();
    let main = "services:\n  shop: http://127.0.0.1:9\n  bank: http://127.0.0.1:9\ndefault_legacy: shop\n";
    flags.write("pointsman.yaml", main);
    let workflow = |name: &str, effect: &str| {
        format!(
            "workflow: {name}\nsteps:\n  charge: {{ call: 'POST ${{services.bank}}/charges', {effect}rehearse: legacy }}\n\
             respond: {{ status: 201 }}\n"
        )
    };
    flags.write("workflows/create.yaml", &workflow("create", ""));
    let route = |more: &str| {
        format!(
            "routes:\n  - {{ id: orders, match: {{ method: POST, path: /orders }}, legacy: shop, workflow: create{more} }}\n"
        )
    };
    flags.write("routes/orders.yaml", &route(""));
    let check = async || {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_pointsman"));
        let output = command.arg("check").arg(flags.path()).output().await.expect("it runs");
        (output.status.code(), output_text(&output))
    };
    let refused = async |why: &str| {
        let (code, text) = check().await;
        assert!(code == Some(1) && text.contains(why), "{why}: {text}");
    };
    refused("there is no `egress:`").await;
    refused("http://127.0.0.1:8090/bank").await;
    flags.write("pointsman.yaml", &format!("{main}egress: {{ listen: 127.0.0.1:8090 }}\n"));
    let (code, text) = check().await;
    assert_eq!(code, Some(0), "{text}");
    flags.write("routes/orders.yaml", &route(", compare: { effects: { charge: { unseen: 'over a queue' } } }"));
    refused("takes its output from legacy's calls").await;
    flags.write("routes/orders.yaml", &route(""));
    flags.write("workflows/create.yaml", &workflow("create", "effect: read, "));
    refused("this step reads").await;
    flags.write("workflows/create.yaml", "workflow: create\nsteps:\n  pay: { run: pay }\nrespond: { status: 201 }\n");
    flags.write("workflows/pay.yaml", &workflow("pay", ""));
    let (code, text) = check().await;
    assert_eq!(code, Some(0), "{text}");
    flags.write("routes/orders.yaml", &route(", compare: { effects: { pay: { unseen: 'over a queue' } } }"));
    refused("`pay/charge` takes its output from legacy's calls").await;
    flags.write("routes/orders.yaml", &route(""));
    flags.write("pointsman.yaml", main);
    refused("there is no `egress:`").await;
}

/// The charge is made by a workflow that the route's workflow runs.
#[tokio::test(flavor = "multi_thread")]
async fn a_step_of_a_workflow_below_takes_the_reply_that_legacys_call_got() {
    for state in ["shadow", "dark"] {
        let shop = Shop::start("1s", WITH_ID).await;
        shop.flags.write(
            "workflows/create.yaml",
            "workflow: create\nsteps:\n  pay:\n    run: pay\n    \
             input: { ref: '${request.body.ref}', amount: '${request.body.amount}' }\n\
             respond:\n  status: 201\n  \
             body: { ref: '${request.body.ref}', payment: '${steps.pay.output.id}', fee: '${steps.pay.output.fee}' }\n",
        );
        shop.flags.write(
            "workflows/pay.yaml",
            "workflow: pay\nsteps:\n  charge:\n    call: POST ${services.bank}/charges\n    \
             body: { order: '${request.body.ref}', amount: '${request.body.amount}' }\n    rehearse: legacy\n\
             respond: { status: 200, body: '${steps.charge.output}' }\n",
        );
        let mut said = shop.cli(&["reload"]).await;
        if state == "dark" {
            said += &shop.cli(&["flip", "orders", "dark", "--force", "--reason", "a test"]).await;
        }
        for amount in 10..13 {
            assert_eq!(shop.order("right", amount).await, StatusCode::CREATED);
        }
        let evidence = shop.settled(3).await;
        assert_eq!((&evidence["matched"], &evidence["skipped"]), (&json!(3), &json!({})), "{state}: {evidence} {said}");
        assert_eq!(
            evidence["effects"]["pay/charge"],
            json!({ "intents": 3, "compared": 3, "asserted": 0 }),
            "{state}: {evidence}"
        );
        // A wrong amount differs, and does not copy legacy's value over itself.
        shop.order("wrong", 20).await;
        shop.settled(4).await;
        let shown = shop.until_sample("effect_differs").await.to_string();
        assert!(shown.contains("effects.pay/charge.body.amount") && !shown.contains("$.payment"), "{state}: {shown}");
        let taken = [("route", "orders"), ("outcome", "taken")];
        assert_eq!(shop.pointsman.metrics().await.sum("pointsman_effects_rehearsed_total", &taken), 4.0, "{state}");
        assert_eq!(shop.charges.load(SeqCst), 4, "{state}: legacy made all charges, and the engine none");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gate_to_live_names_a_shared_step_that_nothing_compared() {
    let shop = Shop::start("1s", WITH_ID).await;
    shop.flags.edit("workflows/create.yaml", |text| {
        let print = "  print:\n    if: ${request.body.amount > 1000}\n    call: POST ${services.bank}/prints\n    rehearse: {}\n";
        text.replace("respond:", &format!("{print}respond:"))
    });
    let reloaded = shop.cli(&["reload"]).await;
    let compare = async |kind: &str, amount: u64, pairs: u64| {
        let first = shop.settled(0).await["dark_pairs"].as_u64().expect("a number");
        for _ in first..pairs {
            shop.order(kind, amount).await;
        }
        shop.settled(pairs).await
    };
    let dark = shop.cli(&["flip", "orders", "dark", "--force", "--reason", "a test"]).await;
    let evidence = compare("right", 10, 20).await;
    assert_eq!(
        (&evidence["dark_pairs"], &evidence["matched"]),
        (&json!(20), &json!(20)),
        "{evidence} {dark} {reloaded}"
    );
    let view = shop.pointsman.get("/api/v2/routes/orders/evidence").await;
    assert_eq!(view["uncompared_steps"], json!(["print"]), "{view}");
    let shown = shop.cli(&["evidence", "orders"]).await;
    assert!(shown.contains("shared steps that nothing compared yet: print"), "{shown}");
    let refused = shop.cli(&["flip", "orders", "live"]).await;
    assert!(refused.contains("`print` (0 of 0 calls)"), "{refused}");
    // A reason why its calls are not seen. It changes the rules, so the evidence starts anew.
    shop.flags.edit("routes/orders.yaml", |text| {
        text.replace("state: shadow", "state: shadow, compare: { effects: { print: { unseen: over a queue } } }")
    });
    let reloaded = shop.cli(&["reload"]).await;
    let evidence = compare("right", 10, 20).await;
    assert_eq!(evidence["matched"], json!(20), "{evidence} {reloaded}");
    let live = shop.pointsman.cli(&["flip", "orders", "live"]).await;
    assert!(live.status.success(), "{}", output_text(&live));
}

#[tokio::test(flavor = "multi_thread")]
async fn check_warns_of_shared_steps_that_nothing_will_compare() {
    let flags = FlagsDir::empty();
    let main = "services:\n  shop: http://127.0.0.1:9\n  bank: http://127.0.0.1:9\ndefault_legacy: shop\n";
    flags.write("pointsman.yaml", main);
    flags.write(
        "workflows/create.yaml",
        "workflow: create\nsteps:\n  charge: { call: 'POST ${services.bank}/charges', rehearse: {} }\nrespond: { status: 201 }\n",
    );
    let check = async |state: &str, compare: &str| {
        let route = format!(
            "routes:\n  - {{ id: orders, match: {{ method: POST, path: /orders }}, legacy: shop, workflow: create, \
             state: {state}, force: {{ reason: a test }}, compare: {{ {compare} }} }}\n"
        );
        flags.write("routes/orders.yaml", &route);
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_pointsman"));
        output_text(&command.arg("check").arg(flags.path()).output().await.expect("it runs"))
    };
    let warning = "nothing compares the calls of the shared step `charge`";
    for state in ["shadow", "dark"] {
        let text = check(state, "").await;
        assert!(text.contains(warning) && text.contains("compare.effects.charge.unseen"), "{state}: {text}");
    }
    for (state, compare) in [
        ("off", ""),
        ("dark", "assert: ['${intents.charge.body == legacy.body}']"),
        ("dark", "effects: { charge: { unseen: over a queue } }"),
    ] {
        let text = check(state, compare).await;
        assert!(!text.contains(warning), "{state} {compare}: {text}");
    }
    flags.write("pointsman.yaml", &format!("{main}egress: {{ listen: 127.0.0.1:8090 }}\n"));
    let text = check("dark", "").await;
    assert!(!text.contains(warning), "{text}");
}

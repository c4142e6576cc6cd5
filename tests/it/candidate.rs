//! A changed workflow of a route in `live` is a candidate: it reaches no caller, is rehearsed against the plan in force
//! and what that really sent, and comes into force only through its gate.

use std::collections::BTreeMap;

use http::Method;
use serde_json::Value;

use crate::support::process::output_text;
use crate::support::test_system::{FAMILY, TestSystem, some_order};
use crate::support::until;

const CREATE: &str = "workflows/create-order.yaml";
const AMOUNT: &str = "body: { amount: \"${steps.total.output}\" }";

/// The example set with its family in `live`, by force.
pub(super) async fn in_live() -> TestSystem {
    let system = TestSystem::start().await;
    flip_to_live(&system).await;
    system
}

/// Flips the routes of the family to `live`, by force.
pub(super) async fn flip_to_live(system: &TestSystem) {
    for route in FAMILY {
        let flipped = system.flip(route, "live", &["--force", "--reason", "the test begins in live"]).await;
        flipped.expect("force passes the gates");
    }
}

pub(super) async fn cli(system: &TestSystem, arguments: &[&str]) -> (Option<i32>, String) {
    let output = system.pointsman.cli(arguments).await;
    (output.status.code(), output_text(&output))
}

/// Changes the workflow that creates orders, and waits until the files are in force.
pub(super) async fn edit(system: &TestSystem, from: &str, to: &str) {
    system.flags.edit(CREATE, |text| {
        assert!(text.contains(from), "{text}");
        text.replacen(from, to, 1)
    });
    let (code, text) = cli(system, &["reload"]).await;
    assert_eq!(code, Some(0), "{text}");
}

/// The row of the route that creates orders.
pub(super) async fn row(system: &TestSystem) -> Value {
    system.pointsman.get("/api/v2/routes/orders.create").await["row"].clone()
}

/// Waits until this many pairs of the candidate are compared or skipped, and returns its evidence.
pub(super) async fn candidate_evidence(system: &TestSystem, pairs: u64) -> Value {
    let found = until("the candidate's pairs", || async {
        let view = system.pointsman.get("/api/v2/routes/orders.create/evidence?candidate=true").await;
        let count = |name: &str| view["evidence"][name].as_u64().unwrap_or(0);
        let skipped = view["evidence"]["skipped"].as_object().into_iter().flatten();
        let skipped: u64 = skipped.filter_map(|(_, count)| count.as_u64()).sum();
        let failed = view["evidence"]["failed"].as_object().into_iter().flatten();
        let failed: u64 = failed.filter_map(|(_, count)| count.as_u64()).sum();
        (count("shadow_pairs") + skipped + failed >= pairs).then_some(view)
    });
    found.await["evidence"].clone()
}

/// How often the evidence of a route started anew, or went on with earlier evidence, because its basis changed.
async fn basis_changes(system: &TestSystem, route: &str) -> usize {
    let page = system.pointsman.get("/api/v2/record").await;
    let entries = page["entries"].as_array().expect("entries").clone();
    entries.iter().filter(|entry| entry["kind"] == "basis" && entry["route"] == route).count()
}

/// The amounts that the bank was asked for, without those of legacy.
fn charged(system: &TestSystem) -> Vec<String> {
    let entries = system.world.ledger().entries();
    let charges = entries.iter().filter(|entry| entry.operation == "charge");
    charges.map(|entry| entry.amount.as_ref().expect("an amount").to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_amount_reaches_no_caller_and_a_right_change_passes_the_gate() {
    let mut system = in_live().await;
    let first = system.order().await;
    let plan = row(&system).await["plan"].as_str().expect("a plan in force").to_owned();
    assert!(plan.starts_with("plan_"), "{plan}");

    edit(&system, AMOUNT, "body: { amount: \"${steps.total.output + 1.0}\" }").await;
    let changed = row(&system).await;
    assert_eq!(changed["plan"], plan.as_str(), "the plan in force stays");
    let wrong = changed["candidate"]["plan"].as_str().expect("a candidate").to_owned();
    assert_ne!(wrong, plan);
    let mut totals = vec![first["total"].to_string()];
    for _ in 0..10 {
        totals.push(system.order().await["total"].to_string());
    }
    let evidence = candidate_evidence(&system, 10).await;
    assert_eq!(evidence["mismatched"], 10, "each is found: {evidence}");
    assert_eq!(charged(&system), totals, "each order is charged once, and rightly");
    let (_, of_route) = cli(&system, &["diffs", "orders.create"]).await;
    assert!(of_route.contains("`pointsman diffs orders.create --candidate`"), "{of_route}");
    let (_, diffs) = cli(&system, &["diffs", "orders.create", "--candidate", "--json"]).await;
    assert!(diffs.contains("effect_differs") && diffs.contains("effects.charge.body.amount"), "{diffs}");
    let (code, refused) = cli(&system, &["flip", "orders.create", "--candidate", "in-force"]).await;
    assert!(code == Some(1) && refused.contains("10 open mismatches"), "{refused}");
    for _ in 0..2 {
        let asked = ["flip", "orders.create", "--candidate", "live", "--percent", "10", "--reason", "a try"];
        assert_eq!(cli(&system, &asked).await.0, Some(1));
    }
    let entries = until("the refused moves in the record", || async {
        let page = system.pointsman.get("/api/v2/record").await;
        let entries = page["entries"].as_array().cloned().unwrap_or_default();
        let refused: Vec<Value> = entries.into_iter().filter(|entry| entry["kind"] == "refused").collect();
        (refused.len() == 2).then_some(refused)
    })
    .await;
    let asked = |entry: &Value| [&entry["body"]["to"], &entry["body"]["percent"]].map(Value::clone);
    assert_eq!(asked(&entries[0]), ["in-force".into(), Value::Null]);
    assert_eq!(asked(&entries[1]), [Value::from("live"), "10%".into()]);
    for entry in &entries {
        let body = &entry["body"];
        assert_eq!((&entry["route"], &body["candidate"]), (&"orders.create".into(), &wrong.as_str().into()));
        assert_eq!(body["evidence"]["mismatched"], 10, "the evidence of the candidate: {body}");
        assert!(body["why"].to_string().contains("10 open mismatches"), "{body}");
    }
    let (_, record) = cli(&system, &["record", "show", "orders.create"]).await;
    assert!(record.contains("refused: candidate to live 10%"), "{record}");
    let (_, status) = cli(&system, &["status"]).await;
    assert!(status.contains("is a candidate") && status.contains(&wrong), "{status}");

    system.kill().await;
    system.restart().await;
    let again = row(&system).await;
    assert_eq!((&again["plan"], &again["candidate"]["plan"]), (&plan.as_str().into(), &wrong.as_str().into()));
    totals.push(system.order().await["total"].to_string());
    assert_eq!(charged(&system), totals, "after a restart too");

    edit(&system, "body: { amount: \"${steps.total.output + 1.0}\" }", AMOUNT).await;
    let back = row(&system).await;
    assert_eq!((&back["plan"], &back["candidate"]), (&plan.as_str().into(), &Value::Null));

    edit(&system, "  confirm:\n", "  noted:\n    set: ${steps.total.output}\n  confirm:\n").await;
    let right = row(&system).await["candidate"]["plan"].as_str().expect("a candidate").to_owned();
    for _ in 0..30 {
        system.order().await;
    }
    let evidence = candidate_evidence(&system, 30).await;
    // Equal by the rule for ids, of which some correspond.
    assert_eq!((&evidence["mismatched"], &evidence["ignored"]), (&0.into(), &30.into()), "{evidence}");
    let (code, text) = cli(&system, &["evidence", "orders.create", "--candidate"]).await;
    assert!(code == Some(0) && text.contains("its gate is open"), "{text}");
    let (code, moved) = cli(&system, &["flip", "orders.create", "--candidate", "in-force"]).await;
    assert!(code == Some(0) && moved.contains(&right), "{moved}");
    assert_eq!(basis_changes(&system, "orders.cancel").await, 0, "the evidence of a follower goes on");
    let promoted = row(&system).await;
    assert_eq!((&promoted["plan"], &promoted["candidate"]), (&right.as_str().into(), &Value::Null));
    let last = system.order().await;
    system.cancel(&first).await;
    system.cancel(&last).await;
    let runs = system.pointsman.get("/api/v2/orchestrate/runs?route=orders.create&limit=1").await;
    assert_eq!(runs["runs"][0]["plan_id"], right.as_str(), "{runs}");

    system.kill().await;
    system.restart().await;
    assert_eq!(row(&system).await["plan"], right.as_str(), "the promoted plan is in force after a restart");
    assert_eq!(basis_changes(&system, "orders.cancel").await, 0, "also after a restart");
    let (_, flips) = cli(&system, &["flips", "orders.create"]).await;
    for what in ["candidate appeared", "candidate dropped", "candidate promoted"] {
        assert!(flips.contains(what), "{what}: {flips}");
    }
    edit(&system, "  noted:\n", "  marked:\n").await;
    let forced = ["flip", "orders.create", "--candidate", "in-force", "--force", "--reason", "a drill"];
    let (code, text) = cli(&system, &forced).await;
    assert_eq!(code, Some(0), "{text}");
    // The record's entry is added in the background, after the flip is acknowledged.
    until("an entry of the changed basis", || async {
        (basis_changes(&system, "orders.cancel").await > 0).then_some(())
    })
    .await;
    assert_eq!(basis_changes(&system, "orders.cancel").await, 1, "nothing says that its instances are the same");
    let (code, record) = cli(&system, &["record", "verify"]).await;
    assert_eq!(code, Some(0), "{record}");
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_lack_what_the_plan_in_force_needs_are_refused_and_at_a_start_legacy_answers() {
    let mut system = in_live().await;
    system.order().await;
    let plan = row(&system).await["plan"].clone();
    // The changed workflow needs the service no more, but the plan in force does.
    system.flags.edit(CREATE, |text| text.replace("services.prices", "services.stock"));
    system.flags.edit("pointsman.yaml", |text| {
        let without = text.lines().filter(|line| !line.starts_with("  prices:"));
        without.map(|line| format!("{line}\n")).collect()
    });
    let (code, text) = cli(&system, &["reload"]).await;
    assert_eq!(code, Some(1), "{text}");
    for part in ["the service `prices`", "orders.create", "flip `orders.create` to `dark`"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let order = system.order().await;
    assert_eq!(row(&system).await["plan"], plan, "the last good files are in force");
    // A process that starts with these files serves all other routes, and runs neither plan for this one.
    system.kill().await;
    system.restart().await;
    let trouble = row(&system).await["plan_trouble"].as_str().expect("a trouble").to_owned();
    assert!(trouble.contains("the service `prices`"), "{trouble}");
    let (_, status) = cli(&system, &["status"]).await;
    assert!(status.contains("orders.create: not run: ") && status.contains("prices"), "{status}");
    let metrics = system.pointsman.metrics().await;
    assert_eq!(metrics.sum("pointsman_plan_unrunnable", &[("route", "orders.create")]), 1.0);
    let runs = "/api/v2/orchestrate/runs?route=orders.create&limit=10";
    let before = system.pointsman.get(runs).await["runs"].as_array().map(Vec::len);
    system.order().await;
    let after = system.pointsman.get(runs).await["runs"].as_array().map(Vec::len);
    assert_eq!(after, before, "legacy has answered");
    // Files that are no better are loaded.
    system.flags.edit(CREATE, |text| format!("{text}# a comment\n"));
    assert_eq!(cli(&system, &["reload"]).await.0, Some(0));
    system.flags.edit("pointsman.yaml", |text| {
        let prices = format!("services:\n  prices: {}/prices\n", system.world.url());
        text.replacen("services:\n", &prices, 1)
    });
    assert_eq!(cli(&system, &["reload"]).await.0, Some(0));
    let mended = row(&system).await;
    assert_eq!((&mended["plan"], &mended["plan_trouble"]), (&plan, &Value::Null), "it is run again");
    assert!(!mended["candidate"].is_null());
    system.order().await;
    assert_ne!(system.pointsman.get(runs).await["runs"].as_array().map(Vec::len), before, "the engine has answered");
    let (code, text) = cli(&system, &["flip", "orders.create", "dark", "--reason", "a new service"]).await;
    assert_eq!(code, Some(0), "{text}");
    until("the plan to be dropped", || async { row(&system).await["plan"].is_null().then_some(()) }).await;
    system.cancel(&order).await;
    let (_, flips) = cli(&system, &["flips", "orders.create"]).await;
    assert!(flips.contains("candidate dropped"), "{flips}");
    system.finish().await;
}

const CHILD: &str = "workflow: label-order\nsteps: { text: { set: LABEL } }\nrespond: { status: 200, body: { text: '${steps.text.output}' } }\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_child_workflow_is_a_candidate_too() {
    let mut system = TestSystem::with(|flags| {
        flags.write("workflows/label-order.yaml", &CHILD.replace("LABEL", "old"));
        flags.edit(CREATE, |text| {
            let text = text.replacen("  confirm:\n", "  label:\n    run: label-order\n    input: {}\n  confirm:\n", 1);
            text.replacen(
                "    status: confirmed\n",
                "    status: confirmed\n    label: ${steps.label.output.text}\n",
                1,
            )
        });
    })
    .await;
    flip_to_live(&system).await;
    assert_eq!(system.order().await["label"], "old");
    let plan = row(&system).await["plan"].as_str().expect("a plan").to_owned();
    assert!(plan.contains('+'), "a hash over both: {plan}");
    system.flags.write("workflows/label-order.yaml", &CHILD.replace("LABEL", "new"));
    let (code, text) = cli(&system, &["reload"]).await;
    assert_eq!(code, Some(0), "{text}");
    for _ in 0..5 {
        assert_eq!(system.order().await["label"], "old");
    }
    assert_eq!(candidate_evidence(&system, 5).await["mismatched"], 5);
    let (_, diffs) = cli(&system, &["diffs", "orders.create", "--candidate", "--json"]).await;
    assert!(diffs.contains("$.label"), "{diffs}");
    system.kill().await;
    system.restart().await;
    assert_eq!(system.order().await["label"], "old", "after a restart too");
    let forced = ["flip", "orders.create", "--candidate", "in-force", "--force", "--reason", "the new label is right"];
    let (code, text) = cli(&system, &forced).await;
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(system.order().await["label"], "new");
    system.finish().await;
}

/// A follower in `only`: the instance that it follows up is the engine's, and the control has changed it already.
#[tokio::test(flavor = "multi_thread")]
async fn a_changed_follower_in_only_is_rehearsed_on_the_instances_of_the_engine() {
    const CANCEL: &str = "workflows/cancel-order.yaml";
    let system = in_live().await;
    for route in FAMILY {
        let flipped = system.flip(route, "only", &["--force", "--reason", "the test begins in only"]).await;
        flipped.expect("force passes the gates");
    }
    let evidence = async |pairs: u64| {
        until("the candidate's pairs", || async {
            let path = "/api/v2/routes/orders.cancel/evidence?candidate=true";
            let evidence = system.pointsman.get(path).await["evidence"].clone();
            (evidence["shadow_pairs"].as_u64() >= Some(pairs)).then_some(evidence)
        })
        .await
    };
    system.flags.edit(CANCEL, |text| text.replacen("  notify:\n", "  noted:\n    set: 1\n  notify:\n", 1));
    assert_eq!(cli(&system, &["reload"]).await.0, Some(0));
    for _ in 0..5 {
        system.cancel(&system.order().await).await;
    }
    let found = evidence(5).await;
    assert_eq!(
        (&found["mismatched"], &found["skipped"], &found["failed"]),
        (&0.into(), &Value::Object(Default::default()), &Value::Object(Default::default())),
        "{found}"
    );
    assert_eq!(found["effects"]["refund"]["compared"], 5, "{found}");
    system.flags.edit(CANCEL, |text| text.replacen("template: order-cancelled", "template: order-lost", 1));
    assert_eq!(cli(&system, &["reload"]).await.0, Some(0));
    system.cancel(&system.order().await).await;
    let (_, diffs) = until("the difference", || async {
        let shown = cli(&system, &["diffs", "orders.cancel", "--candidate", "--json"]).await;
        shown.1.contains("effect_differs").then_some(shown)
    })
    .await;
    assert!(diffs.contains("effects.notify.body.template"), "{diffs}");
    system.finish().await;
}

/// The plans of the runs that answered the last orders, by how many each answered.
async fn plans_of_orders(system: &TestSystem, last: usize) -> BTreeMap<String, usize> {
    let path = format!("/api/v2/orchestrate/runs?route=orders.create&limit={last}");
    let runs = system.pointsman.get(&path).await;
    let mut plans = BTreeMap::new();
    for run in runs["runs"].as_array().expect("runs") {
        *plans.entry(run["plan_id"].as_str().expect("a plan").to_owned()).or_default() += 1;
    }
    plans
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_of_new_orders_goes_to_the_candidate_and_a_retry_stays_with_the_version_of_its_first_try() {
    // Every request has a key of its own.
    let mut system = TestSystem::with(|flags| {
        flags.edit("routes/orders.yaml", |text| text.replacen("headers[\"x-tenant\"]", "headers[\"traceparent\"]", 1));
    })
    .await;
    flip_to_live(&system).await;
    let first = system.order().await;
    let plan = row(&system).await["plan"].as_str().expect("a plan in force").to_owned();
    edit(&system, "  confirm:\n", "  noted:\n    set: ${steps.total.output}\n  confirm:\n").await;
    let candidate = row(&system).await["candidate"]["plan"].as_str().expect("a candidate").to_owned();
    let (code, refused) = cli(&system, &["flip", "orders.create", "--candidate", "live", "--percent", "50"]).await;
    assert!(code == Some(1) && refused.contains("more compared pairs"), "{refused}");
    for _ in 0..30 {
        system.order().await;
    }
    assert_eq!(plans_of_orders(&system, 30).await, [(plan.clone(), 30)].into(), "it is only rehearsed");
    candidate_evidence(&system, 30).await;
    let (code, moved) = cli(&system, &["flip", "orders.create", "--candidate", "live", "--percent", "50"]).await;
    assert!(code == Some(0) && moved.contains("answers 50 % of new requests"), "{moved}");
    let mut orders = Vec::new();
    for _ in 0..60 {
        orders.push(system.order().await);
    }
    let found = plans_of_orders(&system, 60).await;
    // Of 60 by a fair coin: outside of this once in ten million.
    assert!((10..=50).contains(found.get(&candidate).unwrap_or(&0)) && found.len() == 2, "{found:?}");
    let shown = row(&system).await;
    assert_eq!((&shown["plan"], &shown["candidate"]["stage"]), (&plan.as_str().into(), &"live".into()));
    let metrics = system.pointsman.metrics().await;
    assert_eq!(metrics.sum("pointsman_candidate_share", &[("route", "orders.create")]), 0.5);

    // Over a restart, and with the other routes of the family, whichever version made the instance.
    system.kill().await;
    system.restart().await;
    assert_eq!(row(&system).await["candidate"]["share"], 50.0, "after a restart");
    for order in orders.iter().take(4).chain([&first]) {
        system.cancel(order).await;
    }
    let (code, moved) = cli(&system, &["flip", "orders.create", "--candidate", "live", "--percent", "100"]).await;
    assert_eq!(code, Some(0), "{moved}");
    let begun = system.order().await;
    assert_eq!(plans_of_orders(&system, 1).await, [(candidate.clone(), 1)].into());
    let body = some_order(1);
    let keyed = [("idempotency-key", "one")];
    let tried = system.send_with(Method::POST, "/orders", &keyed, &body).await.expect("a reply").json();
    system.record_order(tried.clone());
    let (code, moved) = cli(&system, &["flip", "orders.create", "--candidate", "shadow"]).await;
    assert_eq!(code, Some(0), "{moved}");
    let again = system.send_with(Method::POST, "/orders", &keyed, &body).await.expect("a reply").json();
    assert_eq!(again, tried, "the run of its first try has answered");
    assert_eq!(plans_of_orders(&system, 1).await, [(candidate.clone(), 1)].into(), "and no other has begun");
    system.order().await;
    assert_eq!(plans_of_orders(&system, 1).await, [(plan.clone(), 1)].into(), "its share was taken away");
    system.cancel(&begun).await;
    let (_, flips) = cli(&system, &["flips", "orders.create"]).await;
    assert!(flips.contains("candidate moved") && flips.contains("live 50%"), "{flips}");
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guard_sets_the_share_of_a_failing_candidate_to_0() {
    const GUARD: &str = "    guard: { errors: 1%, at_least: 5, over: 50 }\n    retry_key:";
    let system = TestSystem::with(|flags| {
        flags.edit("routes/orders.yaml", |text| text.replacen("    retry_key:", GUARD, 1));
    })
    .await;
    flip_to_live(&system).await;
    system.order().await;
    let plan = row(&system).await["plan"].clone();
    // It fails before it has sent anything.
    edit(&system, "steps:\n", "steps:\n  broken:\n    fail: { status: 500, body: { error: broken } }\n").await;
    let forced = ["flip", "orders.create", "--candidate", "live", "--percent", "100", "--force", "--reason", "a drill"];
    let (code, text) = cli(&system, &forced).await;
    assert_eq!(code, Some(0), "{text}");
    let lost = until("the share to be taken away", || async {
        let order = some_order(1);
        let reply = system.send(Method::POST, "/orders", &order).await.expect("a reply");
        if reply.status.is_success() {
            system.record_order(reply.json());
        }
        let shown = row(&system).await;
        (shown["candidate"]["share"] == 0.0).then_some(shown)
    });
    let shown = lost.await;
    assert_eq!(
        (&shown["plan"], &shown["effective"]["state"]),
        (&plan, &"live".into()),
        "the route itself stays: {shown}"
    );
    system.order().await;
    let (_, flips) = cli(&system, &["flips", "orders.create"]).await;
    assert!(flips.contains("guard") && flips.contains("candidate moved"), "{flips}");
    let (_, status) = cli(&system, &["status"]).await;
    assert!(status.contains("The guard took its share of new requests away: "), "{status}");
    system.finish().await;
}

//! The files give a route in `live` requests that legacy served before: a retry of one stays with legacy, and nothing
//! is done twice.

use http::StatusCode;
use serde_json::{Value, json};

use crate::legacy_keys::{charges, force, send_keyed};
use crate::support::seed::report_violations;
use crate::support::test_system::TestSystem;
use crate::support::until;

const ORDERS: &str = "routes/orders.yaml";
const CREATE: &str = "match: { method: POST, path: /orders }";

async fn row(system: &TestSystem, route: &str) -> Value {
    system.pointsman.get(&format!("/api/v2/routes/{route}")).await
}

/// Changes the route that creates orders, and waits until the files are in force.
async fn edit_files(system: &TestSystem, from: &str, to: &str) {
    let generation = || async { system.pointsman.get("/api/v2/status").await["flags"]["generation"].as_u64() };
    let before = generation().await;
    system.flags.edit(ORDERS, |text| {
        assert!(text.contains(from), "{text}");
        text.replacen(from, to, 1)
    });
    until("the files to be in force", || async { (generation().await > before).then_some(()) }).await;
}

/// Places an order, or sends it again; returns its id.
async fn order(system: &TestSystem, key: &str, number: u64) -> Value {
    let reply = send_keyed(system, key, number).await;
    assert_eq!(reply.status, StatusCode::CREATED, "{key}: {}", reply.json());
    reply.json()["id"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_route_that_gets_another_match_is_held_while_retries_may_come() {
    let elsewhere = CREATE.replace("/orders", "/purchases");
    let mut system = TestSystem::with(|flags| flags.edit(ORDERS, |text| text.replacen(CREATE, &elsewhere, 1))).await;
    system.allowed.unacknowledged = true;
    force(&system, "live").await;
    let by_legacy = order(&system, "one", 1).await;
    assert!(by_legacy.is_number(), "no route matches it: {by_legacy}");
    let before = charges(&system);

    edit_files(&system, &elsewhere, CREATE).await;
    for when in ["after a reload", "after a restart"] {
        let shown = row(&system, "orders.create").await;
        assert_eq!(shown["row"]["effective"], json!({ "state": "dark", "why": "gate" }), "{when}: {shown}");
        assert_eq!(shown["row"]["requested"], "live", "{when}");
        let why = shown["refused"].to_string();
        assert!(
            why.contains("held at `dark`") && why.contains("until 20") && why.contains("force: {"),
            "{when}: {why}"
        );
        assert_eq!(order(&system, "one", 1).await, by_legacy, "{when}");
        assert_eq!(charges(&system), before, "{when}: nothing is done again");
        let refusal = system.flip("orders.create", "live", &["--reason", "up again"]).await.expect_err("it is held");
        assert!(refusal.contains("the route's retry keys are recorded since"), "{when}: {refusal}");
        system.kill().await;
        system.restart().await;
    }
    // A forced flip puts the route in `live`, and it stays there.
    system.flip("orders.create", "live", &["--force", "--reason", "no client retries"]).await.expect("it is forced");
    edit_files(&system, CREATE, &format!("{CREATE} # as it was")).await;
    let by_engine = order(&system, "two", 2).await;
    assert!(by_engine.is_string(), "the engine answers: {by_engine}");
    assert_eq!(order(&system, "one", 1).await, by_legacy, "its retry key was recorded while the route was held");
    assert_eq!(charges(&system), before + 1, "once");
    system.wait_for_runs_to_end().await;
    system.finish().await;
    let test = "match_changes::a_live_route_that_gets_another_match_is_held_while_retries_may_come";
    report_violations(test, None, "2 orders, 1 change, 2 kills", &[]);
}

/// A route that is `off` loses its requests to one that is `live` and matches them too.
#[tokio::test(flavor = "multi_thread")]
async fn a_retry_of_a_request_of_another_route_is_found() {
    const ANY: &str = "routes:
  - id: any.create
    match: { method: POST, path: \"/{kind}\" }
    legacy: shop
    workflow: create-order
    state: off
    retry_key: ${request.headers[\"idempotency-key\"]}
";
    let mut system = TestSystem::with(|flags| flags.write("routes/any.yaml", ANY)).await;
    system.allowed.unacknowledged = true;
    for rung in ["shadow", "dark", "live"] {
        system.flip("any.create", rung, &["--force", "--reason", "the test climbs"]).await.expect("it is forced");
    }
    let by_legacy = order(&system, "one", 1).await;
    assert!(by_legacy.is_number(), "orders.create is `off`: {by_legacy}");
    let before = charges(&system);
    edit_files(&system, CREATE, "match: { method: POST, path: /orders, host: other.example }").await;
    for when in ["after a reload", "after a restart"] {
        let shown = row(&system, "any.create").await;
        assert_eq!(shown["row"]["effective"]["state"], "live", "{when}: all keys were recorded: {shown}");
        assert_eq!(order(&system, "one", 1).await, by_legacy, "{when}");
        assert_eq!(charges(&system), before, "{when}: nothing is done again");
        system.kill().await;
        system.restart().await;
    }
    let by_engine = order(&system, "two", 2).await;
    assert!(by_engine.is_string(), "the engine answers a new request: {by_engine}");
    assert_eq!(charges(&system), before + 1, "once");
    system.wait_for_runs_to_end().await;
    system.finish().await;
    let test = "match_changes::a_retry_of_a_request_of_another_route_is_found";
    report_violations(test, None, "2 orders, 1 change, 2 kills", &[]);
}

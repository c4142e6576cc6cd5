//! One request delivered many times, concurrently and across a crash: one run, one answer, one set of effects.

use std::time::Duration;

use futures_util::future::join_all;
use http::{Method, StatusCode};
use pointsman::demo::http::{Client, Reply};
use pointsman::demo::world::Fault;
use serde_json::{Value, json};

use crate::support::seed::report_violations;
use crate::support::test_system::{TestSystem, some_order};
use crate::support::{WAIT_MAX, until_true};

const KEY: [(&str, &str); 1] = [("idempotency-key", "the-one")];

/// Sends the same request `times` times concurrently; every answer has to be the same created order, which is returned.
async fn deliver_concurrently(system: &TestSystem, times: usize, body: &Value) -> Value {
    let replies = join_all((0..times).map(|_| system.send_with(Method::POST, "/orders", &KEY, body))).await;
    let replies: Vec<Reply> = replies.into_iter().map(|reply| reply.expect("a reply")).collect();
    for reply in &replies {
        assert_eq!(reply.status, StatusCode::CREATED, "{}", reply.json());
        assert_eq!(reply.body, replies[0].body, "identical answers");
        assert_eq!(reply.headers.get("location"), replies[0].headers.get("location"));
    }
    replies[0].json()
}

async fn another_body_is_refused(system: &TestSystem) {
    let other = system.send_with(Method::POST, "/orders", &KEY, &some_order(8)).await.expect("a reply");
    assert_eq!(other.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", other.json());
}

async fn count_runs(system: &TestSystem) -> usize {
    let runs = system.pointsman.get("/api/v2/orchestrate/runs?route=orders.create&mode=real&limit=1000").await;
    runs["runs"].as_array().map_or(0, Vec::len)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_deliveries_with_one_key_are_one_run_also_after_a_kill() {
    let mut system = TestSystem::start().await;
    system.climb_to("live").await;
    let before = (count_runs(&system).await, system.world.ledger().balance().total("charge"));
    let body = some_order(7);
    let first = deliver_concurrently(&system, 200, &body).await;
    assert!(first["id"].is_string(), "the engine made it: {first}");
    system.record_order(first.clone());
    another_body_is_refused(&system).await;
    system.kill().await;
    system.restart().await;
    assert_eq!(
        deliver_concurrently(&system, 200, &body).await,
        first,
        "the answer from before the kill is given again"
    );
    another_body_is_refused(&system).await;
    system.lower("off").await;
    assert_eq!(deliver_concurrently(&system, 20, &body).await, first, "whatever the state of the route");
    let after = (count_runs(&system).await, system.world.ledger().balance().total("charge"));
    assert_eq!(after, (before.0 + 1, before.1 + 1), "runs and charges");
    system.finish().await;
    let test = "duplicates::two_hundred_deliveries_with_one_key_are_one_run_also_after_a_kill";
    report_violations(test, None, "422 deliveries, 1 kill, 1 run", &[]);
}

/// No delivery waits until the deadline of the route without getting the answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_deliveries_in_one_instant_all_get_the_answer_of_one_run() {
    let system = TestSystem::start().await;
    system.climb_to("live").await;
    let before = (count_runs(&system).await, system.world.ledger().balance().total("charge"));
    let first = deliver_concurrently(&system, 1_000, &some_order(7)).await;
    assert_eq!(deliver_concurrently(&system, 1_000, &some_order(7)).await, first, "retries of a run that has ended");
    system.record_order(first);
    let after = (count_runs(&system).await, system.world.ledger().balance().total("charge"));
    assert_eq!(after, (before.0 + 1, before.1 + 1), "runs and charges");
    system.finish().await;
    let test = "duplicates::a_thousand_deliveries_in_one_instant_all_get_the_answer_of_one_run";
    report_violations(test, None, "2,000 deliveries, 1 run", &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_repeated_after_a_kill_get_the_recovered_run() {
    let mut system = TestSystem::start().await;
    system.climb_to("live").await;
    let before = (count_runs(&system).await, system.world.ledger().balance().total("charge"));
    let body = some_order(9);
    let arrived = system.world.arrived("charge");
    system.world.fault("charge", Fault::Delay(Duration::from_secs(30)), 1);
    {
        let requests = join_all((0..20).map(|_| system.send_with(Method::POST, "/orders", &KEY, &body)));
        let charging = until_true("the charge to arrive", || system.world.arrived("charge") > arrived);
        tokio::select! {
            replies = requests => panic!("{} answers before the kill", replies.len()),
            () = charging => {}
        }
    }
    system.kill().await;
    system.world.clear_faults();
    system.restart().await;
    let order = deliver_concurrently(&system, 20, &body).await;
    system.record_order(order);
    another_body_is_refused(&system).await;
    let after = (count_runs(&system).await, system.world.ledger().balance().total("charge"));
    assert_eq!(after, (before.0 + 1, before.1 + 1), "runs and charges");
    system.finish().await;
    let test = "duplicates::deliveries_repeated_after_a_kill_get_the_recovered_run";
    report_violations(test, None, "41 deliveries, 1 kill, 1 run", &[]);
}

/// Sends the same start `times` times concurrently; every response has to have the status `wanted`. Returns their data.
async fn start_concurrently(system: &TestSystem, times: usize, input: &Value, wanted: StatusCode) -> Vec<Value> {
    let url = format!("{}/api/v2/orchestrate/run", system.pointsman.admin_url());
    let body = json!({ "workflow": "create-order", "input": input, "idempotency_key": "the-one" });
    let client = Client::new(WAIT_MAX);
    let replies = join_all((0..times).map(|_| client.json(Method::POST, &url, &[], &body))).await;
    let of = |reply: Result<Reply, _>| {
        let reply = reply.unwrap_or_else(|why| panic!("{why}\n{}", system.pointsman.log()));
        assert_eq!(reply.status, wanted, "{}", reply.json());
        reply.json()["data"].clone()
    };
    replies.into_iter().map(of).collect()
}

fn one_answer(answers: &[Value]) -> &Value {
    assert!(answers.iter().all(|data| *data == answers[0]), "identical answers: {answers:?}");
    assert_eq!(answers[0]["status"], "completed");
    &answers[0]
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_starts_with_one_key_are_one_run_also_after_a_kill() {
    let mut system = TestSystem::start().await;
    system.allowed.unacknowledged = true;
    let input = some_order(7);
    let answers = start_concurrently(&system, 200, &input, StatusCode::OK).await;
    let first = one_answer(&answers).clone();
    start_concurrently(&system, 20, &some_order(8), StatusCode::UNPROCESSABLE_ENTITY).await;
    system.kill().await;
    system.restart().await;
    let answers = start_concurrently(&system, 200, &input, StatusCode::OK).await;
    assert_eq!(*one_answer(&answers), first, "the answer from before the kill is given again");
    start_concurrently(&system, 20, &some_order(8), StatusCode::UNPROCESSABLE_ENTITY).await;
    let balance = system.world.ledger().balance();
    assert_eq!((balance.total("charge"), balance.repeated_deliveries), (1, 0), "{balance:?}");
    system.finish().await;
    let test = "duplicates::two_hundred_starts_with_one_key_are_one_run_also_after_a_kill";
    report_violations(test, None, "440 starts, 1 kill, 1 run", &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn starts_repeated_after_a_kill_get_the_recovered_run() {
    let mut system = TestSystem::start().await;
    system.allowed.unacknowledged = true;
    let input = some_order(9);
    system.world.fault("charge", Fault::DelayReply(Duration::from_secs(30)), 1);
    {
        let requests = start_concurrently(&system, 100, &input, StatusCode::OK);
        let charging = until_true("the charge to arrive", || system.world.arrived("charge") > 0);
        tokio::select! {
            _ = requests => panic!("answered before the kill"),
            () = charging => {}
        }
    }
    system.kill().await;
    system.world.clear_faults();
    system.restart().await;
    let answers = start_concurrently(&system, 100, &input, StatusCode::OK).await;
    one_answer(&answers);
    start_concurrently(&system, 20, &some_order(8), StatusCode::UNPROCESSABLE_ENTITY).await;
    let balance = system.world.ledger().balance();
    assert_eq!((balance.total("charge"), balance.repeated_deliveries), (1, 1), "{balance:?}");
    system.finish().await;
    let test = "duplicates::starts_repeated_after_a_kill_get_the_recovered_run";
    report_violations(test, None, "220 starts, 1 kill, 1 run", &[]);
}

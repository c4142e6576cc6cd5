//! Requests that were decided before a move which two processes on one PostgreSQL have in force since.

use std::time::Duration;

use http::Method;
use pointsman::demo::http::Client;
use pointsman::demo::world::Fault;
use serde_json::Value;
use sqlx::{Connection, Executor, PgConnection};
use tokio::task::block_in_place;

use crate::shared_moves::{flip, forced, requested};
use crate::support::seed::report_violations;
use crate::support::slow_order::SlowOrder;
use crate::support::test_system::{FAMILY, some_order};
use crate::support::two_processes::TwoProcesses;
use crate::support::{Metrics, WAIT_MAX, until, until_true};

/// The route that creates orders.
pub const CREATOR: &str = "orders.create";

/// Flips by force, and returns the reply.
pub async fn force(two: &TwoProcesses, at: usize, route: &str, to: &str) -> Value {
    let (status, reply) = flip(two, at, route, forced(to)).await;
    assert_eq!(status, 200, "{reply}");
    reply
}

/// Raises the family to `live`; returns once both have it in force.
pub async fn climb(two: &TwoProcesses) {
    for to in ["shadow", "dark", "live"] {
        for route in FAMILY {
            force(two, 0, route, to).await;
        }
    }
    for at in [0, 1] {
        until("the route to be in `live`", || async { (requested(two, at, CREATOR).await == "live").then_some(()) })
            .await;
    }
}

/// Waits until a process knows that the other one has its newest flip in force.
async fn wait_until_known(two: &TwoProcesses, at: usize) {
    until("the other process to have the flip", || async {
        let rows = two.processes[at].get("/api/v2/processes").await;
        let rows = rows.as_array().cloned().unwrap_or_default();
        let newest: Vec<u64> = rows.iter().filter_map(|row| row["newest_flip"].as_u64()).collect();
        (newest.len() == 2 && newest[0] == newest[1]).then_some(())
    })
    .await;
}

fn charges(two: &TwoProcesses) -> Vec<String> {
    let entries = two.world.ledger().entries();
    entries.into_iter().filter(|entry| entry.operation == "charge").map(|entry| entry.caused_by).collect()
}

/// The engine of one process takes a request that was decided in `live`, and the store is slow. Legacy gets no retry of
/// it at the other process, where the route is in `dark`, before the store has the key as legacy's.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_was_decided_in_live_is_the_engines_alone_although_the_route_went_down() {
    let Some(two) = TwoProcesses::start(&[]).await else { return };
    let client = Client::new(WAIT_MAX);
    climb(&two).await;
    let body = some_order(1);
    let headers = [("idempotency-key", "slow"), ("x-tenant", "tenant")];
    let mut slow = SlowOrder::begin(two.processes[1].listen, &headers, &body).await;
    force(&two, 0, CREATOR, "dark").await;
    until("the other process to follow", || async { (requested(&two, 1, CREATOR).await == "dark").then_some(()) })
        .await;
    wait_until_known(&two, 0).await;
    let mut store = PgConnection::connect(&two.cluster.url()).await.expect("a session");
    store.execute("BEGIN").await.expect("it begins");
    // Reads go on.
    store.execute("LOCK TABLE pointsman.retry_keys IN SHARE MODE").await.expect("it is locked");
    slow.send_rest().await;
    until_true("the engine to wait for the store", || {
        let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'pointsman.retry_keys'::regclass";
        let waiting = block_in_place(|| two.cluster.query(waiting)).expect("a count");
        waiting.trim() != "0"
    })
    .await;
    let url = format!("{}/orders", two.processes[0].url());
    let retry = client.json(Method::POST, &url, &headers, &body).await.expect("a reply");
    store.execute("ROLLBACK").await.expect("it is unlocked");
    let first = slow.end().await;
    let first_id = serde_json::from_slice::<Value>(&first.body).unwrap_or_default()["id"].clone();
    let mut wrong = Vec::new();
    let charged = charges(&two);
    // If the engine gave up, legacy may have the retry.
    if charged.len() > 1 || (first.status == 201 && first_id.is_string() && retry.status == 201) {
        let (status, retried) = (retry.status, retry.json());
        wrong.push(format!("charged by {charged:?}; {} {first_id}; the retry: {status} {retried}", first.status));
    }
    // Once it has it, legacy serves as before.
    until("legacy to serve new orders", || async {
        let headers = [("idempotency-key", "another"), ("x-tenant", "tenant")];
        let reply = client.json(Method::POST, &url, &headers, &some_order(2)).await.expect("a reply");
        (reply.status == 201 && reply.json()["id"].is_number()).then_some(())
    })
    .await;
    wrong.extend(two.finish(0).await);
    let test =
        "requests_across_moves::a_request_that_was_decided_in_live_is_the_engines_alone_although_the_route_went_down";
    report_violations(test, None, "1 order, 1 flip", &wrong);
}

/// The engine's first instance of a family is made while its route goes down. A process that starts meanwhile knows
/// that it may have to ask for the owner.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_starts_while_a_run_goes_on_finds_the_owner_of_its_instance() {
    let Some(two) = TwoProcesses::start(&[]).await else { return };
    let client = Client::new(WAIT_MAX);
    climb(&two).await;
    let headers = [("idempotency-key", "long"), ("x-tenant", "tenant")];
    let url = format!("{}/orders", two.processes[0].url());
    two.world.fault("charge", Fault::Delay(Duration::from_secs(8)), 1);
    let body = some_order(1);
    let order = client.json(Method::POST, &url, &headers, &body);
    let meanwhile = async {
        let is_running = |metrics: &Metrics| metrics.sum("pointsman_runs_active", &[("status", "running")]) > 0.0;
        two.processes[0].until_metric("the run to begin", is_running).await;
        force(&two, 1, CREATOR, "dark").await;
        two.start_another("third").await
    };
    let (created, mut third) = tokio::join!(order, meanwhile);
    let created = created.expect("a reply").json();
    let mut wrong = Vec::new();
    let path = format!("{}/orders/{}", third.url(), created["id"].as_str().unwrap_or_default());
    let shown = client.json(Method::GET, &path, &[], &Value::Null).await.expect("a reply");
    if shown.status != 200 || shown.json()["id"] != created["id"] {
        wrong.push(format!("{created} is answered with {} {}", shown.status, shown.json()));
    }
    third.stop().await;
    wrong.extend(two.finish(0).await);
    let test = "requests_across_moves::a_process_that_starts_while_a_run_goes_on_finds_the_owner_of_its_instance";
    report_violations(test, None, "1 order, 1 flip, 1 start", &wrong);
}

/// Legacy may have served requests in a process that was killed, whose keys the store does not have: the engine answers
/// only once a process has its file, or a person accepts that.
#[tokio::test(flavor = "multi_thread")]
async fn a_flip_to_live_names_a_process_that_was_killed_until_its_file_is_taken_over() {
    let Some(mut two) = TwoProcesses::start(&[]).await else { return };
    climb(&two).await;
    force(&two, 0, CREATOR, "dark").await;
    two.processes[1].kill().await;
    let to_live = async |two: &TwoProcesses| force(two, 0, CREATOR, "live").await["still_required"].to_string();
    let mut wrong = Vec::new();
    let accepted = to_live(&two).await;
    if !accepted.contains("without deregistering") || !accepted.contains(".keys") {
        wrong.push(format!("the killed process is not named: {accepted}"));
    }
    force(&two, 0, CREATOR, "dark").await;
    two.processes[1] = two.start_another("again").await;
    // What the gates know of this is up to a second old.
    until("its file to be known as taken over", || async {
        force(&two, 0, CREATOR, "dark").await;
        (!to_live(&two).await.contains("without deregistering")).then_some(())
    })
    .await;
    wrong.extend(two.finish(0).await);
    let test = "requests_across_moves::a_flip_to_live_names_a_process_that_was_killed_until_its_file_is_taken_over";
    report_violations(test, None, "3 flips, 1 kill", &wrong);
}

//! Retry keys that legacy took at one of two processes on one PostgreSQL, and that the database does not have when a
//! route goes up to `live`.

use std::sync::atomic::{AtomicU64, Ordering};

use http::Method;
use pointsman::demo::http::{Client, Reply};
use sqlx::{Connection, Executor, PgConnection};

use crate::requests_across_moves::{CREATOR, climb, force};
use crate::support::seed::report_violations;
use crate::support::test_system::some_order;
use crate::support::two_processes::TwoProcesses;
use crate::support::{WAIT_MAX, until};

/// Requests in flight at once.
const AT_ONCE: u64 = 20;
/// The number of the first order that is not one of a test's own.
const WARM_UP_FROM: u64 = 1_000_000;

/// Both processes with the route in `dark`, and a session that keeps the database from taking retry keys; reads go on.
async fn start_in_dark(limits: &str) -> Option<(TwoProcesses, PgConnection)> {
    let two = TwoProcesses::start_with_limits(limits).await?;
    climb(&two).await;
    force(&two, 0, CREATOR, "dark").await;
    let mut store = PgConnection::connect(&two.cluster.url()).await.expect("a session");
    store.execute("BEGIN; LOCK TABLE pointsman.retry_keys IN SHARE MODE").await.expect("it is locked");
    // A key is claimed in the database until those that the engines took are known after the flip.
    let tried = AtomicU64::new(WARM_UP_FROM);
    for at in [0, 1] {
        until("an order without a claim", || async {
            let reply = try_order(&two, at, tried.fetch_add(1, Ordering::Relaxed)).await;
            (reply.status == 201).then_some(())
        })
        .await;
    }
    Some((two, store))
}

async fn try_order(two: &TwoProcesses, at: usize, n: u64) -> Reply {
    let (url, key) = (format!("{}/orders", two.processes[at].url()), format!("order-{n}"));
    let headers = [("idempotency-key", key.as_str()), ("x-tenant", "tenant")];
    Client::new(WAIT_MAX).json(Method::POST, &url, &headers, &some_order(n)).await.expect("a reply")
}

/// Sends a new order to a process; legacy serves it.
async fn order(two: &TwoProcesses, at: usize, n: u64) {
    let reply = try_order(two, at, n).await;
    assert!(reply.status == 201 && reply.json()["id"].is_number(), "{} {}", reply.status, reply.json());
}

/// What the gates of the route require at a process.
async fn required(two: &TwoProcesses, at: usize) -> String {
    two.processes[at].get(&format!("/api/v2/routes/{CREATOR}")).await.to_string()
}

/// The flip goes on by force and says why it would have been refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_flip_to_live_waits_for_the_keys_of_its_own_process() {
    let Some((two, mut store)) = start_in_dark("").await else { return };
    order(&two, 0, 1).await;
    let accepted = force(&two, 0, CREATOR, "live").await["still_required"].to_string();
    let mut wrong = Vec::new();
    if !accepted.contains("does not take the retry keys") {
        wrong.push(format!("the database lacks a key of this process: {accepted}"));
    }
    store.execute("ROLLBACK").await.expect("it is unlocked");
    wrong.extend(two.finish(0).await);
    report_violations("lost_keys::a_flip_to_live_waits_for_the_keys_of_its_own_process", None, "1 order", &wrong);
}

/// Its file has a key when the process is told to stop, and has it still when it ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_stops_with_keys_that_the_database_lacks_does_not_deregister() {
    let Some((mut two, mut store)) = start_in_dark("drain_ms: 1000").await else { return };
    order(&two, 1, 1).await;
    let code = two.processes[1].stop().await;
    let mut wrong = Vec::new();
    if code != Some(0) {
        wrong.push(format!("it ended with {code:?}"));
    }
    until("the gate to name it", || async { required(&two, 0).await.contains("without deregistering").then_some(()) })
        .await;
    store.execute("ROLLBACK").await.expect("it is unlocked");
    two.processes[1] = two.start_another("next").await;
    until("the gate to know that its file is taken over", || async {
        (!required(&two, 0).await.contains("without deregistering")).then_some(())
    })
    .await;
    wrong.extend(two.finish(0).await);
    let test = "lost_keys::a_process_that_stops_with_keys_that_the_database_lacks_does_not_deregister";
    report_violations(test, None, "1 order, 1 stop", &wrong);
}

/// A process is killed while its file has keys that the database lacks, and the file goes with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_whose_directory_is_lost_shuts_the_gate_to_live() {
    let Some((mut two, mut store)) = start_in_dark("").await else { return };
    order(&two, 1, 1).await;
    two.processes[1].kill().await;
    let shut = until("the gate to name it", || async {
        Some(required(&two, 0).await).filter(|shown| shown.contains("without deregistering"))
    })
    .await;
    let file = shut.split("file of retry keys ").nth(1).and_then(|rest| rest.split(')').next()).expect("its file");
    std::fs::remove_file(file).expect("it is removed");
    store.execute("ROLLBACK").await.expect("it is unlocked");
    two.processes[1] = two.start_another("next").await;
    let mut wrong = Vec::new();
    for at in [0, 1] {
        let shown = required(&two, at).await;
        if !shown.contains("without deregistering") {
            wrong.push(format!("nobody has the file: {shown}"));
        }
    }
    wrong.extend(two.finish(0).await);
    let test = "lost_keys::a_process_whose_directory_is_lost_shuts_the_gate_to_live";
    report_violations(test, None, "1 order, 1 kill", &wrong);
}

/// Legacy served requests at one process whose keys were noted nowhere.
#[tokio::test(flavor = "multi_thread")]
async fn requests_whose_keys_could_not_be_noted_shut_the_gates_of_all_processes() {
    let Some((two, mut store)) = start_in_dark("retry_keys_file_bytes_max: 65536").await else { return };
    let unnoted = "could not be noted";
    let mut wrong = Vec::new();
    if required(&two, 0).await.contains(unnoted) {
        wrong.push("the gate is shut before".to_owned());
    }
    let mut sent = 0;
    while !required(&two, 1).await.contains(unnoted) {
        futures_util::future::join_all((sent..sent + AT_ONCE).map(|n| order(&two, 1, n))).await;
        sent += AT_ONCE;
        assert!(sent < 5_000, "the file has room for all");
    }
    until("the gate of the other process to be shut", || async {
        required(&two, 0).await.contains(unnoted).then_some(())
    })
    .await;
    store.execute("ROLLBACK").await.expect("it is unlocked");
    wrong.extend(two.finish(0).await);
    let test = "lost_keys::requests_whose_keys_could_not_be_noted_shut_the_gates_of_all_processes";
    report_violations(test, None, &format!("{sent} orders"), &wrong);
}

//! Retry keys that the engine of another process took, where this process does not ask the database for them.

use http::Method;
use pointsman::demo::http::Client;
use rustix::process::Signal;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::requests_across_moves::{CREATOR, climb, force};
use crate::shared_moves::requested;
use crate::support::seed::report_violations;
use crate::support::test_system::{FAMILY, some_order};
use crate::support::two_processes::TwoProcesses;
use crate::support::{Metrics, WAIT_MAX, until};

/// Orders that wait at a stopped process.
const ORDERS: usize = 24;

/// Waits until a process relies on what it knows of the keys of others.
async fn wait_until_known(two: &TwoProcesses, at: usize) {
    let is_known = |metrics: &Metrics| {
        metrics.sum("pointsman_keys_of_others_known", &[]) > 0.0 && metrics.sum("pointsman_routes_claimed", &[]) < 1.0
    };
    two.processes[at].until_metric("the keys of others to be known", is_known).await;
}

/// A process is stopped for longer than its lease; meanwhile its route goes down. When it continues, requests wait for
/// it whose state it decides before it has followed: its engine begins none of them, so that legacy may perform their
/// retries at the other process.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_was_stopped_begins_no_run_before_it_has_followed() {
    let Some(two) = TwoProcesses::start(&[]).await else { return };
    let client = Client::new(WAIT_MAX);
    climb(&two).await;
    two.processes[0].signal(Signal::STOP);
    until("its lease to end", || async {
        let rows = two.processes[1].get("/api/v2/processes").await;
        (rows.as_array().map(Vec::len) == Some(1)).then_some(())
    })
    .await;
    for route in FAMILY {
        force(&two, 1, route, "dark").await;
    }
    wait_until_known(&two, 1).await;
    let [stopped, other] = [0, 1].map(|at| format!("{}/orders", two.processes[at].url()));
    let mut waiting = Vec::new();
    for n in 0..ORDERS {
        let (client, url) = (client.clone(), stopped.clone());
        waiting.push(tokio::spawn(async move {
            let key = format!("order-{n}");
            let headers = [("idempotency-key", key.as_str()), ("x-tenant", "tenant")];
            client.json(Method::POST, &url, &headers, &some_order(n as u64)).await.map(|reply| reply.status)
        }));
    }
    two.processes[0].signal(Signal::CONT);
    let mut refused = 0;
    for waiting in waiting {
        refused += usize::from(waiting.await.expect("it ends").is_ok_and(|status| status == 503));
    }
    for n in 0..ORDERS {
        let key = format!("order-{n}");
        let headers = [("idempotency-key", key.as_str()), ("x-tenant", "tenant")];
        until("the retry to be answered", || async {
            let reply = client.json(Method::POST, &other, &headers, &some_order(n as u64)).await.ok()?;
            (reply.status == 201).then_some(())
        })
        .await;
    }
    let charges =
        two.world.ledger().entries().into_iter().filter(|entry| entry.operation == "charge" && !entry.repeated);
    let causes: Vec<String> = charges.map(|entry| entry.caused_by).collect();
    let by_engine = causes.iter().filter(|cause| cause.starts_with("engine:")).count();
    let mut wrong = Vec::new();
    if causes.len() != ORDERS {
        wrong.push(format!("{} charges of {ORDERS} orders, {by_engine} of them by the engine", causes.len()));
    }
    wrong.extend(two.finish(1).await);
    report_violations(
        "keys_of_others::a_process_that_was_stopped_begins_no_run_before_it_has_followed",
        None,
        &format!("{ORDERS} orders at the stopped process, {refused} refused there, {by_engine} by the engine"),
        &wrong,
    );
}

/// While the database is silent, a process whose route is `off` gives no request to legacy that the engine of another
/// process has, and all others without a wait.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_database_is_asked_only_for_keys_that_an_engine_may_have() {
    let Some(two) = TwoProcesses::start_with_long_lease("requests_in_flight_max: 1000").await else { return };
    let client = Client::new(WAIT_MAX);
    climb(&two).await;
    let order = async |at: usize, key: &str, n: u64| {
        let url = format!("{}/orders", two.processes[at].url());
        let headers = [("idempotency-key", key), ("x-tenant", "tenant")];
        client.json(Method::POST, &url, &headers, &some_order(n)).await.expect("a reply")
    };
    let first = order(1, "of-the-engine", 1).await;
    let mut wrong = Vec::new();
    if !first.json()["id"].is_string() {
        wrong.push(format!("not the engine's: {} {}", first.status, first.json()));
    }
    // A request that no engine may get keeps no route claimed, however long it takes.
    let mut upload = TcpStream::connect(two.processes[1].listen).await.expect("a connection");
    let head = "POST /elsewhere HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n1";
    upload.write_all(head.as_bytes()).await.expect("it is sent");
    two.processes[1]
        .until_metric("the upload to be passed on", |metrics| metrics.sum("pointsman_requests_in_flight", &[]) > 0.0)
        .await;
    for route in FAMILY {
        force(&two, 1, route, "off").await;
    }
    until("both to have it in `off`", || async { (requested(&two, 0, CREATOR).await == "off").then_some(()) }).await;
    let is_asked = |metrics: &Metrics| metrics.sum("pointsman_keys_of_others_known", &[]) < 1.0;
    wait_until_known(&two, 0).await;
    two.link.drop_silently();
    let fresh = order(0, "fresh", 2).await;
    if fresh.status != 201 || !fresh.json()["id"].is_number() {
        wrong.push(format!("without the database a new order got {} {}", fresh.status, fresh.json()));
    }
    if two.processes[0].log().contains("which arm took a first try") {
        wrong.push("the database was asked about a new order".to_owned());
    }
    two.link.restore();
    drop(upload);
    two.link.drop_silently();
    let retry = order(0, "of-the-engine", 1).await;
    if retry.status != 503 {
        wrong.push(format!(
            "without the database the retry of the engine's order got {} {}",
            retry.status,
            retry.json()
        ));
    }
    if is_asked(&two.processes[0].metrics().await) {
        wrong.push("the process has lost its lease meanwhile".to_owned());
    }
    two.link.restore();
    until("the retry to get the engine's answer", || async {
        let again = order(0, "of-the-engine", 1).await;
        (again.status == 201 && again.json()["id"] == first.json()["id"]).then_some(())
    })
    .await;
    wrong.extend(two.finish(0).await);
    let test = "keys_of_others::a_silent_database_is_asked_only_for_keys_that_an_engine_may_have";
    report_violations(test, None, "1 order of the engine", &wrong);
}

//! Retry keys that the engine of another process took, where this process does not ask the database for them.

use http::Method;
use pointsman::demo::http::Client;
use rustix::process::Signal;
use sqlx::{Connection, Executor, PgConnection};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::requests_across_moves::{CREATOR, climb, force};
use crate::shared_moves::requested;
use crate::support::raw_connection::RawConnection;
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

/// Sends an order, or its retry; returns whether it was created.
async fn try_order(client: &Client, url: &str, n: usize) -> bool {
    let key = format!("order-{n}");
    let headers = [("idempotency-key", key.as_str()), ("x-tenant", "tenant")];
    let reply = client.json(Method::POST, url, &headers, &some_order(n as u64)).await;
    reply.is_ok_and(|reply| reply.status == 201)
}

/// A connection on which a process has answered a request: it reads the next one without accepting a connection first.
async fn used_connection(two: &TwoProcesses, at: usize) -> RawConnection {
    let mut connection = RawConnection::connect(two.processes[at].listen).await;
    let listed = connection.send("GET /orders HTTP/1.1\r\nhost: shop\r\n\r\n").await.reply().await;
    assert_eq!(listed.status, 200, "{listed:?}");
    connection
}

/// The order that [`try_order`] sends, as it is on the wire.
fn order_text(n: usize) -> String {
    let body = some_order(n as u64).to_string();
    format!(
        "POST /orders HTTP/1.1\r\nhost: shop\r\ncontent-type: application/json\r\nidempotency-key: order-{n}\r\n\
         x-tenant: tenant\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A process is stopped for longer than its lease; meanwhile its route goes down. Requests wait for it on connections
/// that it reads at once when it continues, so that it decides them before it has followed; their retries reach the
/// other process at the same time, which does not know yet that it goes on. Its engine begins none of them, so that
/// legacy may perform them. Until it has followed, the store takes no keys, so that neither arm finds those of the
/// other.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_was_stopped_begins_no_run_before_it_has_followed() {
    let Some(two) = TwoProcesses::start(&[]).await else { return };
    let client = Client::new(WAIT_MAX);
    climb(&two).await;
    let mut connections = futures_util::future::join_all((0..ORDERS).map(|_| used_connection(&two, 0))).await;
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
    let mut store = PgConnection::connect(&two.cluster.url()).await.expect("a session");
    store.execute("BEGIN; LOCK TABLE pointsman.retry_keys IN SHARE MODE").await.expect("it is locked");
    for (n, connection) in connections.iter_mut().enumerate() {
        connection.send(order_text(n)).await;
    }
    let other = format!("{}/orders", two.processes[1].url());
    two.processes[0].signal(Signal::CONT);
    let retries = (0..ORDERS).map(|n| try_order(&client, &other, n));
    let at_once = futures_util::future::join_all(retries).await.into_iter().filter(|is_created| *is_created).count();
    until("it to follow", || async { (requested(&two, 0, CREATOR).await == "dark").then_some(()) }).await;
    store.execute("ROLLBACK").await.expect("it is unlocked");
    let replies = futures_util::future::join_all(connections.iter_mut().map(RawConnection::reply)).await;
    drop(connections);
    let count = |of: &dyn Fn(u16) -> bool| replies.iter().filter(|reply| of(reply.status)).count();
    // Of a connection that was closed without a reply the status is 0.
    let (answered, refused) = (count(&|status| status != 0), count(&|status| status == 503));
    // Requests are counted under the state that decided them, also if the engine gave them to legacy.
    let in_live = [("route", CREATOR), ("state", "live")];
    let in_live = two.processes[0].metrics().await.sum("pointsman_requests_total", &in_live);
    for n in 0..ORDERS {
        until("the retry to be answered", || async { try_order(&client, &other, n).await.then_some(()) }).await;
    }
    let charges =
        two.world.ledger().entries().into_iter().filter(|entry| entry.operation == "charge" && !entry.repeated);
    let causes: Vec<String> = charges.map(|entry| entry.caused_by).collect();
    let by_engine = causes.iter().filter(|cause| cause.starts_with("engine:")).count();
    let mut wrong = Vec::new();
    if causes.len() != ORDERS {
        wrong.push(format!("{} charges of {ORDERS} orders, {by_engine} of them by the engine", causes.len()));
    }
    if answered == 0 {
        wrong.push("the stopped process answered no order".to_owned());
    }
    if in_live < 1.0 {
        wrong.push("the stopped process decided no order before it had followed".to_owned());
    }
    wrong.extend(two.finish(1).await);
    report_violations(
        "keys_of_others::a_process_that_was_stopped_begins_no_run_before_it_has_followed",
        None,
        &format!(
            "{ORDERS} orders; the stopped process answered {answered}, refused {refused} of them and decided {in_live} \
             before it had followed; {at_once} answered at the other one at the same time, {by_engine} by the engine"
        ),
        &wrong,
    );
}

/// While the database is silent, a process whose route is `off` gives no request to legacy that the engine of another
/// process has, and all others without a wait.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_database_is_unknown_only_for_keys_that_an_engine_may_have() {
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
    let is_unknown = |metrics: &Metrics| metrics.sum("pointsman_keys_of_others_known", &[]) < 1.0;
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
    if is_unknown(&two.processes[0].metrics().await) {
        wrong.push("the process has lost its lease meanwhile".to_owned());
    }
    two.link.restore();
    until("the retry to get the engine's answer", || async {
        let again = order(0, "of-the-engine", 1).await;
        (again.status == 201 && again.json()["id"] == first.json()["id"]).then_some(())
    })
    .await;
    wrong.extend(two.finish(0).await);
    let test = "keys_of_others::a_silent_database_is_unknown_only_for_keys_that_an_engine_may_have";
    report_violations(test, None, "1 order of the engine", &wrong);
}

/// The engine of a process that was killed is about to commit a run: its transaction waits for a lock. Meanwhile the
/// route goes down at the other process, whose lease goes on. It gives no retry to legacy before it knows of that run.
#[tokio::test(flavor = "multi_thread")]
async fn legacy_gets_no_request_that_the_engine_of_a_killed_process_is_about_to_commit() {
    // The transaction waits for longer than the lease.
    let limits = "store_lock_ms: 30000, store_statement_ms: 40000";
    let Some(mut two) = TwoProcesses::start_with_limits(limits).await else { return };
    let client = Client::new(WAIT_MAX);
    climb(&two).await;
    let mut store = PgConnection::connect(&two.cluster.url()).await.expect("a session");
    store.execute("BEGIN; LOCK TABLE pointsman.retry_keys IN SHARE MODE").await.expect("it is locked");
    let [killed, other] = [0, 1].map(|at| format!("{}/orders", two.processes[at].url()));
    let first = tokio::spawn({
        let client = client.clone();
        async move { try_order(&client, &killed, 1).await }
    });
    let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'pointsman.retry_keys'::regclass";
    until("its transaction to wait for the lock", || async {
        let mut session = PgConnection::connect(&two.cluster.url()).await.ok()?;
        let count: i64 = sqlx::query_scalar(waiting).fetch_one(&mut session).await.ok()?;
        (count > 0).then_some(())
    })
    .await;
    two.processes[0].kill().await;
    assert!(!first.await.expect("it ends"), "an order was created although nothing is committed");
    until("its lease to end", || async {
        let rows = two.processes[1].get("/api/v2/processes").await;
        (rows.as_array().map(Vec::len) == Some(1)).then_some(())
    })
    .await;
    force(&two, 1, CREATOR, "dark").await;
    let is_unknown = |metrics: &Metrics| metrics.sum("pointsman_keys_of_others_known", &[]) < 1.0;
    two.processes[1].until_metric("the keys of others to be read anew", is_unknown).await;
    let before = try_order(&client, &other, 1).await;
    store.execute("ROLLBACK").await.expect("it is unlocked");
    until("the retry to be answered", || async { try_order(&client, &other, 1).await.then_some(()) }).await;
    let charges =
        two.world.ledger().entries().into_iter().filter(|entry| entry.operation == "charge" && !entry.repeated);
    let causes: Vec<String> = charges.map(|entry| entry.caused_by).collect();
    let mut wrong = Vec::new();
    if causes.len() != 1 || before {
        wrong.push(format!("the order was created before that: {before}; charges by {causes:?}"));
    }
    two.processes[0] = two.start_again(0).await;
    wrong.extend(two.finish(1).await);
    report_violations(
        "keys_of_others::legacy_gets_no_request_that_the_engine_of_a_killed_process_is_about_to_commit",
        None,
        "1 order",
        &wrong,
    );
}

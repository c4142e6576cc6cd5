//! The real binary on PostgreSQL under load, while the server is restarted, loses its sessions, hangs (as a whole, or
//! only its sessions), has its tables locked, accepts no writes, or is replaced by its standby, or while its replies to
//! commits are lost: everything acknowledged is there, nothing is done twice, callers get a clear answer within a
//! bounded time, and the process recovers by itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::Method;
use pointsman::demo::Latency;
use pointsman::limits::Limits;
use pointsman::secret::Secret;
use pointsman::store::{PostgresStore, StoreHandle};
use tokio::task::block_in_place;

use crate::support::lossy_proxy::LossyProxy;
use crate::support::postgres_server::Cluster;
use crate::support::seed::{report_violations, seed};
use crate::support::test_system::{TestSystem, some_order};
use crate::support::{FlagsDir, checker, until, until_true};

/// The process's limits for the database.
const LIMITS: &str = "limits: { store_connect_ms: 1000, store_statement_ms: 1000, store_lock_ms: 500 }\n";
/// The longest that a caller may wait: several waits for the database in sequence, and then legacy.
const BOUND: Duration = Duration::from_secs(20);
/// Callers at the same time.
const CALLERS: u64 = 4;

/// A database server, a system that is connected to it through a lossy proxy, with its family raised to a state.
struct PostgresSystem {
    cluster: Cluster,
    proxy: LossyProxy,
    system: TestSystem,
}

impl PostgresSystem {
    async fn start(state: &str, seed: u64) -> Option<Self> {
        let Some(cluster) = block_in_place(Cluster::start) else {
            eprintln!("not tried: PostgreSQL is not installed");
            return None;
        };
        let proxy = LossyProxy::to(cluster.address(), seed).await;
        let url = cluster.url().replace(&cluster.address().to_string(), &proxy.address().to_string());
        let change = |flags: &FlagsDir| flags.edit("pointsman.yaml", |text| text + LIMITS);
        let mut system = TestSystem::on(Some(url + "?sslmode=disable"), Latency::instant(), change).await;
        system.climb_to(state).await;
        system.wait_for_runs_to_end().await;
        system.allowed.unacknowledged = true;
        Some(Self { cluster, proxy, system })
    }
}

/// The load while faults happen.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    by_engine: AtomicU64,
}

impl Load {
    /// Waits until the engine has answered 40 more orders; returns how long that took.
    async fn wait_for_answers(&self) -> Duration {
        let begun = Instant::now();
        let wanted = self.by_engine.load(Ordering::Relaxed) + 40;
        until_true("the engine to answer", || self.by_engine.load(Ordering::Relaxed) >= wanted).await;
        begun.elapsed()
    }
}

/// The results of callers.
#[derive(Default)]
struct CallerResults {
    answers: BTreeMap<String, u64>,
    slowest: Duration,
}

/// Callers place orders until the load is stopped; every answer is a success or a clear error, within the bound.
async fn send_orders(system: &TestSystem, load: &Load, seed: u64) -> CallerResults {
    let number = AtomicU64::new(seed % 1_000);
    let caller = async || {
        let mut results = CallerResults::default();
        while !load.stop.load(Ordering::Relaxed) {
            let body = some_order(number.fetch_add(1, Ordering::Relaxed));
            let begun = Instant::now();
            let reply = tokio::time::timeout(BOUND, system.send(Method::POST, "/orders", &body)).await;
            let reply = reply.unwrap_or_else(|_| panic!("a caller waits for more than {BOUND:?}"));
            let reply = reply.unwrap_or_else(|error| panic!("a caller got no answer: {error}"));
            results.slowest = results.slowest.max(begun.elapsed());
            let name = if reply.status.is_success() {
                let order = reply.json();
                let by_engine = order["id"].is_string();
                load.by_engine.fetch_add(u64::from(by_engine), Ordering::Relaxed);
                system.record_order(order);
                if by_engine { "engine" } else { "legacy" }.to_owned()
            } else {
                let text = String::from_utf8_lossy(&reply.body).into_owned();
                assert!(matches!(reply.status.as_u16(), 503 | 504), "{}: {text}", reply.status);
                assert!(text.contains("\"detail\""), "an error says what is known: {text}");
                reply.status.as_str().to_owned()
            };
            *results.answers.entry(name).or_default() += 1;
        }
        results
    };
    let mut all = CallerResults::default();
    for results in futures_util::future::join_all((0..CALLERS).map(|_| caller())).await {
        all.slowest = all.slowest.max(results.slowest);
        results.answers.into_iter().for_each(|(name, count)| *all.answers.entry(name).or_default() += count);
    }
    all
}

/// The faults, and the longest time after one until the engine had answered 40 orders.
struct FaultReport {
    faults: u64,
    kind: &'static str,
    recovered_after: Duration,
}

/// Runs faults under load, and then the checker.
async fn under_load(
    test: &str,
    state: &str,
    faults: impl AsyncFnOnce(&mut Cluster, &LossyProxy, &Load) -> FaultReport,
) {
    let seed = seed();
    let Some(PostgresSystem { mut cluster, proxy, system }) = PostgresSystem::start(state, seed).await else { return };
    let load = Load::default();
    let fault = async {
        load.wait_for_answers().await;
        let done = faults(&mut cluster, &proxy, &load).await;
        load.stop.store(true, Ordering::Relaxed);
        done
    };
    let (results, FaultReport { faults, kind, recovered_after }) =
        tokio::join!(send_orders(&system, &load, seed), fault);
    let CallerResults { answers, slowest } = results;
    let cases: u64 = answers.values().sum();
    system.finish().await;
    let figures = format!(
        "{cases} orders {answers:?}, {faults} {kind}, slowest answer {slowest:.1?} (bound {BOUND:?}), 40 orders by the \
         engine at most {recovered_after:.1?} after a fault"
    );
    report_violations(&format!("postgres::{test}"), Some(seed), &figures, &[]);
}

/// Repeatedly stops the server and starts it again after some time.
async fn restart_repeatedly(cluster: &Cluster, load: &Load, mode: &str) -> FaultReport {
    let mut recovered_after = Duration::ZERO;
    for away in [0, 300, 1_500] {
        block_in_place(|| cluster.stop(mode));
        tokio::time::sleep(Duration::from_millis(away)).await;
        block_in_place(|| cluster.start_again());
        recovered_after = recovered_after.max(load.wait_for_answers().await);
    }
    FaultReport { faults: 3, kind: "restarts", recovered_after }
}

#[tokio::test(flavor = "multi_thread")]
async fn restarted_after_a_shutdown() {
    under_load("restarted_after_a_shutdown", "live", async |cluster, _, load| {
        restart_repeatedly(cluster, load, "fast").await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn restarted_after_a_crash() {
    under_load("restarted_after_a_crash", "only", async |cluster, _, load| {
        restart_repeatedly(cluster, load, "immediate").await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_terminated_repeatedly() {
    under_load("sessions_terminated_repeatedly", "only", async |cluster, _, load| {
        let mut ended = 0;
        for _ in 0..30 {
            ended += block_in_place(|| cluster.terminate_all());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        assert!(ended > 30, "{ended}");
        FaultReport { faults: ended, kind: "sessions ended", recovered_after: load.wait_for_answers().await }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hanging_for_longer_than_any_timeout() {
    under_load("hanging_for_longer_than_any_timeout", "live", async |cluster, _, load| {
        let mut recovered_after = Duration::ZERO;
        for _ in 0..2 {
            block_in_place(|| cluster.freeze());
            tokio::time::sleep(Duration::from_secs(5)).await;
            block_in_place(|| cluster.thaw());
            recovered_after = recovered_after.max(load.wait_for_answers().await);
        }
        FaultReport { faults: 2, kind: "hangs of the whole server", recovered_after }
    })
    .await;
}

/// The sessions of the server hang one by one, while the server itself continues.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_hang() {
    under_load("sessions_that_hang", "live", async |cluster, _, load| {
        let (mut recovered_after, mut hung) = (Duration::ZERO, 0);
        for _ in 0..2 {
            hung += block_in_place(|| cluster.freeze_sessions());
            tokio::time::sleep(Duration::from_secs(4)).await;
            block_in_place(|| cluster.thaw());
            recovered_after = recovered_after.max(load.wait_for_answers().await);
        }
        assert!(hung >= 4, "{hung}");
        FaultReport { faults: hung, kind: "hung sessions", recovered_after }
    })
    .await;
}

/// Another session locks the tables for longer than any timeout.
#[tokio::test(flavor = "multi_thread")]
async fn tables_locked_by_another_session() {
    under_load("tables_locked_by_another_session", "only", async |cluster, _, load| {
        let mut recovered_after = Duration::ZERO;
        for table in ["runs", "appends", "retry_keys"] {
            let text = format!("BEGIN; LOCK TABLE pointsman.{table}; SELECT pg_sleep(3); ROLLBACK");
            block_in_place(|| cluster.query(&text)).expect("the lock is had");
            recovered_after = recovered_after.max(load.wait_for_answers().await);
        }
        FaultReport { faults: 3, kind: "tables locked up", recovered_after }
    })
    .await;
}

/// The server answers queries and refuses writes, as after a demotion to standby: a session that returns 25006 must be
/// discarded, although its pings succeed.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_no_writes() {
    under_load("a_server_that_takes_no_writes", "live", async |cluster, _, load| {
        let alter = |text: &str| {
            let text = format!("ALTER SYSTEM {text}");
            block_in_place(|| cluster.query(&text).and_then(|_| cluster.query("SELECT pg_reload_conf()")))
                .expect("set");
        };
        let writer = || block_in_place(|| cluster.query(WRITER)).unwrap_or_default().trim().to_owned();
        let mut recovered_after = Duration::ZERO;
        for _ in 0..3 {
            let before = writer();
            assert!(before.parse::<u32>().is_ok(), "{before}");
            alter("SET default_transaction_read_only = on");
            until("the writer to give its session up", || async { (writer() != before).then_some(()) }).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            alter("RESET default_transaction_read_only");
            recovered_after = recovered_after.max(load.wait_for_answers().await);
        }
        FaultReport { faults: 3, kind: "times read-only", recovered_after }
    })
    .await;
}

/// The session that holds the writer's lock.
const WRITER: &str =
    "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND classid::bigint = 28781";

/// The server commits and its reply is lost: the append is recognised, and neither written nor performed again.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_reply_was_lost_is_not_repeated() {
    under_load("a_commit_whose_reply_was_lost_is_not_repeated", "only", async |_, proxy, load| {
        let mut recovered_after = Duration::ZERO;
        for round in 1..=6 {
            proxy.lose_one_in(8);
            until_true("replies to be lost", || proxy.lost() >= 10 * round).await;
            proxy.stop_losing();
            recovered_after = recovered_after.max(load.wait_for_answers().await);
        }
        FaultReport { faults: proxy.lost(), kind: "replies to commits lost", recovered_after }
    })
    .await;
}

/// The primary is lost under load, and the standby that has all its commits takes its place under the same name.
#[tokio::test(flavor = "multi_thread")]
async fn a_standby_takes_over() {
    under_load("a_standby_takes_over", "only", async |cluster, proxy, load| {
        let standby = block_in_place(|| cluster.standby());
        load.wait_for_answers().await;
        block_in_place(|| cluster.stop("immediate"));
        tokio::time::sleep(Duration::from_secs(1)).await;
        block_in_place(|| standby.promote());
        proxy.redirect_to(standby.address());
        let recovered_after = load.wait_for_answers().await;
        *cluster = standby;
        FaultReport { faults: 1, kind: "takeovers by a standby", recovered_after }
    })
    .await;
}

/// The primary is lost with commits that its asynchronous standby does not have. What they said is forgotten: a key that
/// the engine took is free, and its retry begins another run. All else is there, and everything goes on.
#[tokio::test(flavor = "multi_thread")]
async fn an_asynchronous_standby_takes_over_without_the_last_commits() {
    let seed = seed();
    let Some(PostgresSystem { cluster, proxy, mut system }) = PostgresSystem::start("only", seed).await else { return };
    let order = async |system: &TestSystem, key: &str| {
        let headers = [("idempotency-key", key)];
        let reply = system.send_with(Method::POST, "/orders", &headers, &some_order(1)).await.ok()?;
        reply.status.is_success().then(|| reply.json()["id"].clone())
    };
    let standby = block_in_place(|| cluster.asynchronous_standby());
    let kept = order(&system, "kept").await.expect("the engine's order");
    system.wait_for_runs_to_end().await;
    block_in_place(|| cluster.cut_off(&standby));
    let lost = order(&system, "lost").await.expect("the engine's order");
    block_in_place(|| cluster.stop("immediate"));
    block_in_place(|| standby.promote());
    proxy.redirect_to(standby.address());
    let answered = async |key: &'static str| until("the engine to answer", || order(&system, key)).await;
    let mut wrong = Vec::new();
    if answered("kept").await != kept {
        wrong.push("an order that the standby had was performed again".to_owned());
    }
    if answered("lost").await == lost {
        wrong.push("the standby had all commits: nothing was lost".to_owned());
    }
    answered("new").await;
    let code = system.pointsman.stop().await;
    if code != Some(0) {
        wrong.push(format!("the process ended with {code:?}"));
    }
    // The ledger has what the lost run did, which the checker would not find in the store.
    system.finish_unchecked().await;
    let store = PostgresStore::open(&Secret::new(standby.url()), None, &Limits::default()).await.expect("it opens");
    let store: StoreHandle = Arc::new(store);
    checker::check_store(&store, &[], &mut wrong).await;
    store.close().await;
    let test = "postgres::an_asynchronous_standby_takes_over_without_the_last_commits";
    report_violations(test, Some(seed), "3 orders, 1 takeover", &wrong);
}

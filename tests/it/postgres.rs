//! The real binary on PostgreSQL, whose server is restarted, loses its sessions, and stands still, under load: what was
//! acknowledged is there, nothing is done twice, callers wait for a bounded time and are told clearly, and the process
//! recovers by itself. Repeat with `tests/run it::postgres` (or `cargo nextest run --test it postgres`).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::Method;
use pointsman::demo::Pace;
use serde_json::Value;
use tokio::task::block_in_place;

use crate::support::cluster::Cluster;
use crate::support::process::{cli, said};
use crate::support::town::{Town, some_order};
use crate::support::until_true;

/// What the process is told of the database, milliseconds.
const LIMITS: &str = "limits: { store_connect_ms: 1000, store_statement_ms: 1000, store_lock_ms: 500 }\n";
/// How long a caller may wait at most: some waits for the database one after the other, and legacy behind them.
const BOUND: Duration = Duration::from_secs(20);
/// Callers at the same time.
const CALLERS: u64 = 4;

/// A server and a town on it, its family raised to a state.
async fn town(state: &str) -> Option<(Cluster, Town)> {
    let Some(cluster) = block_in_place(Cluster::start) else {
        println!("not tried: PostgreSQL is not installed");
        return None;
    };
    let change = |flags: &crate::support::FlagsDir| flags.edit("pointsman.yaml", |text| text + LIMITS);
    let mut town = Town::on(Some(cluster.url()), Pace::instant(), change).await;
    town.climb(state).await;
    town.quiet().await;
    town.allowed.unacknowledged = true;
    Some((cluster, town))
}

/// What goes on while faults happen.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    by_engine: AtomicU64,
}

impl Load {
    /// Waits until the engine has answered some more orders: for so long it had nobody's help.
    async fn busy(&self) -> Duration {
        let begun = Instant::now();
        let wanted = self.by_engine.load(Ordering::Relaxed) + 40;
        until_true("the engine to answer", || self.by_engine.load(Ordering::Relaxed) >= wanted).await;
        begun.elapsed()
    }
}

/// What callers saw.
#[derive(Default)]
struct Seen {
    answers: BTreeMap<String, u64>,
    slowest: Duration,
}

/// Callers place orders until it ends; every answer is a success or a clear error, within the bound.
async fn drive(town: &Town, load: &Load) -> Seen {
    let number = AtomicU64::new(0);
    let caller = async || {
        let mut seen = Seen::default();
        while !load.stop.load(Ordering::Relaxed) {
            let body = some_order(number.fetch_add(1, Ordering::Relaxed));
            let begun = Instant::now();
            let reply = tokio::time::timeout(BOUND, town.send(Method::POST, "/orders", &body)).await;
            let reply = reply.unwrap_or_else(|_| panic!("a caller waits for more than {BOUND:?}"));
            let reply = reply.unwrap_or_else(|error| panic!("a caller got no answer: {error}"));
            seen.slowest = seen.slowest.max(begun.elapsed());
            let name = if reply.status.is_success() {
                let order = reply.json();
                let by_engine = order["id"].is_string();
                load.by_engine.fetch_add(u64::from(by_engine), Ordering::Relaxed);
                town.note(order);
                if by_engine { "engine" } else { "legacy" }.to_owned()
            } else {
                let text = String::from_utf8_lossy(&reply.body).into_owned();
                assert!(matches!(reply.status.as_u16(), 503 | 504), "{}: {text}", reply.status);
                assert!(text.contains("\"detail\""), "an error says what is known: {text}");
                reply.status.as_str().to_owned()
            };
            *seen.answers.entry(name).or_default() += 1;
        }
        seen
    };
    let mut all = Seen::default();
    for seen in futures_util::future::join_all((0..CALLERS).map(|_| caller())).await {
        all.slowest = all.slowest.max(seen.slowest);
        seen.answers.into_iter().for_each(|(name, count)| *all.answers.entry(name).or_default() += count);
    }
    all
}

/// Runs faults under load, and lets the checker look at everything. They say how many they were, and the longest time
/// until the engine had answered some orders again.
async fn under_load(name: &str, state: &str, faults: impl AsyncFnOnce(&mut Cluster, &Load) -> (u64, Duration)) {
    let Some((mut cluster, town)) = town(state).await else { return };
    let load = Load::default();
    let fault = async {
        load.busy().await;
        let done = faults(&mut cluster, &load).await;
        load.stop.store(true, Ordering::Relaxed);
        done
    };
    let (seen, (faults, back)) = tokio::join!(drive(&town, &load), fault);
    let Seen { answers, slowest } = seen;
    let cases: u64 = answers.values().sum();
    town.finish().await;
    println!(
        "{name}: {cases} orders {answers:?}, {faults} faults, slowest answer {slowest:?}, 40 orders by the engine at most \
         {back:?} after a fault, 0 violations; cargo nextest run --test it postgres::{name}"
    );
}

/// Stops the server in some way and starts it again after some time, so often.
async fn restarts(cluster: &Cluster, load: &Load, mode: &str) -> (u64, Duration) {
    let mut back = Duration::ZERO;
    for away in [0, 300, 1_500] {
        block_in_place(|| cluster.stop(mode));
        tokio::time::sleep(Duration::from_millis(away)).await;
        block_in_place(|| cluster.start_again());
        back = back.max(load.busy().await);
    }
    (3, back)
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_checked_while_orders_are_taken_and_pg_dump_copies_it() {
    let Some((cluster, town)) = town("live").await else { return };
    let url = cluster.url();
    let check = async || cli(&["store", "check", "--store", &url, "--json"], &[]).await;
    let looks = async {
        let sound = check().await;
        assert!(sound.status.success(), "{}", said(&sound));
        let told: Value = serde_json::from_slice(&sound.stdout).expect("JSON");
        assert_eq!((&told["fine"], told["runs"].as_u64().is_some_and(|runs| runs > 0)), (&Value::Bool(true), true));
    };
    let load = async {
        loop {
            town.round().await;
        }
    };
    tokio::select! {
        () = load => {}
        () = looks => {}
    }
    town.quiet().await;
    let copy = cli(&["store", "backup", "copy.db", "--store", &url], &[]).await;
    assert_eq!(copy.status.code(), Some(1), "{}", said(&copy));
    assert!(said(&copy).contains("pg_dump --schema=pointsman --file=copy.db"), "{}", said(&copy));

    let one = "run_id = (SELECT run_id FROM pointsman.runs WHERE ended AND mode = 'real' LIMIT 1)";
    let (kept, lost) =
        ("CREATE TABLE kept AS SELECT * FROM pointsman.events WHERE", "DELETE FROM pointsman.events WHERE");
    block_in_place(|| cluster.query(&format!("{kept} {one} AND seq = 2; {lost} {one} AND seq = 2"))).expect("done");
    let damaged = check().await;
    assert_eq!(damaged.status.code(), Some(1), "{}", said(&damaged));
    assert!(said(&damaged).contains("where event 2 should be stands event 3"), "{}", said(&damaged));
    block_in_place(|| cluster.query("INSERT INTO pointsman.events TABLE kept; DROP TABLE kept")).expect("mended");

    block_in_place(|| cluster.query("CREATE DATABASE empty")).expect("made");
    let empty = url.replace("/postgres", "/empty").replace("//empty", "//postgres");
    let nothing = cli(&["store", "check", "--store", &empty], &[]).await;
    assert_eq!(nothing.status.code(), Some(1));
    assert!(said(&nothing).contains("there is no store of pointsman"), "{}", said(&nothing));
    town.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn restarted_in_order() {
    under_load("restarted_in_order", "live", async |cluster, load| restarts(cluster, load, "fast").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn restarted_after_a_crash() {
    under_load("restarted_after_a_crash", "only", async |cluster, load| restarts(cluster, load, "immediate").await)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_ended_all_the_time() {
    under_load("sessions_ended_all_the_time", "only", async |cluster, load| {
        let mut ended = 0;
        for _ in 0..30 {
            ended += block_in_place(|| cluster.terminate_all());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        assert!(ended > 30, "{ended}");
        (ended, load.busy().await)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn standing_still_for_longer_than_anybody_waits() {
    under_load("standing_still_for_longer_than_anybody_waits", "live", async |cluster, load| {
        let mut back = Duration::ZERO;
        for _ in 0..2 {
            block_in_place(|| cluster.freeze());
            tokio::time::sleep(Duration::from_secs(5)).await;
            block_in_place(|| cluster.thaw());
            back = back.max(load.busy().await);
        }
        (2, back)
    })
    .await;
}

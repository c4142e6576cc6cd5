//! Tests how much appends are delayed while old runs are purged. By hand: measures purges and a store of many runs.

use std::time::{Duration, Instant};

use super::*;
use crate::store::{RunCoordination, RunFilter, Store};

/// A time so long ago that the retry key has expired.
pub(super) fn past(n: u64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + n.cast_signed()).unwrap()
}

/// Runs that ended long ago; of every ten, nine completed and one failed.
async fn fill(store: &Arc<SqliteStore>, runs: std::ops::Range<u64>) {
    const CALLERS: u64 = 64;
    let callers = (0..CALLERS).map(|caller| {
        let (store, runs) = (store.clone(), runs.clone());
        tokio::spawn(async move {
            for n in runs.filter(|n| n % CALLERS == caller) {
                let mut run = completed_run(run_id(n), past(n));
                if n % 10 == 0 {
                    run.summary.status = RunStatus::Failed;
                }
                if n % 20 == 1 {
                    run.pins = vec![pin(&n.to_string(), Arm::Engine)];
                }
                store.append(run.into()).await.unwrap();
            }
        })
    });
    for done in futures_util::future::join_all(callers).await {
        done.unwrap();
    }
}

/// The latencies of appends while a future runs: p50, p99, maximum, and their number.
async fn appends_until<T>(
    store: &Arc<SqliteStore>,
    first: u64,
    done: impl Future<Output = T>,
) -> ([Duration; 3], usize, T) {
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let callers: Vec<_> = (0..4)
        .map(|caller| {
            let (store, stopped) = (store.clone(), stopped.clone());
            tokio::spawn(async move {
                let (mut latencies, mut n) = (Vec::new(), first + caller);
                while !*stopped.borrow() {
                    let began = Instant::now();
                    store.append(append(run_id(n), 1, 3).into()).await.unwrap();
                    latencies.push(began.elapsed());
                    n += 4;
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                latencies
            })
        })
        .collect();
    let done = done.await;
    stop.send(true).unwrap();
    let mut latencies = Vec::new();
    for caller in callers {
        latencies.extend(caller.await.unwrap());
    }
    latencies.sort();
    let at = |percent: usize| latencies[(latencies.len() * percent / 100).min(latencies.len() - 1)];
    ([at(50), at(99), at(100)], latencies.len(), done)
}

/// Purges as the background task does, with shorter pauses.
async fn purge_all(store: &Arc<SqliteStore>) -> u64 {
    let mut purged_runs = 0;
    for status in [RunStatus::Completed, RunStatus::Failed] {
        loop {
            let began = Instant::now();
            let purged = store.purge(status, at(0), 50).await.unwrap();
            purged_runs += purged.runs;
            if purged.runs == 0 {
                break;
            }
            tokio::time::sleep(began.elapsed() * 2).await;
        }
    }
    purged_runs
}

/// Measures appends alone and during a purge of this many runs; returns p50, p99 and maximum of both.
async fn measured(runs: u64, alone: Duration) -> ([Duration; 3], [Duration; 3]) {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteStore::open(dir.path().join("test.db"), &Limits::default()).await.unwrap());
    fill(&store, 0..runs).await;
    let (without, count, ()) = appends_until(&store, 10_000_000, tokio::time::sleep(alone)).await;
    println!("appends alone: p50, p99, max {without:?} of {count}");
    let began = Instant::now();
    let (with, count, purged_runs) = appends_until(&store, 20_000_000, purge_all(&store)).await;
    println!("appends while {purged_runs} runs are purged in {:?}: p50, p99, max {with:?} of {count}", began.elapsed());
    assert_eq!(purged_runs, runs);
    let remaining =
        store.runs(RunFilter { workflow: None, before: Some(run_id(runs)), limit: 9_999_999, ..RunFilter::default() });
    assert_eq!(remaining.await.unwrap().len() as u64, runs / 20, "the pinned runs");
    store.close().await;
    let checked = SqliteStore::check(dir.path().join("test.db"), Duration::ZERO).await.unwrap();
    // The test's own runs have events that contradict each other, and no plan.
    let is_expected = |what: &str| what.contains("contradict each other") || what.contains("and its plan");
    let wrong: Vec<_> = checked.findings.iter().filter(|finding| !is_expected(&finding.what)).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    (without, with)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_delays_appends_at_most_tenfold() {
    let (without, with) = measured(1_000, Duration::from_secs(1)).await;
    // The bound is wide because other tests run at the same time. A purge in one transaction would take far longer.
    let bound = (without[1] * 10).max(Duration::from_millis(100));
    assert!(with[1] < bound, "p99 {:?} with a purge, {:?} without", with[1], without[1]);
}

/// By hand: `cargo test --release --lib store::tests::purge -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn a_purge_of_fifty_thousand_runs() {
    measured(50_000, Duration::from_secs(10)).await;
}

/// By hand, as above.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn a_hundred_thousand_runs_that_ended() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("test.db");
    let store = Arc::new(SqliteStore::open(&path, &Limits::default()).await.unwrap());
    store.put_plan("plan_1".into(), json!({})).await.unwrap();
    fill(&store, 0..100_000).await;
    for n in 200_000..200_100 {
        store.append(append(run_id(n), 1, 1).into()).await.unwrap();
    }
    store.close().await;
    drop(store);
    let began = Instant::now();
    let store = SqliteStore::open(&path, &Limits::default()).await.unwrap();
    println!("open: {:?}", began.elapsed());
    assert!(super::lists::slowest_listing(&store).await < Duration::from_millis(50));
    let began = Instant::now();
    let taken = store.acquire_due(worker(9), 50).await.unwrap().len();
    println!("acquire_due: {taken} in {:?}", began.elapsed());
    let began = Instant::now();
    println!("due_times: {} in {:?}", store.due_times(50).await.unwrap().len(), began.elapsed());
    let began = Instant::now();
    println!("pin_counts: {:?} in {:?}", store.pin_counts().await.unwrap(), began.elapsed());
    let began = Instant::now();
    let purged = store.purge(RunStatus::Cancelled, at(0), 50).await.unwrap();
    println!("purge, nothing to remove: {purged:?} in {:?}", began.elapsed());
    store.close().await;
    let began = Instant::now();
    let checked = SqliteStore::check(&path, Duration::ZERO).await.unwrap();
    println!("check: {} runs, {} events in {:?}", checked.runs, checked.events, began.elapsed());
    let began = Instant::now();
    let bytes = back_up(&path, dir.path().join("copy.db")).await.unwrap();
    println!("backup: {bytes} bytes in {:?}", began.elapsed());
}

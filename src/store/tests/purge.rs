//! Appends go on while old runs go, and a store full of them is quick to open and to list.

use std::time::{Duration, Instant};

use super::*;
use crate::store::{RunFilter, Store, Work};

/// So long ago that its retry key has run out.
fn past(n: u64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + n.cast_signed()).unwrap()
}

/// Runs that ended long ago; of every ten, nine completed and one failed.
async fn fill(store: &Arc<SqliteStore>, runs: std::ops::Range<u64>) {
    const CALLERS: u64 = 64;
    let callers = (0..CALLERS).map(|caller| {
        let (store, runs) = (store.clone(), runs.clone());
        tokio::spawn(async move {
            for n in runs.filter(|n| n % CALLERS == caller) {
                let mut run = answered(run_id(n), past(n));
                if n % 10 == 0 {
                    run.summary.status = RunStatus::Failed;
                }
                if n % 20 == 1 {
                    run.pins = vec![pin(&n.to_string(), Arm::Engine)];
                }
                store.append(run).await.unwrap();
            }
        })
    });
    for done in futures_util::future::join_all(callers).await {
        done.unwrap();
    }
}

/// How long appends take until something is done: median, 99 of 100, the longest, and how many.
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
                let (mut waits, mut n) = (Vec::new(), first + caller);
                while !*stopped.borrow() {
                    let began = Instant::now();
                    store.append(append(run_id(n), 1, 3)).await.unwrap();
                    waits.push(began.elapsed());
                    n += 4;
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                waits
            })
        })
        .collect();
    let done = done.await;
    stop.send(true).unwrap();
    let mut waits = Vec::new();
    for caller in callers {
        waits.extend(caller.await.unwrap());
    }
    waits.sort();
    let at = |percent: usize| waits[(waits.len() * percent / 100).min(waits.len() - 1)];
    ([at(50), at(99), at(100)], waits.len(), done)
}

/// As the background task does it, with shorter rests.
async fn purge_all(store: &Arc<SqliteStore>) -> u64 {
    let mut gone = 0;
    for status in [RunStatus::Completed, RunStatus::Failed] {
        loop {
            let began = Instant::now();
            let purged = store.purge(status, at(0), 50).await.unwrap();
            gone += purged.runs;
            if purged.runs == 0 {
                break;
            }
            tokio::time::sleep(began.elapsed() * 2).await;
        }
    }
    gone
}

async fn measured(runs: u64, alone: Duration) -> ([Duration; 3], [Duration; 3]) {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteStore::open(dir.path().join("test.db"), &Limits::default()).await.unwrap());
    fill(&store, 0..runs).await;
    let (without, count, ()) = appends_until(&store, 10_000_000, tokio::time::sleep(alone)).await;
    println!("appends alone: p50, p99, max {without:?} of {count}");
    let began = Instant::now();
    let (with, count, gone) = appends_until(&store, 20_000_000, purge_all(&store)).await;
    println!("appends while {gone} runs are purged in {:?}: p50, p99, max {with:?} of {count}", began.elapsed());
    assert_eq!(gone, runs);
    let left =
        store.runs(RunFilter { workflow: None, before: Some(run_id(runs)), limit: 9_999_999, ..RunFilter::default() });
    assert_eq!(left.await.unwrap().len() as u64, runs / 20, "the pinned ones");
    store.close().await;
    let checked = SqliteStore::check(dir.path().join("test.db"), Duration::ZERO).await.unwrap();
    let foreign = |what: &str| what.contains("do not follow") || what.contains("and its plan");
    let wrong: Vec<_> = checked.findings.iter().filter(|finding| !foreign(&finding.what)).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    (without, with)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_hardly_notice_a_purge() {
    let (without, with) = measured(1_000, Duration::from_secs(1)).await;
    // A wide bound, since everything else runs beside it: a purge in one piece would take far longer.
    let bound = (without[1] * 10).max(Duration::from_millis(100));
    assert!(with[1] < bound, "p99 {:?} with a purge, {:?} without", with[1], without[1]);
}

/// By hand: `cargo test --release --lib store::tests::purge -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn a_purge_of_many() {
    measured(50_000, Duration::from_secs(10)).await;
}

/// Everything that may be asked for, and mixtures that find nothing.
pub(super) fn filters() -> Vec<(&'static str, RunFilter)> {
    let all = RunFilter { limit: 51, ..RunFilter::default() };
    let of = |statuses: &[RunStatus]| RunFilter { statuses: statuses.to_vec(), ..all.clone() };
    let made = || Some("create-order".to_owned());
    vec![
        ("newest", all.clone()),
        ("running", of(&[RunStatus::Running])),
        ("every open status", of(&RunStatus::OPEN)),
        ("completed", of(&[RunStatus::Completed])),
        ("failed", of(&[RunStatus::Failed])),
        ("failed or cancelled", of(&[RunStatus::Failed, RunStatus::Cancelled])),
        ("cancelled: none", of(&[RunStatus::Cancelled])),
        ("cancelled or abandoned: none", of(&[RunStatus::Cancelled, RunStatus::Abandoned])),
        ("of a workflow", RunFilter { workflow: made(), ..all.clone() }),
        ("of a workflow: none", RunFilter { workflow: Some("none".into()), ..all.clone() }),
        ("failed, of a workflow", RunFilter { workflow: made(), ..of(&[RunStatus::Failed]) }),
        ("failed, of a workflow: none", RunFilter { workflow: Some("none".into()), ..of(&[RunStatus::Failed]) }),
        ("cancelled, of a workflow: none", RunFilter { workflow: made(), ..of(&[RunStatus::Cancelled]) }),
        ("open, of a workflow: none", RunFilter { workflow: Some("none".into()), ..of(&RunStatus::OPEN) }),
        ("of a route: none", RunFilter { route: Some("none".into()), ..all.clone() }),
        ("of a mode: none", RunFilter { mode: Some(Mode::Dark), ..all.clone() }),
        ("real, of a route: none", RunFilter { mode: Some(Mode::Real), route: Some("none".into()), ..all.clone() }),
        ("of a job", RunFilter { job: Some(crate::names::JobId(run_id(77).0)), ..all.clone() }),
        ("of a parent: none", RunFilter { parent: Some(run_id(77)), ..all.clone() }),
        ("a late page", RunFilter { before: Some(run_id(500)), ..all.clone() }),
        ("a late page: none", RunFilter { before: Some(run_id(50_000)), mode: Some(Mode::Dark), ..all.clone() }),
        ("a late page of failed", RunFilter { before: Some(run_id(500)), ..of(&[RunStatus::Failed]) }),
    ]
}

/// How long each listing takes, the best of three.
pub(super) async fn listed(store: &impl Store) -> Duration {
    let mut slowest = Duration::ZERO;
    for (name, filter) in filters() {
        let (mut best, mut found) = (Duration::MAX, 0);
        for _ in 0..3 {
            let began = Instant::now();
            found = store.runs(filter.clone()).await.unwrap().len();
            best = best.min(began.elapsed());
        }
        println!("runs, {name}: {found} in {best:?}");
        slowest = slowest.max(best);
    }
    let began = Instant::now();
    println!("open_runs: {:?} in {:?}", store.open_runs().await.unwrap(), began.elapsed());
    println!("the slowest listing: {slowest:?}");
    slowest
}

/// By hand, as above.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn a_hundred_thousand_runs_in_postgresql() {
    if !Which::Postgres.is_here() {
        return;
    }
    let database = super::cluster::shared().unwrap().database();
    let store = PostgresStore::open(&Secret::new(database.url()), None, &Limits::default()).await.unwrap();
    let store = Arc::new(store);
    let appends = (0..64_u64).map(|caller| {
        let store = store.clone();
        tokio::spawn(async move {
            for n in (0..100_000).filter(|n| n % 64 == caller) {
                let mut run = answered(run_id(n), past(n));
                if n % 10 == 0 {
                    run.summary.status = RunStatus::Failed;
                }
                store.append(run).await.unwrap();
            }
        })
    });
    for done in futures_util::future::join_all(appends).await {
        done.unwrap();
    }
    for n in 200_000..200_100 {
        store.append(append(run_id(n), 1, 1)).await.unwrap();
    }
    println!("as they were written:");
    listed(&*store).await;
    database.query("VACUUM ANALYZE pointsman.runs");
    println!("when the server has looked at its tables:");
    listed(&*store).await;
    for n in 200_000..200_100 {
        for seq in 2..50 {
            store.append(append(run_id(n), seq, 1)).await.unwrap();
        }
    }
    let in_place = "SELECT pg_stat_force_next_flush(); SELECT n_tup_hot_upd, n_tup_upd FROM pg_stat_user_tables WHERE relname = 'runs'";
    tokio::time::sleep(Duration::from_secs(2)).await;
    println!("changed in place, changed: {}", database.query(in_place));
    store.close().await;
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
        store.append(append(run_id(n), 1, 1)).await.unwrap();
    }
    store.close().await;
    drop(store);
    let began = Instant::now();
    let store = SqliteStore::open(&path, &Limits::default()).await.unwrap();
    println!("open: {:?}", began.elapsed());
    assert!(listed(&store).await < Duration::from_millis(50));
    let began = Instant::now();
    let taken = store.take_due(worker(9), 50).await.unwrap().len();
    println!("take_due: {taken} in {:?}", began.elapsed());
    let began = Instant::now();
    println!("wakes: {} in {:?}", store.wakes(50).await.unwrap().len(), began.elapsed());
    let began = Instant::now();
    println!("pin_counts: {:?} in {:?}", store.pin_counts().await.unwrap(), began.elapsed());
    let began = Instant::now();
    println!("old: {:?} in {:?}", store.purge(RunStatus::Cancelled, at(0), 50).await.unwrap(), began.elapsed());
    store.close().await;
    let began = Instant::now();
    let checked = SqliteStore::check(&path, Duration::ZERO).await.unwrap();
    println!("check: {} runs, {} events in {:?}", checked.runs, checked.events, began.elapsed());
    let began = Instant::now();
    let bytes = SqliteStore::back_up(&path, dir.path().join("copy.db")).await.unwrap();
    println!("backup: {bytes} bytes in {:?}", began.elapsed());
}

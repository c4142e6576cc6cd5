//! Lists of runs: what combinations of filters find, and how long that takes in a store of many runs.

use std::time::{Duration, Instant};

use super::purge::past;
use super::*;
use crate::store::{RunFilter, Store};

on_every_store! {
    every_combination_of_filters_finds_its_runs,
    a_row_that_cannot_be_read_hides_no_other_run,
}

/// Pages are full although rows are left out, so that a client that reads page by page does not stop early.
async fn a_row_that_cannot_be_read_hides_no_other_run(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    for n in 1..=7 {
        fixture.store.append(append(run_id(n), 1, 1).into()).await.unwrap();
    }
    let damaged = [fixture.damage_summary(run_id(2)).await, fixture.damage_summary(run_id(3)).await];
    let readable = if damaged == [true; 2] { vec![1, 4, 5, 6, 7] } else { (1..=7).collect() };
    let readable: Vec<RunId> = readable.into_iter().map(run_id).collect();
    let mut listed = Vec::new();
    loop {
        let filter = RunFilter { before: listed.last().copied(), limit: 2, ..RunFilter::default() };
        let page = fixture.store.runs(filter).await.unwrap();
        listed.extend(page.iter().map(|run| run.run_id));
        if page.len() < 2 {
            break;
        }
    }
    assert_eq!(listed, readable.iter().rev().copied().collect::<Vec<_>>());
    let mut taken = Vec::new();
    loop {
        let due = fixture.store.acquire_due(worker(7), 3).await.unwrap();
        taken.extend(due.iter().map(|owned| owned.summary.run_id));
        if due.len() < 3 {
            break;
        }
    }
    assert_eq!(taken, readable);
    assert_eq!(
        fixture.store.acquire_due(worker(7), 9).await.unwrap(),
        [],
        "what cannot be read is not due again at once"
    );
    fixture.store.close().await;
}

/// Every combination of filters returns what filtering all runs returns.
async fn every_combination_of_filters_finds_its_runs(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let statuses = [
        RunStatus::Running,
        RunStatus::Completed,
        RunStatus::Failed,
        RunStatus::Paused,
        RunStatus::Cancelled,
        RunStatus::WaitingSignal,
    ];
    let mut all: Vec<RunSummary> = Vec::new();
    for n in 0..48_u64 {
        let mut one = append(run_id(n), 1, 1);
        one.summary.status = statuses[(n % 6) as usize];
        one.summary.mode = if n % 5 == 0 { Mode::Dark } else { Mode::Real };
        one.summary.route = (n % 4 != 0).then(|| RouteId::new(if n % 4 == 1 { "one" } else { "two" }));
        one.summary.workflow = WorkflowName::new(if n % 3 == 0 { "a" } else { "b" });
        all.insert(0, one.summary.clone());
        fixture.store.append(one.into()).await.unwrap();
    }
    let open = RunStatus::OPEN.to_vec();
    let mixed = vec![RunStatus::Failed, RunStatus::Running];
    let seldom = vec![RunStatus::Failed, RunStatus::Cancelled];
    let sets =
        [vec![], open, mixed, seldom, vec![RunStatus::Completed], vec![RunStatus::Paused], vec![RunStatus::Queued]];
    for statuses in sets {
        for workflow in [None, Some("a"), Some("none")] {
            for route in [None, Some("one"), Some("none")] {
                for mode in [None, Some(Mode::Dark)] {
                    for (before, limit) in [(None, 100), (None, 2), (Some(run_id(20)), 100)] {
                        let (workflow, route) = (workflow.map(str::to_owned), route.map(RouteId::new));
                        let filter = RunFilter {
                            statuses: statuses.clone(),
                            workflow,
                            route,
                            mode,
                            before,
                            limit,
                            ..RunFilter::default()
                        };
                        let RunFilter { workflow, route, .. } = &filter;
                        let expected: Vec<_> = all
                            .iter()
                            .filter(|run| statuses.is_empty() || statuses.contains(&run.status))
                            .filter(|run| workflow.as_ref().is_none_or(|name| run.workflow.as_str() == name))
                            .filter(|run| route.is_none() || run.route == *route)
                            .filter(|run| mode.is_none_or(|mode| run.mode == mode))
                            .filter(|run| before.is_none_or(|before| run.run_id < before))
                            .take(limit)
                            .cloned()
                            .collect();
                        assert_eq!(fixture.store.runs(filter.clone()).await.unwrap(), expected, "{filter:?}");
                    }
                }
            }
        }
    }
    let counts = [(RunStatus::Running, 8), (RunStatus::WaitingSignal, 8), (RunStatus::Paused, 8)];
    assert_eq!(fixture.store.open_runs().await.unwrap(), counts, "runs that have not ended");
    fixture.store.append(with_status(append(run_id(0), 2, 1), RunStatus::Paused).into()).await.unwrap();
    fixture.store.append(with_status(append(run_id(3), 2, 1), RunStatus::Failed).into()).await.unwrap();
    let counts = [(RunStatus::Running, 7), (RunStatus::WaitingSignal, 8), (RunStatus::Paused, 8)];
    assert_eq!(fixture.store.open_runs().await.unwrap(), counts, "after two changes");
    let paused = RunFilter { statuses: vec![RunStatus::Paused], limit: 99, ..RunFilter::default() };
    assert_eq!(fixture.store.runs(paused).await.unwrap().last().map(|run| run.run_id), Some(run_id(0)));
}

/// Every filter, and combinations of them; those whose name ends with `none` find nothing.
pub(super) fn filters() -> Vec<(&'static str, RunFilter)> {
    let all = RunFilter { limit: 51, ..RunFilter::default() };
    let of = |statuses: &[RunStatus]| RunFilter { statuses: statuses.to_vec(), ..all.clone() };
    let of_all_runs = || Some("create-order".to_owned());
    vec![
        ("newest", all.clone()),
        ("running", of(&[RunStatus::Running])),
        ("every open status", of(&RunStatus::OPEN)),
        ("completed", of(&[RunStatus::Completed])),
        ("failed", of(&[RunStatus::Failed])),
        ("failed or cancelled", of(&[RunStatus::Failed, RunStatus::Cancelled])),
        ("cancelled: none", of(&[RunStatus::Cancelled])),
        ("cancelled or abandoned: none", of(&[RunStatus::Cancelled, RunStatus::Abandoned])),
        ("of a workflow", RunFilter { workflow: of_all_runs(), ..all.clone() }),
        ("of a workflow: none", RunFilter { workflow: Some("none".into()), ..all.clone() }),
        ("failed, of a workflow", RunFilter { workflow: of_all_runs(), ..of(&[RunStatus::Failed]) }),
        ("failed, of a workflow: none", RunFilter { workflow: Some("none".into()), ..of(&[RunStatus::Failed]) }),
        ("cancelled, of a workflow: none", RunFilter { workflow: of_all_runs(), ..of(&[RunStatus::Cancelled]) }),
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

/// Prints how long each listing takes (the best of three), and returns the time of the slowest one.
pub(super) async fn slowest_listing(store: &impl Store) -> Duration {
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

/// By hand: `cargo test --release --lib store::tests::lists -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn a_hundred_thousand_runs_in_postgresql() {
    if !StoreKind::Postgres.is_installed() {
        return;
    }
    let database = super::cluster::shared().unwrap().database();
    let store = PostgresStore::open(&Secret::new(database.url()), None, &Limits::default()).await.unwrap();
    let store = Arc::new(store);
    let appends = (0..64_u64).map(|caller| {
        let store = store.clone();
        tokio::spawn(async move {
            for n in (0..100_000).filter(|n| n % 64 == caller) {
                let mut run = completed_run(run_id(n), past(n));
                if n % 10 == 0 {
                    run.summary.status = RunStatus::Failed;
                }
                store.append(run.into()).await.unwrap();
            }
        })
    });
    for done in futures_util::future::join_all(appends).await {
        done.unwrap();
    }
    for n in 200_000..200_100 {
        store.append(append(run_id(n), 1, 1).into()).await.unwrap();
    }
    println!("before ANALYZE:");
    slowest_listing(&*store).await;
    database.query("VACUUM ANALYZE pointsman.runs");
    println!("after ANALYZE:");
    slowest_listing(&*store).await;
    for n in 200_000..200_100 {
        for seq in 2..50 {
            store.append(append(run_id(n), seq, 1).into()).await.unwrap();
        }
    }
    let in_place = "SELECT pg_stat_force_next_flush(); SELECT n_tup_hot_upd, n_tup_upd FROM pg_stat_user_tables WHERE relname = 'runs'";
    tokio::time::sleep(Duration::from_secs(2)).await;
    println!("rows updated in place, rows updated: {}", database.query(in_place));
    store.close().await;
}

//! The outbox of runs that are to begin.

use super::*;
use crate::store::{PendingRun, StoreNotification};

on_every_store! {
    a_birth_waits_until_its_run_has_an_event,
    a_birth_is_delivered_after_a_restart,
    births_and_beginnings_may_go_in_together,
    a_run_whose_births_wait_is_not_purged,
    a_birth_that_waits_is_told,
}

pub(super) fn birth(run: u64, parent: Option<u64>) -> PendingRun {
    PendingRun { run: run_id(run), parent: parent.map(run_id), record: json!({ "n": 1.50, "run": run }), at: at(7) }
}

/// An append that decides on runs.
fn deciding(append: Append, pending_runs: Vec<PendingRun>) -> Arc<Append> {
    Arc::new(Append { pending_runs, ..append })
}

async fn a_birth_waits_until_its_run_has_an_event(which: Which) {
    let place = Place::new(which).await;
    let store = &place.store;
    let waiting = async || store.pending_runs(99).await.unwrap();
    let first = deciding(append(run_id(1), 1, 1), vec![birth(3, Some(1)), birth(2, Some(1))]);
    store.append(first.clone()).await.unwrap();
    store.append(first).await.unwrap();
    store.append(deciding(append(run_id(1), 2, 1), vec![birth(4, None)])).await.unwrap();
    assert_eq!(waiting().await, [birth(3, Some(1)), birth(2, Some(1)), birth(4, None)]);
    assert_eq!(store.pending_runs(2).await.unwrap(), waiting().await[..2]);
    // The first decision stands; what is refused decides nothing.
    let again = PendingRun { record: json!("another"), ..birth(2, None) };
    store.append(deciding(append(run_id(1), 3, 1), vec![again, birth(2, None)])).await.unwrap();
    store.append(deciding(append(run_id(1), 2, 1), vec![birth(5, Some(1))])).await.unwrap_err();
    store.append(deciding(append(run_id(9), 2, 1), vec![birth(5, Some(9))])).await.unwrap_err();
    assert_eq!(waiting().await.len(), 3);
    // A run that is refused has not begun.
    store.append(append(run_id(3), 2, 1).into()).await.unwrap_err();
    assert_eq!(waiting().await.len(), 3);
    store.append(append(run_id(3), 1, 2).into()).await.unwrap();
    assert_eq!(waiting().await, [birth(2, Some(1)), birth(4, None)]);
    store.append(deciding(append(run_id(1), 4, 1), vec![birth(3, Some(1))])).await.unwrap();
    assert_eq!(waiting().await, [birth(2, Some(1)), birth(4, None)], "it has begun already");
    for run in [2, 2, 9] {
        store.remove_pending_run(run_id(run)).await.unwrap();
    }
    assert_eq!(waiting().await, [birth(4, None)]);
}

async fn a_birth_is_delivered_after_a_restart(which: Which) {
    let mut place = Place::new(which).await;
    place.store.append(deciding(append(run_id(1), 1, 1), vec![birth(2, Some(1)), birth(3, None)])).await.unwrap();
    if !matches!(which, Which::Memory) {
        place.reopen().await;
    }
    let store = &place.store;
    assert_eq!(store.pending_runs(9).await.unwrap(), [birth(2, Some(1)), birth(3, None)]);
    store.append(append(run_id(2), 1, 1).into()).await.unwrap();
    assert_eq!(store.pending_runs(9).await.unwrap(), [birth(3, None)]);
}

async fn births_and_beginnings_may_go_in_together(which: Which) {
    let place = Place::new(which).await;
    let store = &place.store;
    let appends = [
        deciding(append(run_id(1), 1, 1), vec![birth(2, Some(1)), birth(3, Some(1)), birth(4, Some(1))]),
        append(run_id(2), 1, 1).into(),
        append(run_id(3), 1, 1).into(),
        deciding(append(run_id(3), 2, 1), vec![birth(1, None), birth(2, None), birth(3, None)]),
    ];
    for done in futures_util::future::join_all(appends.map(|append| store.append(append))).await {
        done.unwrap();
    }
    assert_eq!(store.pending_runs(9).await.unwrap(), [birth(4, Some(1))]);
}

async fn a_run_whose_births_wait_is_not_purged(which: Which) {
    let place = Place::new(which).await;
    let store = &place.store;
    let past = Timestamp::from_second(1_700_000_000).unwrap();
    store.append(deciding(answered(run_id(1), past), vec![birth(2, Some(1))])).await.unwrap();
    assert_eq!(store.purge(RunStatus::Completed, at(0), 9).await.unwrap().runs, 0);
    store.append(append(run_id(2), 1, 1).into()).await.unwrap();
    assert_eq!(store.purge(RunStatus::Completed, at(0), 9).await.unwrap().runs, 1);
}

async fn a_birth_that_waits_is_told(which: Which) {
    let place = Place::new(which).await;
    let mut news = place.store.notifications();
    place.store.append(deciding(append(run_id(1), 1, 1), vec![birth(2, Some(1))])).await.unwrap();
    let heard = async { while news.recv().await.unwrap() != StoreNotification::PendingRun {} };
    tokio::time::timeout(std::time::Duration::from_secs(20), heard).await.expect("the birth is told");
}

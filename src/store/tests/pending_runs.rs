//! Tests of the outbox: the runs that are to be created.

use super::*;
use crate::store::{OutboxRow, StoreNotification};

on_every_store! {
    a_pending_run_is_listed_until_its_run_has_an_event,
    a_pending_run_is_listed_after_a_restart,
    pending_runs_and_first_appends_may_share_a_batch,
    a_run_with_pending_runs_is_not_purged,
    subscribers_are_notified_of_a_pending_run,
}

pub(super) fn pending_run(run: u64, parent: Option<u64>) -> OutboxRow {
    OutboxRow { run: run_id(run), parent: parent.map(run_id), record: json!({ "n": 1.50, "run": run }), at: at(7) }
}

/// The same append with runs that it puts into the outbox.
fn with_pending_runs(append: Append, pending_runs: Vec<OutboxRow>) -> Arc<Append> {
    Arc::new(Append { pending_runs, ..append })
}

async fn a_pending_run_is_listed_until_its_run_has_an_event(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let store = &fixture.store;
    let waiting = async || store.pending_runs(99).await.unwrap();
    let first = with_pending_runs(append(run_id(1), 1, 1), vec![pending_run(3, Some(1)), pending_run(2, Some(1))]);
    store.append(first.clone()).await.unwrap();
    store.append(first).await.unwrap();
    store.append(with_pending_runs(append(run_id(1), 2, 1), vec![pending_run(4, None)])).await.unwrap();
    assert_eq!(waiting().await, [pending_run(3, Some(1)), pending_run(2, Some(1)), pending_run(4, None)]);
    assert_eq!(store.pending_runs(2).await.unwrap(), waiting().await[..2]);
    // A later row of the same run is ignored; a refused append adds none.
    let again = OutboxRow { record: json!("another"), ..pending_run(2, None) };
    store.append(with_pending_runs(append(run_id(1), 3, 1), vec![again, pending_run(2, None)])).await.unwrap();
    store.append(with_pending_runs(append(run_id(1), 2, 1), vec![pending_run(5, Some(1))])).await.unwrap_err();
    store.append(with_pending_runs(append(run_id(9), 2, 1), vec![pending_run(5, Some(9))])).await.unwrap_err();
    assert_eq!(waiting().await.len(), 3);
    // A refused first append does not remove the row.
    store.append(append(run_id(3), 2, 1).into()).await.unwrap_err();
    assert_eq!(waiting().await.len(), 3);
    store.append(append(run_id(3), 1, 2).into()).await.unwrap();
    assert_eq!(waiting().await, [pending_run(2, Some(1)), pending_run(4, None)]);
    store.append(with_pending_runs(append(run_id(1), 4, 1), vec![pending_run(3, Some(1))])).await.unwrap();
    assert_eq!(waiting().await, [pending_run(2, Some(1)), pending_run(4, None)], "the run exists already");
    for run in [2, 2, 9] {
        store.remove_pending_run(run_id(run)).await.unwrap();
    }
    assert_eq!(waiting().await, [pending_run(4, None)]);
}

async fn a_pending_run_is_listed_after_a_restart(which: StoreKind) {
    let mut fixture = StoreFixture::new(which).await;
    fixture
        .store
        .append(with_pending_runs(append(run_id(1), 1, 1), vec![pending_run(2, Some(1)), pending_run(3, None)]))
        .await
        .unwrap();
    if !matches!(which, StoreKind::Memory) {
        fixture.reopen().await;
    }
    let store = &fixture.store;
    assert_eq!(store.pending_runs(9).await.unwrap(), [pending_run(2, Some(1)), pending_run(3, None)]);
    store.append(append(run_id(2), 1, 1).into()).await.unwrap();
    assert_eq!(store.pending_runs(9).await.unwrap(), [pending_run(3, None)]);
}

async fn pending_runs_and_first_appends_may_share_a_batch(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let store = &fixture.store;
    let appends = [
        with_pending_runs(
            append(run_id(1), 1, 1),
            vec![pending_run(2, Some(1)), pending_run(3, Some(1)), pending_run(4, Some(1))],
        ),
        append(run_id(2), 1, 1).into(),
        append(run_id(3), 1, 1).into(),
        with_pending_runs(
            append(run_id(3), 2, 1),
            vec![pending_run(1, None), pending_run(2, None), pending_run(3, None)],
        ),
    ];
    for done in futures_util::future::join_all(appends.map(|append| store.append(append))).await {
        done.unwrap();
    }
    assert_eq!(store.pending_runs(9).await.unwrap(), [pending_run(4, Some(1))]);
}

async fn a_run_with_pending_runs_is_not_purged(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let store = &fixture.store;
    let past = Timestamp::from_second(1_700_000_000).unwrap();
    store.append(with_pending_runs(completed_run(run_id(1), past), vec![pending_run(2, Some(1))])).await.unwrap();
    assert_eq!(store.purge(RunStatus::Completed, at(0), 9).await.unwrap().runs, 0);
    store.append(append(run_id(2), 1, 1).into()).await.unwrap();
    assert_eq!(store.purge(RunStatus::Completed, at(0), 9).await.unwrap().runs, 1);
}

async fn subscribers_are_notified_of_a_pending_run(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let mut notifications = fixture.store.notifications();
    fixture.store.append(with_pending_runs(append(run_id(1), 1, 1), vec![pending_run(2, Some(1))])).await.unwrap();
    let received = async { while notifications.recv().await.unwrap() != StoreNotification::PendingRun {} };
    tokio::time::timeout(std::time::Duration::from_secs(20), received).await.expect("a notification");
}

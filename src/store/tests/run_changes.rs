//! Which runs have changed since an earlier look.

use std::collections::BTreeSet;

use super::purge::past;
use super::*;
use crate::store::{ChangedRuns, RunCursor};

on_every_store! {
    changed_runs_are_found_from_a_cursor_on,
    more_changes_than_the_limit_are_said,
    a_purge_hides_no_later_change,
}

/// An append whose events happen now.
fn append_now(run: RunId, first: u64, status: RunStatus) -> Append {
    let mut append = with_status(append(run, first, 1), status);
    let now = clock::now();
    append.events.iter_mut().for_each(|(at, _)| *at = now);
    append.summary.updated = now;
    append
}

/// Number and last event of each run, without those that are not newer than `known`.
fn newer(found: &ChangedRuns, known: &BTreeSet<(RunId, Seq)>) -> BTreeSet<(RunId, Seq)> {
    let all: BTreeSet<_> = found.runs.iter().map(|run| (run.run_id, run.seq)).collect();
    all.difference(known).copied().collect()
}

async fn changed_runs_are_found_from_a_cursor_on(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let store = &fixture.store;
    for n in 1..=3 {
        store.append(append_now(run_id(n), 1, RunStatus::Running).into()).await.unwrap();
    }
    let begin = store.changed_runs(None, 9).await.unwrap();
    assert_eq!(begin.runs, [], "without a cursor nothing is read");
    let first = store.changed_runs(Some(begin.next), 9).await.unwrap();
    let mut known: BTreeSet<_> = first.runs.iter().map(|run| (run.run_id, run.seq)).collect();
    assert!(known.iter().all(|(_, seq)| *seq == Seq(1)) && first.are_all, "{first:?}");

    store.append(append_now(run_id(2), 2, RunStatus::Paused).into()).await.unwrap();
    store.append(append_now(run_id(3), 2, RunStatus::Completed).into()).await.unwrap();
    store.append(append_now(run_id(4), 1, RunStatus::Completed).into()).await.unwrap();
    let second = store.changed_runs(Some(first.next), 9).await.unwrap();
    let changed = BTreeSet::from([(run_id(2), Seq(2)), (run_id(3), Seq(2)), (run_id(4), Seq(1))]);
    assert_eq!(newer(&second, &known), changed);
    assert!(second.are_all);
    let paused = second.runs.iter().find(|run| run.run_id == run_id(2));
    assert_eq!(paused.map(|run| run.status), Some(RunStatus::Paused), "as it is now");
    known.extend(changed);

    let third = store.changed_runs(Some(second.next), 9).await.unwrap();
    assert_eq!(newer(&third, &known), BTreeSet::new());
    fixture.store.close().await;
}

async fn more_changes_than_the_limit_are_said(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let store = &fixture.store;
    let RunCursor(begin) = store.changed_runs(None, 2).await.unwrap().next;
    for n in 1..=4 {
        store.append(append_now(run_id(n), 1, RunStatus::Running).into()).await.unwrap();
    }
    let found = store.changed_runs(Some(RunCursor(begin)), 2).await.unwrap();
    assert!(!found.are_all && found.runs.len() == 2, "{found:?}");
    let last: BTreeSet<RunId> = found.runs.iter().map(|run| run.run_id).collect();
    assert!(last.contains(&run_id(4)), "those that changed last: {last:?}");
    fixture.store.close().await;
}

/// In SQLite a purge may remove the last append, and the next one gets its position.
async fn a_purge_hides_no_later_change(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let store = &fixture.store;
    store.append(ended_long_ago(append(run_id(1), 1, 1)).into()).await.unwrap();
    let begin = store.changed_runs(None, 9).await.unwrap();
    store.purge(RunStatus::Completed, past(9), 9).await.unwrap();
    store.append(append_now(run_id(2), 1, RunStatus::Running).into()).await.unwrap();
    let found = store.changed_runs(Some(begin.next), 9).await.unwrap();
    assert!(found.runs.iter().any(|run| run.run_id == run_id(2)), "{found:?}");
    fixture.store.close().await;
}

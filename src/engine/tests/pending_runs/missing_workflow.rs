//! A child whose workflow is removed from the files between the parent's decision on it and its first append.

use serde_json::json;

use super::{SlowStore, calls, harness, start};
use crate::store::RunCoordination;
use crate::workflow::RunStatus;

/// The parent pauses and names the workflow, also after a restart, and continues by itself once the files have the
/// workflow again.
#[tokio::test]
async fn a_parent_waits_for_the_workflow_of_a_child_that_it_has_decided_on() {
    for restart in [false, true] {
        let store = SlowStore::new(true, false, 0);
        let (step_service, mut harness) = harness(&store, &calls()).await;
        harness.recover().await;
        let run = start(&harness, json!({})).await.run;
        store.wait_for_reads(1).await;
        assert_eq!(store.inner.pending_runs(9).await.unwrap().len(), 1, "decided, and not created");
        match restart {
            false => harness.load_plans(&[]),
            true => harness.crash().await,
        }
        store.answer_reads(usize::MAX);
        if restart {
            harness.recover().await;
        }
        let paused = harness.wait_until_ended_or_awaits_input(run).await;
        assert_eq!(paused.status, RunStatus::Paused, "the parent has not failed: {paused:?}");
        let note = harness.view(run).await.note.unwrap_or_default();
        assert!(note.contains("the workflow `child`, which is not in the files in force"), "{note}");
        harness.wait_until_idle(run).await;
        assert!(store.inner.pending_runs(9).await.unwrap().is_empty(), "no row stays in the outbox");
        assert_eq!((harness.runs().await.len(), step_service.seen().len()), (1, 0));
        harness.load_plans(&[]);
        harness.load_plans(&[&calls()]);
        harness.wait_until(run, |view| view.status == RunStatus::Completed).await;
        let created = (step_service.paths(), harness.runs().await.len());
        assert_eq!(created, (vec!["POST /child".to_owned()], 2), "created once");
        assert!(store.inner.pending_runs(9).await.unwrap().is_empty());
    }
}

//! A process ends after it stored the end of a run, and before it told the run's children to end.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::json;

use super::harness::{Harness, ServiceReply, StepService, TIMEOUT, checked_plan, start};
use super::test_stores::{self, TestStore};
use crate::limits::Limits;
use crate::names::RunId;
use crate::workflow::{ControlCommand, RunStatus};

struct ParentAndChild {
    harness: Harness,
    store: Arc<TestStore>,
    parent: RunId,
    child: RunId,
}

/// A run and its child, which waits for a signal.
async fn parent_and_child() -> ParentAndChild {
    let definition = |name: &str, step: serde_json::Value| {
        let definition = json!({ "workflow": name, "steps": { "a": step }, "respond": { "status": 200, "body": {} } });
        checked_plan(&definition, false)
    };
    let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({}))).await;
    let store = test_stores::gated();
    let plan = definition("w", json!({ "run": "child" }));
    let harness = Harness::with_store(&step_service, plan, store.clone(), Limits::default(), None).await;
    harness.load_plans(&[&definition("child", json!({ "wait": { "signal": "go" } }))]);
    let parent = start(&harness, json!({})).await.run;
    harness.wait_until(parent, |view| !view.steps.is_empty()).await;
    let child = loop {
        if let Some(child) = harness.runs().await.into_iter().find(|run| run.parent == Some(parent)) {
            break child.run_id;
        }
        tokio::task::yield_now().await;
    };
    harness.wait_until(child, |view| view.status == RunStatus::WaitingSignal).await;
    harness.wait_until_idle(parent).await;
    harness.wait_until_idle(child).await;
    ParentAndChild { harness, store, parent, child }
}

impl ParentAndChild {
    /// Cancels the parent. The process ends after the parent's event is stored and before the child's is.
    async fn cancel_and_crash(&mut self, compensate: bool) {
        self.store.appends.shut();
        self.store.appends.pass(1);
        let command = ControlCommand::Cancel { compensate, reason: None, automatic: false };
        self.harness.engine.give_command(self.parent, command, "ann".into()).await.unwrap();
        self.store.appends.wait_for_arrivals(2).await;
        self.harness.crash().await;
        self.store.appends.pass(1_000);
        assert_eq!(self.status(self.child).await, RunStatus::WaitingSignal);
    }
    async fn status(&self, run: RunId) -> RunStatus {
        self.harness.store.run(run).await.unwrap().unwrap().status
    }
    /// The parents in the rows of the outbox.
    async fn outbox_parents(&self) -> Vec<Option<RunId>> {
        self.harness.store.pending_runs(9).await.unwrap().into_iter().map(|row| row.parent).collect()
    }
    async fn wait_until_outbox_is_empty(&self) {
        let poll = async {
            while !self.outbox_parents().await.is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(TIMEOUT, poll).await.expect("the row is removed");
    }
}

/// The parent cannot be read, so no driver can repeat the command to its child. The outbox row in the append that
/// ended the parent repeats it.
#[tokio::test]
async fn the_next_process_ends_the_child_of_a_run_that_was_cancelled_although_unreadable() {
    let mut parent_and_child = parent_and_child().await;
    parent_and_child.store.omits_last_event.store(true, Ordering::SeqCst);
    parent_and_child.cancel_and_crash(false).await;
    parent_and_child.store.omits_last_event.store(false, Ordering::SeqCst);
    assert_eq!(parent_and_child.status(parent_and_child.parent).await, RunStatus::Cancelled);
    assert_eq!(parent_and_child.outbox_parents().await, [Some(parent_and_child.parent)]);
    parent_and_child.harness.recover().await;
    parent_and_child.harness.wait_until(parent_and_child.child, |view| view.status == RunStatus::Cancelled).await;
    parent_and_child.wait_until_outbox_is_empty().await;
}

/// Without a crash nothing is left in the outbox.
#[tokio::test]
async fn the_child_of_a_run_that_is_cancelled_although_unreadable_ends_with_it() {
    let parent_and_child = parent_and_child().await;
    parent_and_child.store.omits_last_event.store(true, Ordering::SeqCst);
    let command = ControlCommand::Cancel { compensate: false, reason: None, automatic: false };
    parent_and_child.harness.engine.give_command(parent_and_child.parent, command, "ann".into()).await.unwrap();
    parent_and_child.store.omits_last_event.store(false, Ordering::SeqCst);
    parent_and_child.harness.wait_until(parent_and_child.child, |view| view.status == RunStatus::Cancelled).await;
    parent_and_child.wait_until_outbox_is_empty().await;
}

/// A run that can be read does not end before its child: its next driver repeats the command.
#[tokio::test]
async fn the_next_process_ends_the_child_of_a_run_that_was_being_cancelled() {
    let mut parent_and_child = parent_and_child().await;
    parent_and_child.cancel_and_crash(true).await;
    assert_eq!(parent_and_child.status(parent_and_child.parent).await, RunStatus::Running);
    parent_and_child.harness.recover().await;
    for run in [parent_and_child.child, parent_and_child.parent] {
        parent_and_child.harness.wait_until(run, |view| view.status == RunStatus::Cancelled).await;
    }
    assert_eq!(parent_and_child.outbox_parents().await, []);
}

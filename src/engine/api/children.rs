//! What runs and the runs that they began say to each other.
//!
//! Always true: a child's end reaches its parent wherever that is moved, and a parent that is taken up looks for itself;
//! an order for a child is delivered, refused, or ordered again. How a child is born is `child`'s business.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::engine::api::orders;
use crate::engine::api::types::OrderError;
use crate::engine::context::Core;
use crate::engine::machine::{ChildEnd, Delivery};
use crate::engine::scheduler::mailbox::Message;
use crate::names::RunId;
use crate::workflow::{Mode, Order, Run, RunStatus};

/// Until an order is delivered again.
const PAUSE: Duration = Duration::from_millis(500);

/// How a run ended, for the one that began it.
pub(in crate::engine) fn end_of(run: &Run) -> ChildEnd {
    let output = run.answer().map_or(Value::Null, |answer| answer.body.value());
    // For its parent an early end is no result, declared or not.
    let early = run.status() == RunStatus::Completed && run.failed_as_declared();
    let status = if early { RunStatus::Failed } else { run.status() };
    let (child, output) = (run.id(), Arc::new(output));
    ChildEnd { child, status, output, note: run.note(), effects: run.did_something() }
}

/// A run has ended: whoever began it hears so.
pub(in crate::engine) fn ended(core: &Arc<Core>, run: &Run) {
    let Some(parent) = run.started().parent.as_ref().map(|parent| parent.run) else { return };
    if run.mode() == Mode::Rehearse {
        return; // its parent has it in hand
    }
    let (core, end) = (core.clone(), end_of(run));
    core.clone().spawn_background(async move {
        if core.deliver(parent, Message::ChildEnded(Box::new(end))).await.is_err() {
            tracing::debug!(run = %parent, "the next process sees that a run that it began has ended");
        }
    });
}

/// Says something to a child, as its parent. One that refuses has heard.
pub(in crate::engine) async fn say(core: Arc<Core>, child: RunId, order: Order, parent: RunId) -> Delivery {
    let name = order.name();
    match orders::order(&core, child, order, parent.to_string()).await {
        Ok(_) => Delivery::Done,
        Err(OrderError::NoRun) => Delivery::NoRun,
        Err(OrderError::Store { why, .. }) => {
            tracing::warn!(run = %child, order = name, why, "a child did not hear its parent; it is said again");
            tokio::time::sleep(PAUSE).await;
            Delivery::Unknown
        }
        Err(why) => {
            tracing::debug!(run = %child, order = name, %why, "a child does not take an order of its parent");
            Delivery::Done
        }
    }
}

/// Statuses of runs that go on only with somebody's word.
pub(in crate::engine) const WAITING: [RunStatus; 3] =
    [RunStatus::Paused, RunStatus::WaitingCheckpoint, RunStatus::WaitingSignal];
/// A run that waits for somebody is on disk: those above it hear so, and so do their callers.
pub(in crate::engine) fn waits(core: &Arc<Core>, run: &Run) {
    let Some(parent) = run.started().parent.as_ref().map(|parent| parent.run) else { return };
    if run.mode() == Mode::Rehearse || !WAITING.contains(&run.status()) {
        return;
    }
    let core = core.clone();
    core.clone().spawn_background(async move {
        let mut above = Some(parent);
        for _ in 0..=core.files.limits.run_depth_max {
            let Some(run) = above else { return };
            core.schedule.watchers.below(run);
            drop(core.schedule.mailboxes.send(run, Message::DescendantWaits)); // without a task it has no caller
            above = core.ports.store.run(run).await.ok().flatten().and_then(|summary| summary.parent);
        }
    });
}

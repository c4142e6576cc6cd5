//! Messages between parents and children: that a child has ended, that it waits, and a parent's commands.
//!
//! Always true: a child's end reaches its parent, whichever process executes the parent; a parent that is loaded reads
//! the state of its children itself. A command for a child is delivered, refused, or sent again. `child` creates
//! children.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::engine::context::Core;
use crate::engine::machine::{ChildEnd, CommandDelivery};
use crate::engine::scheduler::command_error::CommandError;
use crate::engine::scheduler::commands;
use crate::engine::scheduler::mailbox::Message;
use crate::names::RunId;
use crate::workflow::{BytesMark, ControlCommand, Failure, Mode, Plan, Run, RunStatus, SensitivePath};

/// The pause before a command is sent again.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// How a run ended, for its parent. `mark` marks bytes in its output. The note is redacted by the child's own plan,
/// because the parent's plan does not tell which of the child's values are sensitive. Without the child's plan, a note
/// that may hold such values is left out.
pub(in crate::engine) fn end_of(run: &Run, plan: Option<&Plan>, mark: BytesMark) -> ChildEnd {
    let output = run.answer().map_or(Value::Null, |answer| answer.output(mark));
    // For the parent, a `fail` step of the child is a failure, although the child counts as completed.
    let early = run.status() == RunStatus::Completed && run.failed_as_declared();
    let status = if early { RunStatus::Failed } else { run.status() };
    let mut sensitive = run.answer().map(|answer| answer.sensitive_body()).unwrap_or_default();
    if run.holds_sensitive() {
        // An earlier version did not record where an answer quotes sensitive values, so they are searched for.
        let quotes = run.quotes_in(&output, &SensitivePath::whole(), &sensitive);
        sensitive.extend(quotes);
    }
    let (child, output) = (run.id(), Arc::new(output));
    let note = match plan {
        Some(plan) => run.shown_note(plan),
        None => run.note().filter(|_| !run.holds_sensitive()),
    };
    let (failure, tree) = (run.failure().map(Failure::kind_at_bottom), Some(run.tree_effects()));
    ChildEnd { child, status, output, note, failure, tree, sensitive }
}

/// Tells the parent of a run that the run has ended.
pub(in crate::engine) fn notify_parent(core: &Arc<Core>, run: &Run, plan: &Plan) {
    let Some(parent) = run.started().parent.as_ref().map(|parent| parent.run) else { return };
    if run.mode() == Mode::Rehearse {
        return; // the parent's task drives this run itself, and gets its end as a return value
    }
    let (core, end) = (core.clone(), end_of(run, Some(plan), core.bytes_mark()));
    core.clone().spawn_background(async move {
        if core.deliver(parent, Message::ChildEnded(Box::new(end))).await.is_err() {
            tracing::debug!(run = %parent, "the parent was not told that its child has ended: the next process that loads the parent reads it from the store");
        }
    });
}

/// Sends a command of a parent to its child. A refusal counts as delivered.
pub(in crate::engine) async fn send_command(
    core: Arc<Core>,
    child: RunId,
    command: ControlCommand,
    parent: RunId,
) -> CommandDelivery {
    let name = command.name();
    match commands::give_command(&core, child, command, parent.to_string()).await {
        Ok(_) => CommandDelivery::Done,
        Err(CommandError::NoRun) => CommandDelivery::NoRun,
        Err(CommandError::Store { why, .. }) => {
            tracing::warn!(run = %child, command = name, why, "a command of a parent did not reach its child: it is sent again");
            tokio::time::sleep(RETRY_PAUSE).await;
            CommandDelivery::Unknown
        }
        Err(why) => {
            tracing::debug!(run = %child, command = name, %why, "a child refuses a command of its parent");
            CommandDelivery::Done
        }
    }
}

/// Statuses of runs that wait for a person or a signal.
pub(in crate::engine) const WAITING_STATUSES: [RunStatus; 3] =
    [RunStatus::Paused, RunStatus::WaitingCheckpoint, RunStatus::WaitingSignal];

/// Tells the ancestors of a run, and those who wait for them, that the run waits for a person or a signal.
pub(in crate::engine) fn notify_ancestors_of_wait(core: &Arc<Core>, run: &Run) {
    let Some(parent) = run.started().parent.as_ref().map(|parent| parent.run) else { return };
    if run.mode() == Mode::Rehearse || !WAITING_STATUSES.contains(&run.status()) {
        return;
    }
    let core = core.clone();
    core.clone().spawn_background(async move {
        let mut above = Some(parent);
        for _ in 0..=core.files.limits.run_depth_max {
            let Some(run) = above else { return };
            core.schedule.subscriptions.descendant_waits(run);
            drop(core.schedule.mailboxes.send(run, Message::DescendantWaits)); // fails for a run without a task, which has no caller to answer
            above = core.ports.store.run(run).await.ok().flatten().and_then(|summary| summary.parent);
        }
    });
}

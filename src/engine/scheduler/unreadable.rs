//! Commands to a run whose plan or events cannot be read by this process, or whose events contradict each other.
//!
//! Always true: the only command that such a run accepts is a cancel without undoing; every other command is refused
//! with the reason. A cancel with undoing is refused too: which effects were performed, and how they are undone, is in
//! the part that cannot be read. The cancel is one event under this process's fencing token, and the run's row says
//! that nothing was undone. The same append holds an outbox row by which the run's children are sent the same command
//! ([`end_children`]), even if the process ends right after the append.
//!
//! When the store refuses the event, or does not answer, the run stays unchanged, and the sender of the command gets an
//! error.

use std::sync::Arc;

use jiff::SignedDuration;
use metrics::counter;
use uuid::Uuid;

use crate::engine::context::Core;
use crate::engine::machine::command_record;
use crate::engine::scheduler::command_error::CommandError;
use crate::engine::scheduler::end_children;
use crate::engine::scheduler::gauges::{open_checkpoints, unfinished_runs};
use crate::engine::scheduler::mailbox::{CommandReply, CommandRequest, ExecutionSlot};
use crate::names::RunId;
use crate::store::{Append, AppendError, CommandRecord, EventsSize, OwnedRun, Priority, StoreError};
use crate::workflow::{Choice, CommandRefusal, ControlCommand, Mode, RunSummary};

/// The bound on the list of unreadable runs that this process passes to a shared store when it asks for due runs, so
/// that the store leaves them out. Unreadable runs beyond the bound are acquired and given up again at each sweep.
const EXCLUDED_MAX: usize = 10_000;

/// The pause before the next try where a run could not be given up.
const RETRY_AFTER: SignedDuration = SignedDuration::from_secs(60);

/// The runs that this process cannot read, which a shared store leaves out when this process asks for due runs. Empty
/// where no other process uses the store.
pub(in crate::engine) fn excluded(core: &Core) -> Vec<RunId> {
    match core.ports.store.is_shared() {
        true => core.schedule.stuck.ids(EXCLUDED_MAX),
        false => Vec::new(),
    }
}

/// Gives up a run in a shared store, because another process may be able to read it. This process acquires it again
/// only
/// - for a command;
/// - at a reload;
/// - after a while, if reading its events failed, because that may have been transient;
/// - at a sweep, if more than [`EXCLUDED_MAX`] runs are stuck.
pub(in crate::engine) async fn give_up(core: &Core, owned: &OwnedRun) {
    let run = owned.summary.run_id;
    if !core.ports.store.is_shared() {
        return;
    }
    match core.ports.store.give_up(core.schedule.worker, run, owned.fence).await {
        Ok(()) => tracing::info!(%run, "the run is left to a process that can read it"),
        Err(error) => {
            tracing::warn!(%run, %error, "the run cannot be left to a process that can read it: it is tried again");
            if let Ok(at) = core.process.clock.now().checked_add(RETRY_AFTER) {
                core.schedule.timers.set(run, at);
            }
        }
    }
}

/// Answers the commands in the mailbox, and on a shared store also the commands that other processes stored. Returns
/// whether one of them has ended the run.
pub(in crate::engine) async fn answer_commands(
    core: &Arc<Core>,
    mut slot: ExecutionSlot,
    owned: &OwnedRun,
    why: &str,
) -> (ExecutionSlot, bool) {
    let mut ended: Option<RunSummary> = None;
    for CommandRequest { command, by, reply } in slot.take_commands() {
        let result = match &ended {
            Some(summary) => Err(refused(summary, CommandRefusal::Ended)),
            None => carry_out(core, owned, command, &by, why, None).await,
        };
        if let Ok(summary) = &result {
            ended = Some(summary.clone());
        }
        // The sender may have stopped waiting.
        let _ = reply.send(result.map_or_else(CommandReply::Error, |summary| CommandReply::Done(Box::new(summary))));
    }
    let mut has_ended = ended.is_some();
    if core.ports.store.is_shared() && !has_ended {
        has_ended = answer_stored(core, owned, why).await.unwrap_or_else(|error| {
            tracing::warn!(run = %owned.summary.run_id, %error, "the commands to the run cannot be read or answered now; they stay in the store");
            false
        });
    }
    (slot, has_ended)
}

/// Answers the stored commands; returns whether one of them has ended the run.
async fn answer_stored(core: &Arc<Core>, owned: &OwnedRun, why: &str) -> Result<bool, StoreError> {
    for CommandRecord { id, command, by, .. } in core.ports.store.commands(owned.summary.run_id).await? {
        let answer = match serde_json::from_value::<ControlCommand>(command) {
            Err(error) => command_record::unreadable(&error),
            Ok(command) => match carry_out(core, owned, command, &by, why, Some(id)).await {
                Ok(_) => return Ok(true), // the store answers the others: the run has ended
                Err(CommandError::Refused { refusal, .. }) => command_record::refused(&refusal),
                Err(CommandError::Unreadable(why)) => command_record::refused(&CommandRefusal::NotApplicable(why)),
                Err(CommandError::NoRun | CommandError::Store { .. }) => continue, // left unanswered: it is tried again when the run is loaded again
            },
        };
        core.ports.store.answer_command(id, answer).await?;
    }
    Ok(false)
}

fn refused(run: &RunSummary, refusal: CommandRefusal) -> CommandError {
    CommandError::Refused { run: Box::new(run.clone()), refusal }
}

/// Cancels the run if the command is a cancel without undoing; returns the summary of the run after that.
async fn carry_out(
    core: &Arc<Core>,
    owned: &OwnedRun,
    command: ControlCommand,
    by: &str,
    why: &str,
    stored_command: Option<Uuid>,
) -> Result<RunSummary, CommandError> {
    match command {
        ControlCommand::Cancel { compensate: false, reason, .. }
        | ControlCommand::Resolve { choice: Choice::Cancel { compensate: false }, reason, .. } => {
            cancel(core, owned, reason.as_deref(), by, why, stored_command).await
        }
        ControlCommand::Cancel { compensate: true, .. }
        | ControlCommand::Resolve { choice: Choice::Cancel { compensate: true }, .. } => {
            let run = owned.summary.run_id;
            let text = format!(
                "{why}, so nothing can be undone; to end the run and leave what it did as it is, cancel it \
                 without undoing (`pointsman runs cancel {run} --no-undo`, or `compensate: false`)"
            );
            Err(refused(&owned.summary, CommandRefusal::NotApplicable(text)))
        }
        ControlCommand::Pause { .. }
        | ControlCommand::Resume { .. }
        | ControlCommand::Skip { .. }
        | ControlCommand::Adjust { .. }
        | ControlCommand::Retry { .. }
        | ControlCommand::Resolve { .. }
        | ControlCommand::Answer { .. }
        | ControlCommand::HandOver { .. }
        | ControlCommand::Signal { .. } => {
            Err(CommandError::Unreadable(format!("{why}; it takes no command but `cancel --no-undo`")))
        }
    }
}

async fn cancel(
    core: &Arc<Core>,
    owned: &OwnedRun,
    reason: Option<&str>,
    by: &str,
    why: &str,
    stored_command: Option<Uuid>,
) -> Result<RunSummary, CommandError> {
    let OwnedRun { summary: before, fence } = owned;
    let (run, now) = (before.run_id, core.process.clock.now());
    let (summary, event) = before.clone().cancelled_although_unreadable(why, reason, by, now);
    let end_children_row = end_children::outbox_row(core, run, now);
    let row_id = end_children_row.run;
    let append = Append {
        run_id: run,
        first: summary.seq,
        events: vec![(summary.updated, event)],
        summary: summary.clone(),
        batch: core.process.new_id(),
        pins: Vec::new(),
        claim: None,
        priority: if before.mode == Mode::Dark { Priority::Dark } else { Priority::Real },
        worker: core.schedule.worker,
        fence: *fence,
        release: true,
        locks: Vec::new(),
        webhook_messages: Vec::new(),
        answered_commands: stored_command.map(|id| (id, command_record::done())).into_iter().collect(),
        pending_runs: vec![end_children_row],
        size: EventsSize::default(),
    };
    if let Err(error) = core.ports.store.append(Arc::new(append)).await {
        let unknown = matches!(error, AppendError::Unavailable(_));
        return Err(CommandError::Store { why: error.to_string(), unknown });
    }
    tracing::warn!(%run, workflow = %before.workflow, by, why, "the run was cancelled although it cannot be read: nothing was undone");
    let (workflow, mode) = (before.workflow.as_str().to_owned(), before.mode.as_str());
    let counted = !core.ports.store.is_shared() || core.schedule.counted_runs.counts(run);
    if core.ports.store.is_shared() {
        core.schedule.counted_runs.set(run, &before.workflow, None);
    } else {
        unfinished_runs(&before.workflow, before.status).decrement(1.0);
    }
    if let Some((_, risk)) = &before.checkpoint
        && counted
    {
        open_checkpoints(*risk).decrement(1.0);
    }
    let outcome = summary.status.as_str();
    counter!("pointsman_runs_total", "workflow" => workflow, "mode" => mode, "outcome" => outcome).increment(1);
    core.schedule.timers.remove(run);
    core.schedule.stuck.remove(run);
    core.schedule.subscriptions.ended(run);
    if let Some(parent) = before.parent {
        core.wake(parent);
    }
    let core_of_task = core.clone();
    core.spawn_background(async move {
        if let Err(error) = end_children::deliver(&core_of_task, row_id, run).await {
            tracing::warn!(%run, %error, "not all children of a cancelled run were sent the command to end: it is sent again");
        }
    });
    Ok(summary)
}

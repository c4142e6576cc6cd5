//! Sends a command to a run, whichever process executes it.
//!
//! Always true: a command is carried out once, and its sender is answered after its events are durable. A suspended
//! run is woken for the command; a run that another process executes gets the command through the store.
//!
//! When the other process does not answer in time, the error says that the outcome is unknown. The command stays in the
//! store and is carried out when a process executes the run.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{broadcast, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::engine::context::Core;
use crate::engine::machine::command_record::refusal_of;
use crate::engine::ports::command_sealer::seal_command;
use crate::engine::ports::event_sealer;
use crate::engine::scheduler::command_error::CommandError;
use crate::engine::scheduler::deliver::Undelivered;
use crate::engine::scheduler::load;
use crate::engine::scheduler::mailbox::{CommandReply, CommandRequest, Message};
use crate::engine::scheduler::stored_run::{self, ReadFrom};
use crate::engine::scheduler::successors;
use crate::limits::Limits;
use crate::names::{CheckpointId, RunId, Seq};
use crate::store::{CommandRecord, StoreNotification};
use crate::workflow::{CommandRefusal, ControlCommand, RunSummary};

/// How often the store is asked for the answer to a command, in case the notification of the answer was lost.
const ANSWER_POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Sends a command to a run and waits for its answer. A signal whose delivery id an ended run has already accepted is
/// accepted again, by that run or by its successor, because a sender that lost the answer repeats the signal. A second
/// answer to a checkpoint is refused, and the refusal contains the first answer, even if the run has ended since.
pub(in crate::engine) async fn give_command(
    core: &Arc<Core>,
    run: RunId,
    command: ControlCommand,
    by: String,
) -> Result<RunSummary, CommandError> {
    let delivery = match &command {
        ControlCommand::Signal { id, .. } => id.clone(),
        _ => None,
    };
    let mut result = send(core, run, command.clone(), by.clone()).await;
    if let (
        Err(CommandError::Refused { refusal: refusal @ CommandRefusal::Ended, .. }),
        ControlCommand::Answer { checkpoint, .. },
    ) = (&mut result, &command)
        && let Some(first) = answered_before(core, run, checkpoint).await
    {
        *refusal = first;
        return result;
    }
    let (Err(CommandError::Refused { run: summary, refusal: CommandRefusal::Ended }), Some(id)) = (&result, delivery)
    else {
        return result;
    };
    if !was_delivered(core, run, &id).await {
        return result;
    }
    // A successor of the run knows which deliveries it took over, and may wait for a further signal.
    match successors::newest_after(core, run, summary.job).await {
        Ok(None) => Ok((**summary).clone()),
        Ok(Some(newest)) => send(core, newest, command, by).await,
        Err(error) => Err(store_error(&error.to_string(), false)),
    }
}

/// The refusal of a further answer to a checkpoint of an ended run. `None` where it has no answer, or the run or its
/// plan cannot be read.
async fn answered_before(core: &Core, run: RunId, checkpoint: &CheckpointId) -> Option<CommandRefusal> {
    let stored = stored_run::read(core, run, ReadFrom::FirstEvent).await.ok()?;
    let plan = load::plan_of(core, &core.files.snapshot.load_full(), &stored.run.started().plan).await.ok()?;
    crate::workflow::answered_before(&stored.run, &plan, checkpoint)
}

/// Whether a signal was delivered to the run under this id. False where the run cannot be read, or was purged.
async fn was_delivered(core: &Core, run: RunId, id: &str) -> bool {
    let stored = stored_run::read(core, run, ReadFrom::FirstEvent).await;
    stored.is_ok_and(|stored| stored.run.has_delivery(id))
}

async fn send(core: &Arc<Core>, run: RunId, command: ControlCommand, by: String) -> Result<RunSummary, CommandError> {
    let until = Instant::now() + Limits::ms(core.files.limits.command_wait_ms);
    loop {
        let (reply, receiver) = oneshot::channel();
        let request = CommandRequest { command: command.clone(), by: by.clone(), reply };
        match timeout_at(until, core.deliver(run, Message::Command(Box::new(request)))).await {
            Ok(Ok(())) => {}
            Ok(Err(Undelivered::Draining)) => return Err(store_error("the process is shutting down", false)),
            Err(_) => return Err(store_error("the run accepts no commands now (command_wait_ms)", false)),
        }
        match timeout_at(until, receiver).await {
            Ok(Ok(CommandReply::Done(summary))) => return Ok(*summary),
            Ok(Ok(CommandReply::Error(why))) => return Err(why),
            Ok(Ok(CommandReply::Elsewhere)) => return give_command_through_store(core, run, &command, by, until).await,
            Ok(Ok(CommandReply::Retry)) => {}
            Ok(Err(_)) => return Err(store_error("the run's task ended", true)),
            Err(_) => return Err(store_error("the command was not on disk in time (command_wait_ms)", true)),
        }
        if Instant::now() >= until {
            return Err(store_error("the run accepts no commands now (command_wait_ms)", false));
        }
    }
}

fn store_error(why: &str, unknown: bool) -> CommandError {
    CommandError::Store { why: why.to_owned(), unknown }
}

/// Stores the command for the process that executes the run, and waits until that process has stored the answer.
async fn give_command_through_store(
    core: &Arc<Core>,
    run: RunId,
    command: &ControlCommand,
    by: String,
    until: Instant,
) -> Result<RunSummary, CommandError> {
    let mut command = serde_json::to_value(command).map_err(|error| CommandError::Unreadable(error.to_string()))?;
    if core.ports.sealer.has_key() {
        let events = match timeout_at(until, core.ports.store.events(run, Seq::FIRST)).await {
            Ok(Ok(events)) => events,
            Ok(Err(error)) => return Err(store_error(&error.to_string(), false)),
            Err(_) => return Err(store_error("the store does not answer", false)),
        };
        if event_sealer::may_be_sealed(&events) && seal_command(&core.ports.sealer, run, &mut command).is_none() {
            return Err(store_error(
                "the command cannot be sealed: the system's random generator does not answer",
                false,
            ));
        }
    }
    let id = core.process.new_id();
    let mut notifications = core.ports.store.notifications();
    let record = CommandRecord { id, run, command, by, at: core.process.clock.now(), answer: None };
    match timeout_at(until, core.ports.store.put_command(record)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(store_error(&error.to_string(), true)),
        Err(_) => return Err(store_error("the store does not answer", true)),
    }
    loop {
        if let Ok(Ok(Some(CommandRecord { answer: Some(answer), .. }))) =
            timeout_at(until, core.ports.store.command(id)).await
        {
            return result_of(core, run, answer).await;
        }
        let notified = async {
            loop {
                match notifications.recv().await {
                    Ok(StoreNotification::Command(command)) if command == id => return,
                    Ok(_) => {}
                    Err(broadcast::error::RecvError::Lagged(_)) => return,
                    Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
                }
            }
        };
        tokio::select! {
            () = notified => {}
            () = tokio::time::sleep(ANSWER_POLL_INTERVAL) => {}
            () = tokio::time::sleep_until(until) => {
                return Err(store_error("the process that executes the run has not answered (command_wait_ms)", true));
            }
        }
    }
}

/// The result of a command, from the answer that was stored for it.
async fn result_of(core: &Core, run: RunId, answer: Value) -> Result<RunSummary, CommandError> {
    let refused = answer.get("refused").map(refusal_of);
    if refused == Some(None) {
        return Err(CommandError::NoRun);
    }
    match (core.ports.store.run(run).await, refused.flatten()) {
        (Ok(Some(summary)), None) => Ok(summary),
        (Ok(Some(summary)), Some(refusal)) => Err(CommandError::Refused { run: Box::new(summary), refusal }),
        (Ok(None), _) => Err(CommandError::NoRun),
        (Err(error), None) => {
            Err(store_error(&format!("the command was carried out, but the run cannot be read: {error}"), true))
        }
        (Err(error), Some(refusal)) => Err(store_error(&format!("{refusal} ({error})"), false)),
    }
}

//! Starts the task of a run: acquires the run in the store, loads it, and drives it.
//!
//! Always true: a run is loaded only after this process has acquired it, so that no other process appends to it in
//! between; messages that arrive before the run is loaded wait in its mailbox. A run that cannot be loaded is left
//! unchanged, listed as stuck, and tried again at each reload; a person may cancel it ([`unreadable`]). In a shared
//! store this process gives the run up, so that a process that can read it takes it.
//!
//! A summary that cannot be read is made again from the run's events, so that commands reach such a run too.
//!
//! When the store does not answer, the waiting messages are answered with an error, and the run is tried again after
//! `RETRY_AFTER`.

use std::sync::Arc;

use jiff::SignedDuration;
use tokio::sync::OwnedSemaphorePermit;

use crate::engine::context::Core;
use crate::engine::scheduler::acquired_run::AcquiredRun;
use crate::engine::scheduler::command_error::CommandError;
use crate::engine::scheduler::lease::LeaseProof;
use crate::engine::scheduler::load::{LoadError, plan_of, read};
use crate::engine::scheduler::mailbox::{CommandReply, ExecutionSlot};
use crate::engine::scheduler::stored_run::{self, ReadError, ReadFrom, StoredRun};
use crate::engine::scheduler::unreadable;
use crate::names::RunId;
use crate::store::{AcquireResult, OwnedRun, StoreError};
use crate::workflow::{CommandRefusal, RunSummary};

/// The pause before the next try to load a run, where the store did not answer.
const RETRY_AFTER: SignedDuration = SignedDuration::from_secs(5);
/// The pause before the next try to load a run whose events could not be read although the store answers.
const RETRY_READ_AFTER: SignedDuration = SignedDuration::from_secs(60);

/// Starts a task that executes a run. `owned` is given if this process has already acquired the run; otherwise the task
/// acquires it.
pub(in crate::engine) fn start_run_task(
    core: &Arc<Core>,
    slot: ExecutionSlot,
    owned: Option<(OwnedRun, LeaseProof)>,
    permit: Option<OwnedSemaphorePermit>,
) {
    core.run_tasks.supervise(core);
    let core = core.clone();
    let tasks = core.clone();
    let task = async move {
        let _permit = permit;
        let drive = async { Box::pin(acquire_and_drive(&core, slot, owned)).await };
        core.process.cancelled.run_until_cancelled(drive).await;
    };
    tasks.process.tasks.spawn_on(task, &tasks.process.runtime);
}

async fn acquire_and_drive(core: &Arc<Core>, mut slot: ExecutionSlot, owned: Option<(OwnedRun, LeaseProof)>) {
    let run = slot.run();
    let (acquired, lease_proof) = match owned {
        Some((owned, lease_proof)) => (Ok(AcquireResult::Acquired(owned)), lease_proof),
        None => {
            let lease_proof = core.schedule.lease.proof();
            (core.ports.store.acquire(core.schedule.worker, run).await, lease_proof)
        }
    };
    let acquired = match acquired {
        Ok(AcquireResult::Unreadable { fence, why }) => match rebuild_summary(core, run).await {
            Ok(summary) => {
                tracing::error!(%run, why, "the run's summary cannot be read: it is made from the run's events");
                Ok(fence.map_or(AcquireResult::Ended(summary.clone()), |fence| {
                    AcquireResult::Acquired(OwnedRun { summary, fence })
                }))
            }
            Err(ReadError::Store(error)) => return retry_later(core, slot, &error),
            Err(events @ ReadError::Misfit(_)) => {
                // No timer is set: neither the summary nor the events become readable by waiting.
                let why = format!("neither its summary nor its events can be read: {why}; {events}");
                tracing::error!(
                    %run, why,
                    "the run cannot be executed and stays as it is in the store: `pointsman store check` lists what is wrong"
                );
                slot.reject_all(|| CommandReply::Error(CommandError::Unreadable(why.clone())));
                return;
            }
        },
        acquired => acquired,
    };
    let owned = match acquired {
        Ok(AcquireResult::Acquired(owned)) => owned,
        Ok(AcquireResult::Elsewhere { worker, name }) => {
            tracing::debug!(%run, %worker, name, "another process executes the run");
            core.schedule.stuck.remove(run); // the other process may be able to read it
            slot.reject_all(|| CommandReply::Elsewhere);
            return;
        }
        Ok(AcquireResult::Ended(summary)) => {
            core.schedule.timers.remove(run);
            core.schedule.stuck.remove(run);
            let refused = || CommandError::Refused { run: Box::new(summary.clone()), refusal: CommandRefusal::Ended };
            slot.reject_all(|| CommandReply::Error(refused()));
            return;
        }
        Ok(AcquireResult::Unknown | AcquireResult::Unreadable { .. }) => {
            core.schedule.timers.remove(run);
            slot.reject_all(|| CommandReply::Error(CommandError::NoRun));
            return;
        }
        Err(error) => return retry_later(core, slot, &error),
    };
    match load(core, slot, &owned, lease_proof).await {
        Ok(mut acquired_run) => {
            // The driver of a run that is stuck because its events contradict each other would stop at the same event
            // again before it handled a command, so the commands are answered here.
            if let Some(why) = core.schedule.stuck.why_contradicting(run) {
                let (slot, has_ended) = unreadable::answer_commands(core, acquired_run.slot, &owned, &why).await;
                if has_ended {
                    return;
                }
                acquired_run.slot = slot;
            }
            core.run_tasks.drive(core.clone(), acquired_run).await;
        }
        Err((slot, LoadError::Store(error))) => retry_later(core, slot, &error),
        Err((slot, LoadError::Unreadable(why) | LoadError::EventsUnavailable(why))) => {
            // The run is given up while the slot is held, so that a message that comes meanwhile starts another task
            // only after that.
            let (slot, _) = unreadable::answer_commands(core, slot, &owned, &why).await;
            if core.schedule.stuck.contains(run) {
                unreadable::give_up(core, &owned).await;
            }
            drop(slot);
        }
    }
}

/// Makes the summary of a run from its events.
async fn rebuild_summary(core: &Core, run: RunId) -> Result<RunSummary, ReadError> {
    let stored = stored_run::read(core, run, ReadFrom::FirstEvent).await?;
    let StoredRun { mut run, last_event_at, events, .. } = stored;
    let snapshot = core.files.snapshot.load_full();
    Ok(match plan_of(core, &snapshot, &run.started().plan).await {
        Ok(plan) => {
            run.collect_sensitive(&plan, events.iter().map(|stored| &stored.event));
            run.shown_summary(last_event_at, &plan)
        }
        Err(_) => RunSummary { note: None, ..run.summary(last_event_at) },
    })
}

/// Answers the waiting messages with the store's error, and sets a timer for the next attempt.
pub(in crate::engine) fn retry_later(core: &Core, mut slot: ExecutionSlot, error: &StoreError) {
    tracing::warn!(run = %slot.run(), %error, "the run cannot be acquired or loaded now; it is tried again");
    slot.reject_all(|| CommandReply::Error(CommandError::Store { why: error.to_string(), unknown: false }));
    if let Ok(at) = core.process.clock.now().checked_add(RETRY_AFTER) {
        core.schedule.timers.set(slot.run(), at);
    }
}

/// Loads a run that this process has acquired. `lease_proof` was taken before the run was acquired.
pub(in crate::engine) async fn load(
    core: &Arc<Core>,
    slot: ExecutionSlot,
    owned: &OwnedRun,
    lease_proof: LeaseProof,
) -> Result<AcquiredRun, (ExecutionSlot, LoadError)> {
    let id = slot.run();
    core.schedule.timers.remove(id);
    // Reading from a snapshot is safe: this process owns the run, so it is neither appended to nor purged meanwhile.
    let beginning = match owned.summary.seq.0 >= core.schedule.run_snapshots.every() {
        true => ReadFrom::Snapshot,
        false => ReadFrom::FirstEvent,
    };
    let mut loaded = read(core, id, beginning).await;
    if let Ok(first) = &loaded
        && first.from_run_snapshot
        && first.run.seq() != owned.summary.seq
    {
        tracing::warn!(run = %id, "the run's snapshot and its row disagree about its last event: all of its events are read");
        loaded = read(core, id, ReadFrom::FirstEvent).await;
    }
    match loaded {
        Ok(loaded) if loaded.run.seq() == owned.summary.seq => {
            Ok(AcquiredRun { loaded, slot, fence: owned.fence, lease_proof })
        }
        Ok(loaded) => {
            // The run is not driven: the store would refuse every append, because the sequence numbers do not match.
            let (row, events) = (owned.summary.seq, loaded.run.seq());
            let why = format!(
                "its row says that it has {row} events; there are {events}: the store is damaged (`pointsman store \
                 check` lists what is wrong); restore a backup"
            );
            tracing::error!(run = %id, why, "the run cannot be executed by this process and stays as it is in the store");
            core.schedule.stuck.add(id, &owned.summary.workflow, row, &why);
            Err((slot, LoadError::Unreadable(why)))
        }
        Err(unloaded) => {
            if let LoadError::Unreadable(why) | LoadError::EventsUnavailable(why) = &unloaded {
                tracing::error!(run = %id, why, "the run cannot be executed by this process and stays as it is in the store");
                core.schedule.stuck.add(id, &owned.summary.workflow, owned.summary.seq, why);
            }
            // The error may have been transient, so loading the run is tried again.
            if let (LoadError::EventsUnavailable(_), Ok(at)) =
                (&unloaded, core.process.clock.now().checked_add(RETRY_READ_AFTER))
            {
                core.schedule.timers.set(id, at);
            }
            Err((slot, unloaded))
        }
    }
}

//! Resumes the runs that the last process left unfinished.
//!
//! Always true: a run's state is its stored events; a finished step is not done again. Runs that wait are not loaded: for
//! one with a wake time that time is set as a timer, and one that waits for a message is loaded when the message comes.

use std::sync::Arc;

use futures_util::stream::{self, StreamExt};

use crate::engine::context::Core;
use crate::engine::driver;
use crate::engine::scheduler::claim;
use crate::engine::scheduler::heartbeat;
use crate::engine::scheduler::lease::LeaseProof;
use crate::engine::scheduler::load::LoadError;
use crate::engine::scheduler::supervisor::{self, PAGE};
use crate::engine::scheduler::unreadable;
use crate::engine::scheduler::watchdog;
use crate::store::{OwnedRun, StoreError};
use crate::workflow::RunStatus;

/// How many unfinished runs the process found at its start, by what happened to them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Runs that were loaded and go on.
    pub resumed: usize,
    /// Runs that were left unchanged, because this process cannot read their plan or events.
    pub unreadable: usize,
    /// Runs that are paused until a person acts.
    pub paused: usize,
    /// Runs that wait for a time, a signal, a checkpoint, a lock or a child.
    pub waiting: usize,
}

/// How many runs are loaded at the same time.
const LOADS_MAX: usize = 16;

pub(in crate::engine) async fn recover(core: &Arc<Core>) -> Result<Recovered, StoreError> {
    if core.ports.store.is_shared() {
        heartbeat::renew(core).await?;
    }
    let mut recovered = Recovered::default();
    let mut open: usize = 0;
    let counts = watchdog::for_each_unfinished(core, |run| {
        open += 1;
        recovered.paused += usize::from(run.status == RunStatus::Paused);
    })
    .await?;
    watchdog::publish(core, &counts);
    supervisor::start(core);
    core.files.reloaded.notify_one(); // the files may differ from those of the process before
    loop {
        let lease_proof = core.schedule.lease.proof();
        let due = core.ports.store.take_due_except(core.schedule.worker, PAGE, unreadable::known(core)).await?;
        let full = due.len() == PAGE;
        let resumed = stream::iter(due).map(|owned| resume(core, owned, lease_proof.clone()));
        let outcomes: Vec<ResumeOutcome> = resumed.buffer_unordered(LOADS_MAX).collect().await;
        for outcome in outcomes {
            match outcome {
                ResumeOutcome::Resumed => recovered.resumed += 1,
                ResumeOutcome::Unreadable => recovered.unreadable += 1,
                ResumeOutcome::StoreFailed(error) => return Err(error),
            }
        }
        if !full {
            break;
        }
        if core.schedule.wake_permits.available_permits() == 0 {
            tracing::info!(
                "more runs are due than may be moved at the same time: the others are resumed as runs end or rest"
            );
            let rest = core.clone();
            core.spawn_background(async move {
                if let Err(error) = supervisor::take_due(&rest).await {
                    tracing::error!(%error, "not every run that the last process left was resumed");
                }
            });
            break;
        }
    }
    supervisor::refill(core).await?;
    recovered.waiting = open.saturating_sub(recovered.resumed + recovered.unreadable + recovered.paused);
    if recovered != Recovered::default() {
        let Recovered { resumed, unreadable, paused, waiting } = recovered;
        tracing::info!(resumed, waiting, paused, unreadable, "the runs that the last process left are resumed");
    }
    Ok(recovered)
}

enum ResumeOutcome {
    Resumed,
    Unreadable,
    StoreFailed(StoreError),
}

async fn resume(core: &Arc<Core>, owned: OwnedRun, lease_proof: LeaseProof) -> ResumeOutcome {
    let run = owned.summary.run_id;
    let Some(slot) = core.schedule.mailboxes.claim_slot(&core.schedule.timers, run) else {
        // The task that holds the slot may end without having moved the run.
        if !core.schedule.mailboxes.notify_reacquired(run, owned.fence) {
            core.wake(run);
        }
        return ResumeOutcome::Resumed;
    };
    match claim::load(core, slot, &owned, lease_proof).await {
        Ok(driver) => {
            let permit = core.schedule.wake_permits.clone().try_acquire_owned().ok();
            driver::spawn(core, driver, permit);
            ResumeOutcome::Resumed
        }
        Err((_slot, LoadError::Unreadable(_) | LoadError::Withheld(_))) => {
            unreadable::give_up(core, &owned).await;
            ResumeOutcome::Unreadable
        }
        Err((_, LoadError::Store(error))) => ResumeOutcome::StoreFailed(error),
    }
}

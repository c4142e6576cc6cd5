//! Resumes the runs that the last process left unfinished.
//!
//! Always true: a run's state is its stored events; a finished step is not done again. Runs that wait are not loaded: a
//! run with a wake time gets a timer, and a run that waits for a message is loaded when the message comes.
//!
//! Acquiring runs is a write. If the store accepts no write (its disk is full, another program has locked it), the
//! process serves without having resumed the runs, and the recovery is repeated in the background. Until it succeeds,
//! no stored run begins for a request, a start or a rerun: each is refused as "not started" (rehearsals, and runs of a
//! route with `keep: none`, do not wait). New runs that a resumed run needs (a child, a successor that was decided on)
//! are part of the recovery. A command to a run that is not resumed yet, or a request with its retry key, needs the run
//! to be acquired. The store refuses this write too, so the sender gets an error, and nothing begins a second time.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt};
use tokio::sync::oneshot;

use crate::engine::context::Core;
use crate::engine::ports::opened_events;
use crate::engine::scheduler::acquire;
use crate::engine::scheduler::copied_runs;
use crate::engine::scheduler::heartbeat;
use crate::engine::scheduler::lease::LeaseProof;
use crate::engine::scheduler::load::LoadError;
use crate::engine::scheduler::supervisor;
use crate::engine::scheduler::unreadable;
use crate::engine::scheduler::watchdog;
use crate::store::{OwnedRun, StoreError};
use crate::workflow::{Mode, RunStatus};

/// How many unfinished runs the process found at its start, by what happened to them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Runs that were loaded and continue.
    pub resumed: usize,
    /// Runs that were left unchanged, because this process cannot read their plan or events.
    pub unreadable: usize,
    /// Runs that are paused until a person acts.
    pub paused: usize,
    /// The others: runs that wait for a time, a signal, a checkpoint, a lock or a child, and runs that are due and will
    /// be loaded later.
    pub waiting: usize,
}

/// How many runs one recovery loads at the same time. (`load_permits` bounds the loads of the whole process.)
const LOADS_MAX: usize = 16;
/// How long the start of the process waits for the first try, which may take longer: a locked database refuses a write
/// only after a timeout.
const FIRST_TRY_WAIT: Duration = Duration::from_secs(2);
/// The pauses between tries: the first, and the longest.
const RETRY_PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// Reads what other processes have recorded since this one started, and puts their freeze in force. Called before runs
/// are resumed.
pub type CatchUp = Arc<dyn Fn() -> BoxFuture<'static, Result<(), StoreError>> + Send + Sync>;

/// Resumes the runs in the background and tries again until that succeeds. Returns after the first try, or after
/// [`FIRST_TRY_WAIT`] if the first try takes longer.
pub(in crate::engine) async fn recover_in_background(core: &Arc<Core>, catch_up: CatchUp) {
    core.schedule.why_unresumed.set(Some("they are being resumed".to_owned()));
    let (first_try_ended, first_try) = oneshot::channel::<()>();
    let recovering = core.clone();
    core.spawn_background(async move { recover_until_done(&recovering, first_try_ended, catch_up).await });
    let _either_way = tokio::time::timeout(FIRST_TRY_WAIT, first_try).await;
}

async fn recover_until_done(core: &Arc<Core>, first_try_ended: oneshot::Sender<()>, catch_up: CatchUp) {
    let mut draining = core.process.draining.subscribe();
    let mut first_try_ended = Some(first_try_ended);
    let mut pause = RETRY_PAUSES.0;
    while !*draining.borrow() {
        match recover(core, Some(&catch_up)).await {
            Ok(_) => return core.schedule.why_unresumed.set(None),
            Err(error) => {
                tracing::error!(
                    %error,
                    "the runs that the last process left cannot be resumed yet: the engine takes no new runs until they \
                     are; it is tried again"
                );
                core.schedule.why_unresumed.set(Some(error.to_string()));
            }
        }
        drop(first_try_ended.take());
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(RETRY_PAUSES.1),
            _ = draining.changed() => {}
        }
    }
}

/// Resumes the runs once; returns how many there were of each kind.
pub(in crate::engine) async fn recover(core: &Arc<Core>, catch_up: Option<&CatchUp>) -> Result<Recovered, StoreError> {
    if core.ports.store.is_shared() {
        heartbeat::renew(core).await?;
        // From the renewal on, what other processes record is in force only when this process has acknowledged it. What
        // they recorded before that, and after this process read the flips at its start, is in force already: it is
        // read now.
        if let Some(catch_up) = catch_up {
            catch_up().await?;
        }
    }
    let mut recovered = Recovered::default();
    let mut open: usize = 0;
    let (mut to_be_paused, mut paused_in_dark) = (Vec::new(), Vec::new());
    let counts = watchdog::for_each_unfinished(core, |run| {
        open += 1;
        recovered.paused += usize::from(run.status == RunStatus::Paused);
        if copied_runs::is_to_be_paused(core, run) {
            to_be_paused.push(run.run_id);
        }
        if run.mode == Mode::Dark && run.status == RunStatus::Paused {
            paused_in_dark.push(run.run_id);
        }
    })
    .await?;
    watchdog::publish(core, counts);
    supervisor::start(core);
    core.files.reloaded.notify_one(); // the files may differ from those of the last process
    loop {
        let lease_proof = core.schedule.lease.proof();
        let limit = supervisor::acquired_at_once(core, 0);
        let due = core.ports.store.acquire_due_except(core.schedule.worker, limit, unreadable::excluded(core)).await?;
        let full = due.len() >= limit;
        let resumed = stream::iter(due).map(|owned| resume(core, owned, lease_proof.clone()));
        let outcomes: Vec<ResumeOutcome> = resumed.buffer_unordered(LOADS_MAX).collect().await;
        for outcome in outcomes {
            match outcome {
                ResumeOutcome::Resumed => recovered.resumed += 1,
                ResumeOutcome::Unreadable => recovered.unreadable += 1,
                ResumeOutcome::Postponed => {}
            }
        }
        if !full {
            break;
        }
        if core.schedule.wake_permits.available_permits() == 0 {
            tracing::info!(
                "more runs are due than may be executed at the same time: the others are resumed as runs end or \
                 begin to wait"
            );
            let remaining = core.clone();
            core.spawn_background(async move {
                if let Err(error) = supervisor::acquire_due(&remaining).await {
                    tracing::error!(%error, "not every run that the last process left was resumed");
                }
            });
            break;
        }
    }
    supervisor::refill(core).await?;
    to_be_paused.into_iter().for_each(|run| core.wake(run));
    // These runs are woken, because a conflict ends a run in dark (unless the run waits for something that the files
    // lack, and is not ending). They are still paused because the last process did not get that far, or was of a
    // version in which a conflict did not end them.
    paused_in_dark.into_iter().for_each(|run| core.wake(run));
    let why = opened_events::why_none_opens(&core.ports.sealer);
    let unopened = core.schedule.stuck.count_because(why);
    if unopened > 0 {
        tracing::warn!(
            runs = unopened,
            why,
            "runs have sealed values that this process cannot open: nothing is sent for them; others that wait for a \
             time or a message are found when they are due"
        );
    }
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
    /// The run is acquired and could not be read; a timer is set for the next try.
    Postponed,
}

async fn resume(core: &Arc<Core>, owned: OwnedRun, lease_proof: LeaseProof) -> ResumeOutcome {
    let run = owned.summary.run_id;
    let Some(slot) = core.schedule.mailboxes.claim_slot(&core.schedule.timers, run) else {
        // The task that holds the slot may end without having executed the run.
        if !core.schedule.mailboxes.notify_reacquired(run, owned.fence) {
            core.wake(run);
        }
        return ResumeOutcome::Resumed;
    };
    match acquire::load(core, slot, &owned, lease_proof).await {
        Ok(acquired_run) => {
            let permit = core.schedule.wake_permits.clone().try_acquire_owned().ok();
            core.run_tasks.spawn(core, acquired_run, permit);
            ResumeOutcome::Resumed
        }
        Err((_slot, LoadError::Unreadable(_) | LoadError::EventsUnavailable(_))) => {
            unreadable::give_up(core, &owned).await;
            ResumeOutcome::Unreadable
        }
        Err((slot, LoadError::Store(error))) => {
            acquire::retry_later(core, slot, &error);
            ResumeOutcome::Postponed
        }
    }
}

//! Wakes resting runs when they are due: one task and one timer for all of them.
//!
//! Always true: on a store of this process alone, the store is not used while nothing is due; a shared store is swept every
//! `sweep_ms`, because notifications may be lost. A task is started only with a permit.
//!
//! When the store does not answer, the sweep is tried again after a while; when notifications come faster than they are
//! read, it sweeps.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, MissedTickBehavior};

use crate::engine::context::Core;
use crate::engine::ports::locks;
use crate::engine::ports::webhooks;
use crate::engine::scheduler::heartbeat;
use crate::engine::scheduler::lease::LeaseProof;
use crate::engine::scheduler::outbox;
use crate::engine::scheduler::snapshot_writer;
use crate::engine::scheduler::timers::Due;
use crate::engine::scheduler::watchdog;
use crate::limits::Limits;
use crate::names::RunId;
use crate::store::{OwnedRun, StoreError, StoreNotification};

/// How many runs are acquired with one request.
pub(in crate::engine) const PAGE: usize = 64;
/// How many wake times are read with one request; later ones are read when these have passed.
const WAKE_TIMES_MAX: usize = 20_000;
/// The longest sleep: the process's time may be led towards the machine's clock meanwhile.
const SLEEP_MAX: Duration = Duration::from_secs(60);
/// The pause before a sweep that failed is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(2);

/// Starts supervising; later calls do nothing.
pub(in crate::engine) fn start(core: &Arc<Core>) {
    if core.schedule.is_supervised.swap(true, Ordering::AcqRel) {
        return;
    }
    if core.ports.store.is_shared() {
        let leased = core.clone();
        core.spawn_background(async move { heartbeat::beat(&leased).await });
    }
    let clones = || core.clone();
    let (supervised, watched, sending, delivering, reloads) = (clones(), clones(), clones(), clones(), clones());
    core.spawn_background(async move { supervise(&supervised).await });
    core.spawn_background(async move { watchdog::watch(&watched).await });
    core.spawn_background(async move { webhooks::send(&sending).await });
    core.spawn_background(async move { outbox::deliver(&delivering).await });
    core.spawn_background(async move { watchdog::wake_after_reloads(&reloads).await });
    snapshot_writer::start(core);
}

async fn supervise(core: &Arc<Core>) {
    let mut notifications = core.ports.store.notifications();
    let mut draining = core.process.draining.subscribe();
    let shared = core.ports.store.is_shared();
    let every = Limits::ms(core.files.limits.sweep_ms.max(1));
    let mut sweep = tokio::time::interval_at(Instant::now() + every, every);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sweep_at: Option<Instant> = None;
    while !*draining.borrow() {
        let sleep = match core.schedule.timers.pop_due(core.process.clock.now()) {
            Due::Run(run) => {
                wake(core, run).await;
                continue;
            }
            Due::Refill => {
                if refill(core).await.is_err() {
                    sweep_at = Some(Instant::now() + RETRY_PAUSE);
                }
                continue;
            }
            Due::At(at) => {
                let left = Duration::try_from(at.duration_since(core.process.clock.now())).unwrap_or_default();
                Some((left + Duration::from_millis(1)).min(SLEEP_MAX))
            }
            Due::Never => None,
        };
        tokio::select! {
            () = core.schedule.timers.changed() => {}
            () = until(sleep.map(|sleep| Instant::now() + sleep)) => {}
            notification = notifications.recv() => match notification {
                Ok(notification) => handle(core, notification).await,
                Err(RecvError::Lagged(_)) => sweep_at = Some(Instant::now()),
                Err(RecvError::Closed) => return,
            },
            _ = sweep.tick(), if shared => sweep_at = Some(Instant::now()),
            () = until(sweep_at) => sweep_at = match sweep_store(core).await {
                Ok(()) => None,
                Err(error) => {
                    tracing::warn!(%error, "the runs that are due cannot be read from the store: it is tried again");
                    Some(Instant::now() + RETRY_PAUSE)
                }
            },
            _ = draining.changed() => {}
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Wakes a run that is due: notifies its task, or starts one.
async fn wake(core: &Arc<Core>, run: RunId) {
    if core.schedule.mailboxes.notify(run) {
        return;
    }
    let permit = acquire_permit(core).await;
    match core.schedule.mailboxes.claim_slot(&core.schedule.timers, run) {
        Some(slot) => core.run_tasks.open(core.clone(), slot, None, permit),
        None => core.wake(run), // another task has claimed the slot meanwhile
    }
}

/// A permit for one more run that is woken.
pub(in crate::engine) async fn acquire_permit(core: &Core) -> Option<OwnedSemaphorePermit> {
    core.schedule.wake_permits.clone().acquire_owned().await.ok()
}

async fn handle(core: &Arc<Core>, notification: StoreNotification) {
    match notification {
        StoreNotification::Run(run) => core.wake(run),
        StoreNotification::Ended(run) => {
            // The task of a run reports its end itself. The notification comes first, and would only make those who wait
            // for the run read the store. It counts for runs that another process may have ended.
            if core.ports.store.is_shared() || !core.schedule.mailboxes.has_task(run) {
                core.schedule.watchers.ended(run);
            }
            if let Some(parent) = core.schedule.timers.parent_of(run) {
                core.wake(parent);
            }
        }
        StoreNotification::Lock(name) => locks::wake_first(core, &name).await,
        StoreNotification::Order(_) | StoreNotification::WebhookMessage | StoreNotification::PendingRun => {}
    }
}

/// Does everything that lost notifications might have asked for.
async fn sweep_store(core: &Arc<Core>) -> Result<(), StoreError> {
    take_due(core).await?;
    refill(core).await?;
    for run in core.schedule.timers.watching() {
        core.wake(run);
    }
    Ok(())
}

/// Acquires and moves all due runs without an owner, as permits become free.
pub(in crate::engine) async fn take_due(core: &Arc<Core>) -> Result<(), StoreError> {
    loop {
        let Some(permit) = acquire_permit(core).await else { return Ok(()) };
        let mut permit = Some(permit);
        let lease_proof = core.schedule.lease.proof();
        let due = core.ports.store.take_due(core.schedule.worker, PAGE).await?;
        let full = due.len() == PAGE;
        for owned in due {
            let permit = match permit.take() {
                Some(permit) => Some(permit),
                None => acquire_permit(core).await,
            };
            open(core, owned, lease_proof.clone(), permit);
        }
        if !full || *core.process.draining.borrow() {
            return Ok(());
        }
    }
}

/// Starts the task of an acquired run.
fn open(core: &Arc<Core>, owned: OwnedRun, lease_proof: LeaseProof, permit: Option<OwnedSemaphorePermit>) {
    let run = owned.summary.run_id;
    match core.schedule.mailboxes.claim_slot(&core.schedule.timers, run) {
        Some(slot) => core.run_tasks.open(core.clone(), slot, Some((owned, lease_proof)), permit),
        // The slot is still held: by a task that is about to end, which wakes the run then, or by one that has lost the run
        // and does not know it.
        None if core.schedule.mailboxes.notify_reacquired(run, owned.fence) => {}
        None => core.wake(run),
    }
}

/// Loads the next wake times of runs without an owner.
pub(in crate::engine) async fn refill(core: &Core) -> Result<(), StoreError> {
    let wake_times = core.ports.store.due_times(WAKE_TIMES_MAX).await?;
    core.schedule.timers.load(&wake_times, wake_times.len() == WAKE_TIMES_MAX);
    Ok(())
}

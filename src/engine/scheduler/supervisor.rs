//! Wakes suspended runs when they are due: one task and one timer for all of them.
//!
//! Always true: where the store is this process's alone, it is not queried while nothing is due; a shared store is
//! swept every `sweep_ms` (every `lease_ms` if that is shorter), because notifications may be lost. A task is started
//! only with a permit.
//!
//! When the store does not answer, the sweep is tried again after `RETRY_AFTER`. When notifications arrive faster than
//! they are read, some are lost, and a sweep makes up for them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, MissedTickBehavior};

use crate::engine::context::Core;
use crate::engine::ports::locks;
use crate::engine::ports::webhooks;
use crate::engine::scheduler::hand_over;
use crate::engine::scheduler::heartbeat;
use crate::engine::scheduler::lease::LeaseProof;
use crate::engine::scheduler::outbox;
use crate::engine::scheduler::snapshot_writer;
use crate::engine::scheduler::timers::Due;
use crate::engine::scheduler::unreadable;
use crate::engine::scheduler::watchdog;
use crate::limits::Limits;
use crate::names::RunId;
use crate::store::{OwnedRun, StoreError, StoreNotification};

/// How many runs one query acquires.
const PAGE: usize = 64;
/// How many wake times one query reads; later ones are read when these have passed.
const WAKES_MAX: usize = 20_000;
/// The longest sleep. Bounded because the process's time does not advance at the same rate as the runtime's timers.
const SLEEP_MAX: Duration = Duration::from_secs(60);
/// The pause before a failed sweep is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Starts supervising; later calls do nothing.
pub(in crate::engine) fn start(core: &Arc<Core>) {
    if core.schedule.is_supervised.swap(true, Ordering::AcqRel) {
        return;
    }
    if core.ports.store.is_shared() {
        let heartbeat = core.clone();
        core.spawn_background(async move { heartbeat::renew_repeatedly(&heartbeat).await });
    }
    let task = || core.clone();
    let (supervisor, watchdog, webhooks, guard_messages, outbox, reloads) =
        (task(), task(), task(), task(), task(), task());
    core.spawn_background(async move { supervise(&supervisor).await });
    core.spawn_background(async move { watchdog::check_repeatedly(&watchdog).await });
    core.spawn_background(async move { webhooks::send(&webhooks).await });
    core.spawn_background(async move { webhooks::guard_messages::send(&guard_messages).await });
    core.spawn_background(async move { outbox::deliver(&outbox).await });
    core.spawn_background(async move { watchdog::wake_after_reloads(&reloads).await });
    snapshot_writer::start(core);
}

/// Wakes due runs and handles notifications until the process drains. Once it leaves its runs to others, it gives
/// suspended runs away, and notifies only those that have a task: a caller waits for them.
async fn supervise(core: &Arc<Core>) {
    let mut notifications = core.ports.store.notifications();
    let (mut draining, mut leaves_runs) = (core.process.draining.subscribe(), core.process.leaves_runs.subscribe());
    let shared = core.ports.store.is_shared();
    // Runs of a process that died are taken over once its lease is over.
    let limits = &core.files.limits;
    let every = Limits::ms(limits.sweep_ms.min(limits.lease_ms).max(1));
    let mut sweep = tokio::time::interval_at(Instant::now() + every, every);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sweep_at: Option<Instant> = None;
    while !*draining.borrow() {
        let sleep = match core.schedule.timers.pop_due(core.process.clock.now()) {
            Due::Run(run) => {
                wake_due(core, run).await;
                continue;
            }
            Due::Refill => {
                if refill(core).await.is_err() {
                    sweep_at = Some(Instant::now() + RETRY_AFTER);
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
            received = notifications.recv() => match received {
                Ok(notification) => handle_notification(core, notification).await,
                Err(RecvError::Lagged(_)) => sweep_at = Some(Instant::now()),
                Err(RecvError::Closed) => return,
            },
            _ = sweep.tick(), if shared => sweep_at = Some(Instant::now()),
            () = until(sweep_at) => sweep_at = match sweep_all(core).await {
                Ok(()) => None,
                Err(error) => {
                    tracing::warn!(%error, "the due runs cannot be read from the store; it is tried again");
                    Some(Instant::now() + RETRY_AFTER)
                }
            },
            _ = leaves_runs.changed() => hand_over::begin_with_suspended(core),
            _ = draining.changed() => {}
        }
    }
    hand_over::begin_with_suspended(core);
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Notifies the task of a run that is due, or starts one.
async fn wake_due(core: &Arc<Core>, run: RunId) {
    if core.schedule.mailboxes.notify(run) || *core.process.leaves_runs.borrow() {
        return;
    }
    let permit = wake_permit(core).await;
    match core.schedule.mailboxes.claim_slot(&core.schedule.timers, run) {
        Some(slot) => core.run_tasks.start_run_task(core.clone(), slot, None, permit),
        None => core.wake(run), // another task has claimed the slot meanwhile
    }
}

/// Waits for a permit to start the task of one more woken run.
pub(in crate::engine) async fn wake_permit(core: &Core) -> Option<OwnedSemaphorePermit> {
    core.schedule.wake_permits.clone().acquire_owned().await.ok()
}

async fn handle_notification(core: &Arc<Core>, notification: StoreNotification) {
    match notification {
        StoreNotification::Run(run) => core.wake(run),
        StoreNotification::Ended { run, by_this_process } => {
            // If the run's task in this process wrote its last append, the task reports the end together with the
            // summary, a moment later. Reporting it now would make the waiting requests read the store.
            if !by_this_process || !core.schedule.mailboxes.has_task(run) {
                core.schedule.subscriptions.ended(run);
            }
            core.schedule.stuck.remove(run); // another process may have ended it
            core.schedule.counted_runs.forget(run);
            if let Some(parent) = core.schedule.timers.parent_of(run) {
                core.wake(parent);
            }
        }
        StoreNotification::Lock(name) => locks::wake_first(core, &name).await,
        StoreNotification::Command(_)
        | StoreNotification::WebhookMessage
        | StoreNotification::PendingRun
        | StoreNotification::Process => {}
    }
}

/// Does everything that lost notifications may have required.
async fn sweep_all(core: &Arc<Core>) -> Result<(), StoreError> {
    acquire_due(core).await?;
    refill(core).await?;
    for run in core.schedule.timers.watching() {
        core.wake(run);
    }
    Ok(())
}

/// How many runs one query acquires, if the caller has this many permits: in a shared store no more than this process
/// has free places for, so that the others get the rest.
pub(in crate::engine) fn acquired_at_once(core: &Core, permits: usize) -> usize {
    match core.ports.store.is_shared() {
        true => (core.schedule.wake_permits.available_permits() + permits).clamp(1, PAGE),
        false => PAGE,
    }
}

/// Acquires all due runs that no process owns and starts their tasks, each as soon as there is a permit for it.
pub(in crate::engine) async fn acquire_due(core: &Arc<Core>) -> Result<(), StoreError> {
    while !*core.process.leaves_runs.borrow() {
        let Some(permit) = wake_permit(core).await else { return Ok(()) };
        let mut permit = Some(permit);
        let lease_proof = core.schedule.lease.proof();
        let limit = acquired_at_once(core, 1);
        let due = core.ports.store.acquire_due_except(core.schedule.worker, limit, unreadable::excluded(core)).await?;
        let full = due.len() >= limit;
        for owned in due {
            let permit = match permit.take() {
                Some(permit) => Some(permit),
                None => wake_permit(core).await,
            };
            start_task(core, owned, lease_proof.clone(), permit);
        }
        if !full {
            break;
        }
    }
    Ok(())
}

fn start_task(core: &Arc<Core>, owned: OwnedRun, lease_proof: LeaseProof, permit: Option<OwnedSemaphorePermit>) {
    let run = owned.summary.run_id;
    match core.schedule.mailboxes.claim_slot(&core.schedule.timers, run) {
        Some(slot) => core.run_tasks.start_run_task(core.clone(), slot, Some((owned, lease_proof)), permit),
        // An earlier task still holds the slot. Either the task is ending, and its end wakes the run; or the task has
        // lost the run without knowing it, and learns it from this notification.
        None if core.schedule.mailboxes.notify_reacquired(run, owned.fence) => {}
        None => core.wake(run),
    }
}

/// Loads the next wake times of runs that no process owns.
pub(in crate::engine) async fn refill(core: &Core) -> Result<(), StoreError> {
    let wakes = core.ports.store.due_times(WAKES_MAX).await?;
    core.schedule.timers.load(&wakes, wakes.len() == WAKES_MAX);
    Ok(())
}

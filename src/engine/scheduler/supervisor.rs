//! Wakes resting runs when they are due: one task and one timer for all of them.
//!
//! Always true: while nothing is due it asks the store nothing, where the store is this process's alone; on a shared
//! store it sweeps every `sweep_ms`, because notifications may be lost. A task is begun only where one more may run.
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

/// Runs that are claimed with one request.
pub(in crate::engine) const PAGE: usize = 64;
/// Times that are read with one request; later ones are read when these have passed.
const WAKES_MAX: usize = 20_000;
/// The longest sleep: the process's time may be led towards the machine's clock meanwhile.
const SLEEP_MAX: Duration = Duration::from_secs(60);
/// The pause before a sweep that failed is tried again.
const AGAIN: Duration = Duration::from_secs(2);

/// Starts supervising; later calls do nothing.
pub(in crate::engine) fn start(core: &Arc<Core>) {
    if core.schedule.is_supervised.swap(true, Ordering::AcqRel) {
        return;
    }
    if core.ports.store.is_shared() {
        let leased = core.clone();
        core.spawn_background(async move { heartbeat::beat(&leased).await });
    }
    let (supervised, watched, told, begun, reloads) =
        (core.clone(), core.clone(), core.clone(), core.clone(), core.clone());
    core.spawn_background(async move { mind(&supervised).await });
    core.spawn_background(async move { watchdog::watch(&watched).await });
    core.spawn_background(async move { webhooks::send(&told).await });
    core.spawn_background(async move { outbox::deliver(&begun).await });
    core.spawn_background(async move { watchdog::wake_after_reloads(&reloads).await });
    snapshot_writer::start(core);
}

async fn mind(core: &Arc<Core>) {
    let mut news = core.ports.store.notifications();
    let mut draining = core.process.draining.subscribe();
    let shared = core.ports.store.is_shared();
    let every = Limits::ms(core.files.limits.sweep_ms.max(1));
    let mut sweep = tokio::time::interval_at(Instant::now() + every, every);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut again: Option<Instant> = None;
    while !*draining.borrow() {
        let sleep = match core.schedule.timers.pop_due(core.process.clock.now()) {
            Due::Run(run) => {
                turn_of(core, run).await;
                continue;
            }
            Due::Refill => {
                if refill(core).await.is_err() {
                    again = Some(Instant::now() + AGAIN);
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
            heard = news.recv() => match heard {
                Ok(news) => hear(core, news).await,
                Err(RecvError::Lagged(_)) => again = Some(Instant::now()),
                Err(RecvError::Closed) => return,
            },
            _ = sweep.tick(), if shared => again = Some(Instant::now()),
            () = until(again) => again = match look_around(core).await {
                Ok(()) => None,
                Err(error) => {
                    tracing::warn!(%error, "the store does not say which runs are due");
                    Some(Instant::now() + AGAIN)
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

/// The run's turn has come: its task looks around, or one is begun for it.
async fn turn_of(core: &Arc<Core>, run: RunId) {
    if core.schedule.mailboxes.notify(run) {
        return;
    }
    let permit = room(core).await;
    match core.schedule.mailboxes.claim_slot(&core.schedule.timers, run) {
        Some(slot) => core.run_tasks.open(core.clone(), slot, None, permit),
        None => core.wake(run), // somebody was faster
    }
}

/// Room for one more run that is woken.
pub(in crate::engine) async fn room(core: &Core) -> Option<OwnedSemaphorePermit> {
    core.schedule.wake_permits.clone().acquire_owned().await.ok()
}

async fn hear(core: &Arc<Core>, news: StoreNotification) {
    match news {
        StoreNotification::Run(run) => core.wake(run),
        StoreNotification::Ended(run) => {
            // Where only this process moves runs, the run's own task tells of its end: these news come first, and whoever
            // waits would read the store for what is at hand a moment later.
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

/// Looks at all that news may have told of.
async fn look_around(core: &Arc<Core>) -> Result<(), StoreError> {
    take_due(core).await?;
    refill(core).await?;
    for run in core.schedule.timers.watching() {
        core.wake(run);
    }
    Ok(())
}

/// Moves every run whose turn has come and that is nobody's, as far as there is room.
pub(in crate::engine) async fn take_due(core: &Arc<Core>) -> Result<(), StoreError> {
    loop {
        let Some(permit) = room(core).await else { return Ok(()) };
        let mut permit = Some(permit);
        let lease_proof = core.schedule.lease.proof();
        let due = core.ports.store.take_due(core.schedule.worker, PAGE).await?;
        let full = due.len() == PAGE;
        for owned in due {
            let permit = match permit.take() {
                Some(permit) => Some(permit),
                None => room(core).await,
            };
            taken(core, owned, lease_proof.clone(), permit);
        }
        if !full || *core.process.draining.borrow() {
            return Ok(());
        }
    }
}

fn taken(core: &Arc<Core>, owned: OwnedRun, lease_proof: LeaseProof, permit: Option<OwnedSemaphorePermit>) {
    let run = owned.summary.run_id;
    match core.schedule.mailboxes.claim_slot(&core.schedule.timers, run) {
        Some(slot) => core.run_tasks.open(core.clone(), slot, Some((owned, lease_proof)), permit),
        // Its last task has not quite gone, and wakes it when it has; or has lost the run, and does not know.
        None if core.schedule.mailboxes.notify_reacquired(run, owned.fence) => {}
        None => core.wake(run),
    }
}

/// Reads the next times at which runs that are nobody's want to be moved.
pub(in crate::engine) async fn refill(core: &Core) -> Result<(), StoreError> {
    let wakes = core.ports.store.due_times(WAKES_MAX).await?;
    core.schedule.timers.load(&wakes, wakes.len() == WAKES_MAX);
    Ok(())
}

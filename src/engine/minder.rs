//! Wakes the runs that rest: one task and one timer for all of them.
//!
//! Always true: while nothing happens it asks the store nothing, where the store is this process's alone; on a shared
//! store it looks around once in a while (`sweep_ms`), because news may be lost. A run is begun for only where there is
//! room for one more.
//!
//! When the store does not answer, a look is tried again after a while; when news come too fast, it looks at everything
//! itself.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, MissedTickBehavior};

use super::alarm::Due;
use super::lease::Hold;
use super::{Core, births, lease, locks, notifier, watchdog};
use crate::limits::Limits;
use crate::names::RunId;
use crate::store::{News, Owned, StoreError};

/// Runs that are taken together.
pub(super) const PAGE: usize = 64;
/// Times that are read together; those beyond are read when these are over.
const WAKES_MAX: usize = 20_000;
/// The longest sleep: the wall's clock may be put forward meanwhile.
const SLEEP_MAX: Duration = Duration::from_secs(60);
/// Until a look at a store that did not answer is tried again.
const AGAIN: Duration = Duration::from_secs(2);

/// Begins to mind, once.
pub(super) fn start(core: &Arc<Core>) {
    if core.minding.swap(true, Ordering::AcqRel) {
        return;
    }
    if core.store.is_shared() {
        let leased = core.clone();
        core.beside(async move { lease::beat(&leased).await });
    }
    let (minded, watched, told, begun, reloads) =
        (core.clone(), core.clone(), core.clone(), core.clone(), core.clone());
    core.beside(async move { mind(&minded).await });
    core.beside(async move { watchdog::watch(&watched).await });
    core.beside(async move { notifier::send(&told).await });
    core.beside(async move { births::deliver(&begun).await });
    core.beside(async move { watchdog::after_reloads(&reloads).await });
}

async fn mind(core: &Arc<Core>) {
    let mut news = core.store.news();
    let mut draining = core.draining.subscribe();
    let shared = core.store.is_shared();
    let every = Limits::ms(core.limits.sweep_ms.max(1));
    let mut sweep = tokio::time::interval_at(Instant::now() + every, every);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut again: Option<Instant> = None;
    while !*draining.borrow() {
        let sleep = match core.alarm.due(core.clock.now()) {
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
                let left = Duration::try_from(at.duration_since(core.clock.now())).unwrap_or_default();
                Some((left + Duration::from_millis(1)).min(SLEEP_MAX))
            }
            Due::Never => None,
        };
        tokio::select! {
            () = core.alarm.changed() => {}
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
    if core.post.poke(run) {
        return;
    }
    let permit = room(core).await;
    match core.post.sit(&core.alarm, run) {
        Some(seat) => core.open(seat, None, permit),
        None => core.wake(run), // somebody was faster
    }
}

/// Room for one more run that is woken.
pub(super) async fn room(core: &Core) -> Option<OwnedSemaphorePermit> {
    core.woken.clone().acquire_owned().await.ok()
}

async fn hear(core: &Arc<Core>, news: News) {
    match news {
        News::Run(run) => core.wake(run),
        News::Ended(run) => {
            core.watchers.ended(run);
            if let Some(parent) = core.alarm.parent_of(run) {
                core.wake(parent);
            }
        }
        News::Lock(name) => locks::left(core, &name).await,
        News::Order(_) | News::Notice | News::Birth => {}
    }
}

/// Looks at all that news may have told of.
async fn look_around(core: &Arc<Core>) -> Result<(), StoreError> {
    take_due(core).await?;
    refill(core).await?;
    for run in core.alarm.minding() {
        core.wake(run);
    }
    Ok(())
}

/// Moves every run whose turn has come and that is nobody's, as far as there is room.
pub(super) async fn take_due(core: &Arc<Core>) -> Result<(), StoreError> {
    loop {
        let Some(permit) = room(core).await else { return Ok(()) };
        let mut permit = Some(permit);
        let hold = core.lease.hold();
        let due = core.store.take_due(core.worker, PAGE).await?;
        let full = due.len() == PAGE;
        for owned in due {
            let permit = match permit.take() {
                Some(permit) => Some(permit),
                None => room(core).await,
            };
            taken(core, owned, hold.clone(), permit);
        }
        if !full || *core.draining.borrow() {
            return Ok(());
        }
    }
}

fn taken(core: &Arc<Core>, owned: Owned, hold: Hold, permit: Option<OwnedSemaphorePermit>) {
    let run = owned.summary.run_id;
    match core.post.sit(&core.alarm, run) {
        Some(seat) => core.open(seat, Some((owned, hold)), permit),
        // Its last task has not quite gone, and wakes it when it has; or has lost the run, and does not know.
        None if core.post.retaken(run, owned.fence) => {}
        None => core.wake(run),
    }
}

/// Reads the next times at which runs that are nobody's want to be moved.
pub(super) async fn refill(core: &Core) -> Result<(), StoreError> {
    let wakes = core.store.wakes(WAKES_MAX).await?;
    core.alarm.fill(&wakes, wakes.len() == WAKES_MAX);
    Ok(())
}

//! What the last process left goes on here.
//!
//! Always true: a run is what its events on disk say; a step that has finished is not done again. Runs that wait are not
//! read: of one with a time that time is known, and of one that waits for somebody's word nothing at all.

use std::sync::Arc;

use futures_util::stream::{self, StreamExt};

use super::lease::Hold;
use super::minder::{self, PAGE};
use super::take::{self, Unloaded};
use super::{Core, lease, watchdog};
use crate::store::{Owned, StoreError};
use crate::workflow::RunStatus;

/// What became of the runs that were left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// They go on.
    pub resumed: usize,
    /// They cannot go on here: their plan or events cannot be read. They are left as they are.
    pub unreadable: usize,
    /// They wait for a person.
    pub paused: usize,
    /// They wait for a time, a signal, an answer, a lock or a run that they began.
    pub waiting: usize,
}

/// Runs that are read at the same time.
const READS: usize = 16;

pub(super) async fn recover(core: &Arc<Core>) -> Result<Recovered, StoreError> {
    if core.store.is_shared() {
        lease::renew(core).await?;
    }
    let mut recovered = Recovered::default();
    let mut open: usize = 0;
    let counts = watchdog::unfinished(core, |run| {
        open += 1;
        recovered.paused += usize::from(run.status == RunStatus::Paused);
    })
    .await?;
    watchdog::publish(core, &counts);
    minder::start(core);
    core.reloaded.notify_one(); // by this process's start
    loop {
        let hold = core.lease.hold();
        let due = core.store.take_due(core.worker, PAGE).await?;
        let full = due.len() == PAGE;
        let went: Vec<Went> =
            stream::iter(due).map(|owned| go_on(core, owned, hold.clone())).buffer_unordered(READS).collect().await;
        for went in went {
            match went {
                Went::On => recovered.resumed += 1,
                Went::Unreadable => recovered.unreadable += 1,
                Went::Nowhere(error) => return Err(error),
            }
        }
        if !full {
            break;
        }
        if core.woken.available_permits() == 0 {
            tracing::info!("more runs are to go on than may at the same time: the rest follows");
            let rest = core.clone();
            core.beside(async move {
                if let Err(error) = minder::take_due(&rest).await {
                    tracing::error!(%error, "not every run that the last process left goes on");
                }
            });
            break;
        }
    }
    minder::refill(core).await?;
    recovered.waiting = open.saturating_sub(recovered.resumed + recovered.unreadable + recovered.paused);
    if recovered != Recovered::default() {
        let Recovered { resumed, unreadable, paused, waiting } = recovered;
        tracing::info!(resumed, waiting, paused, unreadable, "the runs that the last process left were taken up");
    }
    Ok(recovered)
}

enum Went {
    On,
    Unreadable,
    Nowhere(StoreError),
}

async fn go_on(core: &Arc<Core>, owned: Owned, hold: Hold) -> Went {
    let run = owned.summary.run_id;
    let Some(seat) = core.post.sit(&core.alarm, run) else {
        // Whoever sits there may leave without having moved it.
        if !core.post.retaken(run, owned.fence) {
            core.wake(run);
        }
        return Went::On;
    };
    match take::load(core, seat, &owned, hold).await {
        Ok(driver) => {
            let permit = core.woken.clone().try_acquire_owned().ok();
            core.spawn(driver, permit);
            Went::On
        }
        Err((_, Unloaded::Unreadable(_) | Unloaded::Withheld(_))) => Went::Unreadable,
        Err((_, Unloaded::Store(error))) => Went::Nowhere(error),
    }
}

//! Takes up the runs that the last process left.
//!
//! Always true: a run is what its events on disk say; a step that has finished is not done again. Runs that wait are not
//! read: of one with a time that time is known, and of one that waits for somebody's word nothing at all.

use std::sync::Arc;

use futures_util::stream::{self, StreamExt};

use crate::engine::context::Core;
use crate::engine::driver;
use crate::engine::scheduler::claim;
use crate::engine::scheduler::heartbeat;
use crate::engine::scheduler::lease::Hold;
use crate::engine::scheduler::load::Unloaded;
use crate::engine::scheduler::supervisor::{self, PAGE};
use crate::engine::scheduler::watchdog;
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

pub(in crate::engine) async fn recover(core: &Arc<Core>) -> Result<Recovered, StoreError> {
    if core.ports.store.is_shared() {
        heartbeat::renew(core).await?;
    }
    let mut recovered = Recovered::default();
    let mut open: usize = 0;
    let counts = watchdog::unfinished(core, |run| {
        open += 1;
        recovered.paused += usize::from(run.status == RunStatus::Paused);
    })
    .await?;
    watchdog::publish(core, &counts);
    supervisor::start(core);
    core.files.reloaded.notify_one(); // by this process's start
    loop {
        let hold = core.schedule.lease.hold();
        let due = core.ports.store.take_due(core.schedule.worker, PAGE).await?;
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
        if core.schedule.woken.available_permits() == 0 {
            tracing::info!("more runs are to go on than may at the same time: the rest follows");
            let rest = core.clone();
            core.beside(async move {
                if let Err(error) = supervisor::take_due(&rest).await {
                    tracing::error!(%error, "not every run that the last process left goes on");
                }
            });
            break;
        }
    }
    supervisor::refill(core).await?;
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
    let Some(slot) = core.schedule.mailboxes.claim_slot(&core.schedule.timers, run) else {
        // Whoever sits there may leave without having moved it.
        if !core.schedule.mailboxes.retaken(run, owned.fence) {
            core.wake(run);
        }
        return Went::On;
    };
    match claim::load(core, slot, &owned, hold).await {
        Ok(driver) => {
            let permit = core.schedule.woken.clone().try_acquire_owned().ok();
            driver::spawn(core, driver, permit);
            Went::On
        }
        Err((_, Unloaded::Unreadable(_) | Unloaded::Withheld(_))) => Went::Unreadable,
        Err((_, Unloaded::Store(error))) => Went::Nowhere(error),
    }
}

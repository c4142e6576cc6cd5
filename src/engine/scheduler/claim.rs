//! A run that no task moves here is taken, read and moved.
//!
//! Always true: a run is read only after it is this process's, so that nothing is appended behind its back; whoever has
//! its slot waits in its mailbox meanwhile. What cannot be read is left as it is, and counted.
//!
//! When the store does not answer, those who wait hear so, and the run is tried again after a while.

use std::sync::Arc;

use jiff::SignedDuration;
use tokio::sync::OwnedSemaphorePermit;

use crate::engine::api::types::NotDone;
use crate::engine::clock::Clock;
use crate::engine::context::Core;
use crate::engine::driver::{Driver, Parts};
use crate::engine::scheduler::lease::Hold;
use crate::engine::scheduler::load::{Read, Unloaded, read};
use crate::engine::scheduler::mailbox::{Reply, Slot};
use crate::engine::scheduler::stored_run::Beginning;
use crate::store::{Owned, StoreError, Taken};
use crate::workflow::Refusal;

/// Until a run that could not be read is tried again.
const AGAIN: SignedDuration = SignedDuration::from_secs(5);
/// Until a run is tried again whose events were not given though the store answers.
const WITHHELD: SignedDuration = SignedDuration::from_secs(60);

/// Moves a run in a task of its own, taken or still to be taken.
pub(in crate::engine) fn open(
    core: &Arc<Core>,
    slot: Slot,
    owned: Option<(Owned, Hold)>,
    permit: Option<OwnedSemaphorePermit>,
) {
    core.run_tasks.supervise(core);
    let core = core.clone();
    let tasks = core.clone();
    let moved = async move {
        let _permit = permit;
        let moved = async { Box::pin(opened(&core, slot, owned)).await };
        core.process.cut.run_until_cancelled(moved).await;
    };
    tasks.process.tasks.spawn_on(moved, &tasks.process.threads);
}

async fn opened(core: &Arc<Core>, mut slot: Slot, owned: Option<(Owned, Hold)>) {
    let run = slot.run();
    let (taken, hold) = match owned {
        Some((owned, hold)) => (Ok(Taken::Mine(owned)), hold),
        None => {
            let hold = core.schedule.lease.hold();
            (core.ports.store.take(core.schedule.worker, run).await, hold)
        }
    };
    let owned = match taken {
        Ok(Taken::Mine(owned)) => owned,
        Ok(Taken::Elsewhere { worker, name }) => {
            tracing::debug!(%run, %worker, name, "another process moves the run");
            slot.reject_all(|| Reply::Elsewhere);
            return;
        }
        Ok(Taken::Ended(summary)) => {
            core.schedule.timers.forget(run);
            let refused = || NotDone::Refused { run: Box::new(summary.clone()), refusal: Refusal::Ended };
            slot.reject_all(|| Reply::Not(refused()));
            return;
        }
        Ok(Taken::Unknown) => {
            core.schedule.timers.forget(run);
            slot.reject_all(|| Reply::Not(NotDone::NoRun));
            return;
        }
        Err(error) => return not_now(core, slot, &error),
    };
    match load(core, slot, &owned, hold).await {
        Ok(driver) => drop(driver.drive().await),
        Err((slot, Unloaded::Store(error))) => not_now(core, slot, &error),
        Err((mut slot, Unloaded::Unreadable(why) | Unloaded::Withheld(why))) => {
            slot.reject_all(|| Reply::Not(NotDone::Unreadable(why.clone())));
        }
    }
}

fn not_now(core: &Core, mut slot: Slot, error: &StoreError) {
    tracing::warn!(run = %slot.run(), %error, "the run cannot be taken now");
    slot.reject_all(|| Reply::Not(NotDone::Store { why: error.to_string(), unknown: false }));
    if let Ok(at) = core.process.clock.now().checked_add(AGAIN) {
        core.schedule.timers.at(slot.run(), at);
    }
}

/// Reads a run that is this process's, taken while this held.
pub(in crate::engine) async fn load(
    core: &Arc<Core>,
    slot: Slot,
    owned: &Owned,
    hold: Hold,
) -> Result<Driver, (Slot, Unloaded)> {
    let id = slot.run();
    core.schedule.timers.forget(id);
    // Nobody appends to it and nobody purges it meanwhile.
    let beginning = match owned.summary.seq.0 >= core.schedule.run_snapshots.every() {
        true => Beginning::Snapshot,
        false => Beginning::FirstEvent,
    };
    let mut found = read(core, id, beginning).await;
    if let Ok(early) = &found
        && early.from_snapshot
        && early.run.seq() != owned.summary.seq
    {
        tracing::warn!(run = %id, "the snapshot of the run leads elsewhere than its row says: all of its events are read");
        found = read(core, id, Beginning::FirstEvent).await;
    }
    match found {
        Ok(read) if read.run.seq() == owned.summary.seq => Ok(read.driver(core, slot, owned, hold)),
        Ok(read) => {
            // Whoever appended to it would be refused for ever.
            let (row, events) = (owned.summary.seq, read.run.seq());
            let why = format!(
                "its row says that it has {row} events; there are {events}: the store is damaged (`pointsman store \
                 check` tells how far), restore a backup"
            );
            tracing::error!(run = %id, why, "the run cannot be moved by this process");
            core.schedule.stuck.note(id, &owned.summary.workflow, &why);
            Err((slot, Unloaded::Unreadable(why)))
        }
        Err(unloaded) => {
            if let Unloaded::Unreadable(why) | Unloaded::Withheld(why) = &unloaded {
                tracing::error!(run = %id, why, "the run cannot be moved by this process");
                core.schedule.stuck.note(id, &owned.summary.workflow, why);
            }
            // One answer that was lost is no reason to leave a run for ever.
            if let (Unloaded::Withheld(_), Ok(at)) = (&unloaded, core.process.clock.now().checked_add(WITHHELD)) {
                core.schedule.timers.at(id, at);
            }
            Err((slot, unloaded))
        }
    }
}

impl Read {
    fn driver(self, core: &Arc<Core>, slot: Slot, owned: &Owned, hold: Hold) -> Driver {
        let Read { run, last, plan, snapshot, credentials, veil, from_snapshot: _ } = self;
        let (executor, writer) = core.of_mode(run.mode(), &plan, None, owned.fence, Some(hold), veil);
        let registration = core.schedule.registry.take(run.id(), None).ok();
        let mut driver = Driver::new(Parts {
            core: core.clone(),
            snapshot,
            plan,
            clock: Clock::starting(core.process.clock.now(), last),
            durable_seq: run.seq(),
            run,
            credentials,
            executor,
            writer,
            claim: None,
            caller: None,
            registration,
            slot: Some(slot),
            starter: None,
            depth: 0,
        });
        driver.take_up();
        driver
    }
}

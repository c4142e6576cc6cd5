//! A run that no task moves here is taken, read and moved.
//!
//! Always true: a run is read only after it is this process's, so that nothing is appended behind its back; whoever has
//! its slot waits in its mailbox meanwhile. What cannot be read is left as it is, counted, and tried again at each reload;
//! somebody may end it ([`unreadable`]).
//!
//! When the store does not answer, those who wait hear so, and the run is tried again after a while.

use std::sync::Arc;

use jiff::SignedDuration;
use tokio::sync::OwnedSemaphorePermit;

use crate::engine::api::types::OrderError;
use crate::engine::clock::Clock;
use crate::engine::context::Core;
use crate::engine::driver::{Driver, DriverParts};
use crate::engine::scheduler::lease::LeaseProof;
use crate::engine::scheduler::load::{LoadError, Read, read};
use crate::engine::scheduler::mailbox::{Reply, Slot};
use crate::engine::scheduler::stored_run::Beginning;
use crate::engine::scheduler::unreadable;
use crate::store::{OwnedRun, StoreError, TakeResult};
use crate::workflow::Refusal;

/// Until a run that could not be read is tried again.
const AGAIN: SignedDuration = SignedDuration::from_secs(5);
/// Until a run is tried again whose events were not given though the store answers.
const WITHHELD: SignedDuration = SignedDuration::from_secs(60);

/// Moves a run in a task of its own, taken or still to be taken.
pub(in crate::engine) fn open(
    core: &Arc<Core>,
    slot: Slot,
    owned: Option<(OwnedRun, LeaseProof)>,
    permit: Option<OwnedSemaphorePermit>,
) {
    core.run_tasks.supervise(core);
    let core = core.clone();
    let tasks = core.clone();
    let moved = async move {
        let _permit = permit;
        let moved = async { Box::pin(opened(&core, slot, owned)).await };
        core.process.cancelled.run_until_cancelled(moved).await;
    };
    tasks.process.tasks.spawn_on(moved, &tasks.process.runtime);
}

async fn opened(core: &Arc<Core>, mut slot: Slot, owned: Option<(OwnedRun, LeaseProof)>) {
    let run = slot.run();
    let (taken, lease_proof) = match owned {
        Some((owned, lease_proof)) => (Ok(TakeResult::Taken(owned)), lease_proof),
        None => {
            let lease_proof = core.schedule.lease.proof();
            (core.ports.store.take(core.schedule.worker, run).await, lease_proof)
        }
    };
    let owned = match taken {
        Ok(TakeResult::Taken(owned)) => owned,
        Ok(TakeResult::Elsewhere { worker, name }) => {
            tracing::debug!(%run, %worker, name, "another process moves the run");
            core.schedule.stuck.remove_unless(run, false); // that one may be able to read it
            slot.reject_all(|| Reply::Elsewhere);
            return;
        }
        Ok(TakeResult::Ended(summary)) => {
            core.schedule.timers.remove(run);
            core.schedule.stuck.remove_unless(run, false);
            let refused = || OrderError::Refused { run: Box::new(summary.clone()), refusal: Refusal::Ended };
            slot.reject_all(|| Reply::Error(refused()));
            return;
        }
        Ok(TakeResult::Unknown) => {
            core.schedule.timers.remove(run);
            slot.reject_all(|| Reply::Error(OrderError::NoRun));
            return;
        }
        Err(error) => return not_now(core, slot, &error),
    };
    match load(core, slot, &owned, lease_proof).await {
        Ok(driver) => drop(driver.drive().await),
        Err((slot, LoadError::Store(error))) => not_now(core, slot, &error),
        Err((slot, LoadError::Unreadable(why) | LoadError::Withheld(why))) => {
            unreadable::answer_orders(core, slot, &owned, &why).await;
        }
    }
}

fn not_now(core: &Core, mut slot: Slot, error: &StoreError) {
    tracing::warn!(run = %slot.run(), %error, "the run cannot be taken now");
    slot.reject_all(|| Reply::Error(OrderError::Store { why: error.to_string(), unknown: false }));
    if let Ok(at) = core.process.clock.now().checked_add(AGAIN) {
        core.schedule.timers.set(slot.run(), at);
    }
}

/// Reads a run that is this process's, taken while this held.
pub(in crate::engine) async fn load(
    core: &Arc<Core>,
    slot: Slot,
    owned: &OwnedRun,
    lease_proof: LeaseProof,
) -> Result<Driver, (Slot, LoadError)> {
    let id = slot.run();
    core.schedule.timers.remove(id);
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
        Ok(read) if read.run.seq() == owned.summary.seq => Ok(read.driver(core, slot, owned, lease_proof)),
        Ok(read) => {
            // Whoever appended to it would be refused for ever.
            let (row, events) = (owned.summary.seq, read.run.seq());
            let why = format!(
                "its row says that it has {row} events; there are {events}: the store is damaged (`pointsman store \
                 check` tells how far), restore a backup"
            );
            tracing::error!(run = %id, why, "the run cannot be moved by this process");
            core.schedule.stuck.add(id, &owned.summary.workflow, &why);
            Err((slot, LoadError::Unreadable(why)))
        }
        Err(unloaded) => {
            if let LoadError::Unreadable(why) | LoadError::Withheld(why) = &unloaded {
                tracing::error!(run = %id, why, "the run cannot be moved by this process");
                core.schedule.stuck.add(id, &owned.summary.workflow, why);
            }
            // One answer that was lost is no reason to leave a run for ever.
            if let (LoadError::Withheld(_), Ok(at)) = (&unloaded, core.process.clock.now().checked_add(WITHHELD)) {
                core.schedule.timers.set(id, at);
            }
            Err((slot, unloaded))
        }
    }
}

impl Read {
    fn driver(self, core: &Arc<Core>, slot: Slot, owned: &OwnedRun, lease_proof: LeaseProof) -> Driver {
        let Read { run, last, plan, snapshot, credentials, sealer, from_snapshot: _ } = self;
        let (executor, writer) =
            core.executor_and_writer(run.mode(), &plan, None, owned.fence, Some(lease_proof), sealer);
        let registration = core.schedule.registry.register(run.id(), None).ok();
        let mut driver = Driver::new(DriverParts {
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
        driver.recover();
        driver
    }
}

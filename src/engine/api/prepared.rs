//! A run that is ready to begin: the same for runs that callers wait for, that programs start and that runs begin.
//!
//! Always true: a durable run exists with its first append, and its task holds its slot; whoever started it is told once
//! what became of that append ([`StartAnswer`]). What it is made of was settled before, by `arm`, `start` and `child`.
//!
//! When the store refuses for sure, there is no run; when the outcome is unknown, that is said, and its task goes on
//! trying.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::engine::clock::Clock;
use crate::engine::context::Core;
use crate::engine::driver::{Caller, Driver, Parts};
use crate::engine::machine::StartAnswer;
use crate::engine::ports::event_sealer::EventSealer;
use crate::engine::scheduler::mailbox::Slot;
use crate::engine::scheduler::registry::Registration;
use crate::engine::snapshot::Snapshot;
use crate::names::{Fence, Seq};
use crate::store::Claim;
use crate::workflow::{Event, Misfit, Mode, Plan, Run, RunStarted, evolve};

/// All that a run's driver is made of.
pub(in crate::engine) struct PreparedRun {
    pub plan: Arc<Plan>,
    /// As its first fact says.
    pub run: Run,
    pub snapshot: Arc<Snapshot>,
    pub credentials: BTreeMap<String, String>,
    /// Opens its sealed credentials.
    pub run_key: Option<Vec<u8>>,
    /// What its first append takes.
    pub claim: Option<Claim>,
    pub registration: Option<Registration>,
    /// `None` of a run that is not kept.
    pub slot: Option<Slot>,
    /// How many runs are above it; only of rehearsals.
    pub depth: u64,
    /// Its events go to the store. Not those of a rehearsal, nor of a run of a route that keeps none.
    pub keep: bool,
}

/// Who waits for a run that begins.
pub(in crate::engine) enum Waiter {
    /// A caller, for the run's answer.
    Caller(Caller),
    /// Whoever started it, for its first append.
    Starter(oneshot::Sender<StartAnswer>),
    /// Nobody: it is part of its parent's task.
    Nobody,
}

impl PreparedRun {
    /// One that takes nothing over, claims nothing and has no slot yet.
    ///
    /// # Errors
    /// Its first fact does not fit.
    pub fn new(plan: Arc<Plan>, started: RunStarted, snapshot: Arc<Snapshot>) -> Result<Self, Misfit> {
        let run = evolve(None, &Event::RunStarted(Arc::new(started)))?;
        let (credentials, run_key, claim, registration, slot, depth) = Default::default();
        let keep = run.mode() != Mode::Rehearse;
        Ok(Self { plan, run, snapshot, credentials, run_key, claim, registration, slot, depth, keep })
    }

    /// Its driver, with the run's first event recorded.
    pub fn driver(self, core: &Arc<Core>, waiter: Waiter) -> Driver {
        let Self { plan, run, snapshot, credentials, run_key, claim, registration, slot, depth, keep } = self;
        let sealer = EventSealer::of(&core.ports.sealer, &plan, run.id(), []);
        let (executor, writer) = core.executor_and_writer(run.mode(), &plan, run_key, Fence::FIRST, None, sealer);
        let (caller, starter) = match waiter {
            Waiter::Caller(caller) => (Some(caller), None),
            Waiter::Starter(starter) => (None, Some(starter)),
            Waiter::Nobody => (None, None),
        };
        let mut driver = Driver::new(Parts {
            core: core.clone(),
            snapshot,
            plan,
            clock: Clock::starting(core.process.clock.now(), run.started().started),
            run,
            credentials,
            executor,
            writer: writer.filter(|_| keep),
            claim,
            durable_seq: Seq(0),
            caller,
            registration,
            slot,
            starter,
            depth,
        });
        driver.born();
        driver
    }
}

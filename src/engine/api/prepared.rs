//! A run that is ready to be driven, whether a request, a program or another run starts it.
//!
//! Always true: a durable run exists from its first append on, and its task holds its slot. Whoever started the run
//! gets the result of that append once ([`StartAnswer`]). `arm`, `start` and `child` put the parts together.
//!
//! When the store refuses the first append, there is no run. When the outcome of the append is unknown, the answer says
//! so, and the run's task repeats the append.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::engine::clock::Clock;
use crate::engine::context::Core;
use crate::engine::driver::{Driver, DriverParts, WaitingCaller};
use crate::engine::files_snapshot::FilesSnapshot;
use crate::engine::legacy_replies::LegacySources;
use crate::engine::machine::StartAnswer;
use crate::engine::ports::event_sealer::EventSealer;
use crate::engine::scheduler::mailbox::ExecutionSlot;
use crate::engine::scheduler::registry::Registration;
use crate::names::{Fence, Seq};
use crate::store::Claim;
use crate::workflow::{Event, EventMisfit, Knowledge, Mode, Plan, Run, RunStarted, evolve};

/// The parts from which the driver of a new run is made.
pub(in crate::engine) struct PreparedRun {
    pub plan: Arc<Plan>,
    /// The run after its first event.
    pub run: Run,
    /// What the run knows of sensitive values after its first event.
    pub knowledge: Knowledge,
    pub snapshot: Arc<FilesSnapshot>,
    pub credentials: BTreeMap<String, String>,
    /// Opens the run's sealed credentials.
    pub run_key: Option<Vec<u8>>,
    /// The retry key that the run's first append claims.
    pub claim: Option<Claim>,
    pub registration: Option<Registration>,
    /// `None` for a run that is not stored.
    pub slot: Option<ExecutionSlot>,
    /// How many ancestors the run has; counted only in rehearsals, whose runs are not in the store.
    pub depth: u64,
    /// What is known of legacy's own calls and reads.
    pub legacy_sources: LegacySources,
    /// Whether the run's events are stored. False for rehearsals, and for runs of a route with `keep: none`.
    pub keep: bool,
}

/// Who waits for a new run.
pub(in crate::engine) enum Waiter {
    /// A caller, for the run's answer.
    Caller(WaitingCaller),
    /// Whoever started the run, for the result of its first append.
    Starter(oneshot::Sender<StartAnswer>),
    /// Nobody: the run is driven within its parent's task.
    Nobody,
}

impl PreparedRun {
    /// The parts of a run without credentials, claim, registration and slot, which the caller may add.
    ///
    /// # Errors
    /// The first event is invalid.
    pub fn new(plan: Arc<Plan>, started: RunStarted, snapshot: Arc<FilesSnapshot>) -> Result<Self, EventMisfit> {
        let first = Event::RunStarted(Arc::new(started));
        let mut run = evolve(None, &first)?;
        let knowledge = run.collect_sensitive(&plan, [&first]);
        let (credentials, run_key, claim, registration, slot, depth, legacy_sources) = Default::default();
        let keep = run.mode() != Mode::Rehearse;
        Ok(Self {
            plan,
            run,
            knowledge,
            snapshot,
            credentials,
            run_key,
            claim,
            registration,
            slot,
            depth,
            legacy_sources,
            keep,
        })
    }

    /// The run's driver, with the first event recorded.
    pub fn driver(self, core: &Arc<Core>, waiter: Waiter) -> Driver {
        let Self {
            plan,
            run,
            knowledge,
            snapshot,
            credentials,
            run_key,
            claim,
            registration,
            slot,
            depth,
            legacy_sources,
            keep,
        } = self;
        let sealer = EventSealer::new(&core.ports.sealer, run.id(), knowledge);
        let (executor, writer) = core.executor_and_writer(run.mode(), &plan, run_key, Fence::FIRST, None, sealer);
        let (caller, starter) = match waiter {
            Waiter::Caller(caller) => (Some(caller), None),
            Waiter::Starter(starter) => (None, Some(starter)),
            Waiter::Nobody => (None, None),
        };
        let mut driver = Driver::new(DriverParts {
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
            legacy_sources,
        });
        driver.record_started();
        driver
    }
}

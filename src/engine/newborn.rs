//! Brings a run into the world: one way for those that callers wait for, that programs start and that runs begin.
//!
//! Always true: a durable run is born with its first append, in its own seat; whoever wished it hears what became of
//! that, once ([`StartAnswer`]). Who wished it and what it takes is settled before, by `arm`, `begin` and `children`.
//!
//! When the store refuses for sure, nothing was born; when nobody knows, that is said, and its task goes on trying.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::Core;
use super::clock::Clock;
use super::driver::{Caller, Driver, Parts};
use super::machine::StartAnswer;
use super::mail::Seat;
use super::registry::Place;
use super::snapshot::Snapshot;
use crate::names::{Fence, Seq};
use crate::store::Claim;
use crate::workflow::{Event, Misfit, Mode, Plan, Run, RunStarted, evolve};

/// A run that is about to be born.
pub(super) struct Newborn {
    pub plan: Arc<Plan>,
    /// As its first fact says.
    pub run: Run,
    pub snapshot: Arc<Snapshot>,
    pub credentials: BTreeMap<String, String>,
    /// Opens its sealed credentials.
    pub run_key: Option<Vec<u8>>,
    /// What its first append takes.
    pub claim: Option<Claim>,
    pub place: Option<Place>,
    /// `None` of a rehearsal.
    pub seat: Option<Seat>,
    /// How many runs are above it; only of rehearsals.
    pub depth: u64,
}

/// Who waits for a birth.
pub(super) enum Wished {
    /// A caller, for more than the birth.
    Caller(Caller),
    /// Whoever started it.
    Starter(oneshot::Sender<StartAnswer>),
    /// Nobody: it is part of another run's task.
    Nobody,
}

impl Newborn {
    /// One that takes nothing over, claims nothing and has no seat yet.
    ///
    /// # Errors
    /// Its first fact does not fit.
    pub fn new(plan: Arc<Plan>, started: RunStarted, snapshot: Arc<Snapshot>) -> Result<Self, Misfit> {
        let run = evolve(None, &Event::RunStarted(Arc::new(started)))?;
        let (credentials, run_key, claim, place, seat, depth) = Default::default();
        Ok(Self { plan, run, snapshot, credentials, run_key, claim, place, seat, depth })
    }

    /// What moves it, its birth noted.
    pub fn driver(self, core: &Arc<Core>, wished: Wished) -> Driver {
        let Self { plan, run, snapshot, credentials, run_key, claim, place, seat, depth } = self;
        let (executor, writer) = core.of_mode(run.mode(), &plan, run_key, Fence::FIRST, None);
        let (caller, starter) = match wished {
            Wished::Caller(caller) => (Some(caller), None),
            Wished::Starter(starter) => (None, Some(starter)),
            Wished::Nobody => (None, None),
        };
        let mut driver = Driver::new(Parts {
            core: core.clone(),
            snapshot,
            plan,
            clock: Clock::starting(core.clock.now(), run.started().started),
            run,
            credentials,
            executor,
            writer,
            claim,
            stored: Seq(0),
            caller,
            place,
            seat,
            starter,
            depth,
        });
        driver.born();
        driver
    }
}

impl Core {
    /// The seat of a run that is about to be born; a rehearsal has none.
    pub(super) fn seat_of_new(&self, run: &Run) -> Option<Seat> {
        (run.mode() != Mode::Rehearse).then(|| self.post.sit(&self.alarm, run.id())).flatten()
    }
}

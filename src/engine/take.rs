//! A run that no task moves here is taken, read and moved.
//!
//! Always true: a run is read only after it is this process's, so that nothing is appended behind its back; whoever has
//! its seat waits in its mailbox meanwhile. What cannot be read is left as it is, and counted.
//!
//! When the store does not answer, those who wait hear so, and the run is tried again after a while.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::clock::Clock;
use super::desk::NotDone;
use super::driver::{Driver, Parts};
use super::lease::Hold;
use super::mail::{Letter, Posted, Reply, Seat};
use super::snapshot::Snapshot;
use super::{Core, minder};
use crate::names::{PlanId, RunId, Seq};
use crate::store::{Owned, StoreError, Taken};
use crate::workflow::{Plan, Refusal, Run, fold};

/// Until a run that could not be read is tried again.
const AGAIN: SignedDuration = SignedDuration::from_secs(5);
/// Until a run is tried again whose events were not given though the store answers.
const WITHHELD: SignedDuration = SignedDuration::from_secs(60);
/// Runs that are read at the same time.
const READS_MAX: usize = 32;

/// Why a letter was not posted.
#[derive(Debug)]
pub(super) enum Unposted {
    /// The process begins nothing more.
    Draining,
}

/// Why a run cannot be moved here.
pub(super) enum Unloaded {
    /// The store does not answer.
    Store(StoreError),
    /// Its events or its plan cannot be read.
    Unreadable(String),
    /// Its events were not given, though the store answers: they cannot be read, or the answer was lost.
    Withheld(String),
}

/// Bounds how many runs are read at the same time.
pub(super) struct Reads(Semaphore);

impl Default for Reads {
    fn default() -> Self {
        Self(Semaphore::new(READS_MAX))
    }
}

impl Core {
    /// Brings a letter to a run: to its task, or to one that is begun for it.
    pub(super) async fn post(self: &Arc<Self>, run: RunId, mut letter: Letter) -> Result<(), Unposted> {
        loop {
            letter = match self.post.slip(run, letter) {
                Posted::Taken => return Ok(()),
                Posted::Closing(letter, gone) => {
                    gone.cancelled().await;
                    letter
                }
                Posted::Full(letter, sender) => match sender.send(letter).await {
                    Ok(()) => return Ok(()),
                    Err(refused) => {
                        tokio::task::yield_now().await;
                        refused.0
                    }
                },
                Posted::NoSeat(letter) if *self.draining.borrow() => {
                    drop(letter);
                    return Err(Unposted::Draining);
                }
                Posted::NoSeat(letter) => {
                    if let Some(seat) = self.post.sit(&self.alarm, run) {
                        // Where there is no room, a person does not wait for it.
                        let permit = self.woken.clone().try_acquire_owned().ok();
                        self.open(seat, None, permit);
                    }
                    letter
                }
            };
        }
    }

    /// Moves a run in a task of its own, taken or still to be taken.
    pub(super) fn open(
        self: &Arc<Self>,
        seat: Seat,
        owned: Option<(Owned, Hold)>,
        permit: Option<OwnedSemaphorePermit>,
    ) {
        minder::start(self);
        let core = self.clone();
        let moved = async move {
            let _permit = permit;
            let moved = async { Box::pin(opened(&core, seat, owned)).await };
            core.cut.run_until_cancelled(moved).await;
        };
        self.tasks.spawn_on(moved, &self.threads);
    }

    /// Makes a run look around: its task, or one that is begun for it.
    pub(super) fn wake(&self, run: RunId) {
        if !self.post.poke(run) {
            self.alarm.now(run);
        }
    }
}

async fn opened(core: &Arc<Core>, mut seat: Seat, owned: Option<(Owned, Hold)>) {
    let run = seat.run();
    let (taken, hold) = match owned {
        Some((owned, hold)) => (Ok(Taken::Mine(owned)), hold),
        None => {
            let hold = core.lease.hold();
            (core.store.take(core.worker, run).await, hold)
        }
    };
    let owned = match taken {
        Ok(Taken::Mine(owned)) => owned,
        Ok(Taken::Elsewhere { worker, name }) => {
            tracing::debug!(%run, %worker, name, "another process moves the run");
            seat.bounce(|| Reply::Elsewhere);
            return;
        }
        Ok(Taken::Ended(summary)) => {
            core.alarm.forget(run);
            let refused = || NotDone::Refused { run: Box::new(summary.clone()), refusal: Refusal::Ended };
            seat.bounce(|| Reply::Not(refused()));
            return;
        }
        Ok(Taken::Unknown) => {
            core.alarm.forget(run);
            seat.bounce(|| Reply::Not(NotDone::NoRun));
            return;
        }
        Err(error) => return not_now(core, seat, &error),
    };
    match load(core, seat, &owned, hold).await {
        Ok(driver) => drop(driver.drive().await),
        Err((seat, Unloaded::Store(error))) => not_now(core, seat, &error),
        Err((mut seat, Unloaded::Unreadable(why) | Unloaded::Withheld(why))) => {
            seat.bounce(|| Reply::Not(NotDone::Unreadable(why.clone())));
        }
    }
}

fn not_now(core: &Core, mut seat: Seat, error: &StoreError) {
    tracing::warn!(run = %seat.run(), %error, "the run cannot be taken now");
    seat.bounce(|| Reply::Not(NotDone::Store { why: error.to_string(), unknown: false }));
    if let Ok(at) = core.clock.now().checked_add(AGAIN) {
        core.alarm.at(seat.run(), at);
    }
}

/// Reads a run that is this process's, taken while this held.
pub(super) async fn load(core: &Arc<Core>, seat: Seat, owned: &Owned, hold: Hold) -> Result<Driver, (Seat, Unloaded)> {
    let id = seat.run();
    core.alarm.forget(id);
    match read(core, id).await {
        Ok(read) if read.run.seq() == owned.summary.seq => Ok(read.driver(core, seat, owned, hold)),
        Ok(read) => {
            // Whoever appended to it would be refused for ever.
            let (row, events) = (owned.summary.seq, read.run.seq());
            let why = format!(
                "its row says that it has {row} events; there are {events}: the store is damaged (`pointsman store \
                 check` tells how far), restore a backup"
            );
            tracing::error!(run = %id, why, "the run cannot be moved by this process");
            core.stuck.note(id, &owned.summary.workflow, &why);
            Err((seat, Unloaded::Unreadable(why)))
        }
        Err(unloaded) => {
            if let Unloaded::Unreadable(why) | Unloaded::Withheld(why) = &unloaded {
                tracing::error!(run = %id, why, "the run cannot be moved by this process");
                core.stuck.note(id, &owned.summary.workflow, why);
            }
            // One answer that was lost is no reason to leave a run for ever.
            if let (Unloaded::Withheld(_), Ok(at)) = (&unloaded, core.clock.now().checked_add(WITHHELD)) {
                core.alarm.at(id, at);
            }
            Err((seat, unloaded))
        }
    }
}

/// A run as it stands on disk, with what moves it.
pub(super) struct Read {
    pub run: Run,
    pub last: Timestamp,
    pub plan: Arc<Plan>,
    pub snapshot: Arc<Snapshot>,
    pub credentials: BTreeMap<String, String>,
}

/// Reads a run, whoever moves it.
pub(super) async fn read(core: &Core, id: RunId) -> Result<Read, Unloaded> {
    let _turn = core.reads.0.acquire().await; // never closed
    let events = match core.store.events(id, Seq::FIRST).await {
        Ok(events) => events,
        Err(error) => {
            // Where the store answers otherwise, it is this run's events that cannot be read: the others go on.
            core.store.run(id).await.map_err(Unloaded::Store)?;
            return Err(Unloaded::Withheld(format!("its events cannot be read: {error}")));
        }
    };
    let run = fold(events.iter().map(|stored| &stored.event))
        .map_err(|misfit| Unloaded::Unreadable(format!("its events cannot be read: {misfit}")))?;
    let last = events.last().map_or(run.started().started, |stored| stored.at);
    drop(events);
    let started = run.started().clone();
    let snapshot = core.snapshot.load_full();
    let plan = plan_of(core, &snapshot, &started.plan).await?;
    let credentials = match &started.sealed {
        None => Default::default(),
        Some(sealed) => {
            let key = core.store.run_key(id).await.map_err(Unloaded::Store)?.unwrap_or_default();
            core.sealer.open(id, sealed, &key).unwrap_or_else(|| {
                tracing::error!(run = %id, "the caller's credentials cannot be opened; calls that need them will fail");
                Default::default()
            })
        }
    };
    Ok(Read { run, last, plan, snapshot, credentials })
}

/// The plan that a run keeps: in force, or made again, whatever today's files have.
pub(super) async fn plan_of(core: &Core, snapshot: &Snapshot, id: &PlanId) -> Result<Arc<Plan>, Unloaded> {
    if let Some(plan) = snapshot.plan(id) {
        return Ok(plan);
    }
    let kept = core.store.plan(id.clone()).await.map_err(Unloaded::Store)?;
    let plan = kept.and_then(|source| snapshot.rebuild(&source, &core.limits)).map(Arc::new);
    plan.filter(|plan| plan.id == *id)
        .ok_or_else(|| Unloaded::Unreadable(format!("its plan ({id}) cannot be read by this version")))
}

impl Read {
    fn driver(self, core: &Arc<Core>, seat: Seat, owned: &Owned, hold: Hold) -> Driver {
        let Read { run, last, plan, snapshot, credentials } = self;
        let (executor, writer) = core.of_mode(run.mode(), &plan, None, owned.fence, Some(hold));
        let place = core.registry.take(run.id(), None).ok();
        let mut driver = Driver::new(Parts {
            core: core.clone(),
            snapshot,
            plan,
            clock: Clock::starting(core.clock.now(), last),
            stored: run.seq(),
            run,
            credentials,
            executor,
            writer,
            claim: None,
            caller: None,
            place,
            seat: Some(seat),
            starter: None,
            depth: 0,
        });
        driver.take_up();
        driver
    }
}

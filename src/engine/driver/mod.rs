//! Moves one run forward: ask what is due, decide, note, perform, repeat.
//!
//! Always true: a private or shared call leaves only after its `StepStarted` is on disk, a caller hears an answer only
//! after it is on disk, and between reads nobody waits for the disk. The run is this task's alone. A run that only waits
//! is put to rest (`rest`): its task ends, and nothing is left of it here but the time at which it wants to be woken.
//!
//! When a service is slow, its attempt times out while the others go on; when the store is, effects and answers wait
//! and reads do not. When the caller's time is over, it hears so and the run goes on; when this task is dropped, what
//! is on disk is what the next process goes on from.

mod advance;
mod letters;
mod notices;
mod outside;
mod rest;
mod tell;
mod watch;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::future::Future;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::oneshot;
use tokio::time::Instant;

use uuid::Uuid;

use self::outside::{Found, InLine, Minded};
use self::watch::Watch;
use super::Core;
use super::children::{self, Mood};
use super::client::Executor;
use super::clock::Clock;
use super::journal::Journal;
use super::mail::{Letter, Reply, Seat};
use super::registry::Place;
use super::snapshot::Snapshot;
use super::tally::Tally;
use crate::exchange::ArmReply;
use crate::flag::Freeze;
use crate::names::{RunId, Seq, StepId};
use crate::workflow::{Event, Heard, Mode, Part, Plan, Run, StepIndex};

pub(super) use self::rest::Cause;

/// What whoever waits for a run is told.
pub(super) enum Told {
    /// This.
    Reply(Box<ArmReply>),
    /// Another run has the retry key.
    Other { run: RunId, same_request: bool },
}

/// Who waits for a run's answer.
pub(super) struct Caller {
    pub tell: oneshot::Sender<Told>,
    pub may_fall_back: bool,
    /// A little before the caller's deadline: time to write down what is said then.
    pub until: Instant,
}

/// What became of a birth, for who started the run.
#[derive(Debug)]
pub(super) enum Born {
    /// It is on disk.
    Kept,
    /// Another run has the key.
    Other { run: RunId, same_request: bool },
    /// Nothing is on disk, for sure.
    Nothing(String),
    /// Nobody knows.
    Unknown(String),
}

/// A step's call, its attempt, and whether another process may have sent that attempt before.
#[derive(Clone, Copy)]
struct Call {
    step: StepIndex,
    item: Option<u32>,
    part: Part,
    attempt: u32,
    again: bool,
}

/// The run as it stood when it was fixed what those who wait are told, once that place is on disk: what it has come to
/// since may not be.
struct Fixed {
    seq: Seq,
    run: Arc<Run>,
}

/// Names a call of the run.
type CallName = (StepId, Option<u32>, Part);

pub(super) struct Driver {
    pub core: Arc<Core>,
    pub snapshot: Arc<Snapshot>,
    pub plan: Arc<Plan>,
    pub run: Run,
    pub credentials: BTreeMap<String, String>,
    pub executor: Arc<dyn Executor>,
    pub journal: Journal,
    pub clock: Clock,
    pub caller: Option<Caller>,
    /// Tells who comes with the same retry key what becomes of it.
    pub place: Option<Place>,
    pub tally: Tally,
    /// Where letters come; a rehearsal gets none.
    seat: Option<Seat>,
    /// Waits for the birth.
    starter: Option<oneshot::Sender<Born>>,
    depth: u64,
    places: HashMap<StepId, StepIndex>,
    calls: FuturesUnordered<BoxFuture<'static, (Call, Heard)>>,
    /// Attempts that leave once this place is on disk.
    gated: Vec<(Seq, CallName)>,
    /// Attempts that another process may have sent already.
    again: HashSet<CallName>,
    /// Looks at what is outside the run: locks, runs that it began, what is asked through the store.
    looks: FuturesUnordered<BoxFuture<'static, Found>>,
    /// Where it stands in line for locks.
    locks: HashMap<(StepId, Option<u32>), InLine>,
    /// Runs that it began and looks after.
    children: HashMap<RunId, Minded>,
    /// Whether it begins any.
    mood: Arc<Mood>,
    /// One of them, or below them, waits for somebody.
    below: bool,
    /// What was said to them last, and what became of that, once it is known.
    told: HashMap<RunId, (&'static str, Option<children::Heard>)>,
    /// Messages to webhooks go in with what is pending.
    recorded: bool,
    /// What was asked through the store and taken up here.
    taken_up: HashSet<Uuid>,
    /// What is asked through the store.
    orders: Watch,
    /// Who asked something hears of it once this place is on disk.
    asking: Vec<(Seq, oneshot::Sender<Reply>)>,
    /// A step is held by the freeze.
    held: bool,
    /// What would begin is not begun, because the process drains.
    withheld: bool,
    /// It goes to rest: over this.
    closing: Option<Cause>,
    /// Up to here somebody waits for the disk.
    need: Seq,
    /// What those who wait are told.
    fixed: Option<Fixed>,
    abandoned: Option<&'static str>,
    /// The caller's time is over, and it is told so once all is on disk.
    late: Option<Fixed>,
    wake: Option<jiff::Timestamp>,
    stop: Option<Stop>,
}

/// Why a run is not driven any further here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// It has come to its end.
    Settled,
    /// It waits, and whatever it waits for wakes it.
    Parked(Cause),
    /// Nothing of it is kept, and nothing was done.
    Discarded,
    /// The process drains: the next one goes on.
    Draining,
    /// It belongs to somebody else, or its events do not fit.
    Lost,
}

/// What a new driver is made of.
pub(super) struct Parts {
    pub core: Arc<Core>,
    pub snapshot: Arc<Snapshot>,
    pub plan: Arc<Plan>,
    pub run: Run,
    pub credentials: BTreeMap<String, String>,
    pub executor: Arc<dyn Executor>,
    pub journal: Journal,
    pub clock: Clock,
    pub caller: Option<Caller>,
    pub place: Option<Place>,
    pub seat: Option<Seat>,
    pub starter: Option<oneshot::Sender<Born>>,
    /// How many runs are above it; only of rehearsals.
    pub depth: u64,
}

impl Driver {
    pub fn new(parts: Parts) -> Self {
        let Parts {
            core,
            snapshot,
            plan,
            run,
            credentials,
            executor,
            journal,
            clock,
            caller,
            place,
            seat,
            starter,
            depth,
        } = parts;
        let places = (0..plan.steps.len()).map(|place| (plan.steps[place].id.clone(), StepIndex(place))).collect();
        let tally = Tally::of(&run, journal.durable() > Seq(0));
        Self {
            core,
            snapshot,
            plan,
            run,
            credentials,
            executor,
            journal,
            clock,
            caller,
            place,
            tally,
            seat,
            starter,
            depth,
            places,
            calls: FuturesUnordered::new(),
            gated: Vec::new(),
            again: HashSet::new(),
            looks: FuturesUnordered::new(),
            locks: HashMap::new(),
            children: HashMap::new(),
            mood: Arc::default(),
            below: false,
            told: HashMap::new(),
            recorded: false,
            taken_up: HashSet::new(),
            orders: Watch::default(),
            asking: Vec::new(),
            held: false,
            withheld: false,
            closing: None,
            need: Seq(0),
            fixed: None,
            abandoned: None,
            late: None,
            wake: None,
            stop: None,
        }
    }

    /// Notes the run's birth.
    pub fn born(&mut self) {
        let started = self.run.started().clone();
        self.journal.push(started.started, Event::RunStarted(started), Seq::FIRST);
        if self.starter.is_some() || self.run.started().parent.is_some() {
            self.need = Seq::FIRST;
        }
    }

    /// Notes what a rerun takes over of the run before it.
    pub fn takes_over(&mut self, events: Vec<Event>) -> Result<(), String> {
        for event in events {
            self.run.take_in(&event).map_err(|misfit| misfit.to_string())?;
            self.journal.push(self.run.started().started, event, self.run.seq());
        }
        self.need = self.run.seq();
        Ok(())
    }

    /// Takes up what another process left: what may be sent again is, of the rest nobody knows what it did.
    pub fn take_up(&mut self) {
        for attempt in self.run.in_flight() {
            let name = (attempt.step.clone(), attempt.item, attempt.part);
            if attempt.repeatable {
                self.again.insert(name.clone());
                self.gated.push((Seq(0), name));
            } else if let Some(step) = self.places.get(&attempt.step).copied() {
                let call =
                    Call { step, item: attempt.item, part: attempt.part, attempt: attempt.attempt, again: false };
                self.record(call, Heard::Interrupted);
            }
        }
        self.look_after_children();
        if self.core.store.is_shared() {
            self.read_orders();
        }
    }

    /// Drives the run until it has ended, only waits, or the process drains.
    pub async fn drive(mut self) -> Run {
        let mut freeze = self.core.freeze.subscribe();
        let mut draining = self.core.draining.subscribe();
        loop {
            if self.stop.is_none() {
                let hold = *freeze.borrow_and_update() == Freeze::Effects && self.run.mode() != Mode::Rehearse;
                let drain = *draining.borrow_and_update();
                if self.closing.is_none() {
                    self.advance(hold, drain).await;
                    self.release();
                    self.look_outside();
                }
                self.settle(drain);
                if self.need > self.journal.durable() {
                    let release = self.closing.is_some() && self.needs_nobody();
                    self.journal.flush(&self.run, release);
                }
                self.tell();
            }
            if let Some(stop) = self.stop {
                self.leave(stop);
                return self.run;
            }
            let closing = self.closing.is_some();
            let wake = self.wake.filter(|_| !closing).map(|at| self.clock.until(at));
            let until = self.caller.as_ref().filter(|_| self.late.is_none()).map(|caller| caller.until);
            let rehearsal = self.run.mode() == Mode::Rehearse;
            let drains = *draining.borrow();
            let caller = &mut self.caller;
            tokio::select! {
                Some((call, heard)) = self.calls.next(), if !self.calls.is_empty() => self.record(call, heard),
                Some(found) = self.looks.next(), if !self.looks.is_empty() => self.found(found),
                settled = self.journal.settled() => self.appended(settled),
                post = post(&mut self.seat), if !closing => self.hear(post),
                () = maybe(wake.map(tokio::time::sleep)) => {}
                () = maybe(until.map(tokio::time::sleep_until)) => self.time_is_over(),
                // Nobody looks at a rehearsal that nobody waits for, and a process that drains does not wait for an
                // answer that nobody hears.
                () = gone(caller), if rehearsal || drains => match rehearsal {
                    true => self.stop = Some(Stop::Discarded),
                    false => self.caller = None,
                },
                Ok(()) = freeze.changed() => {}
                Ok(()) = draining.changed() => {}
            }
        }
    }
}

/// What came to the run's seat: a letter, or that there is something to look at.
async fn post(seat: &mut Option<Seat>) -> Option<Letter> {
    let Some(seat) = seat else { return std::future::pending().await };
    seat.next().await
}

async fn maybe(timer: Option<impl Future<Output = ()>>) {
    match timer {
        Some(timer) => timer.await,
        None => std::future::pending().await,
    }
}

async fn gone(caller: &mut Option<Caller>) {
    match caller {
        Some(caller) => caller.tell.closed().await,
        None => std::future::pending().await,
    }
}

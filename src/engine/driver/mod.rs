//! Moves one run forward: ask what is due, decide, note, perform, repeat.
//!
//! Always true: a private or shared call leaves only after its `StepStarted` is on disk, a caller hears an answer only
//! after it is on disk, and between reads nobody waits for the disk. The run is this task's alone.
//!
//! When a service is slow, its attempt times out while the others go on; when the store is, effects and answers wait
//! and reads do not. When the caller's time is over, it hears so and the run goes on; when this task is dropped, what
//! is on disk is what the next process goes on from.

mod tell;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::future::Future;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Core;
use super::client::Executor;
use super::clock::Clock;
use super::journal::Journal;
use super::outgoing;
use super::registry::Place;
use super::snapshot::Snapshot;
use super::tally::Tally;
use crate::exchange::ArmReply;
use crate::flag::Freeze;
use crate::names::{RunId, Seq, StepId};
use crate::workflow::{
    Action, Command, Conditions, EffectClass, Event, Heard, Mode, Part, Plan, Run, RunStatus, StepIndex, decide, due,
};

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

/// A step's call, its attempt, and whether another process may have sent that attempt before.
type Call = (StepIndex, Option<u32>, Part, u32, bool);
/// A step, the item of its `for_each`, and which of its calls.
type Name = (StepId, Option<u32>, Part);

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
    places: HashMap<StepId, StepIndex>,
    calls: FuturesUnordered<BoxFuture<'static, (Call, Heard)>>,
    /// Attempts that leave once this place is on disk.
    gated: Vec<(Seq, Name)>,
    /// Attempts that another process may have sent already.
    again: HashSet<Name>,
    /// Up to here somebody waits for the disk.
    need: Seq,
    /// The place at which the reply was fixed.
    fixed: Option<Seq>,
    abandoned: Option<&'static str>,
    /// The caller's time is over, and it is told so once all is on disk.
    late: Option<Seq>,
    wake: Option<jiff::Timestamp>,
    stop: Option<Stop>,
}

/// Why a run is not driven any further here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// It has come to its end, or waits for a person.
    Settled,
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
}

impl Driver {
    pub fn new(parts: Parts) -> Self {
        let Parts { core, snapshot, plan, run, credentials, executor, journal, clock, caller, place } = parts;
        let places = (0..plan.steps.len()).map(|place| (plan.steps[place].id.clone(), StepIndex(place))).collect();
        let tally = Tally::of(&run);
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
            places,
            calls: FuturesUnordered::new(),
            gated: Vec::new(),
            again: HashSet::new(),
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
    }

    /// Takes up what another process left: what may be sent again is, of the rest nobody knows what it did.
    pub fn take_up(&mut self) {
        for attempt in self.run.in_flight() {
            if attempt.repeatable {
                let name = (attempt.step, attempt.item, attempt.part);
                self.again.insert(name.clone());
                self.gated.push((Seq(0), name));
            } else if let Some(step) = self.places.get(&attempt.step) {
                self.record((*step, attempt.item, attempt.part, attempt.attempt, false), Heard::Interrupted);
            }
        }
    }

    /// Drives the run until it has ended, waits for a person, or the process drains.
    pub async fn drive(mut self) {
        let mut freeze = self.core.freeze.subscribe();
        let mut draining = self.core.draining.subscribe();
        loop {
            if self.stop.is_none() {
                let hold = *freeze.borrow_and_update() == Freeze::Effects && self.run.mode() != Mode::Rehearse;
                let drain = *draining.borrow_and_update();
                self.advance(hold, drain).await;
                self.release();
                self.settle(drain);
                if self.need > self.journal.durable() {
                    self.journal.flush(&self.run);
                }
                self.tell();
            }
            if let Some(stop) = self.stop {
                self.tally.ended(&self.run, stop == Stop::Discarded);
                tracing::debug!(run = %self.run.id(), status = self.run.status().as_str(), ?stop, "run left");
                return;
            }
            let wake = self.wake.map(|at| self.clock.until(at));
            let until = self.caller.as_ref().filter(|_| self.late.is_none()).map(|caller| caller.until);
            let rehearsal = self.run.mode() == Mode::Rehearse;
            let drains = *draining.borrow();
            let caller = &mut self.caller;
            tokio::select! {
                Some((call, heard)) = self.calls.next(), if !self.calls.is_empty() => self.record(call, heard),
                settled = self.journal.settled() => self.appended(settled),
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

    /// Does all that can be done without the world.
    async fn advance(&mut self, hold_effects: bool, drain: bool) {
        loop {
            if self.run.failure().is_some() && !self.run.failed_as_declared() && self.give_back("engine_failed") {
                return;
            }
            let conditions = Conditions { now: self.clock.now(), hold_effects };
            self.wake = None;
            let mut moved = false;
            for action in due(&self.run, &self.plan, &self.snapshot.world, conditions) {
                match action {
                    // A process that drains begins nothing that nobody waits for.
                    Action::Ask(Command::Begin { .. }) if drain && self.caller.is_none() => {}
                    Action::Ask(command) => moved |= self.ask(command),
                    Action::Wait(at) => self.wake = Some(at),
                    Action::Held(_) | Action::Child { .. } | Action::Lock { .. } => {}
                }
                if self.stop.is_some() {
                    return;
                }
            }
            match self.wake {
                _ if moved => {}
                Some(at) if self.run.mode() == Mode::Rehearse => self.clock.put_forward(at),
                _ => return,
            }
            tokio::task::consume_budget().await;
        }
    }

    /// Asks the core; whether anything happened.
    fn ask(&mut self, command: Command) -> bool {
        let now = self.clock.now();
        match decide(&self.run, &self.plan, &self.snapshot.world, command, now) {
            Ok(events) => {
                for event in events {
                    self.note(event);
                }
                true
            }
            Err(refusal) => {
                tracing::trace!(run = %self.run.id(), %refusal, "not due");
                false
            }
        }
    }

    /// The one place where an event comes into being.
    fn note(&mut self, event: Event) {
        if let Err(misfit) = self.run.take_in(&event) {
            tracing::error!(run = %self.run.id(), %misfit, "the run cannot go on here");
            self.stop = Some(Stop::Lost);
            return;
        }
        self.tally.see(&event, &self.run);
        if let Event::StepStarted(started) = &event {
            let seq = if started.effect == EffectClass::Read { Seq(0) } else { self.run.seq() };
            self.need = self.need.max(seq);
            self.gated.push((seq, (started.step.clone(), started.item, started.part)));
        }
        self.journal.push(self.clock.now(), event, self.run.seq());
    }

    /// Lets attempts leave whose `StepStarted` is on disk.
    fn release(&mut self) {
        let durable = self.journal.durable();
        for (seq, name) in std::mem::take(&mut self.gated) {
            if seq > durable {
                self.gated.push((seq, name));
                continue;
            }
            let (step, item, part) = &name;
            let (Some(attempt), Some(place)) = (self.run.attempt(step, *item, *part), self.places.get(step)) else {
                continue;
            };
            let call = (*place, *item, *part, attempt.attempt, self.again.remove(&name));
            let made = outgoing::outgoing(
                &self.core.limits,
                &self.snapshot,
                &self.plan,
                &self.run,
                &self.credentials,
                *place,
                &attempt,
                self.clock.now(),
            );
            let heard: BoxFuture<'static, Heard> = match made {
                Ok(made) => self.executor.perform(attempt.effect, made),
                Err(why) => Box::pin(std::future::ready(Heard::NotSent(why))),
            };
            self.calls.push(Box::pin(async move { (call, heard.await) }));
        }
    }

    fn record(&mut self, (step, item, part, attempt, again): Call, heard: Heard) {
        self.ask(Command::Record { step, item, part, attempt, heard, again, jitter: fastrand::f64() });
    }

    /// Sees what somebody waits for the disk for, and whether anything is left to do.
    fn settle(&mut self, drain: bool) {
        let standing = self.run.is_final() || (self.run.status() == RunStatus::Paused && self.calls.is_empty());
        // A run that fails has nothing else to say while it undoes what was done.
        let said = self.run.answer().is_some() || self.run.status() == RunStatus::Compensating;
        let answered = self.run.mode() == Mode::Real && said;
        if (standing || answered || self.run.status() == RunStatus::Paused) && self.fixed.is_none() {
            self.fixed = Some(self.run.seq());
            self.need = self.need.max(self.run.seq());
        }
        let resting = self.calls.is_empty() && self.gated.is_empty();
        let drained = drain && self.caller.is_none() && resting;
        // A wait that nobody hears of otherwise is on disk; so is all that a process leaves behind.
        if standing || drained || (resting && self.wake.is_some() && self.caller.is_none()) {
            self.need = self.need.max(self.run.seq());
        }
        if self.journal.is_idle() && self.caller.as_ref().is_none_or(|_| self.fixed.is_some()) {
            if standing {
                self.stop = Some(Stop::Settled);
            } else if drained {
                self.stop = Some(Stop::Draining);
            }
        }
    }
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

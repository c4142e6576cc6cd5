//! Everything that a run can do without the world, and what then leaves for it.

use jiff::Timestamp;

use super::exchange::{CallId, Departure, End, Output};
use super::measure::Measure;
use super::state::{CallName, Machine};
use crate::names::{RunId, Seq};
use crate::workflow::{Action, Command, Conditions, EffectClass, Event, Heard, LockSeen, Mode, Refusal, decide, due};

impl Machine {
    /// Records the run's first event.
    pub fn born(&mut self) {
        let started = self.run.started().clone();
        let waited_for = self.has_starter || started.parent.is_some();
        self.log.push(started.started, Event::RunStarted(started), Seq::FIRST);
        if waited_for {
            self.wants_stored(Seq::FIRST);
        }
    }

    /// Records what a rerun takes over of the run before it.
    ///
    /// # Errors
    /// The events do not fit.
    pub fn take_over(&mut self, events: Vec<Event>) -> Result<(), String> {
        for event in events {
            self.run.take_in(&event).map_err(|misfit| misfit.to_string())?;
            self.log.push(self.run.started().started, event, self.run.seq());
        }
        self.wants_stored(self.run.seq());
        Ok(())
    }

    /// Takes up what another process left: an attempt that may be sent again is, of the others the outcome is unknown.
    pub fn take_up(&mut self, is_shared: bool) {
        for attempt in self.run.in_flight() {
            let name = (attempt.step.clone(), attempt.item, attempt.part);
            if attempt.repeatable {
                self.again.insert(name.clone());
                self.gated.push((Seq(0), name));
            } else if let Some(step) = self.step_places.get(&attempt.step).copied() {
                let call =
                    CallId { step, item: attempt.item, part: attempt.part, attempt: attempt.attempt, again: false };
                self.record(call, Heard::Interrupted);
            }
        }
        self.look_after_children();
        if is_shared {
            self.read_orders();
        }
    }

    /// Does all that can be done without the world.
    pub(super) fn advance(&mut self) {
        let hold_effects = self.frozen && self.run.mode() != Mode::Rehearse;
        loop {
            if self.run.failure().is_some() && !self.run.failed_as_declared() && self.give_back("engine_failed") {
                return;
            }
            let conditions = Conditions { now: self.now, hold_effects };
            (self.wake, self.held, self.withheld) = (None, false, false);
            let mut moved = false;
            let mut locks = Vec::new();
            for action in due(&self.run, &self.plan, &self.world, conditions) {
                match action {
                    // A process that ends begins nothing that nobody waits for.
                    Action::Ask(Command::Begin { .. }) | Action::Child { .. }
                        if self.draining && self.caller.is_none() =>
                    {
                        self.withheld = true;
                    }
                    Action::Ask(command) => moved |= self.ask(command),
                    Action::Wait(at) => self.wake = Some(self.wake.map_or(at, |known| known.min(at))),
                    Action::Held(_) => self.held = true,
                    Action::Child { step, item } => {
                        let child = RunId(self.ids.next(self.now));
                        moved |= self.ask(Command::BeginChild { step, item, child });
                    }
                    Action::TellChild { child, order } => self.tell_child(child, order),
                    // A rehearsal has locks of its own, and nobody else is there.
                    Action::Lock { step, item, queued, .. } if !self.log.is_durable() => {
                        moved |= self.ask(Command::LockSeen { step, item, queued, seen: LockSeen::First });
                    }
                    Action::Lock { step, item, name, queued } => locks.push((step, item, name, queued)),
                }
                if self.end.is_some() {
                    return;
                }
            }
            self.waits_for_locks(locks);
            match self.wake {
                _ if moved => {}
                Some(at) if self.run.mode() == Mode::Rehearse => self.put_forward(at),
                _ => return,
            }
        }
    }

    /// Lets a rehearsal's time until then elapse at once.
    fn put_forward(&mut self, to: Timestamp) {
        let more = to.duration_since(self.now);
        if more.is_positive() {
            self.ahead = self.ahead.checked_add(more).unwrap_or(self.ahead);
            self.now = to;
        }
    }

    /// Asks the core; whether it agreed.
    pub(super) fn ask(&mut self, command: Command) -> bool {
        match self.put(command) {
            Ok(_) => true,
            Err(refusal) => {
                tracing::trace!(run = %self.run.id(), %refusal, "not due");
                false
            }
        }
    }

    /// Asks the core; how many events came of it.
    pub(super) fn put(&mut self, command: Command) -> Result<usize, Refusal> {
        let events = decide(&self.run, &self.plan, &self.world, command, self.now)?;
        let count = events.len();
        for event in events {
            self.note(event);
        }
        Ok(count)
    }

    /// The one place where an event comes into being. Its time is that of the decision, so that what was decided by it
    /// can be decided again.
    fn note(&mut self, event: Event) {
        if self.end.is_some() {
            return;
        }
        if let Err(misfit) = self.run.take_in(&event) {
            tracing::error!(run = %self.run.id(), %misfit, "the run cannot go on here");
            self.end = Some(End::Lost);
            return;
        }
        self.out.extend(Measure::of(&event, &self.run).map(Output::Measure));
        if let Event::StepStarted(started) = &event {
            let seq = if started.effect == EffectClass::Read { Seq(0) } else { self.run.seq() };
            self.wants_stored(seq);
            self.gated.push((seq, (started.step.clone(), started.item, started.part)));
        }
        self.begins_outside(&event);
        self.notify(&event);
        self.log.push(self.now, event, self.run.seq());
    }

    /// Lets attempts leave whose `StepStarted` is in the store.
    pub(super) fn release(&mut self) {
        if self.gated.is_empty() || self.end.is_some() {
            return;
        }
        let stored = self.log.stored();
        for (seq, name) in std::mem::take(&mut self.gated) {
            match seq > stored {
                true => self.gated.push((seq, name)),
                false => self.send(name),
            }
        }
    }

    fn send(&mut self, name: CallName) {
        let (step, item, part) = &name;
        let Some(attempt) = self.run.attempt(step, *item, *part) else { return };
        let Some(place) = self.step_places.get(step).copied() else { return };
        let again = self.again.remove(&name);
        let id = CallId { step: place, item: attempt.item, part: attempt.part, attempt: attempt.attempt, again };
        self.calls += 1;
        self.out.push(Output::Call(Departure { id, attempt, now: self.now }));
    }

    /// Records what came of an attempt.
    pub(super) fn record(&mut self, call: CallId, heard: Heard) {
        let CallId { step, item, part, attempt, again } = call;
        let jitter = self.ids.jitter();
        self.ask(Command::Record { step, item, part, attempt, heard, again, jitter });
    }
}

//! Everything that a run can do without the world, and what then leaves for it.

use futures_util::future::BoxFuture;
use jiff::Timestamp;

use super::{Call, Driver, Stop};
use crate::engine::children::Begun;
use crate::engine::outgoing;
use crate::names::Seq;
use crate::workflow::{Action, Command, Conditions, EffectClass, Event, Heard, LockSeen, Mode, Refusal, decide, due};

impl Driver {
    /// Does all that can be done without the world.
    pub(super) async fn advance(&mut self, hold_effects: bool, drain: bool) {
        loop {
            if self.run.failure().is_some() && !self.run.failed_as_declared() && self.give_back("engine_failed") {
                return;
            }
            let conditions = Conditions { now: self.clock.now(), hold_effects };
            (self.wake, self.held, self.withheld) = (None, false, false);
            let mut moved = false;
            let mut locks = Vec::new();
            for action in due(&self.run, &self.plan, &self.snapshot.world, conditions) {
                match action {
                    // A process that drains begins nothing that nobody waits for.
                    Action::Ask(Command::Begin { .. }) | Action::Child { .. } if drain && self.caller.is_none() => {
                        self.withheld = true;
                    }
                    Action::Ask(command) => moved |= self.ask(command),
                    Action::Wait(at) => self.wake = Some(self.wake.map_or(at, |known| known.min(at))),
                    Action::Held(_) => self.held = true,
                    Action::Child { step, item } => {
                        moved |= self.ask(Command::BeginChild { step, item, child: Begun::new_id() });
                    }
                    Action::TellChild { child, order } => self.say_to_child(child, order),
                    // A rehearsal has locks of its own, and nobody else is there.
                    Action::Lock { step, item, queued, .. } if !self.journal.keeps() => {
                        moved |= self.ask(Command::LockSeen { step, item, queued, seen: LockSeen::First });
                    }
                    Action::Lock { step, item, name, queued } => locks.push((step, item, name, queued)),
                }
                if self.stop.is_some() {
                    return;
                }
            }
            self.stands_in_line(locks);
            match self.wake {
                _ if moved => {}
                Some(at) if self.run.mode() == Mode::Rehearse => self.clock.put_forward(at),
                _ => return,
            }
            tokio::task::consume_budget().await;
        }
    }

    /// Asks the core; whether anything happened.
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
        let now = self.clock.now();
        let events = decide(&self.run, &self.plan, &self.snapshot.world, command, now)?;
        let count = events.len();
        for event in events {
            self.note(event, now);
        }
        Ok(count)
    }

    /// The one place where an event comes into being. Its time is that of the decision: what was decided by it can be
    /// decided again.
    fn note(&mut self, event: Event, at: Timestamp) {
        if self.stop.is_some() {
            return;
        }
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
        self.begins_elsewhere(&event);
        self.notify(&event);
        self.journal.push(at, event, self.run.seq());
    }

    /// Lets attempts leave whose `StepStarted` is on disk.
    pub(super) fn release(&mut self) {
        let durable = self.journal.durable();
        for (seq, name) in std::mem::take(&mut self.gated) {
            if seq > durable {
                self.gated.push((seq, name));
                continue;
            }
            let (step, item, part) = &name;
            let (Some(attempt), Some(place)) = (self.run.attempt(step, *item, *part), self.places.get(step).copied())
            else {
                continue;
            };
            let call = Call {
                step: place,
                item: *item,
                part: *part,
                attempt: attempt.attempt,
                again: self.again.remove(&name),
            };
            let made = outgoing::outgoing(
                &self.core.limits,
                &self.snapshot,
                &self.plan,
                &self.run,
                &self.credentials,
                place,
                &attempt,
                self.clock.now(),
            );
            let heard: BoxFuture<'static, Heard> = match made {
                Ok(mut made) => {
                    made.hold = self.journal.hold().filter(|_| attempt.effect != EffectClass::Read);
                    self.executor.perform(attempt.effect, made)
                }
                Err(why) => Box::pin(std::future::ready(Heard::NotSent(why))),
            };
            self.calls.push(Box::pin(async move { (call, heard.await) }));
        }
    }

    pub(super) fn record(&mut self, Call { step, item, part, attempt, again }: Call, heard: Heard) {
        self.ask(Command::Record { step, item, part, attempt, heard, again, jitter: fastrand::f64() });
    }
}

//! When a run goes to rest: ended, or waiting for something that wakes it.
//!
//! Always true: a run is put to rest only where nothing is under way, nobody waits in its mailbox, and whoever waited
//! for its answer has been told; whatever comes after that finds no seat and wakes it. What would wake it is known
//! before its last append leaves.

use std::time::Duration;

use super::{Driver, Fixed, Reply, Stop};
use crate::engine::children;
use crate::engine::desk::NotDone;
use crate::flag::Freeze;
use crate::names::Seq;
use crate::workflow::{Command, Mode, Refusal, RunStatus};

/// A pause that is shorter stays in the task: putting a run to rest and waking it costs more.
const SHORT: Duration = Duration::from_secs(1);

/// What a run that rests waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Cause {
    /// A time.
    Time,
    /// A person.
    Person,
    /// A signal.
    Signal,
    /// The end of a freeze.
    Freeze,
    /// A lock.
    Lock,
    /// A run that it began.
    Child,
    /// Nothing: a bug.
    Nothing,
}

impl Driver {
    fn cause(&self) -> Cause {
        match self.run.status() {
            RunStatus::Paused | RunStatus::WaitingCheckpoint => Cause::Person,
            RunStatus::WaitingSignal => Cause::Signal,
            _ if self.wake.is_some() => Cause::Time,
            _ if self.held => Cause::Freeze,
            _ if !self.locks.is_empty() => Cause::Lock,
            _ if self.has_children() => Cause::Child,
            _ => Cause::Nothing,
        }
    }

    /// Sees what somebody waits for the disk for, and whether anything is left to do.
    pub(super) fn settle(&mut self, drain: bool) {
        if self.stop.is_some() {
            return;
        }
        let status = self.run.status();
        let resting = self.calls.is_empty() && self.gated.is_empty();
        // A caller never waits for a person.
        let person = status == RunStatus::Paused || (status == RunStatus::WaitingCheckpoint && resting);
        let ended = self.run.is_final();
        // A run that fails has nothing else to say while it undoes what was done.
        let said = self.run.answer().is_some() || status == RunStatus::Compensating;
        let answered = self.run.mode() == Mode::Real && said;
        if (ended || answered || person) && self.fixed.as_ref().is_none_or(|fixed| fixed.is_old(&self.run)) {
            if person {
                self.fix_pending();
            }
            if self.fixed.is_some()
                && let Some(place) = &self.place
            {
                place.unsettle();
            }
            self.fixed = Some(Fixed::now(&self.run));
            self.need = self.need.max(self.run.seq());
        }
        if self.below && resting && self.caller.is_some() && self.late.is_none() && self.fixed.is_none() {
            self.time_is_over(); // nor for one that a run below it waits for
        }
        let told = self.caller.is_none() || self.fixed.is_some();
        let standing = ended || (person && resting && !self.journal.keeps());
        let drained = drain && self.caller.is_none() && resting && self.withheld;
        if standing || drained {
            self.need = self.need.max(self.run.seq());
            if self.journal.is_idle() && told {
                self.stop = Some(if standing { Stop::Settled } else { Stop::Draining });
            }
        } else if let Some(cause) = self.closing {
            if self.journal.is_idle() {
                self.stop = Some(Stop::Parked(cause));
            }
        } else if resting {
            // A wait that nobody hears of otherwise is on disk, however short: the next process waits on.
            if self.wake.is_some() && self.caller.is_none() {
                self.need = self.need.max(self.run.seq());
            }
            if told || self.late.is_some() {
                self.put_to_rest();
            }
        }
    }

    /// What a caller gets while the run goes on is an event like its answer: what it names is pinned with it.
    pub(super) fn fix_pending(&mut self) {
        let wanted = self.run.mode() == Mode::Real && self.run.answer().is_none() && self.run.pending().is_none();
        if wanted && self.caller.is_some() && self.plan.pending.is_some() {
            self.ask(Command::AnswerPending);
        }
    }

    /// Nothing is under way: the run rests, unless it wants to go on soon or somebody just said something.
    fn put_to_rest(&mut self) {
        let unseen = self.children.values().any(|minded| minded.due);
        let busy = !self.looks.is_empty() || unseen || self.withheld;
        let soon = self.wake.is_some_and(|at| self.clock.until(at) < SHORT);
        if busy || soon || self.locks.values().any(|line| !line.is_known()) {
            return;
        }
        let Some(seat) = &mut self.seat else { return };
        if self.held {
            self.core.alarm.hold(seat.run());
            if *self.core.freeze.borrow() != Freeze::Effects {
                return; // it ended just now
            }
        }
        if seat.close() {
            self.closing = Some(self.cause());
            self.need = self.need.max(self.run.seq());
            if self.journal.is_idle() {
                self.stop = self.closing.map(Stop::Parked);
            }
        }
    }

    /// Whether somebody's word or the time alone moves it: then it can be nobody's. For the others this process listens;
    /// when that ends, the next one takes them at once.
    pub(super) fn needs_nobody(&self) -> bool {
        self.locks.is_empty() && !self.held && !self.has_children()
    }

    /// The task ends.
    pub(super) fn leave(&mut self, stop: Stop) {
        let (id, status) = (self.run.id(), self.run.status());
        self.tally.ended(&self.run, stop == Stop::Discarded, matches!(stop, Stop::Parked(_)));
        tracing::debug!(run = %id, status = status.as_str(), ?stop, "run left");
        match stop {
            Stop::Parked(cause) => {
                if let Some(at) = self.wake {
                    self.core.alarm.at(id, at);
                }
                if cause == Cause::Nothing {
                    self.core.stuck.note(id, &self.run.started().workflow, "nothing would move it");
                }
            }
            Stop::Settled => {
                self.core.alarm.forget(id);
                children::ended(&self.core, &self.run);
            }
            Stop::Discarded | Stop::Draining => {}
            // One that was never born here may be another's, and rest.
            Stop::Lost if self.journal.durable() == Seq(0) => {}
            Stop::Lost => {
                self.core.alarm.forget(id);
                if self.is_retaken() {
                    self.core.alarm.now(id); // read anew, it goes on
                }
            }
        }
        if stop != Stop::Lost {
            self.core.stuck.forget_unless(id, stop == Stop::Parked(Cause::Nothing));
        }
        for (_, reply) in self.asking.drain(..) {
            let said = match stop {
                Stop::Lost => Reply::Elsewhere,
                Stop::Settled => {
                    let run = Box::new(self.run.summary(self.clock.now()));
                    Reply::Not(NotDone::Refused { run, refusal: Refusal::Ended })
                }
                Stop::Parked(_) | Stop::Discarded | Stop::Draining => {
                    Reply::Not(NotDone::Store { why: "the run was left before it was on disk".into(), unknown: true })
                }
            };
            let _ = reply.send(said); // whoever asked may have gone
        }
    }
}

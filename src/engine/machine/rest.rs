//! When a driver ends: its run has ended, or waits for something that wakes it.
//!
//! Always true: a run is put to rest only where nothing is under way, no message waits in its mailbox, and whoever waited
//! for its answer has been told; a message that comes later finds no driver and wakes the run. What wakes it is known
//! before its last append leaves.

use jiff::SignedDuration;

use super::exchange::{End, OrderAnswer, Output, RestCause};
use super::state::{Fixed, Machine};
use crate::workflow::{Mode, Refusal, RunStatus};

/// A pause that is shorter stays in the driver: putting a run to rest and waking it costs more.
const SHORT: SignedDuration = SignedDuration::from_secs(1);

impl Machine {
    fn rest_cause(&self) -> RestCause {
        match self.run.status() {
            RunStatus::Paused | RunStatus::WaitingCheckpoint => RestCause::Person,
            RunStatus::WaitingSignal => RestCause::Signal,
            _ if self.wake.is_some() => RestCause::Time,
            _ if self.held => RestCause::Freeze,
            _ if !self.locks.is_empty() => RestCause::Lock,
            _ if self.has_children() => RestCause::Child,
            _ => RestCause::Nothing,
        }
    }

    fn has_children(&self) -> bool {
        self.run.children().next().is_some()
    }

    /// Sees what somebody waits for the store for, and whether anything is left to do.
    pub(super) fn settle(&mut self) {
        if self.end.is_some() {
            return;
        }
        let status = self.run.status();
        let quiet = self.calls == 0 && self.gated.is_empty();
        // A caller never waits for a person.
        let person = status == RunStatus::Paused || (status == RunStatus::WaitingCheckpoint && quiet);
        let ended = self.run.is_final();
        // A run that fails has nothing else to say while it undoes what was done.
        let said = self.run.answer().is_some() || status == RunStatus::Compensating;
        let answered = self.run.mode() == Mode::Real && said;
        if (ended || answered || person) && self.fixed.as_ref().is_none_or(|fixed| fixed.is_outdated(&self.run)) {
            if person {
                self.fix_pending();
            }
            if std::mem::take(&mut self.announced) {
                self.out.push(Output::Retract);
            }
            self.fixed = Some(Fixed::now(&self.run));
            self.wants_stored(self.run.seq());
        }
        if self.waits_below && quiet && self.caller.is_some() && self.late.is_none() && self.fixed.is_none() {
            self.time_is_over(); // nor for one that a run below it waits for
        }
        let told = self.caller.is_none() || self.fixed.is_some();
        let standing = ended || (person && quiet && !self.log.is_durable());
        let drained = self.draining && self.caller.is_none() && quiet && self.withheld;
        if self.end.is_some() {
            // The caller's request was given back, and nothing of the run is kept.
        } else if standing || drained {
            self.wants_stored(self.run.seq());
            if self.log.is_idle() && told {
                self.end = Some(if standing { End::Settled } else { End::Draining });
            }
        } else if self.left_orders && quiet && self.looks == 0 && self.log.is_idle() {
            self.end = Some(End::Doubtful);
        } else if self.mailbox_closed {
            self.rests();
        } else if self.closing.is_none() && quiet {
            // A wait that nobody hears of otherwise is in the store, however short: the next process waits on.
            if self.wake.is_some() && self.caller.is_none() {
                self.wants_stored(self.run.seq());
            }
            if told || self.late.is_some() {
                self.put_to_rest();
            }
        }
    }

    /// Nothing is under way: the run rests, unless it wants to go on soon or a message has just come.
    fn put_to_rest(&mut self) {
        let unseen = self.children.values().any(|child| child.due);
        let busy = self.looks > 0 || unseen || self.withheld || self.expects_message;
        let soon = self.wake.is_some_and(|at| at.duration_since(self.now) < SHORT);
        let looks_on = self.locks.values().any(|queue| queue.due || !queue.looks.is_idle());
        if self.log.is_durable() && !busy && !soon && !looks_on {
            self.closing = Some(self.rest_cause());
            self.out.push(Output::CloseMailbox { held: self.held });
        }
    }

    /// The mailbox is closed, or something had come.
    pub(super) fn mailbox_closed(&mut self, closed: bool) {
        if self.closing.is_none() {
            return;
        }
        if closed {
            self.mailbox_closed = true;
            self.wants_stored(self.run.seq());
        } else {
            (self.closing, self.expects_message) = (None, true);
        }
    }

    fn rests(&mut self) {
        if let Some(cause) = self.closing.filter(|_| self.log.is_idle()) {
            self.end = Some(End::Resting { cause, wake: self.wake });
        }
    }

    /// Whether a message or the time alone moves it: then it can be nobody's. For the others this process listens; when
    /// that ends, the next one takes them at once.
    pub(super) fn needs_nobody(&self) -> bool {
        self.locks.is_empty() && !self.held && !self.has_children()
    }

    /// The driver ends: nobody who ordered something is left without an answer.
    pub(super) fn leave(&mut self, end: End) {
        for (_, ticket) in std::mem::take(&mut self.askers) {
            let answer = match end {
                End::Lost | End::Doubtful => OrderAnswer::Elsewhere,
                End::Settled => {
                    let run = Box::new(self.run.summary(self.now));
                    OrderAnswer::Refused { run, refusal: Refusal::Ended }
                }
                End::Resting { .. } | End::Discarded | End::Draining => {
                    OrderAnswer::Unknown("the run was left before it was on disk")
                }
            };
            self.out.push(Output::AnswerOrder(ticket, answer));
        }
        self.out.push(Output::End(end));
    }
}

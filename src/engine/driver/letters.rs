//! What is said to a run: one thing at a time, in the order in which it comes.
//!
//! Always true: whoever asks hears of it after the events are on disk, or at once that it is refused.

use super::{Driver, Letter, Reply};
use crate::engine::desk::NotDone;
use crate::engine::mail::Asking;
use crate::workflow::Command;

impl Driver {
    /// A letter, or that there is something to look at.
    pub(super) fn hear(&mut self, letter: Option<Letter>) {
        match letter {
            Some(Letter::Order(asking)) => self.order(*asking),
            Some(Letter::Child(end)) => self.child_ended(*end),
            Some(Letter::Waits) => self.below = true,
            None if self.is_retaken() => self.lost("it was another process's meanwhile"),
            None => self.look_again(),
        }
    }

    fn order(&mut self, Asking { order, by, reply }: Asking) {
        let name = order.name();
        match self.put(Command::Order { order, by: by.clone() }) {
            Ok(_) => {
                tracing::info!(run = %self.run.id(), command = name, by, "a command is taken");
                self.goes_on();
                if self.run.seq() == self.journal.durable() {
                    let run = Box::new(self.run.summary(self.clock.now()));
                    let _ = reply.send(Reply::Done(run)); // nothing is to be written for it
                    return;
                }
                self.need = self.need.max(self.run.seq());
                self.asking.push((self.run.seq(), reply));
            }
            Err(refusal) => {
                let run = Box::new(self.run.summary(self.clock.now()));
                let _ = reply.send(Reply::Not(NotDone::Refused { run, refusal })); // whoever asked may have gone
            }
        }
    }

    /// Somebody said something: what was fixed for those who wait is not, unless it is the answer.
    pub(super) fn goes_on(&mut self) {
        if self.run.answer().is_none() && !self.run.is_final() {
            self.fixed = None;
            if let Some(place) = &self.place {
                place.unsettle();
            }
        }
    }
}

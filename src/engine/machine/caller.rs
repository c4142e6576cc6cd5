//! The caller's time, and whether its request may still go to legacy.

use std::sync::Arc;

use jiff::Timestamp;

use super::exchange::{Announcement, CallerAnswer, End, Output};
use super::state::{Fixed, Machine};
use crate::engine::machine::replies;
use crate::exchange::{Abandoned, ArmReply};
use crate::workflow::{Command, Mode, Run};

impl Fixed {
    /// The run as it stands now.
    pub fn now(run: &Run) -> Self {
        Self { seq: run.seq(), run: Arc::new(run.clone()) }
    }
    /// Something else would be told now; an answer stays what it is.
    pub fn is_outdated(&self, run: &Run) -> bool {
        self.run.answer().is_none() && (self.run.status() != run.status() || run.answer().is_some())
    }
}

impl Machine {
    /// Sees whether the caller's time is over; it is told so once.
    pub(super) fn caller_time(&mut self, now: Timestamp) {
        let is_over = self.caller.is_some_and(|caller| caller.until <= now);
        if is_over && self.late.is_none() && self.end.is_none() {
            self.time_is_over();
        }
    }

    pub(super) fn time_is_over(&mut self) {
        if self.give_back("deadline") {
            return;
        }
        if self.run.mode() == Mode::Rehearse {
            let reply = replies::rehearsal_too_long(&self.run, &self.plan);
            self.discard(reply);
            return;
        }
        self.fix_pending();
        self.late = Some(Fixed::now(&self.run));
        self.wants_stored(self.run.seq());
    }

    /// What a caller gets while the run goes on is an event like its answer: what it names is pinned with it.
    pub(super) fn fix_pending(&mut self) {
        let wanted = self.run.mode() == Mode::Real && self.run.answer().is_none() && self.run.pending().is_none();
        if wanted && self.caller.is_some() && self.plan.pending.is_some() {
            self.ask(Command::AnswerPending);
        }
    }

    /// Gives the request back to legacy, where that may still be. A run of which nothing was handed to the writer is
    /// dropped without an event.
    pub(super) fn give_back(&mut self, reason: &'static str) -> bool {
        let may = self.run.mode() == Mode::Real && self.caller.is_some_and(|caller| caller.may_fall_back);
        if !may || self.run.effects_begun() || self.run.answer().is_some() || self.run.is_final() {
            return false;
        }
        if self.log.is_untouched() {
            self.discard(ArmReply::Abandoned(Abandoned { reason, run: None }));
            return true;
        }
        self.abandoned = Some(reason);
        self.ask(Command::Abandon { reason })
    }

    /// Nothing of the run is kept: everybody who waits is told the same.
    pub(super) fn discard(&mut self, reply: ArmReply) {
        let reply = Box::new(reply);
        if matches!(*reply, ArmReply::Abandoned(_)) {
            self.out.push(Output::GiveKeyBack);
        }
        self.out.push(Output::Announce(Announcement::Reply(reply.clone())));
        if self.caller.take().is_some() {
            self.out.push(Output::AnswerCaller(CallerAnswer::Reply(reply)));
        }
        self.end = Some(End::Discarded);
    }

    /// The outcome is unknown to the caller; the run goes on, and so do those who wait for its answer.
    pub(super) fn tell_unknown(&mut self, why: &str) {
        if self.caller.take().is_some() {
            let problem = replies::unknown(Some(&self.run), why);
            let reply = ArmReply::Refused(problem, replies::report(&self.run, Some(&self.plan)));
            self.out.push(Output::AnswerCaller(CallerAnswer::Reply(Box::new(reply))));
        }
    }
}

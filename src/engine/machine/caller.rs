//! The caller's deadline, and whether its request may still go to legacy.

use std::sync::Arc;

use jiff::Timestamp;

use super::inputs_outputs::{Announcement, CallerAnswer, DriverEnd, Output};
use super::state::{DecidedReply, Machine};
use crate::engine::machine::replies;
use crate::engine::machine::run_report::report;
use crate::exchange::{Abandoned, ArmReply};
use crate::workflow::{Command, Mode, Run};

impl DecidedReply {
    pub fn from_run(run: &Run) -> Self {
        Self { seq: run.seq(), run: Arc::new(run.clone()) }
    }
    /// Whether the reply is out of date, because the run has gone on; a run's answer never changes.
    pub fn is_outdated(&self, run: &Run) -> bool {
        let has_changed = replies::status_for_caller(&self.run) != replies::status_for_caller(run);
        self.run.answer().is_none() && (has_changed || run.answer().is_some())
    }
}

impl Machine {
    /// Answers the caller, once, when its deadline has come.
    pub(super) fn check_caller_deadline(&mut self, now: Timestamp) {
        let is_over = self.caller.as_ref().is_some_and(|caller| caller.answer_by <= now);
        if is_over && self.deadline_reply.is_none() && self.end.is_none() {
            self.handle_caller_deadline();
        }
    }

    /// Answers with `respond.pending`, where the plan declares it: then outliving the deadline is no failure.
    /// Otherwise, and if the run has failed by now, the request goes back to legacy if that is allowed, else the caller
    /// is told what is known.
    pub(super) fn handle_caller_deadline(&mut self) {
        if self.run.failure().is_none() {
            self.decide_pending_answer();
        }
        if !self.run.failed_as_declared() && self.release_request("deadline") {
            return;
        }
        if !self.log.is_kept() {
            let reply = replies::unstored_past_deadline(&self.run, &self.plan, (&self.decision_inputs, self.now));
            self.discard(reply);
            return;
        }
        self.deadline_reply = Some(DecidedReply::from_run(&self.run));
        self.require_durable(self.run.seq());
    }

    /// Records `respond.pending` as an event, so that the instance that it names is pinned before the caller reads it.
    pub(super) fn decide_pending_answer(&mut self) {
        let is_open = self.run.mode() == Mode::Real && self.run.answer().is_none() && self.run.pending().is_none();
        if is_open && self.caller.is_some() && self.plan.pending.is_some() {
            self.try_command(Command::AnswerPending);
        }
    }

    /// Gives the request back to legacy; false where that is no longer allowed, where `respond.pending` was recorded,
    /// or where a person or the plan has decided against the request. A run of which nothing was submitted to the
    /// writer is dropped without an event, unless its retry key is to be claimed on a store of several processes.
    pub(super) fn release_request(&mut self, reason: &'static str) -> bool {
        let caller_may = self.caller.as_ref().map_or(self.gone_caller_may_fall_back, |caller| caller.may_fall_back);
        let may_fall_back = self.run.mode() == Mode::Real && caller_may;
        if !may_fall_back || self.run.effects_begun() || self.run.answer().is_some() || self.run.is_final() {
            return false;
        }
        if self.run.pending().is_some() || self.run.is_decided_against() {
            return false;
        }
        // On a store of several processes, another process may have performed the request meanwhile: the result of the
        // append that claims the retry key shows whether it has.
        if self.log.is_unsubmitted() && !self.claims_on_shared_store {
            self.discard(ArmReply::Abandoned(Abandoned { reason, run: None }));
            return true;
        }
        self.abandon_reason = Some(reason);
        self.try_command(Command::Abandon { reason })
    }

    /// Whether the run is real and its events are not written to the store.
    pub(super) fn is_unkept_real_run(&self) -> bool {
        self.run.mode() == Mode::Real && !self.log.is_kept()
    }

    /// Ends a run that is not kept and waits for a person: it is in no list, so nobody could answer it. Its request
    /// goes back to legacy, if that is allowed.
    pub(super) fn release_or_discard_paused(&mut self) {
        if !self.release_request("run_paused") {
            let reply = replies::unstored_and_paused(&self.run, &self.plan);
            self.discard(reply);
        }
    }

    /// Ends a run of which nothing is stored; everybody who waits for the run gets this reply.
    pub(super) fn discard(&mut self, mut reply: ArmReply) {
        self.hand_over_events(&mut reply);
        let reply = Box::new(reply);
        if matches!(*reply, ArmReply::Abandoned(_)) {
            self.out.push(Output::GiveRetryKeyToLegacy);
        }
        self.out.push(Output::Announce(Announcement::Reply(reply.clone())));
        if self.caller.take().is_some() {
            self.out.push(Output::AnswerCaller(CallerAnswer::Reply(reply)));
        }
        self.end = Some(DriverEnd::Discarded);
    }

    /// Answers the caller shortly before its deadline, where the store has not confirmed the events of its reply by
    /// then.
    pub(super) fn give_up_unconfirmed_reply(&mut self) {
        let is_over = self.caller.as_ref().is_some_and(|caller| caller.give_up_by <= self.now);
        if is_over && self.end.is_none() && self.log.is_kept() {
            self.answer_caller_unknown("the store does not answer");
        }
    }

    /// Tells the caller that the outcome is unknown. The run goes on, and a later request with the same retry key can
    /// get the run's answer.
    pub(super) fn answer_caller_unknown(&mut self, why: &str) {
        if self.caller.take().is_some() {
            let problem = replies::unknown(Some(&self.run), why);
            let reply = ArmReply::Refused(problem, report(&self.run, Some(&self.plan)));
            self.out.push(Output::AnswerCaller(CallerAnswer::Reply(Box::new(reply))));
        }
    }
}

//! Decides when a driver ends: when its run has ended, or waits for something that will wake the run.
//!
//! Always true: a run is suspended only where nothing is in flight, its mailbox is empty and its caller has been
//! answered; a message that comes later finds no driver and wakes the run. The cause that will wake the run is
//! determined before the driver's last append is submitted.

use jiff::SignedDuration;

use super::inputs_outputs::{CommandAnswer, DriverEnd, Output, WakeCause};
use super::state::{DecidedReply, Machine};
use crate::engine::machine::replies::status_for_caller;
use crate::names::StepId;
use crate::workflow::{CommandRefusal, Mode, RunStatus};

/// The shortest wait for which the driver ends. Ending it and loading the run again for a shorter one would cost more.
const SUSPEND_MIN: SignedDuration = SignedDuration::from_secs(1);

impl Machine {
    fn wake_cause(&self) -> WakeCause {
        match self.run.status() {
            RunStatus::Paused | RunStatus::WaitingCheckpoint => WakeCause::Person,
            RunStatus::WaitingSignal => WakeCause::Signal,
            _ if self.wake_at.is_some() => WakeCause::Time,
            _ if self.has_frozen_step => WakeCause::Freeze,
            _ if !self.locks.is_empty() => WakeCause::Lock,
            _ if self.has_children() => WakeCause::Child,
            _ => WakeCause::Nothing,
        }
    }

    fn has_children(&self) -> bool {
        self.run.children().next().is_some()
    }

    /// Decides the reply to those who wait, which events have to become durable, and whether the driver ends.
    pub(super) fn check_completion(&mut self) {
        if self.end.is_some() {
            return;
        }
        let status = self.run.status();
        let has_no_calls = self.calls_in_flight == 0 && self.unsent_attempts.is_empty();
        // A caller is never made to wait for a person.
        let waits_for_person = status == RunStatus::Paused || (status == RunStatus::WaitingCheckpoint && has_no_calls);
        if waits_for_person && self.is_unkept_real_run() {
            // The calls in flight end first.
            if has_no_calls {
                self.release_or_discard_paused();
            }
            return;
        }
        let has_ended = self.run.is_final();
        // A run that fails answers its caller before it undoes what was done.
        let is_undoing = status_for_caller(&self.run) == RunStatus::Compensating;
        let has_answer = self.run.answer().is_some() || is_undoing;
        let may_answer_early = has_answer
            && match self.run.mode() {
                Mode::Real => true,
                // The answer is compared, and the comparison must not hold a slot for as long as the run waits.
                Mode::Dark => has_no_calls && self.only_waits_for_time() && !self.may_record_awaited_intents(),
                Mode::Rehearse => false,
            };
        if (has_ended || may_answer_early || waits_for_person)
            && self.decided_reply.as_ref().is_none_or(|reply| reply.is_outdated(&self.run))
        {
            if waits_for_person && !is_undoing {
                self.decide_pending_answer();
            }
            if std::mem::take(&mut self.announced) {
                self.out.push(Output::Retract);
            }
            self.decided_reply = Some(DecidedReply::from_run(&self.run));
            self.require_durable(self.run.seq());
        }
        let is_unanswered = self.caller.is_some() && self.deadline_reply.is_none() && self.decided_reply.is_none();
        if self.descendant_waits && has_no_calls && is_unanswered {
            self.handle_caller_deadline(); // no caller is made to wait while a descendant waits for a person
        }
        let is_answered = self.caller.is_none() || self.decided_reply.is_some();
        let is_over = has_ended || (waits_for_person && has_no_calls && !self.log.is_kept());
        let is_drained = self.draining && self.caller.is_none() && has_no_calls && self.has_deferred_start;
        if self.end.is_some() {
            // Handling the caller's deadline has discarded the run.
        } else if is_drained && self.gone_caller_may_fall_back && self.log.is_unsubmitted() {
            // The next process would not know that the request may go to legacy, and would fail it for good. Nothing of
            // it is stored, and nobody was answered: a retry begins anew.
            self.end = Some(DriverEnd::Discarded);
        } else if is_over || is_drained {
            self.require_durable(self.run.seq());
            if self.log.is_idle() && is_answered {
                self.end = Some(if is_over { DriverEnd::Ended } else { DriverEnd::Draining });
            }
        } else if self.has_deferred_commands && has_no_calls && self.requests_in_flight == 0 && self.log.is_idle() {
            self.end = Some(DriverEnd::OwnershipUncertain);
        } else if self.mailbox_closed {
            self.finish_suspending();
        } else if self.closing.is_none() && has_no_calls {
            // Even a short wait is made durable: after a crash the next process waits only for what is left of it.
            if self.wake_at.is_some() && self.caller.is_none() {
                self.require_durable(self.run.seq());
            }
            if is_answered || self.deadline_reply.is_some() {
                self.try_to_suspend();
            }
        }
    }

    /// Whether the run is stored, has nothing under way, and goes on only at a time at least `SUSPEND_MIN` away.
    fn only_waits_for_time(&self) -> bool {
        let is_busy = self.requests_in_flight > 0
            || self.has_frozen_step
            || self.has_deferred_start
            || !self.locks.is_empty()
            || self.has_children();
        self.log.is_kept() && !is_busy && self.wake_at.is_some() && !self.goes_on_soon()
    }

    /// Whether the run may still record an intent that the comparison of its answer reads.
    fn may_record_awaited_intents(&self) -> bool {
        let has_ended = |step: &StepId| self.run.has_ended(step);
        self.caller.as_ref().is_some_and(|caller| caller.awaited_intents.may_still_be_recorded(has_ended))
    }

    fn goes_on_soon(&self) -> bool {
        self.wake_at.is_some_and(|at| at.duration_since(self.now) < SUSPEND_MIN)
    }

    /// Closes the mailbox to suspend the run, unless it will go on soon or waits for the result of a query.
    fn try_to_suspend(&mut self) {
        let has_unqueried_child = self.children.values().any(|child| child.needs_query);
        let has_unqueried_lock = self.locks.values().any(|wait| wait.needs_query || !wait.query.is_idle());
        let is_busy = self.requests_in_flight > 0
            || has_unqueried_child
            || has_unqueried_lock
            || self.has_deferred_start
            || self.expects_message;
        if self.log.is_kept() && !is_busy && !self.goes_on_soon() {
            self.closing = Some(self.wake_cause());
            self.out.push(Output::CloseMailbox { has_frozen_step: self.has_frozen_step });
        }
    }

    /// Suspends the run if the mailbox was closed; otherwise the message that had arrived, or the end of the freeze, is
    /// handled first.
    pub(super) fn handle_mailbox_closed(&mut self, closed: bool) {
        if self.closing.is_none() {
            return;
        }
        if closed {
            self.mailbox_closed = true;
            self.require_durable(self.run.seq());
        } else {
            (self.closing, self.expects_message) = (None, true);
        }
    }

    fn finish_suspending(&mut self) {
        if let Some(cause) = self.closing.filter(|_| self.log.is_idle()) {
            self.end = Some(DriverEnd::Suspended { cause, wake: self.wake_at });
        }
    }

    /// Whether the suspended run can be released, because only a message or a time wakes it. A run that waits for
    /// anything else stays owned: its owner is notified of changes, and when that process ends, another one acquires
    /// the run at once.
    pub(super) fn can_release_ownership(&self) -> bool {
        self.locks.is_empty() && !self.has_frozen_step && !self.has_children()
    }

    /// Ends the driver, and answers the commands that have no answer yet.
    pub(super) fn finish(&mut self, end: DriverEnd) {
        for (_, command_id) in std::mem::take(&mut self.command_replies) {
            let answer = match end {
                DriverEnd::Lost | DriverEnd::OwnershipUncertain => CommandAnswer::Elsewhere,
                DriverEnd::Contradicted => {
                    CommandAnswer::Unknown("the run's events contradict each other, which is a bug")
                }
                DriverEnd::Ended => {
                    let run = Box::new(self.summary());
                    CommandAnswer::Refused { run, refusal: CommandRefusal::Ended }
                }
                DriverEnd::Suspended { .. } | DriverEnd::Discarded | DriverEnd::Draining => {
                    CommandAnswer::Unknown("the run's task ended before the command was on disk")
                }
            };
            self.out.push(Output::AnswerCommand(command_id, answer));
        }
        self.end_reported = true;
        self.out.push(Output::End(end));
    }
}

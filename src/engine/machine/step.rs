//! [`Machine::step`]: takes one input and returns the outputs that follow from it.

use jiff::{SignedDuration, Timestamp};

use super::inputs_outputs::{DriverEnd, Input, Output};
use super::state::Machine;
use crate::names::Seq;

/// The longest time for which the result of a private or shared call is only in memory. Without this bound, one long
/// call would delay the appends of the results of other calls, whose outcomes would be unknown after a crash.
const RESULT_APPEND_DELAY: SignedDuration = SignedDuration::from_millis(10);

impl Machine {
    /// Applies an input that happened at this time and returns the outputs to perform, in order. Nothing follows
    /// [`Output::End`].
    pub fn step(&mut self, now: Timestamp, input: Input) -> Vec<Output> {
        if self.end.is_none() {
            self.now = self.now.max(now.checked_add(self.clock_offset).unwrap_or(now));
            self.apply_input(input);
            self.check_caller_deadline(now);
            self.proceed();
        } else if let Some(end) = self.end.filter(|_| !self.end_reported) {
            self.finish(end); // it ended before its first input, while it was recovered
        }
        std::mem::take(&mut self.out)
    }

    fn apply_input(&mut self, input: Input) {
        self.expects_message &= matches!(input, Input::MailboxClosed(_));
        match input {
            Input::Begin { frozen, draining } => (self.frozen, self.draining) = (frozen, draining),
            Input::Time => {}
            Input::CallFinished { call, result } => {
                self.calls_in_flight = self.calls_in_flight.saturating_sub(1);
                self.record_result(call, result);
            }
            Input::AppendFinished(result) => self.handle_append_result(result),
            Input::Command { command_id, command, by, owned } => self.handle_command(command_id, command, by, owned),
            Input::StoreCommands { commands, owned } => self.handle_store_commands(commands, owned),
            Input::CommandAnswerStored => self.requests_in_flight = self.requests_in_flight.saturating_sub(1),
            Input::Lock { query, seen } => self.handle_lock_state(query, seen),
            Input::Child { child, state } => self.handle_child_state(child, state),
            Input::ChildCommandDelivered { child, delivery } => self.handle_child_command(child, delivery),
            Input::ChildEnded(end) => self.handle_child_end(end),
            Input::DescendantWaits => self.descendant_waits = true,
            Input::ExternalChange { reacquired } => self.handle_external_change(reacquired),
            Input::Freeze(frozen) => self.frozen = frozen,
            Input::Drain => self.draining = true,
            Input::CallerGone => self.caller_gone = true,
            Input::MailboxClosed(closed) => self.handle_mailbox_closed(closed),
        }
    }

    /// Proceeds as far as possible without another input.
    fn proceed(&mut self) {
        self.handle_caller_gone();
        if self.end.is_none() {
            if self.closing.is_none() {
                self.advance();
                self.send_ready_attempts();
                self.query_external();
            }
            self.check_completion();
            self.flush();
            self.send_replies();
            self.give_up_unconfirmed_reply();
        }
        match self.end {
            Some(end) => self.finish(end),
            None => self.arm_timer(),
        }
    }

    /// Handles that the caller has stopped waiting. A run that is not stored is discarded, since nothing else uses its
    /// result. A draining process may leave a stored run without waiting for its answer.
    fn handle_caller_gone(&mut self) {
        if !self.caller_gone || self.caller.is_none() {
            return;
        }
        if !self.log.is_kept() {
            self.end = self.end.or(Some(DriverEnd::Discarded));
        } else if self.draining {
            self.gone_caller_may_fall_back = self.caller.take().is_some_and(|caller| caller.may_fall_back);
        }
    }

    /// Requires that the result of a call, with this sequence number, is appended soon, although nothing waits for it.
    pub(super) fn append_soon(&mut self, seq: Seq) {
        let due = self.unawaited_result.map(|(_, due)| due).or_else(|| self.now.checked_add(RESULT_APPEND_DELAY).ok());
        self.unawaited_result = due.map(|due| (seq, due)).filter(|_| self.log.is_kept());
    }

    /// Requires the append of results that are due, or that a stop of the process would lose.
    fn require_results(&mut self) {
        let Some((seq, due)) = self.unawaited_result else { return };
        if seq > self.required_seq && due > self.now && !self.draining {
            return;
        }
        self.unawaited_result = None;
        self.unawaited_seq = seq;
    }

    /// Appends the pending events, where something waits for them.
    fn flush(&mut self) {
        self.require_results();
        // Whether the append may release ownership depends on whether the mailbox closes.
        let undecided = self.closing.is_some() && !self.mailbox_closed;
        let required = self.required_seq.max(self.unawaited_seq);
        if self.end.is_some() || undecided || required <= self.log.durable_seq() {
            return;
        }
        let release = self.mailbox_closed && self.can_release_ownership();
        let (ids, now) = (&mut self.ids, self.now);
        if let Some(append) = self.log.next(&self.run, &self.plan, release, || ids.next(now)) {
            self.out.push(Output::Append(append, std::time::Duration::ZERO));
        }
    }

    fn arm_timer(&mut self) {
        let wake = self.wake_at.filter(|_| self.closing.is_none());
        let is_kept = self.log.is_kept();
        let caller = self.caller.as_ref().and_then(|caller| {
            match self.deadline_reply.is_none() && (caller.answer_by > self.now || !is_kept) {
                true => Some(caller.answer_by),
                false => is_kept.then_some(caller.give_up_by),
            }
        });
        let result = self.unawaited_result.map(|(_, due)| due);
        let timer = [wake, caller, result].into_iter().flatten().min();
        if timer != self.armed_timer {
            self.armed_timer = timer;
            self.out.push(Output::Timer(timer));
        }
    }
}

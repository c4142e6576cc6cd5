//! Handles the result of a step's attempt: done, certainly not done, unknown, or refused for good.
//!
//! Always true: after an unknown outcome a private or shared call is sent again only where a repeat is harmless;
//! otherwise its probe runs, or the run pauses and a person decides. An attempt that did nothing, or was refused, does
//! not tell whether an unknown one before it took effect. Nothing is sent again after a result. A fallback is taken
//! only where certainly nothing was done.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::attempt_result::{Class, classify, describe, is_conflict, response, retry_after, status_of};
use super::calls::CallState;
use super::conflict::{conflict, pauses, shorten_value};
use super::may_begin::is_settled_by_repeat;
use super::rules::Busy;
use super::step_events::{kept_output, schema_failure};
use super::{
    AttemptResult, Call, Conflict, ConflictEvent, ConflictKind, DecisionInputs, EffectClass, Event, Failure,
    FailureKind, Mode, Outcome, PauseOrFail, Plan, Retry, RetryScheduled, Run, Step, StepEvent, StepFinished, StepPart,
    address, fallback, lock,
};

/// An attempt that ended, with the state that decisions about it need.
pub(super) struct EndedAttempt<'a> {
    pub run: &'a Run,
    pub plan: &'a Plan,
    pub inputs: &'a DecisionInputs,
    pub step: &'a Step,
    pub item: Option<u32>,
    pub part: StepPart,
    pub attempt: u32,
    /// Whether the attempt was sent again, because a process ended while it was under way.
    pub may_be_repeat: bool,
    pub jitter: f64,
    pub now: Timestamp,
}

impl EndedAttempt<'_> {
    /// The events of an attempt of the step's own call.
    pub(super) fn own_call(&self, call: &Call, state: &CallState, result: AttemptResult) -> Vec<Event> {
        let class = classify(call, &result);
        // Success is handled before a failure is built, because building one takes time.
        let result = match (class, result) {
            (Class::Done, AttemptResult::Reply { status, headers, output, .. }) => {
                return self.done(status, headers, output);
            }
            (_, result) => result,
        };
        let failure = self.failure(&result, class);
        let read = state.effect == EffectClass::Read;
        let uncertain = !read && (state.uncertain || self.may_be_repeat);
        let response = response(&result);
        // Whatever this attempt did, an earlier one may have taken effect, so no fallback is taken.
        let earlier_unknown = self.run.may_have_happened(&self.step.id, self.item);
        if matches!(result, AttemptResult::Missing(_)) {
            // The next attempt finds out what is missing before it begins, and pauses the run.
            return vec![self.retry_at(self.now, uncertain, failure.message, true, false)];
        }
        // A status after which the outcome is unknown does not say that nothing was done, although the step lists it
        // under `busy_on`.
        let certain = !uncertain && class != Class::Done && (read || class != Class::Unknown);
        let busy = failure.status.filter(|_| certain).and_then(|status| self.step.safeguards.busy(status));
        if let Some(busy) = busy.filter(|_| !self.run.is_ending()) {
            return self.busy(call, state, busy, &failure, response);
        }
        match (class, result) {
            (Class::Done | Class::Unreadable, result) => {
                let status = status_of(&result).unwrap_or(200);
                let expected = "a body that can be read, within output_bytes_max and output_depth_max";
                self.unfit((status, BTreeMap::new(), Arc::default()), failure, response, expected)
            }
            (Class::Refused, _) if uncertain => self.unknown(failure, response),
            (Class::Refused, _) => {
                let asks_person = (is_conflict(failure.status)
                    && pauses(self.run, self.step.failure_handling.on_conflict))
                    || self.step.failure_handling.on_failure == Some(PauseOrFail::Pause)
                    || earlier_unknown;
                match asks_person && !self.run.is_ending() {
                    true => self.pause(ConflictKind::Refused, &failure, response),
                    false => vec![self.finished(Outcome::Failed { failure })],
                }
            }
            (Class::NotDone, result) => {
                let breaker_open = matches!(result, AttemptResult::BreakerOpen { .. });
                let over_rate = matches!(result, AttemptResult::OverRate { .. });
                let caller_waits = self.caller_waits(state);
                let fallback =
                    !earlier_unknown && fallback::available(self.run, self.plan, self.step, self.item).is_some();
                let ends_at_once = (breaker_open && (fallback || caller_waits)) || (over_rate && fallback);
                if ends_at_once && !uncertain && !self.run.is_ending() {
                    return self.not_done(Outcome::NotDone { failure }, response);
                }
                match self.retry(call, state, uncertain, &failure, &result) {
                    Some(retry) => vec![retry],
                    None if uncertain => self.unknown(failure, response),
                    None => self.not_done(Outcome::NotDone { failure: self.too_late(call, state, failure) }, response),
                }
            }
            (Class::Unknown, result) => match self.retry(call, state, true, &failure, &result) {
                Some(retry) => vec![retry],
                // A read has no effect, whatever its result.
                None if read => self.not_done(Outcome::Unknown { failure }, response),
                None => self.unknown(failure, response),
            },
        }
    }

    /// Whether the caller waits for this step, and the step declares no `deadline` until which it may wait for the
    /// breaker or the rate of its service.
    fn caller_waits(&self, state: &CallState) -> bool {
        self.part == StepPart::Do
            && state.until.is_none()
            && self.run.mode() == Mode::Real
            && self.run.has_waiting_caller(self.now)
    }

    /// Handles a reply that says that something is locked at the service (`busy_on`). Certainly nothing was done, so
    /// the step waits and tries again, is skipped, cancels the run or asks a person, as its `busy:` says.
    fn busy(
        &self,
        call: &Call,
        state: &CallState,
        busy: Busy,
        failure: &Failure,
        response: Option<Arc<Value>>,
    ) -> Vec<Event> {
        let pause = retry_pause(call.retry, state.attempt, self.jitter, None);
        let at = self.now.checked_add(pause).unwrap_or(self.now);
        let why = format!("{}: something is locked there", failure.message);
        let attempt_ended = |at| self.retry_at(at, false, why.clone(), !self.every_attempt_counts(), false);
        let too_late = state.until.is_some_and(|until| at >= until);
        let used_up = self.every_attempt_counts() && state.counted() >= call.retry.attempts;
        match busy {
            Busy::Wait if too_late || used_up => self.not_done(Outcome::NotDone { failure: failure.clone() }, response),
            Busy::Wait => vec![attempt_ended(at)],
            Busy::Skip => {
                let mut events = vec![attempt_ended(self.now)];
                events.extend(lock::skip(self.run, self.step, self.item));
                events
            }
            Busy::Cancel => vec![attempt_ended(self.now), lock::cancel(self.step, &why)],
            Busy::Ask => self.pause(ConflictKind::Busy, &Failure { message: why, ..failure.clone() }, response),
        }
    }

    /// The call was done: checks its output against the step's schema.
    pub(super) fn done(&self, status: u16, headers: BTreeMap<String, String>, output: Arc<Value>) -> Vec<Event> {
        match schema_failure(self.step, self.item, &output, self.inputs.bytes_mark(self.run)) {
            None => vec![self.finished(Outcome::Done { status, headers, output: kept_output(self.item, output) })],
            Some(failure) => {
                let response = shorten_value(&output);
                self.unfit((status, headers, output), failure, response, "an output as its schema says")
            }
        }
    }

    fn unfit(
        &self,
        (status, headers, output): (u16, BTreeMap<String, String>, Arc<Value>),
        failure: Failure,
        response: Option<Arc<Value>>,
        expected: &str,
    ) -> Vec<Event> {
        let outcome = Outcome::Unfit { status, headers, output: output.into(), failure: failure.clone() };
        if self.run.is_ending() || !pauses(self.run, self.step.failure_handling.on_failure) {
            return vec![self.finished(outcome)];
        }
        let mut conflict = self.conflict(ConflictKind::Schema, &failure);
        conflict.status = Some(status);
        conflict.response = response;
        conflict.expected = Some(expected.into());
        vec![Event::Conflict(ConflictEvent::Paused {
            conflict: Box::new(conflict),
            unfit_outcome: Some(Box::new(outcome)),
        })]
    }

    /// Takes the fallback, or fails: certainly nothing was done, and no attempt is left.
    pub(super) fn not_done(&self, outcome: Outcome, response: Option<Arc<Value>>) -> Vec<Event> {
        let (Outcome::NotDone { failure } | Outcome::Unknown { failure }) = &outcome else {
            return vec![self.finished(outcome)];
        };
        if self.run.is_ending() {
            return vec![self.finished(outcome)];
        }
        if self.run.may_have_happened(&self.step.id, self.item) {
            return self.pause(ConflictKind::AttemptsUsedUp, failure, response);
        }
        if let Some(by) = fallback::available(self.run, self.plan, self.step, self.item) {
            let (step, item, by) = (self.step.id.clone(), self.item, by.id.clone());
            return vec![Event::Step(StepEvent::FallbackTaken { step, item, by, failure: failure.clone() })];
        }
        match self.step.failure_handling.on_failure {
            Some(PauseOrFail::Pause) => self.pause(ConflictKind::AttemptsUsedUp, failure, response),
            Some(PauseOrFail::Fail) | None => vec![self.finished(outcome)],
        }
    }

    /// Handles an attempt after which it is unknown whether the step was done: its probe runs, or a person decides. In
    /// a run that was cancelled without undoing, the call ends with the unknown outcome.
    pub(super) fn unknown(&self, failure: Failure, response: Option<Arc<Value>>) -> Vec<Event> {
        if !self.run.compensates() {
            return vec![self.finished(Outcome::Unknown { failure })];
        }
        if let Some(probe) = &self.step.probe {
            let at = self.now.checked_add(probe.after).unwrap_or(self.now);
            let mut ask = self.retry_at(at, true, failure.message.clone(), false, true);
            if let Event::RetryScheduled(retry) = &mut ask {
                (retry.status, retry.response) = (failure.status, response);
                retry.may_take_effect_until = self.may_take_effect_until();
            }
            return vec![ask];
        }
        self.pause_unknown(failure, response)
    }

    /// Pauses the run, because nothing but a person can tell whether it was done.
    pub(super) fn pause_unknown(&self, failure: Failure, response: Option<Arc<Value>>) -> Vec<Event> {
        let message = format!("it is unknown whether `{}` was done: {}", self.step.id, failure.message);
        self.pause(ConflictKind::OutcomeUnknown, &Failure { message, ..failure }, response)
    }

    fn pause(&self, kind: ConflictKind, failure: &Failure, response: Option<Arc<Value>>) -> Vec<Event> {
        let mut conflict = self.conflict(kind, failure);
        conflict.response = response;
        conflict.expected = self.step.call(StepPart::Do).map(|call| format!("a status among {}", call.accept));
        vec![Event::Conflict(ConflictEvent::Paused { conflict: Box::new(conflict), unfit_outcome: None })]
    }

    fn conflict(&self, kind: ConflictKind, failure: &Failure) -> Conflict {
        conflict(self.run, self.step, self.item, StepPart::Do, kind, failure)
    }

    /// Schedules the next attempt, where one is left and the step's deadline allows it.
    pub(super) fn retry(
        &self,
        call: &Call,
        state: &CallState,
        unknown: bool,
        failure: &Failure,
        result: &AttemptResult,
    ) -> Option<Event> {
        let is_exempt_from_count = match result {
            // Nothing was sent, so no attempt is used up.
            AttemptResult::BreakerOpen { .. }
            | AttemptResult::Withheld(_)
            | AttemptResult::Withdrawn
            | AttemptResult::Missing(_) => true,
            // A rehearsed or dark run occupies a slot of the shadow executor while it waits, so its attempts count.
            AttemptResult::OverRate { .. } => self.run.mode() == Mode::Real && !self.caller_waits(state),
            // This is no failure of the service: the process ended. Where the run goes on at once, the same attempt is
            // sent again without an event and is not counted either.
            AttemptResult::Interrupted => true,
            AttemptResult::Reply { .. }
            | AttemptResult::Unreadable { .. }
            | AttemptResult::NotSent(_)
            | AttemptResult::TimedOut(_)
            | AttemptResult::CutOff(_) => false,
        };
        let not_counted = is_exempt_from_count && !self.every_attempt_counts();
        let stops = match self.part {
            StepPart::Do => {
                let settles = unknown && state.effect != EffectClass::Read && is_settled_by_repeat(self.run, self.step);
                self.run.is_ending() && !settles
            }
            StepPart::Probe => false,
            StepPart::Undo => !self.run.compensates(),
        };
        let is_repeatable = state.repeatable && address::allows_repeat(call, self.inputs);
        if stops || (unknown && !is_repeatable) || (!not_counted && state.counted() >= call.retry.attempts) {
            return None;
        }
        let after = retry_after(result);
        let pause = match not_counted {
            // An attempt before the breaker or the rate admits a call again would be refused.
            true => retry_pause(call.retry, 1, self.jitter, None)
                .max(SignedDuration::try_from(after.unwrap_or_default()).unwrap_or(SignedDuration::MAX)),
            false => retry_pause(call.retry, state.counted(), self.jitter, after),
        };
        let at = self.now.checked_add(pause).unwrap_or(self.now);
        let is_withdrawn = matches!(result, AttemptResult::Withdrawn);
        if !is_withdrawn && state.until.is_some_and(|until| at >= until) {
            return None;
        }
        let mut retry = self.retry_at(at, unknown, failure.message.clone(), not_counted, false);
        if let (Event::RetryScheduled(retry), true) = (&mut retry, unknown) {
            (retry.status, retry.response) = (failure.status, response(result));
            retry.may_take_effect_until = self.may_take_effect_until();
        }
        if let Event::RetryScheduled(retry) = &mut retry {
            retry.withdrawn = is_withdrawn;
        }
        Some(retry)
    }

    /// Whether attempts count that otherwise do not (an open breaker, a lock at the service). In a rehearsal waiting
    /// takes no time, so that such attempts would be repeated without bound and without a pause.
    fn every_attempt_counts(&self) -> bool {
        self.run.mode() == Mode::Rehearse
    }

    /// Until when the attempt that ends now may still take effect, where the step has a probe. Counted from now,
    /// not from the sending, which was earlier.
    pub(super) fn may_take_effect_until(&self) -> Option<Timestamp> {
        self.now.checked_add(self.may_take_effect_for()?).ok()
    }

    /// Until when an attempt of an earlier process may still take effect. Counted from the start of this process: the
    /// machine's clock may have been set in between, so only the time that this process has counted has certainly
    /// passed.
    pub(super) fn earlier_attempt_may_take_effect_until(&self) -> Option<Timestamp> {
        self.inputs.started?.checked_add(self.may_take_effect_for()?).ok()
    }

    /// How long after its end an attempt may still take effect, where the step has a probe.
    fn may_take_effect_for(&self) -> Option<Duration> {
        let probe = self.step.probe.as_ref()?;
        let timeout = self.step.call(StepPart::Do).and_then(|call| call.timeout).unwrap_or(self.inputs.step_timeout);
        Some(probe.settles.max(timeout))
    }

    /// Adds to the failure why no other attempt follows, where attempts are left.
    fn too_late(&self, call: &Call, state: &CallState, failure: Failure) -> Failure {
        if state.until.is_none() || state.counted() >= call.retry.attempts || self.run.is_ending() {
            return failure;
        }
        let message = format!("{}; another attempt would come after its deadline", failure.message);
        Failure { message, ..failure }
    }

    pub(super) fn retry_at(&self, at: Timestamp, unknown: bool, why: String, uncounted: bool, probe: bool) -> Event {
        let (step, item) = (self.step.id.clone(), self.item);
        let (part, attempt) = (self.part, self.attempt);
        let (status, response, may_take_effect_until) = (None, None, None);
        Event::RetryScheduled(RetryScheduled {
            step,
            item,
            part,
            attempt,
            unknown,
            why,
            at,
            uncounted,
            probe,
            status,
            response,
            may_take_effect_until,
            withdrawn: false,
        })
    }

    pub(super) fn finished(&self, outcome: Outcome) -> Event {
        let (step, item) = (self.step.id.clone(), self.item);
        Event::StepFinished(StepFinished { step, item, part: self.part, attempt: self.attempt, outcome })
    }

    /// The failure, for people and for the caller's problem document.
    pub(super) fn failure(&self, result: &AttemptResult, class: Class) -> Failure {
        let (status, what) = (status_of(result), describe(result));
        let kind = match (result, class) {
            (
                AttemptResult::NotSent(_)
                | AttemptResult::BreakerOpen { .. }
                | AttemptResult::OverRate { .. }
                | AttemptResult::Withheld(_)
                | AttemptResult::Withdrawn
                | AttemptResult::Missing(_),
                _,
            )
            | (_, Class::NotDone) => FailureKind::Unavailable,
            (AttemptResult::TimedOut(_), _) => FailureKind::TimedOut,
            (AttemptResult::CutOff(_) | AttemptResult::Interrupted, _) | (_, Class::Unknown) => FailureKind::Broken,
            (AttemptResult::Unreadable { .. }, _) => FailureKind::Bound,
            (AttemptResult::Reply { .. }, _) => FailureKind::Refused,
        };
        let message = match self.item {
            Some(item) => format!("item {item} of `{}`: {what}", self.step.id),
            None => format!("`{}`: {what}", self.step.id),
        };
        let retry_after_ms = retry_after(result).and_then(|after| u64::try_from(after.as_millis()).ok());
        Failure { status, retry_after_ms, ..Failure::of_step(kind, &self.step.id, self.item, message) }
    }
}

/// The pause before the next attempt: exponential with full jitter; a service's `Retry-After` is honoured up to `max`.
pub(super) fn retry_pause(retry: Retry, attempt: u32, jitter: f64, retry_after: Option<Duration>) -> SignedDuration {
    let doubled = retry.base.saturating_mul(1u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX));
    let drawn = doubled.min(retry.max).mul_f64(jitter.clamp(0.0, 1.0));
    let requested = retry_after.unwrap_or_default().min(retry.max);
    SignedDuration::try_from(drawn.max(requested)).unwrap_or(SignedDuration::MAX)
}

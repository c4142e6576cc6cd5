//! Probes: reads that ask a service whether an attempt with unknown outcome took effect.
//!
//! Always true: a probe only reads, runs only for an attempt with unknown effect, and its result is an event. If the
//! attempt took effect, the step is done with the probe's output; if not, the attempt counts as not done; if the probe
//! cannot tell, a person decides. A "no" counts only if the probe was sent when the attempt could no longer take effect
//! (`settles`); after an earlier "no" the probe is repeated. No probe is sent once the service of the attempt has
//! another base URL: a "no" from there would prove nothing about the attempt. All times are those of events, so
//! they survive a restart.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use super::address::{self, NextAttempt};
use super::attempt_result::{Class, classify};
use super::begin::first_request;
use super::calls::{CallState, Phase, UnknownReply};
use super::conflict::conflict;
use super::decision_inputs::call_scope;
use super::outcome::{EndedAttempt, retry_pause};
use super::{
    AttemptResult, CommandRefusal, ConflictEvent, ConflictKind, DecisionInputs, EffectClass, Event, Failure,
    FailureKind, Outcome, Probe, Retry, Run, Step, StepEvent, StepPart, StepStarted, missing,
};
use crate::expression::{ExpressionError, ReadPath};

/// Begins the first or next attempt of a probe.
pub(super) fn begin(
    run: &Run,
    inputs: &DecisionInputs,
    step: &Step,
    item: Option<u32>,
    now: Timestamp,
) -> Result<Vec<Event>, CommandRefusal> {
    let probe = step.probe.as_ref().ok_or(CommandRefusal::NotDue("the step has no probe"))?;
    let state = run.call_state(&step.id, item, StepPart::Do).ok_or(CommandRefusal::NotDue("nothing is unknown"))?;
    let started = |attempt, request| {
        Event::StepStarted(StepStarted {
            step: step.id.clone(),
            item,
            part: StepPart::Probe,
            attempt,
            key: None,
            effect: EffectClass::Read,
            repeatable: true,
            request,
            until: None,
            at: Some(now),
        })
    };
    // No request could be built for the probe, so it cannot tell, and a person decides.
    let cannot_ask = |why: String| {
        let message = format!("it is unknown whether `{}` was done, and its probe cannot ask: {why}", step.id);
        let UnknownReply { status, response } = state.unknown_reply.clone().unwrap_or_default();
        let failure = Failure { status, ..Failure::of_step(FailureKind::Expression, &step.id, item, message) };
        let mut conflict = conflict(run, step, item, StepPart::Do, ConflictKind::OutcomeUnknown, &failure);
        conflict.response = response;
        Event::Conflict(ConflictEvent::Paused { conflict: Box::new(conflict), unfit_outcome: None })
    };
    let may_probe = state.unknown_effect() && !matches!(state.phase, Phase::InFlight | Phase::AwaitsDecision);
    if let Some(missing) = missing::of_part(step, StepPart::Probe, inputs).filter(|_| may_probe) {
        return Ok(vec![missing::pause(run, step, item, StepPart::Probe, &missing)]);
    }
    let probe_state = run.call_state(&step.id, item, StepPart::Probe);
    let own_call = (&step.id, item, StepPart::Do);
    let moved = step
        .call(StepPart::Do)
        .filter(|_| may_probe)
        .and_then(|call| address::call_change(run, inputs, call, own_call, &state.request));
    if let Some(moved) = moved {
        let mut events = Vec::new();
        if probe_state.is_some() {
            let (step, attempt) = (step.id.clone(), state.attempt);
            events.push(Event::Step(StepEvent::Probed { step, item, attempt, done: None, output: Arc::default() }));
        }
        events.push(address::pause(run, step, item, StepPart::Do, state, &moved));
        return Ok(events);
    }
    match (state.phase, probe_state) {
        (Phase::Probing, Some(probing @ CallState { phase: Phase::Waiting(_), attempt, .. })) => {
            Ok(vec![match address::next(run, inputs, step, item, StepPart::Probe, (&probe.call, probing)) {
                Ok(NextAttempt::Same) => started(attempt + 1, None),
                Ok(NextAttempt::Rebased(request)) => started(attempt + 1, Some(request)),
                Ok(NextAttempt::Pause(event)) => event, // does not occur: a probe has no effect
                Err((_, error)) => cannot_ask(error.to_string()),
            }])
        }
        (Phase::ToProbe(_) | Phase::Waiting(_), None) if state.unknown_effect() => {
            Ok(vec![match first_request(run, inputs, &probe.call, step, item, StepPart::Probe) {
                Ok(request) => started(1, Some(Arc::new(request))),
                Err((_, error)) => cannot_ask(error.to_string()),
            }])
        }
        _ => Err(CommandRefusal::NotDue("nothing is unknown, or its probe is under way")),
    }
}

/// Handles the result of a probe's attempt.
pub(super) fn ended(ended: &EndedAttempt<'_>, state: &CallState, result: AttemptResult) -> Vec<Event> {
    let Some(probe) = &ended.step.probe else { return Vec::new() };
    let class = classify(&probe.call, &result);
    let failure = ended.failure(&result, class);
    match (class, result) {
        (Class::Done, AttemptResult::Reply { status, headers, output, .. }) => {
            let headers = headers.into_iter().map(|(name, value)| (name, Value::String(value))).collect();
            judge(ended, probe, state, status, Arc::new(Value::Object(headers)), output)
        }
        (Class::NotDone | Class::Unknown, result) => match ended.retry(&probe.call, state, false, &failure, &result) {
            Some(retry) => vec![retry],
            None => inconclusive(ended, &failure.message),
        },
        (Class::Done | Class::Unreadable | Class::Refused, _) => inconclusive(ended, &failure.message),
    }
}

/// Handles a probe's reply with an accepted status: `done` says whether the attempt took effect.
fn judge(
    ended: &EndedAttempt<'_>,
    probe: &Probe,
    state: &CallState,
    status: u16,
    headers: Arc<Value>,
    reply: Arc<Value>,
) -> Vec<Event> {
    let mut scope = call_scope(&ended.inputs.plain(ended.run), ended.run, &ended.step.id, ended.item, StepPart::Probe);
    scope.set("output", reply.clone());
    scope.set("status", Arc::new(Value::from(status)));
    scope.set("headers", headers);
    match probe.done.holds(&scope) {
        Ok(true) => {
            let output = match probe.output.as_ref().map(|output| output.evaluate(&scope)) {
                None => reply,
                Some(Ok(output)) => Arc::new(output),
                Some(Err(error)) => {
                    let reads = probe.output.as_ref().map_or(&[][..], |output| output.reads());
                    return without_value(ended, reads, "output", &error);
                }
            };
            let mut events = vec![probed(ended, Some(true), output.clone())];
            events.extend(own_attempt(ended).done(status, Default::default(), output));
            events
        }
        Ok(false) => {
            if let Some(again) = repeat_if_too_early(ended, probe, state) {
                return vec![again];
            }
            let mut events = vec![probed(ended, Some(false), reply)];
            let probed_attempt = own_attempt(ended);
            let (call, state) =
                (ended.step.call(StepPart::Do), ended.run.call_state(&ended.step.id, ended.item, StepPart::Do));
            let message = format!("`{}`: its probe says that nothing was done", ended.step.id);
            let failure = Failure::of_step(FailureKind::Unavailable, &ended.step.id, ended.item, message);
            let result = AttemptResult::NotSent(String::new());
            let retry =
                call.zip(state).and_then(|(call, state)| probed_attempt.retry(call, state, false, &failure, &result));
            match retry {
                Some(retry) => events.push(retry),
                None => events.extend(probed_attempt.not_done(Outcome::NotDone { failure }, None)),
            }
            events
        }
        Err(error) => without_value(ended, probe.done.reads(), "done", &error),
    }
}

/// Schedules the probe again after a "no" that came while the attempt could still take effect.
fn repeat_if_too_early(ended: &EndedAttempt<'_>, probe: &Probe, state: &CallState) -> Option<Event> {
    let attempt = ended.run.call_state(&ended.step.id, ended.item, StepPart::Do)?;
    // Events of earlier versions have no such time; then the period counts from now.
    let recorded = attempt.may_take_effect_until.or_else(|| ended.may_take_effect_until())?;
    let settled = recorded.max(ended.earlier_attempt_may_take_effect_until().unwrap_or(recorded));
    if state.at.is_some_and(|sent| sent >= settled) {
        return None;
    }
    let backoff = Retry { attempts: probe.call.retry.attempts, base: probe.after, max: probe.settles };
    let at = ended.now.checked_add(retry_pause(backoff, state.uncounted + 1, ended.jitter, None)).unwrap_or(settled);
    // The last probe is sent as soon as a "no" counts.
    let at = at.min(settled).max(ended.now);
    let why = format!("its probe says no; a \"no\" counts only if the probe is sent at {settled:.0} or later");
    let mut again = ended.retry_at(at, false, why, true, false);
    if let Event::RetryScheduled(retry) = &mut again {
        // Recorded without the start of this process, which does not matter to another process.
        retry.may_take_effect_until = Some(recorded);
    }
    Some(again)
}

/// Ends a probe whose reply cannot be judged, because an expression has no value. If the expression reads something
/// that was removed from the files while the probe was under way, the run waits for it, and asks again.
fn without_value(ended: &EndedAttempt<'_>, reads: &[ReadPath], key: &str, error: &ExpressionError) -> Vec<Event> {
    let EndedAttempt { run, inputs, step, item, .. } = *ended;
    match missing::of_error(reads, error, inputs).filter(|_| run.compensates()) {
        Some(missing) => {
            let pause = missing::pause(run, step, item, StepPart::Probe, &missing);
            vec![probed(ended, None, Arc::default()), pause]
        }
        None => inconclusive(ended, &format!("its `{key}` has no value: {error}")),
    }
}

/// Ends a probe that cannot tell whether the attempt took effect: a person decides. In a run that was cancelled without
/// undoing, the call ends with the unknown outcome.
fn inconclusive(ended: &EndedAttempt<'_>, why: &str) -> Vec<Event> {
    let probed_attempt = own_attempt(ended);
    let state = ended.run.call_state(&ended.step.id, ended.item, StepPart::Do);
    let first = state.and_then(|state| state.why.clone()).unwrap_or_default();
    let message = format!("{first}; its probe could not say: {why}");
    let UnknownReply { status, response } = state.and_then(|state| state.unknown_reply.clone()).unwrap_or_default();
    let failure = Failure { status, ..Failure::of_step(FailureKind::Broken, &ended.step.id, ended.item, message) };
    let mut events = vec![probed(ended, None, Arc::default())];
    events.extend(match ended.run.compensates() {
        true => probed_attempt.pause_unknown(failure, response),
        false => vec![probed_attempt.finished(Outcome::Unknown { failure })],
    });
    events
}

fn probed(ended: &EndedAttempt<'_>, done: Option<bool>, output: Arc<Value>) -> Event {
    let attempt = own_attempt(ended).attempt;
    Event::Step(StepEvent::Probed { step: ended.step.id.clone(), item: ended.item, attempt, done, output })
}

/// The attempt that the probe is about.
fn own_attempt<'a>(ended: &EndedAttempt<'a>) -> EndedAttempt<'a> {
    let attempt = ended.run.call_state(&ended.step.id, ended.item, StepPart::Do).map_or(0, |state| state.attempt);
    EndedAttempt { part: StepPart::Do, attempt, may_be_repeat: false, ..*ended }
}

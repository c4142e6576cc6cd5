//! An attempt ended: done, certainly not done, unknown, or refused for good.
//!
//! Always true: after an unknown outcome a private or shared call is sent again only where a repeat is harmless;
//! otherwise the run pauses, and a person decides. An attempt that did nothing does not make an unknown one before it
//! known. Nothing is sent again after a result.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::run::{Phase, StepState};
use super::{
    Call, Conflict, ConflictKind, EffectClass, Event, Failure, FailureKind, Heard, Outcome, Part, Refusal, Retry,
    RetryScheduled, Run, Step, StepFinished,
};

/// What an attempt comes to.
enum Class {
    Done,
    NotDone,
    Unknown,
    Failed,
}

/// What came back, held against what the step accepts.
#[allow(clippy::too_many_arguments)] // one fact each, and one caller
pub(super) fn record(
    run: &Run,
    step: &Step,
    call: &Call,
    item: Option<u32>,
    attempt: u32,
    heard: Heard,
    again: bool,
    jitter: f64,
    now: Timestamp,
) -> Result<Vec<Event>, Refusal> {
    let state = match run.steps.get(&step.id) {
        Some(StepState::Open(open)) if open.items.is_some() == item.is_some() => open.calls.get(&item.unwrap_or(0)),
        _ => None,
    };
    let Some(state) = state.filter(|state| state.attempt == attempt && state.phase == Phase::InFlight) else {
        return Err(Refusal::NotDue("no such attempt is under way"));
    };
    let finish = |outcome| {
        Ok(vec![Event::StepFinished(StepFinished { step: step.id.clone(), item, part: Part::Do, attempt, outcome })])
    };
    let class = classify(call, &heard);
    let failure = failure_of(step, item, &heard, &class);
    let (heard_after, unknown) = match (class, heard) {
        (Class::Done, Heard::Reply { status, headers, output, .. }) => {
            return finish(Outcome::Done { status, headers, output });
        }
        (Class::Done | Class::Failed, _) => return finish(Outcome::Failed { failure }),
        // That this attempt did nothing says nothing of one before it.
        (Class::NotDone, heard) => {
            let before = state.effect != EffectClass::Read && (state.uncertain || again);
            (retry_after(&heard), before)
        }
        (Class::Unknown, heard) => (retry_after(&heard), true),
    };
    let stop = run.failing.is_some() || run.conflict.is_some();
    if attempt < call.retry.attempts && !stop && (!unknown || state.repeatable) {
        let at = now.checked_add(pause(call.retry, attempt, jitter, heard_after)).unwrap_or(now);
        let why = failure.message;
        return Ok(vec![Event::RetryScheduled(RetryScheduled {
            step: step.id.clone(),
            item,
            part: Part::Do,
            attempt,
            unknown,
            why,
            at,
        })]);
    }
    if !unknown {
        return finish(Outcome::NotDone { failure });
    }
    if state.effect == EffectClass::Read {
        return finish(Outcome::Unknown { failure });
    }
    let conflict = Conflict {
        kind: ConflictKind::OutcomeUnknown,
        step: step.id.clone(),
        item,
        attempt,
        message: format!("it is unknown whether `{}` was done: {}", step.id, failure.message),
        status: failure.status,
        request: Some(state.request.clone()),
        part: Part::Do,
        response: None,
        expected: None,
        choices: Vec::new(),
    };
    Ok(vec![Event::Paused { conflict }])
}

fn classify(call: &Call, heard: &Heard) -> Class {
    match heard {
        Heard::Reply { status, .. } if call.accept.contains(*status) => Class::Done,
        Heard::Unreadable { status, .. } if call.accept.contains(*status) => Class::Failed,
        Heard::Reply { status, .. } | Heard::Unreadable { status, .. } => match status {
            429 | 503 => Class::NotDone,
            status if call.not_done.contains(*status) => Class::NotDone,
            500.. => Class::Unknown,
            _ => Class::Failed,
        },
        Heard::NotSent(_) | Heard::BreakerOpen { .. } => Class::NotDone,
        Heard::TimedOut(_) | Heard::CutOff(_) | Heard::Interrupted => Class::Unknown,
    }
}

fn failure_of(step: &Step, item: Option<u32>, heard: &Heard, class: &Class) -> Failure {
    let (kind, status, message) = match heard {
        Heard::Reply { status, .. } => {
            let kind = match class {
                Class::NotDone => FailureKind::Unavailable,
                Class::Unknown => FailureKind::Broken,
                Class::Done | Class::Failed => FailureKind::Refused,
            };
            (kind, Some(*status), format!("the service answered {status}"))
        }
        Heard::Unreadable { status, why } => {
            let kind = match class {
                Class::NotDone => FailureKind::Unavailable,
                Class::Unknown => FailureKind::Broken,
                Class::Done | Class::Failed => FailureKind::Bound,
            };
            (kind, Some(*status), format!("the service answered {status}, and {why}"))
        }
        Heard::NotSent(why) => (FailureKind::Unavailable, None, format!("it was not sent: {why}")),
        Heard::BreakerOpen { service, .. } => {
            (FailureKind::Unavailable, None, format!("it was not sent: the breaker of `{service}` is open"))
        }
        Heard::TimedOut(why) => (FailureKind::TimedOut, None, format!("no answer in time: {why}")),
        Heard::CutOff(why) => (FailureKind::Broken, None, format!("cut off: {why}")),
        Heard::Interrupted => (FailureKind::Broken, None, "this process ended while it was under way".to_owned()),
    };
    Failure {
        kind,
        step: Some(step.id.clone()),
        item,
        status,
        message: format!("`{}`: {message}", step.id),
        retry_after_ms: retry_after(heard).and_then(|after| u64::try_from(after.as_millis()).ok()),
    }
}

fn retry_after(heard: &Heard) -> Option<Duration> {
    match heard {
        Heard::Reply { retry_after_ms, .. } => retry_after_ms.map(Duration::from_millis),
        Heard::BreakerOpen { retry_after_ms, .. } => Some(Duration::from_millis(*retry_after_ms)),
        Heard::Unreadable { .. } | Heard::NotSent(_) | Heard::TimedOut(_) | Heard::CutOff(_) | Heard::Interrupted => {
            None
        }
    }
}

/// Exponential with full jitter; a service's `Retry-After` is honoured up to `max`.
fn pause(retry: Retry, attempt: u32, jitter: f64, retry_after: Option<Duration>) -> SignedDuration {
    let doubled = retry.base.saturating_mul(1u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX));
    let drawn = doubled.min(retry.max).mul_f64(jitter.clamp(0.0, 1.0));
    let asked = retry_after.unwrap_or_default().min(retry.max);
    SignedDuration::try_from(drawn.max(asked)).unwrap_or(SignedDuration::MAX)
}

//! Classifies the result of one attempt. What follows from it (retries, probes, people) is decided in
//! [`super::outcome`].
//!
//! Always true: an effect is certainly not done only where the result says so (the request was not sent, 429, a status
//! under `not_done`); no answer, a partial answer and every other 5xx that the call does not accept are unknown. 503 is
//! one of them, except for a `read`: a proxy in front of the service returns it also when the connection to the service
//! broke after the request was sent.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::conflict::shorten_value;
use super::{AttemptResult, Call, EffectClass, Failure};
use crate::names::ServiceName;

/// The class of an attempt's result.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Done,
    /// Done, and the reply cannot be read.
    Unreadable,
    NotDone,
    Unknown,
    Refused,
}

/// Statuses that say that the state at the service is not what the step assumed.
pub(super) fn is_conflict(status: Option<u16>) -> bool {
    matches!(status, Some(409 | 412 | 422))
}

pub(super) fn classify(call: &Call, result: &AttemptResult) -> Class {
    match result {
        AttemptResult::Reply { status, .. } if call.accept.contains(*status) => Class::Done,
        AttemptResult::Unreadable { status, .. } if call.accept.contains(*status) => Class::Unreadable,
        AttemptResult::Reply { status, .. } | AttemptResult::Unreadable { status, .. } => match status {
            429 => Class::NotDone,
            // A read has no effect, whether it was done or not.
            503 if call.effect == EffectClass::Read => Class::NotDone,
            status if call.not_done.contains(*status) => Class::NotDone,
            500.. => Class::Unknown,
            _ => Class::Refused,
        },
        AttemptResult::NotSent(_)
        | AttemptResult::BreakerOpen { .. }
        | AttemptResult::OverRate { .. }
        | AttemptResult::Withheld(_)
        | AttemptResult::Withdrawn
        | AttemptResult::Missing(_) => Class::NotDone,
        AttemptResult::TimedOut(_) | AttemptResult::CutOff(_) | AttemptResult::Interrupted => Class::Unknown,
    }
}

pub(super) fn status_of(result: &AttemptResult) -> Option<u16> {
    match result {
        AttemptResult::Reply { status, .. } | AttemptResult::Unreadable { status, .. } => Some(*status),
        AttemptResult::NotSent(_)
        | AttemptResult::BreakerOpen { .. }
        | AttemptResult::OverRate { .. }
        | AttemptResult::Withheld(_)
        | AttemptResult::Withdrawn
        | AttemptResult::Missing(_)
        | AttemptResult::TimedOut(_)
        | AttemptResult::CutOff(_)
        | AttemptResult::Interrupted => None,
    }
}

/// What happened, as a sentence for people.
pub(super) fn describe(result: &AttemptResult) -> String {
    match result {
        AttemptResult::Reply { status, .. } => format!("the service answered {status}"),
        AttemptResult::Unreadable { status, why, .. } => format!("the service answered {status}, and {why}"),
        AttemptResult::NotSent(why)
        | AttemptResult::Withheld(why)
        | AttemptResult::Missing(why)
        | AttemptResult::OverRate { why, .. } => format!("it was not sent: {why}"),
        AttemptResult::Withdrawn => {
            "it was not sent: before its turn came, the run was paused or ended, or the process was stopped".to_owned()
        }
        AttemptResult::BreakerOpen { service, .. } => {
            format!("{REFUSED_BY_BREAKER}{service}` is open")
        }
        AttemptResult::TimedOut(why) => format!("no answer in time: {why}"),
        AttemptResult::CutOff(why) => format!("cut off: {why}"),
        AttemptResult::Interrupted => "the process ended while it was under way".to_owned(),
    }
}

/// The beginning of the description of an attempt that an open breaker refused.
const REFUSED_BY_BREAKER: &str = "it was not sent: the breaker of `";

/// The result of an attempt that ended with this failure and without a status. Of the reasons not to send a call, only
/// an open breaker and an exceeded rate give a time for the next attempt; the recorded failure distinguishes these two
/// only by its message.
pub(super) fn of_unsent(failure: &Failure) -> AttemptResult {
    let why = failure.message.clone();
    match failure.retry_after_ms {
        Some(retry_after_ms) if why.contains(REFUSED_BY_BREAKER) => {
            AttemptResult::BreakerOpen { service: ServiceName::from(""), retry_after_ms }
        }
        Some(retry_after_ms) => AttemptResult::OverRate { why, retry_after_ms },
        None => AttemptResult::NotSent(why),
    }
}

/// The body of the response, shortened for people; where it cannot be read, its beginning.
pub(super) fn response(result: &AttemptResult) -> Option<Arc<Value>> {
    match result {
        AttemptResult::Reply { output, .. } => shorten_value(output),
        AttemptResult::Unreadable { body_start, .. } => {
            shorten_value(&Value::from(body_start.as_str())).filter(|_| !body_start.is_empty())
        }
        AttemptResult::NotSent(_)
        | AttemptResult::BreakerOpen { .. }
        | AttemptResult::OverRate { .. }
        | AttemptResult::Withheld(_)
        | AttemptResult::Withdrawn
        | AttemptResult::Missing(_)
        | AttemptResult::TimedOut(_)
        | AttemptResult::CutOff(_)
        | AttemptResult::Interrupted => None,
    }
}

pub(super) fn retry_after(result: &AttemptResult) -> Option<Duration> {
    match result {
        AttemptResult::Reply { retry_after_ms, .. } => retry_after_ms.map(Duration::from_millis),
        AttemptResult::BreakerOpen { retry_after_ms, .. } | AttemptResult::OverRate { retry_after_ms, .. } => {
            Some(Duration::from_millis(*retry_after_ms))
        }
        AttemptResult::Unreadable { .. }
        | AttemptResult::NotSent(_)
        | AttemptResult::Withheld(_)
        | AttemptResult::Withdrawn
        | AttemptResult::Missing(_)
        | AttemptResult::TimedOut(_)
        | AttemptResult::CutOff(_)
        | AttemptResult::Interrupted => None,
    }
}

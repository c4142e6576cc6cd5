//! What was heard of an attempt, and what it means by itself: before retries, probes and people.
//!
//! Always true: an effect is certainly not done only where that is said (no connection, an open breaker, 429,
//! `not_done`); no answer, half an answer and every other 5xx are unknown. 503 is one of them: a proxy in front of the
//! service gives that answer also when the service was cut off after it had the request.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::conflict::shorten_value;
use super::{Call, EffectClass, Heard};

/// What an attempt comes to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Done,
    /// Done, and the reply cannot be read.
    Unreadable,
    NotDone,
    Unknown,
    Refused,
}

/// Statuses that say that the world is not as the step took it to be.
pub(super) fn is_conflict(status: Option<u16>) -> bool {
    matches!(status, Some(409 | 412 | 422))
}

pub(super) fn classify(call: &Call, heard: &Heard) -> Class {
    match heard {
        Heard::Reply { status, .. } if call.accept.contains(*status) => Class::Done,
        Heard::Unreadable { status, .. } if call.accept.contains(*status) => Class::Unreadable,
        Heard::Reply { status, .. } | Heard::Unreadable { status, .. } => match status {
            429 => Class::NotDone,
            // A read changes nothing, whether it was done or not.
            503 if call.effect == EffectClass::Read => Class::NotDone,
            status if call.not_done.contains(*status) => Class::NotDone,
            500.. => Class::Unknown,
            _ => Class::Refused,
        },
        Heard::NotSent(_) | Heard::BreakerOpen { .. } | Heard::Withheld(_) | Heard::Missing(_) => Class::NotDone,
        Heard::TimedOut(_) | Heard::CutOff(_) | Heard::Interrupted => Class::Unknown,
    }
}

pub(super) fn status_of(heard: &Heard) -> Option<u16> {
    match heard {
        Heard::Reply { status, .. } | Heard::Unreadable { status, .. } => Some(*status),
        Heard::NotSent(_)
        | Heard::BreakerOpen { .. }
        | Heard::Withheld(_)
        | Heard::Missing(_)
        | Heard::TimedOut(_)
        | Heard::CutOff(_)
        | Heard::Interrupted => None,
    }
}

pub(super) fn about(heard: &Heard) -> String {
    match heard {
        Heard::Reply { status, .. } => format!("the service answered {status}"),
        Heard::Unreadable { status, why, .. } => format!("the service answered {status}, and {why}"),
        Heard::NotSent(why) | Heard::Withheld(why) | Heard::Missing(why) => format!("it was not sent: {why}"),
        Heard::BreakerOpen { service, .. } => format!("it was not sent: the breaker of `{service}` is open"),
        Heard::TimedOut(why) => format!("no answer in time: {why}"),
        Heard::CutOff(why) => format!("cut off: {why}"),
        Heard::Interrupted => "this process ended while it was under way".to_owned(),
    }
}

/// What came back, for people.
pub(super) fn response(heard: &Heard) -> Option<Arc<Value>> {
    match heard {
        Heard::Reply { output, .. } => shorten_value(output),
        Heard::Unreadable { begins, .. } => shorten_value(&Value::from(begins.as_str())).filter(|_| !begins.is_empty()),
        Heard::NotSent(_)
        | Heard::BreakerOpen { .. }
        | Heard::Withheld(_)
        | Heard::Missing(_)
        | Heard::TimedOut(_)
        | Heard::CutOff(_)
        | Heard::Interrupted => None,
    }
}

pub(super) fn retry_after(heard: &Heard) -> Option<Duration> {
    match heard {
        Heard::Reply { retry_after_ms, .. } => retry_after_ms.map(Duration::from_millis),
        Heard::BreakerOpen { retry_after_ms, .. } => Some(Duration::from_millis(*retry_after_ms)),
        Heard::Unreadable { .. }
        | Heard::NotSent(_)
        | Heard::Withheld(_)
        | Heard::Missing(_)
        | Heard::TimedOut(_)
        | Heard::CutOff(_)
        | Heard::Interrupted => None,
    }
}

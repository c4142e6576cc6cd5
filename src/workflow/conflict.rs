//! Builds the conflict that a person is shown when a run cannot go on by itself.
//!
//! Always true: a conflict names what was sent and under which key, what came back, what was expected and every choice
//! that makes sense (`choices`); a choice that is not among them is refused. What looks like a secret is redacted, and
//! long values are shortened; the run's events have them in full.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::bytes::{describe_bytes, is_marked_bytes};
use super::choices::choices;
use super::{CallRecord, Conflict, ConflictKind, Failure, Mode, PauseOrFail, Payload, Run, Step, StepPart};
use crate::expression::parse_json;
use crate::secret::{LengthMax, STARS, is_secret, masked_and_cut, redact_line};

/// Whether the run pauses for a person. Where the file does not say, a run that the API started pauses, because no
/// caller waits for its answer; a run that a route started does not. A child run does what the run at the top of its
/// tree does.
pub(super) fn pauses(run: &Run, setting: Option<PauseOrFail>) -> bool {
    match setting {
        Some(PauseOrFail::Pause) => true,
        Some(PauseOrFail::Fail) => false,
        None => run.mode() == Mode::Real && !run.started.is_of_route(),
    }
}

/// A conflict over a call, with what its last attempt sent.
pub(super) fn conflict(
    run: &Run,
    step: &Step,
    item: Option<u32>,
    part: StepPart,
    kind: ConflictKind,
    failure: &Failure,
) -> Conflict {
    let call = run.call_state(&step.id, item, part);
    Conflict {
        kind,
        step: step.id.clone(),
        item,
        part,
        attempt: call.map_or(0, |call| call.attempt),
        message: failure.message.clone(),
        status: failure.status,
        request: call.map(|call| Arc::new(shown(&call.request))),
        key: call.and_then(|call| call.key.clone()),
        response: None,
        expected: None,
        choices: choices(run, Some(step), item, kind).into_iter().map(str::to_owned).collect(),
        names_earlier_url: Some(false),
        missing: None,
    }
}

/// The greatest length of a text, in characters; longer ones are cut.
const TEXT_MAX: usize = 400;
/// The greatest number of members of an object, or of items of a list, that are shown.
const MEMBERS_MAX: usize = 24;
/// The greatest depth of nesting that is shown; deeper values are left out.
const DEPTH_MAX: usize = 6;

/// A request as people see it.
fn shown(record: &CallRecord) -> CallRecord {
    let body = match &record.body {
        Payload::Empty => Payload::Empty,
        Payload::Base64(text) => Payload::Text(format!("{} bytes", text.len() / 4 * 3)),
        Payload::Text(text) => Payload::Text(match parse_json(text.as_bytes()) {
            Ok(value) => shorten(&value, DEPTH_MAX).to_string(),
            Err(_) => cut(text),
        }),
    };
    CallRecord {
        method: record.method.clone(),
        url: record.url.clone(),
        headers: record.headers.clone(),
        body,
        secrets: BTreeMap::new(),
    }
}

/// A value, redacted and shortened as people see it; `None` for null.
pub(super) fn shorten_value(value: &Value) -> Option<Arc<Value>> {
    (!value.is_null()).then(|| Arc::new(shorten(value, DEPTH_MAX)))
}

fn shorten(value: &Value, depth: usize) -> Value {
    let more = |count: usize| Value::String(format!("… {count} more"));
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        Value::String(text) => Value::String(cut(text)),
        Value::Array(_) | Value::Object(_) if depth == 0 => Value::String("…".into()),
        Value::Array(items) => {
            let mut shown: Vec<_> = items.iter().take(MEMBERS_MAX).map(|item| shorten(item, depth - 1)).collect();
            if items.len() > MEMBERS_MAX {
                shown.push(more(items.len() - MEMBERS_MAX));
            }
            Value::Array(shown)
        }
        // Bytes are replaced by their description before texts are shortened: their size is computed from the whole
        // encoding.
        Value::Object(_) if is_marked_bytes(value) => {
            let mut shown = value.clone();
            describe_bytes(&mut shown);
            shorten(&shown, depth)
        }
        Value::Object(members) => {
            let mut shown: serde_json::Map<_, _> = members
                .iter()
                .take(MEMBERS_MAX)
                .map(|(name, value)| {
                    let hidden = is_secret(name) && !value.is_null();
                    (cut(name), if hidden { Value::String(STARS.into()) } else { shorten(value, depth - 1) })
                })
                .collect();
            if members.len() > MEMBERS_MAX {
                shown.insert("…".into(), more(members.len() - MEMBERS_MAX));
            }
            Value::Object(shown)
        }
    }
}

/// Redacts values that the text itself names as secrets, and then cuts the text. This function does not know the run's
/// sensitive values: whoever seals or shows the text also hides the beginning of a sensitive value that the cut left.
pub(super) fn cut(text: &str) -> String {
    masked_and_cut(text, redact_line, LengthMax::Chars(TEXT_MAX))
}

//! Builds requests and answers as they are sent, and as they are recorded.
//!
//! Always true: a record equals what is sent, byte for byte, except that it has stars in place of secrets and
//! credentials. A body holds neither, because it is made from the plain scope.

use http::HeaderName;
use serde_json::Value;

use super::bytes::bytes_within_error;
use super::decision_inputs::{STARS, reads_hidden};
use super::sensitive::{AnswerPlace, with_sensitive_parts};
use super::{
    AnswerRecord, BytesMark, Call, CallBody, CallRecord, DecisionInputs, Payload, Plan, ResponseTemplate, Run,
};
use crate::expression::{ExpressionError, ReadPath, Scope, Template, parse_json};

/// An expression without a value: the paths that it reads, and its error.
type NoValue = (Vec<ReadPath>, ExpressionError);

/// The request of a call as it is recorded. `given` is a body that is sent instead of evaluating the plan's: one that a
/// person gave, or one that was evaluated before, perhaps without the items that people struck out.
pub(super) fn call_record(
    call: &Call,
    inputs: &DecisionInputs,
    run: &Run,
    plain: &Scope,
    masked: &Scope,
    given: Option<&Value>,
) -> Result<CallRecord, NoValue> {
    let path = recorded_path(call, masked).map_err(|error| (call.url.reads().to_vec(), error))?;
    let mut headers = Vec::with_capacity(call.headers.len() + 1);
    for (name, template) in &call.headers {
        headers.extend(header_value(name, template, masked)?.map(|value| (name.as_str().to_owned(), value)));
    }
    let (body, content_type) = match given {
        Some(given) if inputs.bytes_mark(run).bytes(given).is_none() && plain.contains_opaque(given) => {
            return Err((Vec::new(), bytes_within_error()));
        }
        Some(given) => given_body(&call.body, given, inputs.bytes_mark(run)),
        None => body(&call.body, run, plain, inputs.bytes_mark(run))?,
    };
    if let Some(content_type) = content_type
        && !headers.iter().any(|(name, _)| name == "content-type")
    {
        headers.push(("content-type".into(), content_type));
    }
    let url = format!("{}{path}", base_of(call, inputs));
    let secrets = inputs.hashes_of_secrets(secret_names(call));
    Ok(CallRecord { method: call.method.as_str().to_owned(), url, headers, body, secrets })
}

/// The value of a header; `None` if it is null, which leaves the header out. A control character, which no header can
/// hold, makes it an expression without a value: only the workflow or its input can put it there, and another attempt
/// would fail in the same way.
fn header_value(name: &HeaderName, template: &Template, scope: &Scope) -> Result<Option<String>, NoValue> {
    let refuse = |error| (template.reads().to_vec(), error);
    let of_header = |error: ExpressionError| {
        let message = format!("header `{name}`: {}", error.message);
        refuse(ExpressionError { message, ..error })
    };
    let Some(value) = template.evaluate_text_or_null(scope).map_err(of_header)? else { return Ok(None) };
    match value.chars().find(|c| c.is_ascii_control() && *c != '\t') {
        None => Ok(Some(value)),
        Some(found) => {
            let code = u32::from(found);
            let message = format!("the value of the header `{name}` has a control character (U+{code:04X})");
            Err(refuse(ExpressionError::new(message)))
        }
    }
}

/// Path and query of a call as records show them.
pub(super) fn recorded_path(call: &Call, masked: &Scope) -> Result<String, ExpressionError> {
    let path = call.url.evaluate(masked)?;
    Ok(if is_url_hidden(call) { path.replace("%2A%2A%2A", STARS) } else { path })
}

/// The base URL of a call's service, as records show it.
pub(super) fn base_of<'a>(call: &'a Call, inputs: &'a DecisionInputs) -> &'a str {
    inputs.base(&call.service).unwrap_or_default().trim_end_matches('/')
}

/// Whether the URL of a call reads secrets or credentials, which its record shows as stars.
pub(super) fn is_url_hidden(call: &Call) -> bool {
    reads_hidden(call.url.reads())
}

/// Whether the URL or the headers of a call read secrets or credentials, which its record shows as stars.
pub fn has_hidden_parts(call: &Call) -> bool {
    is_url_hidden(call) || call.headers.iter().any(|(_, template)| reads_hidden(template.reads()))
}

/// The names of the secrets that the URL and the headers of a call read.
pub(super) fn secret_names(call: &Call) -> impl Iterator<Item = &str> {
    let reads = call.headers.iter().flat_map(|(_, template)| template.reads()).chain(call.url.reads());
    reads.filter(|path| path.root() == "secrets").filter_map(|path| path.part(0))
}

/// The parts of a request that its record shows with stars, with secrets and credentials filled in. Only for sending:
/// they are never stored.
#[derive(Default)]
pub struct Revealed {
    /// The path and query; `None` where the recorded ones have no stars.
    pub path: Option<String>,
    /// The headers whose recorded values may have stars; `None` where the value is null.
    pub headers: Vec<(String, Option<String>)>,
}

/// Fills in the secrets and credentials of a call.
///
/// # Errors
/// An expression has no value, because a secret or a credential is no longer there.
pub fn reveal(call: &Call, revealed: &Scope) -> Result<Revealed, ExpressionError> {
    let path = is_url_hidden(call).then(|| call.url.evaluate(revealed)).transpose()?;
    let mut headers = Vec::with_capacity(call.headers.len());
    for (name, template) in call.headers.iter().filter(|(_, template)| reads_hidden(template.reads())) {
        headers.push((name.as_str().to_owned(), template.evaluate_text_or_null(revealed)?));
    }
    Ok(Revealed { path, headers })
}

fn body(body: &CallBody, run: &Run, scope: &Scope, mark: BytesMark) -> Result<(Payload, Option<String>), NoValue> {
    Ok(match body {
        CallBody::Empty => (Payload::Empty, None),
        CallBody::Json(template) => {
            let value = template.evaluate(scope).map_err(|error| (template.reads().to_vec(), error))?;
            match mark.bytes(&value) {
                Some(bytes) => bytes,
                None if scope.contains_opaque(&value) => return Err((template.reads().to_vec(), bytes_within_error())),
                None => (Payload::Text(value.to_string()), Some("application/json".into())),
            }
        }
        CallBody::Form(fields) => {
            let mut text = String::new();
            for (name, template) in fields {
                let value = template.evaluate_lines(scope).map_err(|error| (template.reads().to_vec(), error))?;
                if !text.is_empty() {
                    text.push('&');
                }
                form_component(&mut text, name);
                text.push('=');
                form_component(&mut text, &value);
            }
            (Payload::of(text.as_bytes()), Some("application/x-www-form-urlencoded".into()))
        }
        CallBody::Text(template) => {
            let text = template.evaluate_lines(scope).map_err(|error| (template.reads().to_vec(), error))?;
            (Payload::of(text.as_bytes()), Some("text/plain; charset=utf-8".into()))
        }
        CallBody::Raw => raw_body(run, mark).map_err(|error| (Vec::new(), error))?,
    })
}

/// The body of the request as it came. Of a child that an earlier version began, and of its reruns, the recorded bytes
/// may be JSON that stands for bytes or contains them: nobody but the engine may see the marks in it. Earlier versions
/// did not record whether a rerun is one of a child, so every rerun is examined.
fn raw_body(run: &Run, mark: BytesMark) -> Result<(Payload, Option<String>), ExpressionError> {
    let raw = run.started.request.get("raw").and_then(|raw| mark.bytes(raw));
    let contains_bytes = || {
        ExpressionError::new(
            "`request.raw` has no value: the input of this run contains bytes, which cannot be a part of a body",
        )
    };
    let Some((payload, content_type)) = raw else { return Err(contains_bytes()) };
    let input = match &payload {
        Payload::Text(text) if run.started.rerun_of.is_some() || run.started.is_child_or_rerun_of_one() => {
            parse_json(text.as_bytes()).ok()
        }
        Payload::Text(_) | Payload::Base64(_) | Payload::Empty => None,
    };
    match input {
        Some(input) if mark.are_within(&input) => Err(contains_bytes()),
        Some(input) => Ok(mark.bytes(&input).unwrap_or((payload, content_type))),
        None => Ok((payload, content_type)),
    }
}

/// The body that a person gave, encoded as the call's body is (form, text or JSON).
fn given_body(body: &CallBody, given: &Value, mark: BytesMark) -> (Payload, Option<String>) {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match (body, given.as_object()) {
        (CallBody::Form(_), Some(fields)) => {
            let mut form = String::new();
            for (name, value) in fields {
                if !form.is_empty() {
                    form.push('&');
                }
                form_component(&mut form, name);
                form.push('=');
                form_component(&mut form, &text(value));
            }
            (Payload::of(form.as_bytes()), Some("application/x-www-form-urlencoded".into()))
        }
        (CallBody::Text(_), _) => (Payload::of(text(given).as_bytes()), Some("text/plain; charset=utf-8".into())),
        _ => match mark.bytes(given) {
            Some(bytes) => bytes,
            None => (Payload::Text(given.to_string()), Some("application/json".into())),
        },
    }
}

fn form_component(text: &mut String, value: &str) {
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'*' => text.push(char::from(byte)),
            b' ' => text.push('+'),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
}

/// Whether a reply with this status has no content (RFC 9110, sections 15.3.5, 15.3.6 and 15.4.5).
pub fn is_without_content(status: u16) -> bool {
    matches!(status, 204 | 205 | 304)
}

/// Builds an answer to the caller.
pub(super) fn answer(
    answer: &ResponseTemplate,
    run: &Run,
    scope: &Scope,
    mark: BytesMark,
) -> Result<AnswerRecord, NoValue> {
    let status = answer.status.evaluate(scope).map_err(|error| (answer.status.reads().to_vec(), error))?;
    let status = match &status {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    let status = status.and_then(|status| u16::try_from(status).ok()).filter(|status| (200..=599).contains(status));
    let Some(status) = status else {
        let message = "the answer's status is not a number from 200 to 599".to_owned();
        return Err((Vec::new(), ExpressionError { message, offset: None, absent: None }));
    };
    let mut headers = Vec::with_capacity(answer.headers.len() + 1);
    for (name, template) in &answer.headers {
        headers.extend(header_value(name, template, scope)?.map(|value| (name.as_str().to_owned(), value)));
    }
    let declared = headers.iter().find(|(name, _)| name == "content-type").map(|(_, value)| value.clone());
    let Some(template) = &answer.body else {
        return Ok(AnswerRecord::new(status, headers, Payload::Empty));
    };
    let value = template.evaluate(scope).map_err(|error| (template.reads().to_vec(), error))?;
    let (bytes, streamed_from) = (mark.bytes(&value), mark.streamed_from(&value));
    // The answer of a child is read by its parent, which can pass the bytes on; a rerun of a child answers like it.
    if bytes.is_none() && !run.started.is_child_or_rerun_of_one() && scope.contains_opaque(&value) {
        return Err((template.reads().to_vec(), bytes_within_error()));
    }
    let bytes_as_text = matches!(bytes, Some((Payload::Text(_), _)));
    // Text is sent as it is, without quotes, where the declared content type is not JSON.
    let is_plain_text =
        bytes.is_none() && value.is_string() && declared.as_ref().is_some_and(|declared| !declared.contains("json"));
    let (body, content_type) = match (bytes, &value) {
        (Some(bytes), _) => bytes,
        (None, Value::String(text)) if is_plain_text => (Payload::of(text.as_bytes()), None),
        (None, value) => (Payload::Text(value.to_string()), Some("application/json".into())),
    };
    let mut is_type_of_unsent_body = false;
    if let (None, Some(content_type)) = (declared, content_type) {
        headers.push(("content-type".into(), content_type));
        is_type_of_unsent_body = is_without_content(status);
    }
    let plain = AnswerRecord::new(status, headers, body);
    Ok(AnswerRecord { bytes_as_text, is_plain_text, is_type_of_unsent_body, streamed_from, ..plain })
}

/// The answer to the caller while the run goes on (`respond.pending`), where the plan declares it and its expressions
/// have values.
pub fn pending_answer(plan: &Plan, inputs: &DecisionInputs, run: &Run) -> Option<AnswerRecord> {
    let answer = answer(plan.pending.as_ref()?, run, &inputs.plain(run), inputs.bytes_mark(run)).ok()?;
    Some(with_sensitive_parts(plan, run, AnswerPlace::Pending, answer))
}

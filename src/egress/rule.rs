//! `egress.correlate`: the header or value that, besides the trace, tells which request a call is for.
//!
//! Always true: an equation has one side that reads only `call` and one side that reads only `request`, so that each
//! side is evaluated once, and the request is looked up by the value instead of trying all requests.

use std::time::Duration;

use http::{HeaderMap, HeaderName};
use serde_json::{Value, json};

use super::key::{self, Key};
use crate::compare::{Body, Effect, decoded_body};
use crate::exchange::{RequestCopy, body_value, headers_value, query_value, request_value};
use crate::expression::{Expression, Scope, without_literals};
use crate::limits::EGRESS_VALUE_BODY_BYTES_MAX;

/// The settings of attribution under `egress:` in the files.
#[derive(Clone, Debug, PartialEq)]
pub struct AttributionSettings {
    /// What tells, besides the trace, which request a call is for.
    pub correlate: Correlate,
    /// How long after the end of a request calls are still attributed to it.
    pub window: Duration,
}

impl Default for AttributionSettings {
    fn default() -> Self {
        Self { correlate: Correlate::Trace, window: Duration::from_secs(10) }
    }
}

/// What tells, besides the trace, which request a call is for.
#[derive(Clone, Debug)]
pub enum Correlate {
    /// Nothing: only the trace counts.
    Trace,
    /// A header that legacy passes on: request and call have the same value.
    Header(HeaderName),
    /// A value of the call that is equal to a value of the request.
    Value {
        /// The text in the files.
        source: String,
        /// Reads only `call`.
        call: Expression,
        /// Reads only `request`.
        request: Expression,
    },
}

impl PartialEq for Correlate {
    fn eq(&self, other: &Self) -> bool {
        self.source() == other.source()
    }
}

/// Why a text is not a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorrelateError {
    /// What is wrong.
    pub message: String,
    /// What to write.
    pub hint: String,
    /// The position of the error, in characters from the start of the text.
    pub offset: Option<usize>,
}

const FORMS: &str = "`header.x-request-id`, or `${call.body.order_ref == request.body.ref}`";
const CALL_MEMBERS: [&str; 6] = ["service", "method", "path", "query", "headers", "body"];
const REQUEST_MEMBERS: [&str; 7] = ["method", "path", "params", "query", "headers", "peer", "body"];

impl Correlate {
    /// Parses a rule.
    ///
    /// # Errors
    /// The text is neither a header nor an equation of a value of the call and a value of the request.
    pub fn parse(text: &str) -> Result<Self, CorrelateError> {
        let error = |message: String, hint: &str| CorrelateError { message, hint: hint.to_owned(), offset: None };
        let trimmed = text.trim();
        if let Some(name) = trimmed.strip_prefix("header.") {
            let name = name.parse().map_err(|_| error(format!("`{name}` is no header name"), FORMS))?;
            return Ok(Self::Header(name));
        }
        let Some(source) = trimmed.strip_prefix("${").and_then(|text| text.strip_suffix('}')) else {
            return Err(error(format!("`{trimmed}` is neither a header nor an expression"), FORMS));
        };
        let before = text.len() - text.trim_start().len() + 2;
        let whole = Expression::parse(source).map_err(|e| CorrelateError {
            message: e.message,
            hint: FORMS.to_owned(),
            offset: e.offset.map(|offset| before + offset),
        })?;
        for read in whole.reads() {
            let (root, members): (_, &[&str]) = match read.root() {
                "call" => ("call", &CALL_MEMBERS),
                "request" => ("request", &REQUEST_MEMBERS),
                other => {
                    return Err(error(format!("`correlate` cannot read `{other}`"), "it reads `call` and `request`"));
                }
            };
            if let Some(member) = read.part(0).filter(|member| !members.contains(member)) {
                return Err(error(format!("`{root}` has no `{member}`"), &format!("it has {}", members.join(", "))));
            }
            if let Some((message, hint)) = read.misread_request_text() {
                return Err(error(message, &hint));
            }
        }
        let reads_only = |side: &Expression, root: &str| {
            !side.reads().is_empty() && side.reads().iter().all(|read| read.root() == root)
        };
        match whole.equation() {
            Some((call, request)) if reads_only(&call, "call") && reads_only(&request, "request") => {
                Ok(Self::Value { source: trimmed.to_owned(), call, request })
            }
            Some((request, call)) if reads_only(&call, "call") && reads_only(&request, "request") => {
                Ok(Self::Value { source: trimmed.to_owned(), call, request })
            }
            _ => Err(error(
                format!("`{trimmed}` does not say which value of the call is one of the request"),
                "write an equation (`==`) of which one side reads only `call` and the other only `request`; where the \
                 value stands in several places, `default(call.body.ref, call.query.ref) == request.body.ref`",
            )),
        }
    }

    /// The text in the files; `None` if only the trace counts.
    pub fn source(&self) -> Option<String> {
        match self {
            Correlate::Trace => None,
            Correlate::Header(name) => Some(format!("header.{name}")),
            Correlate::Value { source, .. } => Some(source.clone()),
        }
    }

    /// What is shown of the text in the files: without the texts and numbers of an expression, which may be secret.
    pub fn shown(&self) -> Option<String> {
        self.source().as_deref().map(without_literals)
    }

    /// Returns the key that identifies a request by a header.
    pub(super) fn header_key(&self, headers: &HeaderMap) -> Option<Key> {
        match self {
            Correlate::Header(name) => key::of_header(headers, name),
            Correlate::Trace | Correlate::Value { .. } => None,
        }
    }

    /// Returns the key that identifies the request that a call is for.
    pub(super) fn call_key(&self, effect: &Effect) -> CallKey {
        match self {
            Correlate::Trace => CallKey::None,
            Correlate::Header(name) => key::of_header(&effect.headers, name).map_or(CallKey::None, CallKey::Is),
            Correlate::Value { call, .. } => {
                let Some(value) = call_value(effect, reads_body(call, "call")) else { return CallKey::Unreadable };
                evaluated(call, "call", value).map_or(CallKey::None, CallKey::Is)
            }
        }
    }

    /// Returns the key that identifies a request by a value. The copy must have the whole body of the request.
    pub(super) fn request_key(&self, request: &RequestCopy) -> Option<Key> {
        match self {
            Correlate::Trace | Correlate::Header(_) => None,
            Correlate::Value { request: side, .. } => evaluated(side, "request", request_value(request)),
        }
    }

    /// Whether a request's value is known only once its body is known.
    pub(super) fn reads_request_body(&self) -> bool {
        match self {
            Correlate::Trace | Correlate::Header(_) => false,
            Correlate::Value { request, .. } => reads_body(request, "request"),
        }
    }
}

/// The key that identifies the request that a call is for.
#[derive(Clone, Copy)]
pub(super) enum CallKey {
    /// This key.
    Is(Key),
    /// None: the call does not have the value.
    None,
    /// The call's body cannot be read: it is too large, cannot be decoded, or is still being sent.
    Unreadable,
}

fn reads_body(side: &Expression, root: &str) -> bool {
    side.reads().iter().any(|read| read.root() == root && read.part(0).is_none_or(|part| part == "body"))
}

/// Returns the key of one side of an equation; `None` also if the side cannot be evaluated, because a value that it
/// reads is absent.
fn evaluated(side: &Expression, root: &'static str, value: Value) -> Option<Key> {
    let mut scope = Scope::new();
    scope.set(root, value);
    side.evaluate(&scope).ok().as_ref().and_then(key::of_value)
}

/// Returns the value of `call` in expressions; `None` if the body is needed and cannot be read.
fn call_value(effect: &Effect, reads_body: bool) -> Option<Value> {
    let body = match &effect.body {
        _ if !reads_body => Value::Null,
        Body::TooLarge => return None,
        Body::Whole(bytes) => {
            let plain = decoded_body(&effect.headers, bytes, EGRESS_VALUE_BODY_BYTES_MAX)?;
            (plain.len() <= EGRESS_VALUE_BODY_BYTES_MAX).then(|| body_value(&effect.headers, &plain))?
        }
    };
    let uri = effect.url.parse::<http::Uri>().ok();
    Some(json!({
        "service": effect.service.as_ref().map(|service| service.as_str()),
        "method": effect.method.as_str(),
        "path": uri.as_ref().map(http::Uri::path),
        "query": query_value(uri.as_ref().and_then(http::Uri::query)),
        "headers": headers_value(&effect.headers),
        "body": body,
    }))
}

//! The body of a request in which a workflow declares sensitive parts.

use serde_json::Value;

use crate::compare::{CompareBounds, decoded_body};
use crate::exchange::{RequestCopy, body_value};

/// The body in which a workflow declares sensitive parts: as `request.body` of an assert, with its `Content-Encoding`
/// decoded within the bounds. A body that is not UTF-8 is null in an assert, and here it is a text with replacement
/// characters.
pub(super) fn declared_body(request: &RequestCopy, bounds: &CompareBounds) -> Value {
    let plain = decoded_body(&request.headers, &request.body, bounds.bytes);
    let bytes = plain.as_ref().unwrap_or(&request.body);
    match body_value(&request.headers, bytes) {
        Value::Null if std::str::from_utf8(bytes).is_err() => String::from_utf8_lossy(bytes).into(),
        body => body,
    }
}

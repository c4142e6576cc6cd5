//! The body of a request, in the form in which the parts that a workflow declares as sensitive are found.

use serde_json::Value;

use crate::compare::{CompareBounds, decoded_body};
use crate::exchange::{RequestCopy, body_value};

/// The body in which the sensitive parts are found: the value that an assert reads as `request.body`, with its
/// `Content-Encoding` decoded within the bounds. Only a body that is not UTF-8 differs: an assert reads null, and this
/// is a text with replacement characters.
pub(super) fn declared_body(request: &RequestCopy, bounds: &CompareBounds) -> Value {
    let plain = decoded_body(&request.headers, &request.body, bounds.bytes);
    let bytes = plain.as_ref().unwrap_or(&request.body);
    match body_value(&request.headers, bytes) {
        Value::Null if std::str::from_utf8(bytes).is_err() => String::from_utf8_lossy(bytes).into(),
        body => body,
    }
}

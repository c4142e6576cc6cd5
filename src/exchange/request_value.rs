//! A request as the expressions of `assert` and `egress.correlate` read it: `request.method`, `.path`, `.params`,
//! `.query`, `.headers`, `.peer` and `.body`. In query, form and headers different bytes are different texts, also
//! where they are not UTF-8. A body that is not UTF-8 is null.

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde_json::{Map, Value, json};

use super::RequestCopy;
use crate::compare::decoded_body;
use crate::expression::{MediaType, parse_form_with, parse_json};
use crate::flag::exact_text;
use crate::limits::Limits;
use crate::workflow::values_in;

/// The value of `request`.
pub fn request_value(request: &RequestCopy) -> Value {
    let params: Map<String, Value> =
        request.params.iter().map(|(name, value)| (name.to_string(), value.clone().into())).collect();
    json!({
        "method": request.method.as_str(),
        "path": request.path,
        "params": params,
        "query": query_value(request.query.as_deref()),
        "headers": headers_value(&request.headers),
        "peer": request.peer.to_string(),
        "body": body_value(&request.headers, &request.body),
    })
}

/// Header fields by name; several values of one name with commas between them.
pub fn headers_value(headers: &HeaderMap) -> Value {
    let mut by_name = Map::new();
    for name in headers.keys() {
        let values: Vec<_> = headers.get_all(name).iter().map(|v| exact_text(v.as_bytes())).collect();
        by_name.insert(name.as_str().to_owned(), values.join(", ").into());
    }
    Value::Object(by_name)
}

/// The parameters of a query.
pub fn query_value(query: Option<&str>) -> Value {
    parse_form_with(query.unwrap_or_default(), exact_text)
}

/// A body: JSON and forms by their structure, another text as it is.
pub fn body_value(headers: &HeaderMap, bytes: &[u8]) -> Value {
    let content_type = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let kind = MediaType::of(content_type);
    match std::str::from_utf8(bytes) {
        Err(_) | Ok("") => Value::Null,
        Ok(text) if kind.is_form() => parse_form_with(text, exact_text),
        Ok(text) if kind.is_json() || kind.is_empty() => parse_json(text.as_bytes()).unwrap_or_else(|_| text.into()),
        Ok(text) => text.into(),
    }
}

/// Like [`body_value`], with the body's `Content-Encoding` decoded; `None` if it cannot be decoded within the limits
/// for bodies that the engine reads.
pub fn decoded_body_value(headers: &HeaderMap, bytes: &Bytes, limits: &Limits) -> Option<Value> {
    let size = |limit| usize::try_from(limit).unwrap_or(usize::MAX);
    let plain = decoded_body(headers, bytes, size(limits.output_bytes_max).max(bytes.len()))?;
    let fields = plain.iter().filter(|byte| **byte == b'&').count();
    (values_in(&plain).max(fields) <= size(limits.output_values_max)).then(|| body_value(headers, &plain))
}

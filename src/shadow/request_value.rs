//! A request as the expressions of `assert` read it: `request.method`, `.path`, `.params`, `.query`, `.headers`,
//! `.peer` and `.body`. In query, form and headers different bytes are different texts, also where they are not UTF-8.
//! A body that is not UTF-8 is null.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use serde_json::{Map, Value, json};

use crate::compare::{CompareBounds, decoded_body};
use crate::exchange::RequestCopy;
use crate::expression::{parse_form_with, parse_json};
use crate::flag::exact_text;

pub(super) fn request_value(request: &RequestCopy) -> Value {
    let params: Map<String, Value> =
        request.params.iter().map(|(name, value)| (name.to_string(), value.clone().into())).collect();
    let mut headers = Map::new();
    for name in request.headers.keys() {
        let values: Vec<_> = request.headers.get_all(name).iter().map(|v| exact_text(v.as_bytes())).collect();
        headers.insert(name.as_str().to_owned(), values.join(", ").into());
    }
    json!({
        "method": request.method.as_str(),
        "path": request.path,
        "params": params,
        "query": parse_form_with(request.query.as_deref().unwrap_or_default(), exact_text),
        "headers": headers,
        "peer": request.peer.to_string(),
        "body": body(request, &request.body),
    })
}

/// The body in which a workflow declares sensitive parts: as `request.body` of an assert, with its `Content-Encoding`
/// decoded within the bounds. If it cannot be read, it is a text.
pub(super) fn declared_body(request: &RequestCopy, bounds: &CompareBounds) -> Value {
    let plain = decoded_body(&request.headers, &request.body, bounds.bytes);
    let bytes = plain.as_ref().unwrap_or(&request.body);
    match body(request, bytes) {
        Value::Null if std::str::from_utf8(bytes).is_err() => String::from_utf8_lossy(bytes).into(),
        body => body,
    }
}

fn body(request: &RequestCopy, bytes: &Bytes) -> Value {
    let content_type = request.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let content_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match std::str::from_utf8(bytes) {
        Err(_) | Ok("") => Value::Null,
        Ok(text) if content_type == "application/x-www-form-urlencoded" => parse_form_with(text, exact_text),
        Ok(text) if content_type.ends_with("/json") || content_type.ends_with("+json") || content_type.is_empty() => {
            parse_json(text.as_bytes()).unwrap_or_else(|_| text.into())
        }
        Ok(text) => text.into(),
    }
}

//! The idempotency key of a start, and the hashes by which the engine recognizes a repetition.

use http::HeaderMap;
use serde_json::Value;

use crate::admin::error::ApiError;

/// The header that carries the key.
const HEADER: &str = "idempotency-key";
/// The longest key, and the longest id of a signal.
const KEY_CHARS_MAX: usize = 255;

/// The key of a start, from the header or the body.
pub(super) fn idempotency_key(headers: &HeaderMap, in_body: Option<&str>) -> Result<Option<String>, ApiError> {
    let bad = |what: &str| ApiError::bad(format!("the idempotency key {what}"));
    let mut given = headers.get_all(HEADER).iter();
    let header = match (given.next(), given.next()) {
        (None, _) => None,
        (Some(value), None) => Some(value.to_str().map_err(|_| bad("is not plain ASCII"))?.trim()),
        (Some(_), Some(_)) => return Err(bad("is given twice")),
    };
    // The IETF draft requires a quoted string, but most clients send the key without quotes: both are accepted.
    let header = header.map(|text| text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text));
    let key = match (header, in_body) {
        (Some(header), Some(in_body)) if header != in_body => {
            return Err(ApiError::inconsistent("the idempotency key differs between header and body"));
        }
        (Some(key), _) | (None, Some(key)) => key,
        (None, None) => return Ok(None),
    };
    is_valid(key).then(|| Some(key.to_owned())).ok_or_else(|| bad(KEY_RULE_TEXT))
}

/// The rule for keys of starts and ids of signals, for error texts.
pub(super) const KEY_RULE_TEXT: &str = "has to have 1 to 255 characters and no control characters";

pub(super) fn is_valid(key: &str) -> bool {
    !key.is_empty() && key.chars().count() <= KEY_CHARS_MAX && !key.chars().any(char::is_control)
}

/// Hashes parts with their lengths, so that moving a boundary between parts changes the hash.
pub(super) fn hash_parts(parts: &[&str]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    *hasher.finalize().as_bytes()
}

/// Hashes a workflow and its input; the order of keys in JSON objects does not matter.
pub(super) fn request_hash(workflow: &str, input: &Value) -> [u8; 32] {
    let mut text = String::new();
    write_canonical(input, &mut text);
    hash_parts(&[workflow, &text])
}

fn write_canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort_unstable();
            out.push('{');
            for key in keys {
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                write_canonical(&map[key.as_str()], out);
                out.push(',');
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for item in items {
                write_canonical(item, out);
                out.push(',');
            }
            out.push(']');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => out.push_str(&value.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| ((*name).parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn the_request_hash_ignores_the_order_of_object_keys() {
        let hash = |text: &str| request_hash("w", &serde_json::from_str(text).unwrap());
        assert_eq!(hash(r#"{"a":1,"b":[{"c":2,"d":3}]}"#), hash(r#"{"b":[{"d":3,"c":2}],"a":1}"#));
        assert_ne!(hash(r#"{"a":1}"#), hash(r#"{"a":"1"}"#));
        assert_ne!(hash("[1,2]"), hash("[2,1]"));
        assert_ne!(request_hash("w", &Value::Null), request_hash("v", &Value::Null));
    }

    #[test]
    fn a_key_is_taken_from_the_header_or_the_body() {
        let key = |fields: &[(&'static str, &str)], in_body| {
            super::idempotency_key(&headers(fields), in_body).map_err(|e| e.0.status)
        };
        assert_eq!(key(&[], None), Ok(None));
        assert_eq!(key(&[("idempotency-key", "\"a b\"")], None), Ok(Some("a b".into())));
        assert_eq!(key(&[("idempotency-key", "k")], Some("k")), Ok(Some("k".into())));
        assert_eq!(key(&[("idempotency-key", "k")], Some("l")), Err(422));
        assert_eq!(key(&[("idempotency-key", "k"), ("idempotency-key", "k")], None), Err(400));
        assert_eq!(key(&[], Some("")), Err(400));
        assert_eq!(key(&[], Some(&"x".repeat(256))), Err(400));
    }
}

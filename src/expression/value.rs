//! The kind of a JSON value, and the work of copying it.

use serde_json::Value;

/// How messages describe an opaque value: bytes, which an expression can pass on but not read
/// ([`super::Scope::set_opaque`]).
pub(super) const OPAQUE: &str = "bytes, which cannot be read";

/// How messages describe the kind of a value.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a bool",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}

/// The work of reading or copying a value, in the units of `bounds::WORK_MAX`.
pub(super) fn work(value: &Value) -> u64 {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 1,
        Value::String(text) => 1 + text.len() as u64 / 32,
        Value::Array(list) => 1 + list.iter().map(work).sum::<u64>(),
        Value::Object(map) => 1 + map.iter().map(|(key, value)| 1 + key.len() as u64 / 32 + work(value)).sum::<u64>(),
    }
}

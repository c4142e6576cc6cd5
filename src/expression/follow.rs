//! From a value along constant parts to what it holds, and what a value costs.

use serde_json::Value;

use super::error::ExpressionError;
use super::node::{self, Part};

/// What a part leads to.
pub(super) fn get<'v>(value: &'v Value, part: &Part) -> Option<&'v Value> {
    match (value, part) {
        (Value::Object(map), Part::Key(key)) => map.get(&**key),
        (Value::Array(list), Part::Index(index)) => list.get(*index),
        _ => None,
    }
}

/// Follows constant parts; what is missing on the way is named from the root.
pub(super) fn follow<'v>(
    value: &'v Value,
    parts: &[Part],
    from: impl Fn() -> String,
) -> Result<&'v Value, ExpressionError> {
    let mut value = value;
    for (at, part) in parts.iter().enumerate() {
        value = get(value, part).ok_or_else(|| {
            let mut error = ExpressionError::absent(node::path_text(&from(), &parts[..=at]));
            if !matches!(value, Value::Object(_) | Value::Array(_))
                || matches!((value, part), (Value::Array(_), Part::Key(_)))
            {
                let holder = node::path_text(&from(), &parts[..at]);
                error.message = format!("{}: `{holder}` is {}", error.message, node::kind(value));
            }
            error
        })?;
    }
    Ok(value)
}

/// What copying or reading a value costs.
pub(super) fn size(value: &Value) -> u64 {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 1,
        Value::String(text) => 1 + text.len() as u64 / 32,
        Value::Array(list) => 1 + list.iter().map(size).sum::<u64>(),
        Value::Object(map) => 1 + map.iter().map(|(key, value)| 1 + key.len() as u64 / 32 + size(value)).sum::<u64>(),
    }
}

//! What a plain scalar of YAML means.

use serde_json::Number;

use super::tree::Kind;

/// A plain scalar by YAML's core schema; what JSON cannot write stays text.
pub(super) fn plain(value: &str) -> Kind {
    match value {
        "" | "~" | "null" | "Null" | "NULL" => return Kind::Null,
        "true" | "True" | "TRUE" => return Kind::Bool(true),
        "false" | "False" | "FALSE" => return Kind::Bool(false),
        _ => {}
    }
    match number(value) {
        Some(number) => Kind::Number(number),
        None => Kind::Text(value.into()),
    }
}

/// A number as JSON writes one, also with `+`, `0x` or `0o` in front.
fn number(value: &str) -> Option<Number> {
    let first = value.as_bytes().first()?;
    if !(first.is_ascii_digit() || matches!(first, b'-' | b'+' | b'.')) || value.len() > 400 {
        return None;
    }
    for (prefix, radix) in [("0x", 16), ("0o", 8)] {
        if let Some(digits) = value.strip_prefix(prefix) {
            return u64::from_str_radix(digits, radix).ok().filter(|_| !digits.starts_with('+')).map(Number::from);
        }
    }
    let number: Number = serde_json::from_str(value.strip_prefix('+').unwrap_or(value)).ok()?;
    number.as_f64().is_some_and(f64::is_finite).then_some(number)
}

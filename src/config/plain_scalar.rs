//! The value of a plain (unquoted) YAML scalar.

use serde_json::Number;

use super::tree::NodeKind;

/// Reads a plain scalar by YAML's core schema, except that a number that [`number`] does not read (`007`, `.5`,
/// `1e400`) stays a string.
pub(super) fn plain_scalar(value: &str) -> NodeKind {
    match value {
        "" | "~" | "null" | "Null" | "NULL" => return NodeKind::Null,
        "true" | "True" | "TRUE" => return NodeKind::Bool(true),
        "false" | "False" | "FALSE" => return NodeKind::Bool(false),
        _ => {}
    }
    match number(value) {
        Some(number) => NodeKind::Number(number),
        None => NodeKind::Text(value.into()),
    }
}

/// Reads a number as JSON writes it, or with `+`, `0x` or `0o` in front.
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
    let unsigned = value.strip_prefix('+').filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    let number: Number = serde_json::from_str(unsigned.unwrap_or(value)).ok()?;
    number.as_f64().is_some_and(f64::is_finite).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbers_of_the_core_schema_are_numbers() {
        for number in ["7", "-7", "+7", "+7.5", "0x1F", "0o17", "1e3"] {
            assert!(matches!(plain_scalar(number), NodeKind::Number(_)), "{number}");
        }
        for text in ["+-5", "++5", "+", "-", "0x", "0x+1", "07:30", "1_000", "1e999"] {
            assert!(matches!(plain_scalar(text), NodeKind::Text(_)), "{text}");
        }
    }
}

//! JSON as text that people read and edit.

use serde_json::Value;

/// What stands in place of a value that is hidden, because it may be a secret.
const STARS: &str = "***";

/// A value on several lines.
pub(in crate::page) fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string())
}

/// A value for reading: a text as it is, anything else as JSON on several lines.
pub(in crate::page) fn readable(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        value => pretty(value),
    }
}

/// The value that a person wrote.
///
/// # Errors
/// What is wrong, and where.
pub(in crate::page) fn parse(text: &str) -> Result<Value, String> {
    if text.trim().is_empty() {
        return Err("This is empty. Write JSON; a text stands in double quotes, and `null` is no value.".into());
    }
    serde_json::from_str(text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let what = error.to_string();
        // The position stands at the end of the message; it is said before it here.
        let what = what.split(" at line ").next().unwrap_or_default();
        format!("This is not JSON. Line {line}, column {column}: {what}. A text stands in double quotes.")
    })
}

/// Whether a value contains a text in which something was hidden: the stars would be sent in its place.
pub(in crate::page) fn has_hidden_part(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains(STARS),
        Value::Array(items) => items.iter().any(has_hidden_part),
        Value::Object(members) => members.iter().any(|(key, value)| key.contains(STARS) || has_hidden_part(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Reads a value that is sent to a service or a run: as [`parse`], and refuses hidden parts.
///
/// # Errors
/// What is wrong, and where.
pub(in crate::page) fn parse_to_send(text: &str) -> Result<Value, String> {
    let value = parse(text)?;
    match has_hidden_part(&value) {
        true => {
            Err("*** stands for a value that is hidden here. It would be sent as three stars: write the real value \
                     in its place. If three stars are really meant, use `pointsman runs`."
                .into())
        }
        false => Ok(value),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_no_json_is_refused_with_its_place() {
        let refused = parse("{\n \"a\": x}").unwrap_err();
        assert!(refused.contains("Line 2, column 7"), "{refused}");
        assert!(parse("  ").unwrap_err().contains("empty"));
        assert_eq!(parse(" 1.10 ").unwrap().to_string(), "1.10");
    }

    #[test]
    fn hidden_parts_are_not_sent() {
        assert!(parse_to_send(r#"{"a": [{"token": "***"}]}"#).is_err());
        assert_eq!(parse_to_send(r#"{"a": "**"}"#), Ok(json!({"a": "**"})));
    }
}

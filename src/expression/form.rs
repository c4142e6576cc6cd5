//! A query or form body (`a=1&b=2`) as expressions see it; routes, workflows and comparisons all parse it here.

use serde_json::{Map, Value};

/// A map of strings. A name that occurs several times has a list of them; `+` is a space, as HTML forms encode it.
/// Bytes that are not UTF-8 are replaced, so that different values may become equal.
pub fn parse_form(raw: &str) -> Value {
    parse_form_with(raw, |bytes| String::from_utf8_lossy(bytes).into_owned())
}

/// As [`parse_form`]; `text` makes names and values of the decoded bytes.
pub fn parse_form_with(raw: &str, text: impl Fn(&[u8]) -> String) -> Value {
    let decoded =
        |part: &str| text(&percent_encoding::percent_decode_str(&part.replace('+', " ")).collect::<Vec<u8>>());
    let mut map = Map::new();
    for pair in raw.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (decoded(name), Value::from(decoded(value)));
        match map.get_mut(&name) {
            None => {
                map.insert(name, value);
            }
            Some(Value::Array(values)) => values.push(value),
            Some(first) => *first = Value::Array(vec![first.take(), value]),
        }
    }
    Value::Object(map)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn repeated_names_are_lists() {
        assert_eq!(parse_form("a=1&b=x+y%21&a=2&&c&a=3"), json!({ "a": ["1", "2", "3"], "b": "x y!", "c": "" }));
        assert_eq!(parse_form(""), json!({}));
    }
}

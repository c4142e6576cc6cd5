//! Forms in which a secret value stands apart from its name, or within a text.

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

/// Members that hold a name, in a pair of name and value; with `@` they are attributes of XML.
const NAMES: [&str; 9] = ["name", "key", "field", "header", "parameter", "@name", "@key", "@field", "@id"];
/// Members that hold the value of such a pair.
const VALUES: [&str; 5] = ["value", "values", "content", "@value", "#text"];

/// The key of the member with the value of a pair such as `{"name": "password", "value": "…"}`, if the name is secret.
pub fn value_of_secret(members: &Map<String, Value>, is_secret: impl Fn(&str) -> bool) -> Option<&str> {
    let among = |key: &str, keys: &[&str]| keys.iter().any(|known| key.eq_ignore_ascii_case(known));
    let is_named = members.iter().any(|(key, name)| among(key, &NAMES) && text_of(name).is_some_and(&is_secret));
    members.keys().map(String::as_str).find(|key| is_named && among(key, &VALUES))
}

/// Whether an attribute with this name holds the name in a pair of name and value.
pub(super) fn names_a_value(attribute: &str) -> bool {
    NAMES.iter().any(|name| attribute.eq_ignore_ascii_case(name.trim_start_matches('@')))
}

/// The text that a value is: in XML, each element is one of a list.
fn text_of(value: &Value) -> Option<&str> {
    match value {
        Value::String(text) => Some(text),
        Value::Array(items) => items.first().filter(|_| items.len() == 1).and_then(text_of),
        Value::Object(members) => members.get("#text").filter(|_| members.len() == 1).and_then(Value::as_str),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

/// The JSON object or array that a text is, if it is one.
pub fn json_of(text: &str) -> Option<Value> {
    let is_outline = |open, close| text.trim_start().starts_with(open) && text.trim_end().ends_with(close);
    (is_outline('{', '}') || is_outline('[', ']')).then(|| serde_json::from_str(text).ok()).flatten()
}

/// The name or the value of a parameter in a query or a form.
pub fn decoded_component(text: &str) -> String {
    percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_value_beside_a_secret_name_is_found() {
        let found = |value: Value| {
            let members = value.as_object().unwrap().clone();
            value_of_secret(&members, |name| name == "password").map(str::to_owned)
        };
        assert_eq!(found(json!({ "name": "password", "value": "x" })).as_deref(), Some("value"));
        assert_eq!(found(json!({ "Key": "password", "Content": 1, "id": 2 })).as_deref(), Some("Content"));
        assert_eq!(found(json!({ "@name": "password", "#text": "x" })).as_deref(), Some("#text"));
        assert_eq!(found(json!({ "name": ["password"], "value": ["x"] })).as_deref(), Some("value"));
        assert_eq!(found(json!({ "name": ["password", "b"], "value": ["x"] })), None);
        assert_eq!(found(json!({ "name": "colour", "value": "x" })), None);
        assert_eq!(found(json!({ "name": "password", "hint": "x" })), None);
        assert_eq!(found(json!({ "label": "password", "value": "x" })), None);
    }

    #[test]
    fn only_an_object_or_array_is_json_in_a_text() {
        assert_eq!(json_of(" {\"a\": 1}\n"), Some(json!({ "a": 1 })));
        assert_eq!(json_of("[1]"), Some(json!([1])));
        for text in ["1", "\"a\"", "{a}", "[1", "", "{} {}"] {
            assert_eq!(json_of(text), None, "{text}");
        }
    }
}

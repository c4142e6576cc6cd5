//! Forms in which a secret value stands apart from its name, or within a text.

use serde_json::{Map, Value};

/// Members that hold a name, in a pair of name and value.
const NAMES: [&str; 5] = ["name", "key", "field", "header", "parameter"];
/// Members that hold the value of such a pair.
const VALUES: [&str; 3] = ["value", "values", "content"];

/// The key of the member with the value of a pair such as `{"name": "password", "value": "…"}`, if the name is secret.
pub(super) fn value_of_secret(members: &Map<String, Value>, is_secret: impl Fn(&str) -> bool) -> Option<&str> {
    let among = |key: &str, keys: &[&str]| keys.iter().any(|known| key.eq_ignore_ascii_case(known));
    let is_named = members.iter().any(|(key, name)| among(key, &NAMES) && name.as_str().is_some_and(&is_secret));
    members.keys().map(String::as_str).find(|key| is_named && among(key, &VALUES))
}

/// The JSON object or array that a text is, if it is one.
pub(super) fn json_of(text: &str) -> Option<Value> {
    let is_outline = |open, close| text.trim_start().starts_with(open) && text.trim_end().ends_with(close);
    (is_outline('{', '}') || is_outline('[', ']')).then(|| serde_json::from_str(text).ok()).flatten()
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

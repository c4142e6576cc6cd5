//! Forms in which a secret value stands apart from its name, or within a text.

use std::collections::HashMap;

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

/// Members that hold a name, in a pair of name and value; with `@` they are attributes of XML.
const NAMES: [&str; 9] = ["name", "key", "field", "header", "parameter", "@name", "@key", "@field", "@id"];
/// Members that hold the value of such a pair.
const VALUES: [&str; 5] = ["value", "values", "content", "@value", "#text"];

/// Elements that hold a name, in front of the element with its value: those of a property list, and of a map that Java
/// wrote (`<entry><string>password</string><string>…</string></entry>`).
const SIBLING_NAMES: [&str; 3] = ["key", "name", "string"];
/// The order of an element's children, where they have different names.
const ORDER: &str = "#order";

/// Members of an object that hold the values of secrets which other members name.
#[derive(Debug, Default, PartialEq)]
pub struct NamedValues<'m>(Vec<(&'m str, Option<usize>)>);

impl NamedValues<'_> {
    /// Whether all of the member with this key is such a value.
    pub fn is_whole(&self, key: &str) -> bool {
        self.0.contains(&(key, None))
    }
    /// Whether an element of the list that is the member with this key is one.
    pub fn is_item(&self, key: &str, index: usize) -> bool {
        self.0.contains(&(key, Some(index)))
    }
    /// Whether elements of that list are.
    pub fn has_items(&self, key: &str) -> bool {
        self.0.iter().any(|(of, index)| *of == key && index.is_some())
    }
    /// The same without borrowing the object.
    pub fn to_keys(&self) -> Vec<(String, Option<usize>)> {
        self.0.iter().map(|(key, index)| ((*key).to_owned(), *index)).collect()
    }
}

/// The values of pairs such as `{"name": "password", "value": "…"}`, if the name is secret. In an element of XML of
/// which an attribute has the name, all children, if none is the value by its name; the element that follows one with
/// the name.
pub fn values_of_secrets<'m>(members: &'m Map<String, Value>, is_secret: impl Fn(&str) -> bool) -> NamedValues<'m> {
    let among = |key: &str, keys: &[&str]| keys.iter().any(|known| key.eq_ignore_ascii_case(known));
    let is_naming = |(key, name): &(&String, &Value)| among(key, &NAMES) && text_of(name).is_some_and(&is_secret);
    let named_by = members.iter().find(is_naming).map(|(key, _)| key);
    if let Some(named_by) = named_by {
        if let Some(value) = members.keys().find(|key| among(key, &VALUES)) {
            return NamedValues(vec![(value, None)]);
        }
        if named_by.starts_with('@') {
            let children = members.keys().filter(|key| !key.starts_with(['@', '#']));
            return NamedValues(children.map(|key| (key.as_str(), None)).collect());
        }
    }
    NamedValues(following_siblings(members, is_secret))
}

/// The elements that follow one with a secret name.
fn following_siblings(members: &Map<String, Value>, is_secret: impl Fn(&str) -> bool) -> Vec<(&str, Option<usize>)> {
    if !members.keys().any(|key| SIBLING_NAMES.contains(&key.as_str())) {
        return Vec::new();
    }
    let is_child = |(key, items): &(&String, &Value)| !key.starts_with(['@', '#']) && items.is_array();
    let order: Vec<&str> = match members.get(ORDER).and_then(Value::as_str) {
        Some(order) => order.split(' ').collect(),
        None => {
            let mut children = members.iter().filter(is_child);
            match (children.next(), children.next()) {
                (Some((key, Value::Array(items))), None) => vec![key.as_str(); items.len()],
                _ => return Vec::new(),
            }
        }
    };
    let (mut counts, mut follows, mut found) = (HashMap::<&str, usize>::new(), false, Vec::new());
    for name in order {
        let count = counts.entry(name).or_default();
        let index = std::mem::replace(count, *count + 1);
        let Some((key, items)) = members.get_key_value(name) else { continue };
        if std::mem::take(&mut follows) {
            found.push((key.as_str(), Some(index)));
            continue;
        }
        let text = items.get(index).and_then(text_of);
        follows = SIBLING_NAMES.contains(&name) && text.is_some_and(&is_secret);
    }
    found
}

/// Whether a list has pairs of names and values, such as headers: `[["authorization", "…"], ["accept", "…"]]`.
pub fn are_pairs(items: &[Value]) -> bool {
    let is_pair = |item: &Value| matches!(item.as_array().map(Vec::as_slice), Some([Value::String(_), _]));
    !items.is_empty() && items.iter().all(is_pair)
}

/// The value of a pair in such a list, if its name is secret.
pub fn value_of_pair(pair: &Value, is_secret: impl Fn(&str) -> bool) -> Option<(&str, &Value)> {
    match pair.as_array().map(Vec::as_slice) {
        Some([Value::String(name), value]) if is_secret(name.trim_start_matches('-')) => Some((name, value)),
        _ => None,
    }
}

/// Whether an attribute with this name holds the name in a pair of name and value.
pub(super) fn names_a_value(attribute: &str) -> bool {
    NAMES.iter().any(|name| attribute.eq_ignore_ascii_case(name.trim_start_matches('@')))
}

/// Whether an element with this name may hold the name of what stands in the next one.
pub(super) fn names_a_sibling(element: &str) -> bool {
    SIBLING_NAMES.contains(&element)
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
        let all = |value: &Value| values_of_secrets(value.as_object().unwrap(), |name| name == "password").to_keys();
        let found = |value: Value| all(&value).into_iter().next().map(|(key, _)| key);
        assert_eq!(found(json!({ "name": "password", "value": "x" })).as_deref(), Some("value"));
        assert_eq!(found(json!({ "Key": "password", "Content": 1, "id": 2 })).as_deref(), Some("Content"));
        assert_eq!(found(json!({ "@name": "password", "#text": "x" })).as_deref(), Some("#text"));
        assert_eq!(found(json!({ "name": ["password"], "value": ["x"] })).as_deref(), Some("value"));
        assert_eq!(found(json!({ "name": ["password", "b"], "value": ["x"] })), None);
        assert_eq!(found(json!({ "name": "colour", "value": "x" })), None);
        assert_eq!(found(json!({ "name": "password", "hint": "x" })), None);
        assert_eq!(found(json!({ "label": "password", "value": "x" })), None);
        let child = json!({ "@key": "password", "@n": "1", "string": ["x"], "b": ["y"], "#order": "string b" });
        assert_eq!(all(&child), [("string".to_owned(), None), ("b".to_owned(), None)]);
        let dict = json!({ "key": ["a", "password"], "string": ["1", "x"], "#order": "key string key string" });
        assert_eq!(all(&dict), [("string".to_owned(), Some(1))]);
        let entry = json!({ "string": ["password", "x"] });
        assert_eq!(all(&entry), [("string".to_owned(), Some(1))]);
        assert_eq!(all(&json!({ "string": ["x", "password"] })), []);
        assert_eq!(all(&json!({ "key": ["password"], "a": 1 })), []);
    }

    #[test]
    fn the_values_in_lists_of_pairs_are_found() {
        let pairs = [json!(["accept", "*"]), json!(["password", "x"])];
        let is_password = |name: &str| name == "password";
        assert!(are_pairs(&pairs) && !are_pairs(&[json!(["password", "x"]), json!("y")]) && !are_pairs(&[]));
        assert_eq!(value_of_pair(&pairs[0], is_password), None);
        assert_eq!(value_of_pair(&pairs[1], is_password), Some(("password", &json!("x"))));
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

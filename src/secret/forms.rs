//! Forms in which a secret value is not simply the member under its name: pairs of name and value, neighbouring
//! elements, lists of names and values, and JSON or encoded parameters within a text.

use std::collections::{BTreeSet, HashMap};

use percent_encoding::percent_decode_str;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::names::{is_weakly_secret, singular};
use super::private_keys::{private_key_items, private_key_members};

/// Members, attributes and elements that hold the name in a pair of name and value:
/// `{"name": "password", "value": "…"}`. The attributes of XML are members whose keys begin with `@`.
const NAMES: [&str; 10] =
    ["name", "key", "field", "header", "parameter", "label", "property", "attribute", "type", "k"];
/// Like `NAMES`, but only members and attributes.
const ID: &str = "id";
/// Like `NAMES`, but only elements: in a map that Java wrote
/// (`<entry><string>password</string><string>…</string></entry>`), and in the tables and lists of HTML.
const ELEMENTS: [&str; 4] = ["string", "td", "th", "dt"];
/// Members and attributes that hold the value of such a pair.
const VALUES: [&str; 5] = ["value", "values", "content", "v", "#text"];
/// The member that lists the order of an element's children, if these have different names.
const ORDER: &str = "#order";

/// Members of an object that hold secrets, although their own keys need not be secret.
#[derive(Debug, Default, PartialEq)]
pub struct NamedValues<'m>(HashMap<&'m str, SecretPart>);

/// Which part of a member is secret.
#[derive(Clone, Debug, PartialEq)]
pub enum SecretPart {
    /// All of it.
    Whole,
    /// The member is a list; these of its elements are secret.
    Items(BTreeSet<usize>),
}

impl NamedValues<'_> {
    /// Whether the whole member `key` is secret.
    pub fn is_whole(&self, key: &str) -> bool {
        matches!(self.0.get(key), Some(SecretPart::Whole))
    }
    /// Whether the element `index` of the list in the member `key` is secret.
    pub fn is_item(&self, key: &str, index: usize) -> bool {
        matches!(self.0.get(key), Some(SecretPart::Items(items)) if items.contains(&index))
    }
    /// Whether some elements of the list in the member `key` are secret, not the whole list.
    pub fn has_items(&self, key: &str) -> bool {
        matches!(self.0.get(key), Some(SecretPart::Items(_)))
    }
    /// Which part of the member `key` is secret; `None` if none is.
    pub fn of(&self, key: &str) -> Option<&SecretPart> {
        self.0.get(key)
    }
}

/// The secret values among the members of an object:
/// - If the object is a pair such as `{"name": "password", "value": "…"}` with a secret name: all members that may hold
///   the value. If an attribute of an XML element has the name: all its children too.
/// - Otherwise: each child element that follows one with a secret name in it (`<key>PIN</key><string>1234</string>`).
/// - In both cases: the lines of private keys that are members, or elements of a list.
pub fn values_of_secrets<'m>(members: &'m Map<String, Value>, is_secret: impl Fn(&str) -> bool) -> NamedValues<'m> {
    let is_naming = |(key, name): &(&String, &Value)| holds_a_name(key) && text_of(name).is_some_and(&is_secret);
    let mut naming = members.iter().filter(is_naming).map(|(key, _)| key).peekable();
    if naming.peek().is_some() {
        let has_children = naming.any(|key| key.starts_with('@'));
        let is_value = |key: &str| holds_a_value(key) || has_children && !key.starts_with(['@', '#']);
        let whole: HashMap<_, _> =
            members.keys().filter(|key| is_value(key)).map(|key| (key.as_str(), SecretPart::Whole)).collect();
        if !whole.is_empty() {
            return NamedValues(with_private_keys(whole, members, &is_secret));
        }
    }
    NamedValues(with_private_keys(following_siblings(members, &is_secret), members, &is_secret))
}

/// Adds the members, and the elements of lists, that are lines of private keys. A list in which nothing was found yet
/// is left out if another rule decides about it: its name may make all of it secret, or it may list names and values.
fn with_private_keys<'m>(
    mut found: HashMap<&'m str, SecretPart>,
    members: &'m Map<String, Value>,
    is_secret: impl Fn(&str) -> bool,
) -> HashMap<&'m str, SecretPart> {
    for (key, items) in members {
        let has_other_rule = |items: &Vec<Value>| {
            has_alternating_names(items) || are_name_value_pairs(items) || singular(key).is_some_and(&is_secret)
        };
        let is_listed = found.contains_key(key.as_str());
        let items = items.as_array().filter(|items| is_listed || !has_other_rule(items));
        let Some(parts) = items.and_then(|items| private_key_items(items)) else { continue };
        let lines = parts.iter().enumerate().filter(|(_, is_part)| **is_part).map(|(index, _)| index);
        if let SecretPart::Items(items) = found.entry(key).or_insert_with(|| SecretPart::Items(BTreeSet::new())) {
            items.extend(lines);
        }
    }
    found.extend(private_key_members(members).into_iter().map(|key| (key, SecretPart::Whole)));
    found
}

/// The child elements that follow one with a secret name in it.
fn following_siblings(members: &Map<String, Value>, is_secret: impl Fn(&str) -> bool) -> HashMap<&str, SecretPart> {
    let mut found = HashMap::new();
    if !members.keys().any(|key| may_name_next_element(key)) {
        return found;
    }
    let is_child = |(key, items): &(&String, &Value)| !key.starts_with(['@', '#']) && items.is_array();
    let order: Vec<&str> = match members.get(ORDER).and_then(Value::as_str) {
        Some(order) => order.split(' ').collect(),
        None => {
            let mut children = members.iter().filter(is_child);
            match (children.next(), children.next()) {
                (Some((key, Value::Array(items))), None) => vec![key.as_str(); items.len()],
                _ => return found,
            }
        }
    };
    let (mut counts, mut follows) = (HashMap::<&str, usize>::new(), false);
    for name in order {
        let count = counts.entry(name).or_default();
        let index = std::mem::replace(count, *count + 1);
        let Some((key, items)) = members.get_key_value(name) else { continue };
        if std::mem::take(&mut follows) {
            if let SecretPart::Items(items) =
                found.entry(key.as_str()).or_insert_with(|| SecretPart::Items(BTreeSet::new()))
            {
                items.insert(index);
            }
            continue;
        }
        let text = items.get(index).and_then(text_of);
        follows = may_name_next_element(name) && text.is_some_and(&is_secret);
    }
    found
}

/// Whether the member with this key only lists the order of the other members, which are the children of an element.
pub fn is_children_order(members: &Map<String, Value>, key: &str) -> bool {
    let order = members.get(key).and_then(Value::as_str).filter(|_| key == ORDER);
    order.is_some_and(|order| order.split(' ').all(|name| members.contains_key(name)))
}

/// Whether a list has pairs of names and values, such as headers: `[["authorization", "…"], ["accept", "…"]]`.
pub fn are_name_value_pairs(items: &[Value]) -> bool {
    let is_pair = |item: &Value| matches!(item.as_array().map(Vec::as_slice), Some([Value::String(_), _]));
    !items.is_empty() && items.iter().all(is_pair)
}

/// The name and the value of a pair in such a list, if the name is secret.
pub fn value_of_pair(pair: &Value, is_secret: impl Fn(&str) -> bool) -> Option<(&str, &Value)> {
    match pair.as_array().map(Vec::as_slice) {
        Some([Value::String(name), value]) if is_secret(name.trim_start_matches('-')) => Some((name, value)),
        _ => None,
    }
}

/// Whether names and values alternate in a list, such as the headers of Node.js: `["authorization", "…", "accept",
/// "…"]`.
pub fn has_alternating_names(items: &[Value]) -> bool {
    let is_scalar = |item: &Value| !matches!(item, Value::Array(_) | Value::Object(_));
    let are_names = items.iter().step_by(2).all(Value::is_string);
    !items.is_empty() && items.len().is_multiple_of(2) && are_names && items.iter().all(is_scalar)
}

/// The name before a value in such a list, if it is secret. A word with other meanings does not count: a list of two
/// ways to pay may begin with `card`.
pub fn secret_name_before_value(name: &Value, is_secret: impl Fn(&str) -> bool) -> Option<&str> {
    let name = name.as_str()?;
    (!is_weakly_secret(name) && is_secret(name.trim_start_matches('-'))).then_some(name)
}

fn is_one_of(names: &[&str], name: &str) -> bool {
    names.iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// Whether the member with this key holds the name in a pair of name and value.
pub fn holds_a_name(key: &str) -> bool {
    is_name_attribute(key.strip_prefix('@').unwrap_or(key))
}

/// Whether the member or attribute with this name holds the value in such a pair.
pub(super) fn holds_a_value(key: &str) -> bool {
    is_one_of(&VALUES, key.strip_prefix('@').unwrap_or(key))
}

/// Whether an attribute with this name holds the name in such a pair.
pub(super) fn is_name_attribute(attribute: &str) -> bool {
    is_one_of(&NAMES, attribute) || attribute.eq_ignore_ascii_case(ID)
}

/// Whether an element with this name may hold the name of what stands in the next one.
pub fn may_name_next_element(element: &str) -> bool {
    is_one_of(&NAMES, element) || is_one_of(&ELEMENTS, element)
}

/// The text of a value: a string, a list of one text, or an XML element with text alone. `None` for other values.
fn text_of(value: &Value) -> Option<&str> {
    match value {
        Value::String(text) => Some(text),
        Value::Array(items) => items.first().filter(|_| items.len() == 1).and_then(text_of),
        Value::Object(members) => members.get("#text").filter(|_| members.len() == 1).and_then(Value::as_str),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

/// Parses a text as a JSON object or array; `None` if it is neither.
pub fn parse_json_container(text: &str) -> Option<Value> {
    let is_outline = |open, close| text.trim_start().starts_with(open) && text.trim_end().ends_with(close);
    (is_outline('{', '}') || is_outline('[', ']')).then(|| serde_json::from_str(text).ok()).flatten()
}

/// The JSON object or array with which a text begins, and its length. If there is none, the error is the number of
/// bytes that were read to find that out.
pub(super) fn json_at_start(text: &str) -> Result<(Value, usize), usize> {
    let mut skipped = serde_json::Deserializer::from_str(text).into_iter::<IgnoredAny>();
    match skipped.next() {
        Some(Ok(IgnoredAny)) => {
            let bytes = skipped.byte_offset();
            serde_json::from_str(&text[..bytes]).map(|value| (value, bytes)).map_err(|_| bytes)
        }
        Some(Err(error)) => {
            let lines = text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len);
            Err((lines.sum::<usize>() + error.column()).min(text.len()))
        }
        None => Err(text.len()),
    }
}

/// Decodes the name or the value of a parameter in a query or a form.
pub fn decoded_component(text: &str) -> String {
    percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_values_beside_a_secret_name_are_found() {
        for (value, found) in [
            (json!({ "name": "password", "value": "x" }), "value"),
            (json!({ "Key": "password", "Content": 1, "id": 2 }), "Content"),
            (json!({ "@name": "password", "#text": "x" }), "#text"),
            (json!({ "name": ["password"], "value": ["x"] }), "value"),
            (json!({ "name": ["password", "b"], "value": ["x"] }), ""),
            (json!({ "name": "colour", "value": "x" }), ""),
            (json!({ "name": "password", "hint": "x" }), ""),
            (json!({ "label": "password", "value": "x" }), "value"),
            (json!({ "k": "password", "v": "x" }), "v"),
            (json!({ "id": "password", "values": ["x"] }), "values"),
            (json!({ "name": "password", "content": "text", "value": "x" }), "content value"),
            (json!({ "@name": "password", "@value": "", "string": ["x"] }), "@value string"),
            (json!({ "@key": "password", "@n": "1", "string": ["x"], "b": ["y"], "#order": "string b" }), "string b"),
            (json!({ "key": ["a", "password"], "string": ["1", "x"], "#order": "key string key string" }), "string[1]"),
            (json!({ "Key": ["password"], "V": ["x"], "#order": "Key V" }), "V"),
            (json!({ "field": ["password"], "a": ["x"], "#order": "field a" }), "a[0]"),
            (json!({ "string": ["password", "x", "password", "y"] }), "string[1] string[3]"),
            (json!({ "string": ["x", "password"] }), ""),
            (json!({ "key": ["password"], "a": 1 }), ""),
        ] {
            let members = value.as_object().expect("an object");
            let named = values_of_secrets(members, |name| name == "password");
            let shown = members.keys().flat_map(|key| match named.of(key) {
                Some(SecretPart::Whole) => vec![key.clone()],
                Some(SecretPart::Items(items)) => items.iter().map(|index| format!("{key}[{index}]")).collect(),
                None => Vec::new(),
            });
            assert_eq!(shown.collect::<Vec<_>>().join(" "), found, "{value}");
        }
    }

    #[test]
    fn the_values_in_lists_of_pairs_are_found() {
        let pairs = [json!(["accept", "*"]), json!(["password", "x"])];
        let is_password = |name: &str| name == "password";
        assert!(
            are_name_value_pairs(&pairs)
                && !are_name_value_pairs(&[json!(["password", "x"]), json!("y")])
                && !are_name_value_pairs(&[])
        );
        assert_eq!(value_of_pair(&pairs[0], is_password), None);
        assert_eq!(value_of_pair(&pairs[1], is_password), Some(("password", &json!("x"))));
    }

    #[test]
    fn names_and_values_alternate_in_a_list_of_scalars_with_a_name_before_each_value() {
        for (list, are) in [
            (json!(["password", "x", "n", 1]), true),
            (json!(["password", "x", "n"]), false),
            (json!(["password", ["x"]]), false),
            (json!(["a", "x", 1, "y"]), false),
            (json!([]), false),
        ] {
            assert_eq!(has_alternating_names(list.as_array().expect("a list")), are, "{list}");
        }
        let name = |name: &str| secret_name_before_value(&json!(name), crate::secret::is_secret).is_some();
        assert!(name("password") && name("Authorization") && name("--password") && !name("card") && !name("n"));
    }

    #[test]
    fn only_an_object_or_array_is_json_in_a_text() {
        assert_eq!(parse_json_container(" {\"a\": 1}\n"), Some(json!({ "a": 1 })));
        assert_eq!(parse_json_container("[1]"), Some(json!([1])));
        for text in ["1", "\"a\"", "{a}", "[1", "", "{} {}"] {
            assert_eq!(parse_json_container(text), None, "{text}");
        }
    }
}

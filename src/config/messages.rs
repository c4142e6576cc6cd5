//! Describes values and schemas in error messages.

use serde_json::{Map, Value};

use super::tree::{Node, NodeKind};
use crate::problem::{Segment, Site};

/// The types that a schema allows; empty if it allows any.
pub(super) fn allowed_types(schema: &Map<String, Value>) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// The types that a schema allows, in words: `text or a list`.
pub(super) fn describe_expected(schema: &Map<String, Value>) -> String {
    let names: Vec<String> = allowed_types(schema)
        .into_iter()
        .filter_map(|name| match name {
            "boolean" => Some("true or false"),
            "number" => Some("a number"),
            "integer" => Some("a whole number"),
            "string" => Some("text"),
            "array" => Some("a list"),
            "object" => Some("a map"),
            _ => None,
        })
        .map(str::to_owned)
        .collect();
    if names.is_empty() { "nothing".to_owned() } else { join_with_or(&names) }
}

/// The value that was found, in words.
pub(super) fn describe_found(node: &Node) -> String {
    match &node.kind {
        NodeKind::Bool(bool) => format!("`{bool}`"),
        NodeKind::Number(number) => format!("the number {number}"),
        NodeKind::Text(text) => format!("the text `{}`", shorten(text)),
        _ => node.type_name().to_owned(),
    }
}

/// An example of how the value of a key is written, for keys whose type alone does not show the syntax.
pub(super) fn form_hint(site: &Site) -> Option<String> {
    let (parent, key) = match site.path.as_slice() {
        [.., Segment::Key(parent), Segment::Key(key)] => (&**parent, &**key),
        // Rules alone, without `compare:` (`diffs --try`).
        [Segment::Key(key)] => ("compare", &**key),
        _ => return None,
    };
    let form = match (parent, key) {
        ("instance", "creates") => {
            "one id: `creates: $.id`, or `$.orders[0].id` in a list, or `header.location`, or `{ header.location: \
             \"/orders/{id}\" }`"
        }
        ("compare", "unordered") => {
            "each array with the field by which its elements are paired, or with `set`: `unordered: { $.items: sku, \
             $.tags: set }`"
        }
        ("compare", "tolerance") => {
            "each value with how much it may differ: `tolerance: { $.total: 0.01, $.created_at: 2s }`"
        }
        ("compare", "effects") => "the rules of each step's calls: `effects: { charge: { ignore: [$.note] } }`",
        _ => return None,
    };
    Some(form.to_owned())
}

/// A hint to add or remove quotes, if that would give the expected type.
pub(super) fn quotes_hint(node: &Node, expected: &str) -> Option<String> {
    match &node.kind {
        NodeKind::Text(text)
            if expected.contains("number") && serde_json::from_str::<serde_json::Number>(text).is_ok() =>
        {
            Some("write it without quotes".to_owned())
        }
        NodeKind::Number(_) | NodeKind::Bool(_) if expected.contains("text") => Some("put it in quotes".to_owned()),
        NodeKind::Null if expected.contains("text") => {
            Some("write one; if it is the word `null` or `~`, put it in quotes".to_owned())
        }
        _ => None,
    }
}

/// A hint for a number where a duration or a share is expected.
pub(super) fn unit_hint(node: &Node, schema: &Map<String, Value>, site: &Site) -> Option<String> {
    const DURATIONS: &str = "deadline timeout over open base max after connect first_byte within interval window \
                             age_at_most each settles retry_window";
    const SHARES: &str = "capture noise rehearse_twice mismatch errors failures mismatch_below coverage_at_least \
                          errors_not_worse_by noise_not_worse_by";
    let is_one_of = |keys: &str, key: &str| keys.split(' ').any(|known| known == key);
    let NodeKind::Number(number) = &node.kind else { return None };
    let key = match site.path.last()? {
        Segment::Key(key) => &**key,
        Segment::Index(_) => return None,
    };
    let description = schema.get("description").and_then(Value::as_str).unwrap_or_default();
    if !allowed_types(schema).contains(&"string") {
        return None;
    }
    match () {
        () if is_one_of(SHARES, key) => Some(format!("a share is in percent: write {number}%")),
        () if is_one_of(DURATIONS, key) || description.starts_with("A duration") => {
            Some(format!("a duration has a unit: write {number}s"))
        }
        () => None,
    }
}

/// The meaning of a key, from its schema's description.
pub(super) fn description_of(schema: &Value) -> Option<String> {
    let text = schema.get("description")?.as_str()?.lines().next()?.trim_end_matches('.');
    let mut chars = text.chars();
    let first = chars.next()?.to_lowercase();
    Some(first.chain(chars).collect())
}

/// `a`, `a or b`, `a, b or c`.
pub(super) fn join_with_or(names: &[String]) -> String {
    match names {
        [] => "something else".to_owned(),
        [one] => one.clone(),
        [head @ .., last] => format!("{} or {last}", head.join(", ")),
    }
}

/// Each word in backquotes, separated by commas.
pub(super) fn join_quoted<'a>(words: impl Iterator<Item = &'a str>) -> String {
    words.map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

/// The first line of a value, cut to 60 characters.
pub(super) fn shorten(text: &str) -> String {
    let first = text.lines().next().unwrap_or("");
    if first.chars().count() > 60 || first.len() < text.len() {
        return format!("{}…", first.chars().take(60).collect::<String>());
    }
    first.to_owned()
}

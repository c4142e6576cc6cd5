//! Rules as YAML that can be pasted into a route.
//!
//! Always true: reading the text gives the same rules. Texts are quoted as in JSON, whose escapes YAML knows.

use serde_json::{Map, Value};

use super::plain_scalar::plain_scalar;
use super::tree::NodeKind;
use crate::compare::RulesDraft;

/// The text of a `compare:` with that key, without what is the default.
pub fn rules_yaml(draft: &RulesDraft) -> String {
    let mut out = String::from("compare:");
    match rules_value(draft) {
        Value::Object(members) if !members.is_empty() => {
            out.push('\n');
            write_members(&members, 1, &mut out);
        }
        _ => out.push_str(" {}\n"),
    }
    out
}

/// The rules as a value, without what is the default.
fn rules_value(draft: &RulesDraft) -> Value {
    let mut value = serde_json::to_value(draft).unwrap_or_default();
    if let Some(members) = value.as_object_mut() {
        for (name, value) in members.iter_mut() {
            match name.as_str() {
                "text" => strip(value),
                "effects" => value.as_object_mut().into_iter().flatten().for_each(|(_, step)| strip(step)),
                _ => {}
            }
        }
        // An empty `headers:` is kept, because it differs from the default headers; so is an empty `text:`, because
        // with it the lines of texts are shown.
        members.retain(|name, value| {
            ["headers", "text"].contains(&name.as_str()) || !(is_empty(value) || name == "status" && value == "exact")
        });
    }
    value
}

fn strip(value: &mut Value) {
    if let Some(members) = value.as_object_mut() {
        members.retain(|_, value| !is_empty(value));
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Bool(true) | Value::Number(_) | Value::String(_) => false,
    }
}

fn write_members(members: &Map<String, Value>, depth: usize, out: &mut String) {
    let indent = "  ".repeat(depth);
    for (key, value) in members {
        out.push_str(&format!("{indent}{}:", scalar(key)));
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                out.push('\n');
                write_members(inner, depth + 1, out);
            }
            Value::Array(items) if !items.is_empty() => {
                out.push('\n');
                items.iter().for_each(|item| out.push_str(&format!("{indent}  - {}\n", flow(item))));
            }
            value => out.push_str(&format!(" {}\n", flow(value))),
        }
    }
}

/// A value in one line.
fn flow(value: &Value) -> String {
    match value {
        Value::String(text) => scalar(text),
        Value::Object(members) if !members.is_empty() => {
            let members: Vec<String> =
                members.iter().map(|(key, value)| format!("{}: {}", scalar(key), flow(value))).collect();
            format!("{{ {} }}", members.join(", "))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        value => value.to_string(),
    }
}

/// A text as it is where it needs no quotes.
fn scalar(text: &str) -> String {
    let is_plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
        && matches!(plain_scalar(text), NodeKind::Text(_));
    if is_plain { text.to_owned() } else { Value::from(text).to_string() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::super::RouteRules;
    use super::*;

    #[test]
    fn the_text_is_short_and_gives_the_same_rules() {
        let rules = RouteRules::of_intents(Arc::default(), &["charge", "charge.undo"]);
        for (draft, text) in [
            (json!({}), "compare: {}\n"),
            (json!({"headers": [], "text": {}}), "compare:\n  headers: []\n  text: {}\n"),
            (
                json!({"status": "class", "ids": ["$.id", {"header.location": "/orders/{id}"}], "numbers": {"form": "strict"},
                    "unordered": {"$.items": "sku", "$.tags": {"by": "set", "when": "${request.query.x == null}"}},
                    "tolerance": {"$.at": "2s", "$.n": 0.0001}, "text": {"ignore": ["^\"a\": \\d .*"], "times": {"^due (.*)": "1m"}},
                    "effects": {"charge.undo": {"ids": ["$.o"], "any_order": true}}, "ignore": ["$['a b: \"']", "header.date"]}),
                "compare:\n  status: class\n  ignore:\n    - \"$['a b: \\\"']\"\n    - header.date\n  ids:\n    - \"$.id\"\n    \
                 - { header.location: \"/orders/{id}\" }\n  unordered:\n    \"$.items\": sku\n    \"$.tags\":\n      by: set\n      \
                 when: \"${request.query.x == null}\"\n  tolerance:\n    \"$.at\": \"2s\"\n    \"$.n\": 0.0001\n  numbers:\n    \
                 form: strict\n  text:\n    ignore:\n      - \"^\\\"a\\\": \\\\d .*\"\n    times:\n      \"^due (.*)\": \"1m\"\n  \
                 effects:\n    charge.undo:\n      ids:\n        - \"$.o\"\n      any_order: true\n",
            ),
        ] {
            let draft: RulesDraft = serde_json::from_value(draft).unwrap();
            assert_eq!(rules_yaml(&draft), text);
            let read = rules.check("rules", text).unwrap_or_else(|findings| panic!("{findings}\n{text}"));
            assert_eq!(read.rules.draft(), &draft, "{text}");
        }
        assert_eq!((scalar("null"), scalar("no"), scalar("2s")), ("\"null\"".into(), "no".into(), "\"2s\"".into()));
    }
}

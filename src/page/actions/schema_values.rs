//! Reads the value that a person wrote into the fields of a schema's form.

use std::collections::HashMap;

use serde_json::{Map, Number, Value};

use crate::admin::types::ValueError;
use crate::page::actions::form_state::{typed_lines, wrong};
use crate::page::actions::json_text;
use crate::page::actions::schema_form::{FieldKind, ItemKind, NumberKind, SchemaField};

/// The value of a field; `None` if it is left out. What is wrong is added to `errors`.
pub(in crate::page) fn read(
    field: &SchemaField,
    typed: &HashMap<&str, &str>,
    errors: &mut Vec<ValueError>,
) -> Option<Value> {
    if let FieldKind::Group(members) = &field.kind {
        return group(field, members, typed, errors);
    }
    let text = text_of(field, typed);
    if text.trim().is_empty() {
        return match (&field.kind, field.is_required, field.is_nullable) {
            (_, false, _) => None,
            (_, true, true) => Some(Value::Null),
            (FieldKind::List(_), true, false) => Some(Value::Array(Vec::new())),
            (FieldKind::Choice(_), true, false) => fail(field, "choose one of the values", errors),
            (_, true, false) => fail(field, "a value is required", errors),
        };
    }
    match &field.kind {
        FieldKind::Text { .. } => Some(text.into()),
        FieldKind::Date => Some(text.trim().into()),
        FieldKind::Number(kind) => number(field, &text, *kind, errors),
        FieldKind::Choice(values) => {
            let chosen = text.trim().parse::<usize>().ok().and_then(|index| values.get(index));
            chosen.cloned().or_else(|| fail(field, "choose one of the values", errors))
        }
        FieldKind::List(kind) => {
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
            let items: Option<Vec<Value>> = lines
                .map(|line| match kind {
                    ItemKind::Text => Some(line.into()),
                    ItemKind::Number(kind) => number(field, line, *kind, errors),
                })
                .collect();
            items.map(Value::Array)
        }
        FieldKind::Any if !text.trim_start().starts_with(['{', '[', '"']) => {
            Some(serde_json::from_str(&text).unwrap_or_else(|_| text.into()))
        }
        FieldKind::Any | FieldKind::Json => match json_text::parse(&text) {
            Ok(value) => Some(value),
            Err(why) => fail(field, &why, errors),
        },
        FieldKind::Group(_) => None,
    }
}

/// The members that were given. An optional group of which nothing was written is left out.
fn group(
    field: &SchemaField,
    members: &[SchemaField],
    typed: &HashMap<&str, &str>,
    errors: &mut Vec<ValueError>,
) -> Option<Value> {
    if !field.is_required && members.iter().all(|member| is_empty(member, typed)) {
        return None;
    }
    let mut given = Map::new();
    for member in members {
        if let Some(value) = read(member, typed, errors) {
            given.insert(name_of(&member.pointer), value);
        }
    }
    Some(Value::Object(given))
}

fn is_empty(field: &SchemaField, typed: &HashMap<&str, &str>) -> bool {
    match &field.kind {
        FieldKind::Group(members) => members.iter().all(|member| is_empty(member, typed)),
        _ => text_of(field, typed).trim().is_empty(),
    }
}

fn text_of(field: &SchemaField, typed: &HashMap<&str, &str>) -> String {
    typed_lines(typed.get(field.pointer.as_str()).copied().unwrap_or_default())
}

/// The last name of a JSON pointer.
fn name_of(pointer: &str) -> String {
    let (_, name) = pointer.rsplit_once('/').unwrap_or_default();
    name.replace("~1", "/").replace("~0", "~")
}

/// A number as JSON writes it: its digits are kept as they are.
fn number(field: &SchemaField, text: &str, kind: NumberKind, errors: &mut Vec<ValueError>) -> Option<Value> {
    let text = text.trim();
    match (serde_json::from_str::<Number>(text), kind) {
        (Ok(_), NumberKind::Whole) if text.contains(['.', 'e', 'E']) => {
            fail(field, &format!("“{text}” is not a whole number"), errors)
        }
        (Ok(number), _) => Some(Value::Number(number)),
        (Err(_), _) => {
            let why = format!("“{text}” is not a number: write it like 1250.5, with a point and without spaces");
            fail(field, &why, errors)
        }
    }
}

fn fail(field: &SchemaField, why: &str, errors: &mut Vec<ValueError>) -> Option<Value> {
    errors.push(wrong(field.pointer.as_str(), format!("{}: {why}", field.label)));
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::page::actions::schema_form::from_schema;

    fn read_with(schema: &Value, typed: &[(&str, &str)]) -> Result<Option<Value>, Vec<String>> {
        let mut errors = Vec::new();
        let value = read(&from_schema(schema, "/values", "v"), &typed.iter().copied().collect(), &mut errors);
        match errors.is_empty() {
            true => Ok(value),
            false => Err(errors.into_iter().map(|error| format!("{} {}", error.pointer, error.detail)).collect()),
        }
    }

    #[test]
    fn values_keep_their_types() {
        let schema = json!({
            "required": ["id", "amount", "list", "none"],
            "properties": {
                "amount": { "type": "number" },
                "sure": { "type": "boolean" },
                "list": { "type": "array", "items": { "type": "integer" } },
                "none": { "type": ["string", "null"] },
                "inner": { "required": ["x"], "properties": { "x": { "type": "string" } } },
            },
        });
        let typed = [
            ("/values/id", "7"),
            ("/values/amount", " 12.50 "),
            ("/values/sure", "1"),
            ("/values/list", "1\r\n\r\n2"),
            ("/values/none", ""),
            ("/values/inner/x", ""),
        ];
        let value = read_with(&schema, &typed).unwrap().unwrap();
        assert_eq!(value.to_string(), r#"{"amount":12.50,"sure":false,"list":[1,2],"none":null,"id":7}"#);
        let typed = [("/values/id", "c 7"), ("/values/amount", "1"), ("/values/inner/x", "y")];
        let value = read_with(&schema, &typed).unwrap().unwrap();
        assert_eq!(value, json!({"amount": 1, "list": [], "none": null, "inner": {"x": "y"}, "id": "c 7"}));
    }

    #[test]
    fn what_is_wrong_is_said_at_its_field() {
        let schema = json!({
            "required": ["amount", "id"],
            "properties": { "amount": { "type": "integer", "title": "Amount" }, "kind": { "enum": ["a"] } },
        });
        let typed = [("/values/amount", "12,50"), ("/values/kind", "4"), ("/values/id", "{")];
        let errors = read_with(&schema, &typed).unwrap_err();
        assert!(errors[0].starts_with("/values/amount Amount: “12,50” is not a number"), "{errors:?}");
        assert!(errors[1].starts_with("/values/kind "), "{errors:?}");
        assert!(errors[2].starts_with("/values/id id: This is not JSON"), "{errors:?}");
        let errors = read_with(&schema, &[("/values/amount", "1.5")]).unwrap_err();
        assert_eq!(errors.len(), 2, "{errors:?}");
    }

    #[test]
    fn a_value_without_members_is_read_too() {
        assert_eq!(read_with(&json!({ "type": "string" }), &[("/values", " a ")]), Ok(Some(json!(" a "))));
        assert_eq!(read_with(&json!(true), &[("/values", "true")]), Ok(Some(json!(true))));
    }
}

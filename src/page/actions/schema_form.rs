//! The fields of a form that asks for a value of a JSON Schema.
//!
//! Always true: every schema has a form. What no field fits is asked for as JSON, and the API checks the whole value:
//! the fields only help to write it.

use serde_json::{Map, Value};

/// The deepest nesting that is shown as fields; what is deeper is written as JSON.
const DEPTH_MAX: usize = 4;
/// The most fields of a form; what follows is written as JSON.
const FIELDS_MAX: usize = 200;
/// Strings that may be as long get several lines.
const LONG_TEXT_CHARS: u64 = 200;
/// Keywords whose meaning no field can show.
const NOT_SHOWN: &[&str] = &[
    "$ref",
    "$dynamicRef",
    "allOf",
    "anyOf",
    "oneOf",
    "not",
    "if",
    "patternProperties",
    "propertyNames",
    "dependentSchemas",
    "dependentRequired",
    "prefixItems",
    "contains",
];

/// A field, or a group of fields.
#[derive(Debug, PartialEq)]
pub(in crate::page) struct SchemaField {
    /// The id of the input in the page.
    pub id: String,
    /// Where its value is in the request: a JSON pointer, which is the name of the input too.
    pub pointer: String,
    pub label: String,
    pub hint: String,
    pub is_required: bool,
    /// Whether `null` is a value of it: an empty field that is required means `null`.
    pub is_nullable: bool,
    pub kind: FieldKind,
    /// The value that is filled in first.
    pub default: Option<Value>,
}

/// What is written into a field.
#[derive(Debug, PartialEq)]
pub(in crate::page) enum FieldKind {
    /// A text.
    Text {
        /// Whether it may have several lines.
        is_long: bool,
    },
    /// A date.
    Date,
    /// A number.
    Number(NumberKind),
    /// One of these values.
    Choice(Vec<Value>),
    /// A list, one value on each line.
    List(ItemKind),
    /// Members of an object.
    Group(Vec<SchemaField>),
    /// Any value: a text, unless it is JSON.
    Any,
    /// JSON.
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::page) enum NumberKind {
    Whole,
    Any,
}

/// What is written on each line of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::page) enum ItemKind {
    Text,
    Number(NumberKind),
}

/// The form for a schema. `pointer` says where the value is in the request; ids begin with `prefix`.
pub(in crate::page) fn from_schema(schema: &Value, pointer: &str, prefix: &str) -> SchemaField {
    let mut builder = Builder { prefix, count: 0 };
    builder.field(schema, pointer.to_owned(), "The values that are asked for", true, None, 0)
}

struct Builder<'a> {
    prefix: &'a str,
    count: usize,
}

impl Builder<'_> {
    fn field(
        &mut self,
        schema: &Value,
        pointer: String,
        name: &str,
        is_required: bool,
        default: Option<&Value>,
        depth: usize,
    ) -> SchemaField {
        self.count += 1;
        let id = format!("{}-{}", self.prefix, self.count);
        let default = default.or_else(|| schema.get("default")).filter(|value| !value.is_null());
        let (kind, is_nullable) = self.kind(schema, &pointer, default, depth);
        let text = |key| schema.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        SchemaField {
            id,
            pointer,
            label: text("title").unwrap_or(name).to_owned(),
            hint: hint(text("description"), schema, &kind),
            is_required,
            is_nullable,
            default: default.filter(|_| !matches!(kind, FieldKind::Group(_))).cloned(),
            kind,
        }
    }

    /// What is written into the field of a schema, and whether `null` fits it.
    fn kind(&mut self, schema: &Value, pointer: &str, default: Option<&Value>, depth: usize) -> (FieldKind, bool) {
        let Some(schema) = schema.as_object() else { return (FieldKind::Any, false) };
        if NOT_SHOWN.iter().any(|keyword| schema.contains_key(*keyword)) || self.count > FIELDS_MAX {
            return (FieldKind::Json, false);
        }
        let listed = schema.get("enum").and_then(Value::as_array);
        if let Some(values) = listed.cloned().or_else(|| schema.get("const").map(|value| vec![value.clone()])) {
            return choice(values);
        }
        let (kind, is_nullable) = match type_of(schema) {
            Some(found) => found,
            None if schema.contains_key("properties") || schema.contains_key("required") => ("object", false),
            None => return (FieldKind::Any, false),
        };
        let kind = match kind {
            "boolean" => FieldKind::Choice(vec![true.into(), false.into()]),
            "integer" => FieldKind::Number(NumberKind::Whole),
            "number" => FieldKind::Number(NumberKind::Any),
            "string" if schema.get("format").is_some_and(|format| format == "date") => FieldKind::Date,
            "string" => FieldKind::Text { is_long: is_long_text(schema, default) },
            "array" => list(schema.get("items")),
            "object" if depth < DEPTH_MAX => self.group(schema, pointer, default, depth),
            _ => FieldKind::Json,
        };
        (kind, is_nullable)
    }

    fn group(
        &mut self,
        schema: &Map<String, Value>,
        pointer: &str,
        default: Option<&Value>,
        depth: usize,
    ) -> FieldKind {
        let none = Map::new();
        let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&none);
        let required = schema.get("required").and_then(Value::as_array);
        let required: Vec<&str> = required.into_iter().flatten().filter_map(Value::as_str).collect();
        let undeclared = required.iter().copied().filter(|name| !properties.contains_key(*name));
        let undeclared = undeclared.map(|name| (name, &Value::Bool(true)));
        let members = properties.iter().map(|(name, schema)| (name.as_str(), schema)).chain(undeclared);
        let members: Vec<SchemaField> = members
            .map(|(name, schema)| {
                let pointer = format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
                let default = default.and_then(|default| default.get(name));
                self.field(schema, pointer, name, required.contains(&name), default, depth + 1)
            })
            .collect();
        match members.is_empty() {
            true => FieldKind::Json,
            false => FieldKind::Group(members),
        }
    }
}

/// The one type of a schema beside `null`, and whether `null` is another.
fn type_of(schema: &Map<String, Value>) -> Option<(&str, bool)> {
    match schema.get("type")? {
        Value::String(kind) => Some((kind, false)),
        Value::Array(kinds) => match kinds.iter().filter_map(Value::as_str).collect::<Vec<_>>()[..] {
            [kind, "null"] | ["null", kind] => Some((kind, true)),
            [kind] => Some((kind, false)),
            _ => None,
        },
        _ => None,
    }
}

fn choice(mut values: Vec<Value>) -> (FieldKind, bool) {
    let all = values.len();
    values.retain(|value| !value.is_null());
    let is_nullable = values.len() < all;
    match values.is_empty() || values.iter().any(|value| value.is_object() || value.is_array()) {
        true => (FieldKind::Json, is_nullable),
        false => (FieldKind::Choice(values), is_nullable),
    }
}

fn list(items: Option<&Value>) -> FieldKind {
    let Some(items) = items.and_then(Value::as_object) else { return FieldKind::Json };
    if NOT_SHOWN.iter().any(|keyword| items.contains_key(*keyword)) {
        return FieldKind::Json;
    }
    match type_of(items) {
        Some(("string", false)) => FieldKind::List(ItemKind::Text),
        Some(("number", false)) => FieldKind::List(ItemKind::Number(NumberKind::Any)),
        Some(("integer", false)) => FieldKind::List(ItemKind::Number(NumberKind::Whole)),
        _ => FieldKind::Json,
    }
}

fn is_long_text(schema: &Map<String, Value>, default: Option<&Value>) -> bool {
    let length = schema.get("maxLength").and_then(Value::as_u64);
    length.is_some_and(|length| length >= LONG_TEXT_CHARS)
        || default.and_then(Value::as_str).is_some_and(|text| text.contains('\n') || text.len() > 80)
}

/// The description, the bounds, and how the value is written.
fn hint(description: Option<&str>, schema: &Value, kind: &FieldKind) -> String {
    let mut parts: Vec<String> = description.map(str::to_owned).into_iter().collect();
    let range = |low, high, unit: &str| match (schema.get(low), schema.get(high)) {
        (Some(low), Some(high)) => Some(format!("From {low} to {high}{unit}.")),
        (Some(low), None) => Some(format!("At least {low}{unit}.")),
        (None, Some(high)) => Some(format!("At most {high}{unit}.")),
        (None, None) => None,
    };
    match kind {
        FieldKind::Text { .. } => {
            parts.extend(range("minLength", "maxLength", " characters"));
            match schema.get("format").and_then(Value::as_str) {
                Some("date-time") => parts.push("Date, time and zone, such as 2026-12-01T12:00:00Z.".into()),
                Some(format) => parts.push(format!("Format: {format}.")),
                None => {}
            }
            parts.extend(schema.get("pattern").and_then(Value::as_str).map(|form| format!("Pattern: {form}")));
        }
        FieldKind::Number(kind) => {
            parts.extend(range("minimum", "maximum", ""));
            let above = schema.get("exclusiveMinimum").filter(|bound| bound.is_number());
            parts.extend(above.map(|bound| format!("More than {bound}.")));
            let below = schema.get("exclusiveMaximum").filter(|bound| bound.is_number());
            parts.extend(below.map(|bound| format!("Less than {bound}.")));
            parts.push(match kind {
                NumberKind::Whole => "A whole number.".into(),
                NumberKind::Any => "A number such as 1250.5.".into(),
            });
        }
        FieldKind::List(kind) => {
            parts.extend(range("minItems", "maxItems", " values"));
            let listed = schema.pointer("/items/enum").and_then(Value::as_array);
            let listed: Vec<String> =
                listed.into_iter().flatten().map(crate::page::actions::json_text::readable).collect();
            if !listed.is_empty() {
                parts.push(format!("Each is one of: {}.", listed.join(", ")));
            }
            parts.push(match kind {
                ItemKind::Text => "One on each line.".into(),
                ItemKind::Number(_) => "One number on each line.".into(),
            });
        }
        FieldKind::Any => parts.push(
            "A number, true, false, null or other JSON is taken as such, and anything else as a text. A number that \
             is to be a text stands in double quotes."
                .into(),
        ),
        FieldKind::Json => parts.push("Written as JSON.".into()),
        FieldKind::Date | FieldKind::Choice(_) | FieldKind::Group(_) => {}
    }
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn members(schema: &Value) -> Vec<SchemaField> {
        match from_schema(schema, "/values", "v").kind {
            FieldKind::Group(members) => members,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_type_has_a_field_of_its_own() {
        let fields = members(&json!({
            "type": "object",
            "required": ["amount", "id"],
            "default": { "note": "as usual" },
            "properties": {
                "amount": { "type": "number", "title": "Amount", "description": "In EUR.", "minimum": 1, "maximum": 5 },
                "day": { "type": ["string", "null"], "format": "date" },
                "note": { "type": "string" },
                "colour": { "enum": ["red", 2, null] },
                "sure": { "type": "boolean", "default": true },
                "tags": { "type": "array", "items": { "type": "string" } },
                "other": { "oneOf": [{ "type": "string" }] },
                "a/b": { "type": "object", "properties": { "c": { "type": "integer" } } },
            },
        }));
        let shown: Vec<_> = fields.iter().map(|field| (field.pointer.as_str(), field.is_required)).collect();
        let optional = ["day", "note", "colour", "sure", "tags", "other", "a~1b"];
        assert_eq!(shown[0], ("/values/amount", true));
        assert_eq!(shown[8], ("/values/id", true));
        assert!(optional.iter().zip(&shown[1..8]).all(|(name, shown)| *shown == (&*format!("/values/{name}"), false)));
        assert_eq!(fields[0].label, "Amount");
        assert_eq!(fields[0].hint, "In EUR. From 1 to 5. A number such as 1250.5.");
        assert_eq!((&fields[1].kind, fields[1].is_nullable), (&FieldKind::Date, true));
        assert_eq!(fields[2].default, Some(json!("as usual")));
        assert_eq!(fields[3].kind, FieldKind::Choice(vec![json!("red"), json!(2)]));
        assert_eq!(fields[4].default, Some(json!(true)));
        assert_eq!(fields[5].kind, FieldKind::List(ItemKind::Text));
        assert_eq!(fields[6].kind, FieldKind::Json);
        assert!(matches!(&fields[7].kind, FieldKind::Group(inner) if inner[0].pointer == "/values/a~1b/c"));
        assert_eq!(fields[8].kind, FieldKind::Any);
    }

    #[test]
    fn a_schema_without_end_has_a_form() {
        let mut schema = json!({ "type": "string" });
        for _ in 0..50 {
            schema = json!({ "type": "object", "properties": { "deeper": schema } });
        }
        let text = format!("{:?}", from_schema(&schema, "/values", "v"));
        assert_eq!(text.matches("pointer").count(), DEPTH_MAX + 1);
        assert!(text.contains("Json"));
        let many: Map<String, Value> = (0..1_000).map(|n| (n.to_string(), json!({ "type": "string" }))).collect();
        let fields = members(&json!({ "type": "object", "properties": many }));
        assert_eq!(fields.iter().filter(|field| field.kind == FieldKind::Json).count(), 1_000 - FIELDS_MAX + 1);
    }

    #[test]
    fn ids_are_unique_and_have_no_spaces() {
        let schema = json!({ "required": ["a b", "<script>", "c"] });
        let ids: std::collections::BTreeSet<String> = members(&schema).into_iter().map(|field| field.id).collect();
        assert_eq!(ids, ["v-2", "v-3", "v-4"].map(str::to_owned).into());
    }
}

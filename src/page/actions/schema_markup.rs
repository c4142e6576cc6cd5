//! Draws the fields of a schema's form.

use maud::{Markup, html};
use serde_json::Value;

use crate::page::actions::form_field::FormField;
use crate::page::actions::form_state::FormState;
use crate::page::actions::json_text;
use crate::page::actions::schema_form::{FieldKind, ItemKind, NumberKind, SchemaField};

/// A field, or a group of them.
pub(in crate::page) fn show(field: &SchemaField, state: &FormState<'_>) -> Markup {
    let SchemaField { id, pointer, label, hint, is_required, is_nullable, kind, default } = field;
    let shown =
        FormField { id, name: pointer, label, hint, is_required: *is_required && !is_nullable && needs_text(kind) };
    let first = default.as_ref().map(|value| first_text(kind, value)).unwrap_or_default();
    match kind {
        FieldKind::Text { is_long: false } => shown.line(state, "text", None, &first),
        FieldKind::Text { is_long: true } => shown.lines(state, 4, "", &first),
        FieldKind::Date => shown.line(state, "date", None, &first),
        // Not `type=number`: browsers drop what they do not take for a number, and with it what was typed.
        FieldKind::Number(NumberKind::Whole) => shown.line(state, "text", Some("numeric"), &first),
        FieldKind::Number(NumberKind::Any) => shown.line(state, "text", Some("decimal"), &first),
        FieldKind::Choice(values) => {
            let options: Vec<(String, String)> =
                values.iter().enumerate().map(|(index, value)| (index.to_string(), word(value))).collect();
            shown.choice(state, &options, &first)
        }
        FieldKind::List(_) => shown.lines(state, 4, "", &first),
        FieldKind::Any => shown.lines(state, 1, "", &first),
        FieldKind::Json => shown.json(state, &first),
        FieldKind::Group(members) => {
            let errors = state.errors_at(pointer);
            html! {
                fieldset.group {
                    legend { (label) @if !*is_required { " " span.hint { "(optional)" } } }
                    @if !hint.is_empty() { p.hint { (hint) } }
                    @for error in errors { p.field-error { "▲ " (error) } }
                    @for member in members { (show(member, state)) }
                }
            }
        }
    }
}

/// Whether a required field has to have a text: an empty list is a value.
fn needs_text(kind: &FieldKind) -> bool {
    !matches!(kind, FieldKind::List(_))
}

/// A default as it is written into its field.
fn first_text(kind: &FieldKind, value: &Value) -> String {
    match (kind, value) {
        (FieldKind::Choice(values), value) => {
            values.iter().position(|listed| listed == value).map(|index| index.to_string()).unwrap_or_default()
        }
        (FieldKind::List(ItemKind::Text | ItemKind::Number(_)), Value::Array(items)) => {
            items.iter().map(json_text::readable).collect::<Vec<_>>().join("\n")
        }
        (FieldKind::Any | FieldKind::Json, value) => json_text::pretty(value),
        (_, value) => json_text::readable(value),
    }
}

/// A value of a choice.
fn word(value: &Value) -> String {
    match value {
        Value::Bool(true) => "Yes".into(),
        Value::Bool(false) => "No".into(),
        value => json_text::readable(value),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::page::actions::form_state::wrong;
    use crate::page::actions::schema_form::from_schema;
    use crate::page::request::Fields;

    #[test]
    fn titles_are_labels_and_defaults_are_filled_in() {
        let schema = json!({
            "title": "Refund",
            "required": ["amount", "sure"],
            "properties": {
                "amount": { "type": "number", "title": "Amount <b>", "description": "In \"EUR\".", "default": 12.50 },
                "sure": { "type": "boolean", "default": false },
                "tags": { "type": "array", "items": { "type": "string" }, "default": ["a", "b"] },
            },
        });
        let field = from_schema(&schema, "/values", "v");
        let shown = show(&field, &FormState::default()).into_string();
        assert!(shown.contains("<legend>Refund</legend>"), "{shown}");
        assert!(shown.contains(r#"<label for="v-2">Amount &lt;b&gt;"#), "{shown}");
        assert!(shown.contains("In &quot;EUR&quot;."), "{shown}");
        assert!(shown.contains(r#"name="/values/amount" type="text" inputmode="decimal" value="12.5" required"#));
        assert!(shown.contains(r#"<option value="1" selected>No</option>"#), "{shown}");
        assert!(shown.contains("\na\nb</textarea>"), "{shown}");
    }

    #[test]
    fn what_was_typed_and_what_is_wrong_are_shown() {
        let field = from_schema(&json!({ "properties": { "a": { "type": "integer" } } }), "/values", "v");
        let fields = Fields(vec![("/values/a".into(), "x\"><script>".into())]);
        let errors = vec![wrong("/values/a", "not whole"), wrong("/values", "b is required")];
        let shown = show(&field, &FormState::wrong(&fields, errors)).into_string();
        assert!(shown.contains(r#"value="x&quot;&gt;&lt;script&gt;""#), "{shown}");
        assert!(shown.contains("not whole") && shown.contains("▲ b is required"), "{shown}");
        assert!(shown.contains(r#"aria-describedby="v-2-error v-2-hint""#), "{shown}");
    }
}

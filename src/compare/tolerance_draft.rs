//! A tolerance, as a person writes it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A number, or a duration as text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ToleranceDraft(pub Value);

impl JsonSchema for ToleranceDraft {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Tolerance".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "A number (absolute), or a duration such as `2s` or `500ms` for times.",
            "type": ["number", "string"],
        })
    }
}

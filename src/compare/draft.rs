//! The `compare:` part of a route, as a person writes it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How a route's pairs are compared.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RulesDraft {
    /// The headers that are compared; none but these. Without it: `content-type` and `location`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers: Option<Vec<String>>,
    /// Whether statuses are equal only when they are the same, or when they are of one class (2xx).
    pub status: StatusDraft,
    /// Values that may differ: JSONPath (`$.created_at`) or `header.NAME`.
    pub ignore: Vec<String>,
    /// Values that are ids (JSONPath): equal up to a one-to-one renaming between legacy's ids and the engine's.
    pub ids: Vec<String>,
    /// Arrays whose order does not matter. Each JSONPath has the value `set`, or the name of the field that is the key
    /// of the elements.
    pub unordered: BTreeMap<String, String>,
    /// Values that may differ by a tolerance. Each JSONPath has as its value a number (absolute), or a duration such as
    /// `2s` for times.
    pub tolerance: BTreeMap<String, ToleranceDraft>,
    /// Conditions over `request`, `legacy`, `engine` and `intents`:
    /// `${intents.charge.body.amount == legacy.body.total}`.
    pub assert: Vec<String>,
}

/// When statuses are equal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StatusDraft {
    /// When they are the same.
    #[default]
    Exact,
    /// When they are of one class (2xx).
    Class,
}

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

/// What rules may refer to.
#[derive(Clone, Copy, Debug, Default)]
pub struct CompareContext<'a> {
    /// The names under which the workflow may record intents; empty where the route has no workflow.
    pub intents: &'a [&'a str],
}

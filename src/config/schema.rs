//! The JSON Schemas of the three kinds of file.
//!
//! Always true: the schemas are generated from the drafts that are deserialized, so that editors, `schema_check` and
//! serde know the same keys.

use std::sync::LazyLock;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use super::files::FileKind;
use super::settings::PointsmanDraft;
use crate::compare::RulesDraft;
use crate::flag::file::{RouteFileDraft, ServiceDraft};
use crate::workflow::WorkflowDraft;

/// The keyword of a key's schema that has the key's earlier name, which is still read.
pub(super) const EARLIER_NAME: &str = "x-earlier-name";
/// The earlier names of limits, as `serde` reads them (`alias`).
const EARLIER_LIMITS: [(&str, &str); 2] =
    [("order_wait_ms", "command_wait_ms"), ("egress_bystanders_max", "egress_uncompared_requests_max")];

/// The schema of a kind of file.
pub fn schema(kind: FileKind) -> &'static Value {
    static POINTSMAN: LazyLock<Value> = LazyLock::new(|| {
        let mut schema = generated::<PointsmanDraft>("pointsman.yaml: listeners, services, store, limits");
        let service = add_definition::<ServiceDraft>(&mut schema, "Service");
        schema["properties"]["services"]["additionalProperties"] = service;
        schema["required"] = json!(["services", "default_legacy"]);
        for (earlier, name) in EARLIER_LIMITS {
            schema["$defs"]["Limits"]["properties"][name][EARLIER_NAME] = json!(earlier);
        }
        schema
    });
    static ROUTES: LazyLock<Value> = LazyLock::new(|| {
        let mut schema = generated::<RouteFileDraft>("routes/*.yaml: endpoints in front of legacy");
        let rules = add_definition::<RulesDraft>(&mut schema, "Compare");
        if let Some(compare) = schema.pointer_mut("/$defs/RouteDraft/properties/compare") {
            *compare = json!({
                "description": "How pairs are compared.",
                "anyOf": [rules, { "type": "null" }],
            });
        }
        schema
    });
    static WORKFLOW: LazyLock<Value> =
        LazyLock::new(|| generated::<WorkflowDraft>("workflows/*.yaml: a workflow that the engine runs"));
    match kind {
        FileKind::Pointsman => &POINTSMAN,
        FileKind::Routes => &ROUTES,
        FileKind::Workflow => &WORKFLOW,
    }
}

/// The schema of the `compare:` of a route.
pub(super) fn rules_schema() -> &'static Value {
    static RULES: LazyLock<Value> = LazyLock::new(|| generated::<RulesDraft>("compare: of a route"));
    &RULES
}

fn generated<T: JsonSchema>(title: &str) -> Value {
    let mut schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>().to_value();
    schema["title"] = json!(title);
    schema
}

/// Adds another type's schema to the definitions, and returns a reference to it.
fn add_definition<T: JsonSchema>(schema: &mut Value, name: &str) -> Value {
    let mut other = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>().to_value();
    let inner = other.as_object_mut().and_then(|other| {
        other.remove("$schema");
        other.remove("$defs")
    });
    for (key, value) in inner.as_ref().and_then(Value::as_object).into_iter().flatten() {
        schema["$defs"][key.as_str()] = value.clone();
    }
    schema["$defs"][name] = other;
    json!({ "$ref": format!("#/$defs/{name}") })
}

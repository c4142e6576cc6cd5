//! What a workflow file may say about people, time, locks and other workflows.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::rules::Busy;
use super::{EffectClass, OnTimeout, Risk};

/// `checkpoint:`; the run waits for a person. `steps.NAME.output` is what the person gave, `.approved` a yes or no.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CheckpointDraft {
    /// What is asked. May hold `${ … }`.
    pub question: Option<String>,
    /// JSON Schema of the values that are asked for.
    pub schema: Option<Value>,
    /// Names that may answer; without it everybody who may decide.
    pub who: Option<Vec<String>>,
    /// How long it waits: `30m`, `2h`, `3d`; without it for ever.
    pub timeout: Option<String>,
    /// What happens then: `approve`, `reject` or `escalate`.
    pub on_timeout: Option<OnTimeout>,
    /// The values of an approval by time-out.
    #[serde(deserialize_with = "present")]
    pub default: Option<Value>,
    /// Who is asked when nobody answered.
    pub escalate: Option<EscalateDraft>,
}

/// Who is asked when nobody answered.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EscalateDraft {
    /// Names that may answer.
    pub who: Vec<String>,
    /// How long it waits.
    pub timeout: Option<String>,
    /// What happens then: `approve` or `reject`.
    pub on_timeout: Option<OnTimeout>,
}

/// `ask:`; how people are asked about a step of medium or high risk.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AskDraft {
    /// What is asked; without it a sentence that is made from the step.
    pub question: Option<String>,
    /// Names that may answer; without it everybody who may decide.
    pub who: Option<Vec<String>>,
    /// How long it waits: `30m`, `2h`, `3d`; without it for ever.
    pub timeout: Option<String>,
    /// What happens then: `approve`, `reject` or `escalate`.
    pub on_timeout: Option<OnTimeout>,
    /// Who is asked when nobody answered.
    pub escalate: Option<EscalateDraft>,
}

/// `wait:` with more than a duration: one of `for`, `until` and `signal`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WaitDraft {
    /// So long: `10m`, or an expression that gives such a text or seconds.
    #[serde(rename = "for", deserialize_with = "present")]
    #[schemars(schema_with = "text_or_number")]
    pub duration: Option<Value>,
    /// Until a time: RFC 3339, or seconds since 1970.
    #[serde(deserialize_with = "present")]
    #[schemars(schema_with = "text_or_number")]
    pub until: Option<Value>,
    /// Until a signal of this name; its payload is the output.
    pub signal: Option<String>,
    /// Only a signal for which this holds; it reads `signal`.
    #[serde(rename = "where")]
    pub filter: Option<String>,
    /// How long it waits for the signal.
    pub timeout: Option<String>,
    /// What happens then: the step fails (`fail`, the default), or the run goes on without it (`continue`).
    pub on_timeout: Option<OnSilence>,
}

/// What happens when a signal does not come in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnSilence {
    /// The step fails.
    Fail,
    /// The run goes on; the output is null.
    Continue,
}

/// `lock:`; a named resource that the step (the item) holds while it runs, across all runs.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LockDraft {
    /// Its name: `sku:${item.sku}`. Without it only the service's own locks (423, `busy_on`) count.
    pub key: Option<String>,
    /// What happens where it is held: `wait` (default), `skip`, `cancel` or `ask`.
    pub busy: Option<Busy>,
}

/// One line of `risks`: the first line whose conditions all hold says how much is at stake in a call.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyDraft {
    /// Calls of this effect.
    #[serde(default)]
    pub effect: Option<EffectClass>,
    /// Calls of this method.
    #[serde(default)]
    pub method: Option<String>,
    /// More items than this, of the step's `for_each` or of the list in its body.
    #[serde(default)]
    pub items_over: Option<u64>,
    /// Steps that say `reversible: false`, or those that do not.
    #[serde(default)]
    pub reversible: Option<bool>,
    /// `low` runs, `medium` asks yes or no, `high` is reviewed item by item.
    pub risk: Risk,
}

pub(super) fn wait(generator: &mut SchemaGenerator) -> Schema {
    let whole = generator.subschema_for::<WaitDraft>();
    json_schema!({ "anyOf": [{ "type": "string" }, whole] })
}

fn text_or_number(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["string", "number"] })
}

/// Reads a field that is present, so that an explicit `null` differs from an absent field.
pub(super) fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

//! The parts of a workflow file that concern people, time, locks and risk.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::rules::Busy;
use super::{EffectClass, OnTimeout, Risk};

/// `checkpoint:`, which makes the run wait for a person. `steps.NAME.output` holds the values that the person gave,
/// `.approved` whether it was a yes.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CheckpointDraft {
    /// The question. May hold `${ … }`.
    pub question: Option<String>,
    /// JSON Schema of the values that are asked for.
    pub schema: Option<Value>,
    /// Who may answer: names of tokens. Default: everybody who may decide.
    pub who: Option<Vec<String>>,
    /// How long the run waits for an answer: `30m`, `2h`, `3d`. Default: for ever.
    pub timeout: Option<String>,
    /// What happens when nobody has answered by then: `approve`, `reject` or `escalate`.
    pub on_timeout: Option<OnTimeout>,
    /// The values that an approval by time-out gives.
    #[serde(deserialize_with = "present")]
    pub default: Option<Value>,
    /// Who is asked when nobody has answered in time.
    pub escalate: Option<EscalateDraft>,
}

/// Who is asked when nobody has answered in time.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EscalateDraft {
    /// Who may answer: names of tokens.
    pub who: Vec<String>,
    /// How long the run waits for them.
    pub timeout: Option<String>,
    /// What happens when they have not answered by then: `approve` or `reject`.
    pub on_timeout: Option<OnTimeout>,
}

/// `ask:`, how people are asked about a step of medium or high risk.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AskDraft {
    /// The question. Default: a sentence that names the step and its call.
    pub question: Option<String>,
    /// Who may answer: names of tokens. Default: everybody who may decide.
    pub who: Option<Vec<String>>,
    /// How long the run waits for an answer: `30m`, `2h`, `3d`. Default: for ever.
    pub timeout: Option<String>,
    /// What happens when nobody has answered by then: `approve`, `reject` or `escalate`.
    pub on_timeout: Option<OnTimeout>,
    /// Who is asked when nobody has answered in time.
    pub escalate: Option<EscalateDraft>,
}

/// `wait:` with more than a duration: one of `for`, `until` and `signal`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WaitDraft {
    /// A duration: `10m`, or an expression that gives such a text or a number of seconds.
    #[serde(rename = "for", deserialize_with = "present")]
    #[schemars(schema_with = "text_or_number")]
    pub duration: Option<Value>,
    /// The end of the wait: RFC 3339, or seconds since 1970.
    #[serde(deserialize_with = "present")]
    #[schemars(schema_with = "text_or_number")]
    pub until: Option<Value>,
    /// The name of the signal that ends the wait; its payload is the output.
    pub signal: Option<String>,
    /// Only a signal for which this holds ends the wait. The expression reads `signal`.
    #[serde(rename = "where")]
    pub filter: Option<String>,
    /// How long it waits for the signal.
    pub timeout: Option<String>,
    /// What happens when it has not come by then: the step fails (`fail`, the default), or the run goes on without it
    /// (`continue`).
    pub on_timeout: Option<OnSignalTimeout>,
}

/// What happens when a signal does not come in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnSignalTimeout {
    /// The step fails.
    Fail,
    /// The run goes on; the output is null.
    Continue,
}

/// `lock:`, a named resource that the step (each item of it) holds while it runs. At most one step of all runs holds it
/// at a time.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LockDraft {
    /// Its name: `sku:${item.sku}`. Without it only the service's own locks (423, `busy_on`) count.
    pub key: Option<String>,
    /// What happens while a step of another run, or another step or item of this run, holds it: `wait` (default),
    /// `skip`, `cancel` or `ask`.
    pub busy: Option<Busy>,
}

/// One line of `risks`. The first line whose conditions all hold gives the risk of a call.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RiskRuleDraft {
    /// Holds for calls of this effect class.
    #[serde(default)]
    pub effect: Option<EffectClass>,
    /// Holds for calls of this method.
    #[serde(default)]
    pub method: Option<String>,
    /// Holds for calls with more items than this, in the step's `for_each` or in the list in its body.
    #[serde(default)]
    pub items_over: Option<u64>,
    /// `false` holds for steps that say `reversible: false`, `true` for all others.
    #[serde(default)]
    pub reversible: Option<bool>,
    /// `low` runs, `medium` asks yes or no, `high` is reviewed item by item.
    pub risk: Risk,
}

pub(super) fn wait(generator: &mut SchemaGenerator) -> Schema {
    let map = generator.subschema_for::<WaitDraft>();
    json_schema!({ "anyOf": [{ "type": "string" }, map] })
}

fn text_or_number(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["string", "number"] })
}

/// Reads a field that is present, so that an explicit `null` differs from an absent field.
pub(super) fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

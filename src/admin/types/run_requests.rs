//! Requests that start runs or send them commands, answers and signals; what `explain` and errors say about runs.

use std::borrow::Cow;
use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::names::RouteId;
use crate::workflow::RunStatus;

/// Run a workflow.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StartRequest {
    /// The workflow; give either this or `query`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workflow: Option<String>,
    /// A description of the wanted result in plain language. This version has no planner: it answers 501 and lists the
    /// workflows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// The workflow's input, which it reads as `request.body`.
    pub input: Value,
    /// Respond with server-sent events.
    pub stream: bool,
    /// The idempotency key: a repetition with the same key returns the same run. The header `Idempotency-Key` has the
    /// same meaning.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[^\u0000-\u001f\u007f-\u009f]{1,255}$"))]
    pub idempotency_key: Option<String>,
    /// The caller's name, where the listener requires no token: recorded as unverified.
    #[serde(rename = "as", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<PersonName>")]
    pub by: Option<String>,
}

/// A name that a caller gives: 1 to 64 characters, no control characters.
pub(super) struct PersonName;

impl JsonSchema for PersonName {
    fn schema_name() -> Cow<'static, str> {
        "PersonName".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]{1,64}$" })
    }
}

/// Pause or resume a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PauseRequest {
    /// Why; recorded in the audit trail.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "super::free_text::optional")]
    pub reason: Option<String>,
    /// The caller's name, where the listener requires no token.
    #[serde(rename = "as", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<PersonName>")]
    pub by: Option<String>,
}

/// Cancel a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CancelRequest {
    /// Whether finished steps that have an `undo` are undone. Default: true.
    pub compensate: bool,
    /// The reason.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "super::free_text::optional")]
    pub reason: Option<String>,
    /// The caller's name, where the listener requires no token.
    #[serde(rename = "as", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<PersonName>")]
    pub by: Option<String>,
}

impl Default for CancelRequest {
    fn default() -> Self {
        Self { compensate: true, reason: None, by: None }
    }
}

/// Skip a step that has not begun, or that waits for a time, a signal, its next attempt or the resolution of its
/// conflict.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SkipRequest {
    /// The step.
    pub step: String,
    /// The reason.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "super::free_text::optional")]
    pub reason: Option<String>,
    /// The caller's name, where the listener requires no token.
    #[serde(default, rename = "as", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<PersonName>")]
    pub by: Option<String>,
}

/// Replace the input of a step that has not begun.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdjustRequest {
    /// The step.
    pub step: String,
    /// The item of a `for_each` whose items are already known.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "optional_index")]
    pub item: Option<u32>,
    /// The input: the body of a call, the value of a `set`, the input of a `run`.
    pub input: Value,
    /// The reason.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "super::free_text::optional")]
    pub reason: Option<String>,
    /// The caller's name, where the listener requires no token.
    #[serde(default, rename = "as", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<PersonName>")]
    pub by: Option<String>,
}

/// Start the next attempt now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RetryRequest {
    /// The step; without it, all steps that wait for a retry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// With `step`: resolves only a conflict over this attempt, as in `resolve`.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "optional_index")]
    pub attempt: Option<u32>,
    /// The caller's name, where the listener requires no token.
    #[serde(rename = "as", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<PersonName>")]
    pub by: Option<String>,
}

/// Run a job again from a step: a new run takes over the results of the steps that do not depend on this step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RerunRequest {
    /// The step that is run again, together with the steps that depend on it.
    pub from: String,
    /// The caller's name, where the listener requires no token.
    #[serde(default, rename = "as", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<PersonName>")]
    pub by: Option<String>,
}

/// Resolve a conflict.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResolveRequest {
    /// The step.
    pub step: String,
    /// The item of a `for_each`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "optional_index")]
    pub item: Option<u32>,
    /// The attempt that the conflict is about, as the run shows it. If the open conflict is about another attempt by
    /// now, the request is refused with 409. Without `attempt`, a request that is delivered twice may also resolve the
    /// step's next conflict.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "optional_index")]
    pub attempt: Option<u32>,
    /// How to resolve the conflict.
    pub choice: ChoiceName,
    /// For `retry_with`: the body or value to send.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[schemars(with = "Value")]
    pub input: Option<Value>,
    /// For `take`: the step's output.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[schemars(with = "Value")]
    pub output: Option<Value>,
    /// For `cancel`: whether finished steps that have an `undo` are undone. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compensate: Option<bool>,
    /// The reason.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "super::free_text::optional")]
    pub reason: Option<String>,
    /// The caller's name, where the listener requires no token.
    #[serde(default, rename = "as", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<PersonName>")]
    pub by: Option<String>,
}

/// Reads an explicit `null` as a value, unlike an absent field.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// Reads an index in a list. JSON clients may write it as `3.0`, which is the same number.
fn index<E: serde::de::Error>(number: &serde_json::Number) -> Result<u32, E> {
    let index = number.as_u64().or_else(|| {
        let float = number.as_f64().filter(|float| float.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(float));
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // whole, and within its bounds
        float.map(|float| float as u64)
    });
    index
        .and_then(|index| u32::try_from(index).ok())
        .ok_or_else(|| E::custom(format!("{number} is not an index in a list")))
}

fn optional_index<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    Option::<serde_json::Number>::deserialize(deserializer)?.as_ref().map(index).transpose()
}

fn indexes<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<u32>, D::Error> {
    Vec::<serde_json::Number>::deserialize(deserializer)?.iter().map(index).collect()
}

/// The ways to resolve a conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChoiceName {
    /// Another attempt, with the same bytes and idempotency key.
    Retry,
    /// Another attempt with another input, under a new idempotency key.
    RetryWith,
    /// The step is skipped, and so are the steps that need it.
    Skip,
    /// The step counts as done, with this output.
    Take,
    /// The step's declared fallback runs instead.
    Fallback,
    /// For a lock that another run holds: wait for it.
    Wait,
    /// The run is cancelled.
    Cancel,
    /// The run is cancelled, and effects that are not undone yet are left as they are.
    CancelWithoutUndo,
}

/// An answer to a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AnswerRequest {
    /// Yes or no. Default: yes if `values`, `approved` or `struck` is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approve: Option<bool>,
    /// The values that were asked for: they become the step's output.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[schemars(with = "Value")]
    pub values: Option<Value>,
    /// For a review: the indexes of the items that may be performed.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "indexes")]
    pub approved: Vec<u32>,
    /// For a review: the indexes of the items that are struck out.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "indexes")]
    pub struck: Vec<u32>,
    /// A comment, recorded with the answer.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "super::free_text::optional")]
    pub note: Option<String>,
    /// The caller's name, where the listener requires no token.
    #[serde(rename = "as", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<PersonName>")]
    pub by: Option<String>,
}

/// Deliver a signal.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SignalRequest {
    /// The payload.
    pub payload: Value,
    /// The id of the delivery: a second delivery with the same id changes nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[^\u0000-\u001f\u007f-\u009f]{1,255}$"))]
    pub id: Option<String>,
    /// The caller's name, where the listener requires no token.
    #[serde(rename = "as", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<PersonName>")]
    pub by: Option<String>,
}

/// Which version of its route's workflow a run has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RunVersion {
    /// The plan in force.
    InForce,
    /// The candidate.
    Candidate,
    /// Another one: it was in force, or a candidate, earlier.
    Earlier,
}

/// What a run waits for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ExplanationView {
    /// The run.
    pub run_id: String,
    /// The run's status.
    pub status: RunStatus,
    /// The plan that it keeps.
    #[serde(default)]
    pub plan_id: String,
    /// Of a run that a route in `live` or above began: which version of its workflow that is now; `null` if that is not
    /// known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<RunVersion>,
    /// The route that began it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<RouteId>,
    /// What the run waits for, since when, and what would resume it.
    pub sentence: String,
    /// Each thing that the run waits for.
    pub waits: Vec<String>,
    /// When the run's next timer fires.
    pub wake: Option<Timestamp>,
    /// Whether this process cannot resume the run.
    pub stuck: bool,
}

/// The number of runs that have not ended, by status.
pub type RunCounts = BTreeMap<RunStatus, u64>;

/// What is wrong with a value, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ValueError {
    /// A JSON pointer into what was sent.
    pub pointer: String,
    /// What is wrong there.
    pub detail: String,
}

/// The earlier answer to a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FirstAnswer {
    /// Who gave the answer.
    pub by: String,
    /// When the answer was given.
    pub at: Option<Timestamp>,
    /// The sequence number of the answer's event.
    pub seq: u64,
    /// Yes or no.
    pub approve: bool,
    /// The values.
    pub values: Value,
    /// For a review: what may be performed.
    pub approved: Vec<u32>,
    /// For a review: what was struck out.
    pub struck: Vec<u32>,
    /// The comment.
    pub note: Option<String>,
}

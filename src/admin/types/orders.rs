//! What the API is told about runs: starts, orders, answers, signals.

use std::borrow::Cow;
use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::workflow::RunStatus;

/// A wish to run a workflow.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RunAsk {
    /// Which; either this or `query`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workflow: Option<String>,
    /// What is wanted, in words: this version has no planner and answers with 501 and the workflows there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// The body of the workflow's request.
    pub input: Value,
    /// Answer with server-sent events.
    pub stream: bool,
    /// Names the wish: asked again with it, the same run answers. The header `Idempotency-Key` says the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[^\u0000-\u001f\u007f-\u009f]{1,255}$"))]
    pub idempotency_key: Option<String>,
    /// Who, where the listener needs no token: recorded as unverified.
    #[serde(rename = "as", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<PersonName>")]
    pub by: Option<String>,
}

/// A name as somebody gives it: 1 to 64 characters, none that control.
pub(super) struct PersonName;

impl JsonSchema for PersonName {
    fn schema_name() -> Cow<'static, str> {
        "PersonName".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]{1,64}$" })
    }
}

/// Pause or go on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PlainAsk {
    /// Why; stands in the audit trail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who, where the listener needs no token.
    #[serde(rename = "as", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<PersonName>")]
    pub by: Option<String>,
}

/// End a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CancelAsk {
    /// What is done and has an `undo` is undone first. Default: yes.
    pub compensate: bool,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who, where the listener needs no token.
    #[serde(rename = "as", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<PersonName>")]
    pub by: Option<String>,
}

impl Default for CancelAsk {
    fn default() -> Self {
        Self { compensate: true, reason: None, by: None }
    }
}

/// Skip a step that has not begun.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SkipAsk {
    /// Which.
    pub step: String,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who, where the listener needs no token.
    #[serde(default, rename = "as", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<PersonName>")]
    pub by: Option<String>,
}

/// Give a step that has not begun another input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdjustAsk {
    /// Which.
    pub step: String,
    /// The item of a `for_each` that has opened.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "whole")]
    pub item: Option<u32>,
    /// The input: the body of a call, the value of a `set`, the input of a `run`.
    pub input: Value,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who, where the listener needs no token.
    #[serde(default, rename = "as", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<PersonName>")]
    pub by: Option<String>,
}

/// Start the next attempt now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RetryAsk {
    /// Of which step; without it, of all that wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Who, where the listener needs no token.
    #[serde(rename = "as", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<PersonName>")]
    pub by: Option<String>,
}

/// Run again from a step: another run of the same job takes over the results before it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RerunAsk {
    /// From which.
    pub from: String,
    /// Who, where the listener needs no token.
    #[serde(default, rename = "as", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<PersonName>")]
    pub by: Option<String>,
}

/// Decide a conflict.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResolveAsk {
    /// The step.
    pub step: String,
    /// The item of a `for_each`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "whole")]
    pub item: Option<u32>,
    /// How.
    pub choice: ChoiceName,
    /// Of `retry_with`: the body or value to try with.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[schemars(with = "Value")]
    pub input: Option<Value>,
    /// Of `take`: the step's output.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[schemars(with = "Value")]
    pub output: Option<Value>,
    /// Of `cancel`: what is done and has an `undo` is undone first. Default: yes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compensate: Option<bool>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who, where the listener needs no token.
    #[serde(default, rename = "as", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<PersonName>")]
    pub by: Option<String>,
}

/// `null` that is written is a value.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// A place, also where it is written as `3.0`: of JSON that is the same number.
fn place<E: serde::de::Error>(number: &serde_json::Number) -> Result<u32, E> {
    let place = number.as_u64().or_else(|| {
        let float = number.as_f64().filter(|float| float.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(float));
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // whole, and within its bounds
        float.map(|float| float as u64)
    });
    place
        .and_then(|place| u32::try_from(place).ok())
        .ok_or_else(|| E::custom(format!("{number} is no place in a list")))
}

fn whole<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    Option::<serde_json::Number>::deserialize(deserializer)?.as_ref().map(place).transpose()
}

fn wholes<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<u32>, D::Error> {
    Vec::<serde_json::Number>::deserialize(deserializer)?.iter().map(place).collect()
}

/// How a conflict may be decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChoiceName {
    /// Another attempt, with the same bytes and key.
    Retry,
    /// Another attempt with this input, under a new key.
    RetryWith,
    /// The step is skipped, and so is what needs it.
    Skip,
    /// The step is done, with this output.
    Take,
    /// The declared fallback takes its place.
    Fallback,
    /// Of a lock that is held: wait for it.
    Wait,
    /// The run is cancelled.
    Cancel,
}

/// An answer to a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AnswerAsk {
    /// Yes or no. Without it: yes, where `values`, `approved` or `struck` are given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approve: Option<bool>,
    /// What was asked for: the step's output.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[schemars(with = "Value")]
    pub values: Option<Value>,
    /// Of a review: the places that may be performed.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "wholes")]
    pub approved: Vec<u32>,
    /// Of a review: the places that are struck out.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "wholes")]
    pub struck: Vec<u32>,
    /// A remark.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Who, where the listener needs no token.
    #[serde(rename = "as", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<PersonName>")]
    pub by: Option<String>,
}

/// A signal.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SignalAsk {
    /// What it carries.
    pub payload: Value,
    /// Names the delivery: a second one under the same id changes nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[^\u0000-\u001f\u007f-\u009f]{1,255}$"))]
    pub id: Option<String>,
    /// Who, where the listener needs no token.
    #[serde(rename = "as", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<PersonName>")]
    pub by: Option<String>,
}

/// What a run waits for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ExplanationView {
    /// The run.
    pub run_id: String,
    /// Where it stands.
    pub status: RunStatus,
    /// What it waits for, since when, and what would move it.
    pub sentence: String,
    /// Each cause of its next step.
    pub waits: Vec<String>,
    /// When it wants to be looked at again, where nothing else moves it before.
    pub wake: Option<Timestamp>,
    /// Nothing would ever move it: a bug.
    pub stuck: bool,
}

/// Runs that have not ended, by status.
pub type RunCounts = BTreeMap<RunStatus, u64>;

/// What is wrong with a value, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ValueError {
    /// A JSON pointer into what was sent.
    pub pointer: String,
    /// What is wrong there.
    pub detail: String,
}

/// The answer that a checkpoint has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FirstAnswer {
    /// Who gave it.
    pub by: String,
    /// When.
    pub at: Option<Timestamp>,
    /// The place of its event.
    pub seq: u64,
    /// Yes or no.
    pub approve: bool,
    /// The values.
    pub values: Value,
    /// Of a review: what may be performed.
    pub approved: Vec<u32>,
    /// Of a review: what was struck out.
    pub struck: Vec<u32>,
    /// The remark.
    pub note: Option<String>,
}

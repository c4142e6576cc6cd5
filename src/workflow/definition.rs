//! What a workflow file may say: the shape that people write and that JSON Schema describes.
//!
//! Always true: a draft has the right keys and types and nothing more; sense is judged by [`super::check`].

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::drafts::{AskDraft, CheckpointDraft, LockDraft, PolicyDraft, present, wait};
use super::rules::OnReject;
use super::{EffectClass, OnTrouble};

/// A workflow: steps that run as soon as all they need is done, and what the caller gets.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WorkflowDraft {
    /// The name that routes and the API use.
    pub workflow: String,
    /// What the request must look like.
    #[serde(default)]
    pub input: Option<InputDraft>,
    /// How long a run may take, all told: then it ends early, and what was done is undone. `90s`, `2h`.
    #[serde(default)]
    pub deadline: Option<String>,
    /// Where a message goes when a run pauses or asks a person: `${services.ops}/hooks`. The path may read `run`.
    #[serde(default)]
    pub notify: Option<String>,
    /// How much is at stake in a call that does not say so itself (`risk`): the first line that fits.
    #[serde(default)]
    pub risks: Vec<PolicyDraft>,
    /// Steps by name.
    #[schemars(schema_with = "steps")]
    pub steps: Map<String, Value>,
    /// Required. What the caller gets: one entry, or a list of which the first is taken whose `after` steps have ended and whose
    /// `when` holds.
    #[serde(default, deserialize_with = "present")]
    #[schemars(schema_with = "respond")]
    pub respond: Option<Value>,
}

/// What the request must look like.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct InputDraft {
    /// JSON Schema of the request's body.
    pub schema: Option<Value>,
    /// JSONPaths in the request's body whose values are not written down in clear: `[$.card.number]`.
    pub sensitive: Vec<String>,
    /// Headers of the request, and of replies, whose values are not written down in clear.
    pub sensitive_headers: Vec<String>,
}

/// One step: exactly one of `call`, `set`, `checkpoint`, `wait`, `run` and `fail`. Every string may hold `${ … }`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StepDraft {
    /// An HTTP call: `POST ${services.stock}/reservations`.
    pub call: Option<String>,
    /// Computes a value.
    #[serde(deserialize_with = "present")]
    pub set: Option<Value>,
    /// Ends the run with this answer.
    pub fail: Option<AnswerDraft>,

    /// Waits for a person.
    pub checkpoint: Option<CheckpointDraft>,
    /// Waits: `10m`, or for one of `for`, `until` and `signal`.
    #[serde(deserialize_with = "present")]
    #[schemars(schema_with = "wait")]
    pub wait: Option<Value>,
    /// Runs another workflow; its answer's body is the output.
    pub run: Option<String>,
    /// The body of the other workflow's request.
    #[serde(deserialize_with = "present")]
    pub input: Option<Value>,

    /// Steps that must have ended before, beside those that expressions read.
    pub needs: Vec<String>,
    /// Runs although some of what it needs was skipped.
    pub needs_any: bool,
    /// Skipped where this is false, and so is what needs it.
    #[serde(rename = "if")]
    pub condition: Option<String>,
    /// Once for each element of a list: `item` and `index` are its.
    #[serde(deserialize_with = "present")]
    #[schemars(schema_with = "list_or_text")]
    pub for_each: Option<Value>,
    /// Items under way at the same time.
    pub concurrency: Option<u64>,
    /// What an item that fails means for the others: `fail_fast` (default) begins no more of them; `collect` goes on,
    /// and `steps.NAME.errors` lists what failed.
    pub failures: Option<FailuresDraft>,

    /// What the call does to the world. Default `read` for GET, HEAD and OPTIONS, else `shared`.
    pub effect: Option<EffectClass>,
    /// JSONPaths in the step's output whose values are not written down in clear: `[$.access_token]`. Of a `for_each`,
    /// in each item's.
    pub sensitive: Vec<String>,
    /// Headers of the call. They may read `secrets`.
    #[schemars(schema_with = "fields")]
    pub headers: Map<String, Value>,
    /// The body as JSON.
    #[serde(deserialize_with = "present")]
    pub body: Option<Value>,
    /// The body as a form.
    #[schemars(schema_with = "fields")]
    pub form: Option<Map<String, Value>>,
    /// The body as text.
    pub text: Option<String>,
    /// The body of the request, byte by byte: `${request.raw}`.
    pub raw: Option<String>,
    /// How often the call is tried, and how far apart.
    pub retry: Option<RetryDraft>,
    /// How long one attempt may take: `800ms`, `2s`, `1m`.
    pub timeout: Option<String>,
    /// Statuses that are a result and not a failure: `[2xx, 402]`. Default `[2xx]`.
    #[schemars(schema_with = "statuses")]
    pub accept: Option<Vec<Value>>,
    /// Statuses that say for certain that nothing was done, beside 429.
    #[schemars(schema_with = "statuses")]
    pub not_done: Option<Vec<Value>>,
    /// The output where the call is rehearsed and not sent. May read `legacy`.
    #[serde(deserialize_with = "present")]
    pub rehearse: Option<Value>,
    /// A read that sees the world after legacy acted.
    pub volatile: bool,

    /// How much is at stake: `low`, `medium`, `high`, or an expression that gives one of them.
    pub risk: Option<String>,
    /// `false`: what it does cannot be taken back.
    pub reversible: Option<bool>,
    /// How people are asked about a step of medium or high risk.
    pub ask: Option<AskDraft>,
    /// What a no does: the step fails (`fail`, the default), or it is skipped (`skip`).
    pub on_reject: Option<OnReject>,
    /// What the step (the item) holds while it runs.
    pub lock: Option<LockDraft>,
    /// Statuses of the service that say that something is locked there, beside 423.
    #[schemars(schema_with = "statuses")]
    pub busy_on: Option<Vec<Value>>,

    /// How long all attempts of one call and the pauses between them may take together.
    pub deadline: Option<String>,
    /// What the output has to be.
    pub output: Option<OutputDraft>,
    /// After 409, 412 and 422: `pause`, and a person decides, or `fail`. Default `pause` where the API started the run,
    /// `fail` where a route did.
    pub on_conflict: Option<OnTrouble>,
    /// When the call fails for good: `fail` (default), or `pause`, and a person decides.
    pub on_failure: Option<OnTrouble>,
    /// Another step that takes this one's place when it certainly did nothing; of a `for_each` the place of single
    /// items.
    pub fallback: Option<String>,
    /// It runs only as another step's `fallback`.
    pub fallback_only: bool,
    /// Asks the service whether an attempt took place of which that is unknown.
    pub probe: Option<ProbeDraft>,
    /// Takes back what the step did, when the run ends early: a call, as text or with headers, body and so on. It sees
    /// the step's `output` and `status`.
    #[schemars(schema_with = "undo")]
    pub undo: Option<Value>,
}

/// What an item of a `for_each` that fails means for the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailuresDraft {
    /// No more of them begin, and the step fails.
    FailFast,
    /// They go on, and the step is done.
    Collect,
}

/// What a step's output has to be.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OutputDraft {
    /// JSON Schema of the output; of a `for_each`, of each item's.
    pub schema: Option<Value>,
}

/// `undo:` in full.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct UndoDraft {
    /// The call: `DELETE ${services.stock}/reservations/${output.id}`.
    pub call: Option<String>,
    /// Headers of the call. They may read `secrets`.
    #[schemars(schema_with = "fields")]
    pub headers: Map<String, Value>,
    /// The body as JSON.
    #[serde(deserialize_with = "present")]
    pub body: Option<Value>,
    /// How often the call is tried, and how far apart.
    pub retry: Option<RetryDraft>,
    /// How long one attempt may take.
    pub timeout: Option<String>,
    /// Statuses that say that it is undone. Default `[2xx]`, and of a DELETE also 404 and 410.
    #[schemars(schema_with = "statuses")]
    pub accept: Option<Vec<Value>>,
}

/// `probe:` asks whether an unknown attempt took place.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ProbeDraft {
    /// The call: `GET ${services.bank}/charges?key=${key}`; `key` is the attempt's `Idempotency-Key`.
    pub call: Option<String>,
    /// Headers of the call. They may read `secrets`.
    #[schemars(schema_with = "fields")]
    pub headers: Map<String, Value>,
    /// How often the call is tried, and how far apart.
    pub retry: Option<RetryDraft>,
    /// How long one attempt may take.
    pub timeout: Option<String>,
    /// Statuses that `done` may judge. Default `[2xx, 404]`.
    #[schemars(schema_with = "statuses")]
    pub accept: Option<Vec<Value>>,
    /// How long after the attempt it asks first. Default `1s`.
    pub after: Option<String>,
    /// How long after it left an attempt may still take effect: until then a "no" is not believed and asked for again,
    /// while a "yes" counts at once. Default `30s`; never less than the step's `timeout`.
    pub settles: Option<String>,
    /// Whether the attempt took place; sees `output`, `status` and `headers` of what the probe got. Without a value
    /// nobody knows, and a person decides.
    pub done: Option<String>,
    /// The step's output, where it did. Default: what the probe got.
    #[serde(deserialize_with = "present")]
    pub output: Option<Value>,
}

/// `retry:`; exponential, with full jitter.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RetryDraft {
    /// Attempts in all. Default 3.
    pub attempts: Option<u64>,
    /// The first pause is at most this long. Default `50ms`.
    pub base: Option<String>,
    /// No pause is longer. Default `2s`.
    pub max: Option<String>,
}

/// An answer to the caller.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AnswerDraft {
    /// A number, or an expression that gives one.
    #[serde(deserialize_with = "present")]
    #[schemars(schema_with = "status")]
    pub status: Option<Value>,
    /// Headers.
    #[schemars(schema_with = "fields")]
    pub headers: Map<String, Value>,
    /// The body as JSON.
    #[serde(deserialize_with = "present")]
    pub body: Option<Value>,
}

/// One entry of `respond`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RespondDraft {
    /// Taken only where this holds. May read `failed` (`step`, `status`, `error`) and `input_error`.
    pub when: Option<String>,
    /// Taken as soon as these have ended, while the run goes on; without it, when every step has.
    pub after: Option<Vec<String>>,
    /// A number, or an expression that gives one. Default 200.
    #[serde(deserialize_with = "present")]
    #[schemars(schema_with = "status")]
    pub status: Option<Value>,
    /// Headers.
    #[schemars(schema_with = "fields")]
    pub headers: Map<String, Value>,
    /// The body as JSON.
    #[serde(deserialize_with = "present")]
    pub body: Option<Value>,
    /// What the caller gets while the run goes on without an answer. It stands in one entry, or is one by itself.
    pub pending: Option<AnswerDraft>,
}

fn steps(generator: &mut SchemaGenerator) -> Schema {
    let step = generator.subschema_for::<StepDraft>();
    json_schema!({ "type": "object", "additionalProperties": step })
}

fn respond(generator: &mut SchemaGenerator) -> Schema {
    let entry = generator.subschema_for::<RespondDraft>();
    json_schema!({ "anyOf": [entry, { "type": "array", "items": entry }] })
}

fn undo(generator: &mut SchemaGenerator) -> Schema {
    let undo = generator.subschema_for::<UndoDraft>();
    json_schema!({ "anyOf": [{ "type": "string" }, undo] })
}

fn fields(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "additionalProperties": { "type": ["string", "number", "boolean"] } })
}

fn status(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["integer", "string"] })
}

fn statuses(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "items": { "type": ["integer", "string"] } })
}

fn list_or_text(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["string", "array"] })
}

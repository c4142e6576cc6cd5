//! The shape of a workflow file, as people write it and as the published JSON Schema describes it.
//!
//! Always true: a draft has only known keys, with values of the right types. [`super::check`] examines everything else.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::drafts::{AskDraft, CheckpointDraft, LockDraft, RiskRuleDraft, present, wait};
use super::rules::OnReject;
use super::{EffectClass, PauseOrFail};

/// A workflow: steps that run as soon as all they need is done, and what the caller gets.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WorkflowDraft {
    /// The name that routes and the API use.
    pub workflow: String,
    /// What the request's body has to be, and which parts of the request are sensitive.
    #[serde(default)]
    pub input: Option<InputDraft>,
    /// How long a run may take in all: `90s`, `2h`. After that it ends early, and what was done is undone.
    #[serde(default)]
    pub deadline: Option<String>,
    /// Where a message is posted when a run pauses or asks a person: `${services.ops}/hooks`. The path may read `run`.
    #[serde(default)]
    pub notify: Option<String>,
    /// Of a workflow that adopts instances of legacy and has no step with `release: true`: why legacy need not be told.
    #[serde(default)]
    pub legacy_passive: Option<LegacyPassiveDraft>,
    /// Values that a rehearsal in `shadow` takes from legacy in place of those that it would draw itself.
    #[serde(default)]
    pub inject: Option<InjectDraft>,
    /// The risk of calls whose step declares no `risk`: the first line whose conditions all hold counts.
    #[serde(default)]
    pub risks: Vec<RiskRuleDraft>,
    /// Steps by name.
    #[schemars(schema_with = "steps")]
    pub steps: Map<String, Value>,
    /// Required. The answer to the caller: one entry, or a list. The first entry whose `after` steps have ended and
    /// whose `when` holds is taken.
    #[serde(default, deserialize_with = "present")]
    #[schemars(schema_with = "respond")]
    pub respond: Option<Value>,
}

/// Legacy does nothing of its own with the instances of a family: it only answers requests about them.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LegacyPassiveDraft {
    /// Why that is so; shown to people.
    pub reason: String,
}

/// Values that a rehearsal in `shadow` takes from legacy: expressions that read `legacy` and `request`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct InjectDraft {
    /// What `now` is: `${legacy.body.created_at}`.
    pub now: Option<String>,
    /// What `uuid("NAME")` is, by name.
    pub uuid: BTreeMap<String, String>,
    /// What `random("NAME")` is, by name.
    pub random: BTreeMap<String, String>,
}

/// What the request's body has to be, and which parts of the request are sensitive.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct InputDraft {
    /// JSON Schema of the request's body.
    pub schema: Option<Value>,
    /// JSONPaths in the request's body whose values are never stored or shown in clear: `[$.card.number]`.
    pub sensitive: Vec<String>,
    /// Headers of the request, and of replies, whose values are never stored or shown in clear.
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
    /// Waits: for a duration (`10m`), or for one of `for`, `until` and `signal`.
    #[serde(deserialize_with = "present")]
    #[schemars(schema_with = "wait")]
    pub wait: Option<Value>,
    /// Runs another workflow. The body of that run's answer is the step's output.
    pub run: Option<String>,
    /// The body of the request to the workflow that a `run` step runs.
    #[serde(deserialize_with = "present")]
    pub input: Option<Value>,

    /// Steps that must end before this one begins, in addition to those that its expressions read.
    pub needs: Vec<String>,
    /// The step runs even if some of what it needs was skipped, but not if all was.
    pub needs_any: bool,
    /// Where this is false, the step is skipped, and so is what needs it.
    #[serde(rename = "if")]
    pub condition: Option<String>,
    /// Runs the step once for each element of a list. Expressions read the element as `item` and its place as `index`.
    #[serde(deserialize_with = "present")]
    #[schemars(schema_with = "list_or_text")]
    pub for_each: Option<Value>,
    /// How many items may be under way at the same time.
    pub concurrency: Option<u64>,
    /// What happens to the other items when one fails: with `fail_fast` (default) no more of them begin; with `collect`
    /// they go on, and `steps.NAME.errors` lists what failed.
    pub failures: Option<FailuresDraft>,

    /// What the call does to the world. Default `read` for GET, HEAD and OPTIONS, else `shared`.
    pub effect: Option<EffectClass>,
    /// `true` on the call by which a workflow that adopts instances (`instance.adopt`) tells legacy to release one.
    pub release: bool,
    /// JSONPaths in the step's output whose values are never stored or shown in clear: `[$.access_token]`. Of a
    /// `for_each`, in the output of each item.
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
    /// The bytes of the caller's body as they came: `${request.raw}`.
    pub raw: Option<String>,
    /// The number of attempts, and the pauses between them.
    pub retry: Option<RetryDraft>,
    /// How long one attempt may take: `800ms`, `2s`, `1m`.
    pub timeout: Option<String>,
    /// Statuses that are a result and not a failure: `[2xx, 402]`. Default `[2xx]`.
    #[schemars(schema_with = "statuses")]
    pub accept: Option<Vec<Value>>,
    /// Statuses by which the service says for certain that nothing was done, in addition to 429.
    #[schemars(schema_with = "statuses")]
    pub not_done: Option<Vec<Value>>,
    /// The output where the call is rehearsed instead of sent. May read `legacy`. The text `legacy` alone: the reply
    /// that legacy got to the corresponding call that it made through the egress listener.
    #[serde(deserialize_with = "present")]
    pub rehearse: Option<Value>,
    /// `true` on a read: the body of its reply goes to the caller while the service sends it, as the whole body of the
    /// answer. For routes with `keep: none`.
    pub stream: bool,
    /// `true` on a read whose reply may change once legacy has acted: differences that result from this are of kind
    /// `stale_read`.
    pub volatile: bool,

    /// The risk of the step: `low`, `medium`, `high`, or an expression that gives one of them.
    pub risk: Option<String>,
    /// `false` says that what the step does cannot be undone.
    pub reversible: Option<bool>,
    /// How people are asked about a step of medium or high risk.
    pub ask: Option<AskDraft>,
    /// What happens when a person rejects it: the step fails (`fail`, the default), or is skipped (`skip`).
    pub on_reject: Option<OnReject>,
    /// A lock that the step (each item of it) holds while it runs.
    pub lock: Option<LockDraft>,
    /// Statuses by which the service says that something is locked there, in addition to 423.
    #[schemars(schema_with = "statuses")]
    pub busy_on: Option<Vec<Value>>,

    /// How long all attempts of one call and the pauses between them may take together.
    pub deadline: Option<String>,
    /// What the step's output has to be.
    pub output: Option<OutputDraft>,
    /// After 409, 412 and 422: `pause`, and a person decides, or `fail`. Default `pause` where the API started the run,
    /// `fail` where a route did.
    pub on_conflict: Option<PauseOrFail>,
    /// When the call fails for good: `fail` (default), or `pause`, and a person decides.
    pub on_failure: Option<PauseOrFail>,
    /// Another step that runs in place of this one when this one certainly did nothing; of a `for_each`, in place of
    /// single items.
    pub fallback: Option<String>,
    /// The step runs only as another step's `fallback`.
    pub fallback_only: bool,
    /// A call that asks the service whether an attempt with unknown outcome took effect.
    pub probe: Option<ProbeDraft>,
    /// A call that reverses what the step did, when the run ends early: as text, or with headers, body and so on. Its
    /// expressions read the step's `output` and `status`.
    #[schemars(schema_with = "undo")]
    pub undo: Option<Value>,
}

/// What happens to the other items of a `for_each` when one fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailuresDraft {
    /// No more of them begin, and the step fails.
    FailFast,
    /// They go on, and the step is done with what succeeded.
    Collect,
}

/// What a step's output has to be.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OutputDraft {
    /// JSON Schema of the output; of a `for_each`, of each item's.
    pub schema: Option<Value>,
}

/// `undo:` as a map.
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
    /// The number of attempts, and the pauses between them.
    pub retry: Option<RetryDraft>,
    /// How long one attempt may take.
    pub timeout: Option<String>,
    /// Statuses that mean that the step is undone. Default `[2xx]`; for a DELETE also 404 and 410.
    #[schemars(schema_with = "statuses")]
    pub accept: Option<Vec<Value>>,
}

/// `probe:`, a call that asks whether an attempt with unknown outcome took effect.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ProbeDraft {
    /// The call: `GET ${services.bank}/charges?key=${key}`; `key` is the attempt's `Idempotency-Key`.
    pub call: Option<String>,
    /// Headers of the call. They may read `secrets`.
    #[schemars(schema_with = "fields")]
    pub headers: Map<String, Value>,
    /// The number of attempts, and the pauses between them.
    pub retry: Option<RetryDraft>,
    /// How long one attempt may take.
    pub timeout: Option<String>,
    /// Statuses that `done` may judge. Default `[2xx, 404]`.
    #[schemars(schema_with = "statuses")]
    pub accept: Option<Vec<Value>>,
    /// How long after the attempt the first probe is sent. Default `1s`.
    pub after: Option<String>,
    /// For how long after it was sent an attempt may take effect. Until then a "no" does not count and the probe is
    /// repeated; a "yes" counts at once. Default `30s`; never less than the step's `timeout`.
    pub settles: Option<String>,
    /// Whether the attempt took effect; reads `output`, `status` and `headers` of the probe's reply. If it has no
    /// value, a person decides.
    pub done: Option<String>,
    /// The step's output where the attempt took effect. Default: the output of the probe.
    #[serde(deserialize_with = "present")]
    pub output: Option<Value>,
}

/// `retry:`, with exponential pauses and full jitter.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RetryDraft {
    /// Attempts in all. Default 3.
    pub attempts: Option<u64>,
    /// The first pause is at most this long, and each later one at most twice the one before. Default `50ms`.
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
    /// The entry is taken only where this holds. May read `failed` (`step`, `status`, `error`) and `input_error`.
    pub when: Option<String>,
    /// The entry is taken as soon as these steps have ended, while the run goes on; without `after`, when every step
    /// has ended.
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
    /// The answer to the caller where the run goes on without its final answer. At most one entry declares it, together
    /// with its own answer or without one.
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

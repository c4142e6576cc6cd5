//! The envelope: the JSON document in which the API shows a run.
//!
//! Always true: requests and responses in the envelope are redacted. Except for `trouble`, `waits` and the job's
//! `mode`, the envelope is computed from the events of the run and of its descendants, the plan, and the route in the
//! files.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::names::{PlanId, RouteId, WorkflowName};
use crate::workflow::{CheckpointKind, ConflictKind, FailureKind, Mode, OnTimeout, Risk, RunStatus, StepPart};

/// A run, in an envelope.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Orchestration {
    /// The type of this object.
    pub object: OrchestrationObject,
    /// The run.
    pub data: RunData,
}

/// `orchestration`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // a constant of the format
pub enum OrchestrationObject {
    Orchestration,
}

/// A run in full.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunData {
    /// The job, `job_…`: one or several runs for the same result.
    pub job_id: String,
    /// The run, `run_…`.
    pub run_id: String,
    /// The plan that the run was started with and keeps.
    pub plan_id: PlanId,
    /// The run's status.
    pub status: RunStatus,
    /// The job.
    pub job: JobPart,
    /// The run.
    pub run: RunPart,
    /// The steps in the order in which they began, then those that have not begun.
    pub steps: Vec<StepRow>,
    /// The first checkpoint that waits for an answer: of this run, or else of a run that it started.
    pub pending_checkpoint: Option<PendingCheckpoint>,
    /// All checkpoints that wait for an answer: those of this run, then those of runs that this run started (of at most
    /// a hundred such runs).
    pub checkpoints: Vec<PendingCheckpoint>,
    /// All conflicts that wait for a decision, in the same order.
    pub conflicts: Vec<OpenConflict>,
    /// The body of the run's reply.
    pub output: Value,
    /// If the run ends early: what happened to the effects that it performed, the last one first, then to the effects
    /// that it may have performed.
    pub undone: Vec<UndoRow>,
    /// Why the run ended early.
    pub error: Option<RunError>,
    /// What the run waits for. Only in the response to a cancel whose undoing is delayed by the kill switch; else left
    /// out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits: Vec<String>,
    /// Why this process cannot execute the run, or cannot read its events. If the events cannot be read, only the
    /// fields that a list of runs has are filled. Left out if the process can do both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// The request that started the run.
    pub audit_receipt: AuditReceipt,
    /// The paths of this run.
    pub links: Links,
}

/// The job of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JobPart {
    /// The type of this object.
    pub object: JobObject,
    /// `job_…`.
    pub id: String,
    /// The kind of job.
    pub kind: JobKind,
    /// The status of the run that is shown.
    pub status: RunStatus,
    /// The form of this response.
    pub mode: Delivery,
    /// Whether the job survives a restart.
    pub durability: Durability,
    /// The run that is shown.
    pub run_id: String,
}

/// `job`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // a constant of the format
pub enum JobObject {
    Job,
}

/// `orchestration`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // a constant of the format
pub enum JobKind {
    Orchestration,
}

/// The form of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// One JSON document.
    Sync,
    /// Server-sent events.
    Stream,
}

/// Whether a run survives a restart: a run that the API shows is always in the store. (A store in memory does not
/// survive one itself.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // a constant of the format
pub enum Durability {
    Persisted,
}

/// The facts of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunPart {
    /// The type of this object.
    pub object: RunObject,
    /// `run_…`.
    pub id: String,
    /// The run's job.
    pub job_id: String,
    /// The run's status.
    pub status: RunStatus,
    /// Which effects the run may perform.
    pub mode: Mode,
    /// The plan that the run was started with and keeps.
    pub plan_id: PlanId,
    /// The workflow.
    pub workflow: WorkflowName,
    /// The route that started the run.
    pub route: Option<RouteId>,
    /// The run that started this run as one of its steps.
    pub parent: Option<String>,
    /// The run whose results this run took over.
    pub rerun_of: Option<String>,
    /// Who started the run, if no route did.
    pub started_by: Option<String>,
    /// When the run was started.
    pub started: Timestamp,
    /// When the run's last event happened.
    pub updated: Timestamp,
    /// The sequence number of the run's last event.
    pub seq: u64,
    /// Why the run is paused or ended early.
    pub note: Option<String>,
}

/// `run`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // a constant of the format
pub enum RunObject {
    Run,
}

/// A step of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StepRow {
    /// The step.
    pub step_id: String,
    /// `running`, `waiting`, `done` and so on; `pending` if the step has not begun, `not_run` if the run ended without
    /// it.
    pub status: String,
    /// When the step began.
    pub started: Option<Timestamp>,
    /// The time from the step's start to its last event.
    pub duration_ms: Option<u64>,
    /// The number of attempts, of all items together.
    pub attempts: u32,
    /// The step's effect class; `null` for steps that send nothing.
    pub effect: Option<String>,
    /// The number of items of a `for_each`.
    pub items: Option<u32>,
    /// How many of these items have ended.
    pub items_ended: Option<u32>,
    /// The status that a service answered with.
    pub http_status: Option<u16>,
    /// Why the step waits, was skipped or failed.
    pub note: Option<String>,
}

/// A checkpoint that waits for an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PendingCheckpoint {
    /// `chk_…`.
    pub id: String,
    /// The run that asks: this run, or one that it started.
    pub run_id: String,
    /// The step.
    pub step_id: String,
    /// The item of a `for_each`.
    pub item: Option<u32>,
    /// A question, an approval, or a review item by item.
    pub kind: CheckpointKind,
    /// The risk of what is to be approved.
    pub risk: Risk,
    /// The question for a person.
    pub question: String,
    /// JSON Schema of the answer's `values`.
    pub schema: Value,
    /// Who may answer; empty for everybody who may decide.
    pub who: Vec<String>,
    /// For a review: what the step would do.
    pub items: Vec<ReviewRow>,
    /// When the checkpoint was opened.
    pub opened: Timestamp,
    /// When the checkpoint times out.
    pub until: Option<Timestamp>,
    /// What happens at the timeout.
    pub on_timeout: OnTimeout,
    /// Where to POST the answer.
    pub answer: String,
}

/// One item of a high-risk step that a person reviews.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ReviewRow {
    /// The item's index, which `approved` and `struck` name.
    pub index: u32,
    /// What the step would do with the item.
    pub what: String,
    /// The item.
    pub value: Value,
}

/// A conflict that a person must resolve.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OpenConflict {
    /// The kind of conflict.
    pub kind: ConflictKind,
    /// The run that the conflict pauses: this run, or one that it started.
    pub run_id: String,
    /// The step.
    pub step_id: String,
    /// The item of a `for_each`.
    pub item: Option<u32>,
    /// Which call of the step: the step itself, its probe or its undo.
    pub part: StepPart,
    /// The attempt concerned; 0 if there was none.
    pub attempt: u32,
    /// What happened.
    pub message: String,
    /// What would have been expected.
    pub expected: Option<String>,
    /// The status that came back.
    pub status: Option<u16>,
    /// What was sent, redacted.
    pub request: Option<SentRequest>,
    /// The `Idempotency-Key` that was sent, by which the service can be asked what happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// What came back, redacted.
    pub response: Value,
    /// The possible choices.
    pub choices: Vec<String>,
    /// The path to which the choice is sent by POST.
    pub resolve: String,
}

/// A request as it was sent, redacted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SentRequest {
    /// The method.
    pub method: String,
    /// The URL.
    pub url: String,
    /// The headers that the step sets.
    pub headers: Vec<(String, String)>,
    /// The body; parsed if it is JSON.
    pub body: Value,
}

/// Why a run ended early.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunError {
    /// The kind of failure.
    pub kind: FailureKind,
    /// The step that failed.
    pub step_id: Option<String>,
    /// The item of a `for_each`.
    pub item: Option<u32>,
    /// The status that a service answered with.
    pub status: Option<u16>,
    /// What happened.
    pub message: String,
}

/// What happened to one effect of a run that ends early.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct UndoRow {
    /// The step.
    pub step_id: String,
    /// The item of a `for_each`.
    pub item: Option<u32>,
    /// What happened to the effect.
    pub state: UndoState,
    /// Why the effect was not undone.
    pub why: Option<String>,
}

/// What happened to an effect of a run that ends early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UndoState {
    /// The step's `undo` has not ended.
    NotYet,
    /// The step's `undo` was performed.
    Undone,
    /// The effect was rehearsed: nothing was sent, so there is nothing to undo.
    Rehearsed,
    /// The effect was not undone.
    #[serde(rename = "left")]
    NotUndone,
}

/// The request that started a run. A repeated start returns the same receipt. For a run of a route, the method and the
/// path are those that the route has now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AuditReceipt {
    /// The type of this object.
    pub object: ReceiptObject,
    /// The id of the request, `req_…`.
    pub request_id: String,
    /// How the sender of the request was authenticated.
    pub auth_mode: AuthMode,
    /// The endpoint or route that received it.
    pub source: ReceiptSource,
}

/// `audit_receipt`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // a constant of the format
pub enum ReceiptObject {
    AuditReceipt,
}

/// How the sender of a request was authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuthMode {
    /// With a token.
    Token,
    /// Not authenticated: a caller on this machine, who may have given an unverified name.
    Loopback,
    /// Not authenticated by the API: a client of a route, through the proxy.
    Route,
    /// The run was started by another run.
    Run,
}

/// The endpoint or route that received a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ReceiptSource {
    /// The method; empty for a child run, for a route that no longer exists, and if the run's events cannot be read.
    pub method: String,
    /// The path or its template; for a child run, the path of the run that started it; for a route that no longer
    /// exists, its id.
    pub route: String,
}

/// The paths of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Links {
    /// The run.
    #[serde(rename = "self")]
    pub this: String,
    /// The run's events as they happen, as server-sent events.
    pub stream: String,
    /// The audit trail.
    pub events: String,
    /// What the run waits for, in one sentence.
    pub explain: String,
}

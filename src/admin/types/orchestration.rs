//! The envelope: a run as programs and people see it.
//!
//! Always true: it is made from the run's events alone, so that whoever asks again, of whichever process, gets the
//! same; what it shows of requests and replies is redacted.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::names::{PlanId, RouteId, WorkflowName};
use crate::workflow::{AskedKind, ConflictKind, FailureKind, Mode, OnTimeout, Part, Risk, RunStatus};

/// A run, in an envelope.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Orchestration {
    /// What this is.
    pub object: OrchestrationObject,
    /// The run.
    pub data: RunData,
}

/// `orchestration`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // it says what it is
pub enum OrchestrationObject {
    Orchestration,
}

/// A run in full.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunData {
    /// The request for a result, `job_…`.
    pub job_id: String,
    /// This execution for it, `run_…`.
    pub run_id: String,
    /// The plan that it keeps.
    pub plan_id: PlanId,
    /// Where it stands.
    pub status: RunStatus,
    /// The job.
    pub job: JobPart,
    /// The run.
    pub run: RunPart,
    /// Its steps in the order in which they began, then those that have not.
    pub steps: Vec<StepRow>,
    /// The first checkpoint that waits for an answer: of this run, or else of one below it.
    pub pending_checkpoint: Option<PendingCheckpoint>,
    /// All that wait for one: those of this run, then those of runs that it began (a hundred runs at most).
    pub checkpoints: Vec<PendingCheckpoint>,
    /// What a person has to decide before it goes on: the same.
    pub conflicts: Vec<OpenConflict>,
    /// What it answered.
    pub output: Value,
    /// Of a run that ends early: what became of what it had done, in the order in which it was done.
    pub undone: Vec<UndoneRow>,
    /// Why it ended early.
    pub error: Option<RunError>,
    /// Which request it came about by.
    pub audit_receipt: AuditReceipt,
    /// Where to look and what to say next.
    pub links: Links,
}

/// The job of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JobPart {
    /// What this is.
    pub object: JobObject,
    /// `job_…`.
    pub id: String,
    /// What kind.
    pub kind: JobKind,
    /// The status of its newest run.
    pub status: RunStatus,
    /// How this answer is given.
    pub mode: Delivery,
    /// Whether a restart finds it.
    pub durability: Durability,
    /// The run that is shown.
    pub run_id: String,
}

/// `job`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // it says what it is
pub enum JobObject {
    Job,
}

/// `orchestration`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // it says what it is
pub enum JobKind {
    Orchestration,
}

/// How an answer is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// As one document.
    Sync,
    /// As server-sent events.
    Stream,
}

/// Whether a restart finds it: a run that the API shows is always on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // it says what it is
pub enum Durability {
    Persisted,
}

/// One execution.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunPart {
    /// What this is.
    pub object: RunObject,
    /// `run_…`.
    pub id: String,
    /// Its job.
    pub job_id: String,
    /// Where it stands.
    pub status: RunStatus,
    /// What it may send.
    pub mode: Mode,
    /// The plan that it keeps.
    pub plan_id: PlanId,
    /// The workflow.
    pub workflow: WorkflowName,
    /// The route that started it.
    pub route: Option<RouteId>,
    /// The run that began it as one of its steps.
    pub parent: Option<String>,
    /// The run whose results it took over.
    pub rerun_of: Option<String>,
    /// Who started it, where that was no route.
    pub started_by: Option<String>,
    /// When it was born.
    pub started: Timestamp,
    /// When its last event happened.
    pub updated: Timestamp,
    /// The place of its last event.
    pub seq: u64,
    /// Why it is paused or ended early.
    pub note: Option<String>,
}

/// `run`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // it says what it is
pub enum RunObject {
    Run,
}

/// A step of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StepRow {
    /// The step.
    pub step_id: String,
    /// `running`, `waiting`, `done` and so on; `not_run` where the run has ended without it, `pending` where it has not
    /// begun.
    pub status: String,
    /// When it began.
    pub started: Option<Timestamp>,
    /// From its beginning to its last event.
    pub duration_ms: Option<u64>,
    /// Attempts made, all items together.
    pub attempts: u32,
    /// What it does to the world; `null` for steps that send nothing.
    pub effect: Option<String>,
    /// Items of a `for_each`.
    pub items: Option<u32>,
    /// Of those, how many have ended.
    pub items_ended: Option<u32>,
    /// The status that a service answered with.
    pub http_status: Option<u16>,
    /// What is worth saying.
    pub note: Option<String>,
}

/// A checkpoint that waits for an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PendingCheckpoint {
    /// `chk_…`.
    pub id: String,
    /// The run that asks: this one, or one that it began.
    pub run_id: String,
    /// The step.
    pub step_id: String,
    /// The item of a `for_each`.
    pub item: Option<u32>,
    /// A question, an approval, or a review item by item.
    pub kind: AskedKind,
    /// How much is at stake.
    pub risk: Risk,
    /// For a person.
    pub question: String,
    /// JSON Schema of the answer's `values`.
    pub schema: Value,
    /// Who may answer; empty is everybody who may decide.
    pub who: Vec<String>,
    /// Of a review: what the step would touch.
    pub items: Vec<ReviewRow>,
    /// When it was asked.
    pub opened: Timestamp,
    /// When it is answered by itself, or asked of others.
    pub until: Option<Timestamp>,
    /// Which of the two, and how.
    pub on_timeout: OnTimeout,
    /// Where to POST the answer.
    pub answer: String,
}

/// One thing that a step of high risk would touch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ReviewRow {
    /// Its place: what `approved` and `struck` name.
    pub index: u32,
    /// What it would do.
    pub what: String,
    /// The item.
    pub value: Value,
}

/// What a run waits for a person over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OpenConflict {
    /// What kind.
    pub kind: ConflictKind,
    /// The run that is paused over it: this one, or one that it began.
    pub run_id: String,
    /// The step.
    pub step_id: String,
    /// The item of a `for_each`.
    pub item: Option<u32>,
    /// Which of its calls.
    pub part: Part,
    /// The attempt that is in question; 0 where none was made.
    pub attempt: u32,
    /// What happened.
    pub message: String,
    /// What was expected.
    pub expected: Option<String>,
    /// The status that came back.
    pub status: Option<u16>,
    /// What was sent, redacted.
    pub request: Option<SentRequest>,
    /// The `Idempotency-Key` that it was sent under: what to ask the service about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// What came back, redacted.
    pub response: Value,
    /// What may be chosen.
    pub choices: Vec<String>,
    /// Where to POST the choice.
    pub resolve: String,
}

/// A request as it was sent, redacted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SentRequest {
    /// The method.
    pub method: String,
    /// The URL.
    pub url: String,
    /// Its own headers.
    pub headers: Vec<(String, String)>,
    /// The body: JSON where it is some.
    pub body: Value,
}

/// Why a run ended early.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunError {
    /// What kind.
    pub kind: FailureKind,
    /// The step in which it happened.
    pub step_id: Option<String>,
    /// The item of a `for_each`.
    pub item: Option<u32>,
    /// The status that a service answered with.
    pub status: Option<u16>,
    /// What happened.
    pub message: String,
}

/// What became of something that a run had done, once it ends early.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct UndoneRow {
    /// The step.
    pub step_id: String,
    /// The item of a `for_each`.
    pub item: Option<u32>,
    /// What became of it.
    pub state: UndoneWord,
    /// Why it was left.
    pub why: Option<String>,
}

/// What became of something that was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UndoneWord {
    /// Its `undo` is to come, or under way.
    NotYet,
    /// It was taken back.
    Undone,
    /// Nothing was sent, and so nothing taken back.
    Rehearsed,
    /// It stays as it is.
    Left,
}

/// Which request a run came about by: the same for ever, also in the answer to a repetition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AuditReceipt {
    /// What this is.
    pub object: ReceiptObject,
    /// Names the request that the run answers, `req_…`.
    pub request_id: String,
    /// How its sender was known.
    pub auth_mode: AuthMode,
    /// Where it came in.
    pub source: ReceiptSource,
}

/// `audit_receipt`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // it says what it is
pub enum ReceiptObject {
    AuditReceipt,
}

/// How the sender of a request was known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuthMode {
    /// By a token.
    Token,
    /// It was on this machine, and gave a name that nobody verified.
    Loopback,
    /// It was a client of a route, behind the proxy.
    Route,
    /// It was another run.
    Run,
}

/// Where a request came in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ReceiptSource {
    /// The method; of a route whose file is gone, empty.
    pub method: String,
    /// The path or its template; of a sub-run, the run that began it.
    pub route: String,
}

/// Where to look and what to say next.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Links {
    /// This.
    #[serde(rename = "self")]
    pub this: String,
    /// What happens, as server-sent events.
    pub stream: String,
    /// The audit trail.
    pub events: String,
    /// What it waits for, in a sentence.
    pub explain: String,
}

//! What the API says and is told, as JSON: the one place where the server and its clients agree.
//!
//! The question it answers: "what does a person or a program see of routes, flips, differences and runs?" Always
//! true: every field is written, an absent value as `null`; unknown fields are taken and ignored by clients, so that
//! an older command reads a newer server; asks are strict (`deny_unknown_fields`), so that a misspelt `force` is never
//! silently dropped. Errors are RFC 9457 problems ([`ApiProblem`], `application/problem+json`).
//!
//! Which path takes and gives which of them stands in the table that the router and `/openapi.json` are made of.

mod orchestration;
mod orders;
mod runs;
mod services;

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::compare::Difference;
use crate::evidence::RouteEvidence;
use crate::flag::{Effective, Freeze, Shares, State};
use crate::names::{RouteId, WorkflowName};
pub use crate::workflow::{Mode, Part, RunStatus};
pub use orchestration::{
    AuditReceipt, AuthMode, Delivery, Durability, JobKind, JobObject, JobPart, Links, OpenConflict, Orchestration,
    OrchestrationObject, PendingCheckpoint, ReceiptObject, ReceiptSource, ReviewRow, RunData, RunError, RunObject,
    RunPart, SentRequest, StepRow, UndoneRow, UndoneWord,
};
pub use orders::{
    AdjustAsk, AnswerAsk, CancelAsk, ChoiceName, ExplanationView, FirstAnswer, PlainAsk, RerunAsk, ResolveAsk,
    RetryAsk, RunAsk, RunCounts, SignalAsk, SkipAsk, ValueError,
};
pub use runs::{CheckpointRow, EventRow, RunList, RunRow};
pub use services::{BreakerRow, BreakerWord, ServiceRow};

/// Everything at a glance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// Which binary answers.
    pub build: Build,
    /// Where the proxy listens.
    pub listen: String,
    /// The kill switch.
    pub freeze: Freeze,
    /// The files in force.
    pub flags: Flags,
    /// Whether the engine and its store take new runs.
    pub engine_healthy: bool,
    /// Why not, where the store says so: a full disk, a database that does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_trouble: Option<String>,
    /// How the machine's clock differs from the process's time, where that is by more than a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_trouble: Option<String>,
    /// Durable runs that are moving now.
    pub runs_in_flight: u64,
    /// Durable runs that have not ended, by status.
    #[serde(default)]
    pub runs: RunCounts,
    /// Runs that nothing would ever move, the oldest first, and a few of them only: each is a bug.
    #[serde(default)]
    pub stuck: Vec<StuckRun>,
    /// The shadow executor.
    pub shadow: ShadowLoad,
    /// Every route, in file order.
    pub routes: Vec<RouteRow>,
}

/// A run that nothing would ever move.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StuckRun {
    /// The run.
    pub run_id: String,
    /// Why.
    pub why: String,
}

/// Which binary answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Build {
    /// Its version.
    pub version: String,
    /// Since when it runs.
    pub started: Timestamp,
}

/// The set of files in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Flags {
    /// Counts up with each swap of the set (files or flips).
    pub generation: u64,
    /// Seconds since the files in force were loaded.
    pub age_s: f64,
    /// Why the files as they are now were refused: the whole text, with file, line and column. `null` where the files
    /// in force are the files as they are.
    pub last_error: Option<String>,
    /// What `check` warns of in the files in force.
    pub warnings: Vec<String>,
}

/// How busy the arm is that nobody waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ShadowLoad {
    /// Waiting.
    pub queue_depth: u64,
    /// Under way.
    pub in_flight: u64,
}

/// A route in one row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RouteRow {
    /// Its id.
    pub id: RouteId,
    /// `POST /orders`, with the host in front of the path where it has one.
    pub matches: String,
    /// The service that answers it today.
    pub legacy: String,
    /// What the engine runs.
    pub workflow: Option<WorkflowName>,
    /// What was asked for.
    pub requested: State,
    /// What is in force, and why.
    pub effective: Effective,
    /// Why the gate was passed by hand, until the evidence has caught up.
    #[serde(default)]
    pub forced: Option<String>,
    /// The shares in force.
    pub shares: Shares,
    /// Comparisons since the workflow or the rules last changed.
    pub pairs: u64,
    /// Of those, the ones that differ.
    pub mismatched: u64,
    /// Requests answered since the process started.
    pub requests: u64,
    /// What the proxy added to a request in the middle, microseconds; `null` where nothing was measured.
    pub overhead_p50_us: Option<f64>,
}

/// A route in full.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RouteDetail {
    /// The row.
    pub row: RouteRow,
    /// What the file declares.
    pub declared: State,
    /// The last flip.
    pub flip: Option<FlipRow>,
    /// Why the file's wish was refused; empty where it was not.
    #[serde(default)]
    pub refused: Vec<String>,
    /// The rung above and what it still takes: `null` at the top; an empty list where the gate is open.
    pub next: Option<NextRung>,
    /// What would have to be known before going down; empty where the engine owns nothing.
    pub horizon: Vec<String>,
    /// How many instances each arm owns (`legacy`: dark twins), by arm.
    pub pins: BTreeMap<String, u64>,
    /// The evidence.
    pub evidence: RouteEvidence,
}

/// What the next rung up still takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NextRung {
    /// Which rung.
    pub to: State,
    /// Every condition that does not hold, as sentences.
    pub missing: Vec<String>,
}

/// A wish to move a route.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FlipAsk {
    /// Where to.
    pub to: State,
    /// The share from now on, percent.
    #[serde(default)]
    #[schemars(range(min = 0, max = 100))]
    pub percent: Option<f64>,
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
    /// Pass the gate by hand; wants a reason.
    #[serde(default)]
    pub force: bool,
    /// The horizon was read: wanted from `only` downwards.
    #[serde(default)]
    pub acknowledge: bool,
    /// Who, where the listener needs no token: recorded as unverified.
    #[serde(default, rename = "as")]
    #[schemars(with = "Option<orders::PersonName>")]
    pub by: Option<String>,
}

/// A move that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FlipDone {
    /// The record; its number is 0 where nothing changed.
    pub flip: FlipRow,
    /// Whether anything changed: a flip to where the route stands already is none.
    #[serde(default = "yes")]
    pub changed: bool,
    /// What is in force now.
    pub effective: Effective,
    /// The shares in force now.
    pub shares: Shares,
    /// On the way down: what the caller should know, as sentences.
    pub horizon: Vec<String>,
    /// Durable runs of the route's workflow that go on as they were born.
    pub runs_in_flight: u64,
}

/// A wish to set the kill switch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FreezeAsk {
    /// On or off.
    pub on: bool,
    /// Also hold every private and shared step that has not begun.
    #[serde(default)]
    pub effects: bool,
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
    /// Who, where the listener needs no token.
    #[serde(default, rename = "as")]
    #[schemars(with = "Option<orders::PersonName>")]
    pub by: Option<String>,
}

/// The kill switch has been set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FreezeDone {
    /// As it is now.
    pub freeze: Freeze,
    /// The record.
    pub flip: FlipRow,
    /// Durable runs that have not ended.
    pub runs_in_flight: u64,
}

/// One change of a flag.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FlipRow {
    /// Counts up.
    pub number: u64,
    /// The route; `null` is the kill switch.
    pub route: Option<RouteId>,
    /// From which state (the kill switch: `no`, `instances`, `effects`).
    pub from: String,
    /// To which.
    pub to: String,
    /// The shares from then on.
    pub shares: Option<Shares>,
    /// Who.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// Why, as said.
    pub reason: Option<String>,
    /// Whether the gate was passed by hand.
    pub forced: bool,
}

/// What a route's differences come to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Diffs {
    /// The route.
    pub route: RouteId,
    /// Comparisons since the last change.
    pub pairs: u64,
    /// Of those, the ones that differ.
    pub mismatched: u64,
    /// By fingerprint, most frequent first.
    pub groups: Vec<DiffGroup>,
}

/// Differences with the same set of paths and kinds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DiffGroup {
    /// Equal for equal sets of paths and kinds.
    pub fingerprint: String,
    /// How many pairs differed so since the last change; few of them are kept.
    pub count: u64,
    /// When the first was seen.
    pub first_seen: Timestamp,
    /// When the last was seen.
    pub last_seen: Timestamp,
    /// Where the arms differ.
    pub differences: Vec<Difference>,
    /// The newest sample.
    pub sample: Sample,
}

/// One kept comparison, redacted before it was stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Sample {
    /// When.
    pub at: Timestamp,
    /// The engine's run, as `run_…`.
    pub run: Option<String>,
    /// The request's line and redacted body.
    pub request: String,
    /// Legacy's reply, redacted and shortened.
    pub legacy: String,
    /// The engine's reply, redacted and shortened.
    pub engine: String,
}

/// A route's evidence with the words for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EvidenceView {
    /// The route.
    pub route: RouteId,
    /// The counts.
    pub evidence: RouteEvidence,
    /// What the next rung still takes.
    pub next: Option<NextRung>,
}

/// An error of the API: RFC 9457.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ApiProblem {
    /// What kind, as a URI reference.
    #[serde(rename = "type", default = "about_blank")]
    pub kind: String,
    /// What happened, short and the same each time.
    #[serde(default)]
    pub title: String,
    /// The HTTP status.
    #[serde(default)]
    pub status: u16,
    /// What happened here.
    #[serde(default)]
    pub detail: String,
    /// What a person can do about it.
    #[serde(default)]
    pub hint: Option<String>,
    /// Each condition of a shut gate that does not hold, or each name that was meant; one line each.
    #[serde(default)]
    pub reasons: Vec<String>,
    /// What is wrong with the values that were sent, by JSON pointer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<ValueError>,
    /// The run that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// Where that run stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_status: Option<RunStatus>,
    /// The answer that the checkpoint has already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<Box<FirstAnswer>>,
}

fn about_blank() -> String {
    "about:blank".into()
}

/// A server that does not say whether anything changed did what it was asked.
fn yes() -> bool {
    true
}

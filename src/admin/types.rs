//! The JSON types of the API's requests and responses, shared by the server and its clients.
//!
//! The question it answers: "what does a person or a program see of routes, flips, differences and runs?" Always
//! true: a response has every field, with `null` for an absent value, unless its comment says that it is left out;
//! clients ignore unknown fields, so that an older command line can read the responses of a newer server; requests are
//! strict (`deny_unknown_fields`), so that a misspelt `force` is never silently dropped. Errors are RFC 9457 problems
//! ([`ApiProblem`], `application/problem+json`).
//!
//! Which endpoint takes and returns which type is in the table of endpoints (`endpoints`).

mod adoptions;
mod auto;
mod callers;
mod candidates;
mod captures;
mod changes;
mod cohorts;
mod egress;
mod file_problem;
mod flips;
mod free_text;
mod gate;
mod graph;
mod guard;
mod instances;
mod orchestration;
mod process;
mod processes;
mod record;
mod reload;
mod routes;
mod run_requests;
mod runs;
mod sample_calls;
mod services;
mod suggestions;
mod trial;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use crate::compare::{Difference, DifferenceKind, EarlierPairing, is_rule_note};
pub use crate::evidence::RouteEvidence;
pub use crate::evidence::{Condition, ConditionName, EarlierEvidence, EvidenceGap, EvidenceRestart, GateVerdict};
pub use crate::evidence::{ErrorTable, Interval, NoiseView, NoisyPlace, RatioInterval, RouteStatistics, SecondRuns};
pub use crate::evidence::{GuardWindowView, LatencyCounts};
pub use crate::evidence::{UncomparedHeaderCounts, UncomparedHeaders};
pub use crate::flag::{Arm, Effective, EffectiveReason, Freeze, GuardRelease, Shares, State};
use crate::names::{RouteId, StepId};
pub use crate::secret::{SEALED, STARS};
pub use crate::store::{AdoptionState, CandidateAction, GuardAction, UNDER_WAY};
pub use crate::workflow::{CheckpointKind, ConflictKind, Mode, OnTimeout, Risk, RunStatus, StepPart};
pub use adoptions::{AdoptRequest, AdoptionDecisionRequest, AdoptionRow, AdoptionsView, BulkRow};
pub use auto::AutoRow;
pub use callers::{ServiceCallerRow, ServiceCallers, UnknownTime};
pub use candidates::{CandidateRequest, CandidateResponse, CandidateRow, CandidateStage};
pub use captures::CapturePage;
pub use changes::{
    ChangeData, EvidenceChange, FilesChange, FreezeChange, MoreRuns, ResetReason, RouteChange, RunChange, StoreChange,
    StreamReset, WaitingChange,
};
pub use cohorts::{CohortAheadRow, CohortRow};
pub use egress::{AttributedCalls, EgressCalls, EgressView, TunnelRow, UnattributedCall};
pub use file_problem::FileProblem;
pub use flips::{FlipRequest, FlipResponse, FlipRow};
pub use gate::GateRow;
pub use graph::{EdgeKindRow, GraphEdgeRow, GraphStepRow, RunGraph, StepActionRow};
pub use guard::{GuardReleaseRequest, GuardReleaseResponse, GuardRow};
pub use instances::InstancesRow;
pub use orchestration::{
    AuditReceipt, AuthMode, Delivery, Durability, JobKind, JobObject, JobPart, Links, OpenConflict, Orchestration,
    OrchestrationObject, PendingCheckpoint, ReceiptObject, ReceiptSource, ReviewRow, RunData, RunError, RunObject,
    RunPart, SentRequest, StepRow, UndoRow, UndoState,
};
pub use process::{Build, EgressStatus, Flags, ShadowLoad, Status, StuckRun};
pub use processes::{FilesComparison, ProcessRow};
pub use record::{ChainHead, RecordEntry, RecordPage};
pub use reload::{
    CandidateOfRoute, ChangedRoute, LimitedRoute, MovedRoute, ReloadRequest, ReloadResponse, RestartedRoute,
};
pub use routes::{NextRung, RouteDetail, RouteRow};
pub use run_requests::{
    AdjustRequest, AnswerRequest, CancelRequest, ChoiceName, ExplanationView, FirstAnswer, PauseRequest, RerunRequest,
    ResolveRequest, RetryRequest, RunCounts, RunVersion, SignalRequest, SkipRequest, StartRequest, ValueError,
};
pub use runs::{CheckpointRow, EventRow, RunList, RunRow};
pub use sample_calls::{SampleCall, ShownRequest};
pub use services::{
    AddressFailureRow, AddressRow, AddressStateName, BreakerRow, BreakerStateName, EjectionReasonName, LookupRow,
    ServiceRow,
};
pub use suggestions::{HiddenPlace, StricterRuleRow, SuggestedRuleRow, SuggestedRules, UnexplainedPlace};
pub use trial::{NotJudgedSamples, TriedGroup, TriedRules, TriedSamples, TryRules};

/// A request to turn the kill switch on or off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FreezeRequest {
    /// Whether the kill switch is to be on.
    pub on: bool,
    /// Whether every private and shared step that has not begun is held too.
    #[serde(default)]
    pub effects: bool,
    /// The reason.
    #[serde(default, deserialize_with = "free_text::optional")]
    pub reason: Option<String>,
    /// The caller's name, where the listener requires no token.
    #[serde(default, rename = "as")]
    #[schemars(with = "Option<run_requests::PersonName>")]
    pub by: Option<String>,
}

/// The kill switch has been set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FreezeResponse {
    /// The kill switch now.
    pub freeze: Freeze,
    /// The record. Its number is 0 until the store has recorded it.
    pub flip: FlipRow,
    /// Whether the store has recorded the freeze. If not (status 202), the freeze is in force, but a restart would end
    /// it.
    #[serde(default)]
    pub recorded: bool,
    /// A warning: it is not recorded, or not in force in another process on the same store. Left out if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// The other processes on the same store that do not have it in force yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_in_force_in: Vec<String>,
    /// The number of runs that are executed at this moment, including rehearsals and runs that are not kept; waiting
    /// runs do not count.
    pub runs_in_flight: u64,
    /// The number of durable runs that have not ended, waiting ones included; `null` if the store does not answer.
    #[serde(default)]
    pub open_runs: Option<u64>,
}

/// The differences of a route, grouped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Diffs {
    /// The route.
    pub route: RouteId,
    /// The number of comparisons since the evidence was last started from zero.
    pub pairs: u64,
    /// How many of these comparisons differ.
    pub mismatched: u64,
    /// How many differ only where legacy differs from itself, and count as equal.
    #[serde(default)]
    pub noise: u64,
    /// How many requests the engine ran twice from the same inputs (`rehearse_twice`).
    #[serde(default)]
    pub second_runs: u64,
    /// The differences by fingerprint, the most frequent first.
    pub groups: Vec<DiffGroup>,
}

/// Differences with the same set of paths and kinds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DiffGroup {
    /// A hash of the set of paths and kinds.
    pub fingerprint: String,
    /// How many pairs differed in this way; only some of them are kept as samples.
    pub count: u64,
    /// When the first was seen.
    pub first_seen: Timestamp,
    /// When the last was seen.
    pub last_seen: Timestamp,
    /// Where the arms differ in the sample that is shown.
    pub differences: Vec<Difference>,
    /// Whether these pairs count as equal, because legacy differs from itself in all these places (`noise`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_noise: bool,
    /// In how many of the second runs the engine differed from itself at one of these places: the most for one place.
    #[serde(default)]
    pub differed_from_itself: u64,
    /// The sample whose numbers are furthest apart; the newest, if it is the same for all.
    pub sample: Sample,
    /// The other samples that are kept, the newest first.
    #[serde(default)]
    pub other_samples: Vec<Sample>,
}

/// A comparison that was kept as a sample, redacted before it was stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Sample {
    /// When the comparison was made.
    pub at: Timestamp,
    /// The engine's run, as `run_…`.
    pub run: Option<String>,
    /// The runs below it (`run:`) of which events are kept, if it is a rehearsal: `runs events` shows them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub child_runs: Vec<String>,
    /// Where the arms differ in this sample.
    #[serde(default)]
    pub differences: Vec<Difference>,
    /// The request's line and redacted body.
    pub request: String,
    /// Legacy's reply, redacted and shortened.
    pub legacy: String,
    /// The engine's reply, redacted and shortened.
    pub engine: String,
    /// The calls of both sides, redacted: what each step would have sent, or sent in `dark`, and legacy's call beside
    /// it; then calls that only legacy made. Left out if there are none, or if the pair was not kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<SampleCall>,
}

/// A route's evidence and what the next rung still requires.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EvidenceView {
    /// The route.
    pub route: RouteId,
    /// The counts.
    pub evidence: RouteEvidence,
    /// What the pairs say, with intervals that are valid however often they are looked at.
    #[serde(default)]
    pub statistics: RouteStatistics,
    /// How legacy differs from itself; `null` if no request was sent to it twice (`replay_safe`).
    #[serde(default)]
    pub noise: Option<NoiseView>,
    /// The next rung and what it still requires.
    pub next: Option<NextRung>,
    /// The cohorts that are below the state of their rules for want of evidence of their own.
    #[serde(default)]
    pub cohorts_below: Vec<CohortRow>,
    /// The shared steps of the workflow that no pair compared with a call by legacy or an `assert`, except those that
    /// are declared `unseen`. They shut the gate to `live`, unless
    /// `effects_compared: false`.
    #[serde(default)]
    pub uncompared_steps: Vec<StepId>,
    /// The rules of `compare:` that made no two values equal in all pairs; empty while there are fewer than 500 pairs.
    #[serde(default)]
    pub dead_rules: Vec<String>,
    /// Why `replay_reads` seems to find no read of legacy; `null` if it finds some, or if the route does not have it.
    #[serde(default)]
    pub reads_not_found: Option<String>,
    /// What the route's guard did; `null` if nothing, or if it was released.
    #[serde(default)]
    pub guard: Option<GuardRow>,
    /// What the guard counts now; empty if the route has none.
    #[serde(default)]
    pub guard_windows: Vec<GuardWindowView>,
    /// The candidate that this evidence is about; left out for that of the route itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<CandidateRow>,
}

/// An error of the API: RFC 9457.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ApiProblem {
    /// The type of the problem, a URI reference.
    #[serde(rename = "type", default = "about_blank")]
    pub kind: String,
    /// What happened, in a few words.
    #[serde(default)]
    pub title: String,
    /// The HTTP status.
    #[serde(default)]
    pub status: u16,
    /// What happened in this case.
    #[serde(default)]
    pub detail: String,
    /// What a person can do about it.
    #[serde(default)]
    pub hint: Option<String>,
    /// For a shut gate: the conditions that do not hold. For an unknown name: the names that exist. For refused files
    /// or values: each problem in one line. For a `query`: the workflows.
    #[serde(default)]
    pub reasons: Vec<String>,
    /// Flip commands that would pass if they were given one after the other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<String>,
    /// What is wrong with the values that were sent, by JSON pointer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<ValueError>,
    /// What is wrong with the files, if they were refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<FileProblem>,
    /// The run that the error is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// The status of that run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_status: Option<RunStatus>,
    /// The earlier answer to the checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<Box<FirstAnswer>>,
    /// The number of the entry or flip that cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row: Option<i64>,
}

fn about_blank() -> String {
    "about:blank".into()
}

/// The default of `changed`: an older server does not send the field, and each of its flips changed something.
fn default_true() -> bool {
    true
}

//! The events of the stream over all runs and routes: what has changed. Each names a thing to read again, and is not a
//! copy of it.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::flag::{Effective, Freeze, State};
use crate::names::{RouteId, WorkflowName};
use crate::workflow::{Mode, RunStatus};

/// The data of an event of the stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ChangeData {
    /// `run`.
    Run(RunChange),
    /// `runs`.
    Runs(MoreRuns),
    /// `waiting`.
    Waiting(WaitingChange),
    /// `evidence`.
    Evidence(EvidenceChange),
    /// `route`.
    Route(RouteChange),
    /// `freeze`.
    Freeze(FreezeChange),
    /// `files`.
    Files(FilesChange),
    /// `store`.
    Store(StoreChange),
    /// `reset`.
    Reset(StreamReset),
}

/// `run`: a run has new events. What happened at nearly the same time is one event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunChange {
    /// The run, `run_…`.
    pub run_id: String,
    /// The job, `job_…`.
    pub job_id: String,
    /// The run that started it as a step.
    pub parent: Option<String>,
    /// Its workflow.
    pub workflow: WorkflowName,
    /// The route whose request started it.
    pub route: Option<RouteId>,
    /// What it may send.
    pub mode: Mode,
    /// Its status.
    pub status: RunStatus,
    /// Whether it waits for a person: at a checkpoint, or because it is paused.
    pub waits: bool,
    /// The sequence number of its last event.
    pub seq: u64,
    /// When its last event happened.
    pub updated: Timestamp,
}

/// `runs`: more runs have changed at once than are named in events of their own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MoreRuns {
    /// How many of them are named.
    pub named: u64,
}

/// `waiting`: a run begins to wait for a person, or does not wait any more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WaitingChange {
    /// The run, `run_…`.
    pub run_id: String,
    /// Its workflow.
    pub workflow: WorkflowName,
    /// Whether it waits now.
    pub waits: bool,
}

/// `route`: a route was flipped, or its state, its shares, its guard or its candidate changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RouteChange {
    /// The route.
    pub route: RouteId,
    /// The requested state; `null` if the files do not have the route any more.
    pub requested: Option<State>,
    /// The state in force, and why; `null` likewise.
    pub effective: Option<Effective>,
    /// The number of its newest flip that this process has seen while somebody followed the stream; else `null`.
    pub flip: Option<u64>,
}

/// `evidence`: pairs of a route were compared, or answers counted, or its evidence was started from zero. At most one
/// event a second for each route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EvidenceChange {
    /// The route.
    pub route: RouteId,
    /// The number of comparisons since the evidence was last started from zero.
    pub pairs: u64,
    /// How many of these comparisons differ.
    pub mismatched: u64,
}

/// `freeze`: the kill switch was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FreezeChange {
    /// The kill switch now.
    pub freeze: Freeze,
}

/// `files`: other files came into force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FilesChange {
    /// Their number in this process.
    pub version: u64,
}

/// `store`: whether the store answers. While it does not, no change of a run is told; those are told later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StoreChange {
    /// Whether it answers.
    pub answers: bool,
}

/// `reset`: the events before this one are not known to be complete. Read everything again that is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StreamReset {
    /// Why.
    pub why: ResetReason,
}

/// Why a stream does not continue after the event that its client has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ResetReason {
    /// The client named no event: the stream begins now.
    Begins,
    /// The event is of another process, or of this one before a restart.
    Unknown,
    /// The event is older than those that are kept.
    Missed,
    /// The client took the events too slowly.
    Slow,
    /// For a time it was not known from where to read the changes of runs: the store did not answer.
    Unread,
}

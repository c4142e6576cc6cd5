//! What a listing shows of a run: a projection of its events that can be rebuilt.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Mode, Risk};
use crate::names::{CheckpointId, JobId, PlanId, RouteId, RunId, Seq, WorkflowName};

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // each says what it is
pub enum RunStatus {
    Queued,
    Running,
    WaitingCheckpoint,
    WaitingSignal,
    Paused,
    Compensating,
    Completed,
    Failed,
    Cancelled,
    Abandoned,
}

impl RunStatus {
    /// Those of runs that have not ended.
    pub const OPEN: [RunStatus; 6] = [
        RunStatus::Queued,
        RunStatus::Running,
        RunStatus::WaitingCheckpoint,
        RunStatus::WaitingSignal,
        RunStatus::Paused,
        RunStatus::Compensating,
    ];
    /// Those of runs that have.
    pub const ENDED: [RunStatus; 4] =
        [RunStatus::Completed, RunStatus::Failed, RunStatus::Cancelled, RunStatus::Abandoned];
    /// As the API, the store and metrics write it.
    pub fn as_str(self) -> &'static str {
        match self {
            RunStatus::Queued => "queued",
            RunStatus::Running => "running",
            RunStatus::WaitingCheckpoint => "waiting_checkpoint",
            RunStatus::WaitingSignal => "waiting_signal",
            RunStatus::Paused => "paused",
            RunStatus::Compensating => "compensating",
            RunStatus::Completed => "completed",
            RunStatus::Failed => "failed",
            RunStatus::Cancelled => "cancelled",
            RunStatus::Abandoned => "abandoned",
        }
    }
    /// Nothing more will happen.
    pub fn is_final(self) -> bool {
        matches!(self, RunStatus::Completed | RunStatus::Failed | RunStatus::Cancelled | RunStatus::Abandoned)
    }
}

/// A run in one row: always equal to what folding its events gives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunSummary {
    /// Its id.
    pub run_id: RunId,
    /// The workflow.
    pub workflow: WorkflowName,
    /// The plan it keeps.
    pub plan_id: PlanId,
    /// The route that started it, if one did.
    pub route: Option<RouteId>,
    /// What it may send.
    pub mode: Mode,
    /// Where it stands.
    pub status: RunStatus,
    /// The last event that is folded in.
    pub seq: Seq,
    /// When it was born.
    pub started: Timestamp,
    /// When its last event happened.
    pub updated: Timestamp,
    /// Why it is paused or failed, in a sentence.
    pub note: Option<String>,
    /// The request for a result that it belongs to; `None` is its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobId>,
    /// The run that began it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<RunId>,
    /// When it wants to be looked at again, where nothing else moves it before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wake: Option<Timestamp>,
    /// The first open checkpoint, with its risk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<(CheckpointId, Risk)>,
}

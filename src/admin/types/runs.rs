//! Runs and their events, as lists show them.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::names::{PlanId, RouteId, WorkflowName};
use crate::workflow::{Mode, Risk, RunStatus};

/// A page of runs, newest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunList {
    /// The rows.
    pub runs: Vec<RunRow>,
    /// `before=` for the next page; `null` on the last page.
    pub next: Option<String>,
}

/// A run in one row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunRow {
    /// The run's id, `run_…`.
    pub run_id: String,
    /// The run's job, `job_…`.
    pub job_id: String,
    /// The workflow.
    pub workflow: WorkflowName,
    /// The plan that the run was started with and keeps.
    pub plan_id: PlanId,
    /// The route that started the run.
    pub route: Option<RouteId>,
    /// The run that started this run as one of its steps.
    pub parent: Option<String>,
    /// Which effects the run may perform.
    pub mode: Mode,
    /// The run's status.
    pub status: RunStatus,
    /// The first checkpoint that waits for an answer.
    pub checkpoint: Option<CheckpointRow>,
    /// When the run was started.
    pub started: Timestamp,
    /// When the run's last event happened.
    pub updated: Timestamp,
    /// When the run's next timer fires.
    pub wake: Option<Timestamp>,
    /// Why the run is paused or ended early.
    pub note: Option<String>,
    /// Why this process cannot execute the run. Left out if it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// A checkpoint in a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CheckpointRow {
    /// `chk_…`.
    pub id: String,
    /// The risk of what is to be approved.
    pub risk: Risk,
}

/// One event of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EventRow {
    /// The event's sequence number.
    pub seq: u64,
    /// When the event happened.
    pub at: Timestamp,
    /// The event's kind, such as `step_started`.
    pub kind: String,
    /// The whole event, without secrets.
    pub event: Value,
}

impl EventRow {
    /// The kind of the last row of a rehearsal of which not all events are kept: it is no event, and says how many are
    /// missing.
    pub const NOT_KEPT: &str = "not_kept";
}

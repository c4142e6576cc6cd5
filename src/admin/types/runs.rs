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
    /// `before=` of the next page; `null` at the end.
    pub next: Option<String>,
}

/// A run in one row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunRow {
    /// Its id, `run_…`.
    pub run_id: String,
    /// Its job, `job_…`.
    pub job_id: String,
    /// The workflow.
    pub workflow: WorkflowName,
    /// The plan that it was started with and keeps.
    pub plan_id: PlanId,
    /// The route that started it.
    pub route: Option<RouteId>,
    /// The run that started it as one of its steps.
    pub parent: Option<String>,
    /// Which effects it may perform.
    pub mode: Mode,
    /// Its status.
    pub status: RunStatus,
    /// The first checkpoint that waits for an answer.
    pub checkpoint: Option<CheckpointRow>,
    /// When it was started.
    pub started: Timestamp,
    /// When its last event happened.
    pub updated: Timestamp,
    /// When its next timer fires.
    pub wake: Option<Timestamp>,
    /// Why it is paused or failed.
    pub note: Option<String>,
    /// Why this process cannot execute it. Left out if it can.
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
    /// Its sequence number.
    pub seq: u64,
    /// When it happened.
    pub at: Timestamp,
    /// Its kind, such as `step_started`.
    pub kind: String,
    /// The whole event, without secrets.
    pub event: Value,
}

//! Runs and their events, as listings show them.

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
    /// The plan it keeps.
    pub plan_id: PlanId,
    /// The route that started it.
    pub route: Option<RouteId>,
    /// The run that began it as one of its steps.
    pub parent: Option<String>,
    /// What it may send.
    pub mode: Mode,
    /// Where it stands.
    pub status: RunStatus,
    /// The first checkpoint that waits for an answer.
    pub checkpoint: Option<CheckpointRow>,
    /// When it was born.
    pub started: Timestamp,
    /// When its last event happened.
    pub updated: Timestamp,
    /// When it wants to be looked at again, where nothing else moves it before.
    pub wake: Option<Timestamp>,
    /// Why it is paused or failed.
    pub note: Option<String>,
}

/// A checkpoint in one word.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CheckpointRow {
    /// `chk_…`.
    pub id: String,
    /// How much is at stake.
    pub risk: Risk,
}

/// One event of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EventRow {
    /// Its place.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// `step_started`.
    pub kind: String,
    /// The fact, without secrets.
    pub event: Value,
}

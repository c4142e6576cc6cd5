//! Runs, their steps and events, as the API shows them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::names::{PlanId, RouteId, WorkflowName};
use crate::workflow::{Mode, RunStatus};

/// A page of runs, newest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunList {
    /// The rows.
    pub runs: Vec<RunRow>,
    /// `before=` of the next page; `null` at the end.
    pub next: Option<String>,
}

/// A run in one row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRow {
    /// Its id, `run_…`.
    pub run_id: String,
    /// The workflow.
    pub workflow: WorkflowName,
    /// The plan it keeps.
    pub plan_id: PlanId,
    /// The route that started it.
    pub route: Option<RouteId>,
    /// What it may send.
    pub mode: Mode,
    /// Where it stands.
    pub status: RunStatus,
    /// When it was born.
    pub started: Timestamp,
    /// When its last event happened.
    pub updated: Timestamp,
    /// Why it is paused or failed.
    pub note: Option<String>,
}

/// A run in full.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunDetail {
    /// The row.
    pub run: RunRow,
    /// Its steps in the order in which they began, then those that have not.
    pub steps: Vec<StepRow>,
    /// The audit trail, in order, up to the bound on rows; `…/events?from=` has the rest.
    pub events: Vec<EventRow>,
}

/// A step of a run, or one item of its fan-out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRow {
    /// The step.
    pub step: String,
    /// The item of a `for_each`.
    pub item: Option<u32>,
    /// `waiting`, `running`, `retrying`, `done`, `rehearsed`, `skipped`, `failed`, `unknown`; `not_run` where the run has
    /// ended without it.
    pub status: String,
    /// `read`, `private`, `shared`; `null` for steps that send nothing.
    pub effect: Option<String>,
    /// How often it was tried.
    pub attempts: u32,
    /// From its first start to its end.
    pub duration_ms: Option<f64>,
    /// Why it failed or was skipped.
    pub note: Option<String>,
}

/// One event of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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

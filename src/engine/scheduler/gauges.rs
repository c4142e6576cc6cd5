//! Gauges of unfinished runs: set by the watchdog, and updated by each run's driver.

use metrics::gauge;

use crate::names::WorkflowName;
use crate::workflow::{Risk, RunStatus};

/// The gauge of open checkpoints of a risk.
pub(in crate::engine) fn open_checkpoints(risk: Risk) -> metrics::Gauge {
    gauge!("pointsman_checkpoints_open", "risk" => risk.as_str())
}

/// The gauge of unfinished runs of a workflow in a status.
pub(in crate::engine) fn unfinished_runs(workflow: &WorkflowName, status: RunStatus) -> metrics::Gauge {
    gauge!("pointsman_runs_active", "workflow" => workflow.as_str().to_owned(), "status" => status.as_str())
}

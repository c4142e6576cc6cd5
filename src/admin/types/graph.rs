//! A run's plan as a graph, with what became of each step: what a flowchart is drawn from.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::StepRow;
use crate::names::{PlanId, WorkflowName};
use crate::workflow::{Mode, Risk, RunStatus};

/// A run's plan as a graph, with the state of each step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunGraph {
    /// The run, `run_…`.
    pub run_id: String,
    /// The workflow.
    pub workflow: WorkflowName,
    /// The plan that the run was started with and keeps.
    pub plan_id: PlanId,
    /// The run's status.
    pub status: RunStatus,
    /// Which effects the run may perform. Unless it is `real`, some of them or all were recorded and not sent.
    pub mode: Mode,
    /// Why the run is paused or ended early.
    pub note: Option<String>,
    /// The steps of the plan, each after all that it needs.
    pub steps: Vec<GraphStepRow>,
    /// Which step comes after which.
    pub edges: Vec<GraphEdgeRow>,
}

/// A step of a graph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GraphStepRow {
    /// What became of the step in the run. Its `effect` is here that of the definition, also if the step has not begun.
    pub state: StepRow,
    /// What the step does.
    pub action: StepActionRow,
    /// Whether the step runs once for each item of a list.
    pub for_each: bool,
    /// Whether the step has an `if:`.
    pub conditional: bool,
    /// The risk that the step declares, if it is not computed.
    pub risk: Option<Risk>,
    /// Whether the step declares that what it does cannot be undone.
    pub irreversible: bool,
    /// Whether the step has a call that reverses what it did.
    pub has_undo: bool,
    /// Whether the step takes a lock.
    pub takes_lock: bool,
    /// The step whose place this one takes when that one certainly did nothing.
    pub fallback_of: Option<String>,
    /// Runs that the step started and that have not ended, at most a hundred.
    pub child_runs: Vec<String>,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum StepActionRow {
    /// An HTTP call.
    Call {
        /// The method.
        method: String,
        /// The service.
        service: String,
        /// The path, with `{}` for each segment that has a value in it.
        path: String,
    },
    /// Computes a value.
    Compute,
    /// Asks a person.
    Ask,
    /// Waits for a time.
    WaitForTime,
    /// Waits for a signal.
    WaitForSignal {
        /// The name of the signal.
        signal: String,
    },
    /// Runs another workflow.
    Run {
        /// The other workflow.
        workflow: WorkflowName,
    },
    /// Ends the run with a failure.
    Fail,
    /// What this version does not know: never in a reply of the same version.
    #[serde(other)]
    Other,
}

/// An edge of a graph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GraphEdgeRow {
    /// The earlier step.
    pub from: String,
    /// The later step.
    pub to: String,
    /// Why it comes later.
    pub kind: EdgeKindRow,
}

/// Why one step comes after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EdgeKindRow {
    /// It needs the other one.
    Needs,
    /// It takes the other one's place.
    Fallback,
}

impl StepRow {
    /// Every status that a step may have.
    pub const STATUSES: &[&str] = &[
        "pending",
        "running",
        "retrying",
        "done",
        "rehearsed",
        "skipped",
        "failed",
        "unknown",
        "conflict",
        "replaced",
        "undoing",
        "undone",
        "waiting_checkpoint",
        "waiting_signal",
        "waiting_time",
        "waiting_lock",
        "waiting_child",
        "not_run",
    ];
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workflow::StepStatus::{self, *};

    #[test]
    fn every_status_of_a_step_is_listed() {
        const ALL: &[StepStatus] = &[
            Running,
            Retrying,
            Done,
            Rehearsed,
            Skipped,
            Failed,
            Unknown,
            Conflict,
            Replaced,
            Undoing,
            Undone,
            WaitingCheckpoint,
            WaitingSignal,
            WaitingTime,
            WaitingLock,
            WaitingChild,
        ];
        for status in ALL {
            // A new status does not compile here until it is in the list above.
            match status {
                Running | Retrying | Done | Rehearsed | Skipped | Failed | Unknown | Conflict | Replaced | Undoing
                | Undone | WaitingCheckpoint | WaitingSignal | WaitingTime | WaitingLock | WaitingChild => {}
            }
            let name = serde_json::to_value(status).unwrap();
            assert!(StepRow::STATUSES.iter().any(|known| name == *known), "{name}");
        }
        assert_eq!(StepRow::STATUSES.len(), ALL.len() + 2, "and `pending` and `not_run`");
    }
}

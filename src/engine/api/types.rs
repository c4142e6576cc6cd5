//! The parameters, results and errors of the engine's operations.

use serde_json::Value;

use crate::flag::RetryKey;
use crate::names::{JobId, PlanId, RunId, WorkflowName};
use crate::workflow::RunSummary;

/// A request to start a run.
#[derive(Clone, Debug)]
pub struct Start {
    /// The workflow to run.
    pub workflow: WorkflowName,
    /// The run's input: in expressions, the body of its request.
    pub input: Value,
    /// Who starts the run.
    pub by: String,
    /// The idempotency key, with a hash of the request: a second start under the same key returns the same run.
    pub key: Option<(RetryKey, [u8; 32])>,
}

/// A run that was started by this call, or by an earlier one with the same key.
#[derive(Clone, Debug, PartialEq)]
pub struct Started {
    /// The run.
    pub run: RunId,
    /// Its job.
    pub job: JobId,
    /// Its plan.
    pub plan: PlanId,
    /// Whether this call started it.
    pub is_new: bool,
    /// The run as it began, or, if this call did not start it, as it was when this was returned.
    pub summary: Box<RunSummary>,
}

/// Why a run was not started, or why it is unknown whether it was.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum StartError {
    /// There is no such workflow.
    #[error("there is no workflow `{workflow}`")]
    UnknownWorkflow {
        /// The requested workflow.
        workflow: String,
        /// The names of all workflows.
        known: Vec<String>,
    },
    /// The schema refuses the body: JSON pointers and what is wrong there.
    #[error("the workflow does not take this input: {}", .0.join("; "))]
    BadInput(Vec<String>),
    /// The key belongs to a start of another workflow or with another body.
    #[error("the idempotency key belongs to {0}, which is of another workflow or was started with another body")]
    KeyReused(RunId),
    /// The limit of runs in flight is reached, the process is shutting down, or the runs of the last process are not
    /// resumed yet. Nothing was done.
    #[error("{0}")]
    Unavailable(String),
    /// The run cannot be rerun like this.
    #[error("{0}")]
    Invalid(String),
    /// The plan of the run to be rerun has no such step.
    #[error("the plan has no such step")]
    NoStep,
    /// There is no such run.
    #[error("there is no such run")]
    NoRun,
    /// The store refused an operation, or did not answer.
    #[error("{why}")]
    Store {
        /// What happened.
        why: String,
        /// True if it is unknown whether the run was started: repeat the request with the same key.
        unknown: bool,
    },
}

/// What a run that has not ended waits for.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// The run.
    pub run: RunSummary,
    /// One sentence: what it waits for, since when, and what would let it go on.
    pub sentence: String,
    /// Everything that it waits for, one line each.
    pub waits: Vec<String>,
    /// Whether nothing would ever resume it, which is a bug, or this process cannot read it, which may have another
    /// cause (a missing `store_key`, a plan of a newer version).
    pub stuck: bool,
}

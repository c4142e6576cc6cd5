//! What people and programs ask of the engine, and what they are told.

use serde_json::Value;

use crate::flag::RetryKey;
use crate::names::{JobId, PlanId, RunId, WorkflowName};
use crate::workflow::{Refusal, RunSummary};

/// What is started.
#[derive(Clone, Debug)]
pub struct Start {
    /// Which workflow.
    pub workflow: WorkflowName,
    /// The body of its request.
    pub input: Value,
    /// Who starts it.
    pub by: String,
    /// Names the start, with a hash of what is started: a second one under the same key gets the same run.
    pub key: Option<(RetryKey, [u8; 32])>,
}

/// A run that was started, now or before under the same key.
#[derive(Clone, Debug, PartialEq)]
pub struct Started {
    /// The run.
    pub run: RunId,
    /// Its job.
    pub job: JobId,
    /// Its plan.
    pub plan: PlanId,
    /// It was started by this asking.
    pub fresh: bool,
}

/// Why nothing was started.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum StartError {
    /// There is no such workflow.
    #[error("there is no workflow `{workflow}`")]
    UnknownWorkflow {
        /// What was asked for.
        workflow: String,
        /// What there is.
        known: Vec<String>,
    },
    /// The schema refuses the body: JSON pointers and what is wrong there.
    #[error("the workflow does not take this input: {}", .0.join("; "))]
    BadInput(Vec<String>),
    /// The key belongs to a start with another body.
    #[error("the idempotency key belongs to {0}, which was started with another body")]
    KeyReused(RunId),
    /// Not now: as many runs as may be, or the process ends. Nothing was done.
    #[error("{0}")]
    Unavailable(String),
    /// The run of which a rerun was asked makes no sense of it.
    #[error("{0}")]
    Invalid(String),
    /// The run of which a rerun was asked has no such step.
    #[error("the plan has no such step")]
    NoStep,
    /// There is no such run.
    #[error("there is no such run")]
    NoRun,
    /// The store refused it for sure, or did not answer: `unknown` is then true.
    #[error("{why}")]
    Store {
        /// What happened.
        why: String,
        /// Whether it was started is unknown: ask again with the same key.
        unknown: bool,
    },
}

/// Why what was said to a run was not done.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum OrderError {
    /// There is no such run.
    #[error("there is no such run")]
    NoRun,
    /// The run refuses it where it stands.
    #[error("{refusal}")]
    Refused {
        /// The run.
        run: Box<RunSummary>,
        /// Why.
        refusal: Refusal,
    },
    /// It cannot be driven here: its plan or events cannot be read.
    #[error("{0}")]
    Unreadable(String),
    /// The store refused it for sure, or did not answer: `unknown` is then true.
    #[error("{why}")]
    Store {
        /// What happened.
        why: String,
        /// Whether it was done is unknown: look at the run.
        unknown: bool,
    },
}

/// What one waits for.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// The run.
    pub run: RunSummary,
    /// In a sentence: what it waits for, since when, and what would move it.
    pub sentence: String,
    /// Each cause of its next step, one line each.
    pub waits: Vec<String>,
    /// Nothing would ever move it: a bug.
    pub stuck: bool,
}

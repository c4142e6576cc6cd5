//! Why a run ended early, or waits for a person.

use serde::{Deserialize, Serialize};

use super::CallRecord;
use crate::names::StepId;

/// Why a run ended early, in a form that becomes the caller's problem document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What kind.
    pub kind: FailureKind,
    /// The step in which it happened.
    pub step: Option<StepId>,
    /// The item of a `for_each`.
    pub item: Option<u32>,
    /// The status that a service answered with.
    pub status: Option<u16>,
    /// What happened, in a sentence.
    pub message: String,
    /// When the service says that trying again makes sense, milliseconds.
    pub retry_after_ms: Option<u64>,
}

/// What kind of failure: a closed set of labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// A service answered with a status outside `accept`.
    Refused,
    /// A service certainly did nothing, and no attempt is left.
    Unavailable,
    /// A read did not answer in time.
    TimedOut,
    /// A read was cut off, or answered with a 5xx.
    Broken,
    /// An expression has no value.
    Expression,
    /// A rehearsal needs an output that nobody declared.
    Unresolved,
    /// A bound was hit: items, size or nesting of an output.
    Bound,
    /// No entry of `respond` holds.
    NoAnswer,
    /// A `fail` step was reached: the declared answer goes out.
    Declared,
}

impl FailureKind {
    /// The label.
    pub fn as_str(self) -> &'static str {
        match self {
            FailureKind::Refused => "refused",
            FailureKind::Unavailable => "unavailable",
            FailureKind::TimedOut => "timed_out",
            FailureKind::Broken => "broken",
            FailureKind::Expression => "expression",
            FailureKind::Unresolved => "unresolved",
            FailureKind::Bound => "bound",
            FailureKind::NoAnswer => "no_answer",
            FailureKind::Declared => "declared",
        }
    }
    /// The status that a caller gets where the workflow declares no answer.
    pub fn default_status(self) -> u16 {
        match self {
            FailureKind::Refused | FailureKind::Broken => 502,
            FailureKind::Unavailable => 503,
            FailureKind::TimedOut => 504,
            FailureKind::Expression
            | FailureKind::Unresolved
            | FailureKind::Bound
            | FailureKind::NoAnswer
            | FailureKind::Declared => 500,
        }
    }
}

impl Failure {
    /// A failure in a step.
    pub fn of_step(kind: FailureKind, step: &StepId, item: Option<u32>, message: impl Into<String>) -> Self {
        Self { kind, step: Some(step.clone()), item, status: None, message: message.into(), retry_after_ms: None }
    }
    /// A failure outside any step.
    pub fn of_run(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, step: None, item: None, status: None, message: message.into(), retry_after_ms: None }
    }
}

/// What a run waits for a person over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Conflict {
    /// What kind.
    pub kind: ConflictKind,
    /// The step.
    pub step: StepId,
    /// The item of a `for_each`.
    pub item: Option<u32>,
    /// The attempt whose outcome is in question.
    pub attempt: u32,
    /// What happened, in a sentence.
    pub message: String,
    /// The status that came back, if one did.
    pub status: Option<u16>,
    /// What was sent.
    pub request: Option<std::sync::Arc<CallRecord>>,
}

/// What kind of conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConflictKind {
    /// It is unknown whether a private or shared step was done, and sending it again could do it twice.
    OutcomeUnknown,
}

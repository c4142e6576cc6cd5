//! What people are asked, and what they may say.
//!
//! Always true: an answer names who gave it; a checkpoint is answered once; what is shown to a person holds no secret
//! and no credential of a caller.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;

use crate::names::{CheckpointId, RunId, StepId};

/// What stands behind a name that nobody verified: of somebody on this machine, where no token is needed.
pub const UNVERIFIED: &str = " (unverified)";

/// How much a step puts at stake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Risk {
    /// It runs.
    Low,
    /// It waits for one yes or no.
    Medium,
    /// Every item is shown, and waits until each is approved or struck out.
    High,
}

impl Risk {
    /// The label.
    pub fn as_str(self) -> &'static str {
        match self {
            Risk::Low => "low",
            Risk::Medium => "medium",
            Risk::High => "high",
        }
    }
}

/// What happens when nobody answers in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnTimeout {
    /// As if somebody had said yes (and, of a question, given the declared default).
    Approve,
    /// As if somebody had said no.
    Reject,
    /// It is asked again, of those that stand under `escalate`.
    Escalate,
}

/// A checkpoint: what a run asks people.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpenCheckpoint {
    /// Its id.
    pub checkpoint: CheckpointId,
    /// The step.
    pub step: StepId,
    /// The item of a `for_each`.
    pub item: Option<u32>,
    /// What kind.
    pub kind: CheckpointKind,
    /// How much is at stake.
    pub risk: Risk,
    /// The question, for a person.
    pub question: String,
    /// JSON Schema of the answer's values.
    pub schema: Option<Arc<Value>>,
    /// Names that may answer; empty is everybody who may decide.
    pub who: Vec<String>,
    /// What the step would touch, one entry for each item of its `for_each` or of its body; only of a review.
    pub items: Vec<ReviewItem>,
    /// When it was asked: the `now` of what is performed after it.
    pub at: Timestamp,
    /// When it is answered by itself, or escalated.
    pub until: Option<Timestamp>,
    /// How.
    pub on_timeout: OnTimeout,
    /// The values that an approval by time-out gives.
    pub default: Option<Arc<Value>>,
}

/// What kind of checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CheckpointKind {
    /// A step of kind `checkpoint`.
    Question,
    /// A step of medium risk: yes or no.
    Approval,
    /// A step of high risk: item by item.
    Review,
}

/// One thing that a step of high risk would touch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReviewItem {
    /// Its place in the `for_each` or in the body.
    pub index: u32,
    /// What it would do, in a sentence (`POST https://bank/charges`).
    pub what: String,
    /// The item, without secrets; shortened where it is long.
    pub value: Arc<Value>,
}

/// What somebody says to a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckpointAnswer {
    /// Yes or no.
    pub approve: bool,
    /// The values that were asked for: the step's output.
    pub values: Option<Arc<Value>>,
    /// Of a review: places that may be performed; those that are in neither list have to be named before it is over.
    pub approved: Vec<u32>,
    /// Of a review: places that are struck out.
    pub struck: Vec<u32>,
    /// A remark.
    pub note: Option<String>,
}

/// How a conflict is resolved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    /// Another attempt, with the same bytes and key.
    Retry,
    /// Another attempt with this body, under a new key.
    RetryWith {
        /// The body (of a call) or value.
        input: Arc<Value>,
    },
    /// The step is skipped, and so is what needs it.
    Skip,
    /// The step is done, with this output.
    Take {
        /// The output.
        output: Arc<Value>,
    },
    /// The declared fallback is taken.
    Fallback,
    /// Of a lock that is held: wait for its release.
    Wait,
    /// The run is cancelled.
    Cancel {
        /// What is done and has an `undo` is undone first.
        compensate: bool,
    },
}

impl Choice {
    /// Its name in the API (`retry_with`).
    pub fn name(&self) -> &'static str {
        match self {
            Choice::Retry => "retry",
            Choice::RetryWith { .. } => "retry_with",
            Choice::Skip => "skip",
            Choice::Take { .. } => "take",
            Choice::Fallback => "fallback",
            Choice::Wait => "wait",
            Choice::Cancel { .. } => "cancel",
        }
    }
}

/// What people and programs ask of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Begin nothing more; what is under way ends.
    Pause {
        /// Why.
        reason: Option<String>,
    },
    /// Go on.
    Resume {
        /// Why.
        reason: Option<String>,
    },
    /// End.
    Cancel {
        /// What is done and has an `undo` is undone first.
        compensate: bool,
        /// Why.
        reason: Option<String>,
    },
    /// A step that has not begun, or over which the run is paused, is skipped.
    Skip {
        /// Which.
        step: StepId,
        /// Why.
        reason: Option<String>,
    },
    /// A step that has not begun gets this input: the body of a call, the value of a `set`, the input of a `run`.
    Adjust {
        /// Which.
        step: StepId,
        /// The item of a `for_each` that has opened.
        item: Option<u32>,
        /// The input.
        input: Arc<Value>,
        /// Why.
        reason: Option<String>,
    },
    /// A step that waits for its next attempt starts it now; of a conflict, as [`Choice::Retry`].
    Retry {
        /// Which; `None` is all.
        step: Option<StepId>,
    },
    /// A conflict is resolved.
    Resolve {
        /// The step.
        step: StepId,
        /// The item of a `for_each`.
        item: Option<u32>,
        /// How.
        choice: Choice,
        /// Why.
        reason: Option<String>,
    },
    /// A checkpoint is answered.
    Answer {
        /// Which.
        checkpoint: CheckpointId,
        /// How.
        said: CheckpointAnswer,
    },
    /// Another run takes its place: the way to a rerun of a run that could go on.
    HandOver {
        /// The other run's id.
        to: RunId,
        /// Where that one begins.
        from: StepId,
        /// Credentials of the caller, as the other run's ciphertext.
        sealed: Option<String>,
    },
    /// A signal is delivered.
    Signal {
        /// Its name.
        name: String,
        /// What it carries.
        payload: Arc<Value>,
        /// Names the delivery: a second one under the same id changes nothing.
        id: Option<String>,
    },
}

impl Order {
    /// Its name in the API, in logs and in metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Order::Pause { .. } => "pause",
            Order::Resume { .. } => "resume",
            Order::Cancel { .. } => "cancel",
            Order::Skip { .. } => "skip",
            Order::Adjust { .. } => "adjust",
            Order::Retry { .. } => "retry",
            Order::Resolve { .. } => "resolve",
            Order::Answer { .. } => "answer",
            Order::HandOver { .. } => "rerun",
            Order::Signal { .. } => "signal",
        }
    }
}

//! What people are asked, what they may answer, and the commands that they may give to a run.
//!
//! Always true: an answer names who gave it; a checkpoint is answered once; what is shown to a person holds no secret
//! and no credential of a caller.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;

use crate::names::{CheckpointId, RunId, StepId};

/// The suffix of a name that was not verified: on loopback no token is needed, so a client may give any name.
pub const UNVERIFIED: &str = " (unverified)";

/// How much a step puts at stake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Risk {
    /// The step runs.
    Low,
    /// The step waits for one yes or no.
    Medium,
    /// The step shows every item, and waits until each is approved or struck out.
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
    /// It counts as a yes (to a question, with the declared default as its values).
    Approve,
    /// It counts as a no.
    Reject,
    /// The people under `escalate` are asked.
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
    /// The kind of question.
    pub kind: CheckpointKind,
    /// How much is at stake.
    pub risk: Risk,
    /// The question, for a person.
    pub question: String,
    /// JSON Schema of the answer's values.
    pub schema: Option<Arc<Value>>,
    /// Who may answer; empty means everybody who may decide.
    pub who: Vec<String>,
    /// What the step would touch, one entry for each item of its `for_each` or of the list in its body. Empty unless
    /// this is a review.
    pub items: Vec<ReviewItem>,
    /// When it was asked. What is performed after the answer sees this time as `now`.
    pub at: Timestamp,
    /// When it is answered automatically, or escalated.
    pub until: Option<Timestamp>,
    /// What happens then.
    pub on_timeout: OnTimeout,
    /// The values that an approval by time-out gives.
    pub default: Option<Arc<Value>>,
    /// The base URL of the service that the step calls, as it was shown. Absent where it makes no call, and in events
    /// of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_url: Option<String>,
}

/// Kinds of checkpoint.
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
    /// Its index in the `for_each` or in the list in the body.
    pub index: u32,
    /// What it would do, in a sentence (`POST https://bank/charges`).
    pub what: String,
    /// The item, without secrets; shortened where it is long.
    pub value: Arc<Value>,
}

/// An answer to a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckpointAnswer {
    /// Yes or no.
    pub approve: bool,
    /// The values that were asked for: the step's output.
    pub values: Option<Arc<Value>>,
    /// Of a review: the indexes of items that may be performed. Every item has to be in this list or in `struck`.
    pub approved: Vec<u32>,
    /// Of a review: the indexes of items that are struck out.
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
    /// For a conflict over a lock: wait until the lock is released.
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

/// A command that a person, a program or a parent run gives to a run. The other commands
/// ([`super::Command`]) come from the engine itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ControlCommand {
    /// Nothing more begins; calls under way end.
    Pause {
        /// The reason given.
        reason: Option<String>,
    },
    /// A pause is lifted.
    Resume {
        /// The reason given.
        reason: Option<String>,
    },
    /// The run ends.
    Cancel {
        /// What is done and has an `undo` is undone first.
        compensate: bool,
        /// The reason given.
        reason: Option<String>,
        /// No person requested it: conflicts over unknown outcomes stay open.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        automatic: bool,
    },
    /// A step that has not begun, or over which the run is paused, is skipped.
    Skip {
        /// The step.
        step: StepId,
        /// The reason given.
        reason: Option<String>,
    },
    /// A step that has not begun gets this input: the body of a call, the value of a `set`, the input of a `run`.
    Adjust {
        /// The step.
        step: StepId,
        /// The item of a `for_each` whose items are known already.
        item: Option<u32>,
        /// The input.
        input: Arc<Value>,
        /// The reason given.
        reason: Option<String>,
    },
    /// A step that waits for its next attempt starts it now. A conflict over `step` is resolved by [`Choice::Retry`].
    Retry {
        /// The step; `None` means all.
        step: Option<StepId>,
        /// Only a conflict over this attempt is resolved.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        attempt: Option<u32>,
    },
    /// A conflict is resolved by one of its choices.
    Resolve {
        /// The step.
        step: StepId,
        /// The item of a `for_each`.
        item: Option<u32>,
        /// The attempt over which the conflict is. A command that is delivered twice would otherwise also resolve the
        /// conflict over the attempt that it led to.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        attempt: Option<u32>,
        /// The choice.
        choice: Choice,
        /// The reason given.
        reason: Option<String>,
    },
    /// A checkpoint is answered.
    Answer {
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// The answer.
        #[serde(rename = "said")]
        answer: CheckpointAnswer,
    },
    /// Another run replaces this one. Needed for a rerun of a run that has not ended.
    HandOver {
        /// The other run's id.
        to: RunId,
        /// The step at which the other run begins.
        from: StepId,
        /// Credentials of the caller, as the other run's ciphertext.
        sealed: Option<String>,
    },
    /// A signal is delivered.
    Signal {
        /// Its name.
        name: String,
        /// Its payload.
        payload: Arc<Value>,
        /// The id of the delivery: a second delivery with the same id changes nothing.
        id: Option<String>,
    },
}

impl ControlCommand {
    /// Its name in the API, in logs and in metrics.
    pub fn name(&self) -> &'static str {
        match self {
            ControlCommand::Pause { .. } => "pause",
            ControlCommand::Resume { .. } => "resume",
            ControlCommand::Cancel { .. } => "cancel",
            ControlCommand::Skip { .. } => "skip",
            ControlCommand::Adjust { .. } => "adjust",
            ControlCommand::Retry { .. } => "retry",
            ControlCommand::Resolve { .. } => "resolve",
            ControlCommand::Answer { .. } => "answer",
            ControlCommand::HandOver { .. } => "rerun",
            ControlCommand::Signal { .. } => "signal",
        }
    }
}

//! Checkpoints: where a run waits for a person.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::super::{CheckpointAnswer, OnTimeout, OpenCheckpoint};
use super::group::{EventSubject, kinds};
use crate::names::CheckpointId;

/// What happened to a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum CheckpointEvent {
    /// The run waits for a person.
    #[serde(rename = "checkpoint_opened")]
    Opened(Box<OpenCheckpoint>),
    /// A person (or the time-out, or the declared answer of a rehearsal) answered.
    #[serde(rename = "checkpoint_answered")]
    Answered {
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// The answer.
        #[serde(rename = "said")]
        answer: CheckpointAnswer,
        /// Who answered; `time-out` stands for nobody, `rehearse` for the declared answer.
        by: String,
    },
    /// Nobody answered in time, so other people are asked.
    #[serde(rename = "checkpoint_escalated")]
    Escalated {
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// Who may answer now.
        who: Vec<String>,
        /// The time by which they must have answered.
        until: Option<Timestamp>,
        /// How it is answered automatically then.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        on_timeout: Option<OnTimeout>,
    },
}

kinds!(CheckpointEvent {
    CheckpointEvent::Opened(_) => "checkpoint_opened",
    CheckpointEvent::Answered { .. } => "checkpoint_answered",
    CheckpointEvent::Escalated { .. } => "checkpoint_escalated",
});

impl CheckpointEvent {
    pub(super) fn subject(&self) -> EventSubject<'_> {
        match self {
            CheckpointEvent::Opened(asked) => Some((&asked.step, asked.item)),
            CheckpointEvent::Answered { .. } | CheckpointEvent::Escalated { .. } => None,
        }
    }
}

//! Events of the caller's answer.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::super::{AnswerRecord, Failure, Pinned};
use super::group::kinds;

/// What was decided about the caller's answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum AnswerEvent {
    /// The caller's answer is fixed.
    #[serde(rename = "responded")]
    Responded {
        /// The answer.
        answer: Arc<AnswerRecord>,
        /// The instance that the run created, or whose twin it created; its id is read from the answer.
        pin: Option<Pinned>,
    },
    /// The answer that the caller got while the run goes on.
    #[serde(rename = "pending_answered")]
    Pending {
        /// The answer.
        answer: Arc<AnswerRecord>,
        /// The instance that it names.
        pin: Option<Pinned>,
    },
    /// No answer could be made.
    #[serde(rename = "answer_failed")]
    Failed {
        /// The reason.
        failure: Failure,
    },
}

kinds!(AnswerEvent {
    AnswerEvent::Responded { .. } => "responded",
    AnswerEvent::Pending { .. } => "pending_answered",
    AnswerEvent::Failed { .. } => "answer_failed",
});

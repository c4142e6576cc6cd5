//! The phases of a run's end, and its last event.

use serde::{Deserialize, Serialize};

use super::super::{Failure, Superseded};
use super::group::kinds;
use crate::names::StepId;

/// A run begins to end, or ends. After an event for which [`EndingEvent::is_last`] holds nothing follows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndingEvent {
    /// The run's deadline has passed: it ends early.
    DeadlinePassed {},
    /// The run began to undo the steps that were done and have an `undo`.
    CompensationBegan {
        /// The steps (items), in groups that are undone one after the other; those of one group are undone
        /// concurrently.
        undo: Vec<Vec<(StepId, Option<u32>)>>,
    },
    /// Every step ended, or the run ended early with a `fail` step whose status is below 500.
    Completed {},
    /// The run ended early, or without an answer.
    Failed {
        /// The failure.
        failure: Failure,
    },
    /// The run ended because it was cancelled.
    Cancelled {
        /// Who cancelled it.
        by: String,
        /// The reason given.
        reason: Option<String>,
        /// Its plan or its events could not be read by the process that ended it: nothing was undone, whatever was
        /// under way is left as it is, and what became of it is unknown.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        unread: bool,
    },
    /// The run ended because a successor replaces it.
    Superseded(Box<Superseded>),
    /// The run was given up before anything private or shared began; legacy answers.
    Abandoned {
        /// Who handles the request instead.
        to: String,
        /// The reason: one of a closed set of labels.
        reason: String,
    },
}

kinds!(EndingEvent {
    EndingEvent::DeadlinePassed {} => "deadline_passed",
    EndingEvent::CompensationBegan { .. } => "compensation_began",
    EndingEvent::Completed {} => "completed",
    EndingEvent::Failed { .. } => "failed",
    EndingEvent::Cancelled { .. } => "cancelled",
    EndingEvent::Superseded(_) => "superseded",
    EndingEvent::Abandoned { .. } => "abandoned",
});

impl EndingEvent {
    /// Whether the run has ended with this event.
    pub fn is_last(&self) -> bool {
        match self {
            EndingEvent::DeadlinePassed {} | EndingEvent::CompensationBegan { .. } => false,
            EndingEvent::Completed {}
            | EndingEvent::Failed { .. }
            | EndingEvent::Cancelled { .. }
            | EndingEvent::Superseded(_)
            | EndingEvent::Abandoned { .. } => true,
        }
    }
}

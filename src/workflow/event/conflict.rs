//! Conflicts: what the run cannot decide by itself, and how a person resolved it.

use serde::{Deserialize, Serialize};

use super::super::{Choice, Conflict, Outcome, StepPart};
use super::group::{EventSubject, kinds};
use crate::names::StepId;

/// What happened to a conflict.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConflictEvent {
    /// The run cannot go on without a person.
    Paused {
        /// The conflict.
        conflict: Box<Conflict>,
        /// The outcome of the attempt, where the call was done but its output does not fit ([`Outcome::Unfit`]).
        #[serde(rename = "gave", default, skip_serializing_if = "Option::is_none")]
        unfit_outcome: Option<Box<Outcome>>,
    },
    /// Somebody resolved a conflict.
    Resolved {
        /// The step.
        step: StepId,
        /// The item of a `for_each`.
        item: Option<u32>,
        /// Which of the step's calls.
        #[serde(default, skip_serializing_if = "StepPart::is_do")]
        part: StepPart,
        /// The choice.
        choice: Choice,
        /// Who chose.
        by: String,
        /// The reason given.
        reason: Option<String>,
    },
}

kinds!(ConflictEvent {
    ConflictEvent::Paused { .. } => "paused",
    ConflictEvent::Resolved { .. } => "resolved",
});

impl ConflictEvent {
    pub(super) fn subject(&self) -> EventSubject<'_> {
        match self {
            ConflictEvent::Paused { conflict, .. } => Some((&conflict.step, conflict.item)),
            ConflictEvent::Resolved { step, item, .. } => Some((step, *item)),
        }
    }
}

//! Why a step will not run.

use serde::{Deserialize, Serialize};

/// Why a step will not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Skipped {
    /// Its `if` was false.
    Condition,
    /// Something that it needs was skipped.
    Needs,
    /// A person requested it.
    ByHand,
    /// A person rejected it at a checkpoint or a review.
    Rejected,
    /// Its lock is held, or the service replied with 423 or a status under `busy_on`, and `busy: skip` is declared.
    Busy,
    /// It is only a fallback, and was not needed.
    NotNeeded,
}

impl Skipped {
    /// Whether the step that a fallback replaces is skipped together with the fallback. Otherwise the fallback does not
    /// run, and that step has failed.
    pub(super) fn skips_replaced_step(self) -> bool {
        match self {
            Self::ByHand | Self::Rejected | Self::Busy => true,
            Self::Condition | Self::Needs | Self::NotNeeded => false,
        }
    }
}

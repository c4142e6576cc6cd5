//! Events of a step (an item) in the queue of a lock.

use serde::{Deserialize, Serialize};

use super::group::{EventSubject, kinds};
use crate::names::StepId;

/// An event of a step (an item) in the queue of a lock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum LockEvent {
    /// The step entered the queue.
    #[serde(rename = "lock_queued")]
    Queued {
        /// Which step.
        step: StepId,
        /// The item of a `for_each`.
        item: Option<u32>,
        /// The lock.
        name: String,
    },
    /// The step holds the lock.
    #[serde(rename = "lock_taken")]
    Taken {
        /// Which step.
        step: StepId,
        /// The item of a `for_each`.
        item: Option<u32>,
        /// The lock.
        name: String,
    },
    /// The step left the queue, or released the lock.
    #[serde(rename = "lock_left")]
    Left {
        /// Which step.
        step: StepId,
        /// The item of a `for_each`.
        item: Option<u32>,
        /// The lock.
        name: String,
    },
}

kinds!(LockEvent {
    LockEvent::Queued { .. } => "lock_queued",
    LockEvent::Taken { .. } => "lock_taken",
    LockEvent::Left { .. } => "lock_left",
});

impl LockEvent {
    /// The lock.
    pub fn name(&self) -> &str {
        match self {
            LockEvent::Queued { name, .. } | LockEvent::Taken { name, .. } | LockEvent::Left { name, .. } => name,
        }
    }

    pub(super) fn subject(&self) -> EventSubject<'_> {
        match self {
            LockEvent::Queued { step, item, .. }
            | LockEvent::Taken { step, item, .. }
            | LockEvent::Left { step, item, .. } => Some((step, *item)),
        }
    }
}

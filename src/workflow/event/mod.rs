//! Events: past-tense facts of a run.
//!
//! Always true: the first event is [`Event::RunStarted`] and carries all that the run may ever need of its request; a
//! step's outward call is two facts, [`Event::StepStarted`] before it is sent and [`Event::StepFinished`] after, and a
//! step (an item of a fan-out) has at most one [`Event::StepFinished`] of each part, however many attempts it took. No
//! event holds a secret: recorded headers and URLs have stars in place of secrets, and credentials of callers are
//! ciphertext.
//!
//! Kinds that are handled alike form a group, with a file of its own here; code that reads a run's history has one
//! match arm for each group. The stored form does not show the group: it is the kind and the content (`{"lock_taken":
//! {…}}`).

mod answer;
mod checkpoint;
mod child;
mod conflict;
mod control;
mod ending;
mod group;
mod lock;
mod step;
mod tagged;
#[cfg(test)]
mod tests;
mod wait;

use std::sync::Arc;

use serde::Serialize;

pub use answer::AnswerEvent;
pub use checkpoint::CheckpointEvent;
pub use child::ChildEvent;
pub use conflict::ConflictEvent;
pub use control::ControlEvent;
pub use ending::EndingEvent;
pub use lock::LockEvent;
pub use step::StepEvent;
pub use wait::WaitEvent;

use super::{RetryScheduled, RunStarted, StepFinished, StepStarted};
use crate::names::StepId;

/// One fact. Externally tagged on purpose: with arbitrary-precision numbers serde's other taggings break integers.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The run was started.
    RunStarted(Arc<RunStarted>),
    /// An attempt of a call is about to be sent.
    StepStarted(StepStarted),
    /// A call ended for good.
    StepFinished(StepFinished),
    /// An attempt ended without a result; the next one starts at the time in the event.
    RetryScheduled(RetryScheduled),
    /// What happened to a step (an item), other than its calls.
    #[serde(untagged)]
    Step(StepEvent),
    /// What happened to a `wait` step, or to a signal.
    #[serde(untagged)]
    Wait(WaitEvent),
    /// What happened to a step's entry in the queue of a lock.
    #[serde(untagged)]
    Lock(LockEvent),
    /// What happened to the child run of a `run` step.
    #[serde(untagged)]
    Child(ChildEvent),
    /// What happened to a checkpoint.
    #[serde(untagged)]
    Checkpoint(CheckpointEvent),
    /// What happened to a conflict.
    #[serde(untagged)]
    Conflict(ConflictEvent),
    /// A command of a person or a program, once accepted.
    #[serde(untagged)]
    Control(ControlEvent),
    /// What was decided about the caller's answer.
    #[serde(untagged)]
    Answer(AnswerEvent),
    /// The run begins to end, or ends.
    #[serde(untagged)]
    Ending(EndingEvent),
}

impl Event {
    /// The version of this event's shape; a reader refuses newer ones. Whatever an older binary could not read needs a
    /// new version: a kind of event, but also a name within one, such as a [`super::ConflictKind`].
    pub const VERSION: u16 = 3;

    /// The name of the event's kind in the store and in listings (`step_started`).
    pub fn kind(&self) -> &'static str {
        match self {
            Event::RunStarted(_) => "run_started",
            Event::StepStarted(_) => "step_started",
            Event::StepFinished(_) => "step_finished",
            Event::RetryScheduled(_) => "retry_scheduled",
            Event::Step(event) => event.kind(),
            Event::Wait(event) => event.kind(),
            Event::Lock(event) => event.kind(),
            Event::Child(event) => event.kind(),
            Event::Checkpoint(event) => event.kind(),
            Event::Conflict(event) => event.kind(),
            Event::Control(event) => event.kind(),
            Event::Answer(event) => event.kind(),
            Event::Ending(event) => event.kind(),
        }
    }

    /// The step that the event is about, and the item of its `for_each`; `None` where it is about the run.
    pub(in crate::workflow) fn subject(&self) -> Option<(&StepId, Option<u32>)> {
        match self {
            Event::StepStarted(started) => Some((&started.step, started.item)),
            Event::StepFinished(finished) => Some((&finished.step, finished.item)),
            Event::RetryScheduled(retry) => Some((&retry.step, retry.item)),
            Event::Step(event) => event.subject(),
            Event::Wait(event) => event.subject(),
            Event::Lock(event) => event.subject(),
            Event::Child(event) => event.subject(),
            Event::Checkpoint(event) => event.subject(),
            Event::Conflict(event) => event.subject(),
            Event::Control(event) => event.subject(),
            Event::RunStarted(_) | Event::Answer(_) | Event::Ending(_) => None,
        }
    }
}

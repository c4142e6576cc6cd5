//! The facts about a run's events that are recorded in metrics and logs.

use crate::names::StepId;
use crate::workflow::{AnswerEvent, ConflictEvent, Creates, Event, Outcome, Run};

/// A fact to count or log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Measure {
    /// The first attempt of a step, or of an item of it, began.
    StepBegan {
        step: StepId,
        item: Option<u32>,
    },
    /// A step, or an item of it, has an outcome.
    StepEnded {
        step: StepId,
        item: Option<u32>,
        outcome: &'static str,
    },
    Retry {
        step: StepId,
    },
    /// The run is paused over a conflict.
    Paused {
        step: StepId,
        item: Option<u32>,
        conflict: &'static str,
    },
    /// Conditions of `respond` had no value when the answer was decided.
    RespondConditionErrors(usize),
    /// The run creates an instance, but its answer does not contain the instance's id.
    InstanceWithoutId,
}

impl Measure {
    /// The fact to record about an event; `None` for most events.
    pub fn of(event: &Event, run: &Run) -> Option<Self> {
        Some(match event {
            Event::StepStarted(started) if started.attempt == 1 && started.part.is_do() => {
                Self::StepBegan { step: started.step.clone(), item: started.item }
            }
            Event::StepFinished(finished) if finished.part.is_do() => {
                let outcome = match finished.outcome {
                    Outcome::Done { .. } => "done",
                    Outcome::NotDone { .. } => "not_done",
                    Outcome::Unknown { .. } => "unknown",
                    Outcome::Failed { .. } => "failed",
                    Outcome::Rehearsed { .. } => "rehearsed",
                    Outcome::Unfit { .. } => "unfit",
                };
                Self::StepEnded { step: finished.step.clone(), item: finished.item, outcome }
            }
            Event::RetryScheduled(retry) => Self::Retry { step: retry.step.clone() },
            Event::Conflict(ConflictEvent::Paused { conflict, .. }) => {
                Self::Paused { step: conflict.step.clone(), item: conflict.item, conflict: conflict.kind.as_str() }
            }
            Event::Answer(AnswerEvent::Responded { answer, pin: None })
                if matches!(run.started().creates, Some(Creates::Engine { .. }))
                    && (200..300).contains(&answer.status) =>
            {
                Self::InstanceWithoutId
            }
            Event::RunStarted(_)
            | Event::StepStarted(_)
            | Event::StepFinished(_)
            | Event::Step(_)
            | Event::Wait(_)
            | Event::Lock(_)
            | Event::Child(_)
            | Event::Checkpoint(_)
            | Event::Conflict(ConflictEvent::Resolved { .. })
            | Event::Control(_)
            | Event::Answer(_)
            | Event::Ending(_) => return None,
        })
    }
}

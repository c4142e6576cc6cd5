//! The facts about a run's events that are recorded in metrics and logs.

use crate::names::StepId;
use crate::workflow::{
    AnswerEvent, ConflictEvent, Event, InFlight, Outcome, RetryScheduled, Run, StepFinished, StepPart,
    may_create_instance,
};

/// A fact to count or log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Measure {
    /// The first attempt of a step, or of an item of it, began.
    StepBegan { step: StepId, item: Option<u32> },
    /// A call of a step, or of an item of it, has an outcome.
    CallEnded {
        /// The attempt that ended it; its number is 0 where none was made.
        last: Attempt,
        outcome: &'static str,
    },
    /// Another attempt follows one that did not succeed, or that a person decided about.
    Retry {
        ended: Attempt,
        /// Whether its effect is unknown; otherwise it certainly did nothing.
        is_unknown: bool,
    },
    /// The run is paused over a conflict.
    Paused { step: StepId, item: Option<u32>, conflict: &'static str },
    /// Conditions of `respond` had no value when the answer was decided.
    RespondConditionErrors(usize),
    /// The run creates an instance, but its answer does not contain the instance's id.
    InstanceWithoutId,
}

/// An attempt of a call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::engine) struct Attempt {
    pub step: StepId,
    pub item: Option<u32>,
    pub part: StepPart,
    /// Its number, from 1; 0 in a [`Measure::CallEnded`] without an attempt.
    pub number: u32,
}

impl Attempt {
    pub fn of(in_flight: &InFlight) -> Self {
        let InFlight { step, item, part, attempt, .. } = in_flight;
        Self { step: step.clone(), item: *item, part: *part, number: *attempt }
    }
}

impl Measure {
    /// The fact to record about an event; `None` for most events.
    pub fn of(event: &Event, run: &Run) -> Option<Self> {
        Some(match event {
            Event::StepStarted(started) if started.attempt == 1 && started.part.is_do() => {
                Self::StepBegan { step: started.step.clone(), item: started.item }
            }
            Event::StepFinished(StepFinished { step, item, part, attempt, outcome }) => {
                let outcome = match outcome {
                    Outcome::Done { .. } => "done",
                    Outcome::NotDone { .. } => "not_done",
                    Outcome::Unknown { .. } => "unknown",
                    Outcome::Failed { .. } => "failed",
                    Outcome::Rehearsed { .. } => "rehearsed",
                    Outcome::Unfit { .. } => "unfit",
                };
                let last = Attempt { step: step.clone(), item: *item, part: *part, number: *attempt };
                Self::CallEnded { last, outcome }
            }
            Event::RetryScheduled(RetryScheduled { step, item, part, attempt, unknown, .. }) => {
                let ended = Attempt { step: step.clone(), item: *item, part: *part, number: *attempt };
                Self::Retry { ended, is_unknown: *unknown }
            }
            Event::Conflict(ConflictEvent::Paused { conflict, .. }) => {
                Self::Paused { step: conflict.step.clone(), item: conflict.item, conflict: conflict.kind.as_str() }
            }
            Event::Answer(AnswerEvent::Responded { answer, pin: None })
                if may_create_instance(answer.status) && run.lacks_instance_id() =>
            {
                Self::InstanceWithoutId
            }
            Event::RunStarted(_)
            | Event::StepStarted(_)
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::tests::{at, run_id, run_started};
    use crate::workflow::{
        AnswerRecord, Creates, EndingEvent, Failure, FailureKind, Payload, Pinned, RunStarted, fold,
    };

    fn answer(status: u16) -> Arc<AnswerRecord> {
        Arc::new(AnswerRecord::new(status, Vec::new(), Payload::Text("{}".into())))
    }

    fn pinned() -> Pinned {
        Pinned { family: "orders".into(), id: "o-1".into(), integer: None, twin: false }
    }

    /// Whether the answer with this status, after these events of a run that creates an instance, is measured as one
    /// without the id.
    fn is_without_id(status: u16, pinned_before: Vec<Pinned>, events: &[Event], pin: Option<Pinned>) -> bool {
        let Event::RunStarted(started) = run_started(run_id(1), at(0)) else { panic!("it is the first event") };
        let creates = Some(Creates::Engine { family: "orders".into(), path: "$.id".into() });
        let started = RunStarted { creates, pinned_before, ..(*started).clone() };
        let responded = Event::Answer(AnswerEvent::Responded { answer: answer(status), pin });
        let all = [&[Event::RunStarted(Arc::new(started))], events, std::slice::from_ref(&responded)].concat();
        let is_measured = Measure::of(&responded, &fold(&all).unwrap()) == Some(Measure::InstanceWithoutId);
        // `explain` and the list of runs say it, too.
        let ended = [&all[..], &[Event::Ending(EndingEvent::Completed {})]].concat();
        let note = fold(&ended).unwrap().note();
        let is_noted = note.is_some_and(|note| note.contains("`instance.creates`"));
        assert_eq!(is_noted, is_measured);
        is_measured
    }

    #[test]
    fn an_answer_has_no_id_only_where_none_is_pinned() {
        let pending = |pin| Event::Answer(AnswerEvent::Pending { answer: answer(202), pin });
        let failed = Failure::of_run(FailureKind::TimedOut, "too late");
        assert!(is_without_id(201, Vec::new(), &[], None));
        assert!(is_without_id(303, Vec::new(), &[], None));
        assert!(is_without_id(201, Vec::new(), &[pending(None)], None));
        assert!(!is_without_id(304, Vec::new(), &[], None));
        assert!(!is_without_id(422, Vec::new(), &[], None));
        assert!(!is_without_id(201, Vec::new(), &[], Some(pinned())));
        assert!(!is_without_id(201, Vec::new(), &[pending(Some(pinned()))], None), "the pending answer had it");
        assert!(!is_without_id(201, vec![pinned()], &[], None), "an earlier run of its job had it");
        let failed = Event::Answer(AnswerEvent::Failed { failure: failed });
        assert!(!is_without_id(200, Vec::new(), &[failed], None), "nothing need have been created");
    }
}

//! PURE. A workflow that adopts an instance of legacy, and how far a run of it has come.
//!
//! The question it answers: "is the instance the engine's now, is it still legacy's, or is it not known?" Always true:
//! an instance is the engine's only if legacy has certainly released it and the run has answered; it is legacy's
//! only if legacy was certainly not told.

use std::sync::Arc;

use super::{
    Adoption, AnswerRecord, ConflictEvent, ConflictKind, Event, Outcome, Run, RunStatus, StepEvent, StepPart,
    may_create_instance,
};
use crate::names::StepId;

/// The parts of `instance` that such a workflow can read.
pub(super) const READABLE: [&str; 2] = ["id", "legacy_id"];

/// How far a run that adopts an instance has come.
#[derive(Clone, Debug, PartialEq)]
pub enum AdoptionProgress {
    /// It goes on by itself.
    Running,
    /// It waits for a person, and legacy was certainly not told: it may be cancelled.
    Stopped,
    /// Legacy has released the instance, and the run has given this answer: the instance is the engine's.
    Adopted(Arc<AnswerRecord>),
    /// Legacy was certainly not told: the instance is legacy's.
    NotReleased(String),
    /// Whether legacy has released the instance is not known, or it has and the engine has nothing of the instance.
    Unknown(String),
}

/// What became of the call that tells legacy to release the instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Release {
    /// Certainly not done.
    NotDone,
    /// An attempt was begun, and its outcome is not recorded.
    UnderWay,
    /// It is not known whether it was done.
    Unknown,
    /// It was done, or need not be.
    Done,
}

/// How far a run has come that adopts an instance in this way, by all of its events.
pub fn progress<'a>(adoption: &Adoption, run: &Run, events: impl IntoIterator<Item = &'a Event>) -> AdoptionProgress {
    let release = match adoption {
        Adoption::LegacyPassive(_) => None,
        Adoption::Release(step) => Some(release(step, events)),
    };
    let status = run.status();
    if !status.is_final() {
        let waits_for_person =
            matches!(status, RunStatus::Paused | RunStatus::WaitingCheckpoint | RunStatus::WaitingSignal);
        return match release {
            _ if !waits_for_person => AdoptionProgress::Running,
            None | Some(Release::NotDone) => AdoptionProgress::Stopped,
            Some(Release::UnderWay | Release::Unknown) => AdoptionProgress::Unknown(format!(
                "the run waits for a person: whether legacy released the instance is not known{}",
                shown_note(run)
            )),
            Some(Release::Done) => AdoptionProgress::Unknown(format!(
                "the run waits for a person after legacy has released the instance{}",
                shown_note(run)
            )),
        };
    }
    match (release, answer_of_adopted(run)) {
        (None | Some(Release::Done), Ok(answer)) => AdoptionProgress::Adopted(answer.clone()),
        (None | Some(Release::NotDone), Err(why)) => AdoptionProgress::NotReleased(why),
        (Some(Release::NotDone), Ok(_)) => AdoptionProgress::NotReleased(
            "the run answered without having told legacy to release the instance".to_owned(),
        ),
        (Some(Release::UnderWay | Release::Unknown), answer) => {
            let why = answer.err().map_or_else(String::new, |why| format!(" ({why})"));
            AdoptionProgress::Unknown(format!("whether legacy released the instance is not known{why}"))
        }
        (Some(Release::Done), Err(why)) => {
            AdoptionProgress::Unknown(format!("legacy has released the instance, and the engine has none: {why}"))
        }
    }
}

/// Why a run is paused, in brackets; nothing if that is not known, or may be sensitive.
fn shown_note(run: &Run) -> String {
    let note = run.note().filter(|_| !run.holds_sensitive());
    note.map_or_else(String::new, |note| format!(" ({note})"))
}

/// The answer of a run that has ended and made an instance; else why it has made none.
fn answer_of_adopted(run: &Run) -> Result<&Arc<AnswerRecord>, String> {
    let failure = run.failure().map(|failure| failure.message.clone());
    match (run.status(), run.answer()) {
        (RunStatus::Completed, Some(answer)) if may_create_instance(answer.status) => Ok(answer),
        (RunStatus::Completed, Some(answer)) => Err(format!("the workflow answered {}", answer.status)),
        (RunStatus::Completed, None) => Err("the workflow gave no answer".to_owned()),
        (status, answer) => {
            let answered = answer.map(|answer| format!("the workflow answered {}", answer.status));
            Err(failure.or(answered).unwrap_or_else(|| format!("the run is {}", status.as_str())))
        }
    }
}

/// What the events say of this step's call. The engine ends a call as not done or as failed only if no attempt can have
/// taken effect; what is not recorded as ended counts as under way.
fn release<'a>(step: &StepId, events: impl IntoIterator<Item = &'a Event>) -> Release {
    let mut found = Release::NotDone;
    // A person may ask for another attempt although the outcome of an earlier one is not known. Only that it was done
    // makes it certain then.
    let mut was_unknown = false;
    for event in events {
        match event {
            Event::Conflict(ConflictEvent::Paused { conflict, .. })
                if conflict.step == *step && conflict.kind == ConflictKind::OutcomeUnknown =>
            {
                was_unknown = true;
                found = Release::Unknown;
            }
            Event::StepStarted(started) if started.step == *step && started.part == StepPart::Do => {
                found = Release::UnderWay;
            }
            Event::RetryScheduled(retry) if retry.step == *step && retry.part == StepPart::Do && retry.unknown => {
                found = Release::Unknown;
            }
            Event::RetryScheduled(retry) if retry.step == *step && retry.part == StepPart::Do => {
                // An attempt that did nothing does not tell what an earlier one did; the engine says so in `unknown`.
                found = if found == Release::Unknown { found } else { Release::NotDone };
            }
            Event::StepFinished(finished) if finished.step == *step && finished.part == StepPart::Do => {
                found = match &finished.outcome {
                    Outcome::Done { .. } | Outcome::Unfit { .. } => Release::Done,
                    Outcome::NotDone { .. } | Outcome::Rehearsed { .. } => Release::NotDone,
                    Outcome::Failed { failure } => match failure.status {
                        Some(400..500) => Release::NotDone,
                        // Nothing was sent.
                        None if finished.attempt == 0 => Release::NotDone,
                        // A reply by which legacy does not say that it refused, such as a redirect.
                        Some(_) | None => Release::Unknown,
                    },
                    Outcome::Unknown { .. } => Release::Unknown,
                };
            }
            Event::Step(StepEvent::Skipped { step: skipped, .. }) if skipped == step => {
                found = if found == Release::NotDone { Release::NotDone } else { Release::Unknown };
            }
            _ => {}
        }
    }
    if was_unknown && found == Release::NotDone { Release::Unknown } else { found }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::workflow::{
        Conflict, EffectClass, Failure, FailureKind, RetryScheduled, Skipped, StepFinished, StepStarted,
    };

    fn step() -> StepId {
        StepId::new("let-go")
    }

    fn started(attempt: u32) -> Event {
        let (item, part, key, request, until, at) = (None, StepPart::Do, None, None, None, None);
        let effect = EffectClass::Shared;
        Event::StepStarted(StepStarted {
            step: step(),
            item,
            part,
            attempt,
            key,
            effect,
            repeatable: false,
            request,
            until,
            at,
        })
    }

    fn retry(unknown: bool) -> Event {
        let at = "2026-03-01T12:00:00Z".parse().unwrap();
        Event::RetryScheduled(RetryScheduled {
            step: step(),
            item: None,
            part: StepPart::Do,
            attempt: 1,
            unknown,
            why: String::new(),
            at,
            uncounted: false,
            probe: false,
            status: None,
            response: None,
            may_take_effect_until: None,
            withdrawn: false,
        })
    }

    fn paused() -> Event {
        let conflict = Conflict {
            kind: ConflictKind::OutcomeUnknown,
            step: step(),
            item: None,
            part: StepPart::Do,
            attempt: 1,
            message: String::new(),
            status: None,
            request: None,
            key: None,
            response: None,
            expected: None,
            choices: Vec::new(),
            names_earlier_url: None,
            missing: None,
        };
        Event::Conflict(ConflictEvent::Paused { conflict: Box::new(conflict), unfit_outcome: None })
    }

    fn finished(attempt: u32, outcome: Outcome) -> Event {
        Event::StepFinished(StepFinished { step: step(), item: None, part: StepPart::Do, attempt, outcome })
    }

    fn failure(status: Option<u16>) -> Failure {
        Failure { status, ..Failure::of_step(FailureKind::Bound, &step(), None, String::new()) }
    }

    fn done() -> Outcome {
        Outcome::Done { status: 200, headers: BTreeMap::new(), output: Default::default() }
    }

    #[test]
    fn the_release_counts_as_not_done_only_where_that_is_certain() {
        let failed = |status| Outcome::Failed { failure: failure(status) };
        let skipped = Event::Step(StepEvent::Skipped { step: step(), item: None, reason: Skipped::Condition });
        let cases = [
            (vec![], Release::NotDone),
            (vec![skipped.clone()], Release::NotDone),
            (vec![started(1)], Release::UnderWay),
            (vec![started(1), skipped], Release::Unknown),
            (vec![started(1), retry(false)], Release::NotDone),
            (vec![started(1), retry(true)], Release::Unknown),
            (vec![started(1), retry(true), retry(false)], Release::Unknown),
            (vec![started(1), retry(true), started(2), finished(2, done())], Release::Done),
            // A person asked for another attempt.
            (vec![started(1), paused(), retry(false)], Release::Unknown),
            (vec![started(1), paused(), retry(false), started(2)], Release::UnderWay),
            (vec![started(1), paused(), retry(false), started(2), finished(2, failed(Some(409)))], Release::Unknown),
            (vec![started(1), paused(), retry(false), started(2), finished(2, done())], Release::Done),
            (vec![started(1), finished(1, Outcome::NotDone { failure: failure(None) })], Release::NotDone),
            (vec![started(1), finished(1, Outcome::Unknown { failure: failure(Some(500)) })], Release::Unknown),
            (vec![started(1), finished(1, failed(Some(409)))], Release::NotDone),
            (vec![started(1), finished(1, failed(Some(302)))], Release::Unknown),
            (vec![finished(0, failed(None))], Release::NotDone),
            (vec![started(1), finished(1, failed(None))], Release::Unknown),
        ];
        for (events, expected) in cases {
            assert_eq!(release(&step(), &events), expected, "{events:?}");
        }
    }
}

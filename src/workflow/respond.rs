//! The caller's answer: the entry of `respond` that holds, or the answer while the run goes on.
//!
//! Always true: an answer is fixed once; the instance that it created is pinned in the same event. If no answer can be
//! made, what the steps did stays done, except in a child run.

use std::sync::Arc;

use serde_json::Value;

use super::choices::choices;
use super::conflict::pauses;
use super::sensitive::{AnswerPlace, persons_answer_with_sensitive_parts, with_sensitive_parts};
use super::step_events::{check_given_depth, failure};
use super::{
    AnswerEvent, AnswerRecord, BytesMark, CommandRefusal, Conflict, ConflictEvent, ConflictKind, Creates,
    DecisionInputs, Event, Failure, FailureKind, Payload, Pinned, Plan, Run, StepIndex, StepPart, wire,
};
use crate::expression::{CreatedIdSource, ReadPath, Scope, id_spellings};

/// The step name in a conflict over the answer; no step has this name.
pub(super) const ANSWER: &str = "respond";

pub(super) fn respond(
    run: &Run,
    plan: &Plan,
    inputs: &DecisionInputs,
    entry: Option<usize>,
) -> Result<Vec<Event>, CommandRefusal> {
    if run.answer.is_some() {
        return Err(CommandRefusal::Answered);
    }
    if run.is_ending() || run.is_paused() || run.unanswered.is_some() {
        return Err(CommandRefusal::NotDue("the run is ending, or paused, or has no answer"));
    }
    let Some(entry) = entry else {
        let message = "no entry of `respond` holds";
        return Ok(vec![no_answer(run, Failure::of_run(FailureKind::NoAnswer, message))]);
    };
    let respond = plan.respond.get(entry).ok_or(CommandRefusal::NotDue("no such entry"))?;
    Ok(vec![match wire::answer(&respond.answer, run, &inputs.answering(run, None), inputs.bytes_mark(run)) {
        Ok(answer) => {
            let answer = with_sensitive_parts(plan, run, AnswerPlace::Respond(entry), answer);
            let pin = pin(run, &answer);
            Event::Answer(AnswerEvent::Responded { answer: Arc::new(answer), pin })
        }
        Err((reads, error)) => no_answer(run, failure(run, None, None, &reads, &error)),
    }])
}

/// The event where no answer can be made. What the steps did stays done; a person gives the answer, or the caller gets
/// a problem document that says there is none.
fn no_answer(run: &Run, failure: Failure) -> Event {
    if failure.kind == FailureKind::Unresolved || !pauses(run, None) {
        return Event::Answer(AnswerEvent::Failed { failure });
    }
    let kind = ConflictKind::Answer;
    let conflict = Conflict {
        kind,
        step: ANSWER.into(),
        item: None,
        part: StepPart::Do,
        attempt: 0,
        message: failure.message,
        status: None,
        request: None,
        key: None,
        response: None,
        expected: Some("the answer that `respond` declares; all steps that it waits for have ended".into()),
        choices: choices(run, None, None, kind).into_iter().map(str::to_owned).collect(),
        names_earlier_url: Some(false),
        missing: None,
    };
    Event::Conflict(ConflictEvent::Paused { conflict: Box::new(conflict), unfit_outcome: None })
}

/// The answer that a person gives.
pub(super) fn given_by_person(
    run: &Run,
    plan: &Plan,
    output: &Value,
    inputs: &DecisionInputs,
) -> Result<Event, CommandRefusal> {
    check_given_depth(&ANSWER.into(), output, inputs)?;
    let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
    let body = Payload::Text(output.to_string());
    let answer = persons_answer_with_sensitive_parts(plan, run, AnswerRecord::new(200, headers, body));
    let pin = pin(run, &answer);
    Ok(Event::Answer(AnswerEvent::Responded { answer: Arc::new(answer), pin }))
}

/// What the caller gets while the run goes on. An id in it is pinned like an id in the final answer.
pub(super) fn answer_pending(run: &Run, plan: &Plan, inputs: &DecisionInputs) -> Result<Vec<Event>, CommandRefusal> {
    if run.answer.is_some() || run.pending.is_some() {
        return Err(CommandRefusal::Answered);
    }
    let answer = wire::pending_answer(plan, inputs, run).ok_or(CommandRefusal::NotDue("there is no such answer"))?;
    let pin = pin(run, &answer);
    Ok(vec![Event::Answer(AnswerEvent::Pending { answer: Arc::new(answer), pin })])
}

/// Whether an answer with this status may contain the id of an instance that was created: a success, or a redirect to
/// the new instance. An answer that says "not modified" creates nothing.
pub fn may_create_instance(status: u16) -> bool {
    (200..400).contains(&status) && status != 304
}

/// The instance that the answer creates. One that this run or an earlier run of its job has pinned already is not
/// pinned again.
pub(super) fn pin(run: &Run, answer: &AnswerRecord) -> Option<Pinned> {
    if !may_create_instance(answer.status) {
        return None;
    }
    let pin = match run.started.creates.as_ref()? {
        Creates::Twin { family, id, integer } => {
            Pinned { family: family.clone(), id: id.clone(), integer: integer.clone(), twin: true }
        }
        Creates::Engine { family, path } => {
            let id = CreatedIdSource::from_text(path)?.find(&answer.headers, &answer.body.value())?;
            let (id, integer) = id_spellings(&id)?;
            Pinned { family: family.clone(), id, integer, twin: false }
        }
    };
    let is_pinned = run.pinned.as_ref() == Some(&pin) || run.started.pinned_before.contains(&pin);
    (!is_pinned).then_some(pin)
}

/// How many conditions of `respond` had no value when this entry (`None`: no entry) was taken. Conditions that read
/// `failed` or `input_error` are not counted: they have no value in a run that does not fail.
pub fn respond_condition_errors(run: &Run, plan: &Plan, inputs: &DecisionInputs, taken: Option<usize>) -> usize {
    let mut scope = None;
    let before = plan.respond.iter().take(taken.unwrap_or(plan.respond.len()));
    let has_ended = |steps: &Vec<StepIndex>| steps.iter().all(|step| run.has_ended(&plan.steps[step.0].id));
    let due = before.filter(|entry| entry.after.as_ref().map_or(run.ended_steps() == plan.steps.len(), has_ended));
    let conditions = due.filter_map(|entry| entry.when.as_ref());
    let is_general = |path: &ReadPath| !["failed", "input_error"].contains(&path.root());
    let general = conditions.filter(|when| when.reads().iter().all(is_general));
    general.filter(|when| when.holds(scope.get_or_insert_with(|| inputs.answering(run, None))).is_err()).count()
}

/// What the caller gets instead of a problem document, where an entry of `respond` reads `name` and holds: the first of
/// those whose answer has a value. `None`: there is none.
///
/// # Errors
/// Only entries hold whose answer has no value: why the first of them has none.
pub(super) fn answer_about(
    run: &Run,
    plan: &Plan,
    name: &str,
    scope: &Scope,
    mark: BytesMark,
) -> Result<Option<AnswerRecord>, Failure> {
    let mut without_value = None;
    for (index, entry) in plan.respond.iter().enumerate() {
        let when = entry.when.as_ref().filter(|when| when.reads().iter().any(|path| path.root() == name));
        if !when.is_some_and(|when| when.holds(scope).unwrap_or(false)) {
            continue;
        }
        match wire::answer(&entry.answer, run, scope, mark) {
            Ok(answer) => return Ok(Some(with_sensitive_parts(plan, run, AnswerPlace::Respond(index), answer))),
            Err((reads, error)) => {
                without_value.get_or_insert_with(|| failure(run, None, None, &reads, &error));
            }
        }
    }
    without_value.map_or(Ok(None), Err)
}

/// The answer to a caller whose body the workflow refuses, where `respond` declares one. `run` was never begun.
///
/// # Errors
/// The answer that `respond` declares for it has no value: why.
pub fn input_refused(
    run: &Run,
    plan: &Plan,
    inputs: &DecisionInputs,
    why: &str,
) -> Result<Option<AnswerRecord>, Failure> {
    answer_about(run, plan, "input_error", &inputs.answering(run, Some(why)), inputs.bytes_mark(run))
}

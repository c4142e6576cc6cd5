//! Undoes what was done: in reverse order of completion, and concurrently where the steps had overlapped.
//!
//! Always true: only what was done is undone, and only once; unknown effects are never undone. An undo has a key of its
//! own, the same for every attempt. What cannot be undone is a conflict: a person decides. An undo with unknown outcome
//! is a conflict of another kind, because another attempt could undo twice. A rehearsed call has nothing
//! to undo: only the intent is recorded.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::address::{self, NextAttempt};
use super::attempt_result::{Class, classify, response};
use super::begin::{first_request, idempotency_key};
use super::calls::{CallState, DoneCall, Phase, StepItem};
use super::conflict::conflict;
use super::may_begin::sends;
use super::outcome::EndedAttempt;
use super::step_events::failure;
use super::{
    AttemptResult, Call, CommandRefusal, ConflictEvent, ConflictKind, DecisionInputs, EffectClass, Event, Failure,
    Outcome, Plan, Run, Step, StepFinished, StepPart, StepStarted, missing,
};
use crate::expression::{ExpressionError, ReadPath};
use crate::names::StepId;

/// The calls to undo, in groups, the first group first: the calls of a group had overlapped in time.
pub(super) fn groups_to_undo(run: &Run, plan: &Plan) -> Vec<Vec<StepItem>> {
    let has_undo = |done: &&DoneCall| plan.step(&done.step).is_some_and(|(_, step)| step.undo.is_some());
    let calls = |group: Vec<&DoneCall>| group.into_iter().map(|done| (done.step.clone(), done.item)).collect();
    overlapping(run.done.iter().filter(has_undo)).into_iter().map(calls).collect()
}

/// Groups of calls that had overlapped in time, in the order in which they are undone. What earlier runs of the job did
/// comes last, in the groups that the rerun determined when it took over their results.
fn overlapping<'a>(done: impl DoubleEndedIterator<Item = &'a DoneCall>) -> Vec<Vec<&'a DoneCall>> {
    let mut groups: Vec<Vec<&DoneCall>> = Vec::new();
    let mut groups_before: BTreeMap<u32, Vec<&DoneCall>> = BTreeMap::new();
    // The latest start in the group that is being built.
    let mut latest = None;
    for done in done.rev() {
        if let Some(group) = done.group_before {
            groups_before.entry(group).or_default().push(done);
            continue;
        }
        match (latest, groups.last_mut()) {
            (Some(began), Some(group)) if done.last_seq > began => {
                group.push(done);
                latest = Some(done.first_seq.max(began));
            }
            _ => {
                groups.push(vec![done]);
                latest = Some(done.first_seq);
            }
        }
    }
    groups.extend(groups_before.into_values().rev());
    groups
}

/// The number of the group in which each of these calls is undone, where its step has an `undo`; the greatest number
/// is undone first.
pub(super) fn undo_groups<'a>(
    done: impl Iterator<Item = &'a DoneCall>,
    undoes: impl Fn(&StepId) -> bool,
) -> BTreeMap<(&'a StepId, Option<u32>), u32> {
    let mut done: Vec<&DoneCall> = done.filter(|done| undoes(&done.step)).collect();
    // `overlapping` takes the calls in the order of completion.
    done.sort_by_key(|done| done.last_seq);
    let groups = overlapping(done.into_iter());
    let numbered = (0u32..).zip(groups.into_iter().rev());
    numbered.flat_map(|(number, group)| group.into_iter().map(move |done| ((&done.step, done.item), number))).collect()
}

/// Begins the first or next attempt of an undo.
pub(super) fn begin(
    run: &Run,
    inputs: &DecisionInputs,
    step: &Step,
    item: Option<u32>,
) -> Result<Vec<Event>, CommandRefusal> {
    let undo = step.undo.as_ref().ok_or(CommandRefusal::NotDue("the step has no undo"))?;
    run.check_undo_is_due(&step.id, item).map_err(|_| CommandRefusal::NotDue("it is not to be undone now"))?;
    let done = run.done_call(&step.id, item).ok_or(CommandRefusal::NotDue("it was not done"))?;
    let started = |attempt, key, request| {
        Event::StepStarted(StepStarted {
            step: step.id.clone(),
            item,
            part: StepPart::Undo,
            attempt,
            key,
            effect: undo.effect,
            repeatable: undo.repeat_is_harmless(),
            request,
            until: None,
            at: None,
        })
    };
    let finished = |outcome| {
        Event::StepFinished(StepFinished { step: step.id.clone(), item, part: StepPart::Undo, attempt: 0, outcome })
    };
    // The request of the undo cannot be built.
    let cannot_build = |reads: &[ReadPath], error: &ExpressionError| {
        let mut failure = failure(run, Some(&step.id), item, reads, error);
        let unknown = run.call_state(&step.id, item, StepPart::Undo).is_some_and(CallState::unknown_effect);
        let what = match unknown {
            true => undo_unknown(step),
            false => format!("what `{}` did cannot be undone", step.id),
        };
        failure.message = format!("{what}: {}", failure.message);
        match done.rehearsed {
            true => finished(Outcome::Failed { failure }),
            false => pause_over_failure(run, step, item, conflict_kind(unknown), &failure, None),
        }
    };
    let missing = missing::of_call(undo, inputs).filter(|_| !done.rehearsed);
    match run.call_state(&step.id, item, StepPart::Undo) {
        Some(state) if !matches!(state.phase, Phase::InFlight | Phase::AwaitsDecision) && missing.is_some() => {}
        Some(state) if matches!(state.phase, Phase::Waiting(_)) => {
            if let Some(pause) = address::pause_unrepeatable(run, step, item, StepPart::Undo, inputs, (undo, state)) {
                return Ok(vec![pause]);
            }
            let request = match address::next(run, inputs, step, item, StepPart::Undo, (undo, state)) {
                Ok(NextAttempt::Same) => None,
                Ok(NextAttempt::Rebased(request)) => Some(request),
                Ok(NextAttempt::Pause(event)) => return Ok(vec![event]),
                Err((reads, error)) => return Ok(vec![cannot_build(&reads, &error)]),
            };
            return Ok(vec![started(state.attempt + 1, state.key.clone(), request)]);
        }
        Some(_) => return Err(CommandRefusal::NotDue("an attempt is under way")),
        None => {}
    }
    if let Some(missing) = missing {
        return Ok(vec![missing::pause(run, step, item, StepPart::Undo, &missing)]);
    }
    let request = match first_request(run, inputs, undo, step, item, StepPart::Undo) {
        Ok(request) => Arc::new(request),
        Err((reads, error)) => return Ok(vec![cannot_build(&reads, &error)]),
    };
    Ok(vec![match !done.rehearsed && sends(run.mode(), undo) {
        true => {
            let origin = done.origin.unwrap_or(run.id());
            let key = (undo.effect != EffectClass::Read)
                .then(|| idempotency_key(inputs, origin, &step.id, item, StepPart::Undo, 0));
            started(1, key, Some(request))
        }
        false => finished(Outcome::Rehearsed { intent: request, output: None, note: None, taken: None }),
    }])
}

/// Handles the result of an undo's attempt.
pub(super) fn ended(ended: &EndedAttempt<'_>, call: &Call, state: &CallState, result: AttemptResult) -> Vec<Event> {
    let class = classify(call, &result);
    let failure = ended.failure(&result, class);
    let unknown = state.uncertain || ended.may_be_repeat || class == Class::Unknown;
    let shown = response(&result);
    // This attempt may have undone it, or an earlier one, whatever the result of this one says.
    let may_be_undone = unknown && state.effect != EffectClass::Read;
    let pause = |failure: Failure, shown| {
        let what = match may_be_undone {
            true => undo_unknown(ended.step),
            false => format!("what `{}` did could not be undone", ended.step.id),
        };
        let failure = Failure { message: format!("{what}: {}", failure.message), ..failure };
        // The run was cancelled without undoing while the attempt was under way: nobody is asked about it.
        if !ended.run.compensates() {
            return vec![ended.finished(match may_be_undone {
                true => Outcome::Unknown { failure },
                false => Outcome::Failed { failure },
            })];
        }
        vec![pause_over_failure(ended.run, ended.step, ended.item, conflict_kind(may_be_undone), &failure, shown)]
    };
    match (class, result) {
        (Class::Done, AttemptResult::Reply { status, headers, output, .. }) => {
            vec![ended.finished(Outcome::Done { status, headers, output: output.into() })]
        }
        // It was undone: the content of the reply does not matter.
        (Class::Done | Class::Unreadable, _) => {
            let (headers, output) = Default::default();
            vec![ended.finished(Outcome::Done { status: failure.status.unwrap_or(200), headers, output })]
        }
        (Class::NotDone | Class::Unknown, result) => match ended.retry(call, state, unknown, &failure, &result) {
            Some(retry) => vec![retry],
            None => pause(failure, shown),
        },
        (Class::Refused, _) => pause(failure, shown),
    }
}

fn undo_unknown(step: &Step) -> String {
    format!("it is unknown whether what `{}` did was undone", step.id)
}

fn conflict_kind(unknown: bool) -> ConflictKind {
    if unknown { ConflictKind::UndoUnknown } else { ConflictKind::UndoFailed }
}

fn pause_over_failure(
    run: &Run,
    step: &Step,
    item: Option<u32>,
    kind: ConflictKind,
    failure: &Failure,
    response: Option<Arc<serde_json::Value>>,
) -> Event {
    let mut conflict = conflict(run, step, item, StepPart::Undo, kind, failure);
    conflict.response = response;
    conflict.expected = step.call(StepPart::Undo).map(|call| format!("a status among {}", call.accept));
    Event::Conflict(ConflictEvent::Paused { conflict: Box::new(conflict), unfit_outcome: None })
}

//! Commands to a run that has not ended: pause, resume, skip, adjust, retry.
//!
//! Always true: finished steps keep their results; a command that is not possible in the run's state is refused with
//! the reason and changes nothing. No command replaces an approval: an adjusted input is asked about again.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use super::calls::{CallState, Phase, RunningStep, StepState, all_calls};
use super::decision_inputs::deeper_than;
use super::resolve::{self, Resolution};
use super::step_events::{check_given_form, skipped};
use super::{
    CallBody, Choice, CommandRefusal, ControlEvent, DecisionInputs, EffectClass, Event, Plan, Run, Skipped, Step,
    StepKind, StepPart,
};
use crate::names::StepId;

fn not_applicable<T>(why: impl Into<String>) -> Result<T, CommandRefusal> {
    Err(CommandRefusal::NotApplicable(why.into()))
}

/// Refuses a command to a run that is ending: no step of its plan begins any more.
fn check_not_ending(run: &Run) -> Result<(), CommandRefusal> {
    match (&run.cancel, run.failing.as_ref()) {
        (Some(cancel), _) => not_applicable(format!("{} has cancelled it: it is ending", cancel.by)),
        (None, Some(failure)) => not_applicable(format!("it is ending: {}", failure.message)),
        (None, None) => Ok(()),
    }
}

pub(super) fn pause(run: &Run, reason: Option<String>, by: &str, now: Timestamp) -> Result<Vec<Event>, CommandRefusal> {
    check_not_ending(run)?;
    match &run.pause {
        Some(pause) => not_applicable(format!("{} has paused it already", pause.by)),
        // A parent may repeat its command much later.
        None if run.parent_pause_lifted && run.is_parent(by) => {
            not_applicable("somebody has lifted this pause since it was ordered")
        }
        None => Ok(vec![Event::Control(ControlEvent::PauseRequested { by: by.to_owned(), reason, at: Some(now) })]),
    }
}

/// Pauses a run of a store that is a copy. A run that is ending is paused too: what it undid after the copy was made is
/// not in its events, and would be undone a second time.
pub(super) fn pause_copied(
    run: &Run,
    reason: String,
    by: String,
    now: Timestamp,
) -> Result<Vec<Event>, CommandRefusal> {
    match &run.pause {
        Some(pause) => not_applicable(format!("{} has paused it already", pause.by)),
        None => Ok(vec![Event::Control(ControlEvent::PauseRequested { by, reason: Some(reason), at: Some(now) })]),
    }
}

pub(super) fn resume(
    run: &Run,
    reason: Option<String>,
    by: &str,
    now: Timestamp,
) -> Result<Vec<Event>, CommandRefusal> {
    if let Some(pause) = &run.pause {
        // A parent lifts only its own pause: it may repeat its commands much later.
        return match run.is_parent(by) && pause.by != by {
            true => not_applicable(format!("{} paused it, not the run that began it", pause.by)),
            false => Ok(vec![Event::Control(ControlEvent::Resumed { by: by.to_owned(), reason, at: Some(now) })]),
        };
    }
    if run.parent_pause_lifted && run.is_parent(by) {
        return Ok(vec![Event::Control(ControlEvent::Resumed { by: by.to_owned(), reason, at: Some(now) })]);
    }
    match run.conflict() {
        Some(conflict) => not_applicable(format!(
            "it waits for a decision about `{}`, and goes on when that is made: choose one of {}",
            conflict.step,
            conflict.choices.join(", ")
        )),
        None => not_applicable("it is not paused"),
    }
}

pub(super) fn skip(
    run: &Run,
    plan: &Plan,
    inputs: &DecisionInputs,
    id: &StepId,
    reason: Option<String>,
    by: &str,
    now: Timestamp,
) -> Result<Vec<Event>, CommandRefusal> {
    let (_, step) = plan.step(id).ok_or(CommandRefusal::NoSuchStep)?;
    check_not_ending(run)?;
    if run.conflict_over(id, None).is_some() {
        let resolution =
            Resolution { step: id.clone(), item: None, attempt: None, choice: Choice::Skip, reason, by: by.to_owned() };
        return resolve::resolve(run, plan, inputs, &resolution, now);
    }
    if let Some(conflict) = run.conflicts().iter().find(|conflict| conflict.step == *id) {
        let item = conflict.item.unwrap_or(0);
        return not_applicable(format!("a decision about item {item} of `{id}` is open: resolve that one"));
    }
    let original = step.replaces.and_then(|original| plan.steps.get(original.0)).map(|original| &original.id);
    match run.steps.get(id) {
        None => {
            if let Some(original) = original.filter(|_| !run.replaced.contains_key(id)) {
                return not_applicable(format!("`{id}` runs only where it takes the place of `{original}`"));
            }
        }
        Some(StepState::Open(RunningStep { replaced_items: Some(_), .. })) => {
            let original = original.map_or("another step", |original| original.as_str());
            return not_applicable(format!(
                "`{id}` takes the place of items of `{original}`, which cannot be skipped together"
            ));
        }
        Some(StepState::Open(open)) if open.nothing_begun() && open.ended() == 0 => {}
        Some(StepState::Open(open)) if open.items.is_none() => match open.calls.get(&0) {
            Some(call) if matches!(call.phase, Phase::Waiting(_)) && !call.unknown_effect() => {}
            Some(call) if matches!(call.phase, Phase::Waiting(_) | Phase::ToProbe(_)) => {
                return not_applicable(format!(
                    "it is unknown whether `{id}` was done: it cannot be skipped before that is known"
                ));
            }
            Some(_) => return not_applicable(format!("a call of `{id}` is under way")),
            None => return not_applicable(format!("the run that `{id}` began is under way: cancel that one")),
        },
        Some(StepState::Open(open)) => {
            let (ended, all) = (open.ended(), open.all());
            return not_applicable(format!("`{id}` has begun: {ended} of its {all} items have ended"));
        }
        Some(StepState::Replaced { by, .. }) => {
            return not_applicable(format!("`{by}` runs in the place of `{id}`: skip that one"));
        }
        Some(StepState::Done { .. } | StepState::Skipped | StepState::Failed) => {
            return not_applicable(format!("`{id}` has ended"));
        }
    }
    Ok(skipped(run, step, Skipped::ByHand))
}

/// A command to give a step another input.
pub(super) struct Adjustment {
    pub step: StepId,
    pub item: Option<u32>,
    pub input: Arc<Value>,
    pub reason: Option<String>,
    pub by: String,
}

pub(super) fn adjust(
    run: &Run,
    plan: &Plan,
    inputs: &DecisionInputs,
    adjustment: Adjustment,
) -> Result<Vec<Event>, CommandRefusal> {
    let Adjustment { step: ref id, item, input, reason, by } = adjustment;
    let (_, step) = plan.step(id).ok_or(CommandRefusal::NoSuchStep)?;
    check_not_ending(run)?;
    takes_input(step)?;
    check_given_form(step, &input)?;
    if run.conflict_over(id, item).is_some() {
        return not_applicable(format!("a decision about `{id}` is open: choose `retry_with` there"));
    }
    match (run.steps.get(id), item, plan.runs_by_item(step)) {
        (None, None, false) => {}
        (None, _, true) => return not_applicable(format!("the items of `{id}` are not known yet")),
        (None, Some(_), false) => return not_applicable(format!("`{id}` has no items")),
        (Some(StepState::Open(open)), None, _) if open.items.is_some() => {
            return not_applicable(format!("name the item of `{id}` that is meant: it has {} items", open.all()));
        }
        (Some(StepState::Open(open)), item, _) if open.items.is_some() == item.is_some() => {
            let item_index = item.unwrap_or(0);
            if item_index as usize >= open.all() {
                return not_applicable(format!("`{id}` has no item {item_index}: it has {} items", open.all()));
            }
            if !(open.is_new(item_index) || open.queued.contains(&item_index)) {
                return not_applicable(format!("{} has begun", describe(id, item)));
            }
        }
        (Some(StepState::Open(_)), ..) => return not_applicable(format!("`{id}` has no items")),
        (Some(_), ..) => return not_applicable(format!("`{id}` has ended")),
    }
    if deeper_than(&input, inputs.output_depth_max) {
        let message = format!("the input is nested deeper than output_depth_max ({})", inputs.output_depth_max);
        return Err(CommandRefusal::BadValues(vec![message]));
    }
    Ok(vec![Event::Control(ControlEvent::InputAdjusted {
        step: id.clone(),
        item,
        input,
        by,
        reason,
        least_risk: None,
        sensitive: false,
    })])
}

fn describe(id: &StepId, item: Option<u32>) -> String {
    item.map_or_else(|| format!("`{id}`"), |item| format!("item {item} of `{id}`"))
}

fn takes_input(step: &Step) -> Result<(), CommandRefusal> {
    match &step.kind {
        StepKind::Call(call) if matches!(call.body, CallBody::Empty) => {
            not_applicable(format!("`{}` sends no body that could be adjusted", step.id))
        }
        StepKind::Call(_) | StepKind::Run(_) => Ok(()),
        StepKind::Set(_) if step.for_each.is_none() => Ok(()),
        StepKind::Set(_) => not_applicable(format!("`{}` computes all its items at once", step.id)),
        StepKind::Checkpoint(_) => not_applicable(format!("`{}` asks a person: answer it", step.id)),
        StepKind::Wait(_) | StepKind::Fail(_) => not_applicable(format!("`{}` has no input", step.id)),
    }
}

/// Starts waiting attempts now, or retries a conflict.
pub(super) fn retry(
    run: &Run,
    plan: &Plan,
    inputs: &DecisionInputs,
    only: Option<(&StepId, Option<u32>)>,
    by: &str,
    now: Timestamp,
) -> Result<Vec<Event>, CommandRefusal> {
    if let Some((id, attempt)) = only {
        plan.step(id).ok_or(CommandRefusal::NoSuchStep)?;
        let mut conflicts = run.conflicts().iter().filter(|conflict| conflict.step == *id);
        match (conflicts.next(), conflicts.next()) {
            (Some(conflict), None) => {
                let (step, item) = (id.clone(), conflict.item);
                let (choice, by) = (Choice::Retry, by.to_owned());
                let resolution = Resolution { step, item, attempt, choice, reason: None, by };
                return resolve::resolve(run, plan, inputs, &resolution, now);
            }
            (Some(_), Some(_)) => {
                return not_applicable(format!("decisions about several items of `{id}` are open: resolve each"));
            }
            (None, _) if let Some(attempt) = attempt => {
                return not_applicable(format!("no conflict over attempt {attempt} of `{id}` is open"));
            }
            (None, _) => {}
        }
    }
    let only = only.map(|(id, _)| id);
    let of_step = |(id, ..): &(&StepId, Option<u32>, StepPart, &CallState)| only.is_none_or(|only| only == *id);
    let calls = || all_calls(&run.steps, &run.side_calls).filter(of_step);
    let next_attempt = |call: &CallState| match call.phase {
        Phase::Waiting(at) | Phase::ToProbe(at) => Some(at),
        Phase::InFlight | Phase::Probing | Phase::AwaitsDecision => None,
    };
    let waiting = calls().filter(|(.., call)| next_attempt(call).is_some_and(|at| at > now));
    let waiting = waiting.map(|(id, item, ..)| (id, item));
    let retried =
        |(id, item): (&StepId, Option<u32>)| ControlEvent::RetriedNow { step: id.clone(), item, by: by.to_owned() };
    let events: Vec<Event> = waiting.map(|call| Event::Control(retried(call))).collect();
    if !events.is_empty() {
        return Ok(events);
    }
    // The time of these attempts has come, but something holds them.
    let mut due = calls().filter(|(.., call)| next_attempt(call).is_some());
    if let Some((id, _, part, call)) = due.next() {
        let is_frozen = inputs.effects_are_frozen && part != StepPart::Probe && call.effect != EffectClass::Read;
        let why = match (is_frozen && matches!(call.phase, Phase::Waiting(_)), run.is_paused()) {
            (true, _) => "is held, because private and shared steps are frozen: it is made when the freeze ends",
            (false, true) => "is due, and is made when the run is no longer paused",
            (false, false) => "is due, and is about to be made",
        };
        return not_applicable(format!("the next attempt of `{id}` {why}"));
    }
    match only {
        Some(id) if calls().next().is_some() => {
            not_applicable(format!("`{id}` waits for no attempt: one is under way"))
        }
        Some(id) => not_applicable(format!("`{id}` waits for no attempt")),
        None => not_applicable(
            "nothing waits for another attempt; for a step whose outcome is not known, name the step \
             (`pointsman runs resolve RUN STEP retry`)",
        ),
    }
}

//! Resolves a conflict as a person chose; the run goes on from there.
//!
//! Always true: only a choice that the conflict offers is accepted; finished steps keep their results; an output that a
//! person gives is checked against the step's schema, like the service's own.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use super::choices::{choices, is_offered, why_not};
use super::step_events::{check_given_depth, check_given_form};
use super::{
    Choice, CommandRefusal, ConflictEvent, ConflictKind, DecisionInputs, Event, Failure, FailureKind, Outcome, Plan,
    RetryScheduled, Run, Skipped, Step, StepEvent, StepFinished, StepKind, StepPart, ending, fallback, respond,
};
use crate::names::StepId;

/// The pause before a call is repeated after the service said "locked".
const BUSY_PAUSE: jiff::SignedDuration = jiff::SignedDuration::from_secs(1);

/// Who resolves the conflicts over calls that were done in a run that ends.
pub(super) const ENDING: &str = "the end of the run";

/// The choice of a person.
pub(super) struct Resolution {
    pub step: StepId,
    pub item: Option<u32>,
    /// Which attempt the conflict must be over.
    pub attempt: Option<u32>,
    pub choice: Choice,
    pub reason: Option<String>,
    pub by: String,
}

pub(super) fn resolve(
    run: &Run,
    plan: &Plan,
    inputs: &DecisionInputs,
    resolution: &Resolution,
    now: Timestamp,
) -> Result<Vec<Event>, CommandRefusal> {
    let Resolution { step, item, attempt, choice, reason, by } = resolution;
    let Some(conflict) = run.conflict_over(step, *item) else {
        return Err(none_open(run, plan, step, *item));
    };
    if let Some(decided) = attempt.filter(|decided| *decided != conflict.attempt) {
        return Err(CommandRefusal::NotApplicable(format!(
            "the open conflict over `{step}` is about attempt {}, and this decision is about attempt {decided}: look \
             at the conflict, then decide about it",
            conflict.attempt
        )));
    }
    let declared = match conflict.kind {
        ConflictKind::Answer => None,
        _ => Some(plan.step(step).ok_or(CommandRefusal::NoSuchStep)?.1),
    };
    let mut offered = choices(run, declared, *item, conflict.kind);
    if !is_offered(&conflict.choices, &offered, choice) {
        offered.retain(|name| name.starts_with("cancel") || conflict.choices.iter().any(|recorded| recorded == name));
        let why = why_not(run, declared, *item, conflict.kind, choice);
        return Err(CommandRefusal::NotApplicable(format!(
            "`{}` is not possible here: {why}; choose one of {}",
            choice.name(),
            offered.join(", ")
        )));
    }
    let resolved = Event::Conflict(ConflictEvent::Resolved {
        step: step.clone(),
        item: *item,
        part: conflict.part,
        choice: choice.clone(),
        by: by.clone(),
        reason: reason.clone(),
    });
    let mut events = vec![resolved];
    let Some(declared) = declared else {
        match choice {
            Choice::Cancel { compensate } => {
                events.extend(ending::cancel(run, *compensate, reason.clone(), false, by, now)?)
            }
            Choice::Take { output } => events.push(respond::given_by_person(run, plan, output, inputs)?),
            _ => {}
        }
        return Ok(events);
    };
    match (choice, conflict.part) {
        (Choice::Cancel { compensate }, _) => {
            events.extend(ending::cancel(run, *compensate, reason.clone(), false, by, now)?)
        }
        (Choice::Retry | Choice::RetryWith { .. }, part) => {
            if let Choice::RetryWith { input } = choice {
                check_given_depth(&declared.id, input, inputs)?;
                check_given_form(declared, input)?;
            }
            // Where no call had begun, the step is simply due again.
            if conflict.attempt > 0 {
                // A probe that gave no answer is sent again; the step's own call is not.
                let probe = part == StepPart::Probe;
                let asked_about = run.call_state(step, *item, part.decided_part()).filter(|_| probe);
                let why = asked_about.and_then(|call| call.why.clone());
                events.push(Event::RetryScheduled(RetryScheduled {
                    step: step.clone(),
                    item: *item,
                    part: part.decided_part(),
                    attempt: conflict.attempt,
                    unknown: false,
                    why: why.unwrap_or_else(|| format!("{by} asked for another attempt")),
                    at: now,
                    uncounted: false,
                    probe,
                    status: None,
                    response: None,
                    may_take_effect_until: None,
                    withdrawn: false,
                }));
            }
        }
        (Choice::Skip, StepPart::Do | StepPart::Probe) => {
            events.push(Event::Step(StepEvent::Skipped { step: step.clone(), item: *item, reason: Skipped::ByHand }));
        }
        (Choice::Take { output }, StepPart::Do | StepPart::Probe) => {
            events.push(finish_with(declared, *item, conflict.attempt, output, inputs)?);
        }
        // No event but `Resolved` is needed.
        (Choice::Skip | Choice::Take { .. }, StepPart::Undo) => {}
        (Choice::Fallback, _) => {
            let has_ended = || {
                CommandRefusal::NotApplicable(format!(
                    "the fallback of `{step}` has ended, so it cannot replace another item"
                ))
            };
            let by = fallback::available(run, plan, declared, *item).ok_or_else(has_ended)?;
            let failure = Failure {
                kind: FailureKind::Unavailable,
                step: Some(step.clone()),
                item: *item,
                status: conflict.status,
                message: conflict.message.clone(),
                retry_after_ms: None,
                below: None,
            };
            let (step, item, by) = (step.clone(), *item, by.id.clone());
            events.push(Event::Step(StepEvent::FallbackTaken { step, item, by, failure }));
        }
        // The step queues for its lock again. If the service held the lock, the call is sent again.
        (Choice::Wait, _) if conflict.attempt == 0 => {}
        (Choice::Wait, part) => events.push(Event::RetryScheduled(RetryScheduled {
            step: step.clone(),
            item: *item,
            part,
            attempt: conflict.attempt,
            unknown: false,
            why: format!("{by} chose to wait until the lock is released"),
            at: now.checked_add(BUSY_PAUSE).unwrap_or(now),
            uncounted: true,
            probe: false,
            status: None,
            response: None,
            may_take_effect_until: None,
            withdrawn: false,
        })),
    }
    Ok(events)
}

/// The refusal where there is no such conflict: it names the open ones.
fn none_open(run: &Run, plan: &Plan, step: &StepId, item: Option<u32>) -> CommandRefusal {
    let of_items =
        run.conflicts().iter().filter(|conflict| conflict.step == *step).filter_map(|conflict| conflict.item);
    let items: Vec<_> = of_items.take(8).map(|item| item.to_string()).collect();
    let what = item.map_or_else(|| format!("`{step}`"), |item| format!("item {item} of `{step}`"));
    match (items.is_empty(), plan.step(step), run.conflict()) {
        (false, ..) => CommandRefusal::NotApplicable(format!(
            "no conflict over {what} is open; name the item that is meant (`item`): one is open over item {}",
            items.join(", ")
        )),
        (true, None, _) => CommandRefusal::NoSuchStep,
        (true, Some(_), Some(open)) => {
            CommandRefusal::NotApplicable(format!("no conflict over {what} is open; one is over `{}`", open.step))
        }
        (true, Some(_), None) => CommandRefusal::NotApplicable(format!("no conflict over {what} is open")),
    }
}

/// Finishes the step (the item) with a person's output.
fn finish_with(
    step: &Step,
    item: Option<u32>,
    attempt: u32,
    output: &Arc<Value>,
    inputs: &DecisionInputs,
) -> Result<Event, CommandRefusal> {
    check_given_depth(&step.id, output, inputs)?;
    let has_items = step.for_each.is_some() && item.is_none();
    if let Some(schema) = &step.output {
        match &**output {
            Value::Array(items) if has_items => items.iter().try_for_each(|item| schema.check(item)),
            output => schema.check(output),
        }
        .map_err(CommandRefusal::BadValues)?;
    }
    let (step_id, output) = (step.id.clone(), output.clone());
    Ok(match &step.kind {
        // Only `StepFinished` can hold the output of a single item.
        kind if item.is_some() || (!has_items && matches!(kind, StepKind::Call(_) | StepKind::Run(_))) => {
            let outcome = Outcome::Done { status: 200, headers: BTreeMap::new(), output: output.into() };
            Event::StepFinished(StepFinished { step: step_id, item, part: StepPart::Do, attempt, outcome })
        }
        _ => Event::Step(StepEvent::Computed { step: step_id, output: output.into() }),
    })
}

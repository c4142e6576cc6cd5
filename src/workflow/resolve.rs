//! A person resolves a conflict, and the run goes on from exactly there.
//!
//! Always true: only what the conflict offers is taken; whatever was finished stays; what a person gives in place of an
//! output is held against the step's schema as the service's own was.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use super::world::deeper_than;
use super::{
    Choice, Conflict, ConflictKind, Event, Failure, FailureKind, Outcome, Part, Plan, Refusal, RetryScheduled, Run,
    Skipped, Step, StepFinished, StepKind, World, ending,
};
use crate::names::StepId;

/// After which time a service that said "locked" is asked again.
const BUSY_PAUSE: jiff::SignedDuration = jiff::SignedDuration::from_secs(1);

/// What somebody chose.
pub(super) struct Resolution {
    pub step: StepId,
    pub item: Option<u32>,
    pub choice: Choice,
    pub reason: Option<String>,
    pub by: String,
}

pub(super) fn resolve(
    run: &Run,
    plan: &Plan,
    world: &World,
    resolution: &Resolution,
    now: Timestamp,
) -> Result<Vec<Event>, Refusal> {
    let Resolution { step, item, choice, reason, by } = resolution;
    let (_, of) = plan.step(step).ok_or(Refusal::NoSuchStep)?;
    let Some(conflict) = run.conflict_over(step, *item) else {
        return Err(Refusal::NoSense(format!("no conflict over `{step}` is open")));
    };
    if !conflict.choices.iter().any(|offered| offered == choice.name()) {
        let why = why_not(conflict, choice, of);
        return Err(Refusal::NoSense(format!(
            "`{}` makes no sense here: {why}; choose one of {}",
            choice.name(),
            conflict.choices.join(", ")
        )));
    }
    let resolved = Event::Resolved {
        step: step.clone(),
        item: *item,
        part: conflict.part,
        choice: choice.clone(),
        by: by.clone(),
        reason: reason.clone(),
    };
    let mut events = vec![resolved];
    match (choice, conflict.part) {
        (Choice::Cancel { compensate }, _) => events.extend(ending::cancel(run, *compensate, reason.clone(), by)?),
        (Choice::Retry | Choice::RetryWith { .. }, part) => {
            if let Choice::RetryWith { input } = choice {
                given(of, input, world)?;
            }
            // Where no call had begun, the step is simply due again.
            if conflict.attempt > 0 {
                let why = format!("{by} asked for another attempt");
                events.push(Event::RetryScheduled(RetryScheduled {
                    step: step.clone(),
                    item: *item,
                    part,
                    attempt: conflict.attempt,
                    unknown: false,
                    why,
                    at: now,
                    free: false,
                    probe: false,
                }));
            }
        }
        (Choice::Skip, Part::Do | Part::Probe) => {
            events.push(Event::StepSkipped { step: step.clone(), item: *item, reason: Skipped::ByHand });
        }
        (Choice::Take { output }, Part::Do | Part::Probe) => {
            events.push(taken(of, *item, conflict.attempt, output, world)?);
        }
        // The choice says it all.
        (Choice::Skip | Choice::Take { .. }, Part::Undo) => {}
        (Choice::Fallback, _) => {
            let by = of.trouble.fallback.and_then(|by| plan.steps.get(by.0)).ok_or(Refusal::NoSuchStep)?;
            let failure = Failure {
                kind: FailureKind::Unavailable,
                step: Some(step.clone()),
                item: *item,
                status: conflict.status,
                message: conflict.message.clone(),
                retry_after_ms: None,
            };
            events.push(Event::FallbackTaken { step: step.clone(), by: by.id.clone(), failure });
        }
        // It stands in the lock's queue anew; a service is asked again.
        (Choice::Wait, _) if conflict.attempt == 0 => {}
        (Choice::Wait, part) => events.push(Event::RetryScheduled(RetryScheduled {
            step: step.clone(),
            item: *item,
            part,
            attempt: conflict.attempt,
            unknown: false,
            why: format!("{by} waits for the release"),
            at: now.checked_add(BUSY_PAUSE).unwrap_or(now),
            free: true,
            probe: false,
        })),
    }
    Ok(events)
}

/// The step (the item) is done with what a person gives.
fn taken(step: &Step, item: Option<u32>, attempt: u32, output: &Arc<Value>, world: &World) -> Result<Event, Refusal> {
    given(step, output, world)?;
    let each = step.for_each.is_some() && item.is_none();
    if let Some(schema) = &step.output {
        match &**output {
            Value::Array(items) if each => items.iter().try_for_each(|item| schema.check(item)),
            output => schema.check(output),
        }
        .map_err(Refusal::BadValues)?;
    }
    let (step_id, output) = (step.id.clone(), output.clone());
    Ok(match &step.kind {
        StepKind::Call(_) | StepKind::Run(_) if !each => {
            let outcome = Outcome::Done { status: 200, headers: BTreeMap::new(), output };
            Event::StepFinished(StepFinished { step: step_id, item, part: Part::Do, attempt, outcome })
        }
        _ => Event::StepComputed { step: step_id, output },
    })
}

/// What a person gives is bounded as what a service gives is.
pub(super) fn given(step: &Step, value: &Value, world: &World) -> Result<(), Refusal> {
    match deeper_than(value, world.output_depth_max) {
        true => Err(Refusal::BadValues(vec![format!(
            "what is given for `{}` is nested deeper than output_depth_max ({})",
            step.id, world.output_depth_max
        )])),
        false => Ok(()),
    }
}

fn why_not(conflict: &Conflict, choice: &Choice, step: &Step) -> &'static str {
    match (choice, conflict.kind) {
        (Choice::Fallback, _) if step.trouble.fallback.is_none() => "the step declares no `fallback`",
        (Choice::Fallback, ConflictKind::OutcomeUnknown) => {
            "it may have been done, and a fallback would do it a second time"
        }
        (Choice::Retry | Choice::RetryWith { .. }, ConflictKind::Schema) => {
            "it was done, and another attempt would do it a second time"
        }
        (Choice::Wait, _) => "nothing is waited for",
        (Choice::RetryWith { .. } | Choice::Fallback, ConflictKind::UndoFailed) => "an undo is fixed by what was done",
        _ => "it does not fit this conflict, or the run ends already",
    }
}

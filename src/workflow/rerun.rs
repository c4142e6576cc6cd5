//! Another run of the same job that begins at a step.
//!
//! Always true: what had finished and does not depend on that step is taken over with its results, and its `undo` works
//! under the keys of the run that did it; whatever had not finished, was undone or depends on the step runs anew, and
//! people are asked about it anew. A run that moves is not run again: what it does would be done twice.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use super::calls::{DoneCall, StepState, Undone};
use super::{ConflictKind, DoneBefore, Event, Mode, Plan, Refusal, ResultTaken, Run, RunStatus, StepIndex};
use crate::names::StepId;

/// The events with which the new run begins, after its birth.
///
/// # Errors
/// It makes no sense, and why.
pub fn rerun(old: &Run, plan: &Plan, from: &StepId) -> Result<Vec<Event>, Refusal> {
    let no_sense = |why: String| Err(Refusal::NoSense(why));
    let (start, _) = plan.step(from).ok_or(Refusal::NoSuchStep)?;
    if old.mode() != Mode::Real {
        return no_sense(format!("a {} run is not run again", old.mode().as_str()));
    }
    match old.status() {
        RunStatus::Completed | RunStatus::Failed | RunStatus::Cancelled | RunStatus::Paused => {}
        RunStatus::Abandoned => return no_sense("legacy has answered its request".into()),
        status => return no_sense(format!("the run is {}: pause or cancel it first", status.as_str())),
    }
    if !old.in_flight().is_empty() || !old.beside.children.is_empty() {
        return no_sense("something of it is still under way".into());
    }
    let unknown = old.conflicts().iter().find(|conflict| conflict.kind == ConflictKind::OutcomeUnknown);
    if let Some(conflict) = unknown {
        return no_sense(format!("it is unknown whether `{}` was done: decide that first", conflict.step));
    }
    let undone: BTreeSet<&StepId> =
        old.undone().into_iter().filter(|(_, _, undone)| *undone == Undone::Undone).map(|(step, ..)| step).collect();
    let finished =
        |step: &super::Step| matches!(old.steps.get(&step.id), Some(StepState::Done { .. } | StepState::Skipped));
    let mut anew: BTreeSet<StepIndex> = BTreeSet::from([start]);
    loop {
        let before = anew.len();
        for (place, step) in plan.steps.iter().enumerate() {
            let needs = step.needs.iter().any(|need| anew.contains(need));
            // A fallback and the step whose place it takes belong together.
            let replaces = step.replaces.is_some_and(|place| anew.contains(&place));
            let replaced = step.trouble.fallback.is_some_and(|by| anew.contains(&by));
            if needs || replaces || replaced || !finished(step) || undone.contains(&step.id) {
                anew.insert(StepIndex(place));
            }
        }
        if anew.len() == before {
            break;
        }
    }
    let all = (0..plan.steps.len()).map(StepIndex).filter(|place| !anew.contains(place));
    let mut taken: Vec<(StepIndex, bool)> =
        all.map(|place| (place, old.was_skipped(&plan.steps[place.0].id))).collect();
    let undoes = |id: &StepId| plan.step(id).is_some_and(|(_, step)| step.undo.is_some());
    let done = |id: &StepId| -> Vec<_> {
        let kept = |done: &&DoneCall| done.step == *id && !done.rehearsed && (!done.harmless || undoes(id));
        old.done.iter().filter(kept).collect()
    };
    // What was done last is undone first.
    taken.sort_by_key(|(index, _)| done(&plan.steps[index.0].id).iter().map(|done| done.ended).max());
    let events = taken.into_iter().map(|(index, skipped)| {
        let step = plan.steps[index.0].id.clone();
        let fields = old.outputs.get(step.as_str()).cloned().unwrap_or(Value::Null);
        let done = done(&step);
        let origin = done.iter().find_map(|done| done.origin).unwrap_or(old.id());
        let done = done
            .into_iter()
            .map(|done| DoneBefore {
                item: done.item,
                value: done.value.clone(),
                status: done.status,
                output: done.output.clone(),
            })
            .collect();
        Event::ResultTaken(Box::new(ResultTaken { step, origin, skipped, fields: Arc::new(fields), done }))
    });
    Ok(events.collect())
}

//! Which step runs in place of one that certainly did nothing, and whether it runs.
//!
//! Always true: a fallback replaces a whole step, or, of a `for_each`, single items: an item keeps its index in the
//! list, and its fallback sees the same `item` and `index`. A fallback whose `if` is false, or whose needs were
//! skipped, does not run: then the step (the item) that it would have replaced has failed.

use super::calls::StepState;
use super::decision_inputs::call_scope;
use super::may_begin::skipped_by_needs;
use super::step_events::failed;
use super::{DecisionInputs, Event, Outcome, Plan, Run, Skipped, Step, StepEvent, StepFinished, StepPart};

/// The fallback that a step (an item) declares and that can still be taken.
pub(super) fn available<'p>(run: &Run, plan: &'p Plan, step: &Step, item: Option<u32>) -> Option<&'p Step> {
    let by = plan.steps.get(step.failure_handling.fallback?.0)?;
    let is_available = match run.steps.get(&by.id) {
        None => plan.runs_by_item(step) == item.is_some(),
        Some(StepState::Open(open)) => item.is_some() && open.replaced_items.is_some(),
        Some(StepState::Done { .. } | StepState::Skipped | StepState::Failed | StepState::Replaced { .. }) => false,
    };
    is_available.then_some(by)
}

/// Whether a step is running as the fallback of single items.
pub(super) fn is_of_items(run: &Run, step: &Step) -> bool {
    run.open_step(&step.id).is_some_and(|open| open.replaced_items.is_some())
}

/// The events of an item's fallback that does not run, because its `if` is false or has no value, or something that it
/// needs was skipped; `None` where it runs.
pub(super) fn not_run(
    run: &Run,
    plan: &Plan,
    inputs: &DecisionInputs,
    step: &Step,
    item: Option<u32>,
) -> Option<Vec<Event>> {
    if !is_of_items(run, step) || run.call_state(&step.id, item, StepPart::Do).is_some() {
        return None;
    }
    if skipped_by_needs(run, plan, step) {
        return Some(skipped(run, step, item, Skipped::Needs));
    }
    let condition = step.condition.as_ref()?;
    match condition.holds(&call_scope(&inputs.plain(run), run, &step.id, item, StepPart::Do)) {
        Ok(true) => None,
        Ok(false) => Some(skipped(run, step, item, Skipped::Condition)),
        Err(error) => Some(vec![failed(run, inputs, step, item, condition.reads(), &error)]),
    }
}

/// Skips the fallback of an item, and fails the item that it would have replaced.
fn skipped(run: &Run, step: &Step, item: Option<u32>, reason: Skipped) -> Vec<Event> {
    let mut events = vec![Event::Step(StepEvent::Skipped { step: step.id.clone(), item, reason })];
    let original = run.replaced.get(&step.id);
    let replaced = original.and_then(|original| run.open_step(original)?.replaced.get(&item?));
    if let (Some(original), Some(replaced)) = (original, replaced) {
        let outcome = Outcome::NotDone { failure: replaced.failure.clone() };
        events.push(Event::StepFinished(StepFinished {
            step: original.clone(),
            item,
            part: StepPart::Do,
            attempt: 0,
            outcome,
        }));
    }
    events
}

impl Plan {
    /// Whether a step has items: a `for_each`, or a fallback of its items.
    pub fn runs_by_item(&self, step: &Step) -> bool {
        let original = |step: &Step| self.steps.get(step.replaces?.0);
        let mut current = Some(step);
        // A chain of fallbacks cannot be longer than the plan.
        for _ in 0..=self.steps.len() {
            match current {
                Some(step) if step.for_each.is_some() => return true,
                Some(step) => current = original(step),
                None => return false,
            }
        }
        false
    }
}

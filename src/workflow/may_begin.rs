//! Whether a step may begin, what it begins with, and whether its calls are sent.

use std::sync::Arc;

use serde_json::Value;

use super::calls::{CallState, RunningStep};
use super::decision_inputs::deeper_than;
use super::step_events::{failed, finished, skipped, too_deep};
use super::{
    Call, CommandRefusal, DecisionInputs, EffectClass, Event, Failure, FailureKind, Mode, Outcome, Plan, Run, Skipped,
    Step, StepPart,
};
use crate::expression::{ExpressionError, Scope};

/// Whether a step may begin now.
pub(super) fn may_begin(run: &Run, plan: &Plan, step: &Step) -> Result<(), CommandRefusal> {
    if run.is_ending() || run.is_paused() {
        return Err(CommandRefusal::NotDue("the run is ending, or paused"));
    }
    if step.needs.iter().any(|need| plan.steps.get(need.0).is_none_or(|needed| !run.has_ended(&needed.id))) {
        return Err(CommandRefusal::NotDue("something that it needs has not ended"));
    }
    if step.replaces.is_some() && !run.replaced.contains_key(&step.id) {
        return Err(CommandRefusal::NotDue("it is only a fallback, and is not taken"));
    }
    Ok(())
}

/// Whether the next attempt of a call starts even though the run is ending: it is unknown whether an earlier attempt
/// took effect, and a person asked for another one or a repeat settles the outcome. An attempt that would only begin an
/// effect does not start in a run that is ending.
pub(super) fn starts_while_ending(run: &Run, step: &Step, call: &CallState) -> bool {
    call.unknown_effect() && (call.requested || (call.repeatable && is_settled_by_repeat(run, step)))
}

/// Whether a run that is ending repeats the step's call to settle an unknown outcome, if a repeat is harmless. The step
/// needs an `undo`, so that an effect that the repeat performs can be undone. A step with a `probe` is not repeated,
/// because the probe settles the outcome without an effect. In a cancelled run nothing is sent again unless a person
/// asks for it. (That is for attempts which ended: one that a restart interrupted is sent again if that is harmless.)
pub(super) fn is_settled_by_repeat(run: &Run, step: &Step) -> bool {
    run.cancel.is_none() && step.undo.is_some() && step.probe.is_none()
}

/// Whether an attempt that is recorded as begun and waits for its turn at the service must not be sent any more,
/// because the run was paused or is ending.
pub fn is_to_be_withdrawn(run: &Run, step: &Step, item: Option<u32>, part: StepPart) -> bool {
    let call = run.call_state(&step.id, item, part);
    let settles = call.is_some_and(|call| starts_while_ending(run, step, call));
    match part {
        StepPart::Do if run.is_ending() => !settles,
        StepPart::Undo if !run.compensates() => true,
        StepPart::Do | StepPart::Undo => run.is_paused(),
        StepPart::Probe => false,
    }
}

/// Whether a person asked for the attempt under way because it is unknown whether an earlier one took effect, and has
/// not cancelled the run without undoing since.
pub fn is_requested_repeat(run: &Run, step: &Step, item: Option<u32>, part: StepPart) -> bool {
    let call = run.call_state(&step.id, item, part);
    !run.ends_without_undoing() && call.is_some_and(|call| call.was_requested && call.unknown_effect())
}

/// Whether there is such an item (0 is the single call) and it has not begun.
pub(super) fn may_begin_item(open: &RunningStep, item_index: u32) -> bool {
    open.includes(item_index) && (open.is_new(item_index) || open.queued.contains(&item_index))
}

/// Whether the step is skipped because a step that it needs was skipped.
pub(super) fn skipped_by_needs(run: &Run, plan: &Plan, step: &Step) -> bool {
    let skipped = step.needs.iter().filter(|need| run.was_skipped(&plan.steps[need.0].id)).count();
    if step.needs_any { skipped > 0 && skipped == step.needs.len() } else { skipped > 0 }
}

/// Whether a run of this mode sends this call; otherwise it records the call's intent. A read with `rehearse:` is not
/// sent in shadow and dark, because it could read data that legacy has changed meanwhile.
pub fn sends(mode: Mode, call: &Call) -> bool {
    mode.sends(call.effect) && (mode == Mode::Real || call.rehearse.is_none() || call.effect != EffectClass::Read)
}

/// Evaluates `if` and opens `for_each`. Returns the items, or the events that end the step here.
pub(super) fn enter(
    run: &Run,
    inputs: &DecisionInputs,
    scope: &Scope,
    step: &Step,
) -> Result<Option<Vec<Arc<Value>>>, Vec<Event>> {
    if let Some(condition) = &step.condition {
        match condition.holds(scope) {
            Ok(true) => {}
            Ok(false) => return Err(skipped(run, step, Skipped::Condition)),
            Err(error) => return Err(vec![failed(run, inputs, step, None, condition.reads(), &error)]),
        }
    }
    let Some(for_each) = &step.for_each else { return Ok(None) };
    let refuse = |kind, message: String| {
        vec![finished(step, None, 0, Outcome::Failed { failure: Failure::of_step(kind, &step.id, None, message) })]
    };
    match for_each.items.evaluate(scope) {
        Ok(Value::Array(items)) if items.len() > inputs.items_max => Err(refuse(
            FailureKind::Bound,
            format!(
                "`for_each` of `{}` has {} items; the limit items_max is {}",
                step.id,
                items.len(),
                inputs.items_max
            ),
        )),
        Ok(Value::Array(items)) if items.iter().any(|item| deeper_than(item, inputs.output_depth_max)) => {
            Err(vec![too_deep(step, None, inputs)])
        }
        Ok(Value::Array(items)) => Ok(Some(items.into_iter().map(Arc::new).collect())),
        Ok(_) => {
            let error = ExpressionError::new("`for_each` is not a list");
            Err(vec![failed(run, inputs, step, None, for_each.items.reads(), &error)])
        }
        Err(error) => Err(vec![failed(run, inputs, step, None, for_each.items.reads(), &error)]),
    }
}

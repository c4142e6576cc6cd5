//! The inputs that people gave steps, as a rerun takes them over.

use super::least_approval::risk_before_change;
use super::sensitive::HandedOver;
use super::{ControlEvent, Event, Plan, Risk, Run};

/// The events that give a rerun the inputs that people gave steps of the earlier run. The inputs of single items are
/// left out: a rerun that performs items again begins at their step, and the items may be others.
pub(super) fn taken_inputs(old: &Run, plan: &Plan, handed_over: &HandedOver<'_>) -> Vec<Event> {
    let inputs = old.inputs.iter().filter(|((step, item), _)| item.is_none() && plan.step(step).is_some());
    let taken = inputs.map(|((step, _), input)| {
        let least_risk = Some(risk_before_change(old, step, None)).filter(|risk| *risk > Risk::Low);
        Event::Control(ControlEvent::InputAdjusted {
            step: step.clone(),
            item: None,
            input: input.clone(),
            by: old.id().to_string(),
            reason: None,
            least_risk,
            sensitive: handed_over.is_input_sensitive(step, input),
        })
    });
    taken.collect()
}

//! The branch that a run took through its workflow: which of the optional steps it performed.

use super::{FailureKind, Plan, Run, Step, StepKind};
use crate::names::StepId;

/// The steps that not every run performs (those with `if:`, fallbacks, and `fail:` steps), in the order of the plan:
/// first those that began in this run, then those that did not. A step that is skipped because one that it needs was
/// skipped is in neither list: it follows from that one.
pub fn optional_steps(run: &Run, plan: &Plan) -> (Vec<StepId>, Vec<StepId>) {
    let is_optional =
        |step: &&Step| step.condition.is_some() || step.replaces.is_some() || matches!(step.kind, StepKind::Fail(_));
    // A step whose `if:` has no value was neither taken nor left out.
    let undecided = run.failure().filter(|failure| failure.kind != FailureKind::Declared);
    let undecided = undecided.and_then(|failure| failure.step.as_ref()).filter(|id| !run.has_recorded_call(id));
    let ids = plan.steps.iter().filter(is_optional).map(|step| step.id.clone());
    ids.filter(|id| undecided != Some(id)).partition(|id| run.has_performed(id))
}

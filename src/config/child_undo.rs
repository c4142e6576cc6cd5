//! Warns of `run` steps whose child run would not be undone.
//!
//! A run that ends early undoes the steps that declare an `undo`. A child run that has completed is not undone unless
//! the step that started it declares how.

use std::collections::BTreeSet;

use super::checked_files::Workflows;
use super::effects::workflows_with;
use crate::problem::Problems;
use crate::workflow::{EffectClass, OnReject, Plan, Step, StepIndex, StepKind, Until};

/// Warns of each `run` step that has neither `undo` nor `reversible: false` and whose child has effects, if something
/// can still fail after the step.
pub(crate) fn check(workflows: &Workflows, problems: &mut Problems) {
    let with_effects = workflows_with(workflows, |effect| effect != EffectClass::Read);
    for (site, plan) in workflows.values() {
        let Some(plan) = plan else { continue };
        for (index, step) in plan.steps.iter().enumerate() {
            let StepKind::Run(child) = &step.kind else { continue };
            let effects_stay =
                step.undo.is_none() && !step.safeguards.irreversible && with_effects.contains(&child.workflow);
            let Some(fails) = effects_stay.then(|| what_fails_after(plan, StepIndex(index))).flatten() else {
                continue;
            };
            let message = format!(
                "`{}` runs `{}`, which has effects, and declares no `undo`: if the run fails afterwards ({fails}), \
                 the effects of the child run are not undone",
                step.id, child.workflow
            );
            let hint =
                "declare `undo:` (it can read `output`), or `reversible: false` where the effects cannot be undone";
            problems.warn(&site.key("steps").key(step.id.as_str()).key("run"), message).hint(hint);
        }
    }
}

/// What can still fail after a step has ended: another item of the step, or the first step that can fail and need not
/// end before it.
fn what_fails_after(plan: &Plan, index: StepIndex) -> Option<String> {
    let step = plan.steps.get(index.0)?;
    if step.for_each.as_ref().is_some_and(|for_each| !for_each.collect) {
        return Some("another of its items".to_owned());
    }
    let mut before = BTreeSet::from([index]);
    let mut open = vec![index];
    while let Some(step) = open.pop().and_then(|at| plan.steps.get(at.0)) {
        // A step and its fallback count as one: what must end before one of them must end before the other.
        let counterparts = step.replaces.iter().chain(&step.failure_handling.fallback);
        open.extend(step.needs.iter().chain(counterparts).filter(|need| before.insert(**need)));
    }
    let after = plan.steps.iter().enumerate().filter(|(at, _)| !before.contains(&StepIndex(*at)));
    let mut after = after.map(|(_, step)| step);
    after.find(|step| can_fail(step)).map(|step| format!("`{}`", step.id))
}

fn can_fail(step: &Step) -> bool {
    match &step.kind {
        StepKind::Call(_) | StepKind::Run(_) | StepKind::Fail(_) => true,
        StepKind::Set(value) => !value.reads().is_empty(),
        StepKind::Checkpoint(question) => question.on_reject == OnReject::Fail,
        StepKind::Wait(wait) => match &wait.until {
            Until::Signal { timeout, continues, .. } => timeout.is_some() && !continues,
            // A text without expressions was checked with the files.
            Until::For(template) | Until::At(template) => !template.reads().is_empty(),
        },
    }
}

//! Warns of workflows that cannot take back what the workflows did that they run.
//!
//! A run that ends early undoes what declares an `undo`. What another run did that it began, and that has completed,
//! stays done where the step says nothing.

use std::collections::BTreeSet;

use super::checked_files::Workflows;
use crate::names::WorkflowName;
use crate::problem::Problems;
use crate::workflow::{EffectClass, OnReject, Plan, Step, StepIndex, StepKind, Until};

/// Warns of each `run` step without `undo` whose run has effects, where something can still fail behind it.
pub(crate) fn check(workflows: &Workflows, problems: &mut Problems) {
    let with_effects = with_effects(workflows);
    for (site, plan) in workflows.values() {
        let Some(plan) = plan else { continue };
        for (place, step) in plan.steps.iter().enumerate() {
            let StepKind::Run(child) = &step.kind else { continue };
            let stays = step.undo.is_none() && !step.care.irreversible && with_effects.contains(&child.workflow);
            let Some(fails) = stays.then(|| what_fails_after(plan, StepIndex(place))).flatten() else { continue };
            let message = format!(
                "`{}` runs `{}`, which has effects, and declares no `undo`: where the run fails afterwards ({fails}), \
                 what that one did stays done",
                step.id, child.workflow
            );
            let hint = "`undo:` says what takes it back (it sees `output`); `reversible: false` says that nothing does";
            problems.warn(&site.key("steps").key(step.id.as_str()).key("run"), message).hint(hint);
        }
    }
}

/// Workflows with a private or shared call, or that run one of those.
fn with_effects(workflows: &Workflows) -> BTreeSet<WorkflowName> {
    let mut found = BTreeSet::new();
    loop {
        let before = found.len();
        for (name, (_, plan)) in workflows {
            let has = |step: &Step| match &step.kind {
                StepKind::Call(call) => call.effect != EffectClass::Read,
                StepKind::Run(child) => found.contains(&child.workflow),
                StepKind::Set(_) | StepKind::Checkpoint(_) | StepKind::Wait(_) | StepKind::Fail(_) => false,
            };
            if plan.as_ref().is_some_and(|plan| plan.steps.iter().any(has)) {
                found.insert(name.clone());
            }
        }
        if found.len() == before {
            return found;
        }
    }
}

/// What can still end the run early when a step has ended: the first that does not have to have ended before it.
fn what_fails_after(plan: &Plan, place: StepIndex) -> Option<String> {
    let step = plan.steps.get(place.0)?;
    if step.for_each.as_ref().is_some_and(|for_each| !for_each.collect) {
        return Some("another of its items".to_owned());
    }
    let mut before = BTreeSet::from([place]);
    let mut open = vec![place];
    while let Some(step) = open.pop().and_then(|at| plan.steps.get(at.0)) {
        // A step has not ended before its fallback has, and the other way round.
        let with = step.replaces.iter().chain(&step.trouble.fallback);
        open.extend(step.needs.iter().chain(with).filter(|need| before.insert(**need)));
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
            Until::Signal { timeout, goes_on, .. } => timeout.is_some() && !goes_on,
            Until::For(_) | Until::At(_) => false,
        },
    }
}

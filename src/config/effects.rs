//! The effect classes of a workflow's calls, together with those of the workflows that it runs.

use std::collections::BTreeSet;

use super::checked_files::Workflows;
use crate::names::WorkflowName;
use crate::workflow::{EffectClass, Step, StepKind};

/// The workflows with a call whose effect class is accepted, and those that run such a workflow, directly or through
/// others.
pub(super) fn workflows_with(workflows: &Workflows, accepts: impl Fn(EffectClass) -> bool) -> BTreeSet<WorkflowName> {
    let mut found = BTreeSet::new();
    loop {
        let before = found.len();
        for (name, (_, plan)) in workflows {
            let has = |step: &Step| match &step.kind {
                StepKind::Call(call) => accepts(call.effect),
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

/// The workflows that have a shared step, or run a workflow that has one.
pub(super) fn workflows_with_shared_steps(workflows: &Workflows) -> BTreeSet<WorkflowName> {
    workflows_with(workflows, |effect| effect == EffectClass::Shared)
}

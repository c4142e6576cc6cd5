//! The workflows that a workflow runs, directly or through others, and by which step.

use std::collections::BTreeSet;

use crate::names::{StepId, WorkflowName, step_below};
use crate::workflow::{Plan, StepIndex, StepKind};

/// The most calls of the workflows below another one whose intents are compared.
const COMPARED_CALLS_MAX: usize = 1_000;

/// A workflow at one place in a tree of runs.
pub(super) struct PlacedPlan<'p> {
    /// The workflow.
    pub plan: &'p Plan,
    /// The step that runs it, named from the top on; `None` for the workflow at the top.
    pub step: Option<StepId>,
    /// The steps that have ended before it begins, named from the top on.
    after: BTreeSet<StepId>,
    /// The outermost step on the way to it that runs a workflow for each item, named from the top on.
    pub fan_out: Option<StepId>,
    /// The workflows from the top to this one.
    path: Vec<&'p WorkflowName>,
    /// Set if its intents are not compared with legacy's calls: the step, named from the top on, at which comparing
    /// ends. That step has a `rehearse:` of its own, and so begins no run in `shadow`; or it runs a workflow that
    /// (directly or through others) runs it; or the workflows have too many calls.
    pub not_compared_below: Option<StepId>,
}

impl PlacedPlan<'_> {
    /// The name from the top on of a step, or of its undo (`STEP.undo`).
    pub fn name(&self, step: &str) -> StepId {
        self.step.as_ref().map_or_else(|| step.into(), |run_by| step_below(run_by, step))
    }

    /// The steps that have ended before a step begins, named from the top on.
    pub fn ended_before(&self, step: StepIndex) -> BTreeSet<StepId> {
        let own = ended_before(self.plan, step).into_iter().map(|step| self.name(step.as_str()));
        self.after.iter().cloned().chain(own).collect()
    }
}

/// A workflow and those that it runs, directly or through others. One whose intents are compared is listed once for
/// each step that runs it; one whose intents are not, once for each step at which comparing ends.
pub(super) fn plans_below<'p>(
    top: &'p Plan,
    plan_of: impl Fn(&WorkflowName) -> Option<&'p Plan>,
) -> Vec<PlacedPlan<'p>> {
    let path = vec![&top.workflow];
    let after = BTreeSet::new();
    let mut open = vec![PlacedPlan { plan: top, step: None, after, fan_out: None, path, not_compared_below: None }];
    let (mut found, mut calls, mut not_compared) = (Vec::new(), 0, BTreeSet::new());
    while let Some(placed) = open.pop() {
        let below = placed.not_compared_below.clone();
        if below.is_some_and(|step| !not_compared.insert((&placed.plan.workflow, step))) {
            continue;
        }
        for (index, own) in placed.plan.steps.iter().enumerate() {
            let StepKind::Run(child) = &own.kind else { continue };
            let Some(plan) = plan_of(&child.workflow) else { continue };
            // A tree of workflows without a call is bounded too.
            calls += plan.intent_names().len() + 1;
            let is_compared =
                child.rehearse.is_none() && !placed.path.contains(&&plan.workflow) && calls <= COMPARED_CALLS_MAX;
            let path = placed.path.iter().copied().chain([&plan.workflow]).collect();
            let (step, after) = (placed.name(own.id.as_str()), placed.ended_before(StepIndex(index)));
            let not_compared_below = placed.not_compared_below.clone().or((!is_compared).then(|| step.clone()));
            let fan_out = placed.fan_out.clone().or_else(|| own.for_each.as_ref().map(|_| step.clone()));
            open.push(PlacedPlan { plan, step: Some(step), after, fan_out, path, not_compared_below });
        }
        found.push(placed);
    }
    found
}

fn ended_before(plan: &Plan, of: StepIndex) -> BTreeSet<StepId> {
    let mut found = BTreeSet::new();
    let mut open = vec![of];
    while let Some(step) = open.pop().and_then(|index| plan.steps.get(index.0)) {
        for before in step.needs.iter().chain(&step.replaces) {
            if let Some(needed) = plan.steps.get(before.0)
                && found.insert(needed.id.clone())
            {
                open.push(*before);
            }
        }
    }
    found
}

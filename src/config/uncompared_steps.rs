//! Shared steps that nothing compares before the engine makes their calls in `live`.

use std::collections::BTreeSet;

use super::checked_files::{Routes, Workflows};
use crate::flag::State;
use crate::names::{StepId, WorkflowName};
use crate::problem::Problems;
use crate::workflow::{EffectClass, Plan, Step, StepKind};

/// Warns of routes in `dark` or above with such steps: no pair can compare them, so the gate to `live` stays shut.
/// Those of the route's own workflow can be compared where legacy's calls are watched (`has_egress`).
pub(crate) fn warn(has_egress: bool, routes: &Routes, workflows: &Workflows, problems: &mut Problems) {
    for (site, route) in &routes.routes {
        let highest = route.cohorts.iter().map(|cohort| cohort.state).fold(route.declared, State::max);
        let is_asked = highest >= State::Dark && route.promote.effects_compared;
        let Some(rules) = routes.rules.get(&route.id).filter(|_| is_asked) else { continue };
        let site = site.key("workflow");
        let plan_of = |name: &WorkflowName| workflows.get(name).and_then(|(_, plan)| plan.as_deref());
        let top = route.workflow.as_ref().and_then(plan_of);
        let below = top.map(|top| shared_steps_below(top, plan_of, |step| rules.is_unseen(step))).unwrap_or_default();
        if !below.is_empty() {
            let message = format!(
                "nothing compares the calls of shared steps of workflows that it runs: {}; so the gate to `live` stays shut",
                below.join(", ")
            );
            problems.warn(&site, message).hint(
                "say in `compare.effects.STEP.unseen` of the step that runs the workflow why they need no comparison, or \
                 make the calls in the route's own workflow",
            );
        }
        let own = rules.shared_steps_to_compare();
        let steps: Vec<String> =
            own.iter().filter(|step| !rules.asserts_read(step)).map(|step| format!("`{step}`")).collect();
        let Some(first) = steps.first().filter(|_| !has_egress).map(|step| step.trim_matches('`')) else { continue };
        let noun = if steps.len() == 1 { "step" } else { "steps" };
        let message = format!(
            "nothing compares the calls of the shared {noun} {} with legacy's, so the gate to `live` stays shut",
            steps.join(", ")
        );
        problems.warn(&site, message).hint(format!(
            "let legacy make its calls through `egress:`, add an `assert:` over `intents.{first}`, or say in \
             `compare.effects.{first}.unseen` why they are not seen"
        ));
    }
}

/// The steps of a workflow that run other workflows.
pub(super) fn running_steps(plan: &Plan) -> impl Iterator<Item = &str> {
    plan.steps.iter().filter(|step| matches!(step.kind, StepKind::Run(_))).map(|step| step.id.as_str())
}

/// The shared steps of the workflows that a plan runs, directly or through others: `WORKFLOW/STEP`, each once. Not
/// those below steps of which the rules say why their calls are not seen.
pub fn shared_steps_below<'p>(
    top: &'p Plan,
    plan_of: impl Fn(&WorkflowName) -> Option<&'p Plan>,
    is_unseen: impl Fn(&StepId) -> bool,
) -> Vec<String> {
    let run_by = |step: &'p Step| match &step.kind {
        StepKind::Run(child) => Some(&child.workflow),
        StepKind::Call(_) | StepKind::Set(_) | StepKind::Checkpoint(_) | StepKind::Wait(_) | StepKind::Fail(_) => None,
    };
    let is_shared = |step: &&Step| matches!(&step.kind, StepKind::Call(call) if call.effect == EffectClass::Shared);
    let mut open: Vec<&WorkflowName> =
        top.steps.iter().filter(|step| !is_unseen(&step.id)).filter_map(run_by).collect();
    let (mut known, mut found) = (BTreeSet::new(), Vec::new());
    while let Some(name) = open.pop() {
        let Some(plan) = plan_of(name).filter(|_| known.insert(name)) else { continue };
        found.extend(plan.steps.iter().filter(is_shared).map(|step| format!("`{name}/{}`", step.id)));
        open.extend(plan.steps.iter().filter_map(run_by));
    }
    found.sort();
    found
}

//! Shared steps that nothing compares before the engine makes their calls in `live`.

use super::checked_files::{Routes, Workflows};
use super::plans_below::plans_below;
use crate::flag::State;
use crate::names::{StepId, WorkflowName};
use crate::problem::Problems;
use crate::workflow::{EffectClass, Plan, Step, StepKind};

/// Warns of routes above `off` with such steps: no pair can compare them, so the gate to `live` stays shut.
/// Those of the route's own workflow can be compared where legacy's calls are watched (`has_egress`).
pub(crate) fn warn(has_egress: bool, routes: &Routes, workflows: &Workflows, problems: &mut Problems) {
    for (site, route) in &routes.routes {
        let highest = route.cohorts.iter().map(|cohort| cohort.state).fold(route.declared, State::max);
        let is_asked = highest >= State::Shadow && route.promote.effects_compared;
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
                "the step that runs the workflow has a `rehearse:` of its own, so that no run begins in `shadow`, or the \
                 workflow runs itself: say in `compare.effects.STEP.unseen` of that step why they need no comparison",
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
        let intents = if first.contains('/') { format!("effects(\"{first}\")") } else { format!("intents.{first}") };
        problems.warn(&site, message).hint(format!(
            "let legacy make its calls through `egress:`, add an `assert:` over `{intents}`, or say in \
             `compare.effects.{first}.unseen` why they are not seen"
        ));
    }
}

/// The steps that run other workflows, of a workflow and of those that it runs, named from the top on.
pub(super) fn running_steps<'p>(plan: &'p Plan, plan_of: impl Fn(&WorkflowName) -> Option<&'p Plan>) -> Vec<String> {
    let runs = |step: &&Step| matches!(step.kind, StepKind::Run(_));
    let placed = plans_below(plan, plan_of);
    let names = placed
        .iter()
        .filter(|placed| placed.not_compared_below.is_none())
        .flat_map(|placed| placed.plan.steps.iter().filter(runs).map(|step| placed.name(step.id.as_str())));
    names.map(|name| name.to_string()).collect()
}

/// The shared steps of the workflows that a plan runs, directly or through others, and whose calls are not compared:
/// `WORKFLOW/STEP`, each once. Not those below steps of which the rules say why their calls are not seen.
pub fn shared_steps_below<'p>(
    top: &'p Plan,
    plan_of: impl Fn(&WorkflowName) -> Option<&'p Plan>,
    is_unseen: impl Fn(&StepId) -> bool,
) -> Vec<String> {
    let is_shared = |step: &&Step| matches!(&step.kind, StepKind::Call(call) if call.effect == EffectClass::Shared);
    let placed = plans_below(top, plan_of);
    let uncompared = placed.iter().filter(|placed| placed.not_compared_below.as_ref().is_some_and(|at| !is_unseen(at)));
    let mut found: Vec<String> = uncompared
        .flat_map(|placed| placed.plan.steps.iter().filter(is_shared).map(|step| (&placed.plan.workflow, &step.id)))
        .map(|(workflow, step)| format!("`{workflow}/{step}`"))
        .collect();
    found.sort();
    found.dedup();
    found
}

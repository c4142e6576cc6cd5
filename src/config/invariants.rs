//! Checks the invariants of a route against its workflow.

use super::checked_files::Workflows;
use super::plans_below::plans_below;
use crate::expression::{EFFECTS, EFFECTS_OF_ALL_STEPS};
use crate::flag::Route;
use crate::names::{OF_UNDO, WorkflowName};
use crate::problem::{Problems, Site, nearest};
use crate::workflow::{Plan, StepKind};

/// Warns of invariants that are never judged.
pub(super) fn warn_if_idle(site: &Site, route: &Route, problems: &mut Problems) {
    if !route.invariants.is_empty() && route.workflow.is_none() {
        let message = "the invariants are never judged: without a workflow the engine answers nothing";
        problems.warn(&site.key("invariants").at_key(), message).hint("give the route a workflow, or leave them out");
    }
}

/// Refuses invariants that read the calls of a step that the workflow does not have. A read of a call is `null` in
/// every answer, so that such an invariant would say nothing.
pub(super) fn check(site: &Site, route: &Route, plan: &Plan, workflows: &Workflows, problems: &mut Problems) {
    if route.invariants.is_empty() {
        return;
    }
    let names = calls(plan, workflows);
    let site = site.key("invariants");
    for invariant in &*route.invariants {
        for path in invariant.that.reads().iter().filter(|path| ["intents", EFFECTS].contains(&path.root())) {
            let Some(step) = path.part(0).filter(|step| *step != EFFECTS_OF_ALL_STEPS) else { continue };
            if names.iter().any(|known| known == step) {
                continue;
            }
            let known = || names.iter().map(String::as_str).filter(|name| !name.ends_with(OF_UNDO));
            let message = format!(
                "the invariant `{}` reads the calls of `{step}`: the workflow `{}` has no such step with a call",
                invariant.name, plan.workflow
            );
            let problem = problems.error(&site, message);
            match nearest(step, known()) {
                Some(near) => problem.hint(format!("did you mean `{near}`?")),
                None => problem.hint(format!(
                    "its steps: {}",
                    known().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
                )),
            };
        }
    }
}

/// The names under which a run of the workflow may record calls, with those of the workflows that it runs.
fn calls(plan: &Plan, workflows: &Workflows) -> Vec<String> {
    let plan_of = |name: &WorkflowName| workflows.get(name).and_then(|(_, plan)| plan.as_deref());
    let of_plans = plans_below(plan, plan_of).into_iter().flat_map(|placed| {
        let names = placed.plan.steps.iter().flat_map(|step| {
            let own = matches!(step.kind, StepKind::Call(_)).then(|| step.id.as_str().to_owned());
            let undo = step.undo.is_some().then(|| format!("{}{OF_UNDO}", step.id));
            own.into_iter().chain(undo)
        });
        names.map(|name| placed.name(&name).as_str().to_owned()).collect::<Vec<_>>()
    });
    of_plans.collect()
}

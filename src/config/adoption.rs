//! Checks workflows that adopt instances of legacy: only `instance.adopt` names them, and it names no others; and what
//! followers read of such instances.

use super::checked_files::{PlacedRoute, Workflows};
use crate::expression::ReadPath;
use crate::flag::Instance;
use crate::names::WorkflowName;
use crate::problem::Problems;
use crate::workflow::StepKind;

pub(crate) fn check(routes: &[PlacedRoute], workflows: &Workflows, problems: &mut Problems) {
    let plan = |name: &WorkflowName| workflows.get(name).and_then(|(_, plan)| plan.as_deref());
    for (site, route) in routes {
        if let Some(name) =
            route.workflow.as_ref().filter(|name| plan(name).is_some_and(|plan| plan.adoption.is_some()))
        {
            problems
                .error(
                    &site.key("workflow"),
                    format!("`{name}` adopts instances of legacy: it cannot be the workflow of a route"),
                )
                .hint("name it in `instance.adopt` of the route that creates the instances");
        }
        let Some(rule) = &route.lifetime.adopt else { continue };
        let at = site.key("instance").key("adopt");
        if plan(&rule.workflow).is_some_and(|plan| plan.adoption.is_none()) {
            problems.error(&at, format!("`{}` does not say how legacy releases an instance", rule.workflow)).hint(
                "mark the call that tells legacy with `release: true`; or, if legacy does nothing of its own with its \
                     instances, give the workflow `legacy_passive: { reason: … }`",
            );
        }
        if route.workflow.is_none() {
            problems
                .error(&at, "the route has no workflow: the engine makes no instances of its family")
                .hint("give the route and its followers workflows first");
        }
    }
    for (site, route) in routes {
        let Some(Instance::Follows { creator, .. }) = &route.instance else { continue };
        let is_adopted = |(_, other): &PlacedRoute| other.id == *creator && other.lifetime.adopt.is_some();
        let plan = route.workflow.as_ref().filter(|_| routes.iter().any(is_adopted)).and_then(plan);
        let reads_input = |path: &ReadPath| path.root() == "instance" && path.part(0) == Some("input");
        if plan.is_some_and(|plan| plan.reads.iter().any(reads_input)) {
            problems
                .warn(
                    &site.key("workflow"),
                    "the workflow reads `instance.input`, which is null for an instance that was adopted from legacy: \
                     the run fails there, perhaps after it has performed a shared step",
                )
                .hint(
                    "read `instance.output`, which the adopting workflow makes, or `default(instance.input.NAME, …)`",
                );
        }
    }
    for (file, plan_of_file) in workflows.values() {
        let Some(of_file) = plan_of_file else { continue };
        for step in &of_file.steps {
            let StepKind::Run(run) = &step.kind else { continue };
            if plan(&run.workflow).is_some_and(|plan| plan.adoption.is_some()) {
                let at = file.key("steps").key(step.id.as_str()).key("run");
                problems
                    .error(
                        &at,
                        format!(
                            "this step runs `{}`, which adopts instances of legacy: no step may run such a workflow",
                            run.workflow
                        ),
                    )
                    .hint("it begins only for an instance that was claimed (`pointsman adopt`)");
            }
        }
    }
}

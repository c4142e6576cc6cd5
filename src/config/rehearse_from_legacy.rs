//! Checks that steps which take their outputs from legacy's calls (`rehearse: legacy`), of a route's workflow or of one
//! below it, can get them: the calls are seen. Checks too that legacy's reads are seen, and that there are reads to
//! answer, where these are answered from them (`replay_reads: true`).

use std::collections::BTreeSet;

use super::checked_files::{Routes, Workflows};
use super::plans_below::plans_below;
use crate::flag::Route;
use crate::names::{StepId, WorkflowName};
use crate::problem::{Problems, Site};
use crate::workflow::{Call, EffectClass, Plan, Rehearsal, Step, StepKind};

/// Reports the steps that would never get an output.
pub(crate) fn check(has_egress: bool, routes: &Routes, workflows: &Workflows, problems: &mut Problems) {
    let mut reported: BTreeSet<(&WorkflowName, &StepId)> = BTreeSet::new();
    for (site, route) in &routes.routes {
        if route.replay_reads && !has_egress {
            problems
                .error(
                    &site.key("replay_reads"),
                    "nothing sees legacy's own reads: there is no `egress:` in pointsman.yaml",
                )
                .hint("add `egress: { listen: 127.0.0.1:8090 }` there and let legacy call its services through it");
        }
        if route.replay_reads && has_egress {
            warn_without_reads(site, route, workflows, problems);
        }
        let plan_of = |name: &WorkflowName| workflows.get(name).and_then(|(_, plan)| plan.as_deref());
        let Some(plan) = route.workflow.as_ref().and_then(plan_of) else { continue };
        // Where a step above says itself what its output is, no run below it is rehearsed.
        let rehearsed = plans_below(plan, plan_of).into_iter().filter(|placed| placed.not_compared_below.is_none());
        for placed in rehearsed {
            let Some((file, _)) = workflows.get(&placed.plan.workflow) else { continue };
            for (step, call) in steps_from_legacy(placed.plan) {
                if !has_egress && reported.insert((&placed.plan.workflow, step)) {
                    problems
                        .error(
                            &rehearse_of(file, step),
                            "nothing sees legacy's own calls: there is no `egress:` in pointsman.yaml",
                        )
                        .hint(format!(
                            "add `egress: {{ listen: 127.0.0.1:8090 }}` there and let legacy call \
                             `http://127.0.0.1:8090/{}`, or say here what the output would be",
                            call.service
                        ));
                }
                let name = placed.name(step.as_str());
                if let Some(rules) = routes.rules.get(&route.id).filter(|rules| rules.is_unseen(&name)) {
                    // It may be declared at a step above.
                    let mut names = std::iter::successors(Some(name.as_str()), |name| Some(name.rsplit_once('/')?.0));
                    let declared = names.find(|name| rules.draft().effects.contains_key(*name)).unwrap_or_default();
                    let site = site.key("compare").key("effects").key(declared).key("unseen");
                    problems
                        .error(&site, format!("`{name}` takes its output from legacy's calls (`rehearse: legacy`)"))
                        .hint(
                            "let legacy make them through the egress listener, or say in the step what the output \
                             would be",
                        );
                }
            }
        }
    }
}

/// Warns of a route of which no run in `shadow` or `dark` would read.
fn warn_without_reads(site: &Site, route: &Route, workflows: &Workflows, problems: &mut Problems) {
    let site = site.key("replay_reads");
    let Some(name) = &route.workflow else {
        problems
            .warn(&site, "`replay_reads: true` does nothing: the route has no workflow")
            .hint("give the route a workflow, or leave `replay_reads` out");
        return;
    };
    // Nothing is known of a workflow with errors, which are reported elsewhere.
    let plan_of = |name: &WorkflowName| workflows.get(name).and_then(|(_, plan)| plan.as_deref());
    let Some(plan) = plan_of(name) else { return };
    // A read with a `rehearse:` takes its output from there.
    let is_sent = |call: &Call| call.effect == EffectClass::Read && call.rehearse.is_none();
    let reads = |step: &Step| matches!(&step.kind, StepKind::Call(call) if is_sent(call));
    if !plans_below(plan, plan_of).iter().any(|placed| placed.plan.steps.iter().any(reads)) {
        problems
            .warn(
                &site,
                format!(
                    "`replay_reads: true` does nothing: neither `{name}` nor a workflow that it runs has a reading step"
                ),
            )
            .hint(
                "leave `replay_reads` out; a step reads if its call is a GET or it has `effect: read`, and it has no \
                 `rehearse:`",
            );
    }
}

fn rehearse_of(file: &Site, step: &StepId) -> Site {
    file.key("steps").key(step.as_str()).key("rehearse")
}

fn steps_from_legacy(plan: &Plan) -> impl Iterator<Item = (&StepId, &Call)> {
    plan.steps.iter().filter_map(|step| match &step.kind {
        StepKind::Call(call) if matches!(call.rehearse, Some(Rehearsal::FromLegacy)) => Some((&step.id, &**call)),
        _ => None,
    })
}

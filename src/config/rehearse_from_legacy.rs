//! Checks that steps which take their outputs from legacy's calls (`rehearse: legacy`) can get them: the calls are
//! seen, and the step is one of a route's own workflow. Runs below it do not share which calls are taken. Checks too
//! that legacy's reads are seen, and that there are reads to answer, where these are answered from them
//! (`replay_reads: true`).

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
        let Some((file, Some(plan))) = route.workflow.as_ref().and_then(|name| workflows.get(name)) else { continue };
        for (step, call) in steps_from_legacy(plan) {
            if !has_egress && reported.insert((&plan.workflow, step)) {
                problems
                    .error(&rehearse_of(file, step), "nothing sees legacy's own calls: there is no `egress:` in pointsman.yaml")
                    .hint(format!(
                        "add `egress: {{ listen: 127.0.0.1:8090 }}` there and let legacy call `http://127.0.0.1:8090/{}`, or \
                         say here what the output would be",
                        call.service
                    ));
            }
            if routes.rules.get(&route.id).is_some_and(|rules| rules.is_unseen(step)) {
                let site = site.key("compare").key("effects").key(step.as_str()).key("unseen");
                problems
                    .error(&site, format!("`{step}` takes its output from legacy's calls (`rehearse: legacy`)"))
                    .hint(
                        "let legacy make them through the egress listener, or say in the step what the output would be",
                    );
            }
        }
        for (file, child) in children(plan, workflows) {
            for (step, _) in steps_from_legacy(child) {
                if reported.insert((&child.workflow, step)) {
                    let message = format!(
                        "`{}` is run by another workflow: the steps of such a workflow cannot take legacy's replies",
                        child.workflow
                    );
                    let hint = "say what the output would be, for example `rehearse: { id: \"${legacy.body.id}\" }`";
                    problems.error(&rehearse_of(file, step), message).hint(hint);
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
    // Of a workflow with errors, which are reported, nothing is known.
    let plan_of = |name: &WorkflowName| workflows.get(name).and_then(|(_, plan)| plan.as_deref());
    let Some(plan) = plan_of(name) else { return };
    // A read with a `rehearse:` takes its output from there.
    let is_sent = |call: &Call| call.effect == EffectClass::Read && call.rehearse.is_none();
    let reads = |step: &Step| matches!(&step.kind, StepKind::Call(call) if is_sent(call));
    if !plans_below(plan, plan_of).iter().any(|placed| placed.plan.steps.iter().any(reads)) {
        problems
            .warn(&site, format!("`replay_reads: true` does nothing: no step of `{name}` reads, nor of what it runs"))
            .hint(
                "leave `replay_reads` out; a step reads that is a GET or says `effect: read`, and has no `rehearse:`",
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

/// The workflows that a workflow runs in a rehearsal, directly or through others.
fn children<'a>(top: &'a Plan, workflows: &'a Workflows) -> Vec<(&'a Site, &'a Plan)> {
    let (mut known, mut open, mut found) = (BTreeSet::new(), vec![top], Vec::new());
    while let Some(plan) = open.pop() {
        for step in &plan.steps {
            let StepKind::Run(child) = &step.kind else { continue };
            let is_new = child.rehearse.is_none() && known.insert(&child.workflow);
            if let Some((file, Some(plan))) = workflows.get(&child.workflow).filter(|_| is_new) {
                found.push((file, &**plan));
                open.push(plan);
            }
        }
    }
    found
}

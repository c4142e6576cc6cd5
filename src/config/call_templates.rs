//! The calls that a workflow may make, in the form that its comparison needs.

use std::collections::BTreeSet;

use super::checked_files::{Services, Workflows};
use crate::compare::{CallRole, CallTemplate};
use crate::names::{StepId, WorkflowName};
use crate::workflow::{Call, EffectClass, Plan, Rehearsal, StepIndex, StepKind};

/// The calls of a workflow's steps, of their `undo:`, and of the workflows that they run, directly or through others.
pub(super) fn call_templates(plan: &Plan, services: &Services, workflows: &Workflows) -> Vec<CallTemplate> {
    let mut found = Vec::new();
    let mut seen: BTreeSet<&WorkflowName> = BTreeSet::new();
    let mut waiting: Vec<&WorkflowName> = Vec::new();
    add_calls(plan, false, services, &mut found, &mut waiting);
    while let Some(name) = waiting.pop() {
        let child = workflows.get(name).and_then(|(_, plan)| plan.as_ref());
        if let Some(child) = child.filter(|_| seen.insert(name)) {
            add_calls(child, true, services, &mut found, &mut waiting);
        }
    }
    found
}

/// Adds the calls of one plan, and the workflows that it runs.
fn add_calls<'a>(
    plan: &'a Plan,
    is_child: bool,
    services: &Services,
    found: &mut Vec<CallTemplate>,
    children: &mut Vec<&'a WorkflowName>,
) {
    for (index, step) in plan.steps.iter().enumerate() {
        let own = match &step.kind {
            StepKind::Call(call) => Some((step.id.clone(), &**call)),
            StepKind::Run(child) => {
                children.push(&child.workflow);
                None
            }
            StepKind::Set(_) | StepKind::Checkpoint(_) | StepKind::Wait(_) | StepKind::Fail(_) => None,
        };
        let undo = step.undo.as_deref().map(|call| (StepId::new(format!("{}.undo", step.id)), call));
        for (name, call) in own.into_iter().chain(undo) {
            let is_effect = call.effect != EffectClass::Read;
            let role = if is_child { CallRole::OfChild { is_effect } } else { role_of(call) };
            found.push(CallTemplate {
                step: (!is_child).then_some(name),
                service: call.service.clone(),
                method: call.method.clone(),
                path: path_of(call, services),
                role,
                takes_reply: !is_child && matches!(call.rehearse, Some(Rehearsal::FromLegacy)),
                after: ended_before(plan, StepIndex(index)),
            });
        }
    }
}

/// The steps that have ended before a step begins.
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

fn role_of(call: &Call) -> CallRole {
    match call.effect {
        EffectClass::Shared => CallRole::Shared,
        EffectClass::Private => CallRole::Private,
        EffectClass::Read => CallRole::Read { is_recorded: call.rehearse.is_some() },
    }
}

/// The path of the whole URL: the path of the service's first address, followed by the call's own path.
fn path_of(call: &Call, services: &Services) -> String {
    let service = services.get(&call.service).and_then(Option::as_ref);
    let base = service.and_then(|service| service.urls.first()).map_or("", |url| url.uri.path());
    let path = format!("{}{}", base.trim_end_matches('/'), call.url.path_template());
    if path.is_empty() { "/".to_owned() } else { path }
}

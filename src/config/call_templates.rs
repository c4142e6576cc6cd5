//! The calls that a workflow may make, in the form that its comparison needs.

use super::checked_files::{Services, Workflows};
use super::plans_below::plans_below;
use crate::compare::{CallRole, CallTemplate};
use crate::names::StepId;
use crate::workflow::{Call, EffectClass, Plan, Rehearsal, StepIndex, StepKind};

/// The calls of a workflow's steps, of their `undo:`, and of the workflows that they run, directly or through others.
pub(super) fn call_templates(plan: &Plan, services: &Services, workflows: &Workflows) -> Vec<CallTemplate> {
    let mut found = Vec::new();
    for placed in plans_below(plan, |name| workflows.get(name).and_then(|(_, plan)| plan.as_deref())) {
        for (index, step) in placed.plan.steps.iter().enumerate() {
            let own = match &step.kind {
                StepKind::Call(call) => Some((step.id.as_str().to_owned(), &**call)),
                StepKind::Run(_)
                | StepKind::Set(_)
                | StepKind::Checkpoint(_)
                | StepKind::Wait(_)
                | StepKind::Fail(_) => None,
            };
            let is_compared = placed.not_compared_below.is_none();
            let undo = step.undo.as_deref().map(|call| (format!("{}.undo", step.id), call));
            for (name, call) in own.into_iter().chain(undo) {
                let is_effect = call.effect != EffectClass::Read;
                found.push(CallTemplate {
                    step: is_compared.then(|| placed.name(&name)),
                    service: call.service.clone(),
                    method: call.method.clone(),
                    path: path_of(call, services),
                    role: if is_compared { role_of(call) } else { CallRole::NotCompared { is_effect } },
                    takes_reply: is_compared && matches!(call.rehearse, Some(Rehearsal::FromLegacy)),
                    after: placed.ended_before(StepIndex(index)),
                    fan_out: placed.fan_out.clone(),
                });
            }
        }
    }
    found
}

/// The names under which a workflow and those that it runs may record intents.
pub(super) fn intent_names(calls: &[CallTemplate]) -> Vec<&str> {
    calls.iter().filter_map(|call| call.step.as_ref()).map(StepId::as_str).collect()
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

//! Calls that a step declares `effect: read` although their method is not safe.
//!
//! Such a call is sent in `shadow` and `dark`, in addition to legacy's own. That it changes nothing is the file's word
//! alone; what can be checked is that no other step of the set says otherwise.

use std::collections::BTreeMap;

use super::checked_files::Workflows;
use super::plans_below::plans_below;
use crate::names::WorkflowName;
use crate::problem::Problems;
use crate::workflow::{Call, EffectClass, Plan, StepKind};

/// Warns of a step that reads with a call that another step declares private or shared.
pub(super) fn warn(workflows: &Workflows, problems: &mut Problems) {
    let mut effects: BTreeMap<String, String> = BTreeMap::new();
    let plans = || workflows.iter().filter_map(|(name, (site, plan))| Some((name, site, plan.as_deref()?)));
    for (name, _, plan) in plans() {
        for (step, call) in calls_of(plan).filter(|(_, call)| call.effect != EffectClass::Read) {
            effects.entry(address(call)).or_insert_with(|| format!("the step `{step}` of `{name}`"));
        }
        for (step, undo) in plan.steps.iter().filter_map(|step| Some((&step.id, step.undo.as_deref()?))) {
            effects.entry(address(undo)).or_insert_with(|| format!("`{step}.undo` of `{name}`"));
        }
    }
    for (_, site, plan) in plans() {
        for (step, call) in unsafe_reads(plan) {
            let address = address(call);
            let Some(other) = effects.get(&address) else { continue };
            let message = format!(
                "`{step}` makes the call `{address}` as `effect: read`, and {other} makes it as an effect: a read is sent \
                 in `shadow` and `dark` too, in addition to legacy's"
            );
            problems.warn(&site.key("steps").key(step), message).hint(
                "if it changes something, leave `effect: read` out; if what it does depends on its body, compare what it \
                 sends: `pointsman help compare`",
            );
        }
    }
}

/// The calls of a workflow, and of those that it runs, that a rehearsal sends although their method is not safe:
/// ``POST bank/rpc (step `rate`)``.
pub fn sent_in_rehearsals<'p>(plan: &'p Plan, plan_of: impl Fn(&WorkflowName) -> Option<&'p Plan>) -> Vec<String> {
    let mut found = Vec::new();
    for placed in plans_below(plan, plan_of) {
        let sent = unsafe_reads(placed.plan).filter(|(_, call)| call.rehearse.is_none());
        found.extend(sent.map(|(step, call)| format!("{} (step `{}`)", address(call), placed.name(step))));
    }
    found
}

fn unsafe_reads(plan: &Plan) -> impl Iterator<Item = (&str, &Call)> {
    calls_of(plan).filter(|(_, call)| call.effect == EffectClass::Read && !call.method.is_safe())
}

fn calls_of(plan: &Plan) -> impl Iterator<Item = (&str, &Call)> {
    plan.steps.iter().filter_map(|step| match &step.kind {
        StepKind::Call(call) => Some((step.id.as_str(), &**call)),
        StepKind::Run(_) | StepKind::Set(_) | StepKind::Checkpoint(_) | StepKind::Wait(_) | StepKind::Fail(_) => None,
    })
}

/// Where a call goes: `POST bank/orders/{}/charges`.
fn address(call: &Call) -> String {
    format!("{} {}{}", call.method, call.service, call.url.path_template())
}

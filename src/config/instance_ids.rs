//! Whether the answers of a workflow have the ids of the instances that they create.
//!
//! Warned of here: an id that is returned before its instance is pinned; a workflow none of whose answers has the
//! header in which the id is looked for. Whether a body has the id is known only when it is made.

use http::HeaderName;
use serde_json::Value;

use super::checked_files::Workflows;
use crate::expression::{CreatedIdSource, Template};
use crate::flag::{Instance, Route};
use crate::problem::{Problems, Site};
use crate::workflow::{Plan, StepKind, may_create_instance};

/// Checks the answers of a creator's workflow, and of the one that adopts instances of its family.
pub(super) fn check(site: &Site, route: &Route, plan: &Plan, workflows: &Workflows, problems: &mut Problems) {
    let Some(Instance::Creates { id }) = &route.instance else { return };
    let site = site.key("instance");
    warn_unpinned_pending(&site, id, plan, problems);
    let Some(header) = id.header().map(|header| header.name()) else { return };
    if !answers_with(plan, header) {
        problems
            .warn(
                &site.key("creates"),
                format!(
                    "no answer of `{}` has the header `{header}`: what the engine creates has no id, and its follow-ups go to \
                     legacy",
                    plan.workflow
                ),
            )
            .hint(format!("add it to `respond:`, for example `headers: {{ {header}: \"/orders/${{run.id}}\" }}`"));
    }
    let adopts = route.lifetime.adopt.as_ref().and_then(|rule| workflows.get(&rule.workflow));
    if let Some((_, Some(plan))) =
        adopts.filter(|(_, plan)| plan.as_ref().is_some_and(|plan| !answers_with(plan, header)))
    {
        let message = format!(
            "no answer of `{}` has the header `{header}`: it is not noticed if legacy reads two ids as one, and the \
             instance is adopted once for each",
            plan.workflow
        );
        problems
            .warn(&site.key("adopt"), message)
            .hint("add it to `respond:`, made of the id in legacy's reply and not of `instance.id`");
    }
}

/// Whether an answer of the workflow may have this header.
fn answers_with(plan: &Plan, name: &HeaderName) -> bool {
    let of_fail = plan.steps.iter().filter_map(|step| match &step.kind {
        StepKind::Fail(answer) => Some(answer),
        _ => None,
    });
    let mut answers = plan.respond.iter().map(|entry| &entry.answer).chain(of_fail).chain(&plan.pending);
    answers.any(|answer| answer.headers.iter().any(|(header, _)| header == name))
}

/// Warns of an id that is returned before its instance is pinned: until then, follow-ups go to legacy, which does not
/// know the instance.
fn warn_unpinned_pending(site: &Site, id: &CreatedIdSource, plan: &Plan, problems: &mut Problems) {
    let Some(pending) = &plan.pending else { return };
    // A pending answer with the id pins the instance, as any answer does. The value of a single `${…}` is not known
    // here, so it counts as having the id.
    let has_id = || match id {
        CreatedIdSource::Body(path) => {
            pending.body.as_ref().is_some_and(|body| body.single().is_some() || !path.query(&body.outline()).is_empty())
        }
        CreatedIdSource::Header(header) => pending.headers.iter().any(|(name, _)| name == header.name()),
    };
    let creates_instance = |status: u64| u16::try_from(status).is_ok_and(may_create_instance);
    let succeeds = |status: &Value| status.as_u64().is_none_or(creates_instance);
    if has_id() && pending.status.as_constant().is_none_or(succeeds) {
        return;
    }
    let reads = |template: &Template| template.reads().iter().any(|path| path.root() == "run");
    if pending.body.as_ref().is_some_and(reads) || pending.headers.iter().any(|(_, value)| reads(value)) {
        problems
            .warn(
                site,
                format!(
                    "`respond.pending` names the run, but does not return the id of its instance (`{id}`) with a 2xx or 3xx status: \
                     the instance is pinned only with the final answer"
                ),
            )
            .hint("until then a follow-up goes to legacy: put the id there, or answer early with `after:`");
    }
}

//! Checks `keep: none`, which is allowed only for runs that never have to be continued or found again, and required
//! where a step streams.

use super::{KeepDraft, RouteDraft, WorkflowFacts};
use crate::problem::{Problems, Site};

/// Whether the route's runs are kept.
pub(super) fn keeps_runs(
    draft: &RouteDraft,
    facts: Option<&WorkflowFacts>,
    site: &Site,
    problems: &mut Problems,
) -> bool {
    if draft.keep != Some(KeepDraft::None) {
        if let Some(step) = facts.and_then(|facts| facts.streaming_step.as_ref()) {
            let message = format!("the step `{step}` streams its reply, and this route keeps what its runs read");
            let problem = problems.error(&site.key("workflow"), message);
            problem.hint("say `keep: none` on the route, or leave `stream` out of the step");
        }
        return true;
    }
    let at = site.key("keep");
    let Some(workflow) = &draft.workflow else {
        let problem = problems.error(&at, "`keep` is about the engine's runs, and this route has no workflow");
        problem.hint("add `workflow`, or leave `keep` out");
        return false;
    };
    if let Some(reason) = facts.and_then(|facts| facts.reason_to_keep.as_ref()) {
        let message = format!("`keep: none` is for workflows that only read, and `{workflow}` has {reason}");
        problems
            .error(&at, message)
            .hint("such a run has to be stored, so that it can be continued and found again: leave `keep` out");
    }
    if draft.instance.as_ref().is_some_and(|instance| instance.creates.is_some()) {
        problems
            .error(
                &at,
                "`keep: none` and `instance.creates` exclude each other: an instance is pinned to the stored run that \
                 created it",
            )
            .hint("leave `keep` or `instance.creates` out");
    }
    if draft.retry_key.is_some() {
        problems
            .error(
                &at,
                "`keep: none` and `retry_key` exclude each other: a retry is answered from the stored run of its \
                 first try",
            )
            .hint("a read may be repeated: leave `retry_key` out");
    }
    false
}

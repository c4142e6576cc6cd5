//! The check of `replay_safe:`, `noise:` and `reverse:`: whether requests may be sent to legacy after an arm has
//! answered them, and how many are. Also checks the other shares of the compared requests (`capture:`,
//! `rehearse_twice:`).
//!
//! Always true: a route whose requests may change something at legacy, as far as the files show it, is refused: a
//! second request would do the work twice.

use super::values::percentage;
use super::{InstanceDraft, RouteDraft, WorkflowFacts};
use crate::flag::{Percent, RouteMatch};
use crate::problem::{Problems, Site};

/// `noise:` and `reverse:` of a route that is declared safe to repeat: 1 %.
const REPEATED_DEFAULT: f64 = 1.0;
/// `rehearse_twice:` of a route with a workflow: 1 %.
const TWICE_DEFAULT: f64 = 1.0;

/// The share of the requests compared in `shadow` for which the engine is run a second time, where the route says none.
pub(super) fn twice_by_default(has_workflow: bool) -> Percent {
    Percent::new(TWICE_DEFAULT).filter(|_| has_workflow).unwrap_or(Percent::NONE)
}

/// Checks a share of the compared requests, as people write it (`10%`).
pub(super) fn share_of_compared(
    text: &str,
    key: &str,
    has_workflow: bool,
    site: &Site,
    problems: &mut Problems,
) -> Percent {
    let site = site.key(key);
    if !has_workflow {
        problems
            .error(&site, format!("`{key}` needs a `workflow`"))
            .hint("it is a share of the requests that are compared: name what the engine runs, or leave it out");
    }
    let Some(share) = percentage(text, &site, problems) else { return Percent::NONE };
    Percent::exact(share * 100.0).unwrap_or_else(|why| {
        problems.error(&site, why).hint("such as 10% or 0.5%");
        Percent::NONE
    })
}

/// Returns the share of the compared requests that are sent to legacy a second time.
pub(super) fn noise_share(
    draft: &RouteDraft,
    matches: Option<&RouteMatch>,
    workflow: Option<&WorkflowFacts>,
    site: &Site,
    problems: &mut Problems,
) -> Percent {
    let at = |key: &str| site.key(key);
    if !draft.replay_safe {
        return share_of_repeated(draft, &draft.noise, "noise", site, problems);
    }
    if let Some(class) = workflow.and_then(|facts| facts.writing_steps()) {
        problems
            .error(&at("replay_safe"), format!("a workflow with a {class} step is not safe to replay"))
            .hint("legacy would do the work twice: leave `replay_safe` out");
    }
    let is_write = matches.is_some_and(|matches| !matches.method.is_safe());
    match &draft.instance {
        Some(InstanceDraft { creates: Some(_), .. }) => {
            problems
                .error(&at("replay_safe"), "a route that creates instances is not safe to replay")
                .hint("legacy would create a second instance: leave `replay_safe` out");
        }
        Some(_) if is_write => {
            problems
                .error(&at("replay_safe"), "a write to an instance is not safe to replay")
                .hint("legacy would change the instance twice: leave `replay_safe` out");
        }
        None if is_write => {
            problems
                .warn(&at("replay_safe"), "the method may change something at legacy, and is sent to it a second time")
                .hint(
                    "only this line says that it does not; where legacy's calls come through the egress listener, a route \
                     whose legacy is seen to write is not repeated any more",
                );
        }
        Some(_) | None => {}
    }
    share_of_repeated(draft, &draft.noise, "noise", site, problems)
}

/// Returns the share of the requests that are sent to legacy after an arm has answered them (`noise:` or `reverse:`);
/// `text` is that share as the file has it (`1%`).
pub(super) fn share_of_repeated(
    draft: &RouteDraft,
    text: &Option<String>,
    key: &str,
    site: &Site,
    problems: &mut Problems,
) -> Percent {
    let site = site.key(key);
    if !draft.replay_safe {
        if text.is_some() {
            problems
                .error(
                    &site,
                    format!(
                        "`{key}` needs `replay_safe: true`: without it legacy gets no request that was answered before"
                    ),
                )
                .hint(format!("add `replay_safe: true` if a request changes nothing at legacy, or leave `{key}` out"));
        }
        return Percent::NONE;
    }
    let Some(text) = text else { return Percent::new(REPEATED_DEFAULT).unwrap_or(Percent::NONE) };
    let Some(share) = percentage(text, &site, problems) else { return Percent::NONE };
    Percent::exact(share * 100.0).unwrap_or_else(|why| {
        problems.error(&site, why).hint("such as 1% or 0.5%");
        Percent::NONE
    })
}

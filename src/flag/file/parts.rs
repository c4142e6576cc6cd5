//! The checks of a route's parts: shares, expressions, cohorts.

use std::collections::HashSet;

use super::values::{check_name, condition};
use super::{CohortDraft, ForceDraft, PercentDraft, suggest};
use crate::expression::{ReadPath, Template};
use crate::flag::facts::{HOP_BY_HOP_HEADERS, REQUEST_PARTS};
use crate::flag::{Cohort, Percent, Shares, State};
use crate::problem::{Problems, Site};
use crate::secret::RedactRules;

/// Checks each rung's share. A share below 100 in `dark` and `live` needs a key: without one, requests of the same
/// caller would be on different rungs.
pub fn shares(draft: &PercentDraft, state: State, keyed: bool, site: &Site, problems: &mut Problems) -> Shares {
    let mut shares = Shares::default();
    let mut set = |rung: State, number: f64, site: &Site, problems: &mut Problems| {
        let percent = match Percent::exact(number) {
            Ok(percent) => percent,
            Err(why) => {
                problems.error(site, format!("percent {why}"));
                return;
            }
        };
        if percent < Percent::ALL && matches!(rung, State::Dark | State::Live) && !keyed {
            problems.error(site, format!("a share below 100 in `{rung}` needs a `key`")).hint(
                "without one, requests of the same caller would be on different rungs: key: ${request.headers[\"…\"]}",
            );
        }
        shares = shares.with(rung, percent);
    };
    match draft {
        PercentDraft::Current(number) => {
            set(state, *number, site, problems);
            if matches!(state, State::Off | State::Only) {
                problems
                    .warn(site, format!("`{state}` has no share: this percent does nothing"))
                    .hint("name the rungs: percent: { shadow: 50 }");
            }
        }
        PercentDraft::Each(rungs) => {
            for (name, number) in rungs {
                match name.parse::<State>() {
                    Ok(rung @ (State::Shadow | State::Dark | State::Live)) => {
                        set(rung, *number, &site.key(&**name), problems)
                    }
                    Ok(State::Off | State::Only) | Err(_) => {
                        problems
                            .error(&site.key(&**name).at_key(), format!("`{name}` is not a rung with a share"))
                            .hint("shadow, dark and live have one");
                    }
                }
            }
        }
    }
    shares
}

/// Checks the template of `retry_key`; see [`template`]. One that reads nothing of the request is refused.
pub fn retry_key(text: &str, params: &[&str], site: &Site, problems: &mut Problems) -> Option<Template> {
    checked_template(text, params, true, site, problems)
}

/// Checks a template, which may read facts of the request but never its body.
pub fn template(text: &str, params: &[&str], site: &Site, problems: &mut Problems) -> Option<Template> {
    checked_template(text, params, false, site, problems)
}

fn checked_template(
    text: &str,
    params: &[&str],
    is_retry_key: bool,
    site: &Site,
    problems: &mut Problems,
) -> Option<Template> {
    match Template::parse_str(text) {
        Ok(template) => {
            check_reads_only_head(template.reads(), params, site, problems);
            if template.reads().is_empty() {
                // Such a `retry_key` would make all later requests of a caller retries of its first one; such a `key`
                // is only useless.
                let severity = if is_retry_key { Problems::error } else { Problems::warn };
                let message = format!("`{text}` reads nothing of the request: all requests have this same value");
                severity(problems, site, message).hint("write an expression, such as `${request.headers[\"NAME\"]}`");
            }
            Some(template)
        }
        Err(error) => {
            let problem = problems.error(site, error.message);
            if let Some(offset) = error.offset {
                problem.offset(offset);
            }
            None
        }
    }
}

/// Checks the rules that put some callers on another rung.
pub fn cohorts(
    drafts: &[CohortDraft],
    params: &[&str],
    redact: &RedactRules,
    site: &Site,
    problems: &mut Problems,
) -> Vec<Cohort> {
    let mut names = HashSet::new();
    let mut cohorts = Vec::new();
    for (index, CohortDraft { name, when, state, force }) in drafts.iter().enumerate() {
        let site = site.index(index);
        check_name("name for a cohort", name, &site.key("name"), problems);
        if !names.insert(name) {
            problems.error(&site.key("name"), format!("two cohorts are called `{name}`"));
        }
        let Some(when) = condition(when, &site.key("when"), problems) else { continue };
        check_reads_only_head(when.reads(), params, &site.key("when"), problems);
        let force = force_reason(force.as_ref(), redact, &site.key("force"), problems);
        cohorts.push(Cohort { name: name.clone(), when, state: *state, force });
    }
    cohorts
}

/// The reason for overriding the gate, without what looks like a secret in it, because it is recorded and shown;
/// reports an error if it is empty.
pub fn force_reason(
    draft: Option<&ForceDraft>,
    redact: &RedactRules,
    site: &Site,
    problems: &mut Problems,
) -> Option<String> {
    let reason = &draft?.reason;
    if reason.trim().is_empty() {
        problems.error(&site.key("reason"), "overriding the gate needs a reason");
    }
    Some(redact.shown_line(reason))
}

/// Refuses expressions that read more than the request's head: they are evaluated before the body is read.
pub fn check_reads_only_head(reads: &[ReadPath], params: &[&str], site: &Site, problems: &mut Problems) {
    for read in reads {
        let hint = format!("here `request` has {}", REQUEST_PARTS.join(", "));
        if read.root() != "request" {
            problems.error(site, format!("`{}` cannot be read here", read.root())).hint("only `request` can");
            continue;
        }
        if let Some((message, hint)) = read.misread_request_text() {
            problems.error(site, message).hint(hint);
            continue;
        }
        match (read.part(0), read.part(1)) {
            (None, _) => {
                problems
                    .error(
                        site,
                        "the expression reads the whole request, but the decision is made before the body is read",
                    )
                    .hint(hint);
            }
            (Some(part @ ("body" | "raw" | "form" | "text")), _) => {
                problems
                    .error(
                        site,
                        format!(
                            "the expression reads `request.{part}`, but the decision is made before the body is read"
                        ),
                    )
                    .hint(hint);
            }
            (Some(part), _) if !REQUEST_PARTS.contains(&part) => {
                problems
                    .error(site, format!("a request has no `{part}`"))
                    .hint(suggest(part, REQUEST_PARTS.into_iter()));
            }
            (Some("params"), Some(name)) if !params.contains(&name) => {
                problems
                    .error(site, format!("the path has no parameter `{name}`"))
                    .hint(suggest(name, params.iter().copied()));
            }
            (Some("headers"), Some(name)) => {
                check_end_to_end(name, site, problems);
            }
            _ => {}
        }
    }
}

/// Refuses the name of a hop-by-hop header. Returns whether the name was accepted.
pub fn check_end_to_end(name: &str, site: &Site, problems: &mut Problems) -> bool {
    let is_hop_by_hop = HOP_BY_HOP_HEADERS.iter().any(|hop| hop.eq_ignore_ascii_case(name));
    if is_hop_by_hop {
        problems
            .error(site, format!("`{name}` concerns one connection (hop-by-hop) and is not a fact of the request"))
            .hint("name a header that is passed on to legacy, such as `authorization`");
    }
    !is_hop_by_hop
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::flag::file::tests::only_problem;

    /// Such an expression never has a value, so a retry key made of it would never recognise a retry.
    #[test]
    fn a_member_of_a_text_of_the_request_is_refused() {
        for (read, meant) in [
            ("request.path.id", "request.params.id"),
            ("request.method.x", "request.method"),
            ("request.peer.ip", "request.peer"),
            ("request.params.id.x", "request.params.id"),
            ("request.query.k.x", "request.query.k"),
            ("request.headers[\"a\"].b", "request.headers.a"),
            ("has(request.path.id)", "request.params.id"),
        ] {
            let key = format!("${{string({read})}}");
            let when = format!("${{string({read}) == \"1\"}}");
            let cohorts = json!([{ "name": "a", "when": when, "state": "off" }]);
            for (patch, place) in [
                (json!({ "retry_key": key }), "retry_key"),
                (json!({ "key": key }), "key"),
                (json!({ "cohorts": cohorts }), "cohorts[0].when"),
            ] {
                let found = only_problem(patch);
                let expected = [
                    format!("error r.yaml.routes[0].{place}: `request."),
                    " is a text and has no `".to_owned(),
                    format!("[did you mean `{meant}`?]"),
                ];
                assert!(expected.iter().all(|part| found.contains(part)), "{found}");
            }
        }
    }
}

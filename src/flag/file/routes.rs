//! The check of routes.

use std::sync::Arc;

use http::HeaderName;
use http::header::AUTHORIZATION;

use super::family::check_across_routes;
use super::relay_settings::relay_settings;
use super::values::{check_name, duration};
use super::{
    CallerDraft, JwtDraft, KnownNames, OneOrMore, PathsDraft, RouteDraft, TokenDraft, WorkflowFacts, instance, keep,
    matching, parts, redact, repeats, suggest,
};
use crate::flag::matcher::params;
use crate::flag::{CallerScope, Percent, Route, Service, Shares, State, TokenKeys};
use crate::limits::EARLIER_IDS_MAX;
use crate::names::WorkflowName;
use crate::problem::{Problems, Site};

/// Checks all routes of all files together; each site says where in its file the route is. Returns the routes without
/// errors; if `problems` has errors, none of them may be put in force.
pub fn check_routes(drafts: &[(Site, RouteDraft)], known: &KnownNames<'_>, problems: &mut Problems) -> Vec<Route> {
    let checked: Vec<_> = drafts.iter().map(|(site, draft)| check_route(draft, site, known, problems)).collect();
    check_across_routes(drafts, &checked, problems);
    checked.into_iter().flatten().collect()
}

fn check_route(draft: &RouteDraft, site: &Site, known: &KnownNames<'_>, problems: &mut Problems) -> Option<Route> {
    let mut own = Problems::default();
    let route = build_route(draft, site, known, &mut own);
    let route = route.filter(|_| !own.has_errors());
    problems.extend(own);
    route
}

fn build_route(draft: &RouteDraft, site: &Site, known: &KnownNames<'_>, problems: &mut Problems) -> Option<Route> {
    // All fields are destructured, so that a new field does not compile until it is checked.
    let RouteDraft {
        id,
        was,
        matches,
        legacy,
        workflow,
        state,
        force,
        percent,
        key,
        cohorts,
        instance,
        retry_key,
        caller,
        keep: _,
        deadline,
        buffer_request,
        compress,
        requests_max,
        timeouts,
        replay_safe,
        noise: _,
        reverse: _,
        rehearse_twice,
        replay_reads,
        paths,
        expose,
        compare: _,
        promote,
        guard,
        auto,
        capture,
        redact: redact_draft,
        invariants,
    } = draft;
    let path_params: Vec<&str> = params(&matches.path).collect();
    let at = |key: &str| site.key(key);

    check_name("id for a route", id, &at("id"), problems);
    for (index, id) in was.iter().enumerate() {
        check_name("id for a route", id, &at("was").index(index), problems);
    }
    if was.len() > EARLIER_IDS_MAX {
        let message = format!("{} earlier ids are listed; at most {EARLIER_IDS_MAX} are allowed", was.len());
        problems.error(&at("was"), message).hint(
            "leave out one that no record uses any more, but not the last: a hash of it chooses the callers in a share",
        );
    }
    let redact = known.redact.and(&redact::redact_rules(redact_draft, &at("redact"), problems)).for_path(&path_params);
    let matches = matching::check_match(matches, &at("match"), problems);
    let legacy = service(legacy, known, &at("legacy"), problems);
    let workflow_facts = workflow.as_ref().and_then(|name| workflow_facts(name, known, &at("workflow"), problems));
    if workflow.is_none() {
        check_workflow_named(draft, site, problems);
    }
    let forced = parts::force_reason(force.as_ref(), &redact, &at("force"), problems);
    let shares = match percent {
        Some(percent) => parts::shares(percent, *state, key.is_some(), &at("percent"), problems),
        None => Shares::default(),
    };
    let key = key.as_ref().and_then(|text| parts::template(text, &path_params, &at("key"), problems));
    let cohorts = parts::cohorts(cohorts, &path_params, &redact, &at("cohorts"), problems);
    let lifetime = instance
        .as_ref()
        .map(|draft| instance::lifetime(draft, &path_params, &redact, known, &at("instance"), problems));
    let instance =
        instance.as_ref().and_then(|draft| instance::instance(draft, &path_params, &redact, &at("instance"), problems));
    instance::check_has_body(instance.as_ref(), matches.as_ref(), &at("instance"), problems);
    let retry = retry_key.as_ref().and_then(|text| parts::retry_key(text, &path_params, &at("retry_key"), problems));
    let caller = caller_scope(caller.as_ref(), known, &at("caller"), problems);
    let deadline = deadline.as_ref().and_then(|text| duration(text, &at("deadline"), problems));
    let timeouts = timeouts.clone().unwrap_or_default();
    let relay = relay_settings(buffer_request.as_ref(), *compress, &timeouts, site, &at("timeouts"), problems);
    if *requests_max == Some(0) {
        problems.error(&at("requests_max"), "with 0 no request could ever be answered").hint("at least 1");
    }
    let own_strata_by = promote.as_ref().and_then(|draft| {
        draft.strata_by.as_ref()?;
        Some(super::check_strata_key(draft, &path_params, &redact, &at("promote"), problems))
    });
    if let (None, Some(key), Some(_)) = (&own_strata_by, &known.promote.strata_by, workflow) {
        super::strata_key::check_inherited_key(key, &path_params, &redact, &at("id"), problems);
    }
    let promote = match promote {
        Some(draft) => super::promote(draft, known.promote, own_strata_by.flatten(), &at("promote"), problems),
        None => known.promote.clone(),
    };
    let guard = match guard {
        Some(draft) => super::guard(draft, known.guard, known.services.keys(), &at("guard"), problems),
        None => known.guard.filter(|_| workflow.is_some()).cloned(),
    };
    if auto.is_some() {
        super::auto::warn_of_whole_share(*state, percent.is_some(), &at("auto"), problems);
    }
    let auto =
        auto.as_ref().and_then(|draft| super::auto::auto(draft, guard.as_ref(), key.is_some(), &at("auto"), problems));
    let share_of_compared = |text: &String, key: &str, problems: &mut Problems| {
        repeats::share_of_compared(text, key, workflow.is_some(), site, problems)
    };
    let capture = capture.as_ref().map_or(Percent::NONE, |text| share_of_compared(text, "capture", problems));
    let rehearse_twice = match rehearse_twice {
        Some(text) => share_of_compared(text, "rehearse_twice", problems),
        None => repeats::twice_by_default(workflow.is_some()),
    };
    let invariants =
        invariants.as_ref().map(|draft| super::invariants::invariants(draft, &redact, &at("invariants"), problems));

    let keeps_runs = keep::keeps_runs(draft, workflow_facts, site, problems);
    let noise = repeats::noise_share(draft, matches.as_ref(), workflow_facts, site, problems);
    let reverse = repeats::share_of_repeated(draft, &draft.reverse, "reverse", site, problems);
    let has_shared_step = workflow_facts.is_some_and(|workflow_facts| workflow_facts.shared_steps);
    if has_shared_step && retry_key.is_none() && matches.as_ref().is_some_and(|m| !m.method.is_safe()) {
        problems.warn(&at("id"), "without the header `Idempotency-Key` a client's retry is a new request here").hint(
            "if clients mark a retry in another way, name it: retry_key: ${request.headers[\"x-order-ref\"]} (the default is \
             `Idempotency-Key`, which need not be named; a route in `live` is held at `dark` for `retry_window_s` after a \
             change of `retry_key`)",
        );
    }
    let legacy = legacy?;
    let strict_paths = match paths {
        Some(paths) => *paths == PathsDraft::Strict,
        None => legacy.paths.strict,
    };
    Some(Route {
        id: id.as_str().into(),
        was: was.iter().map(|id| id.as_str().into()).collect(),
        matches: matches?,
        legacy,
        workflow: workflow.as_deref().map(WorkflowName::from),
        declared: *state,
        force: forced,
        shares,
        key,
        cohorts,
        instance,
        lifetime: lifetime.unwrap_or_default(),
        retry_key: retry,
        caller: caller?,
        keeps_runs,
        deadline,
        relay,
        requests_max: *requests_max,
        replay_safe: *replay_safe,
        noise,
        reverse,
        rehearse_twice,
        replay_reads: *replay_reads,
        strict_paths,
        exposes_arm: *expose,
        promote,
        guard,
        auto,
        capture,
        redact,
        invariants: invariants.unwrap_or_default().into(),
    })
}

/// Checks that a route above `off` names a workflow for the engine.
fn check_workflow_named(draft: &RouteDraft, site: &Site, problems: &mut Problems) {
    if draft.state > State::Off {
        problems
            .error(&site.key("state"), format!("`{}` needs a `workflow`", draft.state))
            .hint("name what the engine runs, or leave the route `off`");
    }
    for (index, cohort) in draft.cohorts.iter().enumerate().filter(|(_, cohort)| cohort.state > State::Off) {
        let site = site.key("cohorts").index(index).key("state");
        problems.error(&site, format!("a cohort on `{}` needs a `workflow` of the route", cohort.state));
    }
}

fn service(name: &str, known: &KnownNames<'_>, site: &Site, problems: &mut Problems) -> Option<Arc<Service>> {
    match known.services.get(name) {
        Some(service) => service.clone(),
        None => {
            let hint = suggest(name, known.services.keys().map(|name| name.as_str()));
            problems.error(site, format!("no service is called `{name}`")).hint(hint);
            None
        }
    }
}

fn workflow_facts<'w>(
    name: &str,
    known: &KnownNames<'w>,
    site: &Site,
    problems: &mut Problems,
) -> Option<&'w WorkflowFacts> {
    match known.workflows.get(name) {
        Some(workflow_facts) => workflow_facts.as_ref(),
        None => {
            let hint = suggest(name, known.workflows.keys().map(|name| name.as_str()));
            problems.error(site, format!("no workflow is called `{name}`")).hint(hint);
            None
        }
    }
}

fn caller_scope(
    draft: Option<&CallerDraft>,
    known: &KnownNames<'_>,
    site: &Site,
    problems: &mut Problems,
) -> Option<CallerScope> {
    let (token, headers) = match draft {
        None => (None, vec![AUTHORIZATION]),
        Some(CallerDraft::Headers(names)) => (None, headers(names, site, problems)),
        Some(CallerDraft::Token(TokenDraft { jwt, headers: names })) => {
            let others = match names {
                Some(names) => headers(names, &site.key("headers"), problems),
                None => vec![AUTHORIZATION],
            };
            (Some(token_keys(jwt, known, &site.key("jwt"), problems)?), others)
        }
    };
    Some(CallerScope { token, headers })
}

fn headers(names: &OneOrMore, site: &Site, problems: &mut Problems) -> Vec<HeaderName> {
    let mut header = |name: &str, site: &Site| match HeaderName::from_bytes(name.as_bytes()) {
        Ok(name) => parts::check_end_to_end(name.as_str(), site, problems).then_some(name),
        Err(_) => {
            problems.error(site, format!("`{name}` is not a header name")).hint("the name alone: authorization");
            None
        }
    };
    match names {
        OneOrMore::One(name) => header(name, site).into_iter().collect(),
        OneOrMore::More(names) => {
            let names = names.iter().enumerate();
            names.filter_map(|(index, name)| header(name, &site.index(index))).collect()
        }
    }
}

/// `None` if an error was reported. If the file cannot be read and may be absent, a warning is reported and the keys
/// verify no token, so that the rest of the files is checked as on a machine that has the file.
fn token_keys(
    draft: &JwtDraft,
    known: &KnownNames<'_>,
    site: &Site,
    problems: &mut Problems,
) -> Option<Arc<TokenKeys>> {
    let JwtDraft { keys, audience } = draft;
    let audience = match audience {
        OneOrMore::One(one) => vec![one.clone()],
        OneOrMore::More(all) => all.clone(),
    };
    if audience.is_empty() || audience.iter().any(|one| one.trim().is_empty()) {
        problems.error(&site.key("audience"), "a token needs an audience").hint(
            "the `aud` of the tokens that this API takes; one for another API says nothing about the caller here",
        );
        return None;
    }
    match (known.read_file)(keys) {
        Ok(Some(text)) => match TokenKeys::read(&text, audience) {
            Ok(keys) => Some(Arc::new(keys)),
            Err(why) => {
                problems
                    .error(&site.key("keys"), format!("the file `{keys}` {why}"))
                    .hint("public keys of the issuer: its JWK set, or PEM");
                None
            }
        },
        Ok(None) => {
            problems.warn(&site.key("keys"), format!("the file `{keys}` cannot be read on this machine"));
            Some(Arc::new(TokenKeys::unread(audience)))
        }
        Err(why) => {
            problems.error(&site.key("keys"), why).hint("the file is read whenever the flag files are loaded");
            None
        }
    }
}

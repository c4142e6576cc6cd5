//! Checks that need all files together.
//!
//! Refused here: a service that is our own listener, if its requests would loop; an invariant that names an unknown
//! step; a workflow that runs an unknown workflow, itself, or one that streams its reply. Warned of here: another
//! service that is our own listener; invariants and guards that never act; states that need evidence; parameters that
//! the path of a route does not have; steps that a rehearsal neither sends nor has an output for, in a route's workflow
//! and in those that it runs; people whose names no token verifies; a store that forgets retry keys. `flag` checks each
//! route by itself, with the names that it uses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use http::Uri;

use super::checked_files::{MainFile, PlacedRoute, Workflows};
use super::effects::workflows_with_shared_steps;
use super::instance_ids;
use super::invariants;
use super::setup::{Settings, StoreUrl};
use crate::expression::ReadPath;
use crate::flag::{BaseUrl, Instance, Percent, Route, State};
use crate::names::{StepId, WorkflowName};
use crate::problem::{Problems, Site, nearest};
use crate::workflow::{EffectClass, Plan, StepKind, Until};

/// Checks for services whose requests would come back to our own listeners.
pub(crate) fn check_loops(
    settings: &Settings,
    main: &MainFile,
    site: &Site,
    routes: &[PlacedRoute],
    problems: &mut Problems,
) {
    for (name, service) in &main.services {
        let Some(service) = service else { continue };
        let site = site.key(name.as_str());
        let is_legacy =
            main.default_legacy.as_ref() == Some(name) || routes.iter().any(|(_, route)| route.legacy.name == *name);
        for BaseUrl { uri, .. } in &service.urls {
            let api = settings.api.map(|api| ("api.listen", api));
            let of_proxy = settings.listen.iter().map(|listener| ("listen", listener.address));
            let egress = settings.egress.as_ref().map(|egress| ("egress.listen", egress.address));
            let mut own_listeners = of_proxy.chain([("admin.listen", settings.admin)]).chain(api).chain(egress);
            let Some((which, _)) = own_listeners.find(|(_, listener)| reaches(uri, *listener)) else { continue };
            let message = format!("{uri} is our own listener (`{which}`)");
            if is_legacy || which == "egress.listen" {
                let hint = "requests would loop: name the service's own address";
                problems.error(&site, message).hint(hint);
            } else {
                problems.warn(&site, message).hint("a step that calls it sends a new request to this process");
            }
        }
    }
}

/// Whether connecting to this URL reaches this listener, as far as can be told without resolving names.
fn reaches(uri: &Uri, listener: SocketAddr) -> bool {
    let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
    if listener.port() == 0 || port != listener.port() {
        return false;
    }
    let host = uri.host().unwrap_or("").trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
    let host = host.to_ascii_lowercase();
    if host == "localhost" || host.ends_with(".localhost") {
        return listener.ip().is_loopback() || listener.ip().is_unspecified();
    }
    let Ok(ip) = host.parse::<IpAddr>() else { return false };
    let (ip, own) = (ip.to_canonical(), listener.ip().to_canonical());
    match (ip.is_unspecified(), own.is_unspecified()) {
        // Connecting to the unspecified address reaches loopback.
        (true, _) => own.is_unspecified() || own.is_loopback(),
        (false, true) => ip.is_loopback(),
        (false, false) => ip == own,
    }
}

/// Checks each route together with its workflow. `has_egress`: legacy's calls are seen.
pub(crate) fn check_routes(routes: &[PlacedRoute], workflows: &Workflows, has_egress: bool, problems: &mut Problems) {
    let mut warned = BTreeSet::new();
    for (site, route) in routes {
        invariants::warn_if_idle(site, route, problems);
        warn_unproven_states(site, route, problems);
        warn_idle_guard(site, route, problems);
        let Some(name) = &route.workflow else { continue };
        for (file, plan) in rehearsed_workflows(name, workflows) {
            if warned.insert(&plan.workflow) {
                // The steps of a workflow that another one runs cannot take their outputs from legacy's calls.
                let may_take_replies = has_egress && plan.workflow == *name;
                warn_missing_rehearse(file, plan, route, may_take_replies, problems);
            }
        }
        let Some((_, Some(plan))) = workflows.get(name) else { continue };
        invariants::check(site, route, plan, workflows, problems);
        warn_missing_params(site, route, plan, problems);
        instance_ids::check(site, route, plan, workflows, problems);
    }
}

/// Warns of parameters that the workflow reads and the route's path does not have: such a read has no value.
fn warn_missing_params(site: &Site, route: &Route, plan: &Plan, problems: &mut Problems) {
    let read = |path: &ReadPath| match (path.root(), path.part(0), path.part(1)) {
        ("request", Some("params"), Some(name)) => Some(name.to_owned()),
        _ => None,
    };
    let missing: BTreeSet<String> = plan.reads.iter().filter_map(read).collect();
    for name in missing.iter().filter(|name| route.matches.params().all(|param| param != *name)) {
        let path = &route.matches.path;
        let message =
            format!("`{}` reads `request.params.{name}`, which the path `{path}` does not have", plan.workflow);
        let hint = match nearest(name, route.matches.params()) {
            Some(near) => format!("did you mean `{near}`? A parameter has the name that `match:` gives it"),
            None => format!("add `{{{name}}}` to the path, or read it with `default(…)`"),
        };
        problems.warn(&site.key("workflow"), message).hint(hint);
    }
}

/// Warns of a guard of which nothing, or a part, can ever act.
fn warn_idle_guard(site: &Site, route: &Route, problems: &mut Problems) {
    let Some(guard) = &route.guard else { return };
    let site = site.key("guard");
    if route.workflow.is_none() {
        let message = "the guard never acts: without a workflow the route is only `off`";
        problems.warn(&site.at_key(), message).hint("give the route a workflow, or leave the guard out");
        return;
    }
    let is_compared = route.shares.live < Percent::ALL
        || route.cohorts.iter().any(|c| c.state < State::Live)
        || route.reverse > Percent::NONE;
    if guard.mismatch.is_some() && route.declared == State::Live && !is_compared {
        let message = "`mismatch` never acts while all callers are in `live`: no pairs are made there";
        problems.warn(&site.at_key(), message).hint(
            "`errors` and `p99_ratio` watch `live`; a share below 100 % leaves callers whose requests are compared",
        );
    }
}

/// Warns of states above `shadow` without `force`: they take effect only if a flip is recorded or evidence supports
/// them, which the files do not show; otherwise the route or cohort is in `shadow`.
fn warn_unproven_states(site: &Site, route: &Route, problems: &mut Problems) {
    if route.declared > State::Shadow && route.force.is_none() {
        let message = format!(
            "`check` does not read the store: if no flip of `{}` is recorded there (a first start, a new route), it goes no \
             higher than `shadow` without evidence, and not to `{}`; if one is, it keeps the state of its last flip until \
             `state` is edited",
            route.id, route.declared
        );
        problems
            .warn(&site.key("state"), message)
            .hint("`pointsman status` shows its state. `force: { reason: … }` next to it overrides the gates; else flip the route up, one state at a time");
    }
    let is_for_all = |state: State| state <= route.declared && route.shares.of(state) == Percent::ALL;
    for (index, cohort) in route.cohorts.iter().enumerate() {
        if cohort.state > State::Shadow
            && cohort.force.is_none()
            && !(is_for_all(cohort.state) && route.force.is_none())
        {
            let message = format!(
                "the cohort `{}` goes no higher than the state that its route reached by evidence for all callers, or \
                 that it reached by the evidence of its own requests",
                cohort.name
            );
            problems
                .warn(&site.key("cohorts").index(index).key("state"), message)
                .hint("`force: { reason: … }` next to it overrides that for these callers");
        }
    }
}

/// Warns of a store in memory if a forgotten retry key does harm: after a restart nothing says which arm took a
/// request, or whether any arm did.
pub(crate) fn warn_forgotten_keys(
    settings: &Settings,
    routes: &[PlacedRoute],
    workflows: &Workflows,
    problems: &mut Problems,
) {
    if settings.store != StoreUrl::Memory {
        return;
    }
    let with_shared_steps = workflows_with_shared_steps(workflows);
    for (site, route) in routes {
        let highest = route.cohorts.iter().map(|cohort| cohort.state).fold(route.declared, State::max);
        let has_shared_steps = route.workflow.as_ref().is_some_and(|name| with_shared_steps.contains(name));
        if highest >= State::Dark && has_shared_steps {
            let message = format!(
                "the store is in memory and forgets with each restart which requests legacy or the engine took: in `live` \
                 `{}` would perform their retries a second time",
                route.id
            );
            problems.warn(&site.key("state"), message).hint("use `store: sqlite:PATH` above `shadow`");
        }
    }
}

/// The steps that run another workflow, each with the name of that workflow.
type SubRuns = Vec<(StepId, WorkflowName)>;

/// Checks workflows that run others: each workflow that is run exists and does not stream its reply, and none runs
/// itself, directly or through others.
pub(crate) fn check_sub_runs(workflows: &Workflows, problems: &mut Problems) {
    let runs = |plan: &Plan| -> SubRuns {
        let runs = plan.steps.iter().filter_map(|step| match &step.kind {
            StepKind::Run(run) => Some((step.id.clone(), run.workflow.clone())),
            _ => None,
        });
        runs.collect()
    };
    let all: BTreeMap<&WorkflowName, (&Site, SubRuns)> =
        workflows.iter().filter_map(|(name, (site, plan))| Some((name, (site, runs(plan.as_ref()?))))).collect();
    for (site, steps) in all.values() {
        for (step, child) in steps.iter().filter(|(_, child)| !workflows.contains_key(child)) {
            let at = site.key("steps").key(step.as_str()).key("run");
            let problem = problems.error(&at, format!("no workflow is called `{child}`"));
            let known: Vec<&str> = workflows.keys().map(WorkflowName::as_str).collect();
            match nearest(child.as_str(), known.iter().copied()) {
                Some(near) => problem.hint(format!("did you mean `{near}`?")),
                None => problem.hint(format!("there are: {}", known.join(", "))),
            };
        }
    }
    for (site, steps) in all.values() {
        for (step, child) in steps {
            let plan = workflows.get(child).and_then(|(_, plan)| plan.as_ref());
            if let Some(streaming) = plan.and_then(|plan| plan.streaming_step()) {
                let at = site.key("steps").key(step.as_str()).key("run");
                let message =
                    format!("the step `{streaming}` of `{child}` streams its reply, which only a caller gets");
                problems.error(&at, message).hint(format!("leave `stream` out of `{streaming}`"));
            }
        }
    }
    let mut done: BTreeSet<&WorkflowName> = BTreeSet::new();
    for start in all.keys().copied() {
        // The path from `start`: each workflow, and the index of its `run` step that is followed next.
        let mut path: Vec<(&WorkflowName, usize)> = vec![(start, 0)];
        while let Some((name, next)) = path.last_mut() {
            let Some((step, child)) = all.get(*name).and_then(|(_, runs)| runs.get(*next)) else {
                done.insert(*name);
                path.pop();
                continue;
            };
            *next += 1;
            let name = *name;
            if let Some(from) = path.iter().position(|(on, _)| *on == child) {
                let names: Vec<&str> = path[from..].iter().map(|(on, _)| on.as_str()).chain([child.as_str()]).collect();
                let Some((site, _)) = all.get(name) else { continue };
                let at = site.key("steps").key(step.as_str()).key("run");
                let message = format!("workflows run each other in a cycle: {}", names.join(" → "));
                problems.error(&at, message).hint("a → b: a has a step that runs b");
            } else if !done.contains(child)
                && let Some((child, _)) = all.get_key_value(child)
            {
                path.push((*child, 0));
            }
        }
    }
}

/// Warns of people named in a workflow whose names no token verifies.
pub(crate) fn warn_unverified_people(settings: &Settings, workflows: &Workflows, problems: &mut Problems) {
    for (file, plan) in workflows.values() {
        let Some(plan) = plan else { continue };
        for step in &plan.steps {
            let question = match &step.kind {
                StepKind::Checkpoint(checkpoint) => &checkpoint.asking,
                _ => &step.safeguards.asking,
            };
            let escalated = question.escalate.iter().flat_map(|escalate| &escalate.who);
            let has_no_token = |name: &&String| !settings.tokens.iter().any(|token| token.name == **name);
            let Some(name) = question.who.iter().chain(escalated).find(has_no_token) else { continue };
            let site = file.key("steps").key(step.id.as_str()).at_key();
            if settings.tokens.is_empty() {
                let message = format!("`{}` restricts who may answer, and names are not verified", step.id);
                let hint = "without `admin.tokens` everybody on this machine may answer under any name";
                problems.warn(&site, message).hint(hint);
            } else {
                let message = format!("`{}` asks `{name}`, and no token has that name", step.id);
                problems.warn(&site, message).hint("the names under `who` are those of `admin.tokens`");
            }
        }
    }
}

/// A workflow, and the workflows that its `run` steps start in a rehearsal, directly or through others. A `run` step
/// with its own `rehearse:` starts no workflow in a rehearsal.
fn rehearsed_workflows<'a>(top: &'a WorkflowName, workflows: &'a Workflows) -> Vec<(&'a Site, &'a Plan)> {
    let (mut known, mut open, mut found) = (BTreeSet::new(), vec![top], Vec::new());
    while let Some(name) = open.pop() {
        let Some((file, Some(plan))) = workflows.get(name).filter(|_| known.insert(name)) else { continue };
        found.push((file, &**plan));
        open.extend(plan.steps.iter().filter_map(|step| match &step.kind {
            StepKind::Run(child) if child.rehearse.is_none() => Some(&child.workflow),
            _ => None,
        }));
    }
    found
}

/// Warns of steps that a rehearsal neither sends nor has an output for.
fn warn_missing_rehearse(file: &Site, plan: &Plan, route: &Route, may_take_replies: bool, problems: &mut Problems) {
    for step in &plan.steps {
        let asks = match &step.kind {
            StepKind::Checkpoint(question) if question.rehearse.is_none() => Some("asks a person"),
            StepKind::Wait(wait) if wait.rehearse.is_none() && matches!(wait.until, Until::Signal { .. }) => {
                Some("waits for a signal")
            }
            _ => None,
        };
        if let Some(asks) = asks {
            let site = file.key("steps").key(step.id.as_str()).at_key();
            let message =
                format!("`{}` {asks} and has no `rehearse:`, and the route `{}` rehearses it", step.id, route.id);
            let hint = "each comparison that reaches it would end as skipped: say what the answer would be";
            problems.warn(&site, message).hint(hint);
        }
        let StepKind::Call(call) = &step.kind else { continue };
        if call.effect == EffectClass::Read || call.rehearse.is_some() {
            continue;
        }
        // A follow-up is not run in `shadow`, and in `dark` private steps are sent.
        if call.effect == EffectClass::Private && matches!(route.instance, Some(Instance::Follows { .. })) {
            continue;
        }
        let id = step.id.as_str();
        let is_read = plan.is_read(step);
        let site = file.key("steps").key(id).at_key();
        let effect = call.effect.as_str();
        let rungs = if call.effect == EffectClass::Private { "`shadow`" } else { "`shadow` and `dark`" };
        let message = format!(
            "the {effect} step `{id}` has no `rehearse:`, and the route `{}` rehearses it in {rungs}",
            route.id
        );
        // Of a private step legacy makes no call.
        let takes_reply = may_take_replies && call.effect == EffectClass::Shared;
        problems.warn(&site, message).hint(match is_read {
            true if takes_reply => {
                "its output is read, so each comparison would end as skipped: `rehearse: legacy` takes the reply that \
                 legacy's own call gets"
            }
            true => {
                "its output is read, so each comparison would end as skipped: say what its output would be, \
                 for example `rehearse: { id: \"${legacy.body.id}\" }`"
            }
            false => "nothing reads its output yet; `rehearse: {}` says that none is needed",
        });
    }
}

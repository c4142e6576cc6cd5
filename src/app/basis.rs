//! What the evidence of a route depends on.
//!
//! The question it answers: "would a pair that was compared under the earlier files get the same verdict under these?"
//! Always true: whatever can change what the engine or legacy answers, or how the two are compared, is part of the
//! basis, so that a change of the basis starts the evidence from zero, unless the rules only allow more than before.
//!
//! Part of the basis:
//! - which requests the route matches, and which of these go to more specific routes, because the route gets other
//!   requests when such a route is removed;
//! - what the route does with instances;
//! - the plan of the route's workflow. For a follower also the plans of its creator's workflow and of the workflows of
//!   those other followers that do more than read, because the route finds instances as these have left them;
//! - the plan of every workflow that these run, directly or through another one, or the fact that the files do not have
//!   it;
//! - the addresses of the services that these plans name, and of the route's legacy;
//! - the rules, whether the engine's reads are answered with legacy's (`replay_reads`), and the version of the
//!   expression language;
//! - `egress.window` and `egress.correlate`: they decide which calls by legacy belong to a request. A pair that was
//!   compared under a shorter window lacks calls, and might differ under a longer one. So calls that came after the
//!   window are forgotten only together with the pairs that lack them.
//!
//! The names of path parameters in `match:` are part of it only if something reads them.
//!
//! A plan of the creator or of another follower that came into force through the gate of a candidate is not part of it:
//! its gate says that it does to instances what the plan before it did, which stays part of the basis.
//!
//! Not part of the basis, because they change when and how often something is asked and never what a reply says:
//! most limits, breakers, rates, time-outs of services, `keyed:` (which decides whether an attempt with unknown outcome
//! is sent again), and the values of secrets, because a new secret gives access to the same service.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::basis_hasher::{BasisHasher, addresses, cut, joined};
use super::basis_parts::{
    AttributionText, attribution_of, creator_of, more_specific, noise, read_parameters, without_parameter_name,
};
use super::plans::{PlansInForce, services_of};
use crate::compare::Rules;
use crate::config::Setup;
use crate::evidence::{
    ATTRIBUTION, BasisParts, COMPARED_SIZES, EvidenceBasis, LANGUAGE_VERSION, LEGACY_ADDRESS, MATCH, OTHER_ROUTES,
    OTHER_VERSIONS, PLAN_IN_FORCE, READ_PARAMETERS, REPLAY_READS, RULES, WantedPairs, service_part, workflow_part,
};
use crate::expression::DIALECT;
use crate::flag::{Instance, Promote, Route, RouteMatch, ServiceMatch};
use crate::limits::Limits;
use crate::names::{RouteId, ServiceName, WorkflowName};
use crate::store::candidate_key;
use crate::workflow::{Plan, StepKind};

/// The most bytes that are kept of the text of one part of a basis.
const PART_BYTES_MAX: usize = 2_048;

/// The plans of workflows by name; `None` where there is no such workflow.
type Plans<'a> = BTreeMap<&'a WorkflowName, Option<&'a Plan>>;

/// The basis of the evidence of each route and of each candidate. When its hash changes, the evidence may start from
/// zero. `routes` are those of the files, with all ids that the store knows of them.
pub(super) fn bases_in_store(
    setup: &Setup,
    routes: &[Arc<Route>],
    in_force: &PlansInForce,
) -> Vec<(RouteId, EvidenceBasis)> {
    bases(&Setup { routes: routes.to_vec(), ..setup.clone() }, in_force)
}

/// As [`bases_in_store`], without a store.
pub(super) fn bases(setup: &Setup, in_force: &PlansInForce) -> Vec<(RouteId, EvidenceBasis)> {
    let of_routes = setup.routes.iter().map(|route| (route.id.clone(), basis(setup, in_force, route, false)));
    let candidates = in_force.routes_with_candidate(setup);
    of_routes.chain(candidates.map(|route| (candidate_key(&route.id), basis(setup, in_force, route, true)))).collect()
}

fn compared_sizes(limits: &Limits) -> Option<String> {
    let of = |limits: &Limits| format!("sizes {} {}", limits.body_capture_bytes_max, limits.compare_bytes_max);
    Some(of(limits)).filter(|sizes| *sizes != of(&Limits::default()))
}

fn basis(setup: &Setup, in_force: &PlansInForce, route: &Route, is_candidate: bool) -> EvidenceBasis {
    let PlansOfRoute { plans, own, other_versions } = plans(setup, in_force, route, is_candidate);
    let names = services(setup, plans.values());
    let of_own = |name: &&WorkflowName| plans.get(*name);
    let services_of_own = services(setup, own.iter().filter_map(of_own));
    let own_services = services_of_own.into_iter().map(|name| service_part(name.as_str()));
    let own_parts = own.iter().map(|name| workflow_part(name.as_str())).chain(own_services).collect();
    let mut basis = BasisHasher(blake3::Hasher::new_derive_key("pointsman 2026 basis of the evidence of a route"));
    let mut parts = BasisParts::default();
    let mut part = |name: &str, value: String, add: &dyn Fn(&mut BasisHasher, &str)| {
        let mut hasher = BasisHasher(blake3::Hasher::new_derive_key("pointsman 2026 part of the basis of evidence"));
        add(&mut hasher, &value);
        parts.hashes.insert(name.to_owned(), hasher.hash()[..16].to_owned());
        if !value.is_empty() {
            parts.values.insert(name.to_owned(), cut(value, PART_BYTES_MAX));
        }
    };
    let add_value: &dyn Fn(&mut BasisHasher, &str) = &|hasher, value| hasher.add(value);
    let rules_of_route = setup.rules.get(&route.id);
    let rules_hash = rules_of_route.map_or("", |rules| rules.hash());
    let text_of_rules = |rules: &Arc<Rules>| rules.shown_draft();
    // The text of rules that compare something is `EvidenceBasis::rules`, as a whole: here it would be cut.
    let rules_without_effect = rules_of_route.filter(|rules| rules.compares_no_reply()).map(text_of_rules);
    part(LANGUAGE_VERSION, DIALECT.to_string(), add_value);
    part(RULES, rules_without_effect.unwrap_or_default(), &|hasher, _| hasher.add(rules_hash));
    part(LEGACY_ADDRESS, addresses(Some(&route.legacy)), &|hasher, _| {
        hasher.add_addresses(Some(&route.legacy));
    });
    part(MATCH, route.matches.normal_form(), add_value);
    // Bodies beyond these sizes are never compared. The default sizes are not hashed, so that the evidence of earlier
    // versions stays valid.
    if let Some(sizes) = compared_sizes(&setup.limits) {
        part(COMPARED_SIZES, sizes.clone(), add_value);
        basis.add(&sizes);
    }
    basis.add(&DIALECT.to_string());
    basis.add(rules_hash);
    basis.add_addresses(Some(&route.legacy));
    let RouteMatch { method, path, host } = &route.matches;
    basis.add(method.as_str());
    basis.add(path);
    basis.add(host.as_deref().unwrap_or_default());
    let instance = match &route.instance {
        None => String::new(),
        Some(Instance::Creates { id }) => format!("creates {id}"),
        Some(Instance::Follows { creator, key }) => {
            // The oldest id: a renamed creator (`was:`) creates the same instances.
            let creator = creator_of(setup, route).map_or(creator, |creator| creator.first_id());
            // A key in the path is written without its kind, as by earlier versions, which knew no other kind: so their
            // evidence stays valid.
            let key = key.path_parameter().map_or_else(|| key.to_string(), str::to_owned);
            format!("follows {creator} {key}")
        }
    };
    part("`instance:`", without_parameter_name(route, &instance), add_value);
    basis.add(&instance);
    basis.add_count(plans.len());
    let read_plans: Vec<&Plan> = plans.values().copied().flatten().collect();
    for (name, plan) in plans {
        let plan = plan.map_or("", |plan| plan.id.as_str());
        part(&workflow_part(name.as_str()), plan.to_owned(), add_value);
        basis.add(name.as_str());
        basis.add(plan);
    }
    basis.add_count(names.len());
    for name in names {
        let service = setup.services.get(name).map(|service| &**service);
        part(&service_part(name.as_str()), addresses(service), &|hasher, _| {
            hasher.add_addresses(service);
        });
        basis.add(name.as_str());
        basis.add_addresses(service);
    }
    // Nothing is added if there are none, so that routes without more specific ones keep their earlier basis.
    let more_specific = more_specific(setup, route);
    part(OTHER_ROUTES, joined(&more_specific), &|hasher, _| {
        more_specific.iter().for_each(|text| hasher.add(text));
    });
    if !more_specific.is_empty() {
        basis.add_count(more_specific.len());
        more_specific.iter().for_each(|matches| basis.add(matches));
    }
    let read_parameters = read_parameters(setup, route, &read_plans);
    if !read_parameters.is_empty() {
        part(READ_PARAMETERS, joined(&read_parameters), &|hasher, _| {
            read_parameters.iter().for_each(|text| hasher.add(text));
        });
    }
    // A candidate is compared with what the plan in force does. Nothing is added for the defaults, so that the evidence
    // of earlier versions goes on.
    if let Some(AttributionText { source, shown }) = attribution_of(setup).filter(|_| !is_candidate) {
        basis.add(&source);
        part(ATTRIBUTION, shown, &|hasher, _| hasher.add(&source));
    }
    if route.replay_reads {
        part(REPLAY_READS, "yes".to_owned(), add_value);
        basis.add("replay_reads");
    }
    // Nothing is added for a route whose files and whose creator's files have the plans in force.
    if !other_versions.is_empty() {
        part(OTHER_VERSIONS, joined(&other_versions), &|hasher, _| {
            other_versions.iter().for_each(|id| hasher.add(id));
        });
        basis.add_count(other_versions.len());
        other_versions.iter().for_each(|id| basis.add(id));
    }
    let own = in_force.of(&route.id).map(|version| &version.set);
    let plan = match own.filter(|_| !is_candidate) {
        Some(set) => set.plan().cloned(),
        None => route.workflow.as_ref().and_then(|name| setup.workflows.get(name)).map(|plan| plan.id.clone()),
    };
    // A candidate is compared with what the plan in force does.
    if let Some(control) = own.filter(|_| is_candidate) {
        let text = serde_json::to_string(&**control).unwrap_or_default();
        basis.add(&text);
        part(PLAN_IN_FORCE, text, add_value);
    }
    // A candidate has no noise: it is compared with the plan in force, which is never asked twice.
    let (noise, noise_apart_from_rules) = match is_candidate {
        true => (String::new(), String::new()),
        false => (noise(setup, route, true), noise(setup, route, false)),
    };
    let rules = rules_of_route.filter(|rules| !rules.compares_no_reply()).map(text_of_rules).unwrap_or_default();
    parts.set_paths(&ServiceMatch::of(route).paths);
    let Promote { pairs, mismatch_below, .. } = route.promote;
    let wanted = WantedPairs { pairs, mismatch_below };
    EvidenceBasis { hash: basis.hash(), parts, own_parts, plan, noise, noise_apart_from_rules, rules, wanted }
}

/// The plans that the evidence of a route depends on.
struct PlansOfRoute<'a> {
    /// Those of the route's workflow, of its creator's, of those of the other followers that do more than read, and of
    /// all workflows that these run.
    plans: Plans<'a>,
    /// The route's workflow, and those that it runs.
    own: BTreeSet<&'a WorkflowName>,
    /// The ids of further versions of workflows in `plans`. For example, the route runs a newer version of a child
    /// workflow than its creator does: then that of the creator is here.
    other_versions: BTreeSet<&'a str>,
}

fn plans<'a>(setup: &'a Setup, in_force: &'a PlansInForce, route: &'a Route, is_candidate: bool) -> PlansOfRoute<'a> {
    let (mut plans, mut other_versions, mut of_route) = (Plans::new(), BTreeSet::new(), None);
    let own = in_force.of(&route.id).filter(|_| !is_candidate);
    let creator = creator_of(setup, route);
    let of_creator = creator.map(|creator| (creator, in_force.for_evidence_of_others(&creator.id)));
    let siblings = setup.routes.iter().map(|other| &**other).filter(|other| {
        other.id != route.id
            && creator.is_some_and(|creator| creator_of(setup, other).is_some_and(|of| of.id == creator.id))
    });
    let siblings = siblings.map(|sibling| (sibling, in_force.for_evidence_of_others(&sibling.id)));
    let writing = siblings.filter(|(sibling, version)| {
        let of_files = || sibling.workflow.as_ref().and_then(|name| setup.workflows.get(name)).map(|plan| &**plan);
        let plan = version.map_or_else(of_files, |version| version.plan().map(|plan| &**plan));
        plan.is_none_or(|plan| plan.reason_to_keep().is_some())
    });
    for (route, version) in [(route, own)].into_iter().chain(of_creator).chain(writing) {
        let mut known = BTreeSet::new();
        let mut open: Vec<&WorkflowName> = match version {
            Some(version) => vec![&version.set.workflow],
            None => route.workflow.iter().collect(),
        };
        while let Some(name) = open.pop() {
            if !known.insert(name) {
                continue;
            }
            let plan = version.map_or_else(|| setup.workflows.get(name), |version| version.plans.get(name));
            let plan = plan.map(|plan| &**plan);
            match plans.entry(name) {
                Entry::Vacant(entry) => drop(entry.insert(plan)),
                Entry::Occupied(entry) => {
                    let is_other = entry.get().map(|plan| &plan.id) != plan.map(|plan| &plan.id);
                    other_versions.extend(plan.filter(|_| is_other).map(|plan| plan.id.as_str()));
                }
            }
            // Fallbacks are steps of the plan too.
            open.extend(plan.into_iter().flat_map(|plan| &plan.steps).filter_map(|step| match &step.kind {
                StepKind::Run(child) => Some(&child.workflow),
                _ => None,
            }));
        }
        // The route itself comes first.
        of_route.get_or_insert(known);
    }
    PlansOfRoute { plans, own: of_route.unwrap_or_default(), other_versions }
}

/// The services that calls, probes and undo calls go to or that an expression names.
fn services<'a, 'p>(setup: &'a Setup, plans: impl Iterator<Item = &'p Option<&'a Plan>>) -> BTreeSet<&'a ServiceName>
where
    'a: 'p,
{
    plans.flatten().flat_map(|plan| services_of(setup, plan)).collect()
}

#[cfg(test)]
pub(super) mod tests;

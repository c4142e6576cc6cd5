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
//!   expression language.
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
use super::basis_parts::{creator_of, more_specific, noise};
use super::plans::{PlansInForce, services_of};
use crate::compare::Rules;
use crate::config::Setup;
use crate::evidence::{BasisParts, EvidenceBasis, RULES, WantedPairs};
use crate::expression::DIALECT;
use crate::flag::{Instance, Promote, Route, RouteMatch};
use crate::limits::Limits;
use crate::names::{RouteId, ServiceName, WorkflowName};
use crate::store::candidate_key;
use crate::workflow::{Plan, StepKind};

/// How much is kept of what a part of a basis says.
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
    let (plans, other_versions) = plans(setup, in_force, route, is_candidate);
    let names = services(setup, &plans);
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
    // Rules that compare something are kept as a whole.
    let rules_without_effect = rules_of_route.filter(|rules| rules.compares_no_reply()).map(text_of_rules);
    part("the version of the expression language", DIALECT.to_string(), add_value);
    part(RULES, rules_without_effect.unwrap_or_default(), &|hasher, _| hasher.add(rules_hash));
    part("the address of its legacy service", addresses(Some(&route.legacy)), &|hasher, _| {
        hasher.add_addresses(Some(&route.legacy));
    });
    part("`match:`", route.matches.normal_form(), add_value);
    // What is larger is never compared. Defaults are left out: the evidence of earlier versions goes on.
    if let Some(sizes) = compared_sizes(&setup.limits) {
        part("`body_capture_bytes_max` or `compare_bytes_max`", sizes.clone(), add_value);
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
            // A key in the path is spelled as by versions that knew no other, so that its evidence goes on.
            let key = key.path_parameter().map_or_else(|| key.to_string(), str::to_owned);
            format!("follows {creator} {key}")
        }
    };
    part("`instance:`", instance.clone(), add_value);
    basis.add(&instance);
    basis.add_count(plans.len());
    for (name, plan) in plans {
        let plan = plan.map_or("", |plan| plan.id.as_str());
        part(&format!("the workflow `{name}`"), plan.to_owned(), add_value);
        basis.add(name.as_str());
        basis.add(plan);
    }
    basis.add_count(names.len());
    for name in names {
        let service = setup.services.get(name).map(|service| &**service);
        part(&format!("the address of the service `{name}`"), addresses(service), &|hasher, _| {
            hasher.add_addresses(service);
        });
        basis.add(name.as_str());
        basis.add_addresses(service);
    }
    // Nothing is added if there are none, so that routes without more specific ones keep their earlier basis.
    let more_specific = more_specific(setup, route);
    part("which of its requests other routes take", joined(&more_specific), &|hasher, _| {
        more_specific.iter().for_each(|text| hasher.add(text));
    });
    if !more_specific.is_empty() {
        basis.add_count(more_specific.len());
        more_specific.iter().for_each(|matches| basis.add(matches));
    }
    if route.replay_reads {
        part("`replay_reads:`", "yes".to_owned(), add_value);
        basis.add("replay_reads");
    }
    // Nothing is added for a route whose files and whose creator's files have the plans in force.
    if !other_versions.is_empty() {
        part("the versions of workflows in force", joined(&other_versions), &|hasher, _| {
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
        part("the plan in force", text, add_value);
    }
    // A candidate is compared with the plan in force, which is never asked twice.
    let (noise, noise_apart_from_rules) = match is_candidate {
        true => (String::new(), String::new()),
        false => (noise(setup, route, true), noise(setup, route, false)),
    };
    let rules = rules_of_route.filter(|rules| !rules.compares_no_reply()).map(text_of_rules).unwrap_or_default();
    let Promote { pairs, mismatch_below, .. } = route.promote;
    let wanted = WantedPairs { pairs, mismatch_below };
    EvidenceBasis { hash: basis.hash(), parts, plan, noise, noise_apart_from_rules, rules, wanted }
}

/// The plans of the route's workflow, of its creator's, of those of the other followers that do more than read, and of
/// all workflows that these run; and the ids of those of which the route has another version.
fn plans<'a>(
    setup: &'a Setup,
    in_force: &'a PlansInForce,
    route: &'a Route,
    is_candidate: bool,
) -> (Plans<'a>, BTreeSet<&'a str>) {
    let (mut plans, mut other_versions) = (Plans::new(), BTreeSet::new());
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
    }
    (plans, other_versions)
}

/// The services that calls, probes and undo calls go to or that an expression names.
fn services<'a>(setup: &'a Setup, plans: &Plans<'a>) -> BTreeSet<&'a ServiceName> {
    plans.values().flatten().flat_map(|plan| services_of(setup, plan)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Overrides};

    /// Files with these routes.
    fn setup(routes: &str) -> Setup {
        setup_with(routes, "workflow: v\nsteps: { a: { set: 1 } }\nrespond: { status: 200 }\n")
    }

    /// Files with these routes and this workflow beside another one.
    fn setup_with(routes: &str, workflow: &str) -> Setup {
        setup_of("services: { shop: 'http://127.0.0.1:9' }\n", routes, workflow)
    }

    fn setup_of(services: &str, routes: &str, workflow: &str) -> Setup {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("pointsman.yaml", &format!("{services}default_legacy: shop\n"));
        write("workflows/w.yaml", "workflow: w\nsteps: { a: { set: 1 } }\nrespond: { status: 200, body: { id: 1 } }\n");
        write("workflows/v.yaml", workflow);
        write("routes/orders.yaml", routes);
        let loaded = config::read(dir.path(), &Overrides::default());
        loaded.unwrap_or_else(|failed| panic!("{}", failed.render(false))).setup
    }

    /// A creator with this id and these earlier ids, and its follower `get`.
    fn family(creator: &str, was: &str) -> Setup {
        let routes = format!(
            "routes:
- {{ id: {creator}, was: [{was}], match: {{ method: POST, path: /orders }}, legacy: shop, workflow: w,
    instance: {{ creates: $.id }} }}
- {{ id: get, match: {{ method: GET, path: '/orders/{{id}}' }}, legacy: shop, workflow: w,
    instance: {{ follows: {creator}, key: path.id }} }}
"
        );
        setup(&routes)
    }

    fn basis_of_follower(creator: &str, was: &str) -> EvidenceBasis {
        of_follower(bases(&family(creator, was), &PlansInForce::default()))
    }

    fn of_follower(bases: Vec<(RouteId, EvidenceBasis)>) -> EvidenceBasis {
        bases.into_iter().find(|(route, _)| route.as_str() == "get").unwrap().1
    }

    /// What another follower did to an instance is what this one finds: a defect there shows here, and its mending must
    /// start the evidence anew. One that only reads does nothing to it.
    #[test]
    fn the_workflows_of_other_followers_that_write_are_part_of_the_basis() {
        let writing = "workflow: v\nsteps: { a: { call: 'PUT ${services.shop}/a', body: { state: STATE } } }\n\
                       respond: { status: 200 }\n";
        let of = |workflow: &str, text: &str| {
            let follower = |id: &str, method: &str, workflow: &str| {
                format!(
                    "- {{ id: {id}, match: {{ method: {method}, path: '/orders/{{id}}' }}, legacy: shop,\n    \
                     workflow: {workflow}, instance: {{ follows: create, key: path.id }} }}\n"
                )
            };
            let creator = "- { id: create, match: { method: POST, path: /orders }, legacy: shop, workflow: w,\n    \
                           instance: { creates: $.id } }\n";
            let routes =
                ["routes:\n", creator, &follower("get", "GET", "w"), &follower("put", "PUT", workflow)].concat();
            let found = bases(&setup_with(&routes, text), &PlansInForce::default());
            let of = |id: &str| found.iter().find(|(route, _)| route.as_str() == id).unwrap().1.clone();
            (of("get"), of("create"))
        };
        let one = of("v", &writing.replace("STATE", "1"));
        let two = of("v", &writing.replace("STATE", "2"));
        assert_ne!(one.0, two.0);
        assert_eq!(one.1, two.1, "the creator's evidence goes on");
        let reading = |n: u8| format!("workflow: v\nsteps: {{ a: {{ set: {n} }} }}\nrespond: {{ status: 200 }}\n");
        assert_eq!(of("v", &reading(1)).0, of("v", &reading(2)).0);
    }

    /// The basis of `GET /orders/{id}` in files that also have these routes.
    fn basis_with_other_routes(others: &str) -> EvidenceBasis {
        let routes = format!(
            "routes:\n- {{ id: get, match: {{ method: GET, path: '/orders/{{id}}' }}, legacy: shop, workflow: w }}\n{others}"
        );
        let mut all = bases(&setup(&routes), &PlansInForce::default()).into_iter();
        all.find(|(route, _)| route.as_str() == "get").unwrap().1
    }

    #[test]
    fn a_changed_part_is_known_by_its_name() {
        let of = |path: &str, rest: &str| {
            let route =
                format!("{{ id: a, match: {{ method: POST, path: {path} }}, legacy: shop, workflow: w{rest} }}");
            bases(&setup(&format!("routes:\n- {route}\n")), &PlansInForce::default()).remove(0).1
        };
        let before = of("/orders", "");
        for (after, changed) in [
            (of("/other", ""), "`match:`"),
            (of("/orders", ", compare: { status: class }"), "`compare:`"),
            (of("/orders", ", instance: { creates: $.id }"), "`instance:`"),
        ] {
            assert_ne!(after.hash, before.hash);
            assert_eq!(after.parts.hashes.len(), before.parts.hashes.len());
            let hashes = after.parts.hashes.iter();
            let names = hashes.filter(|(name, hash)| before.parts.hashes[*name] != **hash).map(|(name, _)| name);
            assert_eq!(names.collect::<Vec<_>>(), [changed]);
        }
        let values = &before.parts.values;
        assert!(values["the workflow `w`"].starts_with("plan_"), "{values:?}");
        assert_eq!(values["the address of its legacy service"], "http://127.0.0.1:9/");
        let nothing = of("/orders", ", compare: { ignore: ['$'], status: class, headers: [] }");
        assert!(nothing.rules.is_empty() && nothing.parts.values[RULES].contains("class"), "{nothing:?}");
    }

    /// A gateway may choose by these names who answers.
    #[test]
    fn the_names_by_which_a_service_is_asked_are_part_of_the_basis() {
        let workflow = "workflow: v\nsteps: { a: { call: 'GET ${services.prices}/p' } }\nrespond: { status: 200 }\n";
        let of = |prices: &str, shop: &str| {
            let services =
                format!("services: {{ shop: {{ urls: [{A}]{shop} }}, prices: {{ urls: [{A}]{prices} }} }}\n");
            let route = "routes:\n- { id: a, match: { method: POST, path: /a }, legacy: shop, workflow: v }\n";
            bases(&setup_of(&services, route, workflow), &PlansInForce::default()).remove(0).1
        };
        const A: &str = "'https://127.0.0.1:9'";
        let plain = of("", "");
        assert_eq!(plain.hash, of(", host: client", "").hash, "the default");
        for (prices, shop, part, value) in [
            (", host: v1.prices", "", "the address of the service `prices`", "https://127.0.0.1:9/, host: v1.prices"),
            (", host: url", "", "the address of the service `prices`", "https://127.0.0.1:9/, host: url"),
            ("", ", host: v2.shop", "the address of its legacy service", "https://127.0.0.1:9/, host: v2.shop"),
            (
                ", tls: { server_name: v1.prices }",
                "",
                "the address of the service `prices`",
                "https://127.0.0.1:9/, tls.server_name: v1.prices",
            ),
        ] {
            let named = of(prices, shop);
            assert_ne!(named.hash, plain.hash, "{prices}{shop}");
            assert_ne!(named.parts.hashes[part], plain.parts.hashes[part], "{prices}{shop}");
            assert_eq!(named.parts.values[part], value);
        }
    }

    #[test]
    fn the_noise_of_legacy_outlives_the_workflow_and_not_the_rules() {
        let of = |rest: &str| {
            let route = format!("{{ id: a, match: {{ method: GET, path: /a }}, legacy: shop, workflow: w{rest} }}");
            bases(&setup(&format!("routes:\n- {route}\n")), &PlansInForce::default()).remove(0).1
        };
        assert_eq!(of("").noise, "", "not declared safe to repeat");
        let (repeated, other) = (of(", replay_safe: true"), of(", replay_safe: true, compare: { status: class }"));
        assert!(!repeated.noise.is_empty() && repeated.noise != other.noise);
        assert_eq!(repeated.hash, of("").hash, "the evidence goes on");
    }

    /// Without the more specific route, the general route would get requests that were not compared.
    #[test]
    fn the_requests_that_a_more_specific_route_takes_are_part_of_the_basis() {
        let alone = basis_with_other_routes("");
        let with = |path: &str, workflow: &str| {
            basis_with_other_routes(&format!(
                "- {{ id: other, match: {{ method: GET, path: '{path}' }}, legacy: shop{workflow} }}\n"
            ))
        };
        assert_ne!(with("/orders/export", ""), alone);
        assert_ne!(with("/orders/export", ""), with("/orders/import", ""));
        assert_eq!(
            with("/orders/export", ", workflow: w"),
            with("/orders/export", ""),
            "the requests go to that route either way"
        );
        assert_eq!(with("/orders/{id}/lines", ""), alone, "that route takes none of the requests");
        assert_eq!(with("/{any}/{id}", ""), alone, "that route is more general");
    }

    #[test]
    fn a_follower_keeps_its_basis_when_its_creator_is_renamed() {
        let before = basis_of_follower("create", "");
        assert_eq!(basis_of_follower("v2.create", "create"), before);
        assert_eq!(basis_of_follower("v3.create", "v2.create, create"), before);
        assert_ne!(basis_of_follower("v2.create", ""), before, "another route creates the instances");
        let (files, in_store) = (family("v2.create", ""), family("v2.create", "create").routes);
        let bases = bases_in_store(&files, &in_store, &PlansInForce::default());
        assert_eq!(of_follower(bases), before, "the store knows the id that the files no longer list");
    }
}

//! What the evidence of a route depends on.
//!
//! The question it answers: "would a pair that was compared under the earlier files get the same verdict under these?"
//! Always true: whatever can change what the engine or legacy answers, or how the two are compared, is part of the
//! basis, so that a change of the basis starts the evidence from zero.
//!
//! Part of the basis: which requests the route matches, and which of these go to more specific routes, because the
//! route gets other requests when such a route is removed; what the route does with instances; the plan of the route's
//! workflow, of its creator's where the route follows up instances, and of every workflow that these run, directly or
//! through another one (or the fact that the files do not have such a workflow); the addresses of the services that
//! these plans name, and of the route's legacy; the rules; the version of the expression language.
//!
//! Not part of the basis, because they change when and how often something is asked and never what a reply says:
//! limits, breakers, rates, time-outs of services, `keyed:` (which decides whether an attempt with unknown outcome is
//! sent again), and the values of secrets, because a new secret gives access to the same service.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::Setup;
use crate::evidence::{EvidenceBasis, RULES};
use crate::expression::DIALECT;
use crate::flag::{Instance, Route, RouteMatch, Service};
use crate::names::{RouteId, ServiceName, WorkflowName};
use crate::workflow::{Plan, StepKind, StepPart};

/// The plans of workflows by name; `None` where the files have no such workflow.
type Plans<'a> = BTreeMap<&'a WorkflowName, Option<&'a Plan>>;

/// The basis of each route's evidence. When its hash changes, the evidence starts from zero.
pub(super) fn bases(setup: &Setup) -> Vec<(RouteId, EvidenceBasis)> {
    setup.routes.iter().map(|route| (route.id.clone(), basis(setup, route))).collect()
}

fn basis(setup: &Setup, route: &Route) -> EvidenceBasis {
    let plans = plans(setup, route);
    let names = services(setup, &plans);
    let mut basis = Basis(blake3::Hasher::new_derive_key("pointsman 2026 basis of the evidence of a route"));
    let mut parts = BTreeMap::new();
    let mut part = |name: &str, add: &dyn Fn(&mut Basis)| {
        let mut hasher = Basis(blake3::Hasher::new_derive_key("pointsman 2026 part of the basis of evidence"));
        add(&mut hasher);
        parts.insert(name.to_owned(), hasher.hash()[..16].to_owned());
    };
    part("the version of the expression language", &|hasher| hasher.add(&DIALECT.to_string()));
    part(RULES, &|hasher| hasher.add(setup.rules.get(&route.id).map_or("", |rules| rules.hash())));
    part("the address of its legacy service", &|hasher| hasher.add_addresses(Some(&route.legacy)));
    part("`match:`", &|hasher| hasher.add(&route.matches.normal_form()));
    basis.add(&DIALECT.to_string());
    basis.add(setup.rules.get(&route.id).map_or("", |rules| rules.hash()));
    basis.add_addresses(Some(&route.legacy));
    let RouteMatch { method, path, host } = &route.matches;
    basis.add(method.as_str());
    basis.add(path);
    basis.add(host.as_deref().unwrap_or_default());
    let instance = match &route.instance {
        None => String::new(),
        Some(Instance::Creates { id }) => format!("creates {id}"),
        Some(Instance::Follows { creator, param }) => {
            // The oldest id: a renamed creator (`was:`) creates the same instances.
            let creator = creator_of(setup, route).map_or(creator, |creator| creator.first_id());
            format!("follows {creator} {param}")
        }
    };
    part("`instance:`", &|hasher| hasher.add(&instance));
    basis.add(&instance);
    basis.add_count(plans.len());
    for (name, plan) in plans {
        let plan = plan.map_or("", |plan| plan.id.as_str());
        part(&format!("the workflow `{name}`"), &|hasher| hasher.add(plan));
        basis.add(name.as_str());
        basis.add(plan);
    }
    basis.add_count(names.len());
    for name in names {
        let service = setup.services.get(name).map(|service| &**service);
        part(&format!("the address of the service `{name}`"), &|hasher| hasher.add_addresses(service));
        basis.add(name.as_str());
        basis.add_addresses(service);
    }
    // Nothing is added if there are none, so that routes without more specific ones keep their earlier basis.
    let more_specific = more_specific(setup, route);
    part("which of its requests other routes take", &|hasher| more_specific.iter().for_each(|text| hasher.add(text)));
    if !more_specific.is_empty() {
        basis.add_count(more_specific.len());
        more_specific.iter().for_each(|matches| basis.add(matches));
    }
    let plan = route.workflow.as_ref().and_then(|name| setup.workflows.get(name)).map(|plan| plan.id.clone());
    EvidenceBasis { hash: basis.hash(), parts, plan }
}

/// The route that creates the instances that this one follows up.
fn creator_of<'a>(setup: &'a Setup, route: &Route) -> Option<&'a Route> {
    let Some(Instance::Follows { creator, .. }) = &route.instance else { return None };
    setup.routes.iter().map(|route| &**route).find(|route| route.id == *creator)
}

/// The matches, in a normal form, of the other routes that take requests which this route would get without them.
fn more_specific(setup: &Setup, route: &Route) -> BTreeSet<String> {
    let others = setup.routes.iter().map(|other| &other.matches);
    let taking = others.filter(|other| other.overlaps(&route.matches) && other.wins_over(&route.matches));
    taking.map(RouteMatch::normal_form).collect()
}

/// The plans of the route's workflow, of its creator's, and of all workflows that these two run.
fn plans<'a>(setup: &'a Setup, route: &'a Route) -> Plans<'a> {
    let mut plans = Plans::new();
    let mut open: Vec<&WorkflowName> = route.workflow.iter().collect();
    open.extend(creator_of(setup, route).and_then(|creator| creator.workflow.as_ref()));
    while let Some(name) = open.pop() {
        if plans.contains_key(name) {
            continue;
        }
        let plan = setup.workflows.get(name).map(|plan| &**plan);
        plans.insert(name, plan);
        // Fallbacks are steps of the plan too.
        open.extend(plan.into_iter().flat_map(|plan| &plan.steps).filter_map(|step| match &step.kind {
            StepKind::Run(child) => Some(&child.workflow),
            _ => None,
        }));
    }
    plans
}

/// The services that calls, probes and undo calls go to or that an expression names.
fn services<'a>(setup: &'a Setup, plans: &Plans<'a>) -> BTreeSet<&'a ServiceName> {
    let mut names = BTreeSet::new();
    for plan in plans.values().flatten() {
        for step in &plan.steps {
            let calls = [StepPart::Do, StepPart::Probe, StepPart::Undo].into_iter().filter_map(|part| step.call(part));
            names.extend(calls.map(|call| &call.service));
        }
        for path in plan.reads.iter().filter(|path| path.root() == "services") {
            // An expression that computes a service's name may name any service.
            names.extend(setup.services.keys().filter(|name| path.part(0).is_none_or(|part| part == name.as_str())));
        }
    }
    names
}

/// Hashes texts and counts. Each text is hashed with its length, so that no two different lists have the same hash.
struct Basis(blake3::Hasher);

impl Basis {
    fn hash(&self) -> String {
        self.0.finalize().to_hex()[..32].to_owned()
    }

    fn add(&mut self, text: &str) {
        self.add_count(text.len());
        self.0.update(text.as_bytes());
    }

    fn add_count(&mut self, count: usize) {
        self.0.update(&(count as u64).to_le_bytes());
    }

    /// Adds the base URLs of a service, or an empty list if the files do not have the service.
    fn add_addresses(&mut self, service: Option<&Service>) {
        let urls = service.map_or(&[][..], |service| &service.urls);
        self.add_count(urls.len());
        for url in urls {
            self.add(&url.uri.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Overrides};

    /// Files with these routes.
    fn setup(routes: &str) -> Setup {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("pointsman.yaml", "services: { shop: 'http://127.0.0.1:9' }\ndefault_legacy: shop\n");
        write("workflows/w.yaml", "workflow: w\nsteps: { a: { set: 1 } }\nrespond: { status: 200, body: { id: 1 } }\n");
        write("routes/orders.yaml", routes);
        let loaded = config::read(dir.path(), &Overrides::default());
        loaded.unwrap_or_else(|failed| panic!("{}", failed.render(false))).setup
    }

    /// The basis of the follower `get` of a creator with this id and these earlier ids.
    fn basis_of_follower(creator: &str, was: &str) -> EvidenceBasis {
        let routes = format!(
            "routes:
- {{ id: {creator}, was: [{was}], match: {{ method: POST, path: /orders }}, legacy: shop, workflow: w,
    instance: {{ creates: $.id }} }}
- {{ id: get, match: {{ method: GET, path: '/orders/{{id}}' }}, legacy: shop, workflow: w,
    instance: {{ follows: {creator}, key: path.id }} }}
"
        );
        bases(&setup(&routes)).into_iter().find(|(route, _)| route.as_str() == "get").unwrap().1
    }

    /// The basis of `GET /orders/{id}` in files that also have these routes.
    fn basis_beside(others: &str) -> EvidenceBasis {
        let routes = format!(
            "routes:\n- {{ id: get, match: {{ method: GET, path: '/orders/{{id}}' }}, legacy: shop, workflow: w }}\n{others}"
        );
        bases(&setup(&routes)).into_iter().find(|(route, _)| route.as_str() == "get").unwrap().1
    }

    #[test]
    fn a_changed_part_is_known_by_its_name() {
        let of = |path: &str, rest: &str| {
            let route =
                format!("{{ id: a, match: {{ method: POST, path: {path} }}, legacy: shop, workflow: w{rest} }}");
            bases(&setup(&format!("routes:\n- {route}\n"))).remove(0).1
        };
        let before = of("/orders", "");
        for (after, changed) in [
            (of("/other", ""), "`match:`"),
            (of("/orders", ", compare: { status: class }"), "`compare:`"),
            (of("/orders", ", instance: { creates: $.id }"), "`instance:`"),
        ] {
            assert_ne!(after.hash, before.hash);
            assert_eq!(after.parts.len(), before.parts.len());
            let names = after.parts.iter().filter(|(name, hash)| before.parts[*name] != **hash).map(|(name, _)| name);
            assert_eq!(names.collect::<Vec<_>>(), [changed]);
        }
        assert!(before.parts.contains_key("the workflow `w`"), "{:?}", before.parts);
    }

    /// Without the more specific route, the general route would get requests that were not compared.
    #[test]
    fn the_requests_that_a_more_specific_route_takes_are_part_of_the_basis() {
        let alone = basis_beside("");
        let with = |path: &str, workflow: &str| {
            basis_beside(&format!(
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
    }
}

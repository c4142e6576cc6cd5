//! Parts of what the evidence of a route depends on: other routes, and what noise depends on.

use std::collections::BTreeSet;

use super::basis_hasher::BasisHasher;
use crate::config::Setup;
use crate::expression::DIALECT;
use crate::flag::{Instance, Route, RouteMatch};

/// What legacy's replies and their comparison depend on, or all of it but the rules; empty if no request of the route
/// may be sent to legacy twice.
pub(super) fn noise(setup: &Setup, route: &Route, with_rules: bool) -> String {
    if !route.replay_safe || route.workflow.is_none() {
        return String::new();
    }
    let mut basis = BasisHasher(blake3::Hasher::new_derive_key("pointsman 2026 basis of the noise of a route"));
    // Earlier versions did not count the elements of lists.
    basis.add("elements are counted");
    basis.add(&DIALECT.to_string());
    if with_rules {
        basis.add(setup.rules.get(&route.id).map_or("", |rules| rules.hash()));
    }
    basis.add_addresses(Some(&route.legacy));
    basis.add(&route.matches.normal_form());
    more_specific(setup, route).iter().for_each(|matches| basis.add(matches));
    basis.hash()
}

/// The route that creates the instances that this one follows up.
pub(super) fn creator_of<'a>(setup: &'a Setup, route: &Route) -> Option<&'a Route> {
    let Some(Instance::Follows { creator, .. }) = &route.instance else { return None };
    setup.routes.iter().map(|route| &**route).find(|route| route.id == *creator)
}

/// The matches, in a normal form, of the other routes that take requests which this route would get without them.
pub(super) fn more_specific(setup: &Setup, route: &Route) -> BTreeSet<String> {
    let others = setup.routes.iter().map(|other| &other.matches);
    let taking = others.filter(|other| other.overlaps(&route.matches) && other.wins_over(&route.matches));
    taking.map(RouteMatch::normal_form).collect()
}

//! Parts of what the evidence of a route depends on: other routes, what noise depends on, the names of parameters, and
//! which calls by legacy belong to a request.

use std::collections::BTreeSet;

use super::basis_hasher::BasisHasher;
use crate::config::Setup;
use crate::egress::AttributionSettings;
use crate::expression::DIALECT;
use crate::flag::{Instance, Route, RouteMatch};
use crate::workflow::Plan;

/// The hash of what legacy's replies and their comparison depend on, with or without the rules; empty if no request of
/// the route may be sent to legacy twice.
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

/// By what, and for how long, calls by legacy are attributed to requests.
pub(super) struct AttributionText {
    /// As the files have it, to be hashed.
    pub(super) source: String,
    /// Without texts and numbers of an expression, which may be secret.
    pub(super) shown: String,
}

/// The text of the attribution; `None` if calls by legacy are not seen, or for the defaults.
pub(super) fn attribution_of(setup: &Setup) -> Option<AttributionText> {
    let settings =
        setup.settings.attribution.as_ref().filter(|settings| **settings != AttributionSettings::default())?;
    let AttributionSettings { correlate, window } = settings;
    let with = |correlate: Option<String>| {
        let correlate = correlate.map_or_else(String::new, |correlate| format!(", correlate: {correlate}"));
        format!("window: {window:?}{correlate}")
    };
    Some(AttributionText { source: with(correlate.source()), shown: with(correlate.shown()) })
}

/// The names, with the position, of those parameters of the route's path that these plans, the rules or
/// `egress.correlate` read. Another name for one of them is another value for its reader.
pub(super) fn read_parameters(setup: &Setup, route: &Route, plans: &[&Plan]) -> BTreeSet<String> {
    let reads = plans.iter().flat_map(|plan| &plan.reads).filter(|read| read.root() == "request");
    let (mut names, mut are_all_read) = (BTreeSet::new(), false);
    for read in reads {
        match (read.part(0), read.part(1)) {
            (Some("params"), Some(name)) => {
                names.insert(name);
            }
            (None, _) | (Some("params"), None) => are_all_read = true,
            (Some(_), _) => {}
        }
    }
    // A text that mentions `params` counts as one that reads all of them.
    let is_mentioned = |text: String| text.contains("params");
    are_all_read |= setup.rules.get(&route.id).is_some_and(|rules| is_mentioned(rules.shown_draft()));
    are_all_read |= attribution_of(setup).is_some_and(|attribution| is_mentioned(attribution.source));
    let params = route.matches.params().enumerate();
    params.filter(|(_, name)| are_all_read || names.contains(name)).map(|(at, name)| format!("{at} {name}")).collect()
}

/// The text `instance`, which says what a route does with instances, with the position of a path parameter in place of
/// its name.
pub(super) fn without_parameter_name(route: &Route, instance: &str) -> String {
    let Some(Instance::Follows { creator: _, key }) = &route.instance else { return instance.to_owned() };
    let Some(name) = key.path_parameter() else { return instance.to_owned() };
    let at = route.matches.params().position(|param| param == name);
    let rest = instance.strip_suffix(name).unwrap_or(instance);
    format!("{rest}path parameter {}", at.map_or_else(|| name.to_owned(), |at| (at + 1).to_string()))
}

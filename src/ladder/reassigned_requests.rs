//! Requests that new files take from a route with a workflow. There are five ways:
//!
//! - the route is removed;
//! - it loses its workflow;
//! - it matches other requests;
//! - its service reads paths in another way (`paths:`);
//! - a new route wins over it.
//!
//! Whichever route gets a retry of such a request now, the retry is looked up under the keys of the earlier route.
//!
//! Always true: as long as a retry may come, it is looked up under the match and the scopes that were in force when its
//! first try came. The number of remembered matches is bounded: if the oldest is dropped, that is logged.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::scope_matches;
use crate::flag::{EarlierTimes, PathConventions, ReassignedRequests, Route, RouteMatch, ServiceMatch};
use crate::limits::REASSIGNED_MATCHES_MAX;
use crate::names::RouteId;
use crate::store::{ReplacedMatch, ReplacedScope, RetryScopes};

/// Adds to the stored scopes the requests that new files take from routes.
pub(super) fn add(
    before: &BTreeMap<RouteId, RetryScopes>,
    routes: &[Arc<Route>],
    now: Timestamp,
) -> BTreeMap<RouteId, RetryScopes> {
    let had = |route: &&Arc<Route>| {
        before.values().any(|stored| matches(stored).is_some_and(|matches| has_same_requests(stored, &matches, route)))
    };
    // Only matches that are new, or read in another way than before, can take requests from a route that did not
    // change.
    let new: Vec<ServiceMatch<'_>> =
        routes.iter().filter(|route| !had(route)).map(|route| ServiceMatch::of(route)).collect();
    let mut known = before.clone();
    for (id, stored) in &mut known {
        let Some((scope, matches)) = stored.present.clone().zip(matches(stored)) else { continue };
        let successor = routes.iter().find(|route| route.ids().any(|own| own == id));
        let has_all =
            successor.is_some_and(|route| route.workflow.is_some() && has_same_requests(stored, &matches, route));
        let stored_match = ServiceMatch { matches: &matches, paths: stored.paths.unwrap_or_default() };
        let is_taken = |new: &ServiceMatch<'_>| new.overlaps(&stored_match) && new.may_win_over(&stored_match);
        if has_all && !new.iter().any(is_taken) {
            continue;
        }
        let present = ReplacedScope { scope, at: now, matches: None, paths: None };
        let (text, paths) = (matches.to_string(), stored.paths.unwrap_or_default());
        let scopes = [present].into_iter().chain(stored.earlier.iter().cloned());
        stored.reassigned.extend(scopes.map(|ReplacedScope { scope, at, matches: then, .. }| {
            // A scope reads path parameters by the names that they had when it was in force.
            let then = then.filter(|then| scope_matches::match_alike(then, &text));
            ReplacedMatch { matches: then.unwrap_or_else(|| text.clone()), paths, scope, at }
        }));
        if stored.reassigned.len() > REASSIGNED_MATCHES_MAX {
            tracing::warn!(
                route = %id, kept = REASSIGNED_MATCHES_MAX,
                "the route's `match` or the scope of its retry keys changed more often than is remembered: requests \
                 from before the oldest changes that now go to another route are no longer recognised when they are \
                 retried"
            );
        }
        tracing::info!(
            route = %id, %matches,
            "new files may give requests of this route to another one: their retries are still looked up under this \
             route's keys"
        );
    }
    known
}

/// Sorts replaced matches newest first, and removes duplicates, expired ones, and those beyond the bound.
pub(super) fn prune(reassigned: &mut Vec<ReplacedMatch>, may_come: impl Fn(Timestamp) -> bool) {
    reassigned.sort_by_key(|replaced| Reverse(replaced.at));
    let mut remaining: Vec<ReplacedMatch> = Vec::new();
    for replaced in reassigned.drain(..) {
        let is_same = |other: &ReplacedMatch| {
            (&other.matches, &other.paths, &other.scope) == (&replaced.matches, &replaced.paths, &replaced.scope)
        };
        let is_known = remaining.iter().any(is_same);
        if !is_known && may_come(replaced.at) {
            remaining.push(replaced);
        }
    }
    remaining.truncate(REASSIGNED_MATCHES_MAX);
    *reassigned = remaining;
}

/// The other routes from which this one may have got requests, each with the time of the last change that gave it some.
pub(super) fn sources<'a>(
    scopes: &'a BTreeMap<RouteId, RetryScopes>,
    route: &'a Route,
) -> impl Iterator<Item = (&'a RouteId, Timestamp)> {
    let gets_some = |reassigned: &&ReplacedMatch| {
        reassigned.matches.parse::<RouteMatch>().is_ok_and(|matches| {
            ServiceMatch { matches: &matches, paths: reassigned.paths }.overlaps(&ServiceMatch::of(route))
        })
    };
    let others = scopes.iter().filter(|(id, _)| !route.ids().any(|own| own == *id));
    others.filter_map(move |(id, stored)| {
        Some((id, stored.reassigned.iter().filter(gets_some).map(|reassigned| reassigned.at).max()?))
    })
}

/// Parses stored reassigned requests, so that requests can be matched against them.
///
/// # Errors
/// Another version stored it, and this one cannot read it.
pub(super) fn parse(
    route: &RouteId,
    reassigned: &ReplacedMatch,
    times: EarlierTimes,
) -> Result<ReassignedRequests, String> {
    let (matches, scope) = (reassigned.matches.parse()?, reassigned.scope.parse_earlier(times)?);
    Ok(ReassignedRequests::new(route.clone(), matches, reassigned.paths, scope))
}

/// Whether a route matches the requests that it matched before: by the same template, read in the same way.
pub(super) fn has_same_requests(stored: &RetryScopes, matches: &RouteMatch, route: &Route) -> bool {
    let read_alike = stored.paths.is_none_or(|paths| paths.match_alike(&conventions(route)));
    matches.normal_form() == route.matches.normal_form() && read_alike
}

/// How the service of a route reads paths.
pub(super) fn conventions(route: &Route) -> PathConventions {
    ServiceMatch::of(route).paths
}

/// The stored match of a route, parsed.
fn matches(stored: &RetryScopes) -> Option<RouteMatch> {
    stored.matches.as_ref()?.parse().ok()
}

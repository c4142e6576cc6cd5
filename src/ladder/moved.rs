//! Requests that new files take from a route with a workflow: it is removed, loses its workflow or matches other
//! requests, or a new route wins over it. Their retries are looked up under the keys of that route, wherever they go
//! now.
//!
//! Always true: as long as a retry may come, it is looked up under the match and the scopes that were in force when its
//! first try came. The number is bounded: if the oldest are dropped, that is logged.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use crate::flag::{Match, MovedRequests, Route};
use crate::limits::MOVED_REQUESTS_MAX;
use crate::names::RouteId;
use crate::store::{ReplacedMatch, ReplacedScope, RetryScopes};

/// The scopes before new files, with the requests that these take from routes.
pub(super) fn add(
    before: &BTreeMap<RouteId, RetryScopes>,
    routes: &[Arc<Route>],
    now: Timestamp,
) -> BTreeMap<RouteId, RetryScopes> {
    let forms_before: BTreeSet<String> =
        before.values().filter_map(matches).map(|matches| matches.normal_form()).collect();
    // Those that may take requests from another one.
    let new: Vec<&Match> = routes
        .iter()
        .map(|route| &route.matches)
        .filter(|matches| !forms_before.contains(&matches.normal_form()))
        .collect();
    let mut known = before.clone();
    for (id, was) in &mut known {
        let Some((scope, matches)) = was.now.clone().zip(matches(was)) else { continue };
        let heir = routes.iter().find(|route| route.ids().any(|own| own == id));
        let has_all =
            heir.is_some_and(|heir| heir.workflow.is_some() && heir.matches.normal_form() == matches.normal_form());
        let is_taken = |new: &&Match| new.overlaps(&matches) && new.wins_over(&matches);
        if has_all && !new.iter().any(is_taken) {
            continue;
        }
        let scopes = [ReplacedScope { scope, at: now }].into_iter().chain(was.earlier.iter().cloned());
        let text = matches.to_string();
        was.moved.extend(scopes.map(|ReplacedScope { scope, at }| ReplacedMatch { matches: text.clone(), scope, at }));
        if was.moved.len() > MOVED_REQUESTS_MAX {
            tracing::warn!(
                route = %id, kept = MOVED_REQUESTS_MAX,
                "its `match` or what scopes its retry keys changed too often: retries of the oldest requests that went to \
                 another route are new requests"
            );
        }
        tracing::info!(route = %id, %matches, "its requests may go elsewhere now: their retries are looked up there");
    }
    known
}

/// Sorts them newest first, and removes duplicates, expired ones, and those beyond the bound.
pub(super) fn settle(moved: &mut Vec<ReplacedMatch>, may_come: impl Fn(Timestamp) -> bool) {
    moved.sort_by_key(|replaced| Reverse(replaced.at));
    let mut kept: Vec<ReplacedMatch> = Vec::new();
    for replaced in moved.drain(..) {
        let is_known = kept.iter().any(|kept| kept.matches == replaced.matches && kept.scope == replaced.scope);
        if !is_known && may_come(replaced.at) {
            kept.push(replaced);
        }
    }
    kept.truncate(MOVED_REQUESTS_MAX);
    *moved = kept;
}

/// In the form in which requests are looked up.
///
/// # Errors
/// Another version stored it, and this one cannot read it.
pub(super) fn compiled(route: &RouteId, moved: &ReplacedMatch, until_s: i64) -> Result<MovedRequests, String> {
    Ok(MovedRequests::new(route.clone(), moved.matches.parse()?, moved.scope.parse_earlier(until_s)?))
}

fn matches(was: &RetryScopes) -> Option<Match> {
    was.matches.as_ref()?.parse().ok()
}

//! Taken ids: a route (the *earlier owner*) had the id before, and new files give it to another route, without listing
//! it in the earlier owner's `was`. What is stored under such an id, except flips, counts for the other route from then
//! on.
//!
//! Always true:
//!
//! - The earlier owner keeps its last flip, which is recorded once more under its present id. The other route has not
//!   passed the gates of that flip: it counts as new.
//! - Files are refused at a reload, and an error is logged at a start, if the earlier owner would lose the latch of its
//!   guard, its hold, or what is known of legacy's instances; or if the other route would find the retry keys of the
//!   earlier owner's requests.
//! - If both had been one route by earlier files (`separated`), legacy's instances and retry keys are no reason to
//!   refuse files.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::family::creator;
use super::gate::Gate;
use super::guard_latches::GuardLatches;
use super::positions::{Positions, RoutePosition};
use super::separated;
use super::types::FilesError;
use super::unlisted_ids::UnlistedIds;
use crate::flag::{Family, Route};
use crate::names::RouteId;
use crate::store::FlipRecord;

/// The ids of new files' routes that were earlier ids of other routes of these files. `unlisted_ids` are among the ids
/// of the routes.
///
/// The earlier ids of a route that is in the files no more, such as a joined route that is separated again, are not
/// taken: they belong to its successors.
pub(super) fn find(before: &Positions, routes: &[Arc<Route>], unlisted_ids: &UnlistedIds) -> BTreeSet<RouteId> {
    let of_route = |route: &Arc<Route>| -> Vec<RouteId> {
        let listed = route.ids().filter(|id| !unlisted_ids.contains_key(*id));
        let had = listed.filter_map(|id| before.earlier_ids.get(id)).flatten();
        had.filter(|id| !route.ids().any(|own| own == *id)).cloned().collect()
    };
    routes.iter().flat_map(of_route).collect()
}

/// The ids that a route had by the files before and that another route has in new files.
fn taken<'a>(before: &'a Positions, route: &'a Route) -> impl Iterator<Item = &'a RouteId> {
    let had = before.earlier_ids.get(&route.id).into_iter().flatten();
    had.filter(|id| !route.ids().any(|own| own == *id))
}

impl Positions {
    /// As [`Positions::last_flip`] of a route of new files, also under earlier ids that another route has now.
    pub fn last_flip_also_under_taken_ids(&self, route: &Route) -> Option<&FlipRecord> {
        let of_taken = taken(self, route).filter_map(|id| self.flips.get(id));
        self.last_flip(route).into_iter().chain(of_taken).max_by_key(|flip| flip.number)
    }
}

/// Refuses files by which a route would lose what is stored under an id that another route has now.
///
/// # Errors
/// They would.
pub(super) fn check(
    before: &Positions,
    after: &Positions,
    guards: &GuardLatches,
    gate: &Gate,
) -> Result<(), FilesError> {
    let refused = sentences(before, after, guards, gate);
    if refused.is_empty() { Ok(()) } else { Err(FilesError::Refused(refused)) }
}

/// Logs what routes lose at a start, which is not refused: every other route would be without service.
pub(super) fn log(before: &Positions, after: &Positions, guards: &GuardLatches, gate: &Gate) {
    for sentence in sentences(before, after, guards, gate) {
        tracing::error!("{sentence}");
    }
}

fn sentences(before: &Positions, after: &Positions, guards: &GuardLatches, gate: &Gate) -> Vec<String> {
    let of_route = |position: &RoutePosition| {
        let route = &position.route;
        let ids: Vec<&RouteId> = taken(before, route).collect();
        if ids.is_empty() {
            return Vec::new();
        }
        let names: Vec<String> = ids.iter().map(|id| format!("`{id}`")).collect();
        let (id, names) = (&route.id, names.join(", "));
        let is_separated = ids.iter().all(|id| separated::has_joined(before, &route.id, id));
        let lost = lost(after, position, (&ids, is_separated), guards, gate);
        let lost = (!lost.is_empty()).then(|| {
            format!("`{id}` would lose {}, stored under it. Give the other route another id", lost.join(" and "))
        });
        let found_keys = (!is_separated && shares_keys(after, route, &ids)).then(|| {
            format!(
                "retry keys of the requests of `{id}` are stored under it, so that the other route would take a first \
                 request with such a key for a retry. Give the other route another id"
            )
        });
        let whys = lost.into_iter().chain(found_keys);
        whys.map(|why| format!("{names} was an earlier id of `{id}`, and another route has it now: {why}")).collect()
    };
    after.routes.values().flat_map(of_route).collect()
}

/// Whether another route derives its retry keys from an id under which keys of this one's requests are looked up.
fn shares_keys(after: &Positions, route: &Route, taken: &[&RouteId]) -> bool {
    let Some(own) = after.scopes.get(&route.id) else { return false };
    let is_own = |id: &RouteId| own.earlier.iter().any(|replaced| replaced.scope.route == *id);
    let others = after.scopes.iter().filter(|(id, _)| **id != route.id);
    let mut present = others.filter_map(|(_, scopes)| scopes.present.as_ref());
    present.any(|scope| taken.contains(&&scope.route) && is_own(&scope.route))
}

/// What a route would lose by taken ids, as parts of a sentence.
fn lost(
    after: &Positions,
    position: &RoutePosition,
    (taken, is_separated): (&[&RouteId], bool),
    guards: &GuardLatches,
    gate: &Gate,
) -> Vec<&'static str> {
    let (route, mut lost) = (&position.route, Vec::new());
    let latch = guards.newest_latch(route.ids().chain(taken.iter().copied()));
    let latched_by = latch.and_then(|action| action.guard.as_ref()).map(|guard| &guard.route);
    if latched_by.is_some_and(|id| taken.contains(&id)) {
        lost.push("what its guard did");
    }
    let whys =
        |ids: &[&RouteId]| -> BTreeSet<String> { gate.unknown_of(ids.to_vec()).map(|unknown| unknown.why).collect() };
    let own: Vec<&RouteId> = route.ids().collect();
    if !after.declared.read_only.contains(&route.id) && !whys(taken).is_subset(&whys(&own)) {
        lost.push("the hold because of requests whose retry keys are not known");
    }
    let has_instances = |id: &&RouteId| {
        let family = Family::from(RouteId::clone(id));
        let mut found = gate.conditions.iter().filter_map(|condition| condition.instances_at_legacy(&family, route));
        found.any(|found| found.alive > 0 || found.has_unknown)
    };
    // For a route that is separated, the store notes that legacy may have instances whose ids are not known.
    if !is_separated && creator(route) == Some(&route.id) && taken.iter().any(has_instances) {
        lost.push("what it knows of legacy's instances");
    }
    lost
}

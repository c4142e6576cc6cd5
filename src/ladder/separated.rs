//! Joined routes that new files separate again. Example: new files join `orders` and `drafts` to one route (`was`), and
//! a rollback deploys the earlier files once more.
//!
//! Always true:
//!
//! - A separation is no reason to refuse files, because a rollback must be possible. That has two costs, and the log
//!   names the routes: retry keys from the time when the routes were one are looked up for each of them; and it is not
//!   known to which of them legacy's instances from that time belong.
//! - Such instances are stored under the oldest id of the joined route. For each other part that creates instances, the
//!   store notes that legacy may have instances whose ids are not known, so that the gate to `only` stays shut.
//! - A route whose last flip is from before the joining returns at most to the state of the joined route, and at most
//!   to `dark`.

use std::collections::{BTreeMap, BTreeSet};

use super::family::creator;
use super::gate::Gate;
use super::holds::HELD_AT;
use super::joined::state_before;
use super::positions::{Positions, RoutePosition, state_of};
use crate::flag::State;
use crate::names::RouteId;
use crate::store::StoreError;

/// Whether this route of the files before was a joined route, and this id belonged to one of its parts.
pub(super) fn has_joined(before: &Positions, route: &RouteId, id: &RouteId) -> bool {
    before.scopes.get(route).is_some_and(|scopes| scopes.joined.contains(id))
}

/// The highest state of a route that was a part of a joined route by the files before, and why.
pub(super) struct SeparatedRoute {
    pub highest: State,
    pub why: String,
}

/// The highest state to which a route may return by its last flip, if it was a part of a joined route since that flip:
/// the joined route may have been lowered meanwhile. `None` if the route need not go down: it was not a part of a
/// joined route, its last flip is not higher, or both were in `only`, where legacy is not called.
pub(super) fn limit(before: &Positions, position: &RoutePosition) -> Option<SeparatedRoute> {
    let route = &position.route;
    let last = position.last.as_ref().map(state_of)?;
    let is_own = |id: &RouteId| route.ids().any(|own| own == id);
    let mut joined = before.scopes.iter().filter(|(id, scopes)| !is_own(id) && scopes.joined.iter().any(is_own));
    let (joined, _) = joined.next()?;
    let (joined_state, _) = state_before(before, joined);
    let highest = joined_state.min(HELD_AT);
    let stays_in_only = (last, joined_state) == (State::Only, State::Only);
    let why = || {
        format!(
            "since its last flip (to `{last}`) it was a part of `{joined}`, which was in `{joined_state}` when the \
             files separated them: it returns to `{highest}` at most"
        )
    };
    (last > highest && !stays_in_only).then(|| SeparatedRoute { highest, why: why() })
}

/// Logs which routes of new files were one route before.
pub(super) fn log(before: &Positions, after: &Positions) {
    for (joined, names) in find(before, after) {
        let names: Vec<String> = names.iter().map(|id| format!("`{id}`")).collect();
        let were = if names.len() > 1 { "were one route before" } else { "was a part of another route before" };
        let are = if names.len() > 1 { "are" } else { "is" };
        tracing::warn!(
            route = %joined,
            "{} {were} (`{joined}`) and {are} separate again: retry keys from that time are looked up for \
             each part, so that a first request of one with a key that a caller used for another one then is taken \
             for a retry: it goes to the same arm, and gets 422 if that is the engine (`pointsman help ladder`)",
            names.join(" and ")
        );
    }
}

/// Notes, for each separated route that creates instances, that legacy may have instances of it whose ids are not
/// known. Skips the route with the oldest id, because the instances are stored under that id.
///
/// # Errors
/// The store does not take it: the files must not come into force.
pub(super) async fn note_unknown_instances(
    before: &Positions,
    after: &Positions,
    gate: &Gate,
) -> Result<(), StoreError> {
    for (joined, names) in find(before, after) {
        let oldest = oldest_id(before, joined);
        let creates = |position: &&RoutePosition| creator(&position.route) == Some(&position.route.id);
        let parts = names.into_iter().filter_map(|id| after.routes.get(id)).filter(creates);
        for position in parts.filter(|position| !position.route.ids().any(|own| own == oldest)) {
            let id = &position.route.id;
            for condition in &gate.conditions {
                condition.note_unknown_instances(position.route.first_id()).await?;
            }
            tracing::warn!(
                route = %id,
                "`{id}` was a part of `{joined}`: which instances legacy has created meanwhile for `{id}` is not known, so \
                 that the gate to `only` stays shut until `alive:` has listed them, or force overrides it"
            );
        }
    }
    Ok(())
}

/// The joined routes of the files before, or of earlier ones, that are separated now, each with the ids of its parts:
/// also if only one part is in the files again.
fn find<'a>(before: &'a Positions, after: &'a Positions) -> Vec<(&'a RouteId, BTreeSet<&'a RouteId>)> {
    let owners: BTreeMap<&RouteId, &RouteId> =
        after.routes.values().flat_map(|at| at.route.ids().map(|id| (id, &at.route.id))).collect();
    let joined = before.scopes.iter().filter(|(_, scopes)| !scopes.joined.is_empty());
    let with_owners = joined.map(|(id, scopes)| {
        let ids = || std::iter::once(id).chain(&scopes.joined);
        let has_all = |owner: &&RouteId| ids().all(|id| owners.get(id) == Some(owner));
        let parts = ids().filter_map(|id| owners.get(id).copied()).filter(|owner| !has_all(owner));
        (id, parts.collect::<BTreeSet<_>>())
    });
    with_owners.filter(|(_, parts)| !parts.is_empty()).collect()
}

/// The oldest id of a route of the files before: new instances are stored under it.
fn oldest_id<'a>(before: &'a Positions, route: &'a RouteId) -> &'a RouteId {
    before.earlier_ids.get(route).and_then(|earlier| earlier.last()).unwrap_or(route)
}

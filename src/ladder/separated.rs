//! Routes that several routes had become (`was`) and that new files separate again, such as by deploying the earlier
//! files once more.
//!
//! Always true: whichever id the joined route had, the files are not refused because retry keys from the time of the
//! joining are looked up for the separate routes too: a rollback must be possible. The log names the routes.

use std::collections::{BTreeMap, BTreeSet};

use super::positions::Positions;
use crate::names::RouteId;

/// Whether this route of the files before had become from several, of which one had this id.
pub(super) fn has_joined(before: &Positions, route: &RouteId, id: &RouteId) -> bool {
    before.scopes.get(route).is_some_and(|scopes| scopes.joined.contains(id))
}

/// Logs which routes of new files were one before.
pub(super) fn log(before: &Positions, after: &Positions) {
    for (joined, names) in find(before, after) {
        let names: Vec<String> = names.iter().map(|id| format!("`{id}`")).collect();
        tracing::warn!(
            route = %joined,
            "{} were one route before (`{joined}`) and are separate again: retry keys from that time are looked up for \
             each of them, so that a first request of one with a key that a caller used for another one then is taken \
             for a retry: it goes to the same arm, and gets 422 if that is the engine (`pointsman help ladder`)",
            names.join(" and ")
        );
    }
}

/// The joined routes of the files before that are several now, with the ids of these.
fn find<'a>(before: &'a Positions, after: &'a Positions) -> Vec<(&'a RouteId, BTreeSet<&'a RouteId>)> {
    let owners: BTreeMap<&RouteId, &RouteId> =
        after.routes.values().flat_map(|at| at.route.ids().map(|id| (id, &at.route.id))).collect();
    let joined = before.scopes.iter().filter(|(_, scopes)| !scopes.joined.is_empty());
    let with_owners = joined.map(|(id, scopes)| {
        let ids = std::iter::once(id).chain(&scopes.joined);
        (id, ids.filter_map(|id| owners.get(id).copied()).collect::<BTreeSet<_>>())
    });
    with_owners.filter(|(_, owners)| owners.len() > 1).collect()
}

//! Finds which earlier ids of a joined route belonged to the routes that became this one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::flag::Route;
use crate::names::RouteId;
use crate::store::RetryScopes;

/// Which ids of a route of new files, except its present one, belonged to routes that were separate before. They became
/// one route by these files (at least two of its ids were routes of the files before), or by earlier files (the stored
/// `joined` lists the ids). `before`: the scopes under the files before.
pub(super) fn of_route(before: &BTreeMap<RouteId, RetryScopes>, route: &Route) -> BTreeSet<RouteId> {
    let in_files = |was: &&RetryScopes| was.present.is_some() || was.matches.is_some();
    let own: Vec<(&RouteId, &RetryScopes)> = route.ids().filter_map(|id| Some((id, before.get(id)?))).collect();
    let of_files: Vec<&RouteId> = own.iter().filter(|(_, was)| in_files(was)).map(|(id, _)| *id).collect();
    let of_several = of_files.iter().copied().filter(|_| of_files.len() > 1);
    let joined_before = own.iter().flat_map(|(_, was)| &was.joined).filter(|id| route.ids().any(|own| own == *id));
    of_several.chain(joined_before).filter(|id| **id != route.id).cloned().collect()
}

/// For a joined route that is not in the files any more: the ids of its parts that no route of the new files has.
pub(super) fn of_absent(absent: &RouteId, was: &RetryScopes, routes: &[Arc<Route>]) -> BTreeSet<RouteId> {
    let is_taken = |id: &RouteId| routes.iter().any(|route| route.ids().any(|own| own == id));
    was.joined.iter().filter(|id| *id != absent && !is_taken(id)).cloned().collect()
}

//! Which earlier ids of a route were those of other routes that became this one.

use std::collections::{BTreeMap, BTreeSet};

use crate::flag::Route;
use crate::names::RouteId;
use crate::store::RetryScopes;

/// The earlier ids of a route of new files that belonged to other routes before these became this one. `before` has the
/// scopes of the files before.
pub(super) fn joined_ids(before: &BTreeMap<RouteId, RetryScopes>, route: &Route) -> BTreeSet<RouteId> {
    let in_files = |was: &&RetryScopes| was.present.is_some() || was.matches.is_some();
    let own: Vec<(&RouteId, &RetryScopes)> =
        route.ids().filter_map(|id| Some((id, before.get(id).filter(in_files)?))).collect();
    let of_several = own.iter().map(|(id, _)| *id).filter(|_| own.len() > 1);
    let joined_before = own.iter().flat_map(|(_, was)| &was.joined).filter(|id| route.ids().any(|own| own == *id));
    of_several.chain(joined_before).filter(|id| **id != route.id).cloned().collect()
}

//! Ids of routes that their files do not list (`id`, `was`), because the files renamed the routes back. What is stored
//! under them is still the route's: flips, declarations, scopes of retry keys, evidence, and what its followers follow
//! up.
//!
//! Always true: a stored row belongs to a route of the files if its own id is in no file and its oldest id is the
//! route's. The oldest id is stored with the scope of the retry keys; no rename changes it.
//!
//! The rest of `ladder` and `evidence` need not know these ids: they are added to those that the file lists (`was`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::scopes::Scopes;
use crate::flag::{RetryScope, Route};
use crate::names::RouteId;
use crate::store::DeclaredState;

/// Each unlisted id, with the id that the route has in the files.
pub(super) type UnlistedIds = BTreeMap<RouteId, RouteId>;

/// The unlisted ids of the routes in new files. `known` are those of the files before: this process may still know of
/// requests that came under them.
pub(super) fn find(scopes: &Scopes, known: &UnlistedIds, routes: &[Arc<Route>]) -> UnlistedIds {
    let listed = listed_ids(routes);
    let is_present = |id: &RouteId| routes.iter().any(|route| route.id == *id);
    let still_known = known.iter().filter(|(unlisted, id)| !listed.contains(unlisted) && is_present(id));
    let scopes = scopes.iter().filter_map(|(id, scopes)| Some((id, scopes.present.as_ref()?)));
    let mut unlisted_ids = in_scopes(scopes, routes);
    unlisted_ids.extend(still_known.map(|(unlisted, id)| (unlisted.clone(), id.clone())));
    unlisted_ids
}

/// The routes of new files, each with the ids under which these stored rows are its own.
pub fn with_unlisted_ids(rows: &[DeclaredState], routes: &[Arc<Route>]) -> Vec<Arc<Route>> {
    let scopes = rows.iter().filter_map(|row| Some((&row.route, row.retry.as_ref()?.present.as_ref()?)));
    add(&in_scopes(scopes, routes), routes)
}

/// The unlisted ids under which these retry scopes are stored.
fn in_scopes<'a>(scopes: impl Iterator<Item = (&'a RouteId, &'a RetryScope)>, routes: &[Arc<Route>]) -> UnlistedIds {
    let listed = listed_ids(routes);
    let by_oldest: BTreeMap<&RouteId, &RouteId> = routes.iter().map(|route| (route.first_id(), &route.id)).collect();
    let unlisted = scopes.filter(|(id, _)| !listed.contains(id));
    unlisted.filter_map(|(id, scope)| Some((id.clone(), (*by_oldest.get(&scope.route)?).clone()))).collect()
}

fn listed_ids(routes: &[Arc<Route>]) -> BTreeSet<&RouteId> {
    routes.iter().flat_map(|route| route.ids()).collect()
}

/// The same routes, with their unlisted ids among the earlier ones (`was`).
pub(super) fn add(unlisted_ids: &UnlistedIds, routes: &[Arc<Route>]) -> Vec<Arc<Route>> {
    let with_its_own = |route: &Arc<Route>| {
        let its_own = unlisted_ids.iter().filter(|(_, id)| **id == route.id).map(|(unlisted, _)| unlisted.clone());
        let mut was: Vec<RouteId> = its_own.collect();
        if was.is_empty() {
            return Arc::clone(route);
        }
        // The oldest id stays the last.
        was.extend(if route.was.is_empty() { vec![route.id.clone()] } else { route.was.clone() });
        Arc::new(Route { was, ..Route::clone(route) })
    };
    routes.iter().map(with_its_own).collect()
}

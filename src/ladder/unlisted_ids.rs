//! Ids of routes that their files do not list (`id`, `was`): the files renamed a route back, or no longer list an id
//! that it had earlier. What is stored under them is still the route's: flips, what its guard did, declarations, scopes
//! of retry keys, requests whose keys are not known, instances, evidence, and what its followers follow up.
//!
//! Always true: the store has the earlier ids of each route that was in the files ([`EarlierIds`]). An id that no route
//! of new files lists belongs to the same route as the stored row that has it: to the route that lists the row's own id
//! or, if none does, to the one that lists the oldest of the row's other ids. No such id changes which id of a route is
//! its oldest one, so that the callers in its shares and its retry keys stay the same. Of more than
//! [`EARLIER_IDS_KEPT_MAX`] ids the oldest is kept with the newest, and the log names the others.
//!
//! The rest of `ladder` and `evidence` need not know these ids: they are added to those that the file lists (`was`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::scopes::Scopes;
use crate::flag::{RetryScope, Route};
use crate::limits::EARLIER_IDS_KEPT_MAX;
use crate::names::RouteId;
use crate::store::DeclaredState;

/// The earlier ids of each route, the newest first, by the id that it had when the files were put in force last.
pub(super) type EarlierIds = BTreeMap<RouteId, Vec<RouteId>>;

/// Each unlisted id, with its route.
pub(super) type UnlistedIds = BTreeMap<RouteId, UnlistedId>;

/// The route to which an unlisted id belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UnlistedId {
    /// The id that the route has in the files.
    pub route: RouteId,
    /// Whether it is the route's oldest id.
    is_oldest: bool,
    /// How many ids that are stored with it are newer.
    newer: usize,
}

/// A stored row with the ids that its route had before.
struct StoredIds<'a> {
    row: &'a RouteId,
    /// The newest first.
    earlier: Vec<&'a RouteId>,
    /// An older binary wrote the row: it has only the oldest id.
    has_only_oldest: bool,
}

/// The unlisted ids of the routes in new files. `known` are those of the files before: this process may still know of
/// requests that came under them.
pub(super) fn find(
    scopes: &Scopes,
    earlier_ids: &EarlierIds,
    known: &UnlistedIds,
    routes: &[Arc<Route>],
) -> UnlistedIds {
    let present = |id: &RouteId| scopes.get(id).and_then(|scopes| scopes.present.clone());
    let rows: BTreeSet<&RouteId> = scopes.keys().chain(earlier_ids.keys()).collect();
    let scopes: Vec<(&RouteId, Option<RetryScope>)> = rows.into_iter().map(|id| (id, present(id))).collect();
    let stored = scopes.iter().map(|(id, scope)| StoredIds::new(id, earlier_ids.get(*id), scope.as_ref()));
    let mut unlisted_ids = unlisted_in_rows(&stored.collect::<Vec<_>>(), routes);
    let listed = listed_ids(routes);
    let is_present = |id: &RouteId| routes.iter().any(|route| route.id == *id);
    let still_known = known.iter().filter(|(id, of)| !listed.contains_key(id) && is_present(&of.route));
    for (id, UnlistedId { route, .. }) in still_known {
        let known = || UnlistedId { route: route.clone(), is_oldest: false, newer: usize::MAX };
        unlisted_ids.entry(id.clone()).or_insert_with(known);
    }
    unlisted_ids
}

/// The routes of new files, each with the ids under which these stored rows are its own.
pub fn with_unlisted_ids(rows: &[DeclaredState], routes: &[Arc<Route>]) -> Vec<Arc<Route>> {
    let stored = rows.iter().map(|row| {
        let scope = row.retry.as_ref().and_then(|scopes| scopes.present.as_ref());
        StoredIds::new(&row.route, Some(&row.earlier_ids), scope)
    });
    add(&unlisted_in_rows(&stored.collect::<Vec<_>>(), routes), routes)
}

impl<'a> StoredIds<'a> {
    fn new(row: &'a RouteId, earlier: Option<&'a Vec<RouteId>>, scope: Option<&'a RetryScope>) -> Self {
        if let Some(earlier) = earlier.filter(|earlier| !earlier.is_empty()) {
            return Self { row, earlier: earlier.iter().collect(), has_only_oldest: false };
        }
        let oldest = scope.map(|scope| &scope.route).filter(|oldest| *oldest != row);
        Self { row, earlier: oldest.into_iter().collect(), has_only_oldest: true }
    }

    /// The route whose row this is, by its present id.
    fn route<'r>(&self, listed: &BTreeMap<&'r RouteId, &'r RouteId>) -> Option<&'r RouteId> {
        let oldest_first = || self.earlier.iter().rev().find_map(|id| listed.get(*id));
        listed.get(self.row).or_else(oldest_first).copied()
    }

    /// Whether the oldest id of this row is older than this one, which is the oldest that the files list.
    fn is_older_than(&self, listed: &RouteId) -> bool {
        self.row == listed || self.has_only_oldest || self.earlier.contains(&listed)
    }
}

/// The ids of these rows, present or earlier, that the files do not list.
fn unlisted_in_rows(rows: &[StoredIds<'_>], routes: &[Arc<Route>]) -> UnlistedIds {
    let listed = listed_ids(routes);
    let mut unlisted = UnlistedIds::new();
    for row in rows {
        let Some(route) = row.route(&listed) else { continue };
        let ids = std::iter::once(row.row).chain(row.earlier.iter().copied()).enumerate();
        for (newer, id) in ids.filter(|(_, id)| !listed.contains_key(id)) {
            let of_route = || UnlistedId { route: route.clone(), is_oldest: false, newer };
            unlisted.entry(id.clone()).or_insert_with(of_route);
        }
    }
    for route in routes {
        let listed_as_oldest = route.first_id();
        let own = rows.iter().filter(|row| row.route(&listed) == Some(&route.id));
        let mut older: Vec<&StoredIds<'_>> = own.filter(|row| row.is_older_than(listed_as_oldest)).collect();
        // Of several routes that became this one, the files name the oldest.
        older.sort_by_key(|row| row.row != listed_as_oldest);
        let oldest = older.iter().find_map(|row| row.earlier.last());
        if let Some(found) = oldest.and_then(|id| unlisted.get_mut(*id)).filter(|found| found.route == route.id) {
            found.is_oldest = true;
        }
    }
    unlisted
}

/// The ids that the files list, each with the present id of its route.
fn listed_ids(routes: &[Arc<Route>]) -> BTreeMap<&RouteId, &RouteId> {
    routes.iter().flat_map(|route| route.ids().map(|id| (id, &route.id))).collect()
}

/// The same routes, with their unlisted ids among the earlier ones (`was`).
pub(super) fn add(unlisted_ids: &UnlistedIds, routes: &[Arc<Route>]) -> Vec<Arc<Route>> {
    let with_its_own = |route: &Arc<Route>| {
        let its_own = unlisted_ids.iter().filter(|(_, unlisted)| unlisted.route == route.id);
        let mut its_own: Vec<(&RouteId, &UnlistedId)> = its_own.collect();
        if its_own.is_empty() {
            return Arc::clone(route);
        }
        // The oldest id stays the last: the one that the file lists last, the present one if it lists none, or an
        // unlisted one.
        its_own.sort_by_key(|(_, unlisted)| (unlisted.is_oldest, unlisted.newer));
        let mut was = route.was.clone();
        let oldest = match its_own.iter().any(|(_, unlisted)| unlisted.is_oldest) {
            true => None,
            false => Some(was.pop().unwrap_or_else(|| route.id.clone())),
        };
        was.extend(its_own.into_iter().map(|(id, _)| id.clone()).chain(oldest));
        Arc::new(Route { was, ..Route::clone(route) })
    };
    routes.iter().map(with_its_own).collect()
}

/// The earlier ids of each route, to be stored with new files that have these routes. Those of a route that is in no
/// file now stay as they are, without the ids that another route has.
pub(super) fn after_files(before: &EarlierIds, routes: &[Arc<Route>]) -> EarlierIds {
    let listed = listed_ids(routes);
    let absent = before.iter().filter(|(id, _)| !listed.contains_key(id)).map(|(id, earlier)| {
        let earlier: Vec<RouteId> = earlier.iter().filter(|id| !listed.contains_key(id)).cloned().collect();
        (id.clone(), earlier)
    });
    let present = routes.iter().map(|route| (route.id.clone(), earlier_ids_to_keep(route)));
    absent.chain(present).filter(|(_, earlier)| !earlier.is_empty()).collect()
}

/// The earlier ids of a route, without those beyond the bound.
fn earlier_ids_to_keep(route: &Route) -> Vec<RouteId> {
    let mut kept = route.was.clone();
    if kept.len() > EARLIER_IDS_KEPT_MAX {
        let dropped: Vec<RouteId> = kept.drain(EARLIER_IDS_KEPT_MAX - 1..kept.len() - 1).collect();
        tracing::error!(
            route = %route.id, ?dropped,
            "the route was renamed too often: what is stored under these of its ids is not looked up any more"
        );
    }
    kept
}

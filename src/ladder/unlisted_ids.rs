//! Adds to routes the ids that they had earlier and that their files do not list (`id`, `was`).
//!
//! Example: the route `orders` was renamed to `orders.create` (`was: [orders]`). Then the `was:` is removed again. What
//! the store has under `orders` is still this route's: flips, what its guard did, declarations, scopes of retry keys,
//! requests whose keys are not known, pins of instances, evidence, and what its followers follow up. `orders` is now an
//! *unlisted* id of `orders.create`. The same happens when files rename a route back: the id in between is unlisted.
//!
//! The unlisted ids are added to `was` of the route, so that the rest of `ladder` and `evidence` need not tell them
//! from those that the files list.
//!
//! Always true:
//!
//! - The store has a row for each route that was in the files, with the route's earlier ids ([`EarlierIds`]). An id of
//!   the row that new files do not list belongs to the route that lists the row's present id; if there is none, to the
//!   route that lists one of the row's earlier ids, the oldest of them first.
//! - A route's oldest id does not change because ids become unlisted, or because they are added here. A hash of the
//!   oldest id selects the callers in a share, and retry keys are derived from it: both stay the same.
//! - Of more than [`EARLIER_IDS_KEPT_MAX`] ids, the oldest and the newest ones are kept, and the log names the others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::scopes::Scopes;
use crate::flag::{RetryScope, Route};
use crate::limits::EARLIER_IDS_KEPT_MAX;
use crate::names::RouteId;
use crate::store::DeclaredState;

/// The earlier ids of each route, the newest first, by the id that the route had when files were last put in force.
pub(super) type EarlierIds = BTreeMap<RouteId, Vec<RouteId>>;

/// Each unlisted id, with the route to which it belongs.
pub(super) type UnlistedIds = BTreeMap<RouteId, UnlistedId>;

/// The route to which an unlisted id belongs, and the rank of the id among the route's ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UnlistedId {
    /// The id that the route has in the files.
    pub route: RouteId,
    /// Whether it is the route's oldest id.
    is_oldest: bool,
    /// How many newer ids its row has.
    newer_ids: usize,
}

/// The ids in a stored row.
struct RowIds<'a> {
    /// The id that the route had when the row was written.
    present: &'a RouteId,
    /// The newest first.
    earlier: Vec<&'a RouteId>,
    /// An older binary wrote the row: of the earlier ids it has only the oldest.
    has_only_oldest: bool,
}

/// Finds the unlisted ids of the routes in new files. `known`: the unlisted ids under the files before. These are kept
/// even if the store has them no more, because this process may still have requests that came under them.
pub(super) fn find(
    scopes: &Scopes,
    earlier_ids: &EarlierIds,
    known: &UnlistedIds,
    routes: &[Arc<Route>],
) -> UnlistedIds {
    let present_scope = |id: &RouteId| scopes.get(id).and_then(|scopes| scopes.present.clone());
    let row_ids: BTreeSet<&RouteId> = scopes.keys().chain(earlier_ids.keys()).collect();
    let rows: Vec<(&RouteId, Option<RetryScope>)> = row_ids.into_iter().map(|id| (id, present_scope(id))).collect();
    let rows = rows.iter().map(|(id, scope)| RowIds::new(id, earlier_ids.get(*id), scope.as_ref()));
    let mut unlisted_ids = unlisted_in_rows(&rows.collect::<Vec<_>>(), routes);
    let listed = listed_ids(routes);
    let is_present = |id: &RouteId| routes.iter().any(|route| route.id == *id);
    let still_known = known.iter().filter(|(id, of)| !listed.contains_key(id) && is_present(&of.route));
    for (id, UnlistedId { route, .. }) in still_known {
        let known = || UnlistedId { route: route.clone(), is_oldest: false, newer_ids: usize::MAX };
        unlisted_ids.entry(id.clone()).or_insert_with(known);
    }
    unlisted_ids
}

/// The routes of new files, each with its unlisted ids according to these stored rows.
pub fn with_unlisted_ids(rows: &[DeclaredState], routes: &[Arc<Route>]) -> Vec<Arc<Route>> {
    let stored = rows.iter().map(|row| {
        let scope = row.retry.as_ref().and_then(|scopes| scopes.present.as_ref());
        RowIds::new(&row.route, Some(&row.earlier_ids), scope)
    });
    add(&unlisted_in_rows(&stored.collect::<Vec<_>>(), routes), routes)
}

impl<'a> RowIds<'a> {
    fn new(present: &'a RouteId, earlier: Option<&'a Vec<RouteId>>, scope: Option<&'a RetryScope>) -> Self {
        if let Some(earlier) = earlier.filter(|earlier| !earlier.is_empty()) {
            return Self { present, earlier: earlier.iter().collect(), has_only_oldest: false };
        }
        // Retry keys are derived from the oldest id.
        let oldest = scope.map(|scope| &scope.route).filter(|oldest| *oldest != present);
        Self { present, earlier: oldest.into_iter().collect(), has_only_oldest: true }
    }

    /// The route of the new files to which this row belongs; its present id.
    fn owner<'r>(&self, listed: &BTreeMap<&'r RouteId, &'r RouteId>) -> Option<&'r RouteId> {
        let oldest_first = || self.earlier.iter().rev().find_map(|id| listed.get(*id));
        listed.get(self.present).or_else(oldest_first).copied()
    }

    /// Whether this row's oldest id is at least as old as `listed`, the oldest id that the files list for the row's
    /// route.
    fn goes_back_beyond(&self, listed: &RouteId) -> bool {
        self.present == listed || self.has_only_oldest || self.earlier.contains(&listed)
    }
}

/// The ids in these rows that the files do not list.
fn unlisted_in_rows(rows: &[RowIds<'_>], routes: &[Arc<Route>]) -> UnlistedIds {
    let listed = listed_ids(routes);
    let mut unlisted = UnlistedIds::new();
    for row in rows {
        let Some(route) = row.owner(&listed) else { continue };
        let ids = std::iter::once(row.present).chain(row.earlier.iter().copied()).enumerate();
        for (newer_ids, id) in ids.filter(|(_, id)| !listed.contains_key(id)) {
            let of_route = || UnlistedId { route: route.clone(), is_oldest: false, newer_ids };
            unlisted.entry(id.clone()).or_insert_with(of_route);
        }
    }
    for route in routes {
        let oldest_listed = route.first_id();
        let own = rows.iter().filter(|row| row.owner(&listed) == Some(&route.id));
        let mut older: Vec<&RowIds<'_>> = own.filter(|row| row.goes_back_beyond(oldest_listed)).collect();
        // If several routes became this one, the row of the id that the files list last decides.
        older.sort_by_key(|row| row.present != oldest_listed);
        let oldest = older.iter().find_map(|row| row.earlier.last());
        if let Some(found) = oldest.and_then(|id| unlisted.get_mut(*id)).filter(|found| found.route == route.id) {
            found.is_oldest = true;
        }
    }
    unlisted
}

/// Each id that the files list, with the present id of its route.
fn listed_ids(routes: &[Arc<Route>]) -> BTreeMap<&RouteId, &RouteId> {
    routes.iter().flat_map(|route| route.ids().map(|id| (id, &route.id))).collect()
}

/// The same routes, with their unlisted ids added to `was`.
pub(super) fn add(unlisted_ids: &UnlistedIds, routes: &[Arc<Route>]) -> Vec<Arc<Route>> {
    let with_its_own = |route: &Arc<Route>| {
        let its_own = unlisted_ids.iter().filter(|(_, unlisted)| unlisted.route == route.id);
        let mut its_own: Vec<(&RouteId, &UnlistedId)> = its_own.collect();
        if its_own.is_empty() {
            return Arc::clone(route);
        }
        // `was` ends with the oldest id. Which one that is does not change: an unlisted id if `is_oldest` says so, else
        // the last one that the file lists in `was`, else the present id.
        its_own.sort_by_key(|(_, unlisted)| (unlisted.is_oldest, unlisted.newer_ids));
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

/// The earlier ids of each route, to be stored when new files with these routes are put in force. A route that is in no
/// file now keeps its earlier ids, except those that another route has now.
pub(super) fn after_files(before: &EarlierIds, routes: &[Arc<Route>]) -> EarlierIds {
    let listed = listed_ids(routes);
    let absent = before.iter().filter(|(id, _)| !listed.contains_key(id)).map(|(id, earlier)| {
        let earlier: Vec<RouteId> = earlier.iter().filter(|id| !listed.contains_key(id)).cloned().collect();
        (id.clone(), earlier)
    });
    let present = routes.iter().map(|route| (route.id.clone(), earlier_ids_to_keep(route)));
    absent.chain(present).filter(|(_, earlier)| !earlier.is_empty()).collect()
}

/// The earlier ids of a route. Of too many, those before the oldest are dropped.
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

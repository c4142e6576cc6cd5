//! Routes that get another id.
//!
//! Where several processes share the store, their files may say so at different times. So the row of a renamed route
//! stays where it is, whichever id a process has for the route: the counters know the id of their row. The row says
//! under which id it was written last.
//!
//! Always true: a row belongs to at most one route of a process. A row leaves its id only if the files give that id to
//! another route while they still have the first one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, MutexGuard, PoisonError};

use super::route_counters::RouteCounters;
use super::{Evidence, in_flight};
use crate::names::RouteId;

impl Evidence {
    /// Sets the earlier ids of routes. Evidence under an earlier id becomes evidence of the route, and so do the
    /// results of comparisons that still run under that id; a route that already has evidence keeps its own. Call it
    /// before [`Evidence::set_basis`].
    pub fn set_renames<'a>(&self, ids: impl Iterator<Item = (&'a RouteId, &'a [RouteId])>) {
        let ids: Vec<(&RouteId, &[RouteId])> = ids.collect();
        let _no_row_is_read = self.renaming();
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        let mut renames = self.renames.write().unwrap_or_else(PoisonError::into_inner);
        renames.clear();
        let is_shared = self.store.shared_evidence().is_some();
        if is_shared {
            self.set_owners(&mut routes, &ids.iter().map(|(route, _)| *route).collect());
        }
        for (route, was) in ids {
            renames.extend(was.iter().map(|old| (old.clone(), route.clone())));
            in_flight::move_to(&mut routes, route, was);
            let has_any = |id: &&RouteId| routes.get(*id).is_some_and(|shared| shared.lock().basis.is_some());
            if has_any(&route) {
                // A process of an earlier version has moved the evidence before.
                for from in was.iter().filter(|old| *old != route).filter_map(|old| routes.get(old)) {
                    if let Some(own) = routes.get(route) {
                        from.lock().move_unwritten_to(&mut own.lock());
                    }
                }
                continue;
            }
            let weight = |id: &&RouteId| routes.get(*id).map_or(0, |shared| shared.lock().evidence.rank());
            let Some(old) = was.iter().rev().filter(has_any).max_by_key(weight) else { continue };
            self.move_evidence(&mut routes, old, route, is_shared);
        }
    }

    fn move_evidence(
        &self,
        routes: &mut BTreeMap<RouteId, Arc<RouteCounters>>,
        old: &RouteId,
        route: &RouteId,
        is_shared: bool,
    ) {
        let Some(from) = routes.get(old).cloned() else { return };
        let to = routes.entry(route.clone()).or_default();
        to.lock().take_evidence((old, route), &mut from.lock(), is_shared);
        self.pending().rename(old, route);
        tracing::info!(%route, was = %old, "a renamed route keeps its evidence");
    }

    /// Gives the row of each id in the files to the route that has it, if another one has it here.
    fn set_owners(&self, routes: &mut BTreeMap<RouteId, Arc<RouteCounters>>, listed: &BTreeSet<&RouteId>) {
        let of_other_ids: Vec<(RouteId, RouteId)> =
            routes.iter().filter_map(|(id, shared)| Some((shared.lock().row_id()?.clone(), id.clone()))).collect();
        for (row, id) in of_other_ids.into_iter().filter(|(row, _)| listed.contains(row)) {
            if !listed.contains(&id) {
                self.move_evidence(routes, &id, &row, true);
                continue;
            }
            // Another route has that id now.
            let Some(from) = routes.get(&id).cloned() else { continue };
            let version = from.lock().leave_row();
            routes.entry(row).or_default().lock().replace_left_row(version);
        }
    }

    /// While this is held, no row gets another owner.
    pub(super) fn renaming(&self) -> MutexGuard<'_, ()> {
        // A poisoned lock is safe to use: it protects nothing by itself.
        self.renaming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose row each id is, where it is not that of the route with this id. An id without a route is that of a row
    /// that nobody has here.
    pub(super) fn owners(&self) -> BTreeMap<RouteId, Option<RouteId>> {
        let mut owners = BTreeMap::new();
        for (id, shared) in self.all() {
            if let Some(row) = shared.lock().row_id() {
                owners.entry(id.clone()).or_insert(None);
                owners.insert(row.clone(), Some(id));
            }
        }
        owners
    }
}

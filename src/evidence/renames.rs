//! Routes that get another id.
//!
//! If several processes share the store, their files may rename a route at different times. So the evidence of a
//! renamed route stays in its row, whichever id a process has for the route. The counters know the id of their row, and
//! the row says under which id of the route it was written last.
//!
//! Always true: a row belongs to at most one route of a process. A renamed route leaves its row only if the files give
//! the row's id to another route, and still have the renamed route.

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

    /// Each row whose id is that of a route in the files (`listed`) becomes the row of this route, if another route
    /// owns it here.
    fn set_owners(&self, routes: &mut BTreeMap<RouteId, Arc<RouteCounters>>, listed: &BTreeSet<&RouteId>) {
        let of_other_ids: Vec<(RouteId, RouteId)> =
            routes.iter().filter_map(|(id, shared)| Some((shared.lock().row_id()?.clone(), id.clone()))).collect();
        for (row, id) in of_other_ids.into_iter().filter(|(row, _)| listed.contains(row)) {
            if !listed.contains(&id) {
                self.move_evidence(routes, &id, &row, true);
                continue;
            }
            // Both ids are in the files: the row now belongs to the route with its id.
            let Some(from) = routes.get(&id).cloned() else { continue };
            let version = from.lock().leave_row();
            routes.entry(row).or_default().lock().replace_left_row(version);
        }
    }

    /// While the returned guard is held, no row is assigned to another route.
    pub(super) fn renaming(&self) -> MutexGuard<'_, ()> {
        // A poisoned lock is safe to use: it protects nothing by itself.
        self.renaming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The owners of rows, by the id of the row, as far as the owner is not the route with the same id. `None`: no
    /// route owns the row here.
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

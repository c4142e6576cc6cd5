//! Finds the counters of a route by its present id or an earlier one.

use std::sync::{Arc, MutexGuard, PoisonError};

use super::Evidence;
use super::route_counters::RouteCounters;
use super::samples::PendingSamples;
use crate::names::RouteId;

impl Evidence {
    /// The current id of the route that has or had this id.
    pub(super) fn current_id(&self, route: &RouteId) -> RouteId {
        let renames = self.renames.read().unwrap_or_else(PoisonError::into_inner);
        renames.get(route).unwrap_or(route).clone()
    }

    /// The counters of a route; creates them if there are none. Ids come from files, so there are few.
    pub(super) fn counters(&self, route: &RouteId) -> Arc<RouteCounters> {
        let route = &self.current_id(route);
        if let Some(counters) = self.known_counters(route) {
            return counters;
        }
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(routes.entry(route.clone()).or_default())
    }

    /// The counters of a route; `None` if it has none yet.
    pub(super) fn known_counters(&self, route: &RouteId) -> Option<Arc<RouteCounters>> {
        let route = &self.current_id(route);
        self.routes.read().unwrap_or_else(PoisonError::into_inner).get(route).cloned()
    }

    pub(super) fn all(&self) -> Vec<(RouteId, Arc<RouteCounters>)> {
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        routes.iter().map(|(route, counters)| (route.clone(), Arc::clone(counters))).collect()
    }

    pub(super) fn pending(&self) -> MutexGuard<'_, PendingSamples> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

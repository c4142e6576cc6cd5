//! What is under way when a route is renamed: requests that the shadow executor works on, and answers of the engine
//! that still have to be judged.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::route_counters::RouteCounters;
use crate::names::RouteId;

/// Moves the counts of what is under way from the earlier ids of a route (`was`) to the route, because it will end
/// under the present id. These counts move even if the route does not take over the evidence of its earlier ids.
pub(super) fn move_to(routes: &mut BTreeMap<RouteId, Arc<RouteCounters>>, route: &RouteId, was: &[RouteId]) {
    for from in was.iter().filter(|old| *old != route).filter_map(|old| routes.get(old).cloned()).collect::<Vec<_>>() {
        let (pairs, checks) = {
            let mut counters = from.lock();
            counters.dirty |= !counters.in_flight.is_empty() || counters.checks_in_flight > 0;
            (std::mem::take(&mut counters.in_flight), std::mem::take(&mut counters.checks_in_flight))
        };
        if pairs.is_empty() && checks == 0 {
            continue;
        }
        let shared = routes.entry(route.clone()).or_default();
        let mut counters = shared.lock();
        counters.in_flight.add(&pairs);
        counters.checks_in_flight += checks;
        counters.dirty = true;
    }
}

//! Calls that legacy makes for a request after its window is over: too late to be compared with what the engine would
//! send.
//!
//! A queue that is slower than `egress.window` makes such calls. No pair shows them, so that a workflow without them
//! would look right; the gate has to know that there are some.
//!
//! Always true: what is remembered of requests and of calls is bounded.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::Arc;

use jiff::Timestamp;

use super::key::Key;
use super::rule::AttributionSettings;
use super::watched::WatchedRequest;
use crate::clock;
use crate::compare::Effect;
use crate::exchange::CallTarget;
use crate::names::RouteId;
use crate::traces::TraceContext;

/// The most requests of which it is remembered, after their window, for which route they were.
pub(super) const REQUESTS_MAX: usize = 32_768;
/// The most routes of one trace.
const ROUTES_MAX: usize = 4;
/// The most targets of a route that are listed.
const TARGETS_MAX: usize = 16;

/// The requests whose window is over, the last ones.
#[derive(Default)]
pub(super) struct EarlierRequests {
    by_trace: HashMap<u128, RoutesOfKey>,
    by_key: HashMap<Key, RoutesOfKey>,
    /// The numbers of the requests, and what they are found by, the oldest first.
    order: VecDeque<(u64, Option<u128>, Option<Key>)>,
    added: u64,
}

/// The routes of the requests in one trace, or with one key.
struct RoutesOfKey {
    routes: Vec<RouteId>,
    /// The number of the newest request among them.
    last: u64,
}

fn add<K: Eq + Hash>(map: &mut HashMap<K, RoutesOfKey>, key: Option<K>, route: &RouteId, number: u64) {
    let Some(key) = key else { return };
    let found = map.entry(key).or_insert(RoutesOfKey { routes: Vec::new(), last: number });
    found.last = number;
    if !found.routes.contains(route) && found.routes.len() < ROUTES_MAX {
        found.routes.push(route.clone());
    }
}

fn forget<K: Eq + Hash>(map: &mut HashMap<K, RoutesOfKey>, key: Option<K>, number: u64) {
    if let Some(key) = key.filter(|key| map.get(key).is_some_and(|found| found.last == number)) {
        map.remove(&key);
    }
}

/// A compared request whose window is over.
pub(super) struct EarlierRequest {
    route: RouteId,
    trace: Option<u128>,
    key: Option<Key>,
    /// The rule and the window under which it was watched.
    pub(super) settings: Arc<AttributionSettings>,
}

impl EarlierRequest {
    /// `None` for a request that is not compared, or that nothing identifies but its value.
    pub(super) fn of(watched: &WatchedRequest) -> Option<Self> {
        let (trace, key) = (watched.trace.map(|trace| trace.trace_id), watched.header);
        let is_identified = trace.is_some() || key.is_some();
        let settings = watched.settings.clone();
        Some(Self { route: watched.route.clone().filter(|_| is_identified)?, trace, key, settings })
    }
}

impl EarlierRequests {
    pub(super) fn add(&mut self, EarlierRequest { route, trace, key, settings: _ }: EarlierRequest) {
        if self.order.len() >= REQUESTS_MAX
            && let Some((number, trace, key)) = self.order.pop_front()
        {
            forget(&mut self.by_trace, trace, number);
            forget(&mut self.by_key, key, number);
        }
        self.added += 1;
        add(&mut self.by_trace, trace, &route, self.added);
        add(&mut self.by_key, key, &route, self.added);
        self.order.push_back((self.added, trace, key));
    }

    /// The routes of the requests that a call may be for, by the declared header (`key`), else by its trace. In one
    /// trace there may be requests of several routes: then it is not known which of them is meant.
    pub(super) fn routes_of(&self, effect: &Effect, key: Option<Key>) -> &[RouteId] {
        let sent = effect.headers.get("traceparent").and_then(|value| TraceContext::parse(value.as_bytes()));
        let by_key = key.and_then(|key| self.by_key.get(&key));
        let found = by_key.or_else(|| self.by_trace.get(&sent?.trace_id));
        found.map_or(&[], |found| &found.routes)
    }
}

/// The late calls of one route that may have changed something, since the process started or `egress:` was changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LateCalls {
    /// Where they went, the first 16 targets.
    pub targets: Vec<LateTarget>,
    /// How many went elsewhere.
    pub others: u64,
}

/// Where late calls went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LateTarget {
    /// The service, method and path.
    pub to: Arc<CallTarget>,
    /// How many calls.
    pub calls: u64,
    /// When the first one ended.
    pub first: Timestamp,
}

impl LateCalls {
    pub(super) fn count(&mut self, to: CallTarget) {
        let has_room = self.targets.len() < TARGETS_MAX;
        // Targets that differ only in values of the path are one.
        let name = to.to_string();
        match self.targets.iter_mut().find(|target| target.to.to_string() == name) {
            Some(target) => target.calls += 1,
            None if has_room => self.targets.push(LateTarget { to: Arc::new(to), calls: 1, first: clock::now() }),
            None => self.others += 1,
        }
    }
    /// All of them.
    pub fn calls(&self) -> u64 {
        self.targets.iter().map(|target| target.calls).sum::<u64>().saturating_add(self.others)
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn target(path: &str) -> CallTarget {
        CallTarget { service: None, authority: "bank".to_owned(), method: Method::POST, path: path.to_owned() }
    }

    #[test]
    fn the_targets_of_late_calls_are_listed_up_to_a_bound_and_all_calls_are_counted() {
        let mut late = LateCalls::default();
        for name in ["a", "b", "c"] {
            (0..6).for_each(|n| late.count(target(&format!("/{name}{}", "x".repeat(n)))));
        }
        late.count(target("/a"));
        assert_eq!((late.targets.len(), late.others, late.targets[0].calls), (TARGETS_MAX, 2, 2));
        assert_eq!(late.calls(), 19);
        let mut ids = LateCalls::default();
        (0..99).for_each(|n| ids.count(target(&format!("/events/{n}"))));
        assert_eq!((ids.targets.len(), ids.others), (1, 0), "ids in paths are no other targets");
    }

    #[test]
    fn the_oldest_requests_are_forgotten() {
        let mut earlier = EarlierRequests::default();
        let settings = Arc::new(AttributionSettings::default());
        let route = RouteId::new("orders");
        for n in 0..=REQUESTS_MAX as u128 {
            earlier.add(EarlierRequest { route: route.clone(), trace: Some(n), key: None, settings: settings.clone() });
        }
        assert_eq!((earlier.order.len(), earlier.by_trace.len()), (REQUESTS_MAX, REQUESTS_MAX));
        assert!(!earlier.by_trace.contains_key(&0) && earlier.by_trace.contains_key(&1));
    }
}

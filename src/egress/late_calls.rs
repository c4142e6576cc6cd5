//! Calls that legacy makes for a request after its window is over: too late to be compared with what the engine would
//! send.
//!
//! A queue that is slower than `egress.window` makes such calls. No pair shows them, so that a workflow without them
//! would look right; the gate has to know that there are some.
//!
//! Always true: what is remembered of requests and of calls is bounded.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use jiff::Timestamp;

use super::key::Key;
use super::watched::Watched;
use crate::clock;
use crate::compare::Effect;
use crate::exchange::CallTarget;
use crate::names::RouteId;
use crate::traces::TraceContext;

/// The most requests of which it is remembered, after their window, for which route they were.
pub(super) const REQUESTS_MAX: usize = 32_768;
/// The most targets of a route that are listed.
const TARGETS_MAX: usize = 16;

/// The requests whose window is over, the last ones.
#[derive(Default)]
pub(super) struct EarlierRequests {
    by_trace: HashMap<u128, RouteId>,
    by_key: HashMap<Key, RouteId>,
    /// What the requests are found by, the oldest first.
    order: VecDeque<(Option<u128>, Option<Key>)>,
}

/// A compared request whose window is over.
pub(super) struct EarlierRequest {
    route: RouteId,
    trace: Option<u128>,
    key: Option<Key>,
}

impl EarlierRequest {
    /// `None` for a request that is not compared, or that nothing identifies but its value.
    pub(super) fn of(watched: &Watched) -> Option<Self> {
        let (trace, key) = (watched.trace.map(|trace| trace.trace_id), watched.header);
        let is_identified = trace.is_some() || key.is_some();
        Some(Self { route: watched.route.clone().filter(|_| is_identified)?, trace, key })
    }
}

impl EarlierRequests {
    pub(super) fn add(&mut self, EarlierRequest { route, trace, key }: EarlierRequest) {
        if self.order.len() >= REQUESTS_MAX
            && let Some((trace, key)) = self.order.pop_front()
        {
            trace.iter().for_each(|trace| drop(self.by_trace.remove(trace)));
            key.iter().for_each(|key| drop(self.by_key.remove(key)));
        }
        trace.into_iter().for_each(|trace| drop(self.by_trace.insert(trace, route.clone())));
        key.into_iter().for_each(|key| drop(self.by_key.insert(key, route.clone())));
        self.order.push_back((trace, key));
    }

    /// The route of the request that a call names by its trace, or by the declared header (`key`).
    pub(super) fn route_of(&self, effect: &Effect, key: Option<Key>) -> Option<&RouteId> {
        let sent = effect.headers.get("traceparent").and_then(|value| TraceContext::parse(value.as_bytes()));
        let traced = sent.and_then(|sent| self.by_trace.get(&sent.trace_id));
        traced.or_else(|| self.by_key.get(&key?))
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
    /// When the last one ended.
    pub last: Timestamp,
}

impl LateCalls {
    pub(super) fn count(&mut self, to: CallTarget) {
        let has_room = self.targets.len() < TARGETS_MAX;
        match self.targets.iter_mut().find(|target| *target.to == to) {
            Some(target) => (target.calls, target.last) = (target.calls + 1, clock::now()),
            None if has_room => self.targets.push(LateTarget { to: Arc::new(to), calls: 1, last: clock::now() }),
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
        for n in 0..TARGETS_MAX + 3 {
            late.count(target(&format!("/{n}")));
        }
        late.count(target("/0"));
        assert_eq!((late.targets.len(), late.others, late.targets[0].calls), (TARGETS_MAX, 3, 2));
        assert_eq!(late.calls(), TARGETS_MAX as u64 + 4);
    }

    #[test]
    fn the_oldest_requests_are_forgotten() {
        let mut earlier = EarlierRequests::default();
        let route = RouteId::new("orders");
        for n in 0..=REQUESTS_MAX as u128 {
            earlier.add(EarlierRequest { route: route.clone(), trace: Some(n), key: None });
        }
        assert_eq!((earlier.order.len(), earlier.by_trace.len()), (REQUESTS_MAX, REQUESTS_MAX));
        assert!(!earlier.by_trace.contains_key(&0) && earlier.by_trace.contains_key(&1));
    }
}

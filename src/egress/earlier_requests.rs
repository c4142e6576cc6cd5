//! Requests to which no call is attributed any more, because their window is over or because they are unwatched.
//!
//! Legacy may still make calls for them, for example from a queue that is slower than `egress.window`. Such a late call
//! is in no pair, so that a workflow which does not make it would look right: it is counted, and the gate shows it. A
//! late call is not attributed to a later request either, even if that has the same trace or key. The same holds for a
//! call for an unwatched request, which counts as late only once the window of that request is over.
//!
//! Always true: what is remembered of requests and of calls is bounded.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::Arc;

use super::key::Key;
use super::watched::{RequestEnd, WatchedRequest};
use crate::names::RouteId;
use crate::traces::TraceContext;

/// The most requests that are remembered after their window, or because they are unwatched: this many that were
/// compared, and as many that were not.
pub(super) const REQUESTS_MAX: usize = 32_768;
/// How many unwatched requests of one key may be in flight. Beyond this number the oldest is treated as if its exchange
/// ended now.
const OPEN_MAX: usize = 16;
/// The most routes of one trace.
const ROUTES_MAX: usize = 4;

/// The newest of the requests whose window is over, and of the unwatched ones.
#[derive(Default)]
pub(super) struct EarlierRequests {
    by_trace: HashMap<u128, RequestsOfKey>,
    by_span: HashMap<(u128, u64), RequestsOfKey>,
    by_key: HashMap<Key, RequestsOfKey>,
    compared: Order,
    uncompared: Order,
    added: u64,
}

/// The numbers of requests, with the trace and the key by which each is found, the oldest first.
type Order = VecDeque<(u64, Option<TraceContext>, Option<Key>)>;

/// The requests in one trace, of one span, or with one key.
struct RequestsOfKey {
    /// The routes of those that were compared.
    routes: Vec<RouteId>,
    /// The number of the newest one.
    last: u64,
    /// When the last window of those whose exchanges have ended is over, in microseconds.
    over_at: u64,
    /// The ends of unwatched ones whose exchanges had not ended.
    open: VecDeque<Arc<RequestEnd>>,
}

impl RequestsOfKey {
    /// When the last window is over, in microseconds; the largest number while an exchange has not ended.
    fn over_at(&self) -> u64 {
        self.open.iter().map(|end| end.over_at()).fold(self.over_at, u64::max)
    }

    fn add_end(&mut self, end: &Arc<RequestEnd>, now_us: u64) {
        self.open.retain(|end| {
            if end.has_ended() {
                self.over_at = self.over_at.max(end.over_at());
            }
            !end.has_ended()
        });
        match end.has_ended() {
            true => self.over_at = self.over_at.max(end.over_at()),
            false => self.open.push_back(end.clone()),
        }
        if self.open.len() > OPEN_MAX
            && let Some(oldest) = self.open.pop_front()
        {
            self.over_at = self.over_at.max(oldest.over_at_if_ended(now_us));
        }
    }
}

/// What the `traceparent` of a call says of requests whose window is over, or that are unwatched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EarlierInTrace {
    /// One of them had exactly this trace and span.
    Named,
    /// One of them was in this trace.
    Possible,
    /// None of them was in this trace.
    None,
}

fn add<K: Eq + Hash>(
    map: &mut HashMap<K, RequestsOfKey>,
    key: Option<K>,
    one: &WatchedRequest,
    (number, now_us): (u64, u64),
) {
    let Some(key) = key else { return };
    let none = || RequestsOfKey { routes: Vec::new(), last: number, over_at: 0, open: VecDeque::new() };
    let found = map.entry(key).or_insert_with(none);
    found.last = number;
    found.add_end(one.request_end(), now_us);
    if let Some(route) = &one.route
        && !found.routes.contains(route)
        && found.routes.len() < ROUTES_MAX
    {
        found.routes.push(route.clone());
    }
}

fn forget<K: Eq + Hash>(map: &mut HashMap<K, RequestsOfKey>, key: Option<K>, number: u64) {
    if let Some(key) = key.filter(|key| map.get(key).is_some_and(|found| found.last == number)) {
        map.remove(&key);
    }
}

fn span_of(trace: TraceContext) -> (u128, u64) {
    (trace.trace_id, trace.span_id)
}

impl EarlierRequests {
    /// Adds a request whose window is over or that is unwatched, unless nothing identifies it.
    pub(super) fn add(&mut self, one: &WatchedRequest, now_us: u64) {
        let (trace, key) = (one.trace, one.known_key());
        if trace.is_none() && key.is_none() {
            return;
        }
        let order = if one.is_compared() { &mut self.compared } else { &mut self.uncompared };
        if order.len() >= REQUESTS_MAX
            && let Some((number, trace, key)) = order.pop_front()
        {
            forget(&mut self.by_trace, trace.map(|trace| trace.trace_id), number);
            forget(&mut self.by_span, trace.map(span_of), number);
            forget(&mut self.by_key, key, number);
        }
        self.added += 1;
        order.push_back((self.added, trace, key));
        let at = (self.added, now_us);
        add(&mut self.by_trace, trace.map(|trace| trace.trace_id), one, at);
        add(&mut self.by_span, trace.map(span_of), one, at);
        add(&mut self.by_key, key, one, at);
    }

    /// The requests that a call may be for: by its key, else by trace and span, else by the trace alone.
    fn requests_of(&self, trace: Option<TraceContext>, key: Option<Key>) -> Option<&RequestsOfKey> {
        let by_span = || self.by_span.get(&span_of(trace?));
        let by_trace = || self.by_trace.get(&trace?.trace_id);
        key.and_then(|key| self.by_key.get(&key)).or_else(by_span).or_else(by_trace)
    }

    /// The routes of the requests that a call may be for; none if these were not compared, `None` if there are no such
    /// requests. In one trace there may be requests of several routes: then it is not known which of them is meant.
    pub(super) fn routes_of(&self, trace: Option<TraceContext>, key: Option<Key>) -> Option<&[RouteId]> {
        self.requests_of(trace, key).map(|found| &*found.routes)
    }

    /// Whether the call may be for an unwatched request whose window is not over: then it is not late.
    pub(super) fn may_be_in_time(&self, trace: Option<TraceContext>, key: Option<Key>, now_us: u64) -> bool {
        self.requests_of(trace, key).is_some_and(|found| found.over_at() >= now_us)
    }

    /// What the `traceparent` of a call says of these requests.
    pub(super) fn in_trace(&self, sent: TraceContext) -> EarlierInTrace {
        match (self.by_span.contains_key(&span_of(sent)), self.by_trace.contains_key(&sent.trace_id)) {
            (true, _) => EarlierInTrace::Named,
            (false, true) => EarlierInTrace::Possible,
            (false, false) => EarlierInTrace::None,
        }
    }

    /// Whether one of them had this key and its window ended at or after `after_us` (in microseconds), or has not
    /// ended.
    pub(super) fn had_key(&self, key: &Key, after_us: u64) -> bool {
        self.by_key.get(key).is_some_and(|found| found.over_at() >= after_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::AttributionSettings;

    #[test]
    fn the_oldest_requests_are_forgotten() {
        let mut earlier = EarlierRequests::default();
        let settings = Arc::new(AttributionSettings::default());
        let route = RouteId::new("orders");
        for n in 0..=REQUESTS_MAX as u128 {
            let trace = Some(TraceContext { trace_id: n, span_id: 7, is_sampled: true });
            earlier.add(&WatchedRequest::new(0, Some(route.clone()), trace, settings.clone(), None, None), 1);
        }
        let in_trace = |n, span_id| earlier.in_trace(TraceContext { trace_id: n, span_id, is_sampled: false });
        assert_eq!((earlier.compared.len(), earlier.by_trace.len()), (REQUESTS_MAX, REQUESTS_MAX));
        assert_eq!((in_trace(0, 7), in_trace(1, 7)), (EarlierInTrace::None, EarlierInTrace::Named));
        assert_eq!(in_trace(1, 8), EarlierInTrace::Possible);
    }
}

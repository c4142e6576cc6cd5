//! Takes the requests that are watched and the calls that legacy makes, and attributes the calls to the requests.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwap;
use metrics::counter;

use super::announced::{AnnouncedRequests, NewRequests, RequestCounts};
use super::counts::{Counts, EffectOutcome, EgressReport};
use super::earlier_cause::EarlierCause;
use super::earlier_requests::EarlierRequests;
use super::index::{AttributedTo, Index};
use super::open_calls::{OpenCall, OpenCalls};
use super::request_counters::RequestCounters;
use super::rule::{AttributionSettings, Correlate};
use super::tunnels::Tunnels;
use super::unattributed_writes::RecentUnattributedWrites;
use super::uncompared_calls::{CAUSE_WINDOW_US, RecentRoutes, UntakenCalls};
use super::unread_unwatched::UnreadUnwatchedRequests;
use super::unwatched_requests::UnwatchedRequests;
use super::watched::{Unread, WatchedRequest};
use crate::byte_budget::ByteBudget;
use crate::compare::Effect;
use crate::exchange::{
    CallTarget, EffectObserver, EffectRegistry, EffectWatch, OpenCallsView, RequestEffects, RequestToWatch, SentBody,
    UnattributedWrites, UncomparedCalls,
};
use crate::limits::{EGRESS_CALLS_PER_REQUEST_MAX, EGRESS_VALUE_BODY_BYTES_MAX, Limits};
use crate::names::RouteId;
use crate::traces::TraceContext;

/// Attributes the calls that legacy makes to the requests that it handles. Cheap to clone.
#[derive(Clone)]
pub struct Attribution(Arc<Inner>);

struct Inner {
    settings: ArcSwap<AttributionSettings>,
    /// Requests that the index does not have yet.
    announced: AnnouncedRequests,
    next_number: AtomicU64,
    open_calls: OpenCalls,
    /// Not locked by threads that serve clients.
    state: Mutex<State>,
    unwatched: UnwatchedRequests,
    unattributed_writes: RecentUnattributedWrites,
    untaken: UntakenCalls,
    tunnels: Tunnels,
    memory: Arc<ByteBudget>,
    bounds: RequestCounts,
    compared: RequestCounters,
    uncompared_requests: RequestCounters,
    now_us: Arc<dyn Fn() -> u64 + Send + Sync>,
}

#[derive(Default)]
struct State {
    index: Index,
    counts: Counts,
    earlier: EarlierRequests,
    unread: UnreadUnwatchedRequests,
    recent: RecentRoutes,
}

impl Attribution {
    /// Creates an attribution that knows no requests yet.
    pub fn new(settings: AttributionSettings, limits: &Limits) -> Self {
        let began = Instant::now();
        Self::with_clock(settings, limits, move || u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    pub(super) fn with_clock(
        settings: AttributionSettings,
        limits: &Limits,
        now_us: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Self {
        let size = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX);
        let bounds = RequestCounts {
            compared: size(limits.egress_requests_max).max(1),
            uncompared: size(limits.egress_uncompared_requests_max).max(1),
        };
        Self(Arc::new(Inner {
            settings: ArcSwap::from_pointee(settings),
            announced: AnnouncedRequests::new(bounds),
            next_number: AtomicU64::new(0),
            open_calls: OpenCalls::default(),
            state: Mutex::default(),
            unwatched: UnwatchedRequests::default(),
            unattributed_writes: RecentUnattributedWrites::default(),
            untaken: UntakenCalls::default(),
            tunnels: Tunnels::default(),
            memory: ByteBudget::new(limits.egress_bytes_max),
            bounds,
            compared: RequestCounters::of("compared"),
            uncompared_requests: RequestCounters::of("not_compared"),
            now_us: Arc::new(now_us),
        }))
    }

    /// Puts other settings in force. A request that was announced under the earlier settings gets calls by its trace
    /// only; until its window is over, a call that is looked up by the new rule is ambiguous.
    pub fn set(&self, settings: AttributionSettings) {
        if **self.0.settings.load() != settings {
            self.0.settings.store(Arc::new(settings));
            // Under another window, calls for these requests that count as late might be in time.
            let mut state = self.0.updated();
            (state.earlier, state.unread) = Default::default();
        }
    }

    /// What is known of the calls for a route.
    pub fn report(&self, route: &RouteId) -> EgressReport {
        let settings = self.0.settings.load_full();
        let State { counts, .. } = &*self.0.updated();
        EgressReport {
            correlate: settings.correlate.shown(),
            window: settings.window,
            route: counts.of(route),
            total: counts.total,
            listed: counts.listed(),
            tunnels: self.0.tunnels.counts(),
        }
    }

    /// Takes out the calls that may have changed something and are in no compared pair. An open tunnel is among them
    /// each time.
    pub fn take_uncompared(&self) -> Vec<UncomparedCalls> {
        let now_us = (self.0.now_us)();
        let mut state = self.0.updated();
        state.recent.forget_old(now_us);
        self.0.unattributed_writes.open_tunnels().iter().for_each(|to| self.0.untaken.note_tunnel(to.as_ref()));
        self.0.untaken.take(&state.recent)
    }

    #[cfg(test)]
    pub(super) fn memory_used(&self) -> u64 {
        self.0.memory.used()
    }
}

impl Inner {
    /// Locks the state, adds the requests announced since, and removes those whose windows are over.
    fn updated(&self) -> MutexGuard<'_, State> {
        let now_us = (self.now_us)();
        let mut guard = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // Loaded under the lock, so that earlier settings do not come back into the index.
        let settings = self.settings.load_full();
        let State { index, counts, earlier, unread, recent } = &mut *guard;
        let NewRequests { requests, over_by_route, last_over, last_refused } = self.announced.take();
        let is_in_force = |watched: &&Arc<WatchedRequest>| Arc::ptr_eq(&watched.settings, &settings);
        for watched in last_over.iter().filter(is_in_force) {
            watched.value_key(); // read only now: this thread serves no client
            earlier.add(watched, now_us);
        }
        for watched in &requests {
            let Some(route) = &watched.route else { continue };
            counts.route(route).requests += 1;
            recent.add(route, watched.number, now_us);
        }
        for (route, number) in over_by_route {
            recent.add(&route, 0, now_us); // their numbers are not known
            let calls = counts.route(&route);
            calls.requests += number;
            calls.closed += number;
            calls.without_call += number;
        }
        index.add(&settings, requests);
        let refused = self.announced.take_refused();
        let removed = index.sweep(now_us, self.bounds, &self.unwatched);
        let mut compared_over = 0;
        let open: Vec<_> = if removed.over.is_empty() { Vec::new() } else { self.open_calls.open_at(now_us).collect() };
        // A call that began in time and ends later is attributed to no request.
        for watched in removed.over.iter().filter(|watched| watched.is_compared()) {
            let possible_calls = open.iter().filter(|call| call.may_be_of(watched));
            possible_calls.for_each(|_| watched.effects.add_gap());
        }
        for watched in removed.over.iter().filter(is_in_force) {
            earlier.add(watched, now_us);
        }
        let evicted = RequestCounts::of(&removed.evicted);
        unread.add(last_refused.into_iter().chain(removed.evicted).filter(|one| is_in_force(&one)), now_us, earlier);
        for watched in &removed.over {
            let Some(route) = &watched.route else { continue };
            let calls = counts.route(route);
            calls.closed += 1;
            calls.without_call += u64::from(watched.effects.is_empty() && watched.effects.gaps() == 0);
            compared_over += 1;
        }
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        for (kind, evicted) in [(&self.compared, evicted.compared), (&self.uncompared_requests, evicted.uncompared)] {
            if evicted > 0 {
                kind.evicted.increment(count(evicted));
            }
        }
        counts.total.requests_left_out += count(refused.compared + evicted.compared);
        counts.total.uncompared_requests_left_out += count(refused.uncompared + evicted.uncompared);
        self.announced.subtract_compared(compared_over + evicted.compared);
        guard
    }

    /// The open calls that may change something and are for no request that is watched.
    fn open_unattributed_writes(&self) -> UnattributedWrites {
        let open: Vec<_> = self.open_calls.open_at((self.now_us)()).collect();
        let may_have_others = self.open_calls.has_unlisted();
        let State { index, .. } = &*self.updated();
        let unattributed = open.iter().filter(|call| !call.may_be_watched(index));
        UnattributedWrites { calls: unattributed.filter_map(|call| call.write_to.clone()).collect(), may_have_others }
    }

    fn keep(&self, counts: &mut Counts, watched: &WatchedRequest, effect: Effect) {
        let reason = match self.memory.reserve(effect.bytes()) {
            _ if watched.effects.len() >= EGRESS_CALLS_PER_REQUEST_MAX => "request",
            Some(reserved) => return watched.effects.add(effect, Box::new(reserved)),
            None => "memory",
        };
        watched.effects.add_gap();
        counts.total.not_kept += 1;
        counter!("pointsman_effects_dropped_total", "reason" => reason).increment(1);
    }
}

impl EffectObserver for Attribution {
    /// Whether there is, or was not long ago, a compared request that a call could be for: the call may be late.
    fn is_watching(&self) -> bool {
        self.0.announced.had_compared((self.0.now_us)(), CAUSE_WINDOW_US)
    }

    fn begin(&self, head: &Effect, body: Option<Arc<dyn SentBody>>) {
        let inner = &*self.0;
        let (settings, before) = (inner.settings.load_full(), inner.next_number.load(Relaxed));
        inner.open_calls.begin(head.number, OpenCall::new(head, body, settings, (inner.now_us)(), before));
    }

    fn lose(&self, number: u64) {
        let now_us = (self.0.now_us)();
        match self.0.open_calls.get(number) {
            Some(open) => {
                // Reads are no effects, so only writes are noted. A lost call is not attributed, so it is in no pair.
                open.write_to.iter().for_each(|to| self.0.unattributed_writes.note(to, now_us));
                open.write_to.iter().for_each(|to| self.0.untaken.note_of_no_known_request(to, open.before));
            }
            None => {
                self.0.unattributed_writes.note_unknown(now_us);
                self.0.untaken.note_unknown();
            }
        }
        let window = u64::try_from(self.0.settings.load().window.as_micros()).unwrap_or(u64::MAX);
        // Two windows: a request that ends within one window from now counts it as open until its own window is over.
        self.0.open_calls.lose(number, now_us.saturating_add(window.saturating_mul(2)));
    }

    fn tunnel(&self, to: CallTarget) -> Box<dyn Send> {
        let now_us = self.0.now_us.clone();
        let counted = self.0.tunnels.open(&to);
        self.0.untaken.note_of_no_known_request(&Arc::new(to.clone()), u64::MAX);
        Box::new((self.0.unattributed_writes.tunnel(to, move || now_us()), counted))
    }

    fn observe(&self, effect: Effect) {
        let (open, number) = (self.0.open_calls.get(effect.number), effect.number);
        self.0.attribute(effect, open.map_or(u64::MAX, |open| open.before));
        // Last, so that the call is always either open or attributed.
        self.0.open_calls.end(number);
    }
}

impl Inner {
    /// Attributes a call that has ended to a request with a number below `before`.
    fn attribute(&self, effect: Effect, before: u64) {
        let mut guard = self.updated();
        let State { index, counts, earlier, unread: _, recent: _ } = &mut *guard;
        let now_us = (self.now_us)();
        match index.find(&effect, now_us, before, &self.unwatched, earlier) {
            AttributedTo::One(watched, by) => match &watched.route {
                Some(route) => {
                    counts.count(&effect, EffectOutcome::Attributed(by), Some(route));
                    self.keep(counts, &watched, effect);
                }
                None => counts.count(&effect, EffectOutcome::NotCompared, None),
            },
            AttributedTo::Several(candidates) if candidates.iter().all(|watched| !watched.is_compared()) => {
                counts.count(&effect, EffectOutcome::NotCompared, None);
            }
            AttributedTo::Several(candidates) => {
                counts.count(&effect, EffectOutcome::Ambiguous, None);
                candidates.iter().for_each(|watched| watched.effects.add_gap());
            }
            AttributedTo::None => {
                if !effect.method.is_safe() {
                    let to = Arc::new(CallTarget::of(&effect));
                    match index.cause_of_unattributed(&effect, now_us, earlier) {
                        EarlierCause::Late(routes) => routes.iter().for_each(|id| self.untaken.note_late(id, &to)),
                        EarlierCause::Unknown => self.untaken.note_of_no_known_request(&to, before),
                        EarlierCause::NoComparedRequest => {}
                    }
                    self.unattributed_writes.note(&to, (self.now_us)());
                }
                counts.count(&effect, EffectOutcome::Unattributed, None);
            }
        }
    }
}

/// A request that is watched, until this is dropped.
struct RequestWatch {
    watched: Arc<WatchedRequest>,
    began_us: u64,
    attribution: Arc<Inner>,
}

/// The calls of a request that have not ended yet.
struct OpenCallsOfRequest {
    watched: Arc<WatchedRequest>,
    began_us: u64,
    attribution: Arc<Inner>,
}

impl OpenCallsView for OpenCallsOfRequest {
    fn count(&self) -> u64 {
        self.attribution.open_calls.count_of(&self.watched, (self.attribution.now_us)())
    }
    fn unattributed_writes(&self) -> UnattributedWrites {
        // In this order: a call that ends in between is in one of the two.
        let open = self.attribution.open_unattributed_writes();
        let UnattributedWrites { mut calls, may_have_others } =
            self.attribution.unattributed_writes.since(self.began_us);
        calls.extend(open.calls);
        UnattributedWrites { calls, may_have_others: may_have_others || open.may_have_others }
    }
}

impl EffectWatch for RequestWatch {
    fn effects(&self) -> Option<RequestEffects> {
        let (watched, attribution) = (self.watched.clone(), self.attribution.clone());
        let open = OpenCallsOfRequest { watched, began_us: self.began_us, attribution };
        Some(self.watched.effects.with_open_calls(Arc::new(open)))
    }
    fn reply_passed_on(&self) {
        drop(self.attribution.updated());
    }
}

impl Drop for RequestWatch {
    fn drop(&mut self) {
        let Inner { now_us, memory, unwatched, .. } = &*self.attribution;
        self.watched.end(now_us(), memory, unwatched);
    }
}

/// A request that is not watched, because there is no room.
struct UnwatchedRequest {
    watched: Arc<WatchedRequest>,
    attribution: Arc<Inner>,
}

impl EffectWatch for UnwatchedRequest {
    fn effects(&self) -> Option<RequestEffects> {
        None
    }
    fn reply_passed_on(&self) {
        drop(self.attribution.updated());
    }
}

impl Drop for UnwatchedRequest {
    fn drop(&mut self) {
        let Inner { now_us, memory, unwatched, .. } = &*self.attribution;
        self.watched.end(now_us(), memory, unwatched);
    }
}

impl EffectRegistry for Attribution {
    fn watch(&self, request: RequestToWatch<'_>) -> Box<dyn EffectWatch> {
        let RequestToWatch { compared, request, sent, body } = request;
        let inner = &*self.0;
        let settings = inner.settings.load_full();
        let trace = sent.get("traceparent").and_then(|value| TraceContext::parse(value.as_bytes()));
        let header = settings.correlate.header_key(sent);
        let unread = matches!(settings.correlate, Correlate::Value { .. }).then(|| Unread {
            request: request(),
            body: body.filter(|_| settings.correlate.reads_request_body()),
            reserved: None,
        });
        let number = inner.next_number.fetch_add(1, Relaxed);
        let watched = Arc::new(WatchedRequest::new(number, compared.cloned(), trace, settings, header, unread));
        let outcomes = if watched.is_compared() { &inner.compared } else { &inner.uncompared_requests };
        let began_us = (inner.now_us)();
        if !inner.announced.add(watched.clone(), began_us) {
            outcomes.refused.increment(1);
            watched.stop_watching(began_us, &inner.unwatched);
            return Box::new(UnwatchedRequest { watched, attribution: self.0.clone() });
        }
        outcomes.watched.increment(1);
        Box::new(RequestWatch { watched, began_us, attribution: self.0.clone() })
    }
    fn body_bytes_max(&self) -> Option<usize> {
        self.0.settings.load().correlate.reads_request_body().then_some(EGRESS_VALUE_BODY_BYTES_MAX)
    }
}

//! Takes requests and calls, and brings them together.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwap;
use metrics::{Counter, counter};

use super::counts::{Counts, EffectOutcome, EgressReport};
use super::index::{Found, Index};
use super::memory::Memory;
use super::rule::{AttributionSettings, Correlate};
use super::watched::{Unread, Watched};
use crate::compare::Effect;
use crate::exchange::{EffectObserver, EffectRegistry, EffectWatch, RequestEffects, RequestToWatch};
use crate::limits::{EGRESS_CALLS_PER_REQUEST_MAX, Limits};
use crate::names::RouteId;
use crate::traces::TraceContext;

/// Lists to which the threads that serve clients add requests, so that few meet at one.
const LISTS: usize = 16;

/// Attributes the calls that legacy makes to the requests that it handles. Cheap to clone.
#[derive(Clone)]
pub struct Attribution(Arc<Inner>);

struct Inner {
    settings: ArcSwap<AttributionSettings>,
    /// Requests that the index does not have yet. Each lock is held for an insertion or for taking the whole list.
    new: [Mutex<VecDeque<Arc<Watched>>>; LISTS],
    next_number: AtomicU64,
    /// Requests that are in `new` or in the index.
    known: AtomicUsize,
    /// Requests that found no room since the index last looked.
    refused: AtomicU64,
    /// Not locked by threads that serve clients.
    state: Mutex<State>,
    memory: Arc<Memory>,
    requests_max: usize,
    watched: Counter,
    refusals: Counter,
    now_us: Box<dyn Fn() -> u64 + Send + Sync>,
}

#[derive(Default)]
struct State {
    index: Index,
    counts: Counts,
}

impl Attribution {
    /// Nothing is known yet.
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
        let [watched, refusals] =
            ["watched", "refused"].map(|outcome| counter!("pointsman_egress_requests_total", "outcome" => outcome));
        Self(Arc::new(Inner {
            settings: ArcSwap::from_pointee(settings),
            new: Default::default(),
            next_number: AtomicU64::new(0),
            known: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
            state: Mutex::default(),
            memory: Memory::new(size(limits.egress_bytes_max)),
            requests_max: size(limits.egress_requests_max).max(1),
            watched,
            refusals,
            now_us: Box::new(now_us),
        }))
    }

    /// Other settings are in force. Requests that were announced under the earlier ones are found by their trace only.
    pub fn set(&self, settings: AttributionSettings) {
        if **self.0.settings.load() != settings {
            self.0.settings.store(Arc::new(settings));
        }
    }

    /// What is known of the calls for a route.
    pub fn report(&self, route: &RouteId) -> EgressReport {
        let settings = self.0.settings.load_full();
        let State { counts, .. } = &*self.0.updated();
        EgressReport {
            correlate: settings.correlate.source(),
            window: settings.window,
            route: counts.of(route),
            total: counts.total,
            listed: counts.listed(),
        }
    }

    #[cfg(test)]
    pub(super) fn memory_used(&self) -> usize {
        self.0.memory.used()
    }
}

impl Inner {
    /// The state, with the requests that came since.
    fn updated(&self) -> MutexGuard<'_, State> {
        let now_us = (self.now_us)();
        let settings = self.settings.load_full();
        let mut guard = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { index, counts } = &mut *guard;
        let mut new = Vec::new();
        for list in &self.new {
            new.extend(std::mem::take(&mut *list.lock().unwrap_or_else(PoisonError::into_inner)));
        }
        for watched in &new {
            counts.route(&watched.route).requests += 1;
        }
        index.add(&settings, new);
        let refused = self.refused.swap(0, Relaxed);
        if refused > 0 {
            let window = u64::try_from(settings.window.as_micros()).unwrap_or(u64::MAX);
            index.leave_out(now_us.saturating_add(window));
        }
        let removed = index.sweep(now_us, self.requests_max);
        for watched in &removed.over {
            let calls = counts.route(&watched.route);
            calls.closed += 1;
            calls.without_call += u64::from(watched.effects.is_empty() && watched.effects.gaps() == 0);
        }
        let evicted = u64::try_from(removed.evicted).unwrap_or(u64::MAX);
        if evicted > 0 {
            counter!("pointsman_egress_requests_total", "outcome" => "evicted").increment(evicted);
        }
        counts.total.requests_left_out += refused + evicted;
        self.known.fetch_sub(removed.over.len() + removed.evicted, Relaxed);
        guard
    }

    /// Adds a request for the index; `false` if there is no room.
    fn announce(&self, watched: Arc<Watched>) -> bool {
        let Some(list) = usize::try_from(watched.number).ok().and_then(|number| self.new.get(number % LISTS)) else {
            return false;
        };
        let mut list = list.lock().unwrap_or_else(PoisonError::into_inner);
        // Where no request is settled and legacy makes no call, nobody takes the list.
        let now_us = (self.now_us)();
        for _ in 0..2 {
            if list.front().is_some_and(|oldest| !oldest.is_live(now_us)) {
                list.pop_front();
                self.known.fetch_sub(1, Relaxed);
            }
        }
        let has_room = list.len() < self.requests_max.div_ceil(LISTS);
        if has_room {
            list.push_back(watched);
            self.known.fetch_add(1, Relaxed);
        }
        has_room
    }

    fn keep(&self, counts: &mut Counts, watched: &Watched, effect: Effect) {
        let reason = match self.memory.take(effect.bytes()) {
            _ if watched.effects.len() >= EGRESS_CALLS_PER_REQUEST_MAX => "request",
            Some(held) => return watched.effects.add(effect, Box::new(held)),
            None => "memory",
        };
        watched.effects.add_gap();
        counts.total.not_kept += 1;
        counter!("pointsman_effects_dropped_total", "reason" => reason).increment(1);
    }
}

impl EffectObserver for Attribution {
    /// Whether there is a request that a call could be for.
    fn is_watching(&self) -> bool {
        self.0.known.load(Relaxed) > 0
    }

    fn observe(&self, effect: Effect) {
        let mut guard = self.0.updated();
        let State { index, counts } = &mut *guard;
        match index.find(&effect, (self.0.now_us)()) {
            Found::One(watched, by) => {
                counts.count(&effect, EffectOutcome::Attributed(by), Some(&watched.route));
                self.0.keep(counts, &watched, effect);
            }
            Found::Several(candidates) => {
                counts.count(&effect, EffectOutcome::Ambiguous, None);
                candidates.iter().for_each(|watched| watched.effects.add_gap());
            }
            Found::None => counts.count(&effect, EffectOutcome::Unattributed, None),
        }
    }
}

/// A request that is watched, until this is dropped.
struct Watch {
    watched: Arc<Watched>,
    attribution: Arc<Inner>,
}

impl EffectWatch for Watch {
    fn effects(&self) -> RequestEffects {
        self.watched.effects.clone()
    }
    fn settle(&self) {
        drop(self.attribution.updated());
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.watched.end((self.attribution.now_us)(), &self.attribution.memory);
    }
}

impl EffectRegistry for Attribution {
    fn watch(&self, request: RequestToWatch<'_>) -> Option<Box<dyn EffectWatch>> {
        let RequestToWatch { route, request, sent, body } = request;
        let inner = &*self.0;
        let settings = inner.settings.load_full();
        let trace = sent.get("traceparent").and_then(|value| TraceContext::parse(value.as_bytes()));
        let header = settings.correlate.header_key(sent);
        let unread = matches!(settings.correlate, Correlate::Value { .. }).then(|| Unread {
            request: request.clone(),
            body: body.filter(|_| settings.correlate.reads_request_body()),
            held: None,
        });
        let number = inner.next_number.fetch_add(1, Relaxed);
        let watched = Arc::new(Watched::new(number, route.clone(), trace, settings, header, unread));
        if !inner.announce(watched.clone()) {
            inner.refused.fetch_add(1, Relaxed);
            inner.refusals.increment(1);
            return None;
        }
        inner.watched.increment(1);
        Some(Box::new(Watch { watched, attribution: self.0.clone() }))
    }
}

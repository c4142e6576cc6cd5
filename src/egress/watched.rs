//! One request for which legacy may make calls.

use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::key::Key;
use super::rule::{AttributionSettings, Correlate};
use super::unwatched_requests::UnwatchedRequests;
use crate::byte_budget::{ByteBudget, ReservedBytes};
use crate::compare::decoded_body;
use crate::exchange::{RequestCopy, RequestEffects, SentBody};
use crate::limits::EGRESS_VALUE_BODY_BYTES_MAX;
use crate::names::RouteId;
use crate::traces::TraceContext;

/// One request for which legacy may make calls.
pub(super) struct WatchedRequest {
    /// A later request has a larger number.
    pub number: u64,
    /// `None`: it is not compared.
    pub route: Option<RouteId>,
    /// The trace that legacy was sent.
    pub trace: Option<TraceContext>,
    /// The rule by which it is found, besides its trace.
    pub settings: Arc<AttributionSettings>,
    /// What identifies it by a header.
    pub header: Option<Key>,
    pub effects: RequestEffects,
    end: Arc<RequestEnd>,
    /// Whether it is not watched any more, and counts in [`UnwatchedRequests`] as in flight.
    is_unwatched: AtomicBool,
    /// What its value is read from, until it has been read.
    unread: Mutex<Option<Unread>>,
    /// What identifies it by its value, once that has been read; the inner `None` means that nothing does.
    value: OnceLock<Option<Key>>,
}

/// When the exchange of a request ended, and for how long after that calls are attributed to it.
pub(super) struct RequestEnd {
    /// When it ended, in microseconds; 0 until then.
    ended_at: AtomicU64,
    window_us: u64,
}

/// What identifies a request by the rule, as far as it has been read.
pub(super) enum KnownValue {
    /// This key identifies it.
    Is(Key),
    /// Nothing identifies it.
    None,
    /// The value has not been read, or cannot be.
    Unknown,
}

/// What the value of a request is read from.
pub(super) struct Unread {
    pub request: RequestCopy,
    /// `None` if it has none, or the rule does not read it.
    pub body: Option<Arc<dyn SentBody>>,
    /// Accounts for a body that is kept after the exchange has ended.
    pub reserved: Option<ReservedBytes>,
}

/// What identifies a request by its value.
pub(super) enum ValueKey {
    /// This key identifies it.
    Is(Key),
    /// Nothing identifies it: it has no such value.
    None,
    /// Its body is still being sent or cannot be read, or the value was read before.
    Unknown,
}

impl WatchedRequest {
    pub(super) fn new(
        number: u64,
        route: Option<RouteId>,
        trace: Option<TraceContext>,
        settings: Arc<AttributionSettings>,
        header: Option<Key>,
        unread: Option<Unread>,
    ) -> Self {
        let (is_unwatched, unread) = (AtomicBool::new(false), Mutex::new(unread));
        let effects = RequestEffects::new(settings.window);
        let window_us = u64::try_from(settings.window.as_micros()).unwrap_or(u64::MAX);
        let end = Arc::new(RequestEnd { ended_at: AtomicU64::new(0), window_us });
        Self { number, route, trace, settings, header, effects, end, is_unwatched, unread, value: OnceLock::new() }
    }

    pub(super) fn is_compared(&self) -> bool {
        self.route.is_some()
    }

    /// Notes that its exchange has ended. A body that has not been read is kept if there is room.
    pub(super) fn end(&self, now_us: u64, memory: &Arc<ByteBudget>, unwatched: &UnwatchedRequests) {
        self.end.ended_at.store(now_us.max(1), SeqCst);
        self.end_unwatched(now_us, unwatched);
        let mut unread = self.lock();
        let Some(kept) = &mut *unread else { return };
        let Some(body) = &kept.body else { return };
        // A body that was not sent to its end, or is too large, is not there: then no value can be read.
        kept.reserved = body.whole().and_then(|bytes| memory.reserve(bytes.len()));
        if kept.reserved.is_none() {
            *unread = None;
        }
    }

    /// Stops watching it, because there is no room.
    pub(super) fn stop_watching(&self, now_us: u64, unwatched: &UnwatchedRequests) {
        unwatched.begin();
        self.is_unwatched.store(true, SeqCst);
        // If its exchange ends meanwhile, `end` finds the flag or this finds the end, and one of them takes the flag.
        if self.end.ended_at.load(SeqCst) != 0 {
            self.end_unwatched(now_us, unwatched);
        }
    }

    fn end_unwatched(&self, now_us: u64, unwatched: &UnwatchedRequests) {
        if self.is_unwatched.swap(false, SeqCst) {
            unwatched.end(now_us, self.window_us());
        }
    }

    /// For how long after its end calls are attributed to it.
    pub(super) fn window_us(&self) -> u64 {
        self.end.window_us
    }

    pub(super) fn has_ended(&self) -> bool {
        self.end.has_ended()
    }

    /// Whether calls can still be attributed to it.
    pub(super) fn accepts_calls(&self, now_us: u64) -> bool {
        !self.is_over_at(now_us)
    }

    /// Whether its window is over at this time: no call that ends later is attributed to it, and one that begins later
    /// is none of its calls.
    pub(super) fn is_over_at(&self, at_us: u64) -> bool {
        match self.end.ended_at.load(Relaxed) {
            0 => false,
            ended => at_us.saturating_sub(ended) > self.window_us(),
        }
    }

    /// Its end, which may be known only later.
    pub(super) fn request_end(&self) -> &Arc<RequestEnd> {
        &self.end
    }

    /// What identifies it by the rule, as far as that has been read.
    pub(super) fn known_value(&self) -> KnownValue {
        let known = match self.settings.correlate {
            Correlate::Trace => Some(None),
            Correlate::Header(_) => Some(self.header),
            Correlate::Value { .. } => self.value.get().copied(),
        };
        match known {
            Some(Some(key)) => KnownValue::Is(key),
            Some(None) => KnownValue::None,
            None => KnownValue::Unknown,
        }
    }

    /// What identifies it by the rule; `None` also if that has not been read.
    pub(super) fn known_key(&self) -> Option<Key> {
        match self.known_value() {
            KnownValue::Is(key) => Some(key),
            KnownValue::None | KnownValue::Unknown => None,
        }
    }

    /// What identifies it by the value that its rule names. Reads the value once the body is there, and then drops the
    /// body: a later call returns `ValueKey::Unknown`, and `known_value` has the result.
    pub(super) fn value_key(&self) -> ValueKey {
        // Taken out, so that the thread that serves the request does not wait while it is read.
        let Some(mut unread) = self.lock().take() else { return ValueKey::Unknown };
        if let Some(body) = &unread.body {
            let Some(bytes) = body.whole() else {
                let mut slot = self.lock();
                // Asked under the lock: `end` either came before, or finds the body and accounts for it.
                if !self.has_ended() {
                    *slot = Some(unread);
                }
                return ValueKey::Unknown;
            };
            let plain = (bytes.len() <= EGRESS_VALUE_BODY_BYTES_MAX)
                .then(|| decoded_body(&unread.request.headers, &bytes, EGRESS_VALUE_BODY_BYTES_MAX));
            let Some(Some(plain)) = plain else { return ValueKey::Unknown };
            unread.request.body = plain;
        }
        let key = self.settings.correlate.request_key(&unread.request);
        self.value.get_or_init(|| key).map_or(ValueKey::None, ValueKey::Is)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Unread>> {
        self.unread.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RequestEnd {
    pub(super) fn has_ended(&self) -> bool {
        self.ended_at.load(Relaxed) != 0
    }

    /// When the window is over, in microseconds; the largest number while the exchange has not ended.
    pub(super) fn over_at(&self) -> u64 {
        match self.ended_at.load(Relaxed) {
            0 => u64::MAX,
            ended => ended.saturating_add(self.window_us),
        }
    }

    /// When the window would be over if the exchange ended now.
    pub(super) fn over_at_if_ended(&self, now_us: u64) -> u64 {
        now_us.saturating_add(self.window_us)
    }
}

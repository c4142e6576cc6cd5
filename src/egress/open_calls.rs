//! Calls of legacy that have begun and were not attributed yet.
//!
//! Always true: a call is here from its beginning until it is attributed; one that was lost on the way stays for twice
//! `egress.window`. The number of calls here is bounded: while there is an open call that found no room, every request
//! counts as having an open call. A thread that serves a call holds a lock only for an insertion.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::call_traces::CallTraces;
use super::index::Index;
use super::rule::{AttributionSettings, CallKey, Correlate};
use super::watched::{KnownValue, WatchedRequest};
use crate::compare::{Body, Effect};
use crate::exchange::{CallTarget, SentBody};
use crate::limits::EGRESS_OPEN_CALLS_MAX;

/// The number of shards. A thread that serves a call adds it to one of them, so that such threads seldom wait for each
/// other.
const SHARDS: usize = 16;

/// Calls that have begun and were not attributed yet.
#[derive(Default)]
pub(super) struct OpenCalls {
    lists: [Mutex<HashMap<u64, Arc<OpenCall>>>; SHARDS],
    /// Open calls that found no room here.
    unlisted: AtomicU64,
    /// Until this time, a call that found no room here and was then lost could be any request's.
    unknown_until: AtomicU64,
}

/// A call that has begun and was not attributed yet.
pub(super) struct OpenCall {
    began_us: u64,
    /// Where it goes, if its method may change something.
    pub write_to: Option<Arc<CallTarget>>,
    /// Requests with this number or a larger one were announced after it had begun: it is for none of them.
    pub before: u64,
    traces: CallTraces,
    settings: Arc<AttributionSettings>,
    key: OnceLock<CallKey>,
    /// What its key is read from, until it has been read.
    unread: Mutex<Option<Unread>>,
    /// If it was lost: the time until which it counts as open; otherwise 0.
    lost_until: AtomicU64,
}

struct Unread {
    head: Effect,
    body: Option<Arc<dyn SentBody>>,
}

impl OpenCall {
    /// A call that begins now, when all requests with numbers below `before` have been announced.
    pub(super) fn new(
        head: &Effect,
        body: Option<Arc<dyn SentBody>>,
        settings: Arc<AttributionSettings>,
        began_us: u64,
        before: u64,
    ) -> Self {
        let (key, mut unread) = (OnceLock::new(), None);
        match settings.correlate {
            // Known from the head.
            Correlate::Trace | Correlate::Header(_) => drop(key.set(settings.correlate.call_key(head))),
            Correlate::Value { .. } => unread = Some(Unread { head: head.clone(), body }),
        }
        let (unread, lost_until) = (Mutex::new(unread), AtomicU64::new(0));
        let write_to = (!head.method.is_safe()).then(|| Arc::new(CallTarget::of(head)));
        Self { began_us, write_to, before, traces: CallTraces::of(&head.headers), settings, key, unread, lost_until }
    }

    /// What identifies its request by the rule; [`CallKey::Unreadable`] also while its body is still being sent.
    fn key(&self) -> CallKey {
        if let Some(key) = self.key.get() {
            return *key;
        }
        let mut unread = lock(&self.unread);
        if let Some(Unread { head, body }) = &mut *unread {
            if let Some(sent) = body {
                let Some(bytes) = sent.whole() else { return CallKey::Unreadable };
                head.body = Body::Whole(bytes);
            } else {
                head.body = Body::Whole(bytes::Bytes::new());
            }
            let key = *self.key.get_or_init(|| self.settings.correlate.call_key(head));
            *unread = None;
            return key;
        }
        self.key.get().copied().unwrap_or(CallKey::Unreadable)
    }

    /// Whether it could be for this request.
    pub(super) fn may_be_of(&self, request: &WatchedRequest) -> bool {
        if request.number >= self.before || request.is_over_at(self.began_us) {
            return false;
        }
        if request.trace.is_some_and(|trace| self.traces.ids().any(|id| id == trace.trace_id)) {
            return true;
        }
        match self.key() {
            CallKey::None => false,
            CallKey::Unreadable => true,
            CallKey::Is(key) => {
                // Under another rule it is not known what identifies the request.
                !Arc::ptr_eq(&self.settings, &request.settings)
                    || match request.known_value() {
                        KnownValue::Is(value) => value == key,
                        KnownValue::None => false,
                        KnownValue::Unknown => true,
                    }
            }
        }
    }

    /// Whether it may be for a request that is watched, by its trace or by the rule.
    pub(super) fn may_be_watched(&self, index: &Index) -> bool {
        let by_rule = match self.key() {
            CallKey::None => false,
            CallKey::Is(key) => index.may_have_key(&self.settings, &key),
            // It counts as open for every request.
            CallKey::Unreadable => true,
        };
        by_rule || self.traces.ids().any(|trace| index.has_trace(trace))
    }

    /// Whether it was lost, and no longer counts as open at this time.
    fn is_over(&self, now_us: u64) -> bool {
        (1..now_us).contains(&self.lost_until.load(Relaxed))
    }

    /// Marks it as lost: its body is not kept any longer, and it counts as open until this time.
    fn lose(&self, until_us: u64) {
        if let Some(unread) = lock(&self.unread).take()
            && unread.body.as_ref().is_some_and(|body| body.whole().is_none())
        {
            let _ = self.key.set(CallKey::Unreadable); // fails if the key has been read already
        }
        self.lost_until.store(until_us.max(1), Relaxed);
    }
}

impl OpenCalls {
    /// Adds a call that begins.
    pub(super) fn begin(&self, number: u64, call: OpenCall) {
        let Some(mut list) = self.list(number) else { return };
        let max = EGRESS_OPEN_CALLS_MAX.div_ceil(SHARDS);
        if list.len() >= max {
            list.retain(|_, other| !other.is_over(call.began_us));
        }
        match list.len() < max {
            true => drop(list.insert(number, Arc::new(call))),
            false => drop(self.unlisted.fetch_add(1, Relaxed)),
        }
    }

    /// What is known of an open call.
    pub(super) fn get(&self, number: u64) -> Option<Arc<OpenCall>> {
        self.list(number)?.get(&number).cloned()
    }

    /// Removes a call that was attributed, or that is known to belong to no request.
    pub(super) fn end(&self, number: u64) {
        let is_listed = self.list(number).is_some_and(|mut list| list.remove(&number).is_some());
        if !is_listed {
            self.end_unlisted();
        }
    }

    /// Marks a call as lost: it will not be attributed, and until this time it counts as open for each request that it
    /// could be for.
    pub(super) fn lose(&self, number: u64, until_us: u64) {
        match self.get(number) {
            Some(call) => call.lose(until_us),
            None => {
                self.unknown_until.fetch_max(until_us, Relaxed);
                self.end_unlisted();
            }
        }
    }

    /// How many open calls could be for this request.
    pub(super) fn count_of(&self, request: &WatchedRequest, now_us: u64) -> u64 {
        let unlisted = self.unlisted.load(Relaxed) + u64::from(self.unknown_until.load(Relaxed) > now_us);
        let listed = self.open_at(now_us).filter(|call| call.may_be_of(request)).count();
        unlisted + u64::try_from(listed).unwrap_or(u64::MAX)
    }

    /// Whether there are open calls that are not listed.
    pub(super) fn has_unlisted(&self) -> bool {
        self.unlisted.load(Relaxed) > 0
    }

    /// The open calls. No lock is held while they are checked, which may read their bodies.
    pub(super) fn open_at(&self, now_us: u64) -> impl Iterator<Item = Arc<OpenCall>> {
        self.lists.iter().flat_map(move |list| -> Vec<Arc<OpenCall>> {
            let mut list = lock(list);
            list.retain(|_, call| !call.is_over(now_us));
            list.values().cloned().collect()
        })
    }

    fn end_unlisted(&self) {
        let one_less = |unlisted: u64| unlisted.checked_sub(1);
        // There is none to subtract if `begin` was not called for this call.
        let _ = self.unlisted.fetch_update(Relaxed, Relaxed, one_less);
    }

    fn list(&self, number: u64) -> Option<MutexGuard<'_, HashMap<u64, Arc<OpenCall>>>> {
        let at = usize::try_from(number % SHARDS as u64).ok()?;
        self.lists.get(at).map(lock)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

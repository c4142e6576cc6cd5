//! The watched requests by what identifies them.
//!
//! A request is *current* from its announcement until the window after its exchange is over: until then it may cause
//! calls.
//!
//! Always true: a current request whose key is not known counts as one that could have caused any call whose request is
//! looked up by the rule; so does each unwatched request (`unwatched_requests`). A request that is not current any
//! more, or is unwatched, gets no call, and keeps a call that it may have caused from being given to
//! another one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use super::announced::RequestCounts;
use super::call_traces::CallTraces;
use super::counts::AttributedBy;
use super::earlier_requests::{EarlierInTrace, EarlierRequests};
use super::key::Key;
use super::rule::{AttributionSettings, CallKey, Correlate};
use super::unwatched_requests::UnwatchedRequests;
use super::watched::{ValueKey, WatchedRequest};
use crate::compare::Effect;
use crate::traces::TraceContext;

/// The least time between two removals of the requests that are not current any more; shorter while there is no room.
const SWEEP_PAUSE_US: u64 = 250_000;

/// For how many windows after its own a request counts as a possible cause of the calls that have its value: a later
/// request about the same thing often has the same value.
const VALUE_WINDOWS: u64 = 9;

/// The watched requests.
#[derive(Default)]
pub(super) struct Index {
    requests: BTreeMap<u64, Entry>,
    /// How many of these are not compared.
    uncompared: usize,
    by_trace: HashMap<u128, BTreeSet<u64>>,
    /// By header or value, under the rule in force.
    by_key: HashMap<Key, BTreeSet<u64>>,
    /// Those whose key is not known.
    unknown: BTreeSet<u64>,
    /// The rule that `by_key` is made by.
    settings: Arc<AttributionSettings>,
    swept_at: u64,
}

struct Entry {
    watched: Arc<WatchedRequest>,
    /// Its key in `by_key`; `None` if it is not there.
    key: Option<Key>,
}

/// Which request a call is for.
pub(super) enum AttributedTo {
    /// For this one.
    One(Arc<WatchedRequest>, AttributedBy),
    /// For one of these, or for one that is not known.
    Several(Vec<Arc<WatchedRequest>>),
    /// For none that is watched.
    None,
}

/// The requests that could have caused a call by the rule.
#[derive(Default)]
struct CandidatesByRule<'a> {
    /// The current ones that have the call's key.
    known: Vec<&'a Arc<WatchedRequest>>,
    /// The current ones whose key is not known.
    unknown: Vec<&'a Arc<WatchedRequest>>,
    /// Whether one whose window is over, or that is unwatched, had the call's key: the call may be for that one.
    has_earlier: bool,
}

/// What a sweep removed.
#[derive(Default)]
pub(super) struct Removed {
    /// Those that were not current any more.
    pub over: Vec<Arc<WatchedRequest>>,
    /// Those that were evicted to make room.
    pub evicted: Vec<Arc<WatchedRequest>>,
}

impl Index {
    /// Adds the requests that were announced since the last call, and reads the values of those whose bodies are known.
    pub(super) fn add(&mut self, settings: &Arc<AttributionSettings>, requests: Vec<Arc<WatchedRequest>>) {
        if !Arc::ptr_eq(&self.settings, settings) {
            self.settings = settings.clone();
            self.by_key.clear();
            self.requests.values_mut().for_each(|entry| entry.key = None);
            // Their keys were read by the earlier rule.
            self.unknown = self.requests.keys().copied().collect();
        }
        for watched in requests {
            let number = watched.number;
            if let Some(trace) = watched.trace {
                self.by_trace.entry(trace.trace_id).or_default().insert(number);
            }
            let is_by_rule = Arc::ptr_eq(&watched.settings, settings);
            let key = watched.header.filter(|_| is_by_rule);
            if let Some(key) = key {
                self.by_key.entry(key).or_default().insert(number);
            }
            if !is_by_rule || matches!(settings.correlate, Correlate::Value { .. }) {
                self.unknown.insert(number);
            }
            self.uncompared += usize::from(!watched.is_compared());
            self.requests.insert(number, Entry { watched, key });
        }
        if matches!(settings.correlate, Correlate::Value { .. }) {
            self.read_values();
        }
    }

    /// Reads the values of requests whose bodies are there by now.
    fn read_values(&mut self) {
        let Self { requests, by_key, unknown, settings, .. } = self;
        unknown.retain(|number| {
            let Some(entry) = requests.get_mut(number) else { return false };
            if !Arc::ptr_eq(&entry.watched.settings, settings) {
                return true;
            }
            entry.key = match entry.watched.value_key() {
                ValueKey::Unknown => return true,
                ValueKey::Is(key) => Some(key),
                ValueKey::None => None,
            };
            if let Some(key) = entry.key {
                by_key.entry(key).or_default().insert(*number);
            }
            false
        });
    }

    /// Whether a watched request has this trace.
    pub(super) fn has_trace(&self, trace_id: u128) -> bool {
        self.by_trace.contains_key(&trace_id)
    }

    /// Whether a watched request has this key, or has a key that is not known. Under other rules than those in force no
    /// key is known.
    pub(super) fn may_have_key(&self, settings: &Arc<AttributionSettings>, key: &Key) -> bool {
        !Arc::ptr_eq(&self.settings, settings) || !self.unknown.is_empty() || self.by_key.contains_key(key)
    }

    /// Finds the request that a call is for, among those with a number below `before`: later ones were announced after
    /// the call had begun. Unwatched requests, and `earlier` ones, count as possible causes.
    pub(super) fn find(
        &self,
        effect: &Effect,
        now_us: u64,
        before: u64,
        unwatched: &UnwatchedRequests,
        earlier: &EarlierRequests,
    ) -> AttributedTo {
        let current = |numbers: &BTreeSet<u64>| self.current(numbers.range(..before), now_us);
        let traces = CallTraces::of(&effect.headers);
        let sent = traces.first();
        if traces.has_different_fields() {
            let CandidatesByRule { known, unknown, .. } = self.by_rule(effect, now_us, before, earlier);
            let named = traces.ids().filter_map(|id| self.by_trace.get(&id)).flat_map(current);
            let possible: BTreeMap<u64, Arc<WatchedRequest>> =
                named.chain(known).chain(unknown).map(|one| (one.number, one.clone())).collect();
            if !possible.is_empty() {
                return AttributedTo::Several(possible.into_values().collect());
            }
        }
        let traced = sent.and_then(|sent| self.by_trace.get(&sent.trace_id)).map(current).unwrap_or_default();
        let same_span =
            |one: &&&Arc<WatchedRequest>| one.trace.map(|trace| trace.span_id) == sent.map(|sent| sent.span_id);
        let in_trace = sent.map_or(EarlierInTrace::None, |sent| self.earlier_in_trace(sent, now_us, earlier));
        // A client may send several requests of one trace. Legacy then tells them apart only if it hands on the very
        // field that it got.
        let (traced, is_told_apart) = match (traced.iter().filter(same_span).count(), in_trace) {
            // The call is for a request whose window is over, and then late, or for an unwatched one.
            (0, EarlierInTrace::Named) => return AttributedTo::None,
            (0, EarlierInTrace::Possible) => (traced, false),
            (0, EarlierInTrace::None) => (traced, true),
            (1, EarlierInTrace::Possible | EarlierInTrace::None) => {
                (traced.iter().filter(same_span).copied().collect(), true)
            }
            // Several requests had the same field.
            (_, _) => (traced, false),
        };
        if let [only] = traced[..]
            && is_told_apart
        {
            return match self.contradicts(only, effect) {
                false => AttributedTo::One(only.clone(), AttributedBy::Traceparent),
                // Which request it is for is not certain, although its trace names one.
                true => AttributedTo::Several(vec![only.clone()]),
            };
        }
        let CandidatesByRule { known, unknown, has_earlier } = self.by_rule(effect, now_us, before, earlier);
        let is_traced =
            |one: &&Arc<WatchedRequest>| traced.is_empty() || traced.iter().any(|other| Arc::ptr_eq(one, other));
        let known: Vec<_> = known.into_iter().filter(is_traced).collect();
        let unknown: Vec<_> = unknown.into_iter().filter(is_traced).collect();
        // A call with the trace of a watched request is for a watched one, so the unwatched ones do not count.
        let has_others = has_earlier || traced.is_empty() && unwatched.any(now_us);
        match (&known[..], &unknown[..]) {
            ([one], []) if !has_others => AttributedTo::One((*one).clone(), self.rule_label()),
            ([], []) if traced.is_empty() => AttributedTo::None,
            ([], []) => AttributedTo::Several(traced.into_iter().cloned().collect()),
            _ => AttributedTo::Several(known.into_iter().chain(unknown).cloned().collect()),
        }
    }

    /// What the `traceparent` of a call says of requests whose window is over, removed from here or not yet, and of
    /// unwatched ones.
    fn earlier_in_trace(&self, sent: TraceContext, now_us: u64, earlier: &EarlierRequests) -> EarlierInTrace {
        let of_trace = self.by_trace.get(&sent.trace_id).into_iter().flatten();
        let over = of_trace.filter_map(|number| self.requests.get(number)).map(|entry| &entry.watched);
        let mut over = over.filter(|watched| !watched.accepts_calls(now_us)).peekable();
        let is_any = over.peek().is_some();
        let is_named = over.any(|watched| watched.trace.is_some_and(|trace| trace.span_id == sent.span_id));
        match (is_named, is_any, earlier.in_trace(sent)) {
            (true, _, _) | (_, _, EarlierInTrace::Named) => EarlierInTrace::Named,
            (_, true, _) | (_, _, EarlierInTrace::Possible) => EarlierInTrace::Possible,
            (_, _, EarlierInTrace::None) => EarlierInTrace::None,
        }
    }

    /// What identifies the request of a call by the rule; `None` also if that cannot be read.
    pub(super) fn key_of(&self, effect: &Effect) -> Option<Key> {
        match self.settings.correlate.call_key(effect) {
            CallKey::Is(key) => Some(key),
            CallKey::None | CallKey::Unreadable => None,
        }
    }

    /// The requests with this key, or else in this trace, whose window is over and that are not removed yet.
    pub(super) fn over_with(
        &self,
        sent: Option<TraceContext>,
        key: Option<Key>,
        now_us: u64,
    ) -> Vec<&Arc<WatchedRequest>> {
        let of_key = key.and_then(|key| self.by_key.get(&key));
        let numbers = of_key.or_else(|| self.by_trace.get(&sent?.trace_id)).into_iter().flatten();
        let found = numbers.filter_map(|number| self.requests.get(number)).map(|entry| &entry.watched);
        found.filter(|watched| !watched.accepts_calls(now_us)).collect()
    }

    /// The requests that could have caused a call by the rule.
    fn by_rule(&self, effect: &Effect, now_us: u64, before: u64, earlier: &EarlierRequests) -> CandidatesByRule<'_> {
        match self.settings.correlate.call_key(effect) {
            CallKey::Is(key) => {
                let of_key = self.by_key.get(&key);
                let known = of_key.map(|numbers| self.current(numbers.range(..before), now_us)).unwrap_or_default();
                let unknown = self.current(self.unknown.range(..before), now_us);
                let since_us = match self.settings.correlate {
                    Correlate::Trace | Correlate::Header(_) => 0,
                    Correlate::Value { .. } => {
                        let window = u64::try_from(self.settings.window.as_micros()).unwrap_or(u64::MAX);
                        now_us.saturating_sub(window.saturating_mul(VALUE_WINDOWS))
                    }
                };
                let over = |number: &u64| {
                    let watched = self.requests.get(number).map(|entry| &entry.watched);
                    watched.is_some_and(|watched| !watched.accepts_calls(now_us))
                };
                let has_earlier = earlier.had_key(&key, since_us) || of_key.into_iter().flatten().any(over);
                CandidatesByRule { known, unknown, has_earlier }
            }
            CallKey::None => CandidatesByRule::default(),
            CallKey::Unreadable => {
                let unknown = self.current(self.requests.range(..before).map(|(number, _)| number), now_us);
                CandidatesByRule { unknown, ..CandidatesByRule::default() }
            }
        }
    }

    fn current<'a>(&self, numbers: impl Iterator<Item = &'a u64>, now_us: u64) -> Vec<&Arc<WatchedRequest>> {
        let requests = numbers.filter_map(|number| Some(&self.requests.get(number)?.watched));
        requests.filter(|one| one.accepts_calls(now_us)).collect()
    }

    /// Whether the declared header of a call names another request than its trace does. A thread of legacy may keep the
    /// trace of an earlier request.
    fn contradicts(&self, watched: &WatchedRequest, effect: &Effect) -> bool {
        let is_by_rule = Arc::ptr_eq(&watched.settings, &self.settings);
        let sent = self.settings.correlate.header_key(&effect.headers);
        is_by_rule && sent.is_some() && watched.header.is_some() && sent != watched.header
    }

    fn rule_label(&self) -> AttributedBy {
        match self.settings.correlate {
            Correlate::Trace => AttributedBy::Traceparent,
            Correlate::Header(_) => AttributedBy::Header,
            Correlate::Value { .. } => AttributedBy::Value,
        }
    }

    /// Removes requests that are not current any more, and those for which there is no room: first those that have
    /// ended, the oldest first.
    pub(super) fn sweep(&mut self, now_us: u64, max: RequestCounts, unwatched: &UnwatchedRequests) -> Removed {
        let is_full = self.excess(max) != RequestCounts::default();
        if !is_full && now_us.saturating_sub(self.swept_at) < SWEEP_PAUSE_US {
            return Removed::default();
        }
        self.swept_at = now_us;
        let mut removed = Removed::default();
        let over: Vec<u64> = self
            .requests
            .iter()
            .filter(|(_, one)| !one.watched.accepts_calls(now_us))
            .map(|(number, _)| *number)
            .collect();
        removed.over.extend(over.into_iter().filter_map(|number| self.remove(number)));
        let excess = self.excess(max);
        removed.evicted = self.evict(true, excess.compared, max.compared);
        removed.evicted.extend(self.evict(false, excess.uncompared, max.uncompared));
        for watched in &removed.evicted {
            watched.effects.add_gap();
            watched.stop_watching(now_us, unwatched);
        }
        removed
    }

    /// How many requests there are beyond the bounds.
    fn excess(&self, max: RequestCounts) -> RequestCounts {
        let compared = self.requests.len() - self.uncompared;
        RequestCounts {
            compared: compared.saturating_sub(max.compared),
            uncompared: self.uncompared.saturating_sub(max.uncompared),
        }
    }

    /// Removes requests of one kind for which there is no room.
    fn evict(&mut self, is_compared: bool, excess: usize, max: usize) -> Vec<Arc<WatchedRequest>> {
        if excess == 0 {
            return Vec::new();
        }
        // Some more than needed, so that not each request that comes causes a sweep of all.
        let many = excess + max / 8;
        let of_kind = |one: &Entry| one.watched.is_compared() == is_compared;
        let with_end = |ended| {
            let requests = self.requests.iter();
            requests.filter(move |(_, one)| of_kind(one) && one.watched.has_ended() == ended)
        };
        let oldest: Vec<u64> = with_end(true).chain(with_end(false)).map(|(number, _)| *number).take(many).collect();
        oldest.into_iter().filter_map(|number| self.remove(number)).collect()
    }

    fn remove(&mut self, number: u64) -> Option<Arc<WatchedRequest>> {
        let Entry { watched, key } = self.requests.remove(&number)?;
        self.uncompared -= usize::from(!watched.is_compared());
        self.unknown.remove(&number);
        if let Some(trace) = watched.trace {
            forget(&mut self.by_trace, trace.trace_id, number);
        }
        if let Some(key) = key {
            forget(&mut self.by_key, key, number);
        }
        Some(watched)
    }
}

fn forget<K: Eq + Hash>(map: &mut HashMap<K, BTreeSet<u64>>, key: K, number: u64) {
    if let Some(numbers) = map.get_mut(&key) {
        numbers.remove(&number);
        if numbers.is_empty() {
            map.remove(&key);
        }
    }
}

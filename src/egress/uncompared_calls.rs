//! Calls by legacy that may have changed something and that are in no compared pair, until somebody takes them: late
//! ones, those of no known request, and tunnels.
//!
//! A call of no known request may be for any request that was compared not long before it ended: legacy may have made
//! it from a queue, long after the request was over. So it counts for each route that had such a request.
//!
//! Always true: what is kept is bounded. Where there is no more room for targets, those that differ only in values of
//! the path are counted together; beyond that, only the number of calls is known.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use metrics::counter;

use crate::clock;
use crate::exchange::{CallTarget, UncomparedCalls, UncomparedReason};
use crate::limits::EGRESS_UNATTRIBUTED_WRITES_MAX;
use crate::names::RouteId;

/// For how long, in microseconds, a compared request counts as a possible cause of calls that belong to no known
/// request. Calls are observed for this long after the last compared request.
pub(super) const CAUSE_WINDOW_US: u64 = 600_000_000;

/// The calls that were not taken yet.
#[derive(Default)]
pub(super) struct UntakenCalls(Mutex<State>);

#[derive(Default)]
struct State {
    late: Targets<RouteId>,
    /// Those of no known request; the routes are found when they are taken.
    of_no_known_request: Targets<()>,
}

/// The calls to each target, by what they are counted for.
struct Targets<K> {
    listed: HashMap<(K, Arc<CallTarget>), Calls>,
    /// Calls to targets for which there is no room in `listed`.
    others: HashMap<K, Calls>,
}

#[derive(Clone, Copy)]
struct Calls {
    number: u64,
    first: Timestamp,
    /// Requests with this number or a larger one were announced after all of these calls had begun.
    before: u64,
}

impl<K> Default for Targets<K> {
    fn default() -> Self {
        Self { listed: HashMap::new(), others: HashMap::new() }
    }
}

impl<K: Eq + Hash> Targets<K> {
    fn note(&mut self, counted_for: K, to: &Arc<CallTarget>, before: u64) {
        self.calls_to(counted_for, to, before).number += 1;
    }

    fn calls_to(&mut self, counted_for: K, to: &Arc<CallTarget>, before: u64) -> &mut Calls {
        let mut key = (counted_for, to.clone());
        let mut has_room = self.listed.len() < EGRESS_UNATTRIBUTED_WRITES_MAX || self.listed.contains_key(&key);
        if !has_room {
            key.1 = Arc::new(to.without_values());
            // There is room for as many again of the entries without values.
            has_room = self.listed.len() < 2 * EGRESS_UNATTRIBUTED_WRITES_MAX || self.listed.contains_key(&key);
        }
        let calls = match has_room {
            true => self.listed.entry(key).or_insert_with(Calls::none),
            false => self.others.entry(key.0).or_insert_with(Calls::none),
        };
        calls.before = calls.before.max(before);
        calls
    }

    /// All calls, by target. Calls that are not listed have no target.
    fn into_all(self) -> impl Iterator<Item = (K, Option<Arc<CallTarget>>, Calls)> {
        let listed = self.listed.into_iter().map(|((counted_for, to), calls)| (counted_for, Some(to), calls));
        listed.chain(self.others.into_iter().map(|(counted_for, calls)| (counted_for, None, calls)))
    }
}

impl Calls {
    fn none() -> Self {
        Self { number: 0, first: clock::now(), before: 0 }
    }
}

impl UntakenCalls {
    /// Notes a call for a request of this route that ended after the request's window.
    pub(super) fn note_late(&self, route: &RouteId, to: &Arc<CallTarget>) {
        counter!("pointsman_effects_not_judged_total", "route" => route.to_string(), "reason" => "late").increment(1);
        self.lock().late.note(route.clone(), to, u64::MAX);
    }

    /// Notes that a call of no known request ended, or that a tunnel was opened. Requests with the number `before` or a
    /// larger one were announced after it had begun.
    pub(super) fn note_of_no_known_request(&self, to: &Arc<CallTarget>, before: u64) {
        self.lock().of_no_known_request.note((), to, before);
    }

    /// Notes a lost call of which nothing is known: it may have changed something, and be for any request.
    pub(super) fn note_unknown(&self) {
        let mut state = self.lock();
        let calls = state.of_no_known_request.others.entry(()).or_insert_with(Calls::none);
        (calls.number, calls.before) = (calls.number + 1, u64::MAX);
    }

    /// Notes that a tunnel is still open; `None` if its target is not known.
    pub(super) fn note_tunnel(&self, to: Option<&Arc<CallTarget>>) {
        let mut state = self.lock();
        let calls = match to {
            Some(to) => state.of_no_known_request.calls_to((), to, u64::MAX),
            None => state.of_no_known_request.others.entry(()).or_insert_with(Calls::none),
        };
        calls.before = u64::MAX;
    }

    /// Takes out all calls.
    pub(super) fn take(&self, routes: &RecentRoutes) -> Vec<UncomparedCalls> {
        let State { late, of_no_known_request } = std::mem::take(&mut *self.lock());
        let late = late.into_all().map(|(route, to, calls)| calls.uncompared(route, to, UncomparedReason::Late));
        let of_no_known_request = of_no_known_request.into_all().flat_map(|((), to, calls)| {
            let may_be_of = routes.0.iter().filter(move |(_, route)| route.first < calls.before);
            may_be_of
                .map(move |(route, _)| calls.uncompared(route.clone(), to.clone(), UncomparedReason::NoKnownRequest))
        });
        late.chain(of_no_known_request).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Calls {
    fn uncompared(self, route: RouteId, to: Option<Arc<CallTarget>>, reason: UncomparedReason) -> UncomparedCalls {
        UncomparedCalls { route, to, reason, calls: self.number, first: self.first }
    }
}

/// The routes that had compared requests not long ago.
#[derive(Default)]
pub(super) struct RecentRoutes(HashMap<RouteId, RecentRoute>);

#[derive(Clone, Copy)]
struct RecentRoute {
    /// The number of the first of these requests.
    first: u64,
    /// When the last one came, in microseconds.
    last_us: u64,
}

impl RecentRoutes {
    /// Notes that a request with this number was compared, or several requests, of which this is the smallest number.
    pub(super) fn add(&mut self, route: &RouteId, number: u64, now_us: u64) {
        let none = RecentRoute { first: number, last_us: now_us };
        let known = self.0.entry(route.clone()).or_insert(none);
        (known.first, known.last_us) = (known.first.min(number), known.last_us.max(now_us));
    }

    /// Forgets routes whose last request is too long ago to have caused a call that ends now.
    pub(super) fn forget_old(&mut self, now_us: u64) {
        self.0.retain(|_, route| now_us.saturating_sub(route.last_us) <= CAUSE_WINDOW_US);
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn to(path: &str) -> Arc<CallTarget> {
        let authority = "bank.test".to_owned();
        Arc::new(CallTarget { service: None, authority, method: Method::POST, path: path.to_owned() })
    }

    fn shown(taken: Vec<UncomparedCalls>) -> Vec<String> {
        let target = |to: &CallTarget| format!("{}{}", to.authority, to.path);
        let mut all: Vec<String> = taken
            .iter()
            .map(|of| {
                let to = of.to.as_deref().map_or_else(|| "?".to_owned(), target);
                format!("{} {:?} {to} {}", of.route, of.reason, of.calls)
            })
            .collect();
        all.sort();
        all
    }

    #[test]
    fn a_call_of_no_known_request_is_taken_for_each_route_with_a_request_before_it_and_not_long_ago() {
        let (calls, mut routes) = (UntakenCalls::default(), RecentRoutes::default());
        routes.add(&"old".into(), 1, 5);
        routes.add(&"orders".into(), 2, 6 + CAUSE_WINDOW_US);
        routes.add(&"later".into(), 3, 6 + CAUSE_WINDOW_US);
        routes.forget_old(6 + CAUSE_WINDOW_US);
        calls.note_of_no_known_request(&to("/mails"), 3);
        calls.note_of_no_known_request(&to("/mails"), 3);
        calls.note_late(&"old".into(), &to("/points"));
        assert_eq!(
            shown(calls.take(&routes)),
            ["old Late bank.test/points 1", "orders NoKnownRequest bank.test/mails 2"]
        );
        assert_eq!(shown(calls.take(&routes)), [""; 0], "taken once");
    }

    #[test]
    fn where_there_is_no_more_room_targets_of_one_kind_are_counted_together_and_then_calls() {
        let (calls, mut routes) = (UntakenCalls::default(), RecentRoutes::default());
        routes.add(&"orders".into(), 0, 1);
        let max = EGRESS_UNATTRIBUTED_WRITES_MAX;
        (0..max + 5).for_each(|n| calls.note_of_no_known_request(&to(&format!("/mails/{n}")), 9));
        let taken = calls.take(&routes);
        let kind = taken.iter().find(|of| of.to.as_ref().is_some_and(|to| to.path == "/mails/{}"));
        assert_eq!((taken.len(), kind.map(|of| of.calls)), (max + 1, Some(5)));
        let word = |n: usize| -> String { format!("{n:04}").bytes().map(|digit| char::from(digit + 49)).collect() };
        (0..2 * max + 7).for_each(|n| calls.note_of_no_known_request(&to(&format!("/{}", word(n))), 9));
        let taken = calls.take(&routes);
        let others = taken.iter().find(|of| of.to.is_none());
        assert_eq!((taken.len(), others.map(|of| of.calls)), (2 * max + 1, Some(7)));
    }
}

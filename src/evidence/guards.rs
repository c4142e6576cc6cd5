//! The guards of all routes: sets them, counts for them, and says what they found.

use super::Evidence;
use super::counters::RouteCounters;
use super::guard::{CleanPairs, GuardCrossing, GuardWindowView, LegacyRates, RouteGuard};
use super::invariants::JudgedAnswer;
use crate::exchange::{ComparisonOutcome, EngineAnswer, OfferedRequest};
use crate::flag::{Guard, State};
use crate::names::RouteId;

impl Evidence {
    /// Sets the guards of the routes in the files. A guard whose settings changed counts from zero. Call it after
    /// [`Evidence::set_renames`].
    pub fn set_guards<'a>(&self, guards: impl Iterator<Item = (&'a RouteId, Option<&'a Guard>)>) {
        for (route, settings) in guards {
            let shared = self.counters(route);
            let legacy = LegacyRates::of(&shared.lock().evidence);
            let mut guard = shared.lock_guard();
            // `notify` does not affect the counts, so its change keeps them.
            let counts = |settings: &Guard| Guard { notify: None, ..settings.clone() };
            if guard.as_ref().map(|guard| counts(guard.settings())) != settings.map(counts) {
                *guard = settings.map(|settings| Box::new(RouteGuard::new(settings.clone(), legacy)));
            }
        }
    }

    /// Brings what the guards know of legacy up to date. To be called periodically.
    pub fn refresh_guards(&self) {
        for (_, shared) in self.all() {
            if shared.lock_guard().is_none() {
                continue;
            }
            let legacy = LegacyRates::of(&shared.lock().evidence);
            if let Some(guard) = shared.lock_guard().as_mut() {
                guard.set_legacy(legacy);
            }
        }
    }

    /// Starts the counts of a route's guard from zero, because the route has moved.
    pub fn restart_guard(&self, route: &RouteId) {
        if let Some(guard) = self.counters(route).lock_guard().as_mut() {
            guard.restart();
        }
    }

    /// Waits until a guard has counted more than it accepts. [`Evidence::take_guard_crossings`] says which.
    pub async fn guard_crossing(&self) {
        self.guard_signal.notified().await;
    }

    /// What the guards found since this was last asked, route by route.
    pub fn take_guard_crossings(&self) -> Vec<GuardCrossing> {
        let of_route = |(route, shared): (RouteId, std::sync::Arc<RouteCounters>)| {
            shared.lock_guard().as_mut().map(|guard| guard.take_crossings(&route)).unwrap_or_default()
        };
        self.all().into_iter().flat_map(of_route).collect()
    }

    /// How many pairs in a row were compared without a difference or a failed run: those made in `dark`, or on any
    /// rung.
    pub fn clean_pairs(&self, route: &RouteId, rung: State) -> CleanPairs {
        self.counters(route).lock_guard().as_ref().map(|guard| guard.clean_pairs(rung)).unwrap_or_default()
    }

    /// What the guard of a route counts now; empty if it has none.
    pub fn guard_windows(&self, route: &RouteId) -> Vec<GuardWindowView> {
        self.counters(route).lock_guard().as_ref().map(|guard| guard.view()).unwrap_or_default()
    }

    pub(super) fn count_answer_for_guard(&self, route: &RouteId, answer: &EngineAnswer) {
        self.count_for_guard(&self.counters(route), |guard| guard.count_answer(answer));
    }

    pub(super) fn count_invariants_for_guard(&self, route: &RouteId, answer: &JudgedAnswer, is_broken: bool) {
        self.count_for_guard(&self.counters(route), |guard| guard.count_invariants(answer, is_broken));
    }

    pub(super) fn count_pair_for_guard(&self, shared: &RouteCounters, rung: State, differs: bool, failed: bool) {
        self.count_for_guard(shared, |guard| guard.count_pair(rung, differs, failed));
    }

    pub(super) fn count_outcome_for_guard(
        &self,
        shared: &RouteCounters,
        request: &OfferedRequest,
        outcome: ComparisonOutcome,
    ) {
        self.count_for_guard(shared, |guard| guard.count_outcome(request, outcome));
    }

    fn count_for_guard(&self, shared: &RouteCounters, count: impl FnOnce(&mut RouteGuard) -> bool) {
        let crosses = shared.lock_guard().as_mut().is_some_and(|guard| count(guard));
        if crosses {
            self.guard_signal.notify_one();
        }
    }
}

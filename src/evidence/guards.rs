//! The guards of all routes: sets them, counts for them, and says what they found.

use std::sync::Arc;

use tokio::sync::Notify;

use super::Evidence;
use super::guard::{CleanPairs, GuardCrossing, GuardWindowView, RouteGuard};
use super::guard_stop::GuardStop;
use super::invariants::JudgedAnswer;
use super::legacy_rates::LegacyRates;
use super::route_counters::RouteCounters;
use crate::flag::{Guard, State};
use crate::names::RouteId;

/// A client that leaves without an answer has waited long if it has waited for more than this many times legacy's 99th
/// percentile. If the guard has a `p99_ratio`, that takes the place of this number.
const LONG_RATIO: f64 = 2.0;

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

    /// Updates legacy's own rates in the guards, and the time after which a client has waited long. Call it
    /// periodically.
    pub fn refresh_guards(&self) {
        for (_, shared) in self.all() {
            let legacy = LegacyRates::of(&shared.lock().evidence);
            let mut ratio = None;
            if let Some(guard) = shared.lock_guard().as_mut() {
                guard.set_legacy(legacy);
                ratio = guard.settings().p99_ratio;
            }
            shared.set_long_wait(legacy.p99.map(|p99| p99.mul_f64(ratio.unwrap_or(LONG_RATIO))));
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

    /// Takes what the guards of all routes have found since the last call.
    pub fn take_guard_crossings(&self) -> Vec<GuardCrossing> {
        let of_route = |(route, shared): (RouteId, Arc<RouteCounters>)| {
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

    /// Records that the guard has stopped this candidate; `None`: a person has passed its gate by force since.
    pub fn set_guard_stop(&self, candidate: &RouteId, stop: Option<GuardStop>) {
        let shared = self.counters(candidate);
        let mut counters = shared.lock();
        counters.dirty |= counters.evidence.stopped_by_guard != stop;
        counters.evidence.stopped_by_guard = stop;
    }

    pub(super) fn count_invariants_for_guard(&self, route: &RouteId, answer: JudgedAnswer, is_broken: bool) {
        let count = move |guard: &mut RouteGuard| guard.count_invariants(&answer, is_broken);
        count_for_guard(&self.counters(route), &self.guard_signal, count);
    }

    pub(super) fn count_pair_for_guard(&self, shared: &RouteCounters, rung: State, differs: bool, failed: bool) {
        let count = move |guard: &mut RouteGuard| guard.count_pair(rung, differs, failed);
        count_for_guard(shared, &self.guard_signal, count);
    }
}

/// Counts something for the guard of a route, if it has one, without waiting for its lock. `count` says whether the
/// guard has counted more than it accepts.
pub(super) fn count_for_guard(
    shared: &RouteCounters,
    signal: &Arc<Notify>,
    count: impl FnOnce(&mut RouteGuard) -> bool + Send + 'static,
) {
    let signal = signal.clone();
    shared.count_for_guard(move |guard| {
        if count(guard) {
            signal.notify_one();
        }
    });
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::evidence::EvidenceBasis;
    use crate::evidence::part_names::LEGACY_ADDRESS;
    use crate::exchange::{
        ComparisonOutcome, EngineAnswer, OfferedRequest, Served, ServedObserver as _, TicketCounter as _,
    };
    use crate::flag::{GuardCondition, GuardRelease, SkipReason};

    /// The evidence of a route whose workflow was changed in `live` starts anew, and no reply of legacy comes any more.
    #[tokio::test]
    async fn the_guard_goes_on_to_count_4xx_after_a_change_that_does_not_concern_legacy() {
        let (evidence, _store) = crate::evidence::testing::evidence().await;
        let route: RouteId = "orders".into();
        let basis = |address: &str, workflow: &str| {
            let parts = [(LEGACY_ADDRESS, address), ("the workflow `w`", workflow)];
            let parts = parts.map(|(name, hash)| (name.to_owned(), hash.to_owned()));
            let hash = format!("{address} {workflow}");
            [(route.clone(), EvidenceBasis { hash, parts: parts.into(), ..EvidenceBasis::default() })]
        };
        evidence.set_basis(0, &basis("a", "1"));
        let (errors, release) = (Some(0.01), GuardRelease::Hand);
        let (mismatch, p99_ratio, notify) = (None, None, None);
        let guard = Guard { mismatch, errors, p99_ratio, over: 500, at_least: 5, in_dark: false, release, notify };
        evidence.set_guards([(&route, Some(&guard))].into_iter());
        let counts_4xx = || {
            evidence.refresh_guards();
            let windows = evidence.guard_windows(&route).into_iter();
            windows.filter(|window| window.counted.contains("4xx")).all(|window| window.accepted.is_some())
        };
        assert!(!counts_4xx(), "nothing is known of legacy yet");
        for _ in 0..120 {
            let legacy_status = Some(StatusCode::OK);
            let request = OfferedRequest { legacy_status, ..OfferedRequest::new(route.clone(), 0) };
            evidence.settle(&request, ComparisonOutcome::Skipped(SkipReason::NotSampled));
        }
        evidence.set_basis(1, &basis("a", "2"));
        assert!(counts_4xx() && evidence.of(&route).pairs() == 0);
        let refused =
            EngineAnswer { files_version: 1, rung: State::Live, served: Served::CallerError, took: None, run: None };
        (0..5).for_each(|_| evidence.answered(&route, refused));
        let found: Vec<_> = evidence.take_guard_crossings().into_iter().map(|crossing| crossing.condition).collect();
        assert_eq!(found, [GuardCondition::Errors]);
        evidence.set_basis(2, &basis("b", "2"));
        assert!(!counts_4xx(), "another legacy answers: `status` says that 4xx are not counted");
    }
}

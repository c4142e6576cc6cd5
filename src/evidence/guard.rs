//! What the guard of a route counts: requests that the engine answered in `live`, and compared pairs.
//!
//! The question it answers: "did more go wrong than the settings accept, so that the route has to be lowered?"
//!
//! Always true: each window starts empty when the process starts, when the settings of the guard or the basis of the
//! evidence change, when a person moves the route, and when the guard has acted. Counting waits for nothing but the
//! route's own lock; the task that lowers routes is notified at once ([`super::Evidence::guard_crossing`]).
//!
//! `ladder` decides whether the route is lowered, and to which state.

use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;

use super::guard_window::{Crossing, GuardWindow};
use super::invariants::JudgedAnswer;
use super::legacy_rates::LegacyRates;
use super::process_share::{CountsOfOther, GuardCounts};
use crate::clock;
use crate::exchange::{ComparisonOutcome, EngineAnswer, OfferedRequest, Served};
use crate::flag::file::SLOW_RATE;
use crate::flag::{Guard, GuardCondition, State};
use crate::names::{RouteId, RunId, WorkerId};
use crate::store::route_of_candidate;

/// How many runs of bad requests a message names.
const RUNS_NAMED: usize = 3;
/// The names of the windows in the shares of processes (`process_share`).
const WINDOWS: [&str; 6] = ["mismatched", "errors", "refused", "slow", "failed_in_dark", "broken"];
/// What the window of broken invariants counts.
const BROKEN_ANSWERS: &str = "answers that broke an invariant";

/// More went wrong than the guard of a route accepts.
#[derive(Clone, Debug, PartialEq)]
pub struct GuardCrossing {
    /// The route.
    pub route: RouteId,
    /// The crossed condition.
    pub condition: GuardCondition,
    /// The rung on which the requests were answered: `live` or `dark`; `shadow` for pairs, which may have been made on
    /// any rung.
    pub rung: State,
    /// How many requests or pairs in the window were bad.
    pub bad: u64,
    /// Among how many requests or pairs, good and bad: the last ones.
    pub of: u64,
    /// The accepted rate, from 0 to 1.
    pub accepted: f64,
    /// What was found, as a sentence.
    pub detail: String,
    /// The runs of the last bad requests, as far as they are known.
    pub runs: Vec<RunId>,
}

/// One window of a guard, as people see it.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct GuardWindowView {
    /// Which condition.
    pub condition: GuardCondition,
    /// What is counted.
    pub counted: String,
    /// The accepted rate of bad ones, from 0 to 1. For some windows, legacy's own rate is part of it: while that is not
    /// known, this is `null`, and nothing is counted.
    pub accepted: Option<f64>,
    /// How many of the last requests, or pairs, count now.
    pub of: u64,
    /// How many of these are bad.
    pub bad: u64,
    /// The guard acts after this many bad ones in a row.
    pub acts_after: Option<u64>,
    /// The guard acts once this many of the last `over` are bad, however spread.
    pub acts_at: Option<u64>,
}

/// How many pairs in a row were compared without a difference or a failed run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CleanPairs {
    /// The pairs, without those that legacy answered with an error.
    pub pairs: u64,
    /// The requests of the same time that were not compared and count against coverage, without those that legacy
    /// answered with an error.
    pub not_compared: u64,
}

impl CleanPairs {
    /// The share of pairs among the requests since the last difference or failed run, from 0 to 1.
    pub fn coverage(self) -> f64 {
        self.pairs as f64 / (self.pairs + self.not_compared).max(1) as f64
    }
}

/// What the guard of one route counts.
pub(super) struct RouteGuard {
    settings: Guard,
    legacy: LegacyRates,
    mismatched: Option<GuardWindow>,
    errors: Option<GuardWindow>,
    refused: Option<GuardWindow>,
    slow: Option<GuardWindow>,
    failed_in_dark: Option<GuardWindow>,
    /// Answers that broke an invariant.
    broken: Option<GuardWindow>,
    /// The runs of the last requests in `live` that were bad.
    runs: VecDeque<RunId>,
    /// When the windows were last emptied. The invariants of an answer may be judged long after it was given; if it was
    /// given before this time, it does not count.
    counts_since: Timestamp,
    /// The clean pairs in `dark` since the last difference or failed run.
    clean_in_dark: CleanPairs,
    /// The same for all rungs together.
    clean: CleanPairs,
    /// Clean pairs, and how often they were counted from zero, since the process started.
    counted: GuardCounts,
    /// What each of the other processes that share the store had counted when it was last added.
    others: BTreeMap<WorkerId, CountsOfOther>,
    /// Set by a restart: at the next [`Self::count_others`], what the others have counted does not count, because it
    /// may be from before the restart.
    skips_others: bool,
}

impl RouteGuard {
    pub(super) fn new(settings: Guard, legacy: LegacyRates) -> Self {
        let window = |rate: f64| GuardWindow::new(rate, settings.over, settings.at_least);
        let errors = settings.errors.map(window);
        let mut guard = Self {
            legacy,
            mismatched: settings.mismatch.map(window),
            refused: settings.errors.map(window),
            slow: settings.p99_ratio.map(|_| window(SLOW_RATE)),
            failed_in_dark: settings.errors.filter(|_| settings.in_dark).map(window),
            broken: settings.errors.map(window),
            errors,
            runs: VecDeque::new(),
            counts_since: clock::now(),
            clean_in_dark: CleanPairs::default(),
            clean: CleanPairs::default(),
            counted: GuardCounts::default(),
            others: BTreeMap::new(),
            skips_others: true,
            settings,
        };
        guard.set_legacy(legacy);
        guard
    }

    pub(super) fn settings(&self) -> &Guard {
        &self.settings
    }

    /// Sets legacy's own rates; the accepted rates rise by them.
    pub(super) fn set_legacy(&mut self, legacy: LegacyRates) {
        self.legacy = legacy;
        let Some(accepted) = self.settings.errors else { return };
        let with = |rate: Option<f64>| (accepted + rate.unwrap_or(0.0)).min(1.0);
        self.errors.as_mut().into_iter().for_each(|window| window.accept(with(legacy.errors)));
        self.refused.as_mut().into_iter().for_each(|window| window.accept(with(legacy.client_errors)));
    }

    /// Forgets what was counted.
    pub(super) fn restart(&mut self) {
        self.windows().for_each(GuardWindow::restart);
        self.runs.clear();
        self.counts_since = clock::now();
        self.skips_others = true;
        self.restart_clean_pairs();
    }

    /// Counts the clean pairs from zero.
    pub(super) fn restart_clean_pairs(&mut self) {
        (self.clean, self.clean_in_dark) = Default::default();
    }

    fn windows(&mut self) -> impl Iterator<Item = &mut GuardWindow> {
        let Self { mismatched, errors, refused, slow, failed_in_dark, broken, .. } = self;
        [mismatched, errors, refused, slow, failed_in_dark, broken].into_iter().flatten()
    }

    /// Counts how the engine served a caller. Returns whether more went wrong than is accepted.
    pub(super) fn count_answer(&mut self, answer: &EngineAnswer) -> bool {
        // Answers for instances that the engine owns do not count: lowering the route does not stop them.
        if answer.rung < State::Live {
            return false;
        }
        let is_error = matches!(answer.served, Served::Error | Served::FellBack | Served::Unknown);
        let is_refused = answer.served == Served::CallerError;
        let longest = self.settings.p99_ratio.and_then(|ratio| Some(self.legacy.p99?.mul_f64(ratio)));
        let is_slow = answer.took.zip(longest).map(|(took, longest)| took > longest);
        if is_error || is_refused || is_slow == Some(true) {
            self.note_bad(answer.run);
        }
        let crosses = |window: &mut Option<GuardWindow>, is_bad| window.as_mut().is_some_and(|w| w.count(is_bad));
        let too_many_errors = crosses(&mut self.errors, is_error);
        // Without legacy's share of 4xx, it is not known how many 4xx are the callers' own errors.
        let too_many_refused = self.legacy.client_errors.is_some() && crosses(&mut self.refused, is_refused);
        let too_slow = is_slow.is_some_and(|is_slow| crosses(&mut self.slow, is_slow));
        too_many_errors || too_many_refused || too_slow
    }

    fn note_bad(&mut self, run: Option<RunId>) {
        let Some(run) = run.filter(|run| !self.runs.contains(run)) else { return };
        self.runs.push_front(run);
        self.runs.truncate(RUNS_NAMED);
    }

    /// Counts an answer whose invariants were judged. Returns whether more went wrong than is accepted.
    pub(super) fn count_invariants(&mut self, answer: &JudgedAnswer, is_broken: bool) -> bool {
        if answer.rung < State::Live || answer.answered_at < self.counts_since {
            return false;
        }
        if is_broken {
            self.note_bad(answer.run);
        }
        self.broken.as_mut().is_some_and(|window| window.count(is_broken))
    }

    /// Counts a pair. Returns whether more went wrong than is accepted.
    pub(super) fn count_pair(&mut self, rung: State, differs: bool, legacy_failed: bool) -> bool {
        // A request that legacy answered with an error says little about what the engine does for one that succeeds.
        let counts = u64::from(!legacy_failed);
        self.clean.pairs += counts;
        self.clean_in_dark.pairs += if rung == State::Dark { counts } else { 0 };
        let [all, _, in_dark, _] = &mut self.counted.clean;
        (*all, *in_dark) = (*all + counts, *in_dark + if rung == State::Dark { counts } else { 0 });
        if differs {
            self.counted.restarts += 1;
            self.restart_clean_pairs();
        }
        self.mismatched.as_mut().is_some_and(|window| window.count(differs))
    }

    /// Counts how a request that was offered for a comparison ended. Returns whether more went wrong than is accepted.
    pub(super) fn count_outcome(&mut self, request: &OfferedRequest, outcome: ComparisonOutcome) -> bool {
        let is_dark = request.rung == State::Dark;
        match outcome {
            ComparisonOutcome::Failed(_) => {
                self.counted.restarts += 1;
                self.restart_clean_pairs();
            }
            ComparisonOutcome::Skipped(reason) => {
                let counts = u64::from(request.counts_against_coverage(reason) && !request.is_error_of_legacy());
                self.clean.not_compared += counts;
                self.clean_in_dark.not_compared += if is_dark { counts } else { 0 };
                let [_, all, _, in_dark] = &mut self.counted.clean;
                (*all, *in_dark) = (*all + counts, *in_dark + if is_dark { counts } else { 0 });
            }
            ComparisonOutcome::Matched | ComparisonOutcome::Ignored | ComparisonOutcome::Mismatched => {}
        }
        let failed = match outcome {
            ComparisonOutcome::Failed(_) => Some(true),
            ComparisonOutcome::Skipped(_) => None,
            ComparisonOutcome::Matched | ComparisonOutcome::Ignored | ComparisonOutcome::Mismatched => Some(false),
        };
        let counted = failed.filter(|_| is_dark).zip(self.failed_in_dark.as_mut());
        counted.is_some_and(|(failed, window)| window.count(failed))
    }

    /// What this process has counted.
    pub(super) fn counts(&self) -> GuardCounts {
        let windows = self.named_windows().map(|(name, window)| (name.to_owned(), window.counted()));
        GuardCounts { windows: windows.collect(), ..self.counted.clone() }
    }

    fn named_windows(&self) -> impl Iterator<Item = (&'static str, &GuardWindow)> {
        let Self { mismatched, errors, refused, slow, failed_in_dark, broken, .. } = self;
        let windows = [mismatched, errors, refused, slow, failed_in_dark, broken];
        WINDOWS.into_iter().zip(windows).filter_map(|(name, window)| Some((name, window.as_ref()?)))
    }

    /// Counts what the guards of other processes have counted since this was last called. Returns whether more went
    /// wrong than is accepted.
    pub(super) fn count_others(&mut self, others: BTreeMap<WorkerId, CountsOfOther>) -> bool {
        let before = std::mem::replace(&mut self.others, others.clone());
        if std::mem::take(&mut self.skips_others) {
            return false;
        }
        let mut crosses = false;
        for (process, other) in &others {
            // What a process had counted before it was first seen may be from before a restart.
            let Some(before) = before.get(process) else { continue };
            let GuardCounts { windows, clean: [all, all_not_compared, in_dark, dark_not_compared], restarts } =
                other.counts.since(&before.counts);
            // Clean pairs of another workflow or other rules say nothing of the present ones.
            let is_of_basis = other.is_of_basis && before.is_of_basis;
            if restarts > 0 {
                self.restart_clean_pairs();
            } else if is_of_basis {
                self.clean.pairs += all;
                self.clean.not_compared += all_not_compared;
                self.clean_in_dark.pairs += in_dark;
                self.clean_in_dark.not_compared += dark_not_compared;
            }
            let Self { mismatched, errors, refused, slow, failed_in_dark, broken, .. } = self;
            let own = [mismatched, errors, refused, slow, failed_in_dark, broken];
            for (name, window) in WINDOWS.into_iter().zip(own) {
                let (Some(counted), Some(window)) = (windows.get(name), window) else { continue };
                crosses |= window.count_others(*counted);
            }
        }
        crosses
    }

    /// The pairs in a row without a difference or a failed run: in `dark`, or, for a rung below, on all rungs.
    pub(super) fn clean_pairs(&self, rung: State) -> CleanPairs {
        if rung >= State::Dark { self.clean_in_dark } else { self.clean }
    }

    /// Takes the crossings of accepted rates since the last call.
    pub(super) fn take_crossings(&mut self, route: &RouteId) -> Vec<GuardCrossing> {
        let runs: Vec<RunId> = self.runs.iter().copied().collect();
        let legacy = self.legacy;
        let Self { mismatched, errors, refused, slow, failed_in_dark, broken, settings, .. } = self;
        let slower_than = settings.p99_ratio.and_then(|ratio| Some(legacy.p99?.mul_f64(ratio)));
        let slower_than = format!("were slower than {:.1?}", slower_than.unwrap_or_default());
        let answered = match route_of_candidate(route) {
            None => "requests that the engine answered",
            Some(_) => "requests that the candidate answered",
        };
        let of_live = (State::Live, answered);
        let windows = [
            (mismatched, GuardCondition::Mismatch, (State::Shadow, "compared pairs"), "differ"),
            (errors, GuardCondition::Errors, of_live, "ended with an error, a fallback or an unknown outcome"),
            (refused, GuardCondition::Errors, of_live, "were refused with 4xx"),
            (slow, GuardCondition::P99Ratio, of_live, slower_than.as_str()),
            (failed_in_dark, GuardCondition::Errors, (State::Dark, "requests in `dark`"), "had a run that failed"),
            (broken, GuardCondition::Errors, of_live, "broke an invariant"),
        ];
        let crossings = windows.into_iter().filter_map(|(window, condition, (rung, what), how)| {
            let Crossing { bad, of, accepted } = window.as_mut()?.take_crossing()?;
            let detail = format!(
                "{bad} of the last {of} {what} {how}; accepted: {} %",
                (accepted * 100_000.0).round() / 1_000.0
            );
            let runs = if rung == State::Live { runs.clone() } else { Vec::new() };
            Some(GuardCrossing { route: route.clone(), condition, rung, bad, of, accepted, detail, runs })
        });
        crossings.collect()
    }

    pub(super) fn view(&self) -> Vec<GuardWindowView> {
        let is_known = (self.legacy.client_errors.is_some(), self.legacy.p99.is_some());
        let windows = [
            (&self.mismatched, GuardCondition::Mismatch, "pairs that differ", true),
            (&self.errors, GuardCondition::Errors, "errors, fallbacks and unknown outcomes of the engine", true),
            (&self.refused, GuardCondition::Errors, "4xx of the engine", is_known.0),
            (&self.slow, GuardCondition::P99Ratio, "slow answers of the engine", is_known.1),
            (&self.failed_in_dark, GuardCondition::Errors, "failed runs in dark", true),
            (&self.broken, GuardCondition::Errors, BROKEN_ANSWERS, true),
        ];
        let views = windows.into_iter().filter_map(|(window, condition, counted, is_known)| {
            let counts = window.as_ref()?.counts();
            // Only some routes have invariants.
            if counted == BROKEN_ANSWERS && counts.of == 0 {
                return None;
            }
            Some(GuardWindowView {
                condition,
                counted: counted.to_owned(),
                accepted: is_known.then_some(counts.accepted),
                of: counts.of,
                bad: counts.bad,
                acts_after: counts.consecutive_bad_to_act,
                acts_at: counts.bad_in_window_to_act,
            })
        });
        views.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flag::GuardRelease;
    use crate::store::candidate_key;

    #[test]
    fn the_guard_of_a_candidate_says_that_the_candidate_answered() {
        let settings = Guard {
            mismatch: None,
            errors: Some(0.01),
            p99_ratio: None,
            over: 500,
            at_least: 5,
            in_dark: false,
            release: GuardRelease::Hand,
            notify: None,
        };
        let found = |route: &RouteId| {
            let mut guard = RouteGuard::new(settings.clone(), LegacyRates::default());
            let failed =
                EngineAnswer { files_version: 1, rung: State::Live, served: Served::Error, took: None, run: None };
            for _ in 0..9 {
                guard.count_answer(&failed);
            }
            guard.take_crossings(route).remove(0).detail
        };
        let route = RouteId::from("orders");
        assert!(found(&route).contains("requests that the engine answered ended with an error"));
        assert!(found(&candidate_key(&route)).contains("requests that the candidate answered ended with an error"));
    }
}

//! Counts what the shadow executor did with the requests that it took.

use super::Evidence;
use super::counters::EvidenceGeneration;
use crate::compare::{Comparison, Observation, Verdict};
use crate::exchange::{Branch, ComparisonOutcome};
use crate::flag::State;
use crate::names::RouteId;

impl Evidence {
    /// Counts a pair, before its ticket is settled. A pair of an earlier generation counts in the totals only.
    pub fn record_pair(
        &self,
        route: &RouteId,
        generation: EvidenceGeneration,
        rung: State,
        comparison: &Comparison,
        legacy: &Observation,
        engine: &Observation,
    ) {
        {
            let is_difference =
                comparison.verdict == Verdict::Mismatch && self.counters(route).lock().is_of(generation);
            // While this guard lives, the mark of the route is not cleared, because the difference is not counted yet.
            let _uncounted = is_difference.then(|| self.mark(route));
            let shared = self.counters(route);
            let mut counters = shared.lock();
            counters.count_differences(comparison);
            if counters.is_of(generation) {
                counters.record_pair(rung, comparison, legacy, engine);
                drop(counters);
                let (differs, failed) = (comparison.verdict == Verdict::Mismatch, legacy.status().as_u16() >= 400);
                self.count_pair_for_guard(&shared, rung, differs, failed);
            }
        }
        let (legacy, engine) = (legacy.latency(), engine.latency());
        let slower = if engine > legacy { "engine" } else { "legacy" };
        metrics::histogram!("pointsman_paired_latency_seconds", "route" => route.as_str().to_owned(), "slower" => slower)
            .record(engine.abs_diff(legacy).as_secs_f64());
    }

    /// How many requests of a route have been settled since the process started.
    pub fn settled(&self, route: &RouteId) -> u64 {
        self.counters(route).lock().totals.offered
    }

    /// Counts a dark request that has a twin. A request of an earlier generation does not count.
    pub fn record_twin(&self, route: &RouteId, generation: EvidenceGeneration) {
        let shared = self.counters(route);
        let mut counters = shared.lock();
        if counters.is_of(generation) {
            counters.evidence.dark_with_twin += 1;
            counters.dirty = true;
        }
    }

    /// Counts which way a run took through its workflow, and whether it was compared. A run of an earlier generation
    /// does not count.
    pub fn record_branch(
        &self,
        route: &RouteId,
        generation: EvidenceGeneration,
        rung: State,
        branch: &Branch,
        outcome: ComparisonOutcome,
    ) {
        let shared = self.counters(route);
        let mut counters = shared.lock();
        if counters.is_of(generation) {
            counters.evidence.all.count_branch(branch, outcome);
            if rung == State::Dark {
                counters.evidence.dark.count_branch(branch, outcome);
            }
            counters.dirty = true;
        }
    }

    /// Counts why a request was skipped as `unresolved_effect`. A request of an earlier generation does not count. The
    /// text must not hold secrets.
    pub fn record_unresolved(&self, route: &RouteId, generation: EvidenceGeneration, why: &str) {
        let shared = self.counters(route);
        let mut counters = shared.lock();
        if counters.is_of(generation) {
            counters.count_unresolved(why);
        }
    }
}

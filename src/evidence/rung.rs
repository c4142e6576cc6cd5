//! What was counted of the pairs of one rung, or of all.

use std::collections::BTreeMap;

use http::StatusCode;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::add_change::add_change;
use super::branches::{BranchCounts, BranchOutcome};
use super::latency::PairedLatencies;
use super::latency_quantile::NarrowPairedLatencies;
use super::latency_ratio::LatencyRatios;
use super::legacy_calls::{LegacyCallCounts, LegacyCallsStatus};
use super::strata::StratumCounts;
use super::stratum_names::{OTHER_STRATA, TOO_LARGE, is_of_cohort, without_value};
use crate::compare::{Comparison, IntentCounts, Observation};
use crate::exchange::{Branch, ComparisonOutcome, OfferedRequest};
use crate::flag::SkipReason;
use crate::names::StepId;

/// Steps whose intents are counted separately.
const STEPS_MAX: usize = 256;
/// Kinds of requests that are counted separately; the rest is counted together as [`OTHER_STRATA`].
const STRATA_MAX: usize = 128;

/// What was counted of the pairs of one rung, or of all.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RungCounts {
    /// When the last pair was compared; `null` if there is none, or if an earlier version compared it.
    pub last_pair: Option<Timestamp>,
    /// Pairs that legacy alone answered with 4xx or 5xx.
    pub failed_only_at_legacy: u64,
    /// Pairs that the engine alone answered with 4xx or 5xx.
    pub failed_only_at_engine: u64,
    /// Pairs that both answered with 4xx or 5xx.
    pub failed_at_both: u64,
    /// Requests whose run failed.
    pub failed_runs: u64,
    /// Runs that failed, or paused because of a conflict, after their answer, which may have been compared.
    pub failed_after_answer: u64,
    /// By kind of request (method, class of legacy's status, cohort, value of `promote.strata_by`): how many legacy
    /// served, and how many of them were compared; for the first 128 kinds.
    pub strata: BTreeMap<String, StratumCounts>,
    /// Which branches the engine's runs took through the workflow.
    pub branches: BranchCounts,
    /// The latencies of both arms, without the pairs that both answered with 4xx or 5xx.
    pub latencies: PairedLatencies,
    /// How many such pairs there were, by the ratio of the engine's latency to legacy's.
    pub latency_ratios: LatencyRatios,
    /// The latencies of both arms in narrow buckets, for `p99_ratio_below` and the guard's `p99_ratio`; those of pairs
    /// that an earlier version compared are not among them.
    pub narrow_latencies: NarrowPairedLatencies,
    /// What is known of legacy's calls for these pairs.
    pub legacy_calls: LegacyCallCounts,
    /// For each step of the workflow: how many of the engine's calls (those that it would have made, and private ones
    /// that it made) were compared, and with what.
    pub effects: BTreeMap<String, StepIntents>,
}

add_change!(RungCounts {
    newest last_pair,
    sum failed_only_at_legacy,
    sum failed_only_at_engine,
    sum failed_at_both,
    sum failed_runs,
    sum failed_after_answer,
    sum strata,
    sum branches,
    sum latencies,
    sum latency_ratios,
    sum narrow_latencies,
    sum legacy_calls,
    sum effects,
});

/// How many of the engine's calls of one step were compared, and with what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StepIntents {
    /// The calls.
    pub intents: u64,
    /// Those that were compared with a call by legacy.
    pub compared: u64,
    /// Of the others, those that an `assert` reads. The rest was compared with nothing.
    pub asserted: u64,
}

add_change!(StepIntents { sum intents, sum compared, sum asserted });

impl StepIntents {
    /// The share of the calls that was compared with something, from 0 to 1; 0 if there was no call.
    pub(super) fn share(self) -> f64 {
        (self.compared + self.asserted) as f64 / self.intents.max(1) as f64
    }
}

impl RungCounts {
    pub(super) fn count_pair(
        &mut self,
        comparison: &Comparison,
        legacy: &Observation,
        engine: &Observation,
        legacy_calls: LegacyCallsStatus,
        now: Timestamp,
    ) {
        let failed = |arm: &Observation| arm.status().as_u16() >= 400;
        // A pair that both arms refused says nothing about requests that succeed: neither how recent their evidence is,
        // nor how long they take.
        if !(failed(legacy) && failed(engine)) {
            self.last_pair = Some(now);
            self.latency_ratios.count(legacy.latency(), engine.latency());
            self.narrow_latencies.count(legacy.latency(), engine.latency());
            self.latencies.legacy.count(legacy.latency());
            self.latencies.engine.count(engine.latency());
        }
        self.legacy_calls.count(legacy_calls);
        self.failed_only_at_legacy += u64::from(failed(legacy) && !failed(engine));
        self.failed_only_at_engine += u64::from(!failed(legacy) && failed(engine));
        self.failed_at_both += u64::from(failed(legacy) && failed(engine));
        for (step, counts) in &comparison.intents {
            if self.effects.len() < STEPS_MAX || self.effects.contains_key(step.as_str()) {
                let IntentCounts { intents, compared, asserted } = *counts;
                let of_step = self.effects.entry(step.to_string()).or_default();
                of_step.intents += u64::from(intents);
                of_step.compared += u64::from(compared);
                of_step.asserted += u64::from(asserted);
            }
        }
    }

    pub(super) fn count_settled(&mut self, request: &OfferedRequest, outcome: ComparisonOutcome) {
        self.failed_runs += u64::from(matches!(outcome, ComparisonOutcome::Failed(_)));
        // Whether the gate requires this request to be compared. One that cannot be compared, such as a follow-up of an
        // instance without a twin, would keep the gate shut for ever.
        let is_gated = match outcome {
            ComparisonOutcome::Skipped(SkipReason::NotSampled) => true,
            // If legacy failed, its calls do not show how a run that is rehearsed from them would go on.
            ComparisonOutcome::Skipped(SkipReason::UnresolvedEffect) if request.is_failure_of_legacy() => false,
            ComparisonOutcome::Skipped(reason) => request.counts_against_coverage(reason),
            ComparisonOutcome::Matched
            | ComparisonOutcome::Ignored
            | ComparisonOutcome::Mismatched
            | ComparisonOutcome::Failed(_) => true,
        };
        let Some(mut name) = request.stratum().filter(|_| is_gated) else { return };
        // If legacy itself refused the body with 413, the engine's answer to a body of this size does not matter.
        let is_refused = request.legacy_status == Some(StatusCode::PAYLOAD_TOO_LARGE);
        if outcome == ComparisonOutcome::Skipped(SkipReason::BodyTooLarge) && !is_refused {
            name.push_str(TOO_LARGE);
        }
        if self.strata.len() >= STRATA_MAX && !self.strata.contains_key(&name) {
            name = OTHER_STRATA.to_owned();
        }
        self.strata.entry(name).or_default().count(outcome);
    }

    /// Counts requests of this kind that legacy served and that are not compared. Does nothing if `stratum` is empty.
    pub(super) fn count_served(&mut self, stratum: &str, requests: u64) {
        if stratum.is_empty() {
            return;
        }
        let is_separate = self.strata.len() < STRATA_MAX || self.strata.contains_key(stratum);
        let name = if is_separate { stratum } else { OTHER_STRATA };
        self.strata.entry(name.to_owned()).or_default().served += requests;
    }

    /// Moves the counts of a cohort's kinds of requests to the same kinds without a cohort.
    pub(super) fn forget_cohort(&mut self, cohort: &str) {
        let of_cohort: Vec<String> = self.strata.keys().filter(|name| is_of_cohort(name, cohort)).cloned().collect();
        for name in of_cohort {
            let Some(counts) = self.strata.remove(&name) else { continue };
            let plain = name.replacen(&format!(" {cohort}"), "", 1);
            self.strata.entry(plain).or_default().add(counts);
        }
    }

    /// Moves the counts of kinds with a declared value to the same kinds without one.
    pub(super) fn forget_values(&mut self) {
        for (name, counts) in std::mem::take(&mut self.strata) {
            self.strata.entry(without_value(&name).unwrap_or(name)).or_default().add(counts);
        }
    }

    /// Counts pairs of this kind of request as equal that were counted as differing (`to_equal`), or the other way
    /// round.
    pub(super) fn move_mismatches(&mut self, stratum: &str, pairs: u64, to_equal: bool) {
        let plain = without_value(stratum);
        let names = std::iter::once(stratum).chain(plain.as_deref());
        let name = names.into_iter().find(|name| self.strata.contains_key(*name)).unwrap_or(OTHER_STRATA);
        let Some(counts) = self.strata.get_mut(name) else { return };
        counts.mismatched = match to_equal {
            true => counts.mismatched.saturating_sub(pairs),
            false => (counts.mismatched + pairs).min(counts.compared),
        };
    }

    pub(super) fn count_branch(&mut self, branch: &Branch, outcome: BranchOutcome) {
        self.branches.count(branch, outcome);
    }

    /// Counts a pair of this kind of request for which legacy's calls are watched, but not known.
    pub(super) fn count_unknown_calls(&mut self, stratum: &str) {
        let is_separate = self.strata.len() < STRATA_MAX || self.strata.contains_key(stratum);
        let name = if is_separate { stratum } else { OTHER_STRATA };
        self.strata.entry(name.to_owned()).or_default().calls_unknown += 1;
    }

    /// Those of `steps` with too few compared calls: none, or a smaller share of their calls than `share`, was compared
    /// with a call by legacy or judged by an `assert`.
    pub(super) fn uncompared<'a>(&self, steps: &'a [StepId], share: f64) -> impl Iterator<Item = &'a StepId> {
        let is_compared = move |step: &StepId| {
            let of_step = self.effects.get(step.as_str()).copied().unwrap_or_default();
            of_step.compared + of_step.asserted > 0 && of_step.share() >= share
        };
        steps.iter().filter(move |step| !is_compared(step))
    }

    /// Forgets the equal pairs, because differences among them were lost. The requests that legacy served stay counted,
    /// so that enough of them have to be compared again.
    pub(super) fn without_equal_pairs(self) -> Self {
        let strata = self.strata.into_iter().map(|(name, counts)| (name, counts.without_equal_pairs())).collect();
        Self {
            last_pair: self.last_pair,
            failed_only_at_legacy: 0,
            failed_only_at_engine: self.failed_only_at_engine,
            failed_at_both: 0,
            failed_runs: self.failed_runs,
            failed_after_answer: self.failed_after_answer,
            strata,
            branches: self.branches.without_equal_pairs(),
            latencies: PairedLatencies::default(),
            latency_ratios: LatencyRatios::default(),
            narrow_latencies: NarrowPairedLatencies::default(),
            legacy_calls: LegacyCallCounts::default(),
            effects: BTreeMap::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{Method, StatusCode};

    use super::*;

    #[test]
    fn a_kind_is_noted_where_its_requests_could_have_been_compared() {
        let mut counts = RungCounts::default();
        let mut settle = |status: StatusCode, outcome| {
            let request = OfferedRequest { legacy_status: Some(status), ..OfferedRequest::new("r", 0) };
            counts.count_settled(&OfferedRequest { method: Method::GET, ..request }, outcome);
        };
        settle(StatusCode::OK, ComparisonOutcome::Matched);
        settle(StatusCode::OK, ComparisonOutcome::Skipped(SkipReason::NotSampled));
        settle(StatusCode::OK, ComparisonOutcome::Failed("timeout"));
        settle(StatusCode::NOT_FOUND, ComparisonOutcome::Skipped(SkipReason::NoTwin));
        settle(StatusCode::NOT_FOUND, ComparisonOutcome::Skipped(SkipReason::Retried));
        // Legacy's own failure, after which it is not known what the run would have done.
        settle(StatusCode::BAD_GATEWAY, ComparisonOutcome::Skipped(SkipReason::UnresolvedEffect));
        settle(StatusCode::FOUND, ComparisonOutcome::Skipped(SkipReason::QueueFull));
        // A kind of its own: it is never compared, and must not hide among those that are.
        settle(StatusCode::OK, ComparisonOutcome::Skipped(SkipReason::BodyTooLarge));
        let of =
            |served, compared, skipped| StratumCounts { served, compared, mismatched: 0, calls_unknown: 0, skipped };
        let expected = [("GET 2xx", of(3, 1, 1)), ("GET 2xx too large", of(1, 0, 1)), ("GET 3xx", of(1, 0, 1))]
            .map(|(name, of)| (name.to_owned(), of));
        assert_eq!((counts.strata, counts.failed_runs), (expected.into(), 1));
    }
}

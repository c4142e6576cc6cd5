//! What the pairs of a route say, with intervals that are valid however often they are looked at.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bound::{self, ALPHA};
use super::combined_bound::{self, Stratum};
use super::latency_ratio::RatioInterval;
use super::noise_view::Interval;
use super::paired::PairedCounts;
use super::route::RouteEvidence;
use super::rung::RungCounts;

/// What the pairs of a route say. All intervals and bounds have a confidence of 95 %, each by itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RouteStatistics {
    /// The upper bound of the share of requests that differ, of each kind of request.
    pub strata: BTreeMap<String, StratumBound>,
    /// The upper bound of the share of requests that differ, of all requests that legacy served: the kinds weighted by
    /// how often legacy served them; 1 if nothing was compared.
    pub combined_upper_bound: f64,
    /// How often each arm failed.
    pub errors: ErrorTable,
    /// How many times as long as legacy the engine took, for the median pair; `null` without pairs.
    pub latency_ratio: Option<RatioInterval>,
    /// How many times legacy's 99th percentile of latency the engine's is; `null` without pairs of this version.
    pub p99_ratio: Option<RatioInterval>,
}

/// The bound of one kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StratumBound {
    /// The share of the requests of this kind among those that legacy served.
    pub share: f64,
    /// The upper bound of the share of them that differs; 1 if none was compared.
    pub upper_bound: f64,
}

/// In how many requests each arm failed: a 4xx or 5xx, or, of the engine, a run without an answer, or one that failed
/// after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ErrorTable {
    /// All requests of the table.
    pub requests: u64,
    /// Both failed.
    pub both: u64,
    /// Only the engine failed.
    pub only_engine: u64,
    /// Only legacy failed.
    pub only_legacy: u64,
    /// By how much the engine's share of failures exceeds legacy's; `null` without requests.
    pub excess: Option<Interval>,
    /// Whether the engine fails more often than legacy, at an error rate of 5 % for all looks together.
    pub engine_fails_more: bool,
}

impl ErrorTable {
    /// The table of the pairs of a rung and of its runs without an answer. `failed_runs`: how many these are.
    pub(super) fn of(counts: &RungCounts, pairs: u64, failed_runs: u64) -> Self {
        let only_engine = counts.failed_only_at_engine + failed_runs + counts.failed_after_answer;
        let (requests, both) = (pairs + failed_runs, counts.failed_at_both);
        let only_legacy = counts.failed_only_at_legacy;
        Self { requests, both, only_engine, only_legacy, excess: None, engine_fails_more: false }.with_excess()
    }

    /// The table without the requests in which both failed. They say nothing of those that succeed, and the more there
    /// are, the smaller the engine's excess looks.
    pub(super) fn without_errors_of_both(self) -> Self {
        Self { requests: self.requests.saturating_sub(self.both), both: 0, ..self }.with_excess()
    }

    fn with_excess(self) -> Self {
        let is_empty = self.requests + self.only_engine == 0;
        Self {
            excess: (!is_empty).then(|| self.counts().interval(ALPHA).into()),
            engine_fails_more: self.exceeds(0.0),
            ..self
        }
    }

    fn counts(self) -> PairedCounts {
        // A run that failed after its answer is also counted as a pair, perhaps one in which only legacy failed.
        let pairs = self.requests.max(self.only_engine + self.only_legacy);
        PairedCounts { pairs, only_first: self.only_engine, only_second: self.only_legacy }
    }

    /// Whether the engine's share of failures exceeds legacy's by more than this, at an error rate of 5 % for all looks
    /// together.
    pub(super) fn exceeds(self, by: f64) -> bool {
        by < 1.0 && self.counts().ln_evidence_above(by) >= -ALPHA.ln()
    }
}

impl RouteEvidence {
    /// What the pairs of all rungs say.
    pub fn statistics(&self) -> RouteStatistics {
        let restarts = self.rule_changes_after_differences();
        let counts = &self.all;
        let served: u64 = counts.strata.values().map(|counts| counts.served).sum();
        let bound_of = |of_kind: &super::strata::StratumCounts| StratumBound {
            share: of_kind.served as f64 / served.max(1) as f64,
            upper_bound: bound::upper_after(restarts, of_kind.compared, of_kind.mismatched),
        };
        let strata: Vec<Stratum> = counts
            .strata
            .values()
            .map(|of_kind| Stratum {
                served: of_kind.served,
                compared: of_kind.compared,
                mismatched: of_kind.mismatched,
            })
            .collect();
        RouteStatistics {
            strata: counts.strata.iter().map(|(name, of_kind)| (name.clone(), bound_of(of_kind))).collect(),
            combined_upper_bound: combined_bound::upper(restarts, &strata),
            errors: ErrorTable::of(counts, self.pairs(), counts.failed_runs),
            latency_ratio: counts.latency_ratios.median(ALPHA),
            p99_ratio: counts.narrow_latencies.p99_ratio(ALPHA),
        }
    }
}

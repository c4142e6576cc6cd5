//! Counts by kind of request, so that a rare kind cannot hide behind a frequent one.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::add_change::add_change;
use super::legacy_calls::LegacyCallsStatus;
use crate::exchange::ComparisonOutcome;
use crate::flag::{SkipReason, State};

/// Counts of one stratum (kind of request).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StratumCounts {
    /// Requests that legacy served while the route was in `shadow` or above, those that were not sampled included.
    pub served: u64,
    /// Of these, those that were compared.
    pub compared: u64,
    /// Of these, those that differ.
    pub mismatched: u64,
    /// Of the compared ones, those for which legacy's calls are watched, but not known.
    #[serde(default)]
    pub calls_unknown: u64,
    /// Of the served ones, those that were sampled and not compared, as far as that counts against coverage.
    #[serde(default)]
    pub skipped: u64,
}

add_change!(StratumCounts { sum served, sum compared, sum mismatched, sum calls_unknown, sum skipped });

impl StratumCounts {
    pub(super) fn count(&mut self, outcome: ComparisonOutcome) {
        self.served += 1;
        match outcome {
            ComparisonOutcome::Matched | ComparisonOutcome::Ignored => self.compared += 1,
            ComparisonOutcome::Mismatched => {
                self.compared += 1;
                self.mismatched += 1;
            }
            ComparisonOutcome::Skipped(SkipReason::NotSampled) => {}
            ComparisonOutcome::Skipped(_) | ComparisonOutcome::Failed(_) => self.skipped += 1,
        }
    }
    /// Whether less than this share of what was sampled was compared, so that a difference of only some requests of the
    /// kind could hide. One request may be missing: of a rare kind, one alone is a large share.
    pub(super) fn is_compared_less_than(&self, share: f64) -> bool {
        let sampled = self.compared + self.skipped;
        self.skipped > 1 && self.skipped as f64 > (1.0 - share) * sampled as f64
    }
    pub(super) fn add(&mut self, other: Self) {
        self.served += other.served;
        self.compared += other.compared;
        self.mismatched += other.mismatched;
        self.calls_unknown += other.calls_unknown;
        self.skipped += other.skipped;
    }
    /// Forgets the pairs without a difference: only those that differ still count as compared.
    pub(super) fn without_equal_pairs(self) -> Self {
        Self { compared: self.mismatched, calls_unknown: self.calls_unknown.min(self.mismatched), ..self }
    }
}

/// The part of a gate's message about a kind of request of which too small a share was compared; `None` if enough was.
pub(super) fn too_rarely_compared(name: &str, counts: &StratumCounts, share: f64) -> Option<String> {
    let (compared, sampled) = (counts.compared, counts.compared + counts.skipped);
    let needed = share * 100.0;
    counts
        .is_compared_less_than(share)
        .then(|| format!("`{name}` ({compared} of {sampled} that were sampled; at least {needed} % have to be)"))
}

/// Under what a pair is counted: rung, stratum, what is known of legacy's calls.
#[derive(Clone, Copy, Debug)]
pub struct PairClass<'a> {
    /// The rung on which it was made.
    pub rung: State,
    /// Its kind of request ([`OfferedRequest::stratum`](crate::exchange::OfferedRequest::stratum)).
    pub stratum: Option<&'a str>,
    /// What is known of legacy's calls.
    pub legacy_calls: LegacyCallsStatus,
}

impl From<State> for PairClass<'_> {
    fn from(rung: State) -> Self {
        Self { rung, stratum: None, legacy_calls: LegacyCallsStatus::NotWatched }
    }
}

/// Requests that were not compared and count against coverage, by rung.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NotCompared {
    /// In `shadow`.
    pub shadow: u64,
    /// In `dark`, and in `live` where legacy answered.
    pub dark: u64,
}

add_change!(NotCompared { sum shadow, sum dark });

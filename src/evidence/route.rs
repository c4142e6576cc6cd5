//! The evidence of one route: counts since its workflow or rules last changed, and the figures computed from them.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::bound;

/// The evidence of one route since its workflow or rules last changed.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default)]
pub struct RouteEvidence {
    /// Pairs made in shadow.
    pub shadow_pairs: u64,
    /// Pairs made in dark.
    pub dark_pairs: u64,
    /// Of the pairs made in shadow, those that legacy answered with an error (4xx or 5xx), so that most likely
    /// nothing was done.
    #[serde(rename = "shadow_refusals")] // the name in stored evidence and the API; so are the two below
    pub shadow_pairs_with_error: u64,
    /// The same of the pairs made in dark.
    #[serde(rename = "dark_refusals")]
    pub dark_pairs_with_error: u64,
    /// Of all pairs, those that are equal without the help of a rule.
    pub matched: u64,
    /// Of all pairs, those equal only by a rule.
    pub ignored: u64,
    /// Of all pairs, those that differ: open until the workflow or the rules change.
    pub mismatched: u64,
    /// Not compared, by reason.
    pub skipped: BTreeMap<String, u64>,
    /// Failed, by reason.
    pub failed: BTreeMap<String, u64>,
    /// Dark requests that have a twin: a durable run was made.
    pub dark_with_twin: u64,
    /// Dark requests that have no twin.
    pub dark_without_twin: u64,
    /// Consecutive answers of the engine to callers without an error, since the last change: in `live`, in `only`, and
    /// in every state where the engine owns the instance.
    pub engine_answers: u64,
    /// Of these answers, those with a 4xx status.
    #[serde(rename = "engine_refusals")]
    pub engine_answers_4xx: u64,
    /// Errors, unknown outcomes and fallbacks of the engine where it answered callers, since the last change.
    pub engine_errors: u64,
    /// When the pairs were counted from zero because differences or failures were lost: a process ended before it had
    /// stored them, or the store is a restored backup, made before they were seen. Mismatches, failures and errors that
    /// were stored before stay counted.
    pub lost_differences: Option<Timestamp>,
    /// For each rule, how often it made a difference count as equal.
    pub rule_hits: BTreeMap<String, u64>,
    /// Pairs that differ, by the fingerprint of their differences: of the 256 fingerprints that were seen last. Few
    /// pairs are kept as samples.
    pub seen: BTreeMap<String, FingerprintCount>,
}

/// How often pairs with one fingerprint were seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct FingerprintCount {
    /// How many.
    pub count: u64,
    /// When the first was seen.
    pub first: Timestamp,
    /// When the last was seen.
    pub last: Timestamp,
}

impl RouteEvidence {
    /// Counts as `matched` the pairs that neither differ nor are equal only by a rule. Earlier versions stored the
    /// pairs that are equal by a rule there too.
    pub(super) fn with_matched_from_pairs(self) -> Self {
        Self { matched: self.pairs().saturating_sub(self.ignored + self.mismatched), ..self }
    }
    /// Which evidence a route keeps if it has several ids: that with open mismatches, then any. An id under which
    /// nothing was counted must not hide the open mismatches of another one.
    pub(super) fn rank(&self) -> u8 {
        match self {
            Self { mismatched: 1.., .. } => 2,
            other if *other != Self::default() => 1,
            _ => 0,
        }
    }
    /// All pairs.
    pub fn pairs(&self) -> u64 {
        self.shadow_pairs + self.dark_pairs
    }
    /// The 95 % upper bound of the mismatch rate, valid however often it is read; 1 where there are no pairs.
    pub fn mismatch_upper_bound(&self) -> f64 {
        bound::upper(self.pairs(), self.mismatched)
    }
    /// How many more pairs without a mismatch bring the bound below a rate; `None` where there is a mismatch.
    pub fn pairs_needed_for(&self, rate: f64) -> Option<u64> {
        (self.mismatched == 0).then(|| bound::clean_pairs_for(rate).saturating_sub(self.pairs()))
    }
    /// The share of offered requests that was compared, 0 to 1; 1 where nothing was offered.
    pub fn coverage(&self) -> f64 {
        let not_compared = self.skipped.values().sum::<u64>() + self.failed.values().sum::<u64>();
        let all = self.pairs() + not_compared;
        if all == 0 { 1.0 } else { self.pairs() as f64 / all as f64 }
    }
}

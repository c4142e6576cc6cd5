//! Latencies in wide buckets of fixed bounds, for people and for pairs that an earlier version compared. Percentiles
//! are judged by narrow buckets (`latency_quantile`).

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::add_change::{AddChange, add_change};

/// Buckets. The last one has no upper bound.
const BUCKETS: usize = 72;
/// The upper bound of the first bucket, in seconds. That of the bucket `n` is `FIRST_S · 2^(n/4)`, so that a percentile
/// is at most 19 % too high, and the last bound is about 20 s.
const FIRST_S: f64 = 100e-6;

/// How many latencies there were, by bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct LatencyCounts(Vec<u64>);

impl AddChange for LatencyCounts {
    fn add_change(&mut self, before: &Self, after: &Self) {
        self.0.add_change(&before.0, &after.0);
    }
}

/// The latencies of both arms in pairs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PairedLatencies {
    /// Legacy's, by bucket; the upper bound of bucket `n` (from 0) is 0.1 ms · 2^(n/4).
    pub legacy: LatencyCounts,
    /// The engine's.
    pub engine: LatencyCounts,
}

add_change!(PairedLatencies { sum legacy, sum engine });

impl LatencyCounts {
    pub(super) fn count(&mut self, latency: Duration) {
        let quarters = (latency.as_secs_f64() / FIRST_S).max(1.0).log2() * 4.0;
        let bucket = (quarters.ceil() as usize).min(BUCKETS - 1);
        // A stored histogram ends with its last bucket that is not empty.
        if self.0.len() <= bucket {
            self.0.resize(bucket + 1, 0);
        }
        self.0[bucket] += 1;
    }
    /// The number of latencies.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
    /// The upper bound of the bucket that holds the latency below which this share of all latencies lies; `None` if
    /// there are none.
    pub fn percentile(&self, share: f64) -> Option<Duration> {
        let wanted = (self.total() as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        let bucket = self.0.iter().position(|count| {
            seen += count;
            seen >= wanted
        })?;
        Some(Duration::from_secs_f64(FIRST_S * (bucket as f64 / 4.0).exp2()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_bound_of_its_bucket() {
        let mut counts = LatencyCounts::default();
        assert_eq!(counts.percentile(0.99), None);
        for ms in 1..=1_000 {
            counts.count(Duration::from_millis(ms));
        }
        for share in [0.5, 0.9, 0.99] {
            let (exact, found) = (share, counts.percentile(share).unwrap().as_secs_f64());
            assert!(found >= exact && found <= exact * 1.19, "{share}: {found}");
        }
    }

    #[test]
    fn latencies_beyond_the_bounds_count_in_the_first_and_the_last_bucket() {
        let mut counts = LatencyCounts::default();
        counts.count(Duration::ZERO);
        counts.count(Duration::from_secs(86_400));
        assert_eq!((counts.total(), counts.0.len()), (2, BUCKETS));
        assert!(counts.percentile(0.5).unwrap() <= Duration::from_micros(100));
    }
}

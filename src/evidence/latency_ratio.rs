//! How much longer the engine takes than legacy for the same request, with an interval of the median.
//!
//! The ratio of the two latencies of each pair is counted in buckets. The median is above an edge of a bucket exactly
//! if more than half of the pairs are above it. This is tested by `paired`: each pair is on one side of the edge or on
//! the other. The interval goes from the highest edge below which the median is rejected at α/2 to the lowest edge
//! above which the median is rejected at α/2. It is enough that the test at the true median is valid, because an edge
//! that lies farther out has no more evidence: so the interval holds the median at all times simultaneously.
//! (S. Howard, A. Ramdas: Sequential estimation of quantiles, Bernoulli 28, 2022, with the stakes of `paired` in place
//! of their boundary.)

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::add_change::AddChange;
use super::paired::PairedCounts;

/// Edges per doubling of the ratio: an edge is 9 % above the one below it.
const EDGES_PER_DOUBLING: f64 = 8.0;
/// The bucket whose upper edge is the ratio 1.
const MIDDLE: usize = 64;
/// Buckets: ratios beyond 2^±8 count in the last one on that side.
const BUCKETS: usize = 2 * MIDDLE + 1;
/// A shorter latency counts as this one: below it, the clock and the scheduler are measured.
const LATENCY_MIN_S: f64 = 1e-6;

/// How many pairs there were, by the ratio of the engine's latency to legacy's. Bucket `n` (from 0) holds ratios above
/// `2^((n-65)/8)` up to `2^((n-64)/8)`; the first and the last bucket also hold those beyond them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct LatencyRatios(Vec<u64>);

impl AddChange for LatencyRatios {
    fn add_change(&mut self, before: &Self, after: &Self) {
        self.0.add_change(&before.0, &after.0);
    }
}

/// An interval of a ratio.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RatioInterval {
    /// The lower end; 0 if there is none.
    pub at_least: f64,
    /// The upper end; `null` if there is none.
    pub at_most: Option<f64>,
}

impl LatencyRatios {
    pub(super) fn count(&mut self, legacy: Duration, engine: Duration) {
        let seconds = |latency: Duration| latency.as_secs_f64().max(LATENCY_MIN_S);
        let eighths = (seconds(engine) / seconds(legacy)).log2() * EDGES_PER_DOUBLING;
        let bucket = (eighths.ceil() + MIDDLE as f64).clamp(0.0, (BUCKETS - 1) as f64) as usize;
        // A stored histogram ends with its last bucket that is not empty.
        if self.0.len() <= bucket {
            self.0.resize(bucket + 1, 0);
        }
        self.0[bucket] += 1;
    }

    /// The number of pairs.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The interval of the median ratio at this error rate; `None` without pairs.
    pub(super) fn median(&self, alpha: f64) -> Option<RatioInterval> {
        let total = self.total();
        let limit = -(alpha / 2.0).ln();
        let (mut at_least, mut at_most, mut below) = (0.0, None, 0);
        let edge = |bucket: usize| ((bucket as f64 - MIDDLE as f64) / EDGES_PER_DOUBLING).exp2();
        for (bucket, count) in self.0.iter().enumerate().filter(|(_, count)| **count > 0) {
            let at = |below| PairedCounts { pairs: total, only_first: total - below, only_second: below };
            // The first and the last bucket also hold what lies beyond their outer edges.
            // Unless most pairs are on one side of the edge, there is no evidence, and the test is left out.
            if bucket > 0 && total > 2 * below && at(below).ln_evidence_above(0.0) >= limit {
                at_least = edge(bucket - 1);
            }
            below += count;
            let may_be_below = at_most.is_none() && 2 * below > total && bucket < BUCKETS - 1;
            if may_be_below && at(below).exchanged().ln_evidence_above(0.0) >= limit {
                at_most = Some(edge(bucket));
            }
        }
        (total > 0).then_some(RatioInterval { at_least, at_most })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: f64) -> Duration {
        Duration::from_secs_f64(ms / 1e3)
    }

    #[test]
    fn the_interval_closes_in_on_the_median_ratio() {
        let mut ratios = LatencyRatios::default();
        assert_eq!(ratios.median(0.05), None);
        let mut random = fastrand::Rng::with_seed(41);
        for n in 0..4_000 {
            // The median is 1.5; requests take very different times.
            let base = 1.0 + 100.0 * random.f64();
            ratios.count(ms(base), ms(base * 1.5 * (random.f64() - 0.5).exp2()));
            if n == 3 {
                assert_eq!(ratios.median(0.05), Some(RatioInterval { at_least: 0.0, at_most: None }));
            }
        }
        let RatioInterval { at_least, at_most } = ratios.median(0.05).unwrap();
        let at_most = at_most.unwrap();
        assert!((1.25..=1.5).contains(&at_least) && (1.5..=1.8).contains(&at_most), "{at_least} {at_most}");
    }

    #[test]
    fn ratios_beyond_the_last_edges_do_not_bound_the_median() {
        let mut ratios = LatencyRatios::default();
        (0..500).for_each(|_| ratios.count(ms(0.01), ms(60_000.0)));
        let RatioInterval { at_least, at_most } = ratios.median(0.05).unwrap();
        assert!(at_least > 200.0 && at_most.is_none(), "{at_least} {at_most:?}");
        let mut ratios = LatencyRatios::default();
        (0..500).for_each(|_| ratios.count(ms(60_000.0), ms(0.0)));
        assert!(ratios.median(0.05).unwrap().at_most.unwrap() < 0.01);
    }

    /// 1,000 histories, with a look after each of 20 blocks of pairs whose median ratio is 1 on an edge of a bucket.
    #[test]
    fn the_interval_holds_the_median_at_all_looks() {
        let mut random = fastrand::Rng::with_seed(42);
        let ever_wrong = (0..1_000)
            .filter(|_| {
                let mut ratios = LatencyRatios::default();
                (0..20).any(|_| {
                    for _ in 0..8 {
                        // Half of the ratios are at most 1, and half above it.
                        let doublings = if random.bool() { -2.0 * random.f64() } else { 0.01 + random.f64() };
                        ratios.count(ms(10.0), ms(10.0 * f64::exp2(doublings)));
                    }
                    let interval = ratios.median(0.05).unwrap();
                    interval.at_least > 1.0 || interval.at_most.is_some_and(|most| most < 1.0)
                })
            })
            .count();
        assert!(ever_wrong <= 50, "{ever_wrong} of 1000 is more than 5 %");
    }

    /// A ratio above 1 in 70 % of the pairs is found after about the pairs that the test of `paired` needs for that.
    #[test]
    fn a_slower_engine_is_found_as_soon_as_theory_says() {
        let mut random = fastrand::Rng::with_seed(43);
        let mut needed = 0;
        for _ in 0..200 {
            let mut ratios = LatencyRatios::default();
            while ratios.median(0.05).is_none_or(|median| median.at_least < 1.0) {
                ratios.count(ms(10.0), ms(if random.f64() < 0.7 { 12.0 } else { 9.0 }));
            }
            needed += ratios.total();
        }
        let mean = needed as f64 / 200.0;
        let of = |n: f64| PairedCounts {
            pairs: n as u64,
            only_first: (0.7 * n).round() as u64,
            only_second: n as u64 - (0.7 * n).round() as u64,
        };
        let expected = (1..1_000).map(f64::from).find(|n| of(*n).ln_evidence_above(0.0) >= 40f64.ln()).unwrap();
        assert!((mean / expected - 1.0).abs() < 0.2, "{mean} pairs and not {expected}");
    }
}

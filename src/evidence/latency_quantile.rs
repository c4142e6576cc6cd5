//! The 99th percentile of the engine's latency against that of legacy, with an interval.
//!
//! A percentile is above a time `t` exactly if more than 1 % of the requests take longer than `t`. So each edge of a
//! bucket is tested by how many of the latencies are above it, with the likelihood ratio of `flag::likelihood` against
//! a rate of 1 %: the order-statistics interval of a quantile with a test that may be looked at after each pair in
//! place of the binomial distribution. It is enough that the test at the true percentile is valid, because an edge that
//! lies farther out has no more evidence: so the interval holds the percentile at all times simultaneously (S. Howard,
//! A. Ramdas: Sequential estimation of quantiles, Bernoulli 28, 2022). Nothing is assumed about the distributions.
//!
//! The interval of the ratio goes from the lower end for the engine, divided by the upper end for legacy, to the upper
//! end for the engine, divided by the lower end for legacy. It is wrong only if one of the four ends is, each of which
//! has a quarter of the error rate; that the two latencies of a pair depend on each other does no harm.
//!
//! Always true: where a latency lies within its bucket is not known, so it counts at the edge that makes the interval
//! wider. For the guard, which cannot wait until an interval is narrow, there is also an estimate of a percentile.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::add_change::{AddChange, add_change};
use super::latency_ratio::RatioInterval;
use crate::flag::{ln_evidence_above, ln_evidence_below};

/// The share of requests that take longer than the 99th percentile.
const SLOWER: f64 = 0.01;
/// The upper edge of the first bucket, in seconds.
const FIRST_S: f64 = 10e-6;
/// Buckets per doubling of the latency: an edge is 4.4 % above the one below it.
const PER_DOUBLING: f64 = 16.0;
/// Buckets. The first one has no lower edge above 0, and the last one, above about 20 s, has no upper edge.
const BUCKETS: usize = 338;
/// `pairs_until_below` looks ahead to at most this multiple of the present number of pairs.
const TIMES_MAX: u64 = 1_000;

/// How many latencies there were, in narrow buckets: the bucket `n` (from 0) ends at `10 µs · 2^(n/16)`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct NarrowLatencyCounts(Vec<u64>);

impl AddChange for NarrowLatencyCounts {
    fn add_change(&mut self, before: &Self, after: &Self) {
        self.0.add_change(&before.0, &after.0);
    }
}

/// The latencies of both arms in pairs, in narrow buckets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct NarrowPairedLatencies {
    /// Legacy's, by bucket; the upper bound of bucket `n` (from 0) is 0.01 ms · 2^(n/16).
    pub legacy: NarrowLatencyCounts,
    /// The engine's.
    pub engine: NarrowLatencyCounts,
}

add_change!(NarrowPairedLatencies { sum legacy, sum engine });

/// How many latencies have to be above an edge to say on which side of the edge the percentile is.
#[derive(Clone, Copy)]
struct Thresholds {
    /// If at most so many latencies are above an edge, the percentile is at most that edge. `None` if there are too few
    /// latencies to say so.
    below: Option<u64>,
    /// If at least so many latencies are above an edge, the percentile is above that edge.
    above: u64,
}

impl Thresholds {
    /// The thresholds for `total` latencies, with an error rate of `alpha` on either side.
    fn new(total: u64, alpha: f64) -> Self {
        let limit = -alpha.ln();
        let is_below = |above: u64| ln_evidence_below(SLOWER, total as f64, above as f64) >= limit;
        let is_above = |above: u64| ln_evidence_above(SLOWER, total as f64, above as f64) >= limit;
        // The first number, from 0 to `total + 1`, for which this holds; it holds for all higher ones.
        let first = |holds: &dyn Fn(u64) -> bool| {
            let (mut low, mut high) = (0, total + 1);
            while low < high {
                let middle = u64::midpoint(low, high);
                if holds(middle) { high = middle } else { low = middle + 1 }
            }
            low
        };
        let below = (total > 0).then(|| first(&|above| !is_below(above))).and_then(|first| first.checked_sub(1));
        Self { below, above: first(&is_above) }
    }
}

impl NarrowLatencyCounts {
    pub(super) fn count(&mut self, latency: Duration) {
        let steps = (latency.as_secs_f64() / FIRST_S).max(1.0).log2() * PER_DOUBLING;
        let bucket = (steps.ceil() as usize).min(BUCKETS - 1);
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

    /// The latency below which this share of all latencies lies; `None` if there are none. It is off by less than the
    /// width of a bucket (4.4 %), and mostly by much less: within the bucket it is interpolated, as if the latencies
    /// there were spread evenly on a logarithmic scale. Beyond the last edge it is that edge, about 20 s.
    pub fn percentile(&self, share: f64) -> Option<Duration> {
        let wanted = (self.total() as f64 * share).ceil().max(1.0);
        let mut below = 0.0;
        for (bucket, count) in self.0.iter().map(|count| *count as f64).enumerate() {
            if count > 0.0 && below + count >= wanted {
                // Each latency has an equal part of the bucket, and lies in the middle of this part.
                let part = ((wanted - below - 0.5) / count).clamp(0.0, 1.0);
                let part = if bucket == BUCKETS - 1 { 0.0 } else { part };
                let steps = bucket as f64 - 1.0 + part;
                return Some(Duration::from_secs_f64(FIRST_S * (steps / PER_DOUBLING).exp2()));
            }
            below += count;
        }
        None
    }

    /// The interval of the percentile, in seconds, if there were `times` as many latencies, distributed as these are.
    fn interval(&self, times: f64, thresholds: Thresholds) -> RatioInterval {
        let edge = |bucket: usize| FIRST_S * (bucket as f64 / PER_DOUBLING).exp2();
        let (mut at_least, mut at_most) = (0.0, None);
        let mut above = self.total();
        for (bucket, count) in self.0.iter().enumerate().filter(|(_, count)| **count > 0) {
            // How many are above the lower edge of this bucket; the lower edge of the first one is 0.
            if bucket > 0 && (above as f64 * times).floor() as u64 >= thresholds.above {
                at_least = edge(bucket - 1);
            }
            above -= count;
            let is_below = thresholds.below.is_some_and(|below| (above as f64 * times).ceil() as u64 <= below);
            // The last bucket also holds what is beyond its upper edge.
            if at_most.is_none() && is_below && bucket < BUCKETS - 1 {
                at_most = Some(edge(bucket));
            }
        }
        RatioInterval { at_least, at_most }
    }
}

impl NarrowPairedLatencies {
    pub(super) fn count(&mut self, legacy: Duration, engine: Duration) {
        self.legacy.count(legacy);
        self.engine.count(engine);
    }

    /// The number of pairs.
    pub fn pairs(&self) -> u64 {
        self.legacy.total().min(self.engine.total())
    }

    /// The interval of the ratio at this error rate; `None` without pairs.
    pub(super) fn p99_ratio(&self, alpha: f64) -> Option<RatioInterval> {
        (self.pairs() > 0).then(|| self.ratio_of_times(1.0, alpha))
    }

    fn ratio_of_times(&self, times: f64, alpha: f64) -> RatioInterval {
        let thresholds = Thresholds::new((self.pairs() as f64 * times) as u64, alpha / 4.0);
        let engine = self.engine.interval(times, thresholds);
        let legacy = self.legacy.interval(times, thresholds);
        let at_least = legacy.at_most.map_or(0.0, |legacy| engine.at_least / legacy);
        let at_most = engine.at_most.filter(|_| legacy.at_least > 0.0).map(|engine| engine / legacy.at_least);
        RatioInterval { at_least, at_most }
    }

    /// How many pairs it takes in all until the upper end is below `ratio`, if all are distributed as those so far;
    /// `None` if no number does, up to [`TIMES_MAX`] times the present one.
    pub(super) fn pairs_until_below(&self, ratio: f64, alpha: f64) -> Option<u64> {
        let pairs = self.pairs();
        let is_below = |wanted: u64| {
            let at_most = self.ratio_of_times(wanted as f64 / pairs.max(1) as f64, alpha).at_most;
            at_most.is_some_and(|at_most| at_most < ratio)
        };
        let (mut low, mut high) = (pairs, pairs.saturating_mul(2));
        while !is_below(high) {
            (low, high) = (high, high.saturating_mul(2));
            if pairs == 0 || high / pairs > TIMES_MAX {
                return None;
            }
        }
        while high - low > 1 {
            let middle = u64::midpoint(low, high);
            if is_below(middle) { high = middle } else { low = middle }
        }
        Some(high)
    }
}

/// The smallest number of pairs after which the percentile can have an upper end at all.
pub(super) fn pairs_min(alpha: f64) -> u64 {
    let (mut low, mut high) = (0, 1 << 20);
    while high - low > 1 {
        let middle = u64::midpoint(low, high);
        if Thresholds::new(middle, alpha / 4.0).below.is_some() { high = middle } else { low = middle }
    }
    high
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALPHA: f64 = 0.05;

    fn ms(ms: f64) -> Duration {
        Duration::from_secs_f64(ms / 1e3)
    }

    /// A latency whose 99th percentile is 20 ms.
    fn latency(random: &mut fastrand::Rng) -> f64 {
        // Exponential from 0: the percentile is ln 100 times the mean.
        -(1.0 - random.f64()).ln() * 20.0 / 100f64.ln()
    }

    #[test]
    fn without_enough_pairs_there_is_no_upper_end() {
        let mut latencies = NarrowPairedLatencies::default();
        assert_eq!((latencies.p99_ratio(ALPHA), latencies.pairs_until_below(2.0, ALPHA)), (None, None));
        let needed = pairs_min(ALPHA);
        assert_eq!(needed, 618, "`pointsman help gates` says so");
        for n in 1..=needed {
            latencies.count(ms(10.0), ms(12.0));
            let RatioInterval { at_least, at_most } = latencies.p99_ratio(ALPHA).unwrap();
            assert_eq!((at_least > 0.0, at_most.is_some()), (n == needed, n == needed), "{n}: {at_least} {at_most:?}");
        }
        let RatioInterval { at_least, at_most } = latencies.p99_ratio(ALPHA).unwrap();
        // Each of the two is known up to the width of a bucket.
        assert!(at_least > 1.2 / 1.1 && at_least < 1.2, "{at_least}");
        assert!(at_most.unwrap() > 1.2 && at_most.unwrap() < 1.2 * 1.1, "{at_most:?}");
    }

    #[test]
    fn the_interval_closes_in_on_the_ratio_of_the_percentiles() {
        let mut random = fastrand::Rng::with_seed(81);
        let mut latencies = NarrowPairedLatencies::default();
        let mut widths = Vec::new();
        for n in 1..=40_000 {
            latencies.count(ms(latency(&mut random)), ms(1.5 * latency(&mut random)));
            if [1_000, 6_000, 40_000].contains(&n) {
                let RatioInterval { at_least, at_most } = latencies.p99_ratio(ALPHA).unwrap();
                assert!(at_least < 1.5 && at_most.unwrap() > 1.5, "{n}: {at_least} {at_most:?}");
                widths.push(at_most.unwrap() / at_least);
            }
        }
        assert!(widths.is_sorted_by(|wide, narrow| wide > narrow) && widths[2] < 1.6, "{widths:?}");
    }

    #[test]
    fn the_number_of_pairs_that_it_takes_is_known_from_those_so_far() {
        let mut random = fastrand::Rng::with_seed(82);
        let mut latencies = NarrowPairedLatencies::default();
        let mut count = |latencies: &mut NarrowPairedLatencies, pairs: u64| {
            (0..pairs).for_each(|_| latencies.count(ms(latency(&mut random)), ms(latency(&mut random))));
        };
        count(&mut latencies, 3_000);
        let needed = latencies.pairs_until_below(1.4, ALPHA).unwrap();
        assert!(needed > 3_000, "{needed}");
        assert_eq!(latencies.pairs_until_below(0.9, ALPHA), None, "the ratio is 1");
        // Half as many again, since the pairs so far may have been luckier than those to come.
        count(&mut latencies, needed + needed / 2 - 3_000);
        assert!(latencies.p99_ratio(ALPHA).unwrap().at_most.unwrap() < 1.4, "{needed}");
    }

    #[test]
    fn latencies_beyond_the_outer_edges_do_not_bound_the_ratio() {
        let mut latencies = NarrowPairedLatencies::default();
        (0..2_000).for_each(|_| latencies.count(ms(0.0), ms(60_000.0)));
        let RatioInterval { at_least, at_most } = latencies.p99_ratio(ALPHA).unwrap();
        assert!(at_least > 1e6 && at_most.is_none(), "{at_least} {at_most:?}");
    }

    #[test]
    fn a_percentile_is_within_the_width_of_its_bucket_and_mostly_nearer() {
        let mut random = fastrand::Rng::with_seed(85);
        let (mut errors, mut counts) = (Vec::new(), NarrowLatencyCounts::default());
        assert_eq!(counts.percentile(0.99), None);
        for scale in [0.1, 1.0, 7.3, 40.0, 333.0, 2_500.0] {
            counts = NarrowLatencyCounts::default();
            let mut all: Vec<f64> = (0..5_000).map(|_| 0.05 + scale * latency(&mut random) / 20.0).collect();
            all.iter().for_each(|at| counts.count(ms(*at)));
            all.sort_by(f64::total_cmp);
            for share in [0.5, 0.9, 0.99] {
                let exact = all[(5_000.0 * share) as usize - 1];
                errors.push((counts.percentile(share).unwrap().as_secs_f64() * 1e3 / exact - 1.0).abs());
            }
        }
        let mean = errors.iter().sum::<f64>() / errors.len() as f64;
        assert!(errors.iter().all(|error| *error < 0.044) && mean < 0.01, "seed 85: {errors:?}");
        // However many there are, they take the same memory.
        counts.count(Duration::ZERO);
        counts.count(Duration::from_secs(86_400));
        assert_eq!((counts.0.len(), counts.percentile(1.0).map(|at| at.as_secs())), (BUCKETS, Some(20)));
    }

    /// 400 histories with a look after each of 20 blocks of 100 pairs, whose two latencies depend on each other.
    #[test]
    fn the_interval_holds_the_ratio_at_all_looks() {
        let mut random = fastrand::Rng::with_seed(83);
        let (mut ever_wrong, histories) = (0, 400);
        for _ in 0..histories {
            let mut latencies = NarrowPairedLatencies::default();
            let is_wrong = (0..20).any(|_| {
                for _ in 0..100 {
                    let legacy = latency(&mut random);
                    let engine = if random.bool() { legacy } else { latency(&mut random) };
                    latencies.count(ms(legacy), ms(1.5 * engine));
                }
                let RatioInterval { at_least, at_most } = latencies.p99_ratio(ALPHA).unwrap();
                at_least > 1.5 || at_most.is_some_and(|at_most| at_most < 1.5)
            });
            ever_wrong += u64::from(is_wrong);
        }
        assert!(ever_wrong <= 20, "seed 83: {ever_wrong} of {histories} is more than 5 %");
    }

    /// One end for one arm, on an edge that is the percentile itself, so that nothing is conservative but the test.
    #[test]
    fn each_end_is_wrong_in_at_most_a_quarter_of_the_error_rate() {
        let mut random = fastrand::Rng::with_seed(84);
        let thresholds: Vec<Thresholds> = (0..=1_500).map(|total| Thresholds::new(total, ALPHA / 4.0)).collect();
        let (mut too_low, mut too_high, histories) = (0, 0, 4_000);
        for _ in 0..histories {
            let mut above = 0;
            let (mut is_too_low, mut is_too_high) = (false, false);
            for at in &thresholds[1..] {
                above += u64::from(random.f64() < SLOWER);
                is_too_low |= at.below.is_some_and(|below| above <= below);
                is_too_high |= above >= at.above;
            }
            too_low += u64::from(is_too_low);
            too_high += u64::from(is_too_high);
        }
        assert!(
            too_low <= 50 && too_high <= 50,
            "seed 84: {too_low} and {too_high} of {histories} are more than 1.25 %"
        );
    }
}

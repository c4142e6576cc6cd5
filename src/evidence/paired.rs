//! Which of two arms has an outcome more often than the other, from pairs: a test and an interval that are valid
//! however often they are looked at.
//!
//! Of each pair, Z is 1 if only the first arm has the outcome, -1 if only the second one has it, and 0 otherwise. The
//! hypothesis "the mean of Z is at most d, in each pair given those before" is tested by betting against it: whoever
//! stakes the share λ of a capital of 1 on each pair has Π (1 + λ·(Zᵢ − d)) afterwards. Under the hypothesis that is a
//! supermartingale that starts at 1, and so is the mean over several λ; by Ville's inequality it ever reaches 1/α with
//! a probability of at most α. The interval has each d that neither this test nor its mirror image rejects at α/2.
//! (Ville 1939; I. Waudby-Smith, A. Ramdas: Estimating means of bounded random variables by betting, JRSS B 86, 2024.)
//!
//! Always true: the only assumption about the pairs is the hypothesis itself. So requests may be of different kinds,
//! and rates may change. Only counts are needed.

/// How many pairs there are, and in how many only one of the two arms had the outcome under test (for example a 5xx).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PairedCounts {
    /// All pairs.
    pub pairs: u64,
    /// Those in which only the first arm had the outcome.
    pub only_first: u64,
    /// Those in which only the second arm had the outcome.
    pub only_second: u64,
}

/// Stakes of equal weight that are spread evenly: for outcomes that are rare or have one sign.
const EVEN_STAKES: u32 = 20;
/// Stakes of equal weight in geometric steps up to [`SMALL_STAKE_MAX`]: for small differences in many pairs.
const SMALL_STAKES: u32 = 20;
const SMALL_STAKE_MIN: f64 = 0.001;
const SMALL_STAKE_MAX: f64 = 0.3;

impl PairedCounts {
    /// How strongly the pairs speak for a mean above `d` (between -1 and 1), as a natural logarithm.
    pub fn ln_evidence_above(self, d: f64) -> f64 {
        if d <= -1.0 {
            return f64::INFINITY;
        }
        let (first, second) = (self.only_first as f64, self.only_second as f64);
        let neither = self.pairs.saturating_sub(self.only_first + self.only_second) as f64;
        let capital = |share: f64| {
            // The highest stake that cannot lose more than all.
            let stake = share / (1.0 + d);
            first * (stake * (1.0 - d)).ln_1p() + second * (-share).ln_1p() + neither * (-stake * d).ln_1p()
        };
        let even = (0..EVEN_STAKES).map(|n| (f64::from(n) + 0.5) / f64::from(EVEN_STAKES));
        let step = (SMALL_STAKE_MAX / SMALL_STAKE_MIN).ln() / f64::from(SMALL_STAKES - 1);
        let small = (0..SMALL_STAKES).map(|n| SMALL_STAKE_MIN * (f64::from(n) * step).exp());
        ln_mean_exp(&even.chain(small).map(capital).collect::<Vec<_>>())
    }

    /// The same pairs with the arms exchanged.
    pub fn exchanged(self) -> Self {
        Self { only_first: self.only_second, only_second: self.only_first, ..self }
    }

    /// The interval of the mean of Z, the difference of the two rates, with a confidence of `1 - alpha` at all times
    /// simultaneously.
    pub fn interval(self, alpha: f64) -> (f64, f64) {
        (self.lower(alpha / 2.0), -self.exchanged().lower(alpha / 2.0))
    }

    /// The highest bound below which the mean is rejected.
    fn lower(self, alpha: f64) -> f64 {
        let limit = -alpha.ln();
        let (mut low, mut high) = (-1.0, 1.0);
        // The evidence falls with `d`.
        for _ in 0..50 {
            let middle = f64::midpoint(low, high);
            if self.ln_evidence_above(middle) >= limit { low = middle } else { high = middle }
        }
        low
    }
}

/// ln of the mean of the exponentials.
fn ln_mean_exp(values: &[f64]) -> f64 {
    let highest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if !highest.is_finite() {
        return highest;
    }
    let sum: f64 = values.iter().map(|value| (value - highest).exp()).sum();
    highest + (sum / values.len() as f64).ln()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counts(pairs: u64, only_first: u64, only_second: u64) -> PairedCounts {
        PairedCounts { pairs, only_first, only_second }
    }

    /// One pair in which the first arm has the outcome with the probability `first`, the second with `second`.
    fn draw(counts: &mut PairedCounts, first: f64, second: f64, random: &mut fastrand::Rng) {
        let (first, second) = (random.f64() < first, random.f64() < second);
        counts.pairs += 1;
        counts.only_first += u64::from(first && !second);
        counts.only_second += u64::from(second && !first);
    }

    proptest! {
        #[test]
        fn the_interval_holds_the_observed_difference_and_mirrors_the_arms(
            first in 0u64..400, second in 0u64..400, neither in 0u64..5_000,
        ) {
            let pairs = first + second + neither;
            let of = counts(pairs, first, second);
            let (low, high) = of.interval(0.05);
            let seen = (first as f64 - second as f64) / pairs.max(1) as f64;
            prop_assert!(low <= seen + 1e-9 && seen <= high + 1e-9, "{low} {seen} {high}");
            let (mirrored_low, mirrored_high) = of.exchanged().interval(0.05);
            prop_assert!((low + mirrored_high).abs() < 1e-9 && (high + mirrored_low).abs() < 1e-9);
        }

        #[test]
        fn the_evidence_falls_with_the_difference_that_is_tested(
            first in 0u64..50, second in 0u64..50, neither in 0u64..500, d in -0.99f64..0.98,
        ) {
            let of = counts(first + second + neither, first, second);
            prop_assert!(of.ln_evidence_above(d + 0.01) <= of.ln_evidence_above(d) + 1e-9);
        }

        /// The expected capital after one more pair, where the hypothesis is just true, is the capital before it.
        #[test]
        fn a_fair_bet_has_no_expected_gain(
            first in 0u64..40, second in 0u64..40, neither in 0u64..200, p in 0.0f64..0.5, q in 0.0f64..0.5,
        ) {
            let of = counts(first + second + neither, first, second);
            let d = p - q;
            let after = |first: u64, second: u64| {
                counts(of.pairs + 1, of.only_first + first, of.only_second + second).ln_evidence_above(d).exp()
            };
            let expected = p * after(1, 0) + q * after(0, 1) + (1.0 - p - q) * after(0, 0);
            let before = of.ln_evidence_above(d).exp();
            prop_assert!((expected / before - 1.0).abs() < 1e-9, "{expected} {before}");
        }
    }

    #[test]
    fn without_pairs_nothing_is_known() {
        let (low, high) = counts(0, 0, 0).interval(0.05);
        assert!(low < -0.999 && high > 0.999, "{low} {high}");
        assert!(counts(0, 0, 0).ln_evidence_above(0.0).abs() < 1e-12);
    }

    /// 2,000 histories of 300 pairs, with a look after each: rates that are equal, and rates that change from pair to
    /// pair and are equal within each pair.
    #[test]
    fn equal_rates_are_rarely_told_apart_however_often_one_looks() {
        let mut random = fastrand::Rng::with_seed(21);
        for drifts in [false, true] {
            let ever_wrong = (0..2_000)
                .filter(|_| {
                    let mut seen = counts(0, 0, 0);
                    (0..300).any(|n| {
                        let rate = if drifts { 0.02 + 0.6 * f64::from(n % 7) / 7.0 } else { 0.2 };
                        draw(&mut seen, rate, rate, &mut random);
                        // Looked at where the evidence may have risen.
                        seen.only_first > seen.only_second + 5 && seen.ln_evidence_above(0.0) >= -(0.05f64.ln())
                    })
                })
                .count();
            assert!(ever_wrong <= 100, "{ever_wrong} of 2000 is more than 5 %");
            assert!(ever_wrong >= 10, "{ever_wrong} of 2000: the test would be far too careful");
        }
    }

    /// The interval is looked at after each of 16 blocks of 50 pairs.
    #[test]
    fn the_interval_holds_the_true_difference_at_all_looks() {
        let mut random = fastrand::Rng::with_seed(22);
        for (first, second) in [(0.05, 0.02), (0.3, 0.3), (0.0, 0.1)] {
            let ever_wrong = (0..1_000)
                .filter(|_| {
                    let (mut seen, limit) = (counts(0, 0, 0), -(0.025f64.ln()));
                    (0..16).any(|_| {
                        (0..50).for_each(|_| draw(&mut seen, first, second, &mut random));
                        // The true difference is outside the interval where one of the two tests rejects it.
                        let d = first - second;
                        seen.ln_evidence_above(d) >= limit || seen.exchanged().ln_evidence_above(-d) >= limit
                    })
                })
                .count();
            assert!(ever_wrong <= 50, "{first} {second}: {ever_wrong} of 1000 is more than 5 %");
        }
    }

    /// A rate difference is found after about ln(1/α) / KL pairs, plus what it costs not to know the best stake, which
    /// grows like the half of the logarithm of the pairs.
    #[test]
    fn a_planted_difference_is_found_as_soon_as_theory_says() {
        let mut random = fastrand::Rng::with_seed(23);
        for (first, second) in [(0.3, 0.1), (0.05, 0.01), (0.02, 0.0)] {
            let mut needed: Vec<f64> = (0..300)
                .map(|_| {
                    let mut seen = counts(0, 0, 0);
                    loop {
                        draw(&mut seen, first, second, &mut random);
                        let more = seen.only_first > seen.only_second;
                        if more && seen.ln_evidence_above(0.0) >= -(0.05f64.ln()) {
                            return seen.pairs as f64;
                        }
                    }
                })
                .collect();
            needed.sort_by(f64::total_cmp);
            let mean = needed.iter().sum::<f64>() / needed.len() as f64;
            let expected = expected_pairs(first, second);
            assert!((mean / expected - 1.0).abs() < 0.2, "{first} {second}: {mean} pairs and not {expected}");
        }
    }

    /// The number of pairs after which a bettor who knows only the counts has twenty times the capital, where each of
    /// the counts has its expected value; by Wald's equation the mean of the random number is close to that.
    fn expected_pairs(first: f64, second: f64) -> f64 {
        let (plus, minus) = (first * (1.0 - second), second * (1.0 - first));
        let evidence = |n: f64| {
            let even = (0..EVEN_STAKES).map(|k| (f64::from(k) + 0.5) / f64::from(EVEN_STAKES));
            let capital = |x: f64| n * (plus * x.ln_1p() + minus * (-x).ln_1p());
            // Half of the weight; the small stakes win little here.
            ln_mean_exp(&even.map(capital).collect::<Vec<_>>()) + 0.5f64.ln()
        };
        (1..100_000).map(f64::from).find(|n| evidence(*n) >= 20f64.ln()).unwrap()
    }
}

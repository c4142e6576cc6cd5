//! The upper bound of a mismatch rate.

use crate::flag::ln_evidence_below;

/// The accepted probability that the bound is ever too low, no matter how often it is read.
pub(super) const ALPHA: f64 = 0.05;

/// The anytime-valid 95 % upper bound of the mismatch rate, after `mismatches` in `pairs`: the highest rate
/// that is not rejected. A rate `p` is rejected once the pairs are twenty times likelier under a uniform distribution
/// of the rate below `p` than under `p` itself. By Ville's inequality the bound is valid at all times simultaneously.
pub(super) fn upper(pairs: u64, mismatches: u64) -> f64 {
    upper_after(0, pairs, mismatches)
}

/// The anytime-valid 95 % lower bound of a rate; see [`upper`].
pub(super) fn lower(all: u64, bad: u64) -> f64 {
    1.0 - upper(all, all.saturating_sub(bad))
}

/// Whether [`upper`] is below this rate, without a search for the bound.
pub(super) fn is_below(all: u64, bad: u64, rate: f64) -> bool {
    (bad as f64) < rate * all as f64 && ln_evidence_below(rate, all as f64, bad as f64) > ln_limit(0)
}

/// How strong the evidence of pairs against a rate must be to reject it, as a natural logarithm, if counting was
/// started over `restarts` times after a mismatch; see [`upper_after`].
pub(super) fn ln_limit(restarts: u32) -> f64 {
    -ALPHA.ln() + f64::from(restarts) * 4_f64.ln()
}

/// As [`upper`], if counting was started over `restarts` times after a mismatch. After each restart, rejecting a rate
/// takes four times the evidence. So the bound is ever too low with a probability of at most
/// 5 % · (1 + 1/4 + 1/16 + …) = 6.7 %, however often somebody starts over.
pub(super) fn upper_after(restarts: u32, pairs: u64, mismatches: u64) -> f64 {
    let ln_limit = ln_limit(restarts);
    if pairs == 0 || mismatches >= pairs {
        return 1.0;
    }
    let (mut low, mut high) = (mismatches as f64 / pairs as f64, 1.0);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if ln_evidence_below(middle, pairs as f64, mismatches as f64) < ln_limit { low = middle } else { high = middle }
    }
    high
}

/// The smallest number of pairs, all without a mismatch, whose bound [`upper_after`] is below a rate.
pub(super) fn clean_pairs_after(restarts: u32, rate: f64) -> u64 {
    let (mut low, mut high) = (0u64, 1u64);
    while upper_after(restarts, high, 0) >= rate {
        low = high;
        high = high.saturating_mul(2);
        if high > 1 << 40 {
            return high;
        }
    }
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if upper_after(restarts, middle, 0) < rate { high = middle } else { low = middle }
    }
    high
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_mismatch_the_bound_has_the_published_values() {
        for (rate, pairs) in [(0.01, 449), (0.001, 4_512), (0.0001, 45_137)] {
            let needed = clean_pairs_after(0, rate);
            assert!(needed.abs_diff(pairs) <= 1, "{rate}: {needed} and not {pairs}");
        }
    }

    #[test]
    fn each_start_after_a_mismatch_takes_more_pairs() {
        let needed = [0, 1, 2, 3].map(|restarts| clean_pairs_after(restarts, 0.001));
        assert!(needed.windows(2).all(|pair| pair[0] + 1_000 < pair[1]), "{needed:?}");
    }

    /// Somebody starts over after each mismatch until the bound says that the rate is below the limit, which it is not.
    #[test]
    fn starting_over_after_each_mismatch_does_not_fool_the_bound() {
        let (rate, limit) = (0.03, 0.03);
        let needed: Vec<u64> = (0..16).map(|restarts| clean_pairs_after(restarts, limit)).collect();
        let is_fooled = |adapts: bool, random: &mut fastrand::Rng| {
            (0..16).any(|restarts| {
                let pairs = needed[if adapts { restarts } else { 0 }];
                (0..pairs).all(|_| random.f64() >= rate)
            })
        };
        let mut random = fastrand::Rng::with_seed(11);
        let fooled =
            |adapts: bool, random: &mut fastrand::Rng| (0..4_000).filter(|_| is_fooled(adapts, random)).count();
        let (with, without) = (fooled(true, &mut random), fooled(false, &mut random));
        assert!(with <= 268, "{with} of 4000 is more than 6.7 %");
        assert!(without > with, "it would be fooled more often without that: {without}, {with}");
    }

    #[test]
    fn the_bound_is_above_the_rate_and_falls_with_more_pairs_at_the_same_rate() {
        for (pairs, hits) in [(1, 0), (20, 0), (20, 1), (20, 19), (1_000, 37), (1_000_000, 12)] {
            let (bound, later) = (upper(pairs, hits), upper(pairs * 10, hits * 10));
            assert!(bound > hits as f64 / pairs as f64 && bound <= 1.0, "{pairs} {hits} {bound}");
            assert!(later < bound, "{pairs} {hits}");
        }
        assert_eq!((upper(0, 0), upper(5, 5)), (1.0, 1.0));
        assert!(upper(1_000, 1) > upper(1_000, 0));
    }

    #[test]
    fn the_bound_holds_however_often_it_is_read() {
        // 2,000 histories of 300 pairs at a true rate of 3 %: in how many is the bound ever below it?
        let mut random = fastrand::Rng::with_seed(7);
        let table: Vec<Vec<f64>> = (0..=30).map(|k| (0..=300).map(|n| upper(n.max(k), k)).collect()).collect();
        let ever_wrong = (0..2_000)
            .filter(|_| {
                let mut hits = 0usize;
                (1..=300).any(|n| {
                    hits += usize::from(random.f64() < 0.03);
                    table[hits.min(30)][n] < 0.03
                })
            })
            .count();
        assert!(ever_wrong <= 100, "{ever_wrong} of 2000 is more than 5 %");
    }
}

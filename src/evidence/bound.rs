//! The upper bound of a mismatch rate.

/// The accepted probability that the bound is ever too low, no matter how often it is read.
const ALPHA: f64 = 0.05;

/// The anytime-valid 95 % upper bound of the mismatch rate, after `mismatches` in `pairs`: the highest rate
/// that is not rejected. A rate `p` is rejected once the pairs are twenty times likelier under a uniform distribution
/// of the rate below `p` than under `p` itself. By Ville's inequality the bound is valid at all times simultaneously.
pub(super) fn upper(pairs: u64, mismatches: u64) -> f64 {
    upper_after(0, pairs, mismatches)
}

/// The bound where counting was started over so many times after a mismatch: each time a rate is rejected only for four
/// times the evidence. So the bound is ever too low with a probability of at most 5 % · (1 + 1/4 + 1/16 + …) = 6.7 %,
/// however often somebody starts over.
pub(super) fn upper_after(restarts: u32, pairs: u64, mismatches: u64) -> f64 {
    let ln_limit = -ALPHA.ln() + f64::from(restarts) * 4_f64.ln();
    if pairs == 0 || mismatches >= pairs {
        return 1.0;
    }
    let (mut low, mut high) = (mismatches as f64 / pairs as f64, 1.0);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if ln_evidence_against(middle, pairs as f64, mismatches as f64) < ln_limit {
            low = middle
        } else {
            high = middle
        }
    }
    high
}

/// The smallest number of pairs without a mismatch whose bound is below a rate, where counting was started over so many
/// times after a mismatch.
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

/// Returns the natural logarithm of ∫₀ᵖ qᵏ(1−q)ⁿ⁻ᵏ dq / (p · pᵏ(1−p)ⁿ⁻ᵏ).
fn ln_evidence_against(p: f64, n: f64, k: f64) -> f64 {
    if p >= 1.0 {
        return f64::INFINITY;
    }
    let (a, b) = (k + 1.0, n - k + 1.0);
    // pᵃ(1−p)ᵇ / B(a, b), the factor in front of the continued fraction of the incomplete beta function.
    let ln_front = ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * p.ln() + b * (-p).ln_1p();
    if p < (a + 1.0) / (a + b + 2.0) {
        // `ln_front` is not needed: it cancels against the denominator, except for one factor `1 - p`.
        (fraction(p, a, b) / a).ln() + (-p).ln_1p()
    } else {
        let rest = (ln_front.exp() * fraction(1.0 - p, b, a) / b).min(1.0);
        (-rest).ln_1p() + (-p).ln_1p() - ln_front
    }
}

/// The continued fraction of the incomplete beta function (modified Lentz).
fn fraction(x: f64, a: f64, b: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let guard = |value: f64| if value.abs() < TINY { TINY } else { value };
    let mut c = 1.0;
    let mut d = 1.0 / guard(1.0 - (a + b) * x / (a + 1.0));
    let mut h = d;
    for m in 1..10_000u32 {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        d = 1.0 / guard(1.0 + even * d);
        c = guard(1.0 + even / c);
        h *= d * c;
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        d = 1.0 / guard(1.0 + odd * d);
        c = guard(1.0 + odd / c);
        h *= d * c;
        if (d * c - 1.0).abs() < 1e-12 {
            break;
        }
    }
    h
}

/// `ln Γ(x)` for x ≥ 1 (Lanczos).
fn ln_gamma(x: f64) -> f64 {
    const TERMS: [f64; 6] = [
        76.180_091_729_471_46,
        -86.505_320_329_416_77,
        24.014_098_240_830_91,
        -1.231_739_572_450_155,
        0.120_865_097_386_617_9e-2,
        -0.539_523_938_495_3e-5,
    ];
    let t = x + 5.5;
    let series: f64 = TERMS.iter().enumerate().map(|(n, term)| term / (x + 1.0 + n as f64)).sum();
    (x + 0.5) * t.ln() - t + (2.506_628_274_631_000_5 * (1.000_000_000_190_015 + series) / x).ln()
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

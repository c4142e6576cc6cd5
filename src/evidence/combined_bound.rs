//! The upper bound of the rate of requests that would differ, over all kinds of requests as legacy served them.
//!
//! The pooled bound says what share of the *compared* pairs differs. If a kind of request is compared less often than
//! it is served, the share of the *served* requests is another one. Here each kind has its own unknown rate, and the
//! rate of all is the mean of these rates, weighted by how many requests of each kind legacy served.
//!
//! For each kind, the likelihood ratio of `bound` against a rate p is a martingale that starts at 1 if p is the true
//! rate. Their product over the kinds is one too, in whatever order the pairs come, so the vectors of rates whose
//! product is below 1/α hold the true vector at all times simultaneously with a probability of 1 - α (Ville 1939). The
//! bound is the highest weighted mean over that set: J. Spertus, P. Stark: Sweeter than SUITE: supermartingale
//! stratified union-intersection tests of elections, 2022, with the maximum in place of their minimum. It is computed
//! from its Lagrange dual, which is never below the maximum, so that a search that ends early only gives a higher
//! bound.
//!
//! Always true: a kind of which nothing was compared counts as if all of it differed.

use super::bound::ln_limit;
use crate::flag::ln_evidence_below;

/// Steps of the searches, each of which divides its interval by 1.6.
const STEPS: u32 = 28;
/// The smallest distance from the observed rate that is looked at, in pairs.
const NEAREST: f64 = 1e-3;
/// The reciprocal of the golden ratio.
const GOLDEN: f64 = 0.618_033_988_749_895;

/// One kind of request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Stratum {
    /// How many requests legacy served.
    pub served: u64,
    /// How many of them were compared.
    pub compared: u64,
    /// How many of these differ.
    pub mismatched: u64,
}

impl Stratum {
    fn observed_rate(self) -> f64 {
        self.mismatched as f64 / self.compared.max(1) as f64
    }

    /// How strongly the pairs of this kind speak against a rate of `p` and for a lower one, as a natural logarithm.
    pub fn ln_evidence_below(self, p: f64) -> f64 {
        let (n, k) = (self.compared as f64, self.mismatched as f64);
        match (self.compared, self.mismatched) {
            (0, _) => 0.0,
            _ if p >= 1.0 => f64::INFINITY,
            (_, 0) if p <= 0.0 => 0.0,
            // ln of ∫₀ᵖ (1−q)ⁿ dq / (p · (1−p)ⁿ)
            (_, 0) => {
                let ln_rest = (n + 1.0) * (-p).ln_1p();
                (-ln_rest.exp_m1()).ln() - ((n + 1.0) * p).ln() - n * (-p).ln_1p()
            }
            _ => ln_evidence_below(p, n, k),
        }
    }

    /// The highest value of `weight · p - price · evidence(p)` over all rates p, or an upper bound of it.
    fn highest(self, weight: f64, price: f64) -> f64 {
        if self.compared == 0 {
            return weight;
        }
        let value = |p: f64| weight * p - price * self.ln_evidence_below(p);
        // Below the observed rate the evidence is negative, and at least -ln(k + 1).
        let below = weight * self.observed_rate() + price * (self.mismatched as f64).ln_1p();
        // Above it the evidence is convex, so there is one maximum. It is searched for in the logarithm of the
        // distance: with many pairs it is close to the observed rate.
        let (observed, nearest) = (self.observed_rate(), (NEAREST / (self.compared as f64 + 1.0)).ln());
        let top = golden_max(nearest, -1e-9, |ln| value(observed + (1.0 - observed) * ln.exp()));
        top.max(value(observed)).max(below)
    }
}

/// The bound; 1 without any request. `restarts`: as in [`super::bound::upper_after`].
pub(super) fn upper(restarts: u32, strata: &[Stratum]) -> f64 {
    let served: u64 = strata.iter().map(|stratum| stratum.served.max(stratum.compared)).sum();
    if served == 0 || strata.iter().all(|stratum| stratum.compared == 0) {
        return 1.0;
    }
    let limit = ln_limit(restarts);
    let dual = |ln_price: f64| {
        let price = ln_price.exp();
        let weight = |stratum: &Stratum| stratum.served.max(stratum.compared) as f64 / served as f64;
        price * limit + strata.iter().map(|stratum| stratum.highest(weight(stratum), price)).sum::<f64>()
    };
    // The dual is convex in the price, so it has one minimum over its logarithm too.
    let lowest = -golden_max(-30.0, 3.0, |ln_price| -dual(ln_price));
    lowest.clamp(0.0, 1.0)
}

/// The highest value that a search by golden sections finds.
fn golden_max(low: f64, high: f64, value: impl Fn(f64) -> f64) -> f64 {
    let (mut low, mut high) = (low, high);
    let (mut a, mut b) = (high - GOLDEN * (high - low), low + GOLDEN * (high - low));
    let (mut at_a, mut at_b) = (value(a), value(b));
    let mut best = value(low).max(at_a).max(at_b);
    for _ in 0..STEPS {
        if at_a < at_b {
            (low, a, at_a) = (a, b, at_b);
            b = low + GOLDEN * (high - low);
            at_b = value(b);
        } else {
            (high, b, at_b) = (b, a, at_a);
            a = high - GOLDEN * (high - low);
            at_a = value(a);
        }
        best = best.max(at_a).max(at_b);
    }
    best
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::bound::upper_after;
    use super::*;

    fn stratum(served: u64, compared: u64, mismatched: u64) -> Stratum {
        Stratum { served, compared, mismatched }
    }

    #[test]
    fn one_kind_that_is_compared_whole_has_the_pooled_bound() {
        for (pairs, mismatched) in [(20, 0), (4_512, 0), (500, 7)] {
            let (combined, pooled) =
                (upper(0, &[stratum(pairs, pairs, mismatched)]), upper_after(0, pairs, mismatched));
            assert!((combined / pooled - 1.0).abs() < 0.01, "{pairs}: {combined} and not {pooled}");
        }
    }

    #[test]
    fn a_kind_that_was_not_compared_counts_as_if_it_differed() {
        let bound = upper(0, &[stratum(9_000, 9_000, 0), stratum(1_000, 0, 0)]);
        assert!((0.1..0.102).contains(&bound), "{bound}");
        assert_eq!((upper(0, &[]), upper(0, &[stratum(5, 0, 0)])), (1.0, 1.0));
    }

    /// A kind that is served as often as another and compared a hundred times less often has its share of the bound.
    #[test]
    fn a_kind_that_is_compared_less_often_is_weighted_as_it_is_served() {
        let pooled = upper_after(0, 10_100, 0);
        let bound = upper(0, &[stratum(10_000, 10_000, 0), stratum(10_000, 100, 0)]);
        assert!(bound > 20.0 * pooled, "{bound} {pooled}");
        assert!(upper(1, &[stratum(900, 900, 0)]) > upper(0, &[stratum(900, 900, 0)]));
    }

    fn strata() -> impl Strategy<Value = Vec<(Stratum, f64)>> {
        let one = (1u64..3_000, 0.0f64..=1.0, 0.0f64..0.1, 0.0f64..0.2).prop_map(|(served, share, rate, p)| {
            let compared = (served as f64 * share) as u64;
            (stratum(served, compared, (compared as f64 * rate) as u64), p)
        });
        proptest::collection::vec(one, 1..5)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        /// The bound is not below the mean of any rates that the product does not reject.
        #[test]
        fn the_bound_covers_all_rates_that_are_not_rejected(strata in strata()) {
            let evidence: f64 = strata.iter().map(|(stratum, p)| stratum.ln_evidence_below(*p)).sum();
            prop_assume!(evidence < ln_limit(0));
            let served: u64 = strata.iter().map(|(stratum, _)| stratum.served).sum();
            let mean: f64 = strata.iter().map(|(stratum, p)| stratum.served as f64 * p).sum::<f64>() / served as f64;
            let kinds: Vec<Stratum> = strata.iter().map(|(stratum, _)| *stratum).collect();
            prop_assert!(upper(0, &kinds) >= mean - 1e-9, "{} {mean}", upper(0, &kinds));
        }
    }

    /// 4,000 histories of three kinds, in how many is the true rate ever above the bound? With the property above it
    /// never is while the product does not reject the true rates, which is looked at after each pair.
    #[test]
    fn the_bound_holds_however_often_it_is_read() {
        let mut random = fastrand::Rng::with_seed(31);
        let rates = [0.002, 0.03, 0.2];
        let table = |rate: f64, pairs: u64| -> Vec<Vec<f64>> {
            let row = |n: u64| (0..=n.min(60)).map(|k| stratum(n, n, k).ln_evidence_below(rate)).collect();
            (0..=pairs).map(row).collect()
        };
        let tables = rates.map(|rate| table(rate, 160));
        let ever_wrong = (0..4_000)
            .filter(|_| {
                let (mut pairs, mut differ) = ([0usize; 3], [0usize; 3]);
                (0..240).any(|_| {
                    let kind = random.usize(..3);
                    if pairs[kind] < 160 && differ[kind] < 60 {
                        pairs[kind] += 1;
                        differ[kind] += usize::from(random.f64() < rates[kind]);
                    }
                    let evidence: f64 = (0..3).map(|kind| tables[kind][pairs[kind]][differ[kind]]).sum();
                    evidence >= ln_limit(0)
                })
            })
            .count();
        assert!(ever_wrong <= 200, "{ever_wrong} of 4000 is more than 5 %");
    }

    /// Somebody changes the rules after each mismatch until the bound is below a limit that the true rate is above.
    #[test]
    fn starting_over_after_each_mismatch_does_not_fool_the_bound() {
        let mut random = fastrand::Rng::with_seed(32);
        let (rate, limit) = (0.05, 0.05);
        // The kinds alternate, so the bound depends on the number of pairs alone while none differs.
        let bound = |restarts: u32, pairs: u64| {
            upper(restarts, &[stratum(pairs, pairs.div_ceil(2), 0), stratum(pairs, pairs / 2, 0)])
        };
        let needed: Vec<u64> = (0..12)
            .map(|restarts| {
                let (mut low, mut high) = (1, 1_000);
                while high - low > 1 {
                    let middle = u64::midpoint(low, high);
                    if bound(restarts, middle) < limit { high = middle } else { low = middle }
                }
                high
            })
            .collect();
        let fooled =
            (0..4_000).filter(|_| needed.iter().any(|pairs| (0..*pairs).all(|_| random.f64() >= rate))).count();
        assert!(fooled <= 268, "{fooled} of 4000 is more than 6.7 %");
    }
}

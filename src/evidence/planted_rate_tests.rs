//! Simulations with planted rates: after how many pairs the two bounds, and the guard, tell the rate from the limit.
//!
//! Theory: after `n` pairs at the rate `r`, a uniform mixture of the rates in an interval of length `w` is likelier
//! than the limit `p` by `n·KL(r, p) + 1/2 − ln w − ½ ln(n / (2π r (1−r)))`, as a natural logarithm and in the mean.
//! That is Laplace's approximation of the integral over the mixture; the 1/2 is what the observed rate gains over the
//! true one. The mean number of pairs until this reaches a threshold is close to the `n` at which the mean does: H.
//! Robbins, D. Siegmund: The expected sample size of some tests of power one, Ann. Statist. 2, 1974; M. Pollak, D.
//! Siegmund: Approximations to the expected sample size of certain sequential tests, Ann. Statist. 3, 1975. What the
//! last pair exceeds the threshold by is neglected. Laplace's approximation needs a few bad pairs, so no planted rate
//! is 0: how many pairs it takes without a difference is known exactly, and tested in `bound`.

use std::f64::consts::PI;

use super::bound::{self, ALPHA};
use super::combined_bound::{self, Stratum};
use super::guard_window::GuardWindow;
use crate::flag::ln_evidence_below;

/// By how much the mean number of pairs may differ from theory.
const TOLERANCE: f64 = 0.2;

/// One kind of request, as it is planted.
#[derive(Clone, Copy)]
struct Planted {
    /// Its share among the requests that legacy serves.
    served: f64,
    /// The share of these that is compared.
    compared: f64,
    /// The rate of pairs that differ.
    rate: f64,
}

/// The mean of ln(r / p) at the rate r: how much a pair speaks against the rate p.
fn divergence(r: f64, p: f64) -> f64 {
    r * (r / p).ln() + (1.0 - r) * ((1.0 - r) / (1.0 - p)).ln()
}

/// What the mixture loses to the true rate after so many pairs, with an interval of length `width`.
fn mixture_loss(pairs: f64, rate: f64, width: f64) -> f64 {
    width.ln() + 0.5 * (pairs / (2.0 * PI * rate * (1.0 - rate))).ln()
}

/// The `n` with `n = needed(n)`, by iteration: `needed` grows with the logarithm of `n`.
fn fixed_point(needed: impl Fn(f64) -> f64) -> f64 {
    (0..200).fold(100.0, |n, _| needed(n))
}

/// The pairs that theory says it takes to tell `rate` from `limit`.
fn expected_pairs(rate: f64, limit: f64, width: f64, ln_threshold: f64) -> f64 {
    fixed_point(|n| (ln_threshold + mixture_loss(n, rate, width) - 0.5) / divergence(rate, limit))
}

fn check(what: &str, seed: u64, needed: &[u64], expected: f64) {
    let mean = needed.iter().sum::<u64>() as f64 / needed.len() as f64;
    println!("{what}, seed {seed}: {mean:.0} pairs in the mean, {expected:.0} in theory");
    assert!((mean / expected - 1.0).abs() < TOLERANCE, "{what}, seed {seed}: {mean} pairs and not {expected}");
}

/// The interval is from 0 to the limit: `w = p`.
#[test]
fn the_bound_falls_below_a_limit_as_soon_as_theory_says() {
    for (seed, limit, rate) in [(51, 0.01, 0.004), (52, 0.02, 0.01), (53, 0.05, 0.01), (54, 0.2, 0.1)] {
        let mut random = fastrand::Rng::with_seed(seed);
        let pairs_until_below = |random: &mut fastrand::Rng| {
            let (mut pairs, mut differ) = (0, 0);
            loop {
                pairs += 1;
                differ += u64::from(random.f64() < rate);
                // The bound takes longer to compute and is below the limit only if the limit is rejected.
                let may_be_below = ln_evidence_below(limit, pairs as f64, differ as f64) >= bound::ln_limit(0);
                if may_be_below && bound::upper(pairs, differ) < limit {
                    return pairs;
                }
            }
        };
        let needed: Vec<u64> = (0..200).map(|_| pairs_until_below(&mut random)).collect();
        let expected = expected_pairs(rate, limit, limit, -ALPHA.ln());
        check(&format!("the bound at a rate of {rate} and a limit of {limit}"), seed, &needed, expected);
    }
}

/// The rates of the two kinds with a weighted mean of `limit` that are hardest to reject, and how much a request speaks
/// against them: the minimum of Σ c·KL(r, p) where Σ w·p is the limit.
fn nearest_rates(kinds: [Planted; 2], limit: f64) -> (f64, [f64; 2]) {
    let parts = 20_000;
    let [a, b] = kinds;
    let rates = (1..parts).map(|part| limit / a.served * f64::from(part) / f64::from(parts)).map(|of_a| {
        let rates = [of_a, (limit - a.served * of_a) / b.served];
        let information: f64 =
            kinds.iter().zip(rates).map(|(kind, p)| kind.served * kind.compared * divergence(kind.rate, p)).sum();
        (information, rates)
    });
    let allowed = rates.filter(|(_, [of_a, of_b])| *of_a > a.rate && *of_b > b.rate && *of_a < 1.0 && *of_b < 1.0);
    allowed.min_by(|(left, _), (right, _)| left.total_cmp(right)).unwrap()
}

/// The combined bound falls below the limit once all vectors of rates whose mean is the limit are rejected, so the
/// nearest one decides. Each kind has a mixture of its own, and loses by it; the gain of 1/2 is there once, because of
/// the rates that were observed only their distance to the hyperplane of these vectors counts.
#[test]
fn the_combined_bound_falls_below_a_limit_as_soon_as_theory_says() {
    let kind = |served: f64, compared: f64, rate: f64| Planted { served, compared, rate };
    let cases = [
        (61, [kind(0.5, 1.0, 0.05), kind(0.5, 1.0, 0.1)], 0.13),
        (62, [kind(0.5, 1.0, 0.1), kind(0.5, 1.0, 0.2)], 0.25),
        // The kind that differs more often is compared less often than the other one.
        (63, [kind(0.7, 1.0, 0.2), kind(0.3, 0.5, 0.3)], 0.35),
    ];
    for (seed, kinds, limit) in cases {
        let (information, nearest) = nearest_rates(kinds, limit);
        let expected = fixed_point(|n| {
            let loss = |(kind, p): (&Planted, f64)| mixture_loss(n * kind.served * kind.compared, kind.rate, p);
            let losses: f64 = kinds.iter().zip(nearest).map(loss).sum();
            (-ALPHA.ln() + losses - 0.5) / information
        });
        // The bound is looked at about a dozen times, since it takes long to compute.
        let step = (expected / 12.0).ceil() as u64;
        let mut random = fastrand::Rng::with_seed(seed);
        let needed: Vec<u64> =
            (0..100).map(|_| requests_until_below(kinds, limit, nearest, step, &mut random)).collect();
        check(&format!("the combined bound, case {seed}, a limit of {limit}"), seed, &needed, expected);
    }
}

/// The number of requests until the combined bound is below the limit, looked at after each `step` of them.
fn requests_until_below(
    kinds: [Planted; 2],
    limit: f64,
    nearest: [f64; 2],
    step: u64,
    random: &mut fastrand::Rng,
) -> u64 {
    let mut counts = [Stratum { served: 0, compared: 0, mismatched: 0 }; 2];
    for requests in 1.. {
        let of = usize::from(random.f64() >= kinds[0].served);
        counts[of].served += 1;
        if random.f64() < kinds[of].compared {
            counts[of].compared += 1;
            counts[of].mismatched += u64::from(random.f64() < kinds[of].rate);
        }
        if requests % step != 0 {
            continue;
        }
        // While these rates are not rejected, the bound is not below their mean.
        let evidence: f64 = counts.iter().zip(nearest).map(|(kind, p)| kind.ln_evidence_below(p)).sum();
        // The weights are those that were served, not the planted ones; half a step is the mean delay of a look.
        if evidence >= 0.8 * bound::ln_limit(0) && combined_bound::upper(0, &counts) < limit {
            return requests - step / 2;
        }
    }
    unreachable!("the number of requests is not bounded")
}

/// A rate above the accepted one. The interval is from the accepted rate to 1: `w = 1 − p`, and the threshold is the
/// 100,000 of `flag::GuardRule`. The guard tests from each bad request on, and acts on the start that says most, which
/// makes it a few percent quicker than a test with one start (G. Lorden: Procedures for reacting to a change in
/// distribution, Ann. Math. Statist. 42, 1971).
#[test]
fn the_guard_knows_a_rate_to_be_above_the_accepted_one_as_soon_as_theory_says() {
    for (seed, accepted, rate) in [(71, 0.01, 0.05), (72, 0.01, 0.1), (73, 0.001, 0.01), (74, 0.1, 0.2)] {
        let mut random = fastrand::Rng::with_seed(seed);
        let pairs_until_acting = |random: &mut fastrand::Rng| {
            // So long a window that it does not end before the rate is known.
            let mut window = GuardWindow::new(accepted, 5_000, 5);
            (1..).find(|_| window.count(random.f64() < rate)).unwrap()
        };
        let needed: Vec<u64> = (0..200).map(|_| pairs_until_acting(&mut random)).collect();
        let expected = expected_pairs(rate, accepted, 1.0 - accepted, 100_000_f64.ln());
        check(&format!("the guard at a rate of {rate} where {accepted} is accepted"), seed, &needed, expected);
    }
}

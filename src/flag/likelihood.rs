//! How strongly counts speak against a rate: the likelihood ratio of a uniform mixture of rates to that one rate.
//!
//! By Ville's inequality the ratio ever exceeds `1/α` with a probability of at most `α` if the rate is the true one,
//! however often it is looked at.

/// How much likelier `k` bad ones of `n` are under a uniform distribution of the rate below `p` than under `p` itself,
/// as a natural logarithm: ln (∫₀ᵖ qᵏ(1−q)ⁿ⁻ᵏ dq / (p · pᵏ(1−p)ⁿ⁻ᵏ)).
pub fn ln_evidence_below(p: f64, n: f64, k: f64) -> f64 {
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

/// As [`ln_evidence_below`], under a uniform distribution of the rate above `p`.
pub fn ln_evidence_above(p: f64, n: f64, k: f64) -> f64 {
    if p <= 0.0 {
        return if k > 0.0 { f64::INFINITY } else { 0.0 };
    }
    ln_evidence_below(1.0 - p, n, n - k)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against the integral, by the midpoint rule.
    #[test]
    fn the_evidence_is_the_ratio_of_the_integral_to_the_likelihood() {
        for (p, n, k) in [(0.01, 3.0, 3.0), (0.01, 500.0, 9.0), (0.1, 40.0, 11.0), (0.5, 30.0, 24.0), (0.001, 2.0, 0.0)]
        {
            let parts = 200_000;
            let width = (1.0 - p) / f64::from(parts);
            let ln_likelihood = |q: f64| k * f64::ln(q) + (n - k) * f64::ln(1.0 - q);
            let ratio = |part: i32| (ln_likelihood(p + (f64::from(part) + 0.5) * width) - ln_likelihood(p)).exp();
            let mean: f64 = (0..parts).map(ratio).sum::<f64>() / f64::from(parts);
            let found = ln_evidence_above(p, n, k);
            assert!((found - mean.ln()).abs() < 1e-3, "{p} {n} {k}: {found} and not {}", mean.ln());
        }
        assert_eq!((ln_evidence_above(0.0, 9.0, 1.0), ln_evidence_above(0.0, 9.0, 0.0)), (f64::INFINITY, 0.0));
    }
}

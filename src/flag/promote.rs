//! What the gates require of a route's evidence (`promote:`).

use std::time::Duration;

use super::StratumKey;

/// What the gates require of a route's evidence before the route goes up a rung.
///
/// The defaults are for routes that move money: 4,512 equal pairs are as many as it takes to say with 95 % confidence,
/// however often the evidence was looked at meanwhile, that fewer than one request in 1,000 differs.
#[derive(Clone, Debug, PartialEq)]
pub struct Promote {
    /// Compared pairs required for `dark` and, made in `dark`, for `live`. Pairs that both arms answered with an error
    /// do not count.
    pub pairs: u64,
    /// The rate that the upper bound of the mismatch rate has to be below, from 0 to 1; 1 asks for nothing.
    pub mismatch_below: f64,
    /// How many pairs may differ.
    pub open_differences: u64,
    /// The lowest share of requests that were compared, from 0 to 1.
    pub coverage_at_least: f64,
    /// Compared pairs required of each kind of request that legacy served.
    pub strata_at_least: u64,
    /// The key whose values are kinds of requests of their own; `None`: kinds are told apart without one.
    pub strata_by: Option<StratumKey>,
    /// Whether each shared step has to be held against a call by legacy, an `assert` or `unseen:`.
    pub effects_compared: bool,
    /// By how much the share of the engine's errors may exceed that of legacy, from 0 to 1.
    pub errors_not_worse_by: f64,
    /// By how much more often than legacy from itself the engine may differ at a place of noise, as an upper bound,
    /// from 0 to 1; 1 asks for nothing.
    pub noise_not_worse_by: f64,
    /// The ratio that the engine's 99th percentile of latency to legacy's has to be below, as an upper bound; `None`
    /// asks for nothing.
    pub p99_ratio_below: Option<f64>,
    /// How old the last pair or answer may be.
    pub age_at_most: Duration,
    /// Answers of the engine without an error, within `window`, that are required for `only`.
    pub answers: u64,
    /// For how long the engine has to have answered before `only`, and the time whose answers and errors count; at most
    /// a week.
    pub window: Duration,
}

impl Default for Promote {
    fn default() -> Self {
        Self {
            pairs: 4_512,
            mismatch_below: 0.001,
            open_differences: 0,
            coverage_at_least: 0.95,
            strata_at_least: 1,
            strata_by: None,
            effects_compared: true,
            errors_not_worse_by: 0.001,
            noise_not_worse_by: 0.05,
            p99_ratio_below: None,
            age_at_most: Duration::from_secs(24 * 3_600),
            answers: 4_512,
            window: Duration::from_secs(24 * 3_600),
        }
    }
}

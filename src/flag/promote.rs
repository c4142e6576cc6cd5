//! What the gates require of a route's evidence (`promote:`).

use std::collections::BTreeMap;
use std::time::Duration;

use super::StratumKey;

/// What the gates require of a route's evidence before the route goes up a rung.
///
/// The defaults are for routes that move money: 4,512 equal pairs are as many as it takes to say with 95 % confidence,
/// however often the evidence was looked at meanwhile, that fewer than one request in 1,000 differs.
#[derive(Clone, Debug, PartialEq)]
pub struct Promote {
    /// How many compared pairs are required for `dark`, and for `live`, where only pairs made in `dark` count. Pairs
    /// that both arms answered with an error do not count.
    pub pairs: u64,
    /// The upper bound of the mismatch rate has to be below this rate, from 0 to 1; 1 asks for nothing.
    pub mismatch_below: f64,
    /// How many pairs may differ.
    pub open_differences: u64,
    /// The lowest share of requests that were compared, from 0 to 1.
    pub coverage_at_least: f64,
    /// Compared pairs required of each kind of request that legacy served.
    pub strata_at_least: u64,
    /// The key whose values are kinds of requests of their own; `None`: kinds are told apart without one.
    pub strata_by: Option<StratumKey>,
    /// Whether each shared step has to be compared with a call by legacy, be checked by an `assert`, or be declared
    /// under `unseen:`.
    pub effects_compared: bool,
    /// By how much the share of the engine's errors may exceed that of legacy, from 0 to 1.
    pub errors_not_worse_by: f64,
    /// At a place of noise, where legacy differs from itself: by how much the engine's rate of differences from legacy
    /// may exceed legacy's rate of differences from itself, as an upper bound; 1 asks for nothing.
    pub noise_not_worse_by: f64,
    /// The upper bound of the ratio of the engine's 99th percentile of latency to legacy's has to be below this; `None`
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

impl Promote {
    /// The value of each key as text, to be kept and shown.
    pub fn settings(&self) -> BTreeMap<&'static str, String> {
        let Self {
            pairs,
            mismatch_below,
            open_differences,
            coverage_at_least,
            strata_at_least,
            strata_by,
            effects_compared,
            errors_not_worse_by,
            noise_not_worse_by,
            p99_ratio_below,
            age_at_most,
            answers,
            window,
        } = self;
        let none = || "none".to_owned();
        [
            ("pairs", pairs.to_string()),
            ("mismatch_below", percent(*mismatch_below)),
            ("open_differences", open_differences.to_string()),
            ("coverage_at_least", percent(*coverage_at_least)),
            ("strata_at_least", strata_at_least.to_string()),
            ("strata_by", strata_by.as_ref().map_or_else(none, |key| key.text().to_owned())),
            ("effects_compared", effects_compared.to_string()),
            ("errors_not_worse_by", percent(*errors_not_worse_by)),
            ("noise_not_worse_by", percent(*noise_not_worse_by)),
            ("p99_ratio_below", p99_ratio_below.map_or_else(none, |ratio| ratio.to_string())),
            ("age_at_most", time(*age_at_most)),
            ("answers", answers.to_string()),
            ("window", time(*window)),
        ]
        .into()
    }
}

fn percent(share: f64) -> String {
    // Rounded: 0.07 is 7.000000000000001 %.
    format!("{}%", (share * 1e10).round() / 1e8)
}

fn time(time: Duration) -> String {
    match (time.as_secs(), time.subsec_millis()) {
        (seconds, 0) if seconds > 0 && seconds % 3_600 == 0 => format!("{}h", seconds / 3_600),
        (seconds, 0) if seconds > 0 && seconds % 60 == 0 => format!("{}m", seconds / 60),
        (seconds, 0) => format!("{seconds}s"),
        _ => format!("{}ms", time.as_millis()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_shown_as_they_are_written() {
        let promote = Promote { coverage_at_least: 0.07, window: Duration::from_millis(90_000), ..Promote::default() };
        let settings = promote.settings();
        let of = |key: &str| settings.get(key).map(String::as_str);
        assert_eq!((of("pairs"), of("mismatch_below")), (Some("4512"), Some("0.1%")));
        assert_eq!((of("coverage_at_least"), of("p99_ratio_below")), (Some("7%"), Some("none")));
        assert_eq!((of("age_at_most"), of("window")), (Some("24h"), Some("90s")));
    }
}

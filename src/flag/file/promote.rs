//! The check of `promote:`.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::values::{duration_within, percentage};
use crate::flag::{Promote, StratumKey};
use crate::problem::{Problems, Site};

/// The longest `age_at_most` and `window`: the evidence keeps a week of answers.
const DURATION_MAX: Duration = Duration::from_secs(7 * 24 * 3_600);

/// What the gates require of a route's evidence. What is left out here is as `promote:` of pointsman.yaml says, and
/// else the default.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PromoteDraft {
    /// How many compared pairs are required for `dark`, and for `live`, where only pairs made in `dark` count; the
    /// default is 4512. Pairs that both arms answered with an error do not count.
    pub pairs: Option<u64>,
    /// The upper bound of the mismatch rate has to be below this rate: `0.1%` (the default); `100%` asks for nothing.
    pub mismatch_below: Option<String>,
    /// How many pairs may differ; the default is 0.
    pub open_differences: Option<u64>,
    /// The lowest share of requests that were compared: `95%` (the default). Requests that were not sampled do not
    /// count.
    pub coverage_at_least: Option<String>,
    /// Compared pairs required of each kind of request that legacy served; the default is 1.
    pub strata_at_least: Option<u64>,
    /// Requests with different values are kinds of their own: `${request.headers["x-channel"]}`. It reads method, path,
    /// params, query, headers and peer, never the body; without a value a request is of the kind that it has without
    /// this key.
    pub strata_by: Option<String>,
    /// Whether each shared step has to be compared with a call by legacy, be checked by an `assert`, or be declared
    /// under `unseen:` before `live`; the default is true.
    pub effects_compared: Option<bool>,
    /// By how much the share of the engine's errors may exceed that of legacy: `0.1%` (the default).
    pub errors_not_worse_by: Option<String>,
    /// At a place of noise, where legacy differs from itself: by how much the engine's rate of differences from legacy
    /// may exceed legacy's rate of differences from itself, as an upper bound: `5%` (the default); `100%` asks for
    /// nothing.
    pub noise_not_worse_by: Option<String>,
    /// The upper bound of the ratio of the engine's 99th percentile of latency to legacy's has to be below this;
    /// without it latencies are not judged.
    pub p99_ratio_below: Option<f64>,
    /// How old the last pair or answer may be: `24h` (the default).
    pub age_at_most: Option<String>,
    /// Answers of the engine without an error, within `window`, that are required for `only`; the default is 4512.
    pub answers: Option<u64>,
    /// For how long the engine has to have answered before `only`, and the time whose answers and errors count: `24h`
    /// (the default), at most `7d`.
    pub window: Option<String>,
}

/// Checks a draft; what it leaves out is taken from `rest`. `strata_by`: the checked key of that name.
pub fn promote(
    draft: &PromoteDraft,
    rest: &Promote,
    strata_by: Option<StratumKey>,
    site: &Site,
    problems: &mut Problems,
) -> Promote {
    let PromoteDraft {
        pairs,
        mismatch_below,
        open_differences,
        coverage_at_least,
        strata_at_least,
        strata_by: _,
        effects_compared,
        errors_not_worse_by,
        noise_not_worse_by,
        p99_ratio_below,
        age_at_most,
        answers,
        window,
    } = draft;
    let mut rate = |key: &str, text: &Option<String>| percentage(text.as_ref()?, &site.key(key), problems);
    let mismatch_rate = rate("mismatch_below", mismatch_below);
    let coverage = rate("coverage_at_least", coverage_at_least);
    let errors = rate("errors_not_worse_by", errors_not_worse_by);
    let noise = rate("noise_not_worse_by", noise_not_worse_by);
    if mismatch_rate == Some(0.0) {
        let message = "no number of pairs shows a rate below 0%";
        problems.error(&site.key("mismatch_below"), message).hint("0.1% takes 4512 equal pairs, 0.01% takes 45137");
    }
    if p99_ratio_below.is_some_and(|ratio| !ratio.is_finite() || ratio <= 0.0) {
        problems.error(&site.key("p99_ratio_below"), "a ratio must be above 0").hint("1.5: 50 % slower than legacy");
    }
    for (key, count) in [("pairs", pairs), ("answers", answers)] {
        if *count == Some(0) {
            let message = format!("`{key}: 0` would open the gate without evidence");
            problems.error(&site.key(key), message).hint("at least 1");
        }
    }
    let mut time = |key: &str, text: &Option<String>, min: Duration| {
        duration_within(text.as_ref()?, min..=DURATION_MAX, "0s and 7d", &site.key(key), problems)
    };
    let age = time("age_at_most", age_at_most, Duration::from_secs(1));
    let window = time("window", window, Duration::ZERO);
    Promote {
        pairs: pairs.unwrap_or(rest.pairs),
        mismatch_below: mismatch_rate.unwrap_or(rest.mismatch_below),
        open_differences: open_differences.unwrap_or(rest.open_differences),
        coverage_at_least: coverage.unwrap_or(rest.coverage_at_least),
        strata_at_least: strata_at_least.unwrap_or(rest.strata_at_least),
        strata_by: strata_by.or_else(|| rest.strata_by.clone()),
        effects_compared: effects_compared.unwrap_or(rest.effects_compared),
        errors_not_worse_by: errors.unwrap_or(rest.errors_not_worse_by),
        noise_not_worse_by: noise.unwrap_or(rest.noise_not_worse_by),
        p99_ratio_below: p99_ratio_below.or(rest.p99_ratio_below),
        age_at_most: age.unwrap_or(rest.age_at_most),
        answers: answers.unwrap_or(rest.answers),
        window: window.unwrap_or(rest.window),
    }
}

//! The check of `guard:`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::values::{percentage, suggest};
use crate::expression::{Scope, UrlTemplate};
use crate::flag::{Guard, GuardRelease, GuardRule, GuardWebhook};
use crate::limits::GUARD_WINDOW_REQUESTS_MAX;
use crate::names::ServiceName;
use crate::problem::{Problems, Site};

/// How many of the last requests count, if `over` is not given.
const OVER_DEFAULT: u64 = 500;
/// The fewest bad requests after which a guard acts, if `at_least` is not given.
const AT_LEAST_DEFAULT: u64 = 5;

/// The largest `p99_ratio`: legacy's latency times this is still a time.
const P99_RATIO_MAX: f64 = 1_000_000.0;

/// When a route is lowered automatically. What is left out here is as `guard:` of pointsman.yaml says, and else the
/// default.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GuardDraft {
    /// Whether the guard acts; `false` in a route leaves it out of the guard of pointsman.yaml. The default is true.
    pub enabled: Option<bool>,
    /// The highest accepted rate of compared pairs that differ: `0.1%`.
    pub mismatch: Option<String>,
    /// The highest accepted rate of requests in `live` that the engine fails, above legacy's own rate: `1%`.
    pub errors: Option<String>,
    /// The highest accepted ratio of the engine's 99th percentile of latency in `live` to legacy's: `1.5`.
    pub p99_ratio: Option<f64>,
    /// How many of the last requests, or compared pairs, count; the default is 500.
    pub over: Option<u64>,
    /// How many of these have to be bad at least; the default is 5.
    pub at_least: Option<u64>,
    /// Whether it also lowers a route from `dark` to `shadow`, by differences and failed runs there; the default is
    /// false.
    pub in_dark: Option<bool>,
    /// How a route that was lowered returns: `hand` (the default), or `evidence`: also by itself, once as many pairs in
    /// a row as `promote.pairs` were compared without a difference or a failed run.
    pub release: Option<GuardRelease>,
    /// Where each action is posted: `${services.NAME}/path`.
    pub notify: Option<String>,
}

/// A guard that watches nothing, from which drafts start.
static NONE: Guard = Guard {
    mismatch: None,
    errors: None,
    p99_ratio: None,
    over: OVER_DEFAULT,
    at_least: AT_LEAST_DEFAULT,
    in_dark: false,
    release: GuardRelease::Hand,
    notify: None,
};

/// Checks the guard of pointsman.yaml; `None` if no route has one by default.
pub fn guard_by_default<'s>(
    draft: Option<&GuardDraft>,
    services: impl Iterator<Item = &'s ServiceName> + Clone,
    site: &Site,
    problems: &mut Problems,
) -> Option<Guard> {
    guard(draft?, None, services, site, problems)
}

/// Checks a draft; what it leaves out is taken from `rest`. `None` if the guard does not act.
pub fn guard<'s>(
    draft: &GuardDraft,
    rest: Option<&Guard>,
    services: impl Iterator<Item = &'s ServiceName> + Clone,
    site: &Site,
    problems: &mut Problems,
) -> Option<Guard> {
    let GuardDraft { enabled, mismatch, errors, p99_ratio, over, at_least, in_dark, release, notify } = draft;
    let rest = rest.unwrap_or(&NONE);
    let mut rate = |key: &str, text: &Option<String>| percentage(text.as_ref()?, &site.key(key), problems);
    let (mismatch_rate, error_rate) = (rate("mismatch", mismatch), rate("errors", errors));
    if p99_ratio.is_some_and(|ratio| !(ratio > 0.0 && ratio <= P99_RATIO_MAX)) {
        let what = format!("a ratio must be above 0, and at most {P99_RATIO_MAX}");
        problems.error(&site.key("p99_ratio"), what).hint("1.5: 50 % slower than legacy");
    }
    let mut has_counts = true;
    for (key, count) in [("over", over), ("at_least", at_least)] {
        if count.is_some_and(|count| count == 0 || count > GUARD_WINDOW_REQUESTS_MAX) {
            has_counts = false;
            problems.error(&site.key(key), format!("`{key}` has to be between 1 and {GUARD_WINDOW_REQUESTS_MAX}"));
        }
    }
    let webhook = notify.as_ref().and_then(|text| webhook(text, services, &site.key("notify"), problems));
    let guard = Guard {
        mismatch: mismatch_rate.or(rest.mismatch),
        errors: error_rate.or(rest.errors),
        p99_ratio: p99_ratio.or(rest.p99_ratio),
        over: over.unwrap_or(rest.over).clamp(1, GUARD_WINDOW_REQUESTS_MAX),
        at_least: at_least.unwrap_or(rest.at_least).clamp(1, GUARD_WINDOW_REQUESTS_MAX),
        in_dark: in_dark.unwrap_or(rest.in_dark),
        release: release.unwrap_or(rest.release),
        notify: webhook.or_else(|| rest.notify.clone()),
    };
    if *enabled == Some(false) {
        return None;
    }
    let has_condition = mismatch.is_some() || errors.is_some() || p99_ratio.is_some();
    if !has_condition && guard.mismatch.is_none() && guard.errors.is_none() && guard.p99_ratio.is_none() {
        problems.error(site, "this guard has no condition").hint("mismatch: 0.1%, errors: 1% or p99_ratio: 1.5");
    }
    let slow = guard.p99_ratio.map(|_| SLOW_RATE);
    // After a refused count it is not known which rates can be reached.
    for (key, rate) in [("mismatch", guard.mismatch), ("errors", guard.errors), ("p99_ratio", slow)] {
        if has_counts {
            check_reachable(key, rate, &guard, site, problems);
        }
    }
    Some(guard)
}

/// The accepted rate of answers that are slower than `p99_ratio` allows: by definition 1 % of answers are slower than
/// the 99th percentile.
pub const SLOW_RATE: f64 = 0.01;

/// Refuses a rate on which the guard would never act, because too few requests count.
fn check_reachable(key: &str, rate: Option<f64>, guard: &Guard, site: &Site, problems: &mut Problems) {
    let Some(rate) = rate else { return };
    let Guard { over, at_least, .. } = guard;
    if GuardRule::new(rate, *over, *at_least).consecutive_bad_to_act().is_some() {
        return;
    }
    let needed = GuardRule::new(rate, GUARD_WINDOW_REQUESTS_MAX, *at_least).consecutive_bad_to_act();
    let message = format!(
        "the guard would never act: {over} requests cannot exceed this rate with certainty, even if all are bad"
    );
    let problem = problems.error(&site.key(key), message);
    match needed {
        Some(needed) => problem.hint(format!("over: {needed} at least, or a lower rate")),
        None => problem.hint("lower the rate, for example to 1%"),
    };
}

fn webhook<'s>(
    text: &str,
    services: impl Iterator<Item = &'s ServiceName> + Clone,
    site: &Site,
    problems: &mut Problems,
) -> Option<GuardWebhook> {
    let url = match UrlTemplate::parse(text) {
        Ok(url) => url,
        Err(error) => {
            problems.error(site, error.message).hint("`${services.NAME}/path`, such as ${services.ops}/hooks");
            return None;
        }
    };
    let Some(service) = url.service() else {
        problems
            .error(site, "`notify` has to go to a declared service, not to an address")
            .hint("declare it under `services:` in pointsman.yaml and write `${services.NAME}`");
        return None;
    };
    let names = services.map(ServiceName::as_str);
    if !names.clone().any(|name| name == service) {
        let hint = suggest(service, names);
        problems.error(site, format!("no service is called `{service}`")).hint(hint);
        return None;
    }
    if let Some(read) = url.reads().iter().find(|read| read.root() != "services") {
        problems
            .error(site, format!("`notify` of a guard cannot read `{}`", read.root()))
            .hint("its path is a constant; the message says which route it is");
        return None;
    }
    let path = url.evaluate(&Scope::new()).map_err(|error| {
        problems.error(site, error.message).hint("after the service comes a constant path: ${services.ops}/hooks");
    });
    Some(GuardWebhook { source: text.to_owned(), service: service.into(), path: path.ok()? })
}

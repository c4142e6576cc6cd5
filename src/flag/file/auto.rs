//! The check of `auto:`.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::values::{duration_within, percentage};
use crate::flag::{Auto, Guard, Percent, State};
use crate::problem::{Problems, Site};

/// How many requests have to be answered, or compared, with a share, if `at_least` is not given.
const AT_LEAST_DEFAULT: u64 = 100;
/// The most steps.
const STEPS_MAX: usize = 20;
/// The range of `each`.
const EACH: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(30 * 24 * 3600);

const EACH_TEXT: &str = "1s and 30d";

/// How the share of the route grows by itself within its state.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AutoDraft {
    /// The shares, ascending: `[1%, 5%, 25%, 100%]`.
    pub steps: Vec<String>,
    /// How long each share is in force at least: `10m`.
    pub each: String,
    /// How many requests the engine answers at least with each share in `live` (in `shadow` and `dark`: are compared
    /// with it). Default: 100.
    pub at_least: Option<u64>,
}

/// Warns of a route that its file puts in a state with all callers: nothing is left to grow.
pub(super) fn warn_of_whole_share(state: State, has_shares: bool, site: &Site, problems: &mut Problems) {
    if !has_shares && state > State::Off {
        problems
            .warn(site, format!("a move to `{state}` by this file begins with 100 %, and nothing is left to grow"))
            .hint("say `percent:` too, or move the route with `pointsman flip`");
    }
}

/// Checks a draft. With an error the route as a whole is refused.
pub(super) fn auto(
    draft: &AutoDraft,
    guard: Option<&Guard>,
    has_key: bool,
    site: &Site,
    problems: &mut Problems,
) -> Option<Auto> {
    let AutoDraft { steps, each, at_least } = draft;
    let mut shares: Vec<Percent> = Vec::new();
    for (index, text) in steps.iter().enumerate() {
        let site = site.key("steps").index(index);
        let Some(rate) = percentage(text, &site, problems) else { continue };
        match Percent::exact((rate * 1e6).round() / 1e4) {
            Err(why) => {
                problems.error(&site, why);
            }
            Ok(Percent::NONE) => {
                problems
                    .error(&site, "0% is not allowed as a step")
                    .hint("if no caller should be on this rung, put the route one state lower");
            }
            Ok(share) if shares.last().is_some_and(|last| *last >= share) => {
                problems.error(&site, "the shares have to grow").hint("steps: [1%, 5%, 25%, 100%]");
            }
            Ok(share) => shares.push(share),
        }
    }
    if steps.is_empty() || steps.len() > STEPS_MAX {
        let message = format!("`steps` has {} entries; 1 to {STEPS_MAX} are allowed", steps.len());
        problems.error(&site.key("steps"), message).hint("steps: [1%, 5%, 25%, 100%]");
    }
    let each = duration_within(each, EACH, EACH_TEXT, &site.key("each"), problems);
    let at_least = at_least.unwrap_or(AT_LEAST_DEFAULT);
    if at_least == 0 {
        problems
            .error(
                &site.key("at_least"),
                "`at_least` is 0: the share would grow although no request was counted with it",
            )
            .hint("at least 1");
    }
    if guard.is_none_or(|guard| guard.errors.is_none()) {
        problems
            .error(site, "a share that grows by itself needs a guard that watches errors")
            .hint("nobody looks when it grows; add guard: { errors: 1% }");
    }
    if !has_key {
        problems
            .error(site, "a share that grows by itself needs a `key`")
            .hint("it tells callers apart: key: ${request.headers[\"…\"]}");
    }
    Some(Auto { steps: shares, each: each?, at_least })
}

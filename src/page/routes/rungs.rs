//! The words for rungs, shares and reasons of a state.

use crate::admin::types::{EffectiveReason, Freeze, Shares, State};

/// What a route does on a rung, in one sentence.
pub(in crate::page) fn about(rung: State) -> &'static str {
    match rung {
        State::Off => "Legacy answers. Nothing is captured and nothing is compared.",
        State::Shadow => {
            "Legacy answers. The engine rehearses a copy of sampled requests after the reply; nothing is sent."
        }
        State::Dark => {
            "Legacy answers. The engine runs each request of the share for real, except the steps that touch what \
             legacy also touches: those are rehearsed."
        }
        State::Live => "The engine answers the share of callers. Legacy answers the others, and is the fallback.",
        State::Only => "The engine answers every request. Legacy is never called.",
    }
}

/// Why a state is in force, as the end of a sentence about a route.
pub(in crate::page) fn why(reason: EffectiveReason) -> &'static str {
    match reason {
        EffectiveReason::Requested => "as requested",
        EffectiveReason::Unproven => "no evidence supports it yet",
        EffectiveReason::Gate => "the gate does not allow more",
        EffectiveReason::Guard => "the guard lowered it",
        EffectiveReason::Health => "the engine takes no new runs",
        EffectiveReason::Freeze => "a freeze is in force",
    }
}

/// The share of a rung in percent; `None` for `off` and `only`, which have none.
pub(in crate::page) fn share(shares: &Shares, rung: State) -> Option<f64> {
    matches!(rung, State::Shadow | State::Dark | State::Live).then(|| shares.of(rung).as_f64())
}

/// A share or rate from 0 to 1 in percent, rounded up to two digits that say something: a bound must not look smaller
/// than it is.
pub(in crate::page) fn percent_up(rate: f64) -> String {
    let percent = rate * 100.0;
    if percent.is_nan() || percent >= 99.5 {
        return "100 %".to_owned();
    }
    if percent <= 0.0 {
        return "0 %".to_owned();
    }
    // The power of ten of the second digit.
    let digits = (1.0 - percent.log10().floor()).clamp(0.0, 6.0);
    let unit = 10_f64.powf(digits);
    // A bound of 0.1 % is kept as 0.099 99… by the search for it, and the other way round.
    let rounded = (percent * unit - 1e-6).ceil() / unit;
    format!("{rounded} %")
}

/// A share or rate from 0 to 1 in percent, with one decimal.
pub(in crate::page) fn percent(rate: f64) -> String {
    format!("{:.1} %", rate * 100.0)
}

/// The kill switch in words, as the record names its states.
pub(in crate::page) fn freeze_words(state: &str) -> &str {
    match state {
        "no" => "no freeze",
        "instances" => "freeze of new instances",
        "effects" => "freeze of effects too",
        // A newer version may have more.
        other => other,
    }
}

/// What a freeze does, in one sentence.
pub(in crate::page) fn about_freeze(freeze: Freeze) -> &'static str {
    match freeze {
        Freeze::No => "The kill switch is off. Routes are in their own states.",
        Freeze::Instances => {
            "The engine begins no new instances, except for routes in only: routes above shadow are held at shadow. \
             Runs in progress, and runs that the API starts, go on."
        }
        Freeze::Effects => {
            "The engine begins no new instances, except for routes in only, and in every run no private or shared step \
             begins, also not in runs of routes in only; undoing is held too."
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_rounded_up_to_two_digits() {
        for (rate, text) in [
            (1.0, "100 %"),
            (0.001, "0.1 %"),
            (0.000_999_99, "0.1 %"),
            (0.001_01, "0.11 %"),
            (0.004_512, "0.46 %"),
            (0.123_4, "13 %"),
            (0.05, "5 %"),
            (0.0, "0 %"),
        ] {
            assert_eq!(percent_up(rate), text, "{rate}");
        }
    }

    #[test]
    fn off_and_only_have_no_share() {
        let shares = Shares::default();
        assert_eq!(State::ALL.map(|rung| share(&shares, rung).is_some()), [false, true, true, true, false]);
    }
}

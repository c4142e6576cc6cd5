//! Lists, times and advice in the messages of gates.

use std::time::Duration;

use jiff::Timestamp;

/// How many reasons, kinds of requests or steps a message names.
pub(super) const NAMES_SHOWN: usize = 3;

/// The first names of a list, and how many more there are.
pub(super) fn first_of(names: &[String], separator: &str) -> String {
    let shown = names.iter().take(NAMES_SHOWN).cloned().collect::<Vec<_>>().join(separator);
    match names.len().saturating_sub(NAMES_SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// How many more cases, all of them good, bring the share of good ones up to `share` (0 to 1). `None` if no number
/// does, or if none is needed.
pub(super) fn more_needed((good, all): (u64, u64), share: f64) -> Option<u64> {
    let bad = all.saturating_sub(good) as f64;
    let allowed = 1.0 - share;
    if allowed <= 0.0 || bad <= allowed * all as f64 {
        return None;
    }
    // The rounding error of the division must not raise a whole number to the next one.
    let wanted = (bad / allowed - 1e-6).ceil() as u64;
    Some(wanted.saturating_sub(all)).filter(|more| *more > 0)
}

/// The time from `since` to `now`; zero if the clock was set back.
pub(super) fn elapsed(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or(Duration::ZERO)
}

/// A duration in the largest unit of which it has at least two; in seconds if it is shorter than two minutes.
pub(super) fn duration_text(time: Duration) -> String {
    let seconds = time.as_secs();
    let (count, unit) = match seconds {
        172_800.. => (seconds / 86_400, "days"),
        7_200.. => (seconds / 3_600, "hours"),
        120.. => (seconds / 60, "minutes"),
        1 => (1, "second"),
        _ => (seconds, "seconds"),
    };
    format!("{count} {unit}")
}

/// Whose answers to callers are judged.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum AnswersOf {
    /// Those of the engine on a route.
    Route,
    /// Those of the candidate of a route.
    Candidate,
}

/// With whose calls those of the workflow are compared.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ComparedWith {
    /// Legacy's, as far as they come through the egress listener.
    Legacy,
    /// Those of the plan in force, with which a candidate is compared: all of them are known.
    PlanInForce,
}

impl ComparedWith {
    /// Who made them.
    pub(super) fn caller(self) -> &'static str {
        match self {
            Self::Legacy => "legacy",
            Self::PlanInForce => "the plan in force",
        }
    }

    /// What to do if too few calls of shared steps were compared.
    pub(super) fn advice(self) -> &'static str {
        match self {
            Self::Legacy => {
                "Have legacy make the calls through the egress listener, each with the request's `traceparent` or what \
                 `egress.correlate` names (`pointsman egress ROUTE`), send requests that reach the steps, or say in \
                 `compare.effects.STEP.unseen` why their calls are not seen"
            }
            Self::PlanInForce => {
                "Wait for requests, or send some, with which both plans reach the steps; or say in \
                 `compare.effects.STEP.unseen` why a step that only the candidate has needs no comparison"
            }
        }
    }
}

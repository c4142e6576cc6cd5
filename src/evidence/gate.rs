//! Decides whether a route's evidence allows the route to go up one rung. A pure function of the evidence.

use std::cmp::Reverse;

use super::route::RouteEvidence;
use crate::flag::State;
use crate::names::StepId;

/// Compared pairs required before a route goes up to `dark` or `live`.
const PAIRS_MIN: u64 = 20;
/// Consecutive answers of the engine required before `only`.
const ANSWERS_MIN: u64 = 50;
/// The share of runs that may have failed, percent.
const FAILED_PERCENT_MAX: u64 = 10;
/// The share of dark requests that may have no twin, percent.
const WITHOUT_TWIN_PERCENT_MAX: u64 = 10;
/// How many reasons for skipping requests the message about missing twins names.
const SKIP_REASONS_SHOWN: usize = 3;

/// Checks whether a route may go up from one rung to the next, by its evidence. `live_share_is_all` says whether the
/// route's share in `live` is 100 %. Not called for a follower that goes from `shadow` to `dark`: its instances have no
/// twins yet, so the follower has no pairs.
///
/// # Errors
/// Every condition that does not hold, each as a sentence that says what is still missing.
pub fn gate(evidence: &RouteEvidence, from: State, to: State, live_share_is_all: bool) -> Result<(), Vec<String>> {
    let mut missing = Vec::new();
    match (from, to) {
        (State::Off, State::Shadow) => {}
        (State::Shadow, State::Dark) => {
            let pairs = (evidence.pairs(), evidence.shadow_pairs_with_error + evidence.dark_pairs_with_error);
            check_pairs(evidence, pairs, "", &mut missing);
            missing.extend(open_mismatches(evidence));
            check_failures(evidence, &mut missing);
        }
        (State::Dark, State::Live) => {
            check_pairs(evidence, (evidence.dark_pairs, evidence.dark_pairs_with_error), " in dark", &mut missing);
            missing.extend(open_mismatches(evidence));
            check_failures(evidence, &mut missing);
            check_twins(evidence, &mut missing);
        }
        (State::Live, State::Only) => {
            if !live_share_is_all {
                missing.push("needs a share of 100 % in live".to_owned());
            }
            let answers = evidence.engine_answers;
            if answers < ANSWERS_MIN {
                let since = match evidence.engine_errors {
                    0 => "since the last change".to_owned(),
                    n => format!("since the last of {n} errors, fallbacks or unknown outcomes"),
                };
                let more = ANSWERS_MIN - answers;
                missing.push(format!(
                    "needs {more} more {} of the engine without error in a row ({answers} of {ANSWERS_MIN} {since}){}",
                    if more == 1 { "answer" } else { "answers" },
                    counted_since(evidence, "answers"),
                ));
            }
            if answers > 0 && evidence.engine_answers_4xx == answers {
                missing.push(format!(
                    "needs an answer of the engine below 400: it answered all {answers} with 4xx, so perhaps no run took effect"
                ));
            }
        }
        (from, to) if to <= from => {}
        (from, to) => missing.push(format!("goes up one rung at a time, and {from} to {to} is more than one")),
    }
    if missing.is_empty() { Ok(()) } else { Err(missing) }
}

/// Checks a number of pairs, and how many of them legacy answered with an error. `rung` is inserted into the sentences.
fn check_pairs(evidence: &RouteEvidence, (have, with_error): (u64, u64), rung: &str, missing: &mut Vec<String>) {
    if have < PAIRS_MIN {
        let more = PAIRS_MIN - have;
        let noun = if more == 1 { "pair" } else { "pairs" };
        let since = counted_since(evidence, "pairs");
        missing.push(format!("needs {more} more compared {noun}{rung} ({have} of {PAIRS_MIN}){since}"));
    }
    if have > 0 && with_error == have {
        missing.push(format!(
            "needs a compared pair{rung} that legacy answered without an error: legacy answered all {have} with 4xx or \
             5xx, so no effect was compared"
        ));
    }
}

/// If differences were lost: says since when `counted` (pairs or answers) are counted, and why only since then.
/// Otherwise empty.
fn counted_since(evidence: &RouteEvidence, counted: &str) -> String {
    let since = evidence.lost_differences.map(|at| {
        format!(
            "; {counted} are counted since {at:.0}: one or more differences were lost: an earlier process ended before \
             it had stored them, or the store is a restored backup"
        )
    });
    since.unwrap_or_default()
}

/// If differences were lost: a note that there were more than are counted. Otherwise empty.
fn more_were_lost(evidence: &RouteEvidence) -> String {
    let lost = evidence.lost_differences.map(|at| {
        format!(
            "; more are not counted: they were not stored when the process that ran before {at:.0} ended, or were \
             found after the backup was made from which this store was restored"
        )
    });
    lost.unwrap_or_default()
}

/// Returns a sentence that says how many mismatches are open, if any are: they shut the gates to `dark` and `live`.
pub fn open_mismatches(evidence: &RouteEvidence) -> Option<String> {
    (evidence.mismatched > 0).then(|| {
        format!(
            "has {} open {} since the workflow or the rules last changed: fix the workflow or the rules; \
             the evidence then starts from zero{}",
            evidence.mismatched,
            if evidence.mismatched == 1 { "mismatch" } else { "mismatches" },
            more_were_lost(evidence),
        )
    })
}

/// Returns a sentence that names the steps whose calls no pair compared with anything, if there are any: it shuts the
/// gate to `live`, where the engine makes these calls.
pub fn uncompared_effects(evidence: &RouteEvidence, steps: &[StepId]) -> Option<String> {
    let uncompared: Vec<String> = evidence.uncompared(steps).map(|step| format!("`{step}`")).collect();
    (!uncompared.is_empty()).then(|| {
        let (noun, verb) = if uncompared.len() == 1 { ("step", "was") } else { ("steps", "were") };
        format!(
            "the shared {noun} {} {verb} compared with no call by legacy and no `assert`: have legacy make the calls through \
             the egress listener and send requests that reach them, or say in `compare.effects.STEP.unseen` why they are not \
             seen",
            uncompared.join(", ")
        )
    })
}

fn check_failures(evidence: &RouteEvidence, missing: &mut Vec<String>) {
    let failed = evidence.failed.values().sum::<u64>();
    let all = evidence.pairs() + failed;
    if failed * 100 > all * FAILED_PERCENT_MAX {
        let share = failed as f64 * 100.0 / all as f64;
        missing.push(format!(
            "has {share:.1} % failed runs of the engine ({failed} of {all}); at most {FAILED_PERCENT_MAX} % may fail{}",
            counted_since(evidence, "pairs without a difference"),
        ));
    }
}

fn check_twins(evidence: &RouteEvidence, missing: &mut Vec<String>) {
    let without = evidence.dark_without_twin;
    let all = evidence.dark_with_twin + without;
    // In integers, so that a share of exactly the maximum passes.
    if without * 100 > all * WITHOUT_TWIN_PERCENT_MAX {
        let share = without as f64 * 100.0 / all as f64;
        missing.push(format!(
            "has {share:.1} % of dark requests without a twin ({without} of {all}); \
             at most {WITHOUT_TWIN_PERCENT_MAX} % may have none{}",
            most_skipped(evidence),
        ));
    }
}

/// The most frequent reasons for which requests were skipped, since one without a comparison mostly has no twin either.
fn most_skipped(evidence: &RouteEvidence) -> String {
    let mut skipped: Vec<_> = evidence.skipped.iter().filter(|(_, count)| **count > 0).collect();
    skipped.sort_by_key(|(reason, count)| (Reverse(**count), reason.as_str()));
    match skipped.is_empty() {
        true => String::new(),
        false => {
            let some = skipped.iter().take(SKIP_REASONS_SHOWN).map(|(reason, count)| format!("`{reason}` {count}"));
            format!(". Requests were skipped as {}: see `pointsman help compare`", some.collect::<Vec<_>>().join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::StepIntents;

    fn missing(evidence: &RouteEvidence, from: State, to: State, all: bool) -> Vec<String> {
        gate(evidence, from, to, all).err().unwrap_or_default()
    }

    #[test]
    fn shadow_has_no_conditions() {
        assert!(gate(&RouteEvidence::default(), State::Off, State::Shadow, false).is_ok());
    }

    #[test]
    fn dark_requires_pairs_without_a_mismatch() {
        let mut e = RouteEvidence { shadow_pairs: 12, ..Default::default() };
        assert_eq!(missing(&e, State::Shadow, State::Dark, false), ["needs 8 more compared pairs (12 of 20)"]);
        e.shadow_pairs = 20;
        assert!(missing(&e, State::Shadow, State::Dark, false).is_empty());
        e.mismatched = 1;
        let why = missing(&e, State::Shadow, State::Dark, false);
        assert!(why.len() == 1 && why[0].starts_with("has 1 open mismatch since"), "{why:?}");
    }

    #[test]
    fn pairs_that_legacy_answered_only_with_errors_open_no_gate() {
        let mut e = RouteEvidence { shadow_pairs: 30, shadow_pairs_with_error: 30, ..Default::default() };
        let why = missing(&e, State::Shadow, State::Dark, false);
        assert!(
            why.len() == 1 && why[0].contains("without an error: legacy answered all 30 with 4xx or 5xx"),
            "{why:?}"
        );
        (e.dark_pairs, e.dark_pairs_with_error) = (20, 19);
        assert!(missing(&e, State::Shadow, State::Dark, false).is_empty());
        assert!(missing(&e, State::Dark, State::Live, false).is_empty());
        e.dark_pairs_with_error = 20;
        let why = missing(&e, State::Dark, State::Live, false);
        assert!(why.len() == 1 && why[0].contains("pair in dark that legacy answered"), "{why:?}");
    }

    #[test]
    fn missing_pairs_are_explained_by_lost_differences() {
        let at = "2026-03-01T10:00:00.5Z".parse().ok();
        let mut e = RouteEvidence { shadow_pairs: 19, lost_differences: at, ..Default::default() };
        let why = missing(&e, State::Shadow, State::Dark, false);
        assert_eq!(
            why,
            ["needs 1 more compared pair (19 of 20); pairs are counted since 2026-03-01T10:00:00Z: one or more \
                 differences were lost: an earlier process ended before it had stored them, or the store is a restored \
                 backup"]
        );
        e.shadow_pairs = 20;
        assert!(missing(&e, State::Shadow, State::Dark, false).is_empty());
    }

    #[test]
    fn too_many_failed_runs_are_refused() {
        let mut e = RouteEvidence { shadow_pairs: 90, ..Default::default() };
        e.failed.insert("timeout".into(), 10);
        assert!(missing(&e, State::Shadow, State::Dark, false).is_empty());
        e.failed.insert("panic".into(), 1);
        let why = missing(&e, State::Shadow, State::Dark, false);
        assert_eq!(why, ["has 10.9 % failed runs of the engine (11 of 101); at most 10 % may fail"]);
    }

    #[test]
    fn steps_that_nothing_compared_are_named() {
        let steps = ["charge", "mail", "print"].map(StepId::from);
        let mut e = RouteEvidence::default();
        let of = |compared, asserted| StepIntents { intents: 5, compared, asserted };
        e.effects = [("charge", of(5, 0)), ("mail", of(0, 1)), ("print", of(0, 0))]
            .map(|(step, of)| (step.to_owned(), of))
            .into();
        let why = uncompared_effects(&e, &steps).unwrap();
        assert!(
            why.starts_with("the shared step `print` was compared with no call by legacy and no `assert`"),
            "{why}"
        );
        e.effects.clear();
        let why = uncompared_effects(&e, &steps).unwrap();
        assert!(why.starts_with("the shared steps `charge`, `mail`, `print` were compared"), "{why}");
        assert_eq!(uncompared_effects(&e, &[]), None);
    }

    #[test]
    fn live_requires_pairs_made_in_dark_and_twins() {
        let mut e = RouteEvidence { shadow_pairs: 900, dark_pairs: 19, dark_with_twin: 19, ..Default::default() };
        assert_eq!(missing(&e, State::Dark, State::Live, false), ["needs 1 more compared pair in dark (19 of 20)"]);
        e.dark_pairs = 90;
        e.dark_with_twin = 90;
        e.dark_without_twin = 10;
        assert!(missing(&e, State::Dark, State::Live, false).is_empty(), "10 % is not more than 10 %");
        e.dark_without_twin = 11;
        let why = missing(&e, State::Dark, State::Live, false);
        assert!(why[0].contains("10.9 % of dark requests without a twin (11 of 101)"), "{why:?}");
    }

    #[test]
    fn only_requires_a_full_share_and_consecutive_answers() {
        let mut e = RouteEvidence { engine_answers: 49, ..Default::default() };
        let why = missing(&e, State::Live, State::Only, false);
        assert_eq!(why.len(), 2, "{why:?}");
        assert!(why[1].contains("needs 1 more answer of the engine"), "{why:?}");
        (e.engine_answers, e.engine_answers_4xx) = (50, 50);
        let why = missing(&e, State::Live, State::Only, true);
        assert!(why.len() == 1 && why[0].contains("all 50 with 4xx"), "{why:?}");
        e.engine_answers_4xx = 49;
        assert!(missing(&e, State::Live, State::Only, true).is_empty());
    }

    #[test]
    fn two_rungs_at_once_are_refused_and_going_down_is_always_allowed() {
        let e = RouteEvidence { shadow_pairs: 900, dark_pairs: 900, engine_answers: 900, ..Default::default() };
        for (from, to) in [(State::Off, State::Dark), (State::Shadow, State::Live), (State::Off, State::Only)] {
            assert_eq!(missing(&e, from, to, true).len(), 1);
        }
        for from in State::ALL {
            for to in State::ALL.into_iter().filter(|to| *to <= from) {
                assert!(gate(&RouteEvidence::default(), from, to, false).is_ok());
            }
        }
    }
}

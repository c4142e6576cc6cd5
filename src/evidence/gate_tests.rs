//! Tests of the conditions of the gates.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::answers::AnswersByHour;
use super::conditions::{Condition, ConditionName as Name, GateVerdict, overall};
use super::gate::{JudgedRoute, conditions};
use super::legacy_replies::RepliesOfLegacy;
use super::noise::{NoiseGroup, PlaceOutcomes};
use super::part_names::RULES;
use super::route::{EarlierEvidence, RouteEvidence};
use super::rung::RungCounts;
use super::strata::{NotCompared, StratumCounts};
use crate::exchange::Served;
use crate::flag::{Promote, State};

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

/// What 20 pairs and 50 answers can meet.
pub(super) fn small() -> Promote {
    Promote { pairs: 20, answers: 50, mismatch_below: 0.2, window: Duration::ZERO, ..Promote::default() }
}

fn stratum(served: u64, compared: u64) -> StratumCounts {
    StratumCounts { served, compared, ..StratumCounts::default() }
}

/// Counts of a rung that meet [`small`].
pub(super) fn counts() -> RungCounts {
    let strata = [("POST 2xx".to_owned(), stratum(90, 60))].into();
    RungCounts { last_pair: Some(NOW), strata, ..RungCounts::default() }
}

/// Evidence that meets [`small`] for every rung.
pub(super) fn good() -> RouteEvidence {
    RouteEvidence {
        shadow_pairs: 30,
        dark_pairs: 30,
        dark_with_twin: 30,
        all: counts(),
        dark: counts(),
        legacy: legacy(90, 0, 0),
        answers: answers(50, 0, 0),
        answers_since: Some(NOW - SignedDuration::from_hours(30)),
        last_answer: Some(NOW),
        ..RouteEvidence::default()
    }
}

/// Replies of legacy: all, and those of them with 4xx and 5xx.
pub(super) fn legacy(replies: u64, client_errors: u64, server_errors: u64) -> RepliesOfLegacy {
    RepliesOfLegacy { replies, client_errors, server_errors, ..RepliesOfLegacy::default() }
}

/// Answers of this hour: all without an error, those of them with 4xx, and errors.
pub(super) fn answers(all: u64, client_errors: u64, errors: u64) -> AnswersByHour {
    let mut answers = AnswersByHour::default();
    let count = |answers: &mut AnswersByHour, served, n| (0..n).for_each(|_| answers.count(served, NOW));
    count(&mut answers, Served::Answered, all - client_errors);
    count(&mut answers, Served::CallerError, client_errors);
    count(&mut answers, Served::Error, errors);
    answers
}

pub(super) fn judged<'a>(evidence: &'a RouteEvidence, promote: &'a Promote, below: &'a [String]) -> JudgedRoute<'a> {
    JudgedRoute {
        evidence,
        promote,
        shared_steps: &[],
        private_steps: &[],
        sent_reads: &[],
        shared_steps_below: below,
        invariants: &[],
        live_share_is_all: true,
        now: NOW,
    }
}

pub(super) fn judge(evidence: &RouteEvidence, promote: &Promote, from: State, to: State) -> Vec<Condition> {
    let route = judged(evidence, promote, &[]);
    conditions(&route, from, to)
}

/// What does not hold.
pub(super) fn missing(
    evidence: &RouteEvidence,
    promote: &Promote,
    from: State,
    to: State,
) -> Vec<(Name, GateVerdict, String)> {
    let unmet = judge(evidence, promote, from, to).into_iter().filter(|c| c.verdict != GateVerdict::Pass);
    unmet.map(|c| (c.name, c.verdict, c.detail)).collect()
}

/// Asserts that one condition does not hold, and returns its detail.
pub(super) fn only_missing(
    evidence: &RouteEvidence,
    promote: &Promote,
    to: State,
    name: Name,
    verdict: GateVerdict,
) -> String {
    let mut all = missing(evidence, promote, to.below().unwrap(), to);
    assert_eq!(all.len(), 1, "{all:?}");
    let (found, of_it, detail) = all.remove(0);
    assert_eq!((found, of_it), (name, verdict), "{detail}");
    detail
}

#[test]
fn good_evidence_opens_each_gate_and_no_evidence_opens_only_the_gate_to_shadow() {
    for pair in State::ALL.windows(2) {
        assert_eq!(missing(&good(), &small(), pair[0], pair[1]), [], "{pair:?}");
        let none = judge(&RouteEvidence::default(), &small(), pair[0], pair[1]);
        assert_eq!(overall(&none) == GateVerdict::Pass, pair[1] == State::Shadow, "{none:?}");
    }
}

#[test]
fn the_default_number_of_pairs_proves_a_rate_below_one_in_a_thousand() {
    let mut e = good();
    (e.dark_pairs, e.dark_with_twin) = (4_511, 4_511);
    let all = missing(&e, &Promote::default(), State::Dark, State::Live);
    assert_eq!(all.iter().map(|m| m.0).collect::<Vec<_>>(), [Name::Pairs, Name::MismatchBelow]);
    assert!(all[0].2.starts_with("needs 1 more compared pair in dark (4511 of 4512)"), "{all:?}");
    assert!(all[1].2.starts_with("needs a rate of mismatches below 0.1 %: 1 more equal pairs"), "{all:?}");
    e.dark_pairs = 4_512;
    assert_eq!(missing(&e, &Promote::default(), State::Dark, State::Live), []);
}

#[test]
fn one_open_difference_shuts_the_gates() {
    let e = RouteEvidence { mismatched: 1, ..good() };
    let lenient = Promote { mismatch_below: 1.0, ..small() };
    let detail = only_missing(&e, &lenient, State::Dark, Name::OpenDifferences, GateVerdict::Fail);
    assert!(detail.starts_with("has 1 open mismatch since"), "{detail}");
    let allowed = Promote { open_differences: 1, ..lenient };
    assert_eq!(missing(&e, &allowed, State::Shadow, State::Dark), []);
}

#[test]
fn pairs_that_legacy_answered_with_errors_do_not_count() {
    let e = RouteEvidence { dark_pairs: 50, dark_pairs_with_error: 31, dark_with_twin: 50, ..good() };
    let promote = Promote { mismatch_below: 1.0, ..small() };
    let detail = only_missing(&e, &promote, State::Live, Name::Pairs, GateVerdict::Inconclusive);
    assert!(detail.contains("(19 of 20; 31 that legacy answered with 4xx or 5xx do not count)"), "{detail}");
}

#[test]
fn coverage_is_that_of_the_rung_and_names_the_reasons() {
    let mut e = good();
    e.skipped.insert("queue_full".into(), 4);
    e.not_compared = Some(NotCompared { shadow: 4, dark: 0 });
    let detail = only_missing(&e, &small(), State::Dark, Name::CoverageAtLeast, GateVerdict::Fail);
    assert!(detail.starts_with("93.8 % of requests were compared (60 of 64)"), "{detail}");
    assert!(detail.contains("have to be: needs 16 more requests if all of them are compared. "), "{detail}");
    assert!(detail.contains("`queue_full` 4") && !detail.contains("pointsman egress"), "{detail}");
    e.skipped.insert("unresolved_effect".into(), 1);
    e.all.legacy_calls.watched = 1;
    let detail = only_missing(&e, &small(), State::Dark, Name::CoverageAtLeast, GateVerdict::Fail);
    assert!(detail.ends_with("calls by legacy belong to no request: `pointsman egress ROUTE`"), "{detail}");
    assert_eq!(missing(&e, &small(), State::Dark, State::Live), [], "in dark all were compared");
    e.not_compared = Some(NotCompared { shadow: 0, dark: 2 });
    let detail = only_missing(&e, &small(), State::Live, Name::CoverageAtLeast, GateVerdict::Fail);
    assert!(detail.starts_with("93.8 % of requests were compared (30 of 32); at least 95 % have to be"), "{detail}");
}

#[test]
fn a_kind_of_request_that_was_not_compared_is_named() {
    let mut e = good();
    e.all.strata.insert("POST 4xx staff".into(), stratum(2, 0));
    let detail = only_missing(&e, &small(), State::Dark, Name::StrataAtLeast, GateVerdict::Inconclusive);
    assert!(detail.ends_with("`POST 4xx staff` (0 of 2 served)"), "{detail}");
    e.all.strata.clear();
    only_missing(&e, &small(), State::Dark, Name::StrataAtLeast, GateVerdict::Inconclusive);
    assert_eq!(missing(&e, &Promote { strata_at_least: 0, ..small() }, State::Shadow, State::Dark), []);
}

#[test]
fn an_engine_that_fails_more_often_than_legacy_is_refused() {
    let promote = Promote { errors_not_worse_by: 0.1, coverage_at_least: 0.0, ..small() };
    let mut e = RouteEvidence { shadow_pairs: 60, ..good() };
    e.failed.insert("timeout".into(), 10);
    assert_eq!(missing(&e, &promote, State::Shadow, State::Dark), [], "10 of 100 is not more than 10 %");
    e.failed.insert("panic".into(), 1);
    let detail = only_missing(&e, &promote, State::Dark, Name::ErrorsNotWorseBy, GateVerdict::Inconclusive);
    assert!(
        detail.contains("10.9 % more errors than legacy; at most 10 % are allowed; with so few requests"),
        "{detail}"
    );
    e.failed.insert("panic".into(), 40);
    let detail = only_missing(&e, &promote, State::Dark, Name::ErrorsNotWorseBy, GateVerdict::Fail);
    assert!(detail.contains("35.7 % more errors than legacy; at most 10 % are allowed"), "{detail}");
    e.failed.insert("panic".into(), 1);
    e.all.failed_only_at_legacy = 1;
    assert_eq!(missing(&e, &promote, State::Shadow, State::Dark), [], "legacy fails too");
}

/// What was compared in `shadow` does not count for `live`.
#[test]
fn the_gate_to_live_looks_at_dark_alone() {
    let (clean, none) = (counts(), stratum(3, 0));
    let missed = [("POST 4xx".to_owned(), none)].into_iter().chain(clean.strata.clone()).collect();
    let e = RouteEvidence { dark: RungCounts { strata: missed, ..clean.clone() }, ..good() };
    only_missing(&e, &small(), State::Live, Name::StrataAtLeast, GateVerdict::Inconclusive);
    let e = RouteEvidence { shadow_pairs: 5_000, dark: RungCounts { failed_runs: 1, ..clean.clone() }, ..good() };
    only_missing(&e, &small(), State::Live, Name::ErrorsNotWorseBy, GateVerdict::Inconclusive);
    let old = Some(NOW - SignedDuration::from_hours(25));
    let e = RouteEvidence { dark: RungCounts { last_pair: old, ..clean }, ..good() };
    only_missing(&e, &small(), State::Live, Name::AgeAtMost, GateVerdict::Stale);
}

#[test]
fn a_kind_that_came_in_shadow_only_and_was_never_compared_keeps_the_gate_to_live_shut() {
    let mut e = good();
    e.all.strata.insert("PUT 2xx".into(), stratum(5, 0));
    let detail = only_missing(&e, &small(), State::Live, Name::StrataAtLeast, GateVerdict::Inconclusive);
    assert!(detail.ends_with("`PUT 2xx` (0 of 5 served in `shadow`)"), "{detail}");
    e.all.strata.insert("PUT 2xx".into(), stratum(5, 1));
    assert_eq!(missing(&e, &small(), State::Dark, State::Live), []);
}

#[test]
fn all_requests_of_kinds_that_are_counted_together_have_to_be_compared() {
    let mut e = good();
    e.all.strata.insert("other".into(), stratum(9, 8));
    let detail = only_missing(&e, &small(), State::Dark, Name::StrataAtLeast, GateVerdict::Inconclusive);
    assert!(detail.ends_with("`other` (8 of 9 served)"), "{detail}");
}

#[test]
fn old_evidence_is_stale() {
    let old = NOW - SignedDuration::from_hours(25);
    let all = RungCounts { last_pair: Some(old), ..counts() };
    let e = RouteEvidence { all, last_answer: Some(old), ..good() };
    let detail = only_missing(&e, &small(), State::Dark, Name::AgeAtMost, GateVerdict::Stale);
    assert_eq!(detail, "the last compared pair was 25 hours ago; it may be at most 24 hours old");
    only_missing(&e, &small(), State::Only, Name::AgeAtMost, GateVerdict::Stale);
    let all = RungCounts { last_pair: None, ..counts() };
    let of_earlier_version = RouteEvidence { all, ..good() };
    only_missing(&of_earlier_version, &small(), State::Dark, Name::AgeAtMost, GateVerdict::Stale);
}

#[test]
fn missing_pairs_are_explained_by_lost_differences() {
    let at = "2026-03-01T10:00:00.5Z".parse().ok();
    let e = RouteEvidence { shadow_pairs: 0, dark_pairs: 19, lost_differences: at, ..good() };
    let promote = Promote { mismatch_below: 1.0, ..small() };
    let detail = only_missing(&e, &promote, State::Dark, Name::Pairs, GateVerdict::Inconclusive);
    assert_eq!(
        detail,
        "needs 1 more compared pair (19 of 20); pairs are counted since 2026-03-01T10:00:00Z: one or more differences \
         were lost: an earlier process ended before it had stored them, or the store is a restored backup"
    );
}

#[test]
fn live_requires_pairs_made_in_dark_and_twins() {
    let mut e = RouteEvidence { shadow_pairs: 900, dark_pairs: 19, dark_with_twin: 19, ..good() };
    let promote = Promote { mismatch_below: 1.0, ..small() };
    let detail = only_missing(&e, &promote, State::Live, Name::Pairs, GateVerdict::Inconclusive);
    assert_eq!(detail, "needs 1 more compared pair in dark (19 of 20)");
    (e.dark_pairs, e.dark_with_twin, e.dark_without_twin) = (90, 90, 10);
    assert_eq!(missing(&e, &promote, State::Dark, State::Live), [], "10 % is not more than 10 %");
    e.dark_without_twin = 11;
    let detail = only_missing(&e, &promote, State::Live, Name::Twins, GateVerdict::Fail);
    assert!(detail.contains("10.9 % of dark requests without a twin (11 of 101)"), "{detail}");
}

#[test]
fn only_requires_a_full_share_and_answers_over_a_window() {
    let e = good();
    let promote = small();
    let route = JudgedRoute { live_share_is_all: false, ..judged(&e, &promote, &[]) };
    assert_eq!(overall(&conditions(&route, State::Live, State::Only)), GateVerdict::Fail);
    let few = RouteEvidence { answers: answers(49, 0, 0), ..good() };
    let detail = only_missing(&few, &small(), State::Only, Name::Answers, GateVerdict::Inconclusive);
    assert!(detail.starts_with("needs 1 more answer of the engine without an error (49 of 50)"), "{detail}");
    let promote = Promote { window: Duration::from_secs(31 * 3_600), ..small() };
    let detail = only_missing(&e, &promote, State::Only, Name::Window, GateVerdict::Inconclusive);
    assert_eq!(detail, "needs answers over 31 hours (so far 30 hours)");
}

#[test]
fn an_engine_that_refuses_more_requests_than_legacy_did_does_not_go_to_only() {
    let mut e = RouteEvidence { answers: answers(50, 50, 0), ..good() };
    let detail = only_missing(&e, &small(), State::Only, Name::ClientErrors, GateVerdict::Fail);
    assert!(detail.contains("all 50 with 4xx"), "{detail}");
    (e.answers, e.legacy) = (answers(1_000, 200, 0), legacy(1_000, 50, 0));
    let detail = only_missing(&e, &small(), State::Only, Name::ClientErrors, GateVerdict::Fail);
    assert!(
        detail.contains("20.0 % of the engine's answers are 4xx (200 of 1000); of legacy's replies 5.0 %"),
        "{detail}"
    );
    e.answers = answers(1_000, 60, 0);
    assert_eq!(missing(&e, &small(), State::Live, State::Only), [], "that may be chance");
}

/// Otherwise a route whose engine refuses half of its callers would go to `only` because nothing is known of legacy.
#[test]
fn while_it_is_not_known_how_many_requests_legacy_refuses_an_engine_that_refuses_many_does_not_pass() {
    let mut e = RouteEvidence { legacy: RepliesOfLegacy::default(), answers: answers(50, 25, 0), ..good() };
    let detail = only_missing(&e, &small(), State::Only, Name::ClientErrors, GateVerdict::Inconclusive);
    assert!(detail.contains("50.0 % of the engine's answers are 4xx (25 of 50); how many of legacy's"), "{detail}");
    // No legacy refuses fewer.
    e.answers = answers(50, 0, 0);
    assert_eq!(missing(&e, &small(), State::Live, State::Only), []);
}

#[test]
fn errors_in_live_are_held_against_those_of_legacy() {
    let e = RouteEvidence { answers: answers(999, 0, 2), ..good() };
    let detail = only_missing(&e, &small(), State::Only, Name::ErrorsNotWorseBy, GateVerdict::Fail);
    assert!(detail.starts_with("0.20 % of requests ended with an error"), "{detail}");
    assert!(
        detail.contains("more are allowed: needs 999 more answers without an error, or none with one for"),
        "{detail}"
    );
    let one = RouteEvidence { answers: answers(999, 0, 1), ..good() };
    assert_eq!(missing(&one, &small(), State::Live, State::Only), [], "0.1 % is not more than 0.1 %");
    let legacy_fails_too = RouteEvidence { legacy: legacy(1_000, 0, 1), ..e };
    assert_eq!(missing(&legacy_fails_too, &small(), State::Live, State::Only), []);
}

#[test]
fn two_rungs_at_once_are_refused_and_going_down_is_always_allowed() {
    for (from, to) in [(State::Off, State::Dark), (State::Shadow, State::Live), (State::Off, State::Only)] {
        assert_eq!(missing(&good(), &small(), from, to)[0].0, Name::OneRung);
    }
    for from in State::ALL {
        for to in State::ALL.into_iter().filter(|to| *to <= from) {
            assert!(judge(&RouteEvidence::default(), &small(), from, to).is_empty());
        }
    }
}

/// The figure in the metrics and in `evidence` is the one that the gate judges.
#[test]
fn the_bound_that_is_shown_takes_account_of_changed_rules_too() {
    let (changed, basis) = (vec![RULES.to_owned()], String::new());
    let earlier =
        EarlierEvidence { until: NOW, changed, pairs: 9, mismatched: 1, basis, outweighed: false, clean_pairs: None };
    let (once, never) = (RouteEvidence { earlier: vec![earlier], ..good() }, good());
    assert!(once.mismatch_upper_bound() > never.mismatch_upper_bound());
    assert!(once.pairs_needed_for(0.001) > never.pairs_needed_for(0.001));
    let detail = |e: &RouteEvidence| judge(e, &small(), State::Shadow, State::Dark)[2].detail.clone();
    assert!(
        detail(&once).contains("the rules or other settings were changed after a difference, so"),
        "{}",
        detail(&once)
    );
    assert!(detail(&once).starts_with(&format!("at most {:.2} %", once.mismatch_upper_bound() * 100.0)));
}

#[test]
fn noise_holds_the_gate_until_it_is_known_how_little_it_may_hide() {
    let with_repeats = |repeats: u64, only_engine: u64| {
        let mut e = RouteEvidence { shadow_pairs: 30, ignored: 30, ..RouteEvidence::default() };
        let group = NoiseGroup { places: ["value $.at".to_owned()].into(), is_ignored: true, ..NoiseGroup::default() };
        e.noise.groups.insert("x".into(), group);
        let both = repeats - only_engine;
        e.noise.places.insert("value $.at".into(), PlaceOutcomes { both, only_engine, ..PlaceOutcomes::default() });
        (e.noise.repeats, e.noise.ignored) = (repeats, 30);
        e
    };
    let condition = |e: &RouteEvidence, promote: &Promote| {
        let all = conditions(&judged(e, promote, &[]), State::Shadow, State::Dark);
        all.into_iter().find(|condition| condition.name == Name::NoiseNotWorseBy)
    };
    let verdict = |repeats, only_engine| condition(&with_repeats(repeats, only_engine), &small()).unwrap().verdict;
    assert_eq!(verdict(47, 0), GateVerdict::Inconclusive);
    assert_eq!(verdict(130, 0), GateVerdict::Pass);
    assert_eq!(verdict(130, 8), GateVerdict::Inconclusive);
    let lenient = Promote { noise_not_worse_by: 1.0, ..small() };
    assert_eq!(condition(&with_repeats(5, 0), &lenient).unwrap().verdict, GateVerdict::Pass);
    let without = RouteEvidence { shadow_pairs: 30, matched: 30, ..RouteEvidence::default() };
    assert_eq!(condition(&without, &small()), None);
    // That legacy does not keep an order needs no repeated request.
    let mut order = with_repeats(0, 0);
    order.noise.groups.values_mut().for_each(|of| of.places = ["effect_order effects.a, effects.b".to_owned()].into());
    assert_eq!(condition(&order, &small()), None);
}

/// Otherwise a workflow that charges the wrong amount in a workflow that it runs would pass to `live`.
#[test]
fn the_gate_to_live_names_the_calls_of_child_workflows_that_nothing_compares() {
    let below = ["`pay/charge`".to_owned()];
    let effects = |promote: &Promote| {
        let e = good();
        let all = conditions(&judged(&e, promote, &below), State::Dark, State::Live);
        all.into_iter().find(|condition| condition.name == Name::EffectsCompared).unwrap()
    };
    let found = effects(&small());
    assert_eq!(found.verdict, GateVerdict::Inconclusive);
    assert!(found.detail.contains("compared with nothing: `pay/charge`."), "{found:?}");
    assert_eq!(effects(&Promote { effects_compared: false, ..small() }).verdict, GateVerdict::Pass);
}

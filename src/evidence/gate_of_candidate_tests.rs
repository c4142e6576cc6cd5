//! Tests of the conditions of the gate of a candidate.

use super::answers::AnswersByHour;
use super::conditions::{Condition, ConditionName as Name, GateVerdict, overall};
use super::gate_of_candidate::candidate_conditions;
use super::gate_tests::{answers, good, judged, legacy, small};
use super::guard::CleanPairs;
use super::guard_stop::GuardStop;
use super::legacy_replies::RepliesOfLegacy;
use super::route::RouteEvidence;

fn of_candidate(e: &RouteEvidence, uncompared: &[String]) -> Vec<Condition> {
    candidate_conditions(&judged(e, &small(), uncompared), None)
}

fn verdict_of(name: Name, all: &[Condition]) -> Option<GateVerdict> {
    all.iter().find(|condition| condition.name == name).map(|condition| condition.verdict)
}

#[test]
fn a_candidate_whose_own_answers_fail_or_whose_child_calls_nobody_compares_does_not_pass() {
    let verdict = |e: &RouteEvidence, uncompared: &[String]| overall(&of_candidate(e, uncompared));
    assert_eq!(verdict(&good(), &[]), GateVerdict::Pass);
    assert_eq!(verdict(&RouteEvidence { answers: answers(30, 0, 20), ..good() }, &[]), GateVerdict::Fail);
    let failing = RouteEvidence { answers: answers(30, 0, 20), ..good() };
    let all = of_candidate(&failing, &[]);
    assert_eq!(verdict_of(Name::ErrorsNotWorseBy, &all), Some(GateVerdict::Pass), "of the pairs");
    let own = all.iter().find(|found| found.name == Name::CandidateErrors).unwrap();
    assert!(own.detail.contains("of requests that the candidate answered ended with an error"), "{own:?}");
    assert_eq!(verdict(&RouteEvidence { answers: answers(0, 0, 0), ..good() }, &[]), GateVerdict::Pass, "no share yet");
    assert_eq!(verdict(&good(), &["`pay/charge`".to_owned()]), GateVerdict::Inconclusive);
}

/// Its rehearsals are equal to what the plan in force does, and it refuses callers where it answers itself.
#[test]
fn a_candidate_that_refuses_more_callers_than_the_plan_in_force_does_not_pass() {
    let verdict = |answers: AnswersByHour, legacy: RepliesOfLegacy| {
        let e = RouteEvidence { answers, legacy, ..good() };
        verdict_of(Name::ClientErrors, &of_candidate(&e, &[]))
    };
    assert_eq!(verdict(answers(47, 47, 0), legacy(80, 0, 0)), Some(GateVerdict::Fail), "all of them");
    assert_eq!(verdict(answers(40, 20, 0), legacy(80, 0, 0)), Some(GateVerdict::Fail));
    assert_eq!(verdict(answers(40, 20, 0), legacy(80, 40, 0)), Some(GateVerdict::Pass), "as many as the plan in force");
    assert_eq!(verdict(answers(40, 20, 0), legacy(0, 0, 0)), Some(GateVerdict::Inconclusive), "not known");
    assert_eq!(verdict(answers(40, 0, 0), legacy(0, 0, 0)), Some(GateVerdict::Pass), "it refuses nobody");
    assert_eq!(verdict(answers(0, 0, 0), legacy(80, 0, 0)), None, "no share yet");
    for (engine_answers, engine_answers_4xx, expected) in [(7, 7, Some(GateVerdict::Inconclusive)), (7, 6, None)] {
        let answers = answers(0, 0, 0);
        let e = RouteEvidence { answers, engine_answers, engine_answers_4xx, ..good() };
        assert_eq!(verdict_of(Name::ClientErrors, &of_candidate(&e, &[])), expected, "before the window");
    }
}

#[test]
fn a_candidate_that_the_guard_has_stopped_does_not_pass_until_clean_pairs_may_release_it() {
    let stop = GuardStop { at: jiff::Timestamp::UNIX_EPOCH, why: "5 of the last 5 were refused".into() };
    let stopped = |clean: Option<CleanPairs>| {
        let (e, promote) = (good(), small());
        let all = candidate_conditions(&judged(&e, &promote, &[]), Some((&stop, clean)));
        let found = all.into_iter().find(|condition| condition.name == Name::StoppedByGuard).unwrap();
        (found.verdict, found.detail)
    };
    let (verdict, detail) = stopped(None);
    assert!(verdict == GateVerdict::Fail && detail.contains("(1970-01-01T00:00:00Z): 5 of the last 5"), "{detail}");
    let clean = |pairs, not_compared| Some(CleanPairs { pairs, not_compared });
    let (verdict, detail) = stopped(clean(19, 0));
    assert!(verdict == GateVerdict::Inconclusive && detail.ends_with("needs 1 more clean pairs in a row"), "{detail}");
    assert_eq!(stopped(clean(20, 0)).0, GateVerdict::Pass);
    assert_eq!(stopped(clean(20, 20)).0, GateVerdict::Inconclusive, "half of the requests since were not compared");
}

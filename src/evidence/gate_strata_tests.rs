//! Tests of what a gate asks of each kind of request, pairs that both arms refused included.

use super::conditions::{ConditionName as Name, GateVerdict};
use super::gate_tests::{counts, good, missing, only_missing, small};
use super::route::RouteEvidence;
use super::rung::RungCounts;
use super::strata::{NotCompared, StratumCounts};
use crate::flag::{Promote, State};

/// Of a rare kind one request alone was compared, and the others were skipped: their differences could hide behind the
/// coverage of the frequent kind.
#[test]
fn a_rare_kind_has_to_be_compared_as_far_as_all_requests() {
    let mut e = good();
    let of = |compared, skipped| {
        let served = compared + skipped;
        StratumCounts { served, compared, mismatched: 0, calls_unknown: 0, skipped }
    };
    for (compared, skipped, holds) in [(1, 5, true), (1, 2, true), (1, 1, false), (37, 2, true), (38, 2, false)] {
        e.all.strata.insert("POST 4xx".into(), of(compared, skipped));
        if holds {
            let detail = only_missing(&e, &small(), State::Dark, Name::StrataAtLeast, GateVerdict::Inconclusive);
            let of_kind = format!(
                "`POST 4xx` ({compared} of {} that were sampled; at least 95 % have to be)",
                compared + skipped
            );
            assert!(detail.ends_with(&of_kind), "{detail}");
        } else {
            assert_eq!(missing(&e, &small(), State::Shadow, State::Dark), [], "{compared} and {skipped}");
        }
    }
    e.all.strata.insert("POST 4xx".into(), of(1, 5));
    let promote = Promote { strata_at_least: 0, ..small() };
    assert_eq!(missing(&e, &promote, State::Shadow, State::Dark), [], "kinds are not looked at");
}

/// Whose requests are counted together is not known: one kind of them may never have been compared.
#[test]
fn all_requests_of_kinds_that_are_counted_together_have_to_be_compared() {
    for name in ["other", "POST 2xx (other values)"] {
        let mut e = good();
        let of = |compared| StratumCounts { served: 40, compared, mismatched: 0, calls_unknown: 0, skipped: 0 };
        e.all.strata.insert(name.into(), of(39));
        let detail = only_missing(&e, &small(), State::Dark, Name::StrataAtLeast, GateVerdict::Inconclusive);
        assert!(detail.ends_with(&format!("`{name}` (39 of 40 served)")), "{detail}");
        e.all.strata.insert(name.into(), of(40));
        assert_eq!(missing(&e, &small(), State::Shadow, State::Dark), [], "{name}");
    }
}

/// 970 equal 404s hide neither that one in four of the others was skipped nor that the engine fails for them.
#[test]
fn errors_of_both_arms_raise_neither_coverage_nor_the_number_of_requests_without_an_error_of_the_engine() {
    let many = |e: RouteEvidence| RouteEvidence { dark_pairs: 1_000, dark_pairs_with_error: 970, ..e };
    let mut e = many(good());
    assert_eq!(missing(&e, &small(), State::Dark, State::Live), []);
    e.not_compared = Some(NotCompared { shadow: 0, dark: 10 });
    let detail = only_missing(&e, &small(), State::Live, Name::CoverageAtLeast, GateVerdict::Fail);
    assert!(detail.starts_with("75.0 % of requests were compared (30 of 40)"), "{detail}");
    let none = RouteEvidence { dark_pairs: 970, shadow_pairs: 0, ..e.clone() };
    let none = RouteEvidence { not_compared: Some(NotCompared::default()), ..none };
    let of_none = missing(&none, &small(), State::Dark, State::Live);
    let of_none = of_none.iter().find(|(name, ..)| *name == Name::CoverageAtLeast).expect("only errors were compared");
    assert_eq!(of_none.1, GateVerdict::Inconclusive, "{of_none:?}");

    let mut e = many(good());
    (e.dark.failed_at_both, e.dark.failed_only_at_engine) = (970, 1);
    let detail = only_missing(&e, &small(), State::Live, Name::ErrorsNotWorseBy, GateVerdict::Inconclusive);
    assert!(detail.starts_with("in 30 requests (without 970 in which both arms failed) the engine alone"), "{detail}");
    assert!(detail.contains(": 3.3 % more errors than legacy"), "{detail}");
}

/// Pairs that both arms refused have no age: one of them more would not end the complaint.
#[test]
fn pairs_that_both_arms_refused_are_not_those_of_an_earlier_version() {
    let all = RungCounts { last_pair: None, ..counts() };
    let e = RouteEvidence {
        shadow_pairs: 5,
        shadow_pairs_with_error: 5,
        dark_pairs: 4,
        dark_pairs_with_error: 4,
        dark: all.clone(),
        all,
        ..good()
    };
    for to in [State::Dark, State::Live] {
        let unmet: Vec<_> = missing(&e, &small(), to.below().unwrap(), to).into_iter().map(|(name, ..)| name).collect();
        assert!(unmet.contains(&Name::Pairs) && !unmet.contains(&Name::AgeAtMost), "{to}: {unmet:?}");
    }
}

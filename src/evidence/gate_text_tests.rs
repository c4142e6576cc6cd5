//! What the conditions of the gates advise, and how they are worded.

use std::time::Duration;

use super::conditions::{Condition, ConditionName as Name};
use super::gate::{JudgedRoute, conditions};
use super::gate_of_candidate::candidate_conditions;
use super::gate_tests::{good, judge, judged, small};
use super::gate_text::duration_text;
use crate::flag::State;
use crate::names::StepId;

/// The calls of the plan in force are known without an egress listener.
#[test]
fn a_candidate_whose_steps_were_not_reached_is_not_advised_to_watch_legacy() {
    let (promote, steps) = (small(), ["charge"].map(StepId::from));
    let e = good();
    let route = JudgedRoute { shared_steps: &steps, ..judged(&e, &promote, &[]) };
    let effects = |conditions: Vec<Condition>| {
        conditions.into_iter().find(|condition| condition.name == Name::EffectsCompared).unwrap().detail
    };
    let of_candidate = effects(candidate_conditions(&route, None));
    assert!(of_candidate.contains("call by the plan in force") && !of_candidate.contains("egress"), "{of_candidate}");
    let of_route = effects(conditions(&route, State::Dark, State::Live));
    assert!(of_route.contains("call by legacy") && of_route.contains("egress listener"), "{of_route}");
}

#[test]
fn a_count_of_one_is_written_in_the_singular() {
    let words = [0, 1, 2, 119].map(|s| duration_text(Duration::from_secs(s)));
    assert_eq!(words, ["0 seconds", "1 second", "2 seconds", "119 seconds"]);
    let all = judge(&good(), &small(), State::Shadow, State::Dark);
    let strata = all.into_iter().find(|condition| condition.name == Name::StrataAtLeast).unwrap().detail;
    assert!(strata.starts_with("the one kind of requests and runs has "), "{strata}");
}

//! Header values with control characters, which no header can hold, and header values that are null.

use super::harness::plan;
use super::*;
use crate::workflow::{ConflictKind, StepEvent};

fn run_with<'a>(plan: &'a Plan, name: &str, by_route: bool) -> Harness<'a> {
    let mut harness = Harness::started_with(plan, |started| {
        started.request = Arc::new(json!({"body": {"name": name}}));
        if !by_route {
            started.route = None;
        }
    });
    harness.settle();
    harness
}

const CONTROLS: [&str; 4] = ["a\0b", "\u{1b}[2J", "a\u{7f}", "\u{1}"];

/// The input is at fault, so the call is not repeated and its fallback does not run.
#[test]
fn a_call_with_a_control_character_in_a_header_fails_and_is_not_sent() {
    let plan = plan(
        "
workflow: w
steps:
  a: { call: 'POST ${services.bank}/a', headers: { x-name: '${request.body.name}' }, fallback: b }
  b: { fallback_only: true, set: 1 }
respond: { status: 200 }
",
    );
    for name in CONTROLS {
        let harness = run_with(&plan, name, true);
        let failure = harness.run.failure().unwrap();
        assert_eq!((harness.run.status(), failure.kind), (RunStatus::Failed, FailureKind::Expression), "{name:?}");
        assert!(failure.message.starts_with("`a`: the value of the header `x-name` has a control"), "{failure:?}");
        let harness = run_with(&plan, name, false);
        assert_eq!(harness.run.conflict().map(|open| open.kind), Some(ConflictKind::Expression), "{name:?}");
        assert!(harness.sent.is_empty());
    }
    for name in ["a\tb", "Zo\u{eb}", ""] {
        assert_eq!(run_with(&plan, name, true).in_flight_names(), ["a"], "{name:?}");
    }
}

#[test]
fn an_answer_with_a_control_character_in_a_header_is_no_answer() {
    let plan = plan(
        "
workflow: w
steps: { a: { set: 1 } }
respond: { status: 200, headers: { x-name: '${request.body.name}' } }
",
    );
    for name in CONTROLS {
        let harness = run_with(&plan, name, true);
        let failure = harness.run.failure().unwrap();
        assert!(failure.message.starts_with("`respond`: the value of the header `x-name`"), "{failure:?}");
        assert_eq!((failure.kind, harness.run.answer()), (FailureKind::Expression, None));
        let harness = run_with(&plan, name, false);
        assert_eq!(harness.run.conflict().map(|open| open.kind), Some(ConflictKind::Answer), "{name:?}");
    }
    let headers = &run_with(&plan, "Zo\u{eb}", true).run.answer().unwrap().headers.clone();
    assert_eq!(*headers, [("x-name".to_owned(), "Zo\u{eb}".to_owned())]);
}

#[test]
fn a_fail_step_with_a_control_character_in_a_header_does_not_answer() {
    let plan = plan(
        "
workflow: w
steps: { a: { fail: { status: 400, headers: { x-name: '${request.body.name}' } } } }
respond: { status: 200 }
",
    );
    let harness = run_with(&plan, "a\0b", true);
    assert!(!harness.events.iter().any(|event| matches!(event, Event::Step(StepEvent::FailReached { .. }))));
    assert_eq!(harness.run.failure().map(|failure| failure.kind), Some(FailureKind::Expression));
}

/// Only the whole value can be null: within a text, null stays an error.
#[test]
fn a_header_whose_value_is_null_is_left_out() {
    let plan = plan(
        "
workflow: w
steps:
  a:
    call: 'POST ${services.bank}/a'
    headers: { x-name: '${request.body.name == \"\" ? null : request.body.name}', x-never: null, x-always: '1' }
  b: { needs: [a], call: 'POST ${services.bank}/b', headers: { x-name: 'is ${request.body.name == \"\" ? null : 1}' } }
respond: { status: 200, headers: { x-name: '${request.body.name == \"\" ? null : request.body.name}' } }
",
    );
    for (name, expected) in [("", vec!["x-always"]), ("Zoe", vec!["x-name", "x-always"])] {
        let mut harness = run_with(&plan, name, true);
        let in_flight = harness.run.in_flight();
        let sent = in_flight.first().unwrap();
        let names: Vec<_> = sent.request.headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, expected, "{name:?}");
        harness.call("a", ok(json!({})));
        let failure = harness.run.failure().map(|failure| failure.message.clone());
        assert_eq!(failure.is_some(), name.is_empty(), "{failure:?}");
    }
}

//! Calls of unknown outcome in a run that ends early: which of them are repeated before anything is undone.

use super::harness::{plan, timed_out};
use super::*;
use crate::workflow::{ConflictKind, StepPart};

/// A plan in which `bad` fails the run while a call of `method` at `service` is under way.
fn plan_failing_during_call(method: &str, service: &str, undo: &str) -> Plan {
    plan(&format!(
        "
workflow: w
steps:
  put: {{ call: '{method} ${{services.{service}}}/put', retry: {{ attempts: 3, base: 1ms, max: 1ms }}, {undo} }}
  bad: {{ call: 'POST ${{services.bank}}/bad' }}
respond: {{ status: 200 }}
"
    ))
}

const UNDO: &str = "undo: 'DELETE ${services.stock}/put'";

#[test]
fn a_harmless_repeat_settles_an_unknown_outcome_before_it_is_undone() {
    for (method, service) in [("PUT", "bank"), ("DELETE", "bank"), ("POST", "stock")] {
        // The run fails before the outcome becomes unknown, or after it.
        for fails_first in [true, false] {
            let plan = plan_failing_during_call(method, service, UNDO);
            let mut harness = Harness::of_route(&plan);
            harness.settle();
            let first = harness.run.attempt(&"put".into(), None, StepPart::Do).unwrap();
            for step in if fails_first { ["bad", "put"] } else { ["put", "bad"] } {
                harness.call(step, if step == "bad" { status(404) } else { timed_out() });
            }
            let again = harness.run.attempt(&"put".into(), None, StepPart::Do).expect("the call is repeated");
            assert_eq!((again.attempt, &again.key, &again.request), (2, &first.key, &first.request), "{method}");
            harness.call("put", ok(json!({})));
            assert_eq!(harness.in_flight_names(), ["undo put"], "{method} {fails_first}");
            harness.undo("put", ok(json!({})));
            assert_eq!(harness.run.status(), RunStatus::Failed);
        }
    }
}

#[test]
fn an_outcome_that_the_attempts_left_do_not_settle_is_a_conflict() {
    let plan = plan_failing_during_call("PUT", "bank", UNDO);
    for last in [timed_out(), status(404)] {
        let mut harness = Harness::of_route(&plan);
        harness.settle();
        harness.call("bad", status(404));
        harness.call("put", timed_out());
        harness.call("put", timed_out());
        harness.call("put", last);
        let conflict = harness.run.conflict().expect("a conflict is open");
        assert_eq!((conflict.kind, conflict.step.as_str()), (ConflictKind::OutcomeUnknown, "put"));
    }
}

#[test]
fn nothing_is_repeated_that_may_do_harm_or_would_not_be_undone() {
    for (method, service, undo) in [("POST", "bank", UNDO), ("PUT", "bank", "timeout: 1s")] {
        let plan = plan_failing_during_call(method, service, undo);
        let mut harness = Harness::of_route(&plan);
        harness.settle();
        harness.call("bad", status(404));
        harness.call("put", timed_out());
        assert_eq!(harness.run.conflict().map(|conflict| conflict.kind), Some(ConflictKind::OutcomeUnknown));
    }
    let plan = plan_failing_during_call("PUT", "bank", UNDO);
    for compensate in [true, false] {
        let mut harness = Harness::of_route(&plan);
        harness.settle();
        harness.cancel(compensate).unwrap();
        harness.call("bad", status(404));
        harness.call("put", timed_out());
        let conflict = harness.run.conflict().map(|conflict| conflict.kind);
        assert_eq!(
            conflict,
            compensate.then_some(ConflictKind::OutcomeUnknown),
            "without undoing, no conflict is opened"
        );
    }
}

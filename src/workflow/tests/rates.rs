//! Calls that the rate of their service does not admit in time.

use super::harness::{breaker_open, plan};
use super::*;
use crate::workflow::replay_with;

#[test]
fn the_rate_of_a_service_is_waited_for_like_an_open_breaker_but_a_waiting_caller_uses_up_attempts() {
    let over_rate = || AttemptResult::OverRate { why: "x".into(), retry_after_ms: 60_000 };
    let with = plan(
        "{ workflow: w, steps: { charge: { call: 'POST ${services.bank}/charges', fallback: invoice }, \
         invoice: { fallback_only: true, call: 'POST ${services.bank}/invoices' } }, respond: { status: 200 } }",
    );
    let mut harness = Harness::of_route(&with);
    harness.settle();
    harness.call("charge", over_rate());
    assert_eq!(harness.in_flight_names(), ["invoice"], "the fallback is taken at once");
    let plan = plan(
        "{ workflow: w, steps: { a: { call: 'POST ${services.bank}/a' } }, respond: [{ pending: { status: 202 } }, { status: 200 }] }",
    );
    let mut harness = Harness::of_route(&plan);
    harness.settle();
    harness.command(Command::AnswerPending).unwrap();
    for minutes in 1..=5 {
        harness.call("a", over_rate());
        assert_eq!(harness.in_flight_names(), ["a"]);
        assert!(harness.now >= Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minutes), "{}", harness.now);
    }
    harness.call("a", ok(json!({})));
    assert_eq!(harness.status(), RunStatus::Completed);
    let mut harness = Harness::of_route(&plan);
    harness.settle();
    for _ in 0..3 {
        harness.call("a", over_rate());
    }
    assert_eq!(harness.status(), RunStatus::Failed, "while a caller waits, the attempts are used up");
}

#[test]
fn a_dark_run_uses_up_attempts_while_the_rate_admits_no_call() {
    let plan = plan("{ workflow: w, steps: { a: { call: 'GET ${services.bank}/a' } }, respond: { status: 200 } }");
    let mut harness = Harness::new(&plan, Mode::Dark, json!({}));
    harness.settle();
    for _ in 0..3 {
        harness.call("a", AttemptResult::OverRate { why: "x".into(), retry_after_ms: 60_000 });
    }
    assert_eq!(harness.status(), RunStatus::Failed);
}

/// The rate or the breaker admits another attempt only after the deadline, so the step fails. A replay has to decide
/// the same from the recorded events.
#[test]
fn a_replay_finds_no_difference_where_the_rate_or_an_open_breaker_ended_a_step() {
    let plan = plan(
        "{ workflow: w, steps: { a: { call: 'POST ${services.bank}/a', deadline: 30s } }, respond: { status: 200 } }",
    );
    let over_rate = AttemptResult::OverRate { why: "x".into(), retry_after_ms: 60_000 };
    for result in [over_rate, breaker_open(60_000), AttemptResult::NotSent("x".into())] {
        let mut harness = Harness::of_route(&plan);
        harness.settle();
        let is_retried = matches!(result, AttemptResult::NotSent(_));
        harness.call("a", result);
        assert_eq!(harness.status() == RunStatus::Failed, !is_retried);
        let events: Vec<_> = harness.events.iter().map(|event| (Timestamp::UNIX_EPOCH, event.clone())).collect();
        assert_eq!(replay_with(&events, &plan, &harness.inputs).unwrap(), []);
    }
}

//! Rehearsals: outputs that are declared or not, and attempts while a service is not available. Waiting takes no time
//! in a rehearsal, so the number of such attempts has to be bounded.

use super::harness::{breaker_open, plan};
use super::*;

/// Answers every attempt of `a` in the same way, at most 20 times. Returns the number of attempts.
fn attempts(harness: &mut Harness<'_>, result: &dyn Fn() -> AttemptResult) -> usize {
    harness.settle();
    let mut count = 0;
    while harness.in_flight_names() == ["a"] && count < 20 {
        count += 1;
        harness.call("a", result());
    }
    count
}

fn of_mode(plan: &Plan, mode: Mode) -> Harness<'_> {
    Harness::new(plan, mode, json!({}))
}

#[test]
fn an_open_breaker_uses_up_the_attempts_of_a_rehearsal() {
    for settings in ["", ", deadline: 1h", ", fallback: b"] {
        let plan = plan(&format!(
            "
workflow: w
steps:
  a: {{ call: 'GET ${{services.bank}}/a', retry: {{ attempts: 4 }}{settings} }}
  b: {{ fallback_only: {}, set: 1 }}
respond: {{ status: 200, body: '${{steps.a.output}}' }}
",
            settings.contains("fallback")
        ));
        let mut harness = of_mode(&plan, Mode::Rehearse);
        let count = attempts(&mut harness, &|| breaker_open(5_000));
        match settings.contains("fallback") {
            true => assert_eq!((count, harness.status()), (1, RunStatus::Completed), "the fallback is taken at once"),
            false => {
                assert_eq!((count, harness.status()), (4, RunStatus::Failed), "{settings}");
                assert_eq!(harness.run.failure().map(|failure| failure.kind), Some(FailureKind::Unavailable));
            }
        }
    }
}

/// Each of these attempts is a request to the service, sent without a delay.
#[test]
fn a_lock_at_a_service_uses_up_the_attempts_of_a_rehearsal() {
    let plan = plan(
        "
workflow: w
steps:
  a: { call: 'POST ${services.bank}/search', effect: read, retry: { attempts: 2 }, busy_on: [409] }
respond: { status: 200 }
",
    );
    for code in [409, 423] {
        let mut harness = of_mode(&plan, Mode::Rehearse);
        assert_eq!(attempts(&mut harness, &|| status(code)), 2);
        assert_eq!(harness.status(), RunStatus::Failed);
    }
}

/// A dark run waits on the real clock.
#[test]
fn a_dark_run_waits_for_an_open_breaker_and_for_a_lock_at_a_service() {
    let plan = plan(
        "
workflow: w
steps:
  a: { call: 'GET ${services.bank}/a', retry: { attempts: 2 }, busy_on: [409] }
respond: { status: 200 }
",
    );
    for result in [breaker_open(5_000), status(409)] {
        let mut harness = of_mode(&plan, Mode::Dark);
        assert_eq!(attempts(&mut harness, &|| result.clone()), 20);
        harness.call("a", ok(json!({})));
        assert_eq!(harness.status(), RunStatus::Completed);
    }
}

#[test]
fn a_rehearsal_fails_with_the_name_of_an_undeclared_output_that_is_read() {
    let plan = PlanBuilder::new()
        .call("charge", &[], "POST /charges", json!({"amount": 1}))
        .respond(200, json!({"id": "${steps.charge.output.id}"}))
        .build("w");
    let mut harness = Harness::new(&plan, Mode::Rehearse, json!({}));
    harness.settle();
    let failure = harness.run.failure().unwrap();
    assert_eq!(failure.kind, FailureKind::Unresolved);
    assert!(failure.message.contains("`charge`"), "{}", failure.message);
    assert_eq!(harness.run.intents().count(), 1);
    assert!(harness.sent.is_empty());
}

#[test]
fn a_declared_output_that_is_null_stays_declared_in_the_stored_events() {
    let plan = PlanBuilder::new()
        .call("charge", &[], "POST /charges", json!({"amount": 1}))
        .rehearse(Value::Null)
        .respond(200, json!({"ref": "${steps.charge.output}"}))
        .build("w");
    let mut harness = Harness::new(&plan, Mode::Dark, json!({}));
    harness.settle(); // the harness reads each event back from its stored form
    assert_eq!(harness.run.answer().unwrap().body.value(), json!({"ref": null}));
    let rehearsed = harness.events.iter().find(|event| event.kind() == "step_finished").unwrap();
    let mut written = serde_json::to_value(rehearsed).unwrap();
    let outcome = &mut written["step_finished"]["outcome"]["rehearsed"];
    assert_eq!(outcome["output"], Value::Null);
    // An earlier version wrote a declared null without `declares_null`, which is also how an undeclared output is
    // written.
    outcome.as_object_mut().unwrap().remove("declares_null").unwrap();
    let Event::StepFinished(finished) = serde_json::from_value(written).unwrap() else { panic!("a step's end") };
    assert!(matches!(finished.outcome, super::Outcome::Rehearsed { output: None, .. }));
}

//! Failures and their remedies: retries and deadlines, fallbacks and probes, conflicts that people resolve.

use super::harness::{breaker_open, plan, take_output, timed_out};
use super::*;
use crate::workflow::{Choice, ConflictKind, ControlCommand, Payload, Skipped, StepEvent, StepPart};

const CHARGE: &str = "
workflow: w
steps:
  charge:
    call: POST ${services.bank}/charges
    body: { amount: 7 }
    retry: { attempts: 2, base: 10ms, max: 10ms }
    fallback: invoice
  invoice:
    fallback_only: true
    call: POST ${services.bank}/invoices
    retry: { attempts: 1 }
  note: { set: '${steps.charge.by}', if: '${steps.charge.status == 201}' }
respond: { status: 200, body: '${steps.charge.output}' }
";

#[test]
fn a_fallback_replaces_a_step_that_certainly_did_nothing() {
    let plan = plan(CHARGE);
    let mut harness = Harness::of_route(&plan);
    harness.settle();
    harness.call("charge", status(429));
    harness.call("charge", status(429));
    assert_eq!(harness.in_flight_names(), ["invoice"]);
    let result = AttemptResult::Reply {
        status: 201,
        headers: BTreeMap::new(),
        output: Arc::new(json!({"id": 9})),
        retry_after_ms: None,
    };
    harness.call("invoice", result);
    assert_eq!(harness.run.status(), RunStatus::Completed);
    assert_eq!(harness.run.answer().unwrap().body.value(), json!({"id": 9}));
    assert_eq!(
        (harness.output("charge")["by"].clone(), harness.output("note")["output"].clone()),
        (json!("invoice"), json!("invoice"))
    );
}

#[test]
fn an_unused_fallback_is_skipped_and_after_an_unknown_outcome_none_is_taken() {
    let plan = plan(CHARGE);
    let mut harness = Harness::of_route(&plan);
    harness.settle();
    harness.call("charge", ok(json!({})));
    assert_eq!(harness.run.status(), RunStatus::Completed);
    let not_needed = Event::Step(StepEvent::Skipped { step: "invoice".into(), item: None, reason: Skipped::NotNeeded });
    assert!(harness.events.contains(&not_needed), "{:?}", harness.kinds());

    let mut harness = Harness::of_route(&plan);
    harness.settle();
    harness.call("charge", timed_out());
    assert_eq!(harness.run.conflict().map(|conflict| conflict.kind), Some(ConflictKind::OutcomeUnknown));
    let refused = harness.choose("charge", None, Choice::Fallback).unwrap_err();
    assert!(refused.to_string().contains("a second time"), "{refused}");
}

#[test]
fn an_open_breaker_takes_the_fallback_at_once_or_waits_without_using_an_attempt() {
    let with = plan(CHARGE);
    let mut harness = Harness::of_route(&with);
    harness.settle();
    harness.call("charge", breaker_open(60_000));
    assert_eq!(harness.in_flight_names(), ["invoice"]);

    let without = plan(
        &CHARGE
            .replace("    fallback: invoice\n", "    deadline: 3m\n")
            .replace("  invoice:\n    fallback_only: true\n", "  invoice:\n")
            .replace("${steps.charge.by}", "1"),
    );
    let mut harness = Harness::of_route(&without);
    harness.settle();
    harness.call("invoice", ok(json!({})));
    for _ in 0..2 {
        harness.call("charge", breaker_open(60_000));
        assert_eq!(harness.in_flight_names(), ["charge"], "the step waited until the breaker admitted a call");
    }
    assert_eq!(harness.now, Timestamp::UNIX_EPOCH + SignedDuration::from_secs(120));
    harness.call("charge", breaker_open(60_000));
    let failure = harness.run.failure().unwrap();
    assert!(failure.message.contains("breaker of `bank`"), "the step's deadline is over: {}", failure.message);
}

#[test]
fn an_open_breaker_is_waited_for_once_no_caller_waits() {
    let plan = plan(
        "{ workflow: w, steps: { a: { call: 'POST ${services.bank}/a' } }, respond: [{ pending: { status: 202 } }, { status: 200 }] }",
    );
    let mut harness = Harness::of_route(&plan);
    harness.settle();
    harness.call("a", breaker_open(60_000));
    assert_eq!(harness.status(), RunStatus::Failed, "no attempt waits while the caller does");
    let mut harness = Harness::of_route(&plan);
    harness.settle();
    harness.command(Command::AnswerPending).unwrap();
    harness.call("a", breaker_open(60_000));
    assert_eq!(harness.in_flight_names(), ["a"], "the step waited until the breaker admitted a call");
    harness.call("a", ok(json!({})));
    assert_eq!(harness.status(), RunStatus::Completed);
}

#[test]
fn fallbacks_form_chains_and_a_step_whose_fallback_does_not_run_fails() {
    let chain = plan(
        "
workflow: w
steps:
  a: { call: 'POST ${services.bank}/a', retry: { attempts: 1 }, fallback: b }
  b: { call: 'POST ${services.bank}/b', retry: { attempts: 1 }, fallback: c, fallback_only: true }
  c: { set: { from: c }, fallback_only: true, if: '${request.body.items[0] == 1}' }
  last: { needs: [a], set: '${steps.a.by}' }
respond: { status: 200, body: '${steps.a.output}' }
",
    );
    let mut harness = Harness::of_route(&chain);
    harness.settle();
    harness.call("a", status(429));
    harness.call("b", AttemptResult::NotSent("x".into()));
    assert_eq!(harness.run.answer().unwrap().body.value(), json!({"from": "c"}));
    assert_eq!(harness.output("last")["output"], json!("c"));

    let mut harness =
        Harness::started_with(&chain, |started| started.request = Arc::new(json!({"body": {"items": [2]}})));
    harness.settle();
    harness.call("a", status(429));
    harness.call("b", status(429));
    assert_eq!(harness.run.status(), RunStatus::Failed);
    assert!(harness.run.failure().unwrap().message.contains("`b`"), "{:?}", harness.run.failure());
}

#[test]
fn a_step_s_deadline_ends_its_attempts_and_the_run_s_deadline_ends_the_run() {
    let plan = plan(
        "
workflow: w
deadline: 1h
steps:
  a:
    call: POST ${services.bank}/a
    retry: { attempts: 100, base: 10s, max: 10s }
    deadline: 12s
    undo: DELETE ${services.bank}/a
  b: { needs: [a], call: 'POST ${services.bank}/b', retry: { attempts: 100, base: 30m, max: 30m } }
respond: { status: 200 }
",
    );
    let mut harness = Harness::of_route(&plan);
    harness.settle();
    for _ in 0..3 {
        harness.call("a", status(429)); // with the harness's jitter each delay is half of the maximum
    }
    assert_eq!(
        harness.run.status(),
        RunStatus::Failed,
        "attempts after 5 and 10 seconds; one after 15 would be too late"
    );

    let hour = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(1);
    let mut harness = Harness::started_with(&plan, |started| started.until = Some(hour));
    harness.settle();
    harness.call("a", ok(json!({})));
    for _ in 0..4 {
        if harness.in_flight_names() == ["b"] {
            harness.call("b", status(429));
        }
    }
    assert_eq!(harness.in_flight_names(), ["undo a"]);
    harness.undo("a", ok(json!({})));
    assert_eq!((harness.run.status(), harness.run.failure().unwrap().kind), (RunStatus::Failed, FailureKind::TimedOut));
    assert!(harness.run.note().unwrap().contains("undone: `a`"), "{:?}", harness.run.note());
}

const ASKS: &str = "
workflow: w
steps:
  look: { call: 'GET ${services.bank}/x', on_failure: pause, retry: { attempts: 1 } }
  put:
    needs: [look]
    call: PUT ${services.bank}/x
    body: { n: '${steps.look.output.n}' }
    output: { schema: { required: [id] } }
respond: { status: 200, body: '${steps.put.output}' }
";

#[test]
fn a_resolved_conflict_goes_on_where_the_run_paused() {
    let plan = plan(ASKS);
    let mut harness = Harness::of_api(&plan);
    harness.settle();
    harness.call("look", status(429));
    let conflict = harness.run.conflict().unwrap();
    assert_eq!(conflict.kind, ConflictKind::AttemptsUsedUp);
    assert_eq!(conflict.choices, ["retry", "retry_with", "skip", "take", "cancel"]);
    harness.choose("look", None, Choice::Retry).unwrap();
    assert_eq!(harness.run.attempt(&"look".into(), None, StepPart::Do).unwrap().attempt, 2);
    harness.call("look", ok(json!({})));
    // The reply lacks the value that an expression reads.
    assert_eq!(harness.run.conflict().unwrap().kind, ConflictKind::Expression);
    harness.choose("put", None, Choice::RetryWith { input: Arc::new(json!({"n": 1})) }).unwrap();
    let first = harness.run.attempt(&"put".into(), None, StepPart::Do).unwrap();
    assert_eq!(first.request.body, Payload::Text(r#"{"n":1}"#.into()));
    harness.call("put", status(409));
    let conflict = harness.run.conflict().unwrap();
    assert_eq!((conflict.kind, conflict.status), (ConflictKind::Refused, Some(409)));
    assert!(conflict.request.is_some() && conflict.expected.as_deref() == Some("a status among 200–299"));
    harness.choose("put", None, Choice::RetryWith { input: Arc::new(json!({"n": 2})) }).unwrap();
    let second = harness.run.attempt(&"put".into(), None, StepPart::Do).unwrap();
    assert_eq!((second.attempt, second.request.body.clone()), (2, Payload::Text(r#"{"n":2}"#.into())));
    assert_ne!(second.key, first.key);
    harness.call("put", ok(json!({"other": 1, "password": "x"})));
    let conflict = harness.run.conflict().unwrap();
    assert_eq!(
        (conflict.kind, &conflict.choices),
        (ConflictKind::Schema, &vec!["skip".into(), "take".into(), "cancel".into()])
    );
    assert_eq!(conflict.response.as_deref(), Some(&json!({"other": 1, "password": "***"})));
    let refused = harness.choose("put", None, Choice::Retry).unwrap_err();
    assert!(refused.to_string().contains("it was done"), "{refused}");
    harness.choose("put", None, take_output(json!({"id": 5}))).unwrap();
    assert_eq!(harness.run.answer().unwrap().body.value(), json!({"id": 5}));
    assert!(harness.choose("put", None, Choice::Retry).is_err());
}

#[test]
fn a_run_of_a_route_fails_where_one_of_the_api_would_pause() {
    let plan = plan(&ASKS.replace(", on_failure: pause", ""));
    let mut harness = Harness::of_route(&plan);
    harness.settle();
    harness.call("look", ok(json!({})));
    assert_eq!(harness.run.failure().map(|failure| failure.kind), Some(FailureKind::Expression));
    let mut harness = Harness::of_route(&plan);
    harness.settle();
    harness.call("look", ok(json!({"n": 1})));
    harness.call("put", ok(json!({})));
    assert_eq!(harness.run.failure().map(|failure| failure.kind), Some(FailureKind::Schema));
    assert!(
        harness.run.note().unwrap().contains("not undone: `put`"),
        "the call was done although its output does not fit: {:?}",
        harness.run.note()
    );
}

#[test]
fn a_refusal_after_an_unknown_attempt_is_a_conflict() {
    let plan = plan(
        "{ workflow: w, steps: { put: { call: 'PUT ${services.bank}/x', on_conflict: fail } }, respond: { status: 200 } }",
    );
    for refused in [404, 409] {
        let mut harness = Harness::of_route(&plan);
        harness.settle();
        harness.call("put", timed_out());
        harness.call("put", status(refused));
        assert_eq!(harness.run.conflict().map(|conflict| conflict.kind), Some(ConflictKind::OutcomeUnknown));
    }
    let mut harness = Harness::of_route(&plan);
    harness.settle();
    harness.call("put", status(409));
    assert_eq!(harness.run.status(), RunStatus::Failed);
}

const ITEMS: &str = "
workflow: w
steps:
  each:
    for_each: ${request.body.items}
    concurrency: 2
    call: POST ${services.bank}/x
    failures: collect
    retry: { attempts: 1 }
  say: { set: '${steps.each.errors}' }
respond: { status: 200, body: { ok: '${steps.each.output}', errors: '${steps.say.output}' } }
";

#[test]
fn items_that_fail_are_collected_or_end_the_step() {
    let collect = plan(ITEMS);
    let mut harness = Harness::of_route(&collect);
    harness.settle();
    harness.item("each", 1, status(404));
    assert_eq!(harness.in_flight_names(), ["each[0]", "each[2]"]);
    harness.item("each", 0, ok(json!({"id": 0})));
    harness.item("each", 2, ok(json!({"id": 2})));
    let body = harness.run.answer().unwrap().body.value();
    assert_eq!(body["ok"], json!([{"id": 0}, null, {"id": 2}]));
    assert_eq!((body["errors"][0]["index"].clone(), body["errors"][0]["status"].clone()), (json!(1), json!(404)));

    let fast = plan(&ITEMS.replace("failures: collect", "failures: fail_fast").replace("each.errors", "each.output"));
    let mut harness = Harness::of_route(&fast);
    harness.settle();
    harness.item("each", 1, status(404));
    assert_eq!(harness.in_flight_names(), ["each[0]"], "the third item does not begin");
    harness.item("each", 0, ok(json!({})));
    assert_eq!(harness.run.status(), RunStatus::Failed);
}

#[test]
fn several_items_may_be_in_conflict_and_each_is_resolved() {
    let plan = plan(ITEMS);
    let mut harness = Harness::of_route(&plan);
    harness.settle();
    harness.item("each", 0, timed_out());
    harness.item("each", 1, timed_out());
    assert_eq!((harness.run.conflicts().len(), harness.in_flight_names().len()), (2, 0));
    assert!(harness.run.note().unwrap().contains("2 conflicts"));
    harness.choose("each", Some(0), Choice::Skip).unwrap();
    assert!(harness.in_flight_names().is_empty(), "nothing begins while a conflict is open");
    harness.choose("each", Some(1), take_output(json!({"id": 1}))).unwrap();
    harness.item("each", 2, ok(json!({"id": 2})));
    assert_eq!(harness.run.answer().unwrap().body.value()["ok"], json!([null, {"id": 1}, {"id": 2}]));
}

#[test]
fn a_conflict_over_an_unreadable_body_says_so_and_shows_how_the_body_begins() {
    let plan = plan("workflow: w\nsteps: { a: { call: 'POST ${services.bank}/a' } }\nrespond: { status: 200 }");
    let mut harness = Harness::of_api(&plan);
    harness.settle();
    let why = "its body is larger than the limit output_bytes_max (9)".to_owned();
    harness.call("a", AttemptResult::Unreadable { status: 200, why, body_start: "<html>".into() });
    let conflict = &harness.run.conflicts()[0];
    assert_eq!(conflict.status, Some(200));
    assert!(conflict.message.contains("output_bytes_max"), "{}", conflict.message);
    assert!(conflict.expected.as_ref().is_some_and(|text| text.starts_with("a body that can be read")));
    assert_eq!(conflict.response.as_deref(), Some(&json!("<html>")));
}

#[test]
fn a_for_each_over_anything_but_a_list_pauses_a_run_of_the_api_and_fails_one_of_a_route() {
    let plan = plan(
        "
workflow: w
steps:
  mail: { for_each: '${request.body.to}', call: 'POST ${services.bank}/mail' }
respond: { status: 200, body: done }
",
    );
    for to in [json!(null), json!({ "a": 1 }), json!("ann")] {
        let request = || Arc::new(json!({ "body": { "to": to } }));
        let mut harness = Harness::started_with(&plan, |first| (first.route, first.request) = (None, request()));
        harness.settle();
        let conflict = harness.run.conflict().unwrap_or_else(|| panic!("{to}: no conflict"));
        assert_eq!((conflict.kind, harness.run.status()), (ConflictKind::Expression, RunStatus::Paused), "{to}");
        assert!(conflict.message.contains("`for_each` is not a list"), "{}", conflict.message);
        let mut harness = Harness::started_with(&plan, |first| first.request = request());
        harness.settle();
        assert_eq!(harness.run.failure().map(|failure| failure.kind), Some(FailureKind::Expression), "{to}");
    }
}

#[test]
fn a_call_that_sends_the_body_of_the_request_as_it_came_is_offered_no_other_input() {
    let plan = plan(
        "
workflow: w
steps: { raw: { call: 'POST ${services.bank}/raw', raw: '${request.raw}' } }
respond: { status: 200 }
",
    );
    let raw = crate::workflow::BytesMark::new(&[7; 32]).value(b"as it came", None);
    let mut harness = Harness::started_with(&plan, |first| {
        (first.route, first.request) = (None, Arc::new(json!({ "raw": raw })));
    });
    harness.settle();
    harness.call("raw", status(409));
    let conflict = harness.run.conflict().unwrap();
    assert_eq!(conflict.kind, ConflictKind::Refused);
    assert_eq!(conflict.choices, ["retry", "skip", "take", "cancel"]);
    let input = Arc::new(json!({ "a": 1 }));
    let chosen = harness.choose("raw", None, Choice::RetryWith { input: input.clone() });
    let adjusted = harness.give_command(ControlCommand::Adjust { step: "raw".into(), item: None, input, reason: None });
    for refused in [chosen, adjusted] {
        let Err(CommandRefusal::NotApplicable(why)) = refused else { panic!("{refused:?}") };
        assert!(why.contains("sends the body of the request as it came"), "{why}");
        assert!(!why.contains("retry_with` there"), "{why}");
    }
}

//! Edge cases: delays of retries, events that do not fit, unknown earlier attempts, and what `respond` may read.

use super::harness::{breaker_open, plan, timed_out};
use super::*;
use crate::workflow::{
    Choice, ControlCommand, EndingEvent, StepIndex, StepPart, WaitKind, WaitReason, WaitStartTimes, waits,
};

#[test]
fn a_retry_honours_retry_after_up_to_the_longest_delay() {
    let plan = PlanBuilder::new().call("a", &[], "GET /a", Value::Null).attempts(2).respond(200, json!({})).build("w");
    let mut harness = Harness::new(&plan, Mode::Real, json!({}));
    harness.settle();
    let result = AttemptResult::Reply {
        status: 503,
        headers: BTreeMap::new(),
        output: Value::Null.into(),
        retry_after_ms: Some(3_600_000),
    };
    harness.reply("a", None, result).unwrap();
    assert_eq!(harness.due(), [Action::Wait(harness.now + SignedDuration::from_millis(20))]);
}

#[test]
fn events_that_do_not_fit_are_errors() {
    let plan = order_plan();
    let harness = Harness::new(&plan, Mode::Real, items(1));
    let finished = Event::StepFinished(crate::workflow::StepFinished {
        step: "price".into(),
        item: None,
        part: crate::workflow::StepPart::Do,
        attempt: 1,
        outcome: Outcome::Done { status: 200, headers: BTreeMap::new(), output: Value::Null.into() },
    });
    assert!(evolve(Some(harness.run.clone()), &finished).is_err());
    assert!(evolve(None, &Event::Ending(EndingEvent::Completed {})).is_err());
    assert!(evolve(Some(harness.run.clone()), &harness.events[0]).is_err());
    let ended = evolve(Some(harness.run), &Event::Ending(EndingEvent::Completed {})).unwrap();
    assert!(evolve(Some(ended), &Event::Ending(EndingEvent::Completed {})).is_err());
}

#[test]
fn an_earlier_unknown_attempt_stays_unknown_after_one_that_did_nothing() {
    let plan = PlanBuilder::new().call("charge", &[], "POST /charges", json!({})).keyed().attempts(2);
    let plan = plan.respond(200, json!({})).build("w");
    let mut harness = Harness::new(&plan, Mode::Real, json!({}));
    harness.settle();
    harness.reply("charge", None, AttemptResult::TimedOut("x".into())).unwrap();
    harness.settle();
    harness.reply("charge", None, status(429)).unwrap();
    assert_eq!(harness.run.status(), RunStatus::Paused);
}

#[test]
fn respond_may_read_failed_and_input_error() {
    let plan = PlanBuilder::new()
        .call("price", &[], "GET /price", Value::Null)
        .respond(422, json!({"bad": "${input_error}"}))
        .respond_when("input_error != null")
        .respond(409, json!({"at": "${failed.step}", "status": "${failed.status}"}))
        .respond_when("failed != null && failed.status == 404")
        .respond(200, json!({"fine": "${failed == null && input_error == null}"}))
        .build("w");
    let play = |result| {
        let mut harness = Harness::new(&plan, Mode::Real, json!({}));
        harness.settle();
        harness.reply("price", None, result).unwrap();
        harness.settle();
        let answer = harness.run.answer().map(|answer| (answer.status, answer.body.value()));
        (harness.run.status(), answer)
    };
    assert_eq!(play(status(200)), (RunStatus::Completed, Some((200, json!({"fine": true})))));
    let failed = Some((409, json!({"at": "price", "status": 404})));
    assert_eq!(play(status(404)), (RunStatus::Failed, failed));
    assert_eq!(play(status(400)), (RunStatus::Failed, None), "no entry matches");
    let run = Harness::new(&plan, Mode::Real, json!({})).run;
    let answer = crate::workflow::input_refused(&run, &plan, &inputs(), "no items").unwrap().unwrap();
    assert_eq!((answer.status, answer.body.value()), (422, json!({"bad": "no items"})));
}

#[test]
fn a_declared_answer_without_a_value_says_why_and_a_later_entry_is_taken() {
    let plan = PlanBuilder::new()
        .call("price", &[], "GET /price", Value::Null)
        .respond(400, json!({"at": "${steps.price.output.at}"}))
        .respond_when("input_error != null")
        .respond(409, json!({"at": "${failed.at}"}))
        .respond_when("failed != null")
        .respond(410, json!({"step": "${failed.step}"}))
        .respond_when("failed != null && failed.status == 404")
        .respond(200, json!({}))
        .build("w");
    let fail_with = |code| {
        let mut harness = Harness::new(&plan, Mode::Real, json!({}));
        harness.settle();
        harness.reply("price", None, status(code)).unwrap();
        harness.settle();
        harness.run
    };
    assert_eq!(fail_with(404).answer().map(|answer| answer.status), Some(410));
    let run = fail_with(400);
    let failure = run.failure().expect("it failed");
    assert!(run.answer().is_none() && failure.step == Some("price".into()), "{failure:?}");
    let why = "; the answer that `respond` declares for this has no value: `respond`: ";
    assert!(failure.message.contains(why) && failure.message.contains("`failed"), "{failure:?}");
    let why = crate::workflow::input_refused(&run, &plan, &inputs(), "no items").unwrap_err();
    assert!(why.message.contains("`respond`: ") && why.message.contains("`steps.price"), "{why:?}");
}

#[test]
fn a_run_that_fails_pauses_over_a_call_whose_effect_is_unknown() {
    let plan = PlanBuilder::new().call("charge", &[], "POST /charges", json!({})).keyed().attempts(3);
    let plan = plan.call("price", &[], "GET /price", Value::Null).respond(200, json!({})).build("w");
    let mut harness = Harness::new(&plan, Mode::Real, json!({}));
    harness.settle();
    harness.reply("charge", None, AttemptResult::TimedOut("x".into())).unwrap();
    harness.reply("price", None, status(404)).unwrap();
    harness.settle();
    assert_eq!(harness.run.status(), RunStatus::Paused);
    assert_eq!(harness.run.conflict().map(|conflict| conflict.step.as_str()), Some("charge"));
}

#[test]
fn conditions_of_respond_without_a_value_are_counted() {
    let plan = super::harness::plan(
        "
workflow: w
steps: { price: { call: 'GET ${services.bank}/price' } }
respond:
  - { when: '${steps.price.output.total > 10}', status: 201 }
  - { when: '${failed.status == 409}', status: 409 }
  - { status: 200 }
",
    );
    for (total, errors) in [(json!("12"), 1), (json!(7), 0)] {
        let mut harness = Harness::of_route(&plan);
        harness.settle();
        harness.call("price", ok(json!({ "total": total })));
        assert_eq!(harness.run.answer().unwrap().status, 200);
        let counted = crate::workflow::respond_condition_errors(&harness.run, &plan, &harness.inputs, Some(2));
        assert_eq!(counted, errors, "a condition about a failure has no value in a run that does not fail: {total}");
    }
}

/// A payment that each of several people may approve is not made if all of them reject it.
#[test]
fn a_step_that_needs_any_of_others_is_skipped_where_all_of_them_were() {
    for (first, second, skipped) in [(false, false, true), (true, false, false), (false, true, false)] {
        let plan = super::harness::plan(&format!(
            "
workflow: w
steps:
  a: {{ if: '${{{first}}}', set: 1 }}
  b: {{ if: '${{{second}}}', set: 2 }}
  pay: {{ needs: [a, b], needs_any: true, set: 3 }}
respond: {{ status: 200, body: done }}
"
        ));
        let mut harness = Harness::of_api(&plan);
        harness.settle();
        assert_eq!(harness.run.was_skipped(&"pay".into()), skipped, "{first} {second}");
        assert_eq!(harness.run.status(), RunStatus::Completed);
    }
}

/// While the run is paused, the time of its next attempt is not named as what the run waits for.
#[test]
fn the_next_attempt_of_a_paused_run_waits_for_the_end_of_the_pause() {
    let plan = plan(
        "workflow: w\nsteps: { a: { call: 'POST ${services.bank}/a' }, b: { call: 'POST ${services.bank}/b' } }\n\
         respond: { status: 200 }",
    );
    let mut harness = Harness::of_api(&plan);
    harness.settle();
    harness.call("a", timed_out());
    harness.call("b", breaker_open(60_000));
    let assert_says = |harness: &Harness<'_>, ends: &str| {
        let of_b = |reason: &WaitReason| reason.step == Some("b".into());
        let reason = harness.reasons().into_iter().find(of_b).unwrap();
        assert_eq!((reason.until, reason.kind), (None, WaitKind::Breaker("bank".into())));
        assert!(reason.sentence.contains(ends) && !reason.sentence.contains("that time"), "{}", reason.sentence);
    };
    assert_says(&harness, "the decision about the conflict, before which no attempt begins");
    harness.give_command(ControlCommand::Pause { reason: None }).unwrap();
    assert_says(&harness, "the decision about the conflict, and then to resume the run");
    harness.choose("a", None, Choice::Skip).unwrap();
    assert_says(&harness, "to resume the run, before which no attempt begins");
    assert!(harness.in_flight_names().is_empty());
    harness.give_command(ControlCommand::Resume { reason: None }).unwrap();
    assert_eq!(harness.in_flight_names(), ["b"]);
}

/// The run completes as its workflow declares, although a step has not begun.
#[test]
fn a_run_that_a_fail_step_ended_does_not_diverge_from_its_own_plan() {
    let plan = plan(
        "{ workflow: w, steps: { a: { set: 1 }, stop: { needs: [a], fail: { status: 402 } }, \
         last: { needs: [stop], set: 2 } }, respond: { status: 200 } }",
    );
    let mut harness = Harness::new(&plan, Mode::Real, json!({}));
    harness.settle();
    assert_eq!(harness.run.status(), RunStatus::Completed);
    let events: Vec<_> = harness.events.iter().map(|event| (harness.now, event.clone())).collect();
    assert_eq!(crate::workflow::replay_with(&events, &plan, &harness.inputs).unwrap(), []);
}

/// What is held comes first, with the freeze as the reason; a retry is refused for the same reason.
#[test]
fn a_freeze_is_the_first_reason_why_a_next_attempt_waits() {
    let plan = plan(
        "
workflow: w
steps:
  a: { call: 'POST ${services.bank}/a', retry: { attempts: 3, base: 10s, max: 10s } }
  b: { wait: 1h }
respond: { status: 200 }
",
    );
    let mut harness = Harness::of_route(&plan);
    let reasons = |harness: &Harness<'_>| {
        let since = WaitStartTimes::of(harness.events.iter().map(|event| (harness.now, event)));
        let conditions = Conditions { now: harness.now, hold_effects: true };
        waits(&harness.run, &plan, &harness.inputs, conditions, &since)
    };
    harness.command(Command::Advance { step: StepIndex(1) }).unwrap();
    harness.command(Command::Begin { step: StepIndex(0), item: None, part: StepPart::Do }).unwrap();
    harness.reply("a", None, status(429)).unwrap();
    for (now, ends) in [
        (harness.now, "the end of the freeze, but not before"),
        (harness.now + SignedDuration::from_secs(20), "the end of the freeze"),
    ] {
        harness.now = now;
        let reasons = reasons(&harness);
        let kinds: Vec<_> = reasons.iter().map(|reason| reason.kind.as_str()).collect();
        assert_eq!(kinds, ["held", "time"], "{reasons:#?}");
        let sentence = &reasons[0].sentence;
        assert!(
            sentence.starts_with("the next attempt of `a` is held: private and shared steps are frozen"),
            "{sentence}"
        );
        assert!(sentence.contains("429") && sentence.contains(ends) && !sentence.contains("; until "), "{sentence}");
    }
    harness.inputs.effects_are_frozen = true;
    for step in [None, Some("a".into())] {
        let refused = harness
            .command(Command::Control { command: ControlCommand::Retry { step, attempt: None }, by: "ann".into() });
        let Err(CommandRefusal::NotApplicable(why)) = refused else { panic!("{refused:?}") };
        assert!(
            why.starts_with("the next attempt of `a` is held, because private and shared steps are frozen"),
            "{why}"
        );
    }
    harness.inputs.effects_are_frozen = false;
    let retry = || ControlCommand::Retry { step: Some("a".into()), attempt: None };
    let refused = harness.command(Command::Control { command: retry(), by: "ann".into() });
    let Err(CommandRefusal::NotApplicable(why)) = refused else { panic!("{refused:?}") };
    assert_eq!(why, "the next attempt of `a` is due, and is about to be made");
    harness.command(Command::Begin { step: StepIndex(0), item: None, part: StepPart::Do }).unwrap();
    let refused = harness.command(Command::Control { command: retry(), by: "ann".into() });
    let Err(CommandRefusal::NotApplicable(why)) = refused else { panic!("{refused:?}") };
    assert_eq!(why, "`a` waits for no attempt: one is under way");
}

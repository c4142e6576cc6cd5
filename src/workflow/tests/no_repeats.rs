//! Choices of people, reruns, and answers that cannot be made: no effect is repeated, and no approval is skipped.

use super::harness::{plan, take_output, timed_out};
use super::people_harness::{review, yes};
use super::*;
use crate::workflow::{
    Choice, ConflictKind, ControlCommand, OnTimeout, StepEvent, StepPart, StepStatus, UndoStatus, WaitKind,
    replay_with, rerun,
};

fn retry_with(input: Value) -> Choice {
    Choice::RetryWith { input: Arc::new(input) }
}

fn view_of(harness: &Harness<'_>) -> crate::workflow::RunView {
    view(harness.events.iter().map(|event| (harness.now, event))).unwrap()
}

#[test]
fn another_input_of_an_approved_item_needs_a_new_approval() {
    let plan = plan(
        "
workflow: w
steps:
  pay:
    for_each: ${request.body.items}
    call: POST ${services.bank}/pay
    body: { amount: '${item.amount}' }
    risk: medium
    ask: { who: [alice] }
respond: { status: 200 }
",
    );
    let request = Arc::new(json!({"body": {"items": [{"amount": 1}, {"x": 2}]}}));
    let mut harness = Harness::started_with(&plan, |started| (started.route, started.request) = (None, request));
    harness.perform_due();
    harness.answers("alice", yes()).unwrap();
    assert_eq!(harness.run.conflict().map(|open| (open.kind, open.item)), Some((ConflictKind::Expression, Some(1))));
    harness.replies("pay", Some(0), ok(json!({})));
    let command = ControlCommand::Resolve {
        step: "pay".into(),
        item: Some(1),
        attempt: None,
        choice: retry_with(json!({"amount": 1_000_000})),
        reason: None,
    };
    harness.give_command_by("bob", command).unwrap();
    assert_eq!((harness.in_flight_names().len(), harness.status()), (0, RunStatus::WaitingCheckpoint));
    assert_eq!((harness.open_checkpoint().item, harness.open_checkpoint().who), (Some(1), vec!["alice".to_owned()]));
    harness.answers("alice", yes()).unwrap();
    assert_eq!(harness.in_flight_names(), ["pay[1]"]);
}

#[test]
fn a_question_whose_text_has_no_value_cannot_be_resolved_with_an_output() {
    let plan = plan(
        "{ workflow: w, steps: { ok: { checkpoint: { question: 'For ${request.body.who}?' } }, go: { needs: [ok], call: 'POST ${services.bank}/go' } }, respond: { status: 200 } }",
    );
    let mut harness = Harness::of_api(&plan);
    harness.perform_due();
    assert_eq!(harness.run.conflict().unwrap().choices, ["retry", "skip", "cancel"]);
    for choice in [take_output(json!({"approved": true})), retry_with(json!(1))] {
        let refused = harness.choose("ok", None, choice).unwrap_err();
        assert!(refused.to_string().contains("a value would replace their answer"), "{refused}");
    }
    harness.choose("ok", None, Choice::Skip).unwrap();
    assert!(harness.run.was_skipped(&"go".into()));
}

const CHARGE: &str = "
workflow: w
steps:
  charge:
    call: POST ${services.bank}/charges
    body: { amount: 7 }
    retry: { attempts: 2, base: 1ms, max: 1ms }
    fallback: invoice
  invoice: { fallback_only: true, call: 'POST ${services.bank}/invoices' }
  z: { needs: [charge], set: 1 }
respond: { status: 200 }
";

#[test]
fn no_fallback_is_taken_while_an_earlier_attempt_may_have_been_done() {
    let plan = plan(CHARGE);
    let mut harness = Harness::of_api(&plan);
    harness.settle();
    harness.call("charge", timed_out());
    harness.choose("charge", None, retry_with(json!({"amount": 6}))).unwrap();
    harness.call("charge", status(429));
    harness.call("charge", status(429));
    let conflict = harness.run.conflict().unwrap();
    assert_eq!(
        conflict.kind,
        ConflictKind::AttemptsUsedUp,
        "no fallback is taken automatically, because an earlier attempt may have been done"
    );
    assert_eq!(conflict.choices, ["retry", "retry_with", "skip", "take", "cancel"], "no fallback is offered either");
    let refused = harness.choose("charge", None, Choice::Fallback).unwrap_err();
    assert!(refused.to_string().contains("a second time"), "{refused}");
    harness.cancel(true).unwrap();
    let left = harness.run.undone();
    assert!(
        matches!(&left[..], [(_, None, UndoStatus::Left(why))] if why.contains("ann asked for one with another input"))
    );
}

#[test]
fn a_skipped_step_that_may_have_been_done_stays_listed() {
    let plan = plan(
        &CHARGE
            .replace("set: 1", "call: 'POST ${services.bank}/z'")
            .replace("needs: [charge]", "needs: [other]")
            .replace("  z:", "  other: { call: 'POST ${services.bank}/o', undo: 'DELETE ${services.bank}/o' }\n  z:"),
    );
    let mut harness = Harness::of_api(&plan);
    harness.settle();
    harness.call("charge", timed_out());
    harness.call("other", ok(json!({})));
    harness.choose("charge", None, Choice::Skip).unwrap();
    harness.call("z", status(404));
    let note = harness.run.note().unwrap();
    assert!(note.ends_with("still to be undone: `other`; not undone: `charge`"), "{note}");
    let of_charge = harness.run.undone().pop().unwrap();
    assert_eq!(of_charge.2, UndoStatus::Left("it is unknown whether it was done: ann skipped it".into()));
    harness.undo("other", ok(json!({})));
    assert!(harness.run.note().unwrap().ends_with("undone: `other`; not undone: `charge`"));
}

#[test]
fn an_item_that_is_listed_twice_as_struck_out_counts_once() {
    let plan = plan(
        "{ workflow: w, steps: { mail: { for_each: '${request.body.items}', call: 'POST ${services.bank}/${item}', risk: high } }, respond: { status: 200 } }",
    );
    let mut harness = Harness::started_with(&plan, |started| {
        (started.route, started.request) = (None, Arc::new(json!({"body": {"items": [1, 2]}})))
    });
    harness.perform_due();
    harness.answers("ann", review(&[1], &[0, 0])).unwrap();
    assert_eq!(harness.in_flight_names(), ["mail[1]"], "the other item was approved");
    harness.replies("mail", Some(1), ok(json!({})));
    assert_eq!(harness.output("mail")["struck"], json!(1));
}

#[test]
fn a_rerun_does_not_repeat_a_step_that_may_have_been_done() {
    let plan = plan(CHARGE);
    let mut harness = Harness::of_api(&plan);
    harness.settle();
    harness.call("charge", timed_out());
    assert!(rerun(&harness.run, &plan, &"charge".into()).is_err(), "a person has to decide the conflict first");
    harness.cancel(false).unwrap();
    assert_eq!(harness.status(), RunStatus::Cancelled);
    let refused = rerun(&harness.run, &plan, &"z".into()).unwrap_err();
    assert!(refused.to_string().contains("begin at `charge`"), "{refused}");
    assert!(rerun(&harness.run, &plan, &"charge".into()).is_ok(), "a rerun from that step repeats it on purpose");
    // A person pauses the run between two attempts.
    let stock = super::harness::plan(&CHARGE.replace("bank", "stock"));
    let mut harness = Harness::of_api(&stock);
    harness.perform_due();
    harness.reply("charge", None, timed_out()).unwrap();
    harness.give_command_by("ann", ControlCommand::Pause { reason: None }).unwrap();
    assert!(rerun(&harness.run, &stock, &"charge".into()).is_err());
    // The rerun takes over that the step was skipped, and lists the attempt as unknown.
    let mut harness = Harness::of_api(&plan);
    harness.settle();
    harness.call("charge", timed_out());
    harness.choose("charge", None, Choice::Skip).unwrap();
    let taken = rerun(&harness.run, &plan, &"z".into()).unwrap();
    let has_unknown = taken
        .iter()
        .any(|event| matches!(event, Event::Step(StepEvent::ResultTaken(taken)) if taken.unknown.len() == 1));
    assert!(has_unknown, "{taken:?}");
}

#[test]
fn a_run_ends_when_it_is_handed_over() {
    let plan = plan(
        "{ workflow: w, steps: { a: { call: 'POST ${services.bank}/a', undo: 'DELETE ${services.bank}/a' }, b: { needs: [a], call: 'POST ${services.bank}/b' } }, respond: { status: 200 } }",
    );
    let to = RunId(uuid::Uuid::from_u128(77));
    let over = |from: &str| ControlCommand::HandOver { to, from: from.into(), sealed: None };
    let mut harness = Harness::of_api(&plan);
    harness.perform_due();
    assert!(
        matches!(harness.give_command_by("ann", over("b")), Err(CommandRefusal::NotApplicable(why)) if why.contains("pause or cancel"))
    );
    harness.give_command_by("ann", ControlCommand::Pause { reason: None }).unwrap();
    harness.replies("a", None, ok(json!({})));
    assert_eq!(harness.give_command_by("ann", over("x")), Err(CommandRefusal::NoSuchStep));
    harness.give_command_by("ann", over("b")).unwrap();
    assert_eq!(harness.status(), RunStatus::Cancelled);
    let superseded = harness.run.superseded().unwrap();
    assert_eq!((superseded.successor, &superseded.handed_over_steps[..]), (to, &["a".into()][..]));
    assert!(harness.run.note().unwrap().contains(&to.to_string()), "{:?}", harness.run.note());
    for command in [
        ControlCommand::Resume { reason: None },
        ControlCommand::Cancel { compensate: true, reason: None, automatic: false },
        over("b"),
    ] {
        assert_eq!(harness.give_command_by("bob", command), Err(CommandRefusal::Ended));
    }
    assert!(rerun(&harness.run, &plan, &"b".into()).is_ok(), "the successor is made from this run");
    assert!(rerun(&harness.run, &plan, &"a".into()).is_err(), "no other rerun is possible");
    assert_eq!(view_of(&harness).steps[0].status, StepStatus::Done);
    // A child run whose parent waits for it cannot be replaced.
    let mut child = Harness::started_with(&plan, |started| {
        started.route = None;
        started.parent = Some(crate::workflow::Parent { run: to, step: "s".into(), item: None });
    });
    child.perform_due();
    child.replies("a", None, status(409));
    assert!(
        matches!(child.give_command_by("ann", over("a")), Err(CommandRefusal::NotApplicable(why)) if why.contains("waits for it"))
    );
}

const ANSWERS: &str = "
workflow: w
steps:
  pay: { call: 'POST ${services.bank}/pay', undo: 'DELETE ${services.bank}/pay' }
respond: { status: 200, body: { ref: '${steps.pay.output.reference}' } }
";

#[test]
fn when_no_answer_can_be_made_nothing_is_undone() {
    let plan = plan(ANSWERS);
    let mut harness = Harness::of_api(&plan);
    harness.settle();
    harness.call("pay", ok(json!({"refrence": 1})));
    let conflict = harness.run.conflict().unwrap();
    assert_eq!((conflict.kind, conflict.step.as_str()), (ConflictKind::Answer, "respond"));
    assert_eq!(conflict.choices, ["take", "cancel"]);
    assert_eq!((harness.in_flight_names().len(), harness.status()), (0, RunStatus::Paused));
    assert_eq!(view_of(&harness).steps.len(), 1, "the answer is not listed as a step");
    assert!(harness.choose("respond", None, Choice::Skip).is_err());
    harness.choose("respond", None, take_output(json!({"ref": 1}))).unwrap();
    assert_eq!(
        (harness.status(), harness.run.answer().unwrap().body.value()),
        (RunStatus::Completed, json!({"ref": 1}))
    );
    let events: Vec<_> = harness.events.iter().map(|event| (harness.now, event.clone())).collect();
    assert_eq!(replay_with(&events, &plan, &harness.inputs).unwrap(), []);

    let mut asked = Harness::of_api(&plan);
    asked.settle();
    asked.call("pay", ok(json!({})));
    asked.choose("respond", None, Choice::Cancel { compensate: true }).unwrap();
    assert_eq!(asked.in_flight_names(), ["undo pay"], "the person asked for undoing");

    let mut route = Harness::of_route(&plan);
    route.settle();
    route.call("pay", ok(json!({})));
    assert_eq!((route.status(), route.in_flight_names().len()), (RunStatus::Failed, 0));
    assert_eq!(route.run.failure().map(|failure| failure.kind), Some(FailureKind::Expression));
    assert!(!route.kinds().contains(&"compensation_began"), "{:?}", route.kinds());
    let declares_failed = super::harness::plan(&ANSWERS.replace(
        "respond: { status: 200, body: { ref: '${steps.pay.output.reference}' } }",
        "respond: [{ when: '${failed != null}', status: 500, body: sorry }, { status: 200, body: '${steps.pay.output.x}' }]",
    ));
    let mut route = Harness::of_route(&declares_failed);
    route.settle();
    route.call("pay", ok(json!({})));
    assert_eq!(route.run.answer().unwrap().body.value(), json!("sorry"));
}

const ITEMS: &str = "
workflow: w
steps:
  it: { for_each: '${request.body.items}', concurrency: 3, call: 'POST ${services.bank}/${item}' }
respond: { status: 200 }
";

#[test]
fn the_view_names_the_item_of_a_conflict() {
    let plan = plan(ITEMS);
    let mut harness = Harness::of_api(&plan);
    harness.settle();
    harness.item("it", 1, status(409));
    harness.item("it", 0, ok(json!({})));
    harness.item("it", 2, ok(json!({})));
    let row = &view_of(&harness).steps[0];
    assert_eq!((row.status, row.items_ended), (StepStatus::Conflict, Some(2)));
    assert!(row.note.as_ref().unwrap().contains("item 1"), "{:?}", row.note);
    let refused = harness.choose("it", None, Choice::Retry).unwrap_err();
    assert!(refused.to_string().contains("one is open over item 1"), "{refused}");
    harness.choose("it", Some(1), Choice::Cancel { compensate: false }).unwrap();
    assert_eq!((harness.status(), view_of(&harness).steps[0].status), (RunStatus::Cancelled, StepStatus::Failed));
    assert_eq!(harness.run.undone().iter().map(|(_, item, _)| *item).collect::<Vec<_>>(), [Some(2), Some(0)]);
    let why = UndoStatus::Left("the run was cancelled without undoing".into());
    assert!(harness.run.undone().iter().all(|(.., left)| *left == why));
    let mut route = Harness::of_route(&plan);
    route.settle();
    route.item("it", 1, status(400));
    route.item("it", 0, ok(json!({})));
    route.item("it", 2, ok(json!({})));
    assert!(route.run.note().unwrap().starts_with("item 1 of `it`: the service answered 400"));
    assert!(view_of(&route).steps[0].note.as_ref().unwrap().contains("item 1"));
    let mut unknown = Harness::of_api(&plan);
    unknown.settle();
    unknown.item("it", 0, timed_out());
    unknown.item("it", 1, ok(json!({})));
    unknown.item("it", 2, ok(json!({})));
    unknown.choose("it", Some(0), Choice::Cancel { compensate: false }).unwrap();
    assert_eq!(view_of(&unknown).steps[0].status, StepStatus::Unknown);
}

#[test]
fn a_conflict_after_an_undecided_probe_shows_the_response_and_the_key() {
    let plan = plan(
        "
workflow: w
steps:
  charge:
    call: POST ${services.bank}/charges
    probe: { call: 'GET ${services.bank}/charges?key=${key}', after: 5s, retry: { attempts: 1 }, done: '${output.found}' }
respond: { status: 200 }
",
    );
    let mut harness = Harness::of_api(&plan);
    harness.perform_due();
    let key = harness.run.attempt(&"charge".into(), None, StepPart::Do).unwrap().key;
    harness.replies("charge", None, {
        let AttemptResult::Reply { headers, retry_after_ms, .. } = status(500) else { panic!() };
        AttemptResult::Reply {
            status: 500,
            headers,
            output: Arc::new(json!({"error": "db", "token": "x"})),
            retry_after_ms,
        }
    });
    let reasons = harness.reasons();
    assert!(reasons[0].sentence.contains("its probe asks, and nothing is sent again"), "{}", reasons[0].sentence);
    assert!(matches!(reasons[0].kind, WaitKind::Retry));
    harness.advance_seconds(5);
    harness.record_result("charge", None, StepPart::Probe, status(404));
    let conflict = harness.run.conflict().unwrap();
    assert_eq!((conflict.kind, conflict.status), (ConflictKind::OutcomeUnknown, Some(500)));
    assert_eq!(conflict.response.as_deref(), Some(&json!({"error": "db", "token": "***"})));
    assert!(key.is_some() && conflict.key == key);
}

#[test]
fn an_escalated_question_shows_its_own_time_out() {
    let plan = plan(
        "
workflow: w
steps:
  ok: { checkpoint: { question: sure, timeout: 1h, on_timeout: escalate, escalate: { who: [eve], timeout: 1h, on_timeout: reject } } }
respond: { status: 200 }
",
    );
    let mut harness = Harness::of_api(&plan);
    harness.perform_due();
    assert_eq!(harness.open_checkpoint().on_timeout, OnTimeout::Escalate);
    harness.advance_seconds(3600);
    assert_eq!(harness.open_checkpoint().on_timeout, OnTimeout::Reject);
    harness.advance_seconds(3600);
    assert_eq!(harness.run.failure().map(|failure| failure.kind), Some(FailureKind::Rejected));
}

#[test]
fn a_replay_ignores_the_time_between_a_decision_and_its_event() {
    let yaml = "
workflow: w
steps:
  paid: { wait: { signal: paid, timeout: 20s } }
  ok: { checkpoint: { question: sure, timeout: 1h, on_timeout: reject } }
  last: { needs: [paid], set: 1 }
respond: { status: 200 }
";
    let first = plan(yaml);
    let mut harness = Harness::of_api(&first);
    harness.perform_due();
    // The recorded time of an event is slightly later than the time at which the event was decided.
    let later = harness.now + SignedDuration::from_micros(30);
    let events: Vec<_> = harness.events.iter().map(|event| (later, event.clone())).collect();
    let against = |from: &str, to: &str| replay_with(&events, &plan(&yaml.replace(from, to)), &harness.inputs).unwrap();
    assert_eq!(against("set: 1", "set: 2"), []);
    assert_eq!(against("timeout: 20s", "timeout: 30s").len(), 1);
    assert_eq!(against("timeout: 1h", "timeout: 2h").len(), 1);
}

#[test]
fn a_conflict_shows_no_secret_of_a_form_body() {
    let plan = plan(
        "{ workflow: w, steps: { pay: { call: 'POST ${services.bank}/pay', form: { amount: '7', card_number: '4111111111111111' } } }, respond: { status: 200 } }",
    );
    let mut harness = Harness::of_api(&plan);
    harness.perform_due();
    harness.replies("pay", None, status(409));
    let shown = harness.run.conflict().unwrap().request.clone().unwrap().body.value();
    assert_eq!(shown, json!("amount=7&card_number=***"));
}

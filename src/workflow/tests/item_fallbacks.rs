//! Fallbacks of single items of a `for_each`.

use super::harness::{breaker_open, plan, take_output, timed_out};
use super::people_harness::yes;
use super::*;
use crate::workflow::{
    CheckpointKind, Choice, ConflictKind, ControlCommand, DivergenceKind, Mode, StepEvent, StepPart, StepStatus,
    UndoStatus, replay_with, rerun,
};

const MAILS: &str = "
workflow: w
steps:
  mail:
    for_each: ${request.body.items}
    concurrency: 2
    call: POST ${services.bank}/mails
    body: { to: '${item}' }
    retry: { attempts: 1 }
    fallback: letter
    undo: DELETE ${services.bank}/mails/${output.id}
  letter:
    fallback_only: true
    call: PUT ${services.stock}/letters/${item}
    headers: { x-index: '${index}' }
    body: { nth: '${index}' }
    retry: { attempts: 2, base: 1s, max: 1s }
    accept: [200, 404]
    undo: DELETE ${services.stock}/letters/${item}/${output.id}
  last: { needs: [mail], call: 'POST ${services.bank}/last', retry: { attempts: 1 } }
respond: { status: 200, body: '${[steps.mail.output, steps.mail.by]}' }
";

fn first_requests(harness: &Harness<'_>, step: &str) -> Vec<(Option<u32>, String, Option<String>)> {
    let started = harness.events.iter().filter_map(|event| match event {
        Event::StepStarted(started) if started.step.as_str() == step && started.part == StepPart::Do => Some(started),
        _ => None,
    });
    let first = started.filter_map(|started| {
        let request = started.request.as_ref()?;
        Some((started.item, format!("{} {}", request.method, request.url), started.key.clone()))
    });
    first.collect()
}

fn view_of(harness: &Harness<'_>) -> crate::workflow::RunView {
    view(harness.events.iter().map(|event| (harness.now, event))).unwrap()
}

#[test]
fn a_fallback_replaces_an_item_that_certainly_did_nothing() {
    let plan = plan(MAILS);
    let mut harness = Harness::of_route(&plan);
    harness.settle();
    assert_eq!(harness.in_flight_names(), ["mail[0]", "mail[1]"]);
    harness.item("mail", 1, status(429));
    let slot = "the fallback takes its item's `concurrency` slot";
    assert_eq!(harness.in_flight_names(), ["letter[1]", "mail[0]"], "{slot}");
    let notes: Vec<_> = view_of(&harness).steps.into_iter().map(|step| (step.step.to_string(), step.items)).collect();
    assert_eq!(notes, [("mail".to_owned(), Some(3)), ("letter".to_owned(), Some(1))]);
    // The fallback has retries of its own, with the same idempotency key and the same bytes.
    harness.item("letter", 1, status(429));
    harness.item("mail", 0, ok(json!({"id": 10})));
    harness.item("mail", 2, ok(json!({"id": 12})));
    harness.item("letter", 1, ok(json!({"id": 11})));
    harness.call("last", ok(json!({})));
    assert_eq!(harness.run.status(), RunStatus::Completed, "{:?}", harness.run.note());
    let answer = harness.run.answer().unwrap().body.value();
    assert_eq!(answer, json!([[{"id": 10}, {"id": 11}, {"id": 12}], [null, "letter", null]]));
    let letters = first_requests(&harness, "letter");
    let [(Some(1), request, Some(key))] = &letters[..] else { panic!("{letters:?}") };
    assert_eq!(request, "PUT /letters/2");
    assert!(first_requests(&harness, "mail").iter().all(|(_, _, other)| other.as_ref() != Some(key)));
    let view = view_of(&harness);
    let ended: Vec<_> = view.steps.iter().map(|step| (step.step.as_str(), step.items, step.items_ended)).collect();
    assert_eq!(ended[..2], [("mail", Some(3), Some(3)), ("letter", Some(1), Some(1))]);
    assert!(view.steps.iter().all(|step| step.status == StepStatus::Done), "{view:#?}");
}

#[test]
fn no_fallback_replaces_an_item_that_may_have_been_done() {
    let plan = plan(MAILS);
    for result in [timed_out(), status(503), status(500), AttemptResult::Interrupted] {
        let mut harness = Harness::of_route(&plan);
        harness.settle();
        harness.item("mail", 0, result);
        let conflict = harness.run.conflict().expect("a conflict is open");
        assert_eq!((conflict.kind, conflict.item), (ConflictKind::OutcomeUnknown, Some(0)));
        assert!(!conflict.choices.contains(&"fallback".to_owned()), "{conflict:?}");
        assert!(harness.choose("mail", Some(0), Choice::Fallback).is_err());
    }
    for result in [breaker_open(60_000), status(429), AttemptResult::NotSent("x".into())] {
        let mut harness = Harness::of_route(&plan);
        harness.settle();
        harness.item("mail", 0, result);
        assert_eq!(harness.in_flight_names(), ["letter[0]", "mail[1]"]);
    }
}

#[test]
fn items_and_their_fallbacks_undo_only_their_own_effects() {
    let plan = plan(MAILS);
    let mut harness = Harness::of_route(&plan);
    harness.settle();
    harness.item("mail", 1, status(429));
    harness.item("mail", 0, ok(json!({"id": 10})));
    harness.item("letter", 1, ok(json!({"id": 11})));
    harness.item("mail", 2, ok(json!({"id": 12})));
    harness.call("last", status(404));
    let mut undone = Vec::new();
    while let Some(call) = harness.run.in_flight().first().cloned() {
        undone.push(call.request.url.clone());
        harness.record_result(call.step.as_str(), call.item, StepPart::Undo, ok(json!({})));
    }
    undone.sort();
    assert_eq!(undone, ["/letters/2/11", "/mails/10", "/mails/12"]);
    assert_eq!(harness.run.status(), RunStatus::Failed);
    assert!(harness.run.undone().iter().all(|(.., state)| *state == UndoStatus::Undone));
    assert!(harness.run.note().unwrap().ends_with("undone: `letter`, `mail` (2 items)"), "{:?}", harness.run.note());
}

const CHAIN: &str = "
workflow: w
steps:
  a: { for_each: '${request.body.items}', call: 'POST ${services.bank}/a', retry: { attempts: 1 }, fallback: b, failures: collect }
  b: { call: 'POST ${services.bank}/b', retry: { attempts: 1 }, fallback: c, fallback_only: true, if: '${item != 1}' }
  c: { set: { from: '${item}', at: '${index}' }, fallback_only: true, if: '${item != 2}' }
respond: { status: 200, body: '${[steps.a.output, steps.a.by, steps.a.errors]}' }
";

#[test]
fn fallbacks_of_items_form_chains_and_an_item_whose_fallback_does_not_run_fails() {
    let plan = plan(CHAIN);
    let mut harness = Harness::of_route(&plan);
    harness.settle();
    for item in 0..3 {
        harness.item("a", item, status(429));
    }
    assert_eq!(harness.in_flight_names(), ["b[1]", "b[2]"], "the `if` of the fallback reads the item");
    harness.item("b", 1, status(429));
    harness.item("b", 2, status(429));
    assert_eq!(harness.run.status(), RunStatus::Completed, "{:?}", harness.kinds());
    let answer = harness.run.answer().unwrap().body.value();
    assert_eq!((&answer[0], &answer[1]), (&json!([null, null, {"from": 3, "at": 2}]), &json!([null, null, "c"])));
    let errors: Vec<_> = answer[2].as_array().unwrap().iter().map(|error| error["index"].clone()).collect();
    assert_eq!(errors, [json!(0), json!(1)]);
    assert!(
        answer[2][1]["message"].as_str().unwrap().contains("`b`"),
        "the error names the fallback that failed last: {answer}"
    );

    // Without `collect` the first failure fails the run, after the fallback of another item has ended.
    let fast = CHAIN.replace(", failures: collect", "").replace(", steps.a.errors", "");
    let fast = self::plan(&fast);
    let mut harness = Harness::new(&fast, Mode::Real, json!({"body": {"items": [3, 2]}}));
    harness.settle();
    harness.item("a", 0, status(429));
    harness.item("a", 1, status(429));
    harness.item("b", 1, status(429));
    assert_eq!((harness.run.status(), harness.in_flight_names()), (RunStatus::Running, vec!["b[0]".to_owned()]));
    harness.item("b", 0, ok(json!({})));
    assert_eq!(harness.run.status(), RunStatus::Failed);
    assert!(harness.run.failure().unwrap().message.contains("item 1 of `b`"), "{:?}", harness.run.failure());
}

#[test]
fn an_unused_item_fallback_is_skipped_and_accepts_no_commands_before_it_is_taken() {
    let plan = plan(MAILS);
    let mut harness = Harness::of_api(&plan);
    harness.settle();
    let skip = || ControlCommand::Skip { step: "letter".into(), reason: None };
    assert!(
        harness.give_command(skip()).unwrap_err().to_string().contains("runs only where it takes the place of `mail`")
    );
    let adjust =
        |item| ControlCommand::Adjust { step: "letter".into(), item, input: Arc::new(json!({"nth": 9})), reason: None };
    let refused = harness.give_command(adjust(None)).unwrap_err().to_string();
    assert!(refused.contains("the items of `letter` are not known yet"), "{refused}");
    harness.item("mail", 0, status(429));
    assert!(harness.give_command(skip()).unwrap_err().to_string().contains("items of `mail`"));
    harness.give_command(adjust(Some(1))).unwrap();
    harness.item("mail", 1, status(429));
    let body = harness.run.attempt(&"letter".into(), Some(1), StepPart::Do).unwrap().request.body.value();
    assert_eq!(body, json!({"nth": 9}));

    let mut harness = Harness::of_api(&plan);
    harness.settle();
    (0..3).for_each(|item| harness.item("mail", item, ok(json!({}))));
    harness.call("last", ok(json!({})));
    assert_eq!(harness.run.status(), RunStatus::Completed);
    assert_eq!(
        harness.run.answer().unwrap().body.value()[1],
        json!([null, null, null]),
        "`by` is a list even if no fallback ran"
    );
    let kinds = harness.events.iter().filter(
        |event| matches!(event, Event::Step(StepEvent::Skipped { step, item: None, .. }) if step.as_str() == "letter"),
    );
    assert_eq!(kinds.count(), 1);
}

#[test]
fn a_person_chooses_the_fallback_of_one_item_and_resolves_a_conflict_of_that_fallback() {
    let plan = plan(
        &MAILS
            .replace("    fallback: letter\n", "    fallback: letter\n    on_failure: pause\n")
            .replace("    accept: [200, 404]\n", "    accept: [200, 404]\n    on_conflict: pause\n"),
    );
    let mut harness = Harness::of_api(&plan);
    harness.settle();
    harness.item("mail", 0, status(404));
    harness.choose("mail", Some(0), Choice::Fallback).unwrap();
    assert_eq!(harness.in_flight_names(), ["letter[0]", "mail[1]"]);
    harness.item("letter", 0, status(409));
    let conflict = harness.run.conflict().unwrap();
    assert_eq!((conflict.step.as_str(), conflict.item), ("letter", Some(0)));
    harness.choose("letter", Some(0), take_output(json!({"id": "by hand"}))).unwrap();
    harness.item("mail", 1, status(404));
    harness.choose("mail", Some(1), Choice::Fallback).unwrap();
    harness.item("letter", 1, status(409));
    harness.choose("letter", Some(1), Choice::Skip).unwrap();
    harness.item("mail", 2, ok(json!({})));
    harness.call("last", ok(json!({})));
    let answer = harness.run.answer().unwrap().body.value();
    assert_eq!(answer, json!([[{"id": "by hand"}, null, {}], ["letter", null, null]]));
}

#[test]
fn people_are_asked_about_each_item_that_a_risky_fallback_is_to_do() {
    let plan = plan(
        &MAILS.replace("    accept: [200, 404]\n", "    accept: [200, 404]\n    risk: medium\n    on_reject: skip\n"),
    );
    let mut harness = Harness::of_api(&plan);
    harness.perform_due();
    harness.replies("mail", Some(0), status(429));
    let asked = harness.open_checkpoint();
    assert_eq!((asked.step.as_str(), asked.item, asked.kind), ("letter", Some(0), CheckpointKind::Approval));
    assert_eq!(harness.in_flight_names(), ["mail[1]"]);
    harness.answers("ann", yes()).unwrap();
    assert_eq!(harness.in_flight_names(), ["letter[0]", "mail[1]"]);
    harness.replies("mail", Some(1), status(429));
    assert_eq!(harness.open_checkpoint().item, Some(1), "the approval was for the other item");
    harness.answers("ann", super::people_harness::no()).unwrap();
    harness.replies("letter", Some(0), ok(json!({})));
    harness.replies("mail", Some(2), ok(json!({})));
    assert_eq!(harness.in_flight_names(), ["last"], "{:?}", harness.kinds());
}

#[test]
fn a_freeze_holds_a_fallback_of_an_item_and_a_rehearsal_records_its_intent() {
    let plan = plan(MAILS);
    let mut harness = Harness::of_route(&plan);
    harness.settle();
    harness.reply("mail", Some(0), status(429)).unwrap();
    let held = Conditions { now: harness.now, hold_effects: true };
    let letter = plan.step(&"letter".into()).unwrap().0;
    assert!(due(&harness.run, &plan, &harness.inputs, held).contains(&Action::Held(letter)));

    let reads = self::plan(
        "
workflow: w
steps:
  look: { for_each: '${request.body.items}', call: 'GET ${services.bank}/${item}', retry: { attempts: 1 }, fallback: ask }
  ask: { fallback_only: true, call: 'POST ${services.bank}/${item}', rehearse: { id: '${item}' } }
respond: { status: 200, body: '${steps.look.output}' }
",
    );
    let mut harness = Harness::new(&reads, Mode::Rehearse, json!({"body": {"items": [1, 2]}}));
    harness.settle();
    harness.item("look", 1, status(503));
    harness.item("look", 0, ok(json!({"id": 7})));
    assert_eq!(harness.run.status(), RunStatus::Completed);
    assert_eq!(harness.run.answer().unwrap().body.value(), json!([{"id": 7}, {"id": 2}]));
    let intents: Vec<_> =
        harness.run.intents().map(|(step, item, _, call)| (step.as_str(), item, call.url.as_str())).collect();
    assert_eq!(intents, [("ask", Some(1), "/2")]);
    assert!(harness.sent.iter().all(|(step, ..)| step.as_str() == "look"));
}

#[test]
fn a_rerun_takes_over_results_of_items_and_their_fallbacks_and_a_replay_finds_differences() {
    let plan = plan(MAILS);
    let mut harness = Harness::of_api(&plan);
    harness.settle();
    harness.item("mail", 1, status(429));
    harness.item("mail", 0, ok(json!({"id": 10})));
    harness.item("letter", 1, ok(json!({"id": 11})));
    harness.item("mail", 2, ok(json!({"id": 12})));
    let cancel = ControlCommand::Cancel { compensate: false, reason: None, automatic: false };
    harness.give_command(cancel).unwrap();
    harness.call("last", status(404));
    assert!(harness.run.is_final());
    let events: Vec<_> = harness.events.iter().map(|event| (harness.now, event.clone())).collect();
    assert_eq!(replay_with(&events, &plan, &harness.inputs).unwrap(), []);
    let other = self::plan(&MAILS.replace("nth: '${index}'", "nth: 0"));
    let found = replay_with(&events, &other, &harness.inputs).unwrap();
    let found: Vec<_> =
        found.iter().map(|found| (found.kind, found.step.as_ref().unwrap().as_str(), found.item)).collect();
    assert_eq!(found, [(DivergenceKind::Request, "letter", Some(1))]);

    let mut next = started(&plan, Mode::Real, json!({"body": {"items": [1, 2, 3]}}));
    next.run = RunId(uuid::Uuid::from_u128(2));
    let mut all = vec![Event::RunStarted(Arc::new(next))];
    all.extend(rerun(&harness.run, &plan, &"last".into()).unwrap());
    let again = fold(&all).unwrap();
    assert_eq!(again.outputs.whole()["mail"]["by"], json!([null, "letter", null]));
    let mut harness = Harness { run: again, events: all, ..Harness::of_api(&plan) };
    harness.settle();
    harness.call("last", status(404));
    let mut undone = Vec::new();
    while let Some(call) = harness.run.in_flight().first().cloned() {
        undone.push(call.request.url.clone());
        harness.record_result(call.step.as_str(), call.item, StepPart::Undo, ok(json!({})));
    }
    undone.sort();
    assert_eq!(undone, ["/letters/2/11", "/mails/10", "/mails/12"]);
}

#[test]
fn a_for_each_whose_list_has_no_value_takes_no_fallback() {
    let plan = plan(&MAILS.replace("${request.body.items}", "${request.body.nothing}"));
    let mut harness = Harness::of_api(&plan);
    harness.settle();
    let conflict = harness.run.conflict().unwrap();
    assert_eq!((conflict.kind, conflict.item), (ConflictKind::Expression, None));
    assert_eq!(conflict.choices, ["retry", "skip", "take", "cancel"]);
    let refused = harness.choose("mail", None, Choice::Fallback).unwrap_err().to_string();
    assert!(refused.contains("takes the place of items"), "{refused}");
}

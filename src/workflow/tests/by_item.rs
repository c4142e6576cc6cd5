//! Fallbacks in the place of single items of a `for_each`.

use super::kit::{lost, plan, shut, take};
use super::stage::yes;
use super::*;
use crate::workflow::{
    CheckpointKind, Choice, ConflictKind, DivergenceKind, Mode, Order, Part, StepEvent, StepStatus, Undone,
    replay_with, rerun,
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

fn first_requests(bench: &Bench<'_>, step: &str) -> Vec<(Option<u32>, String, Option<String>)> {
    let started = bench.events.iter().filter_map(|event| match event {
        Event::StepStarted(started) if started.step.as_str() == step && started.part == Part::Do => Some(started),
        _ => None,
    });
    let first = started.filter_map(|started| {
        let request = started.request.as_ref()?;
        Some((started.item, format!("{} {}", request.method, request.url), started.key.clone()))
    });
    first.collect()
}

fn seen(bench: &Bench<'_>) -> crate::workflow::RunView {
    view(bench.events.iter().map(|event| (bench.now, event))).unwrap()
}

#[test]
fn an_item_that_did_nothing_is_done_by_the_fallback_in_its_place() {
    let plan = plan(MAILS);
    let mut bench = Bench::of_route(&plan);
    bench.settle();
    assert_eq!(bench.flying(), ["mail[0]", "mail[1]"]);
    bench.item("mail", 1, status(429));
    assert_eq!(bench.flying(), ["letter[1]", "mail[0]"], "it takes the room of its item");
    let notes: Vec<_> = seen(&bench).steps.into_iter().map(|step| (step.step.to_string(), step.items)).collect();
    assert_eq!(notes, [("mail".to_owned(), Some(3)), ("letter".to_owned(), Some(1))]);
    // A retry of its own, under the same key and with the same bytes.
    bench.item("letter", 1, status(429));
    bench.item("mail", 0, ok(json!({"id": 10})));
    bench.item("mail", 2, ok(json!({"id": 12})));
    bench.item("letter", 1, ok(json!({"id": 11})));
    bench.call("last", ok(json!({})));
    assert_eq!(bench.run.status(), RunStatus::Completed, "{:?}", bench.run.note());
    let answer = bench.run.answer().unwrap().body.value();
    assert_eq!(answer, json!([[{"id": 10}, {"id": 11}, {"id": 12}], [null, "letter", null]]));
    let letters = first_requests(&bench, "letter");
    let [(Some(1), request, Some(key))] = &letters[..] else { panic!("{letters:?}") };
    assert_eq!(request, "PUT /letters/2");
    assert!(first_requests(&bench, "mail").iter().all(|(_, _, other)| other.as_ref() != Some(key)));
    let view = seen(&bench);
    let ended: Vec<_> = view.steps.iter().map(|step| (step.step.as_str(), step.items, step.items_ended)).collect();
    assert_eq!(ended[..2], [("mail", Some(3), Some(3)), ("letter", Some(1), Some(1))]);
    assert!(view.steps.iter().all(|step| step.status == StepStatus::Done), "{view:#?}");
}

#[test]
fn no_item_is_replaced_where_it_may_have_been_done() {
    let plan = plan(MAILS);
    for heard in [lost(), status(503), status(500), AttemptResult::Interrupted] {
        let mut bench = Bench::of_route(&plan);
        bench.settle();
        bench.item("mail", 0, heard);
        let conflict = bench.run.conflict().expect("a person decides");
        assert_eq!((conflict.kind, conflict.item), (ConflictKind::OutcomeUnknown, Some(0)));
        assert!(!conflict.choices.contains(&"fallback".to_owned()), "{conflict:?}");
        assert!(bench.choose("mail", Some(0), Choice::Fallback).is_err());
    }
    for heard in [shut(60_000), status(429), AttemptResult::NotSent("x".into())] {
        let mut bench = Bench::of_route(&plan);
        bench.settle();
        bench.item("mail", 0, heard);
        assert_eq!(bench.flying(), ["letter[0]", "mail[1]"]);
    }
}

#[test]
fn both_undo_what_they_did_and_only_that() {
    let plan = plan(MAILS);
    let mut bench = Bench::of_route(&plan);
    bench.settle();
    bench.item("mail", 1, status(429));
    bench.item("mail", 0, ok(json!({"id": 10})));
    bench.item("letter", 1, ok(json!({"id": 11})));
    bench.item("mail", 2, ok(json!({"id": 12})));
    bench.call("last", status(404));
    let mut undone = Vec::new();
    while let Some(call) = bench.run.in_flight().first().cloned() {
        undone.push(call.request.url.clone());
        bench.hears(call.step.as_str(), call.item, Part::Undo, ok(json!({})));
    }
    undone.sort();
    assert_eq!(undone, ["/letters/2/11", "/mails/10", "/mails/12"]);
    assert_eq!(bench.run.status(), RunStatus::Failed);
    assert!(bench.run.undone().iter().all(|(.., state)| *state == Undone::Undone));
    assert!(bench.run.note().unwrap().ends_with("undone: `letter`, `mail` (2 items)"), "{:?}", bench.run.note());
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
fn fallbacks_of_items_form_chains_and_one_that_does_not_run_leaves_the_failure() {
    let plan = plan(CHAIN);
    let mut bench = Bench::of_route(&plan);
    bench.settle();
    for item in 0..3 {
        bench.item("a", item, status(429));
    }
    assert_eq!(bench.flying(), ["b[1]", "b[2]"], "the `if` sees the item");
    bench.item("b", 1, status(429));
    bench.item("b", 2, status(429));
    assert_eq!(bench.run.status(), RunStatus::Completed, "{:?}", bench.kinds());
    let answer = bench.run.answer().unwrap().body.value();
    assert_eq!((&answer[0], &answer[1]), (&json!([null, null, {"from": 3, "at": 2}]), &json!([null, null, "c"])));
    let errors: Vec<_> = answer[2].as_array().unwrap().iter().map(|error| error["index"].clone()).collect();
    assert_eq!(errors, [json!(0), json!(1)]);
    assert!(answer[2][1]["message"].as_str().unwrap().contains("`b`"), "what failed last is told: {answer}");

    // Without `collect` the first failure is the run's, and what runs in the place of another item ends first.
    let fast = CHAIN.replace(", failures: collect", "").replace(", steps.a.errors", "");
    let fast = self::plan(&fast);
    let mut bench = Bench::new(&fast, Mode::Real, json!({"body": {"items": [3, 2]}}));
    bench.settle();
    bench.item("a", 0, status(429));
    bench.item("a", 1, status(429));
    bench.item("b", 1, status(429));
    assert_eq!((bench.run.status(), bench.flying()), (RunStatus::Running, vec!["b[0]".to_owned()]));
    bench.item("b", 0, ok(json!({})));
    assert_eq!(bench.run.status(), RunStatus::Failed);
    assert!(bench.run.failure().unwrap().message.contains("item 1 of `b`"), "{:?}", bench.run.failure());
}

#[test]
fn what_nobody_took_is_not_needed_and_cannot_be_skipped_or_changed_before() {
    let plan = plan(MAILS);
    let mut bench = Bench::of_api(&plan);
    bench.settle();
    let skip = || Order::Skip { step: "letter".into(), reason: None };
    assert!(bench.order(skip()).unwrap_err().to_string().contains("runs only where it takes the place of `mail`"));
    let adjust = |item| Order::Adjust { step: "letter".into(), item, input: Arc::new(json!({"nth": 9})), reason: None };
    let refused = bench.order(adjust(None)).unwrap_err().to_string();
    assert!(refused.contains("the items of `letter` are not known yet"), "{refused}");
    bench.item("mail", 0, status(429));
    assert!(bench.order(skip()).unwrap_err().to_string().contains("items of `mail`"));
    bench.order(adjust(Some(1))).unwrap();
    bench.item("mail", 1, status(429));
    let body = bench.run.attempt(&"letter".into(), Some(1), Part::Do).unwrap().request.body.value();
    assert_eq!(body, json!({"nth": 9}));

    let mut bench = Bench::of_api(&plan);
    bench.settle();
    (0..3).for_each(|item| bench.item("mail", item, ok(json!({}))));
    bench.call("last", ok(json!({})));
    assert_eq!(bench.run.status(), RunStatus::Completed);
    assert_eq!(bench.run.answer().unwrap().body.value()[1], json!([null, null, null]), "always a list");
    let kinds = bench.events.iter().filter(
        |event| matches!(event, Event::Step(StepEvent::Skipped { step, item: None, .. }) if step.as_str() == "letter"),
    );
    assert_eq!(kinds.count(), 1);
}

#[test]
fn a_person_takes_the_fallback_of_one_item_and_decides_over_one_that_runs_in_its_place() {
    let plan = plan(
        &MAILS
            .replace("    fallback: letter\n", "    fallback: letter\n    on_failure: pause\n")
            .replace("    accept: [200, 404]\n", "    accept: [200, 404]\n    on_conflict: pause\n"),
    );
    let mut bench = Bench::of_api(&plan);
    bench.settle();
    bench.item("mail", 0, status(404));
    bench.choose("mail", Some(0), Choice::Fallback).unwrap();
    assert_eq!(bench.flying(), ["letter[0]", "mail[1]"]);
    bench.item("letter", 0, status(409));
    let conflict = bench.run.conflict().unwrap();
    assert_eq!((conflict.step.as_str(), conflict.item), ("letter", Some(0)));
    bench.choose("letter", Some(0), take(json!({"id": "by hand"}))).unwrap();
    bench.item("mail", 1, status(404));
    bench.choose("mail", Some(1), Choice::Fallback).unwrap();
    bench.item("letter", 1, status(409));
    bench.choose("letter", Some(1), Choice::Skip).unwrap();
    bench.item("mail", 2, ok(json!({})));
    bench.call("last", ok(json!({})));
    let answer = bench.run.answer().unwrap().body.value();
    assert_eq!(answer, json!([[{"id": "by hand"}, null, {}], ["letter", null, null]]));
}

#[test]
fn people_are_asked_about_each_item_that_a_risky_fallback_is_to_do() {
    let plan = plan(
        &MAILS.replace("    accept: [200, 404]\n", "    accept: [200, 404]\n    risk: medium\n    on_reject: skip\n"),
    );
    let mut bench = Bench::of_api(&plan);
    bench.rest();
    bench.replies("mail", Some(0), status(429));
    let asked = bench.asked();
    assert_eq!((asked.step.as_str(), asked.item, asked.kind), ("letter", Some(0), CheckpointKind::Approval));
    assert_eq!(bench.flying(), ["mail[1]"]);
    bench.answers("ann", yes()).unwrap();
    assert_eq!(bench.flying(), ["letter[0]", "mail[1]"]);
    bench.replies("mail", Some(1), status(429));
    assert_eq!(bench.asked().item, Some(1), "the yes was about the other item");
    bench.answers("ann", super::stage::no()).unwrap();
    bench.replies("letter", Some(0), ok(json!({})));
    bench.replies("mail", Some(2), ok(json!({})));
    assert_eq!(bench.flying(), ["last"], "{:?}", bench.kinds());
}

#[test]
fn a_freeze_holds_it_and_a_rehearsal_leaves_its_intent() {
    let plan = plan(MAILS);
    let mut bench = Bench::of_route(&plan);
    bench.settle();
    bench.reply("mail", Some(0), status(429)).unwrap();
    let held = Conditions { now: bench.now, hold_effects: true };
    let letter = plan.step(&"letter".into()).unwrap().0;
    assert!(due(&bench.run, &plan, &bench.world, held).contains(&Action::Held(letter)));

    let reads = self::plan(
        "
workflow: w
steps:
  look: { for_each: '${request.body.items}', call: 'GET ${services.bank}/${item}', retry: { attempts: 1 }, fallback: ask }
  ask: { fallback_only: true, call: 'POST ${services.bank}/${item}', rehearse: { id: '${item}' } }
respond: { status: 200, body: '${steps.look.output}' }
",
    );
    let mut bench = Bench::new(&reads, Mode::Rehearse, json!({"body": {"items": [1, 2]}}));
    bench.settle();
    bench.item("look", 1, status(503));
    bench.item("look", 0, ok(json!({"id": 7})));
    assert_eq!(bench.run.status(), RunStatus::Completed);
    assert_eq!(bench.run.answer().unwrap().body.value(), json!([{"id": 7}, {"id": 2}]));
    let intents: Vec<_> =
        bench.run.intents().map(|(step, item, _, call)| (step.as_str(), item, call.url.as_str())).collect();
    assert_eq!(intents, [("ask", Some(1), "/2")]);
    assert!(bench.sent.iter().all(|(step, ..)| step.as_str() == "look"));
}

#[test]
fn a_rerun_takes_over_what_both_did_and_a_replay_finds_what_differs() {
    let plan = plan(MAILS);
    let mut bench = Bench::of_api(&plan);
    bench.settle();
    bench.item("mail", 1, status(429));
    bench.item("mail", 0, ok(json!({"id": 10})));
    bench.item("letter", 1, ok(json!({"id": 11})));
    bench.item("mail", 2, ok(json!({"id": 12})));
    let cancel = Order::Cancel { compensate: false, reason: None };
    bench.order(cancel).unwrap();
    bench.call("last", status(404));
    assert!(bench.run.is_final());
    let events: Vec<_> = bench.events.iter().map(|event| (bench.now, event.clone())).collect();
    assert_eq!(replay_with(&events, &plan, &bench.world).unwrap(), []);
    let other = self::plan(&MAILS.replace("nth: '${index}'", "nth: 0"));
    let found = replay_with(&events, &other, &bench.world).unwrap();
    let found: Vec<_> =
        found.iter().map(|found| (found.kind, found.step.as_ref().unwrap().as_str(), found.item)).collect();
    assert_eq!(found, [(DivergenceKind::Request, "letter", Some(1))]);

    let mut next = started(&plan, Mode::Real, json!({"body": {"items": [1, 2, 3]}}));
    next.run = RunId(uuid::Uuid::from_u128(2));
    let mut all = vec![Event::RunStarted(Arc::new(next))];
    all.extend(rerun(&bench.run, &plan, &"last".into()).unwrap());
    let again = fold(&all).unwrap();
    assert_eq!(again.outputs["mail"]["by"], json!([null, "letter", null]));
    let mut bench = Bench { run: again, events: all, ..Bench::of_api(&plan) };
    bench.settle();
    bench.call("last", status(404));
    let mut undone = Vec::new();
    while let Some(call) = bench.run.in_flight().first().cloned() {
        undone.push(call.request.url.clone());
        bench.hears(call.step.as_str(), call.item, Part::Undo, ok(json!({})));
    }
    undone.sort();
    assert_eq!(undone, ["/letters/2/11", "/mails/10", "/mails/12"]);
}

#[test]
fn a_whole_list_without_a_value_has_no_fallback() {
    let plan = plan(&MAILS.replace("${request.body.items}", "${request.body.nothing}"));
    let mut bench = Bench::of_api(&plan);
    bench.settle();
    let conflict = bench.run.conflict().unwrap();
    assert_eq!((conflict.kind, conflict.item), (ConflictKind::Expression, None));
    assert_eq!(conflict.choices, ["retry", "skip", "take", "cancel"]);
    let refused = bench.choose("mail", None, Choice::Fallback).unwrap_err().to_string();
    assert!(refused.contains("takes the place of items"), "{refused}");
}

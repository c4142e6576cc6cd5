//! Locks, runs that a run begins, reruns, and other plans held against a run.

use super::kit::plan;
use super::stage::yes;
use super::*;
use crate::workflow::{Choice, ConflictKind, DivergenceKind, Knot, LockSeen, Order, Part, replay_with, rerun};

fn locked(busy: &str) -> Plan {
    plan(&format!(
        "
workflow: w
steps:
  take:
    for_each: ${{request.body.items}}
    concurrency: 2
    call: POST ${{services.stock}}/take
    body: {{ n: '${{item}}' }}
    retry: {{ attempts: 1, base: 1s, max: 1s }}
    lock: {{ key: 'sku:${{item}}', busy: {busy} }}
respond: {{ status: 200, body: '${{default(steps.take.output, null)}}' }}
"
    ))
}

fn behind() -> LockSeen {
    LockSeen::Behind { holder: RunId(uuid::Uuid::from_u128(9)) }
}

pub(super) fn knot(holder: RunId, waiter: RunId) -> Knot {
    Knot { holder, holds: "a".into(), waiter, wants: "b".into() }
}

fn left(bench: &Bench<'_>) -> usize {
    bench.kinds().iter().filter(|kind| **kind == "lock_left").count()
}

#[test]
fn a_step_begins_when_it_holds_its_lock_and_leaves_it_when_it_ends() {
    let plan = locked("wait");
    let mut bench = Bench::of_api(&plan);
    bench.rest();
    assert_eq!(bench.locks(), [("sku:1".to_owned(), Some(0)), ("sku:2".to_owned(), Some(1))]);
    assert_eq!(bench.causes(), ["lock", "lock"]);
    assert!(bench.lock("take", Some(0), behind()).is_err());
    bench.lock("take", Some(1), LockSeen::First).unwrap();
    assert_eq!(bench.flying(), ["take[1]"], "a later item need not wait for an earlier one");
    bench.replies("take", Some(1), ok(json!(2)));
    assert_eq!((left(&bench), bench.locks().len()), (1, 2));
    bench.lock("take", Some(0), LockSeen::First).unwrap();
    bench.says("ann", Order::Pause { reason: None }).unwrap();
    assert_eq!(left(&bench), 2, "one that does not hold its lock leaves the queue");
    bench.says("ann", Order::Resume { reason: None }).unwrap();
    bench.lock("take", Some(2), LockSeen::First).unwrap();
    bench.replies("take", Some(0), ok(json!(1)));
    bench.replies("take", Some(2), ok(json!(3)));
    assert_eq!((bench.status(), left(&bench)), (RunStatus::Completed, 4));
    let mut bench = Bench::of_api(&plan);
    bench.rest();
    bench.lock("take", Some(0), LockSeen::First).unwrap();
    bench.replies("take", Some(0), status(404));
    assert_eq!((bench.status(), left(&bench)), (RunStatus::Failed, 2), "nothing is held beyond the end");
}

#[test]
fn a_lock_that_is_held_skips_cancels_or_asks() {
    let skip = locked("skip");
    let mut bench = Bench::of_api(&skip);
    bench.rest();
    bench.lock("take", Some(0), behind()).unwrap();
    bench.lock("take", Some(1), LockSeen::First).unwrap();
    bench.replies("take", Some(1), ok(json!(2)));
    bench.lock("take", Some(2), behind()).unwrap();
    assert_eq!(bench.run.answer().unwrap().body.value(), json!([null, 2, null]));
    let cancel = locked("cancel");
    let mut bench = Bench::of_api(&cancel);
    bench.rest();
    bench.lock("take", Some(0), behind()).unwrap();
    assert_eq!((bench.status(), left(&bench)), (RunStatus::Cancelled, 2));
    let ask = locked("ask");
    let mut bench = Bench::of_api(&ask);
    bench.rest();
    bench.lock("take", Some(0), behind()).unwrap();
    assert_eq!(bench.run.conflict().unwrap().choices, ["wait", "skip", "cancel"]);
    let resolve = |choice| Order::Resolve { step: "take".into(), item: Some(0), choice, reason: None };
    bench.says("ann", resolve(Choice::Wait)).unwrap();
    assert!(bench.lock("take", Some(0), behind()).is_err(), "nobody is asked twice");
    bench.lock("take", Some(0), LockSeen::First).unwrap();
    assert_eq!(bench.flying(), ["take[0]"]);
    let mut bench = Bench::of_api(&ask);
    bench.rest();
    let knots = vec![knot(RunId(uuid::Uuid::from_u128(9)), bench.run.id())];
    bench.lock("take", Some(1), LockSeen::Deadlock { knots: knots.clone() }).unwrap();
    let conflict = bench.run.conflict().unwrap();
    assert_eq!(conflict.kind, ConflictKind::Deadlock);
    let says =
        format!("{} holds `a`, and {}, which it began, wants `b`", RunId(uuid::Uuid::from_u128(9)), bench.run.id());
    assert!(conflict.message.contains(&says), "{}", conflict.message);
    let resolve = |choice| Order::Resolve { step: "take".into(), item: Some(1), choice, reason: None };
    bench.says("ann", resolve(Choice::Wait)).unwrap();
    assert_eq!((bench.status(), bench.locks().len()), (RunStatus::Running, 2), "both stand in line anew");
    bench.lock("take", Some(1), LockSeen::Deadlock { knots }).unwrap();
    assert_eq!(bench.status(), RunStatus::Paused, "it is still so: to wait for it silently would hide it");
    bench
        .says("ann", Order::Resolve { step: "take".into(), item: Some(1), choice: Choice::Skip, reason: None })
        .unwrap();
    assert_eq!((left(&bench), bench.status()), (4, RunStatus::Running));
}

/// Others need not wait until a person has decided over something else.
#[test]
fn a_run_that_pauses_over_a_conflict_stands_in_nobodys_way() {
    let plan = plan(
        "
workflow: w
steps:
  a: { call: 'POST ${services.stock}/a' }
  b: { call: 'POST ${services.stock}/b', lock: { key: x } }
respond: { status: 200 }
",
    );
    let mut bench = Bench::of_api(&plan);
    bench.rest();
    assert_eq!((bench.locks().len(), bench.flying()), (1, vec!["a".to_owned()]));
    bench.replies("a", None, status(409));
    assert_eq!((bench.status(), left(&bench)), (RunStatus::Paused, 1));
    let resolve = Order::Resolve { step: "a".into(), item: None, choice: Choice::Skip, reason: None };
    bench.says("ann", resolve).unwrap();
    assert_eq!(bench.locks(), [("x".to_owned(), None)], "it stands in line anew");
    let note = |bench: &Bench<'_>| {
        let seen = crate::workflow::view(bench.events.iter().map(|event| (bench.now, event))).unwrap();
        seen.steps.into_iter().find(|step| step.step.as_str() == "b").unwrap().note
    };
    assert_eq!(note(&bench).as_deref(), Some("it waits for the lock `x`"));
    bench.lock("b", None, LockSeen::First).unwrap();
    assert_eq!(note(&bench), None, "it has it");
    bench.replies("b", None, ok(json!(1)));
    assert_eq!(bench.status(), RunStatus::Completed);
    // What it holds it keeps: its call is under way.
    let mut bench = Bench::of_api(&plan);
    bench.rest();
    bench.lock("b", None, LockSeen::First).unwrap();
    bench.replies("a", None, status(409));
    assert_eq!((bench.status(), left(&bench), bench.flying()), (RunStatus::Paused, 0, vec!["b".to_owned()]));
}

/// A look that began before a pause may end after the run has stood in line anew, behind others.
#[test]
fn what_was_seen_of_an_earlier_place_in_a_queue_gives_no_lock() {
    let plan = locked("wait");
    let mut bench = Bench::of_api(&plan);
    bench.rest();
    let place = |bench: &Bench<'_>| bench.run.beside.place(&"take".into(), Some(0)).unwrap().queued;
    let before = place(&bench);
    bench.says("ann", Order::Pause { reason: None }).unwrap();
    bench.says("ann", Order::Resume { reason: None }).unwrap();
    let (step, queued) = (bench.plan.step(&"take".into()).unwrap().0, place(&bench));
    assert_ne!(before, queued);
    let seen = |queued| Command::LockSeen { step, item: Some(0), queued, seen: LockSeen::First };
    assert!(bench.ask(seen(before)).is_err());
    assert!(bench.flying().is_empty());
    bench.ask(seen(queued)).unwrap();
}

#[test]
fn a_service_that_says_locked_is_treated_as_a_lock() {
    for (busy, then) in [("skip", "skipped"), ("cancel", "cancelled"), ("wait", "waits"), ("ask", "asked")] {
        let plan = locked(busy);
        let mut bench = Bench::of_api(&plan);
        bench.rest();
        bench.lock("take", Some(0), LockSeen::First).unwrap();
        bench.replies("take", Some(0), status(423));
        match then {
            "skipped" => assert!(bench.kinds().contains(&"step_skipped")),
            "cancelled" => assert_eq!(bench.status(), RunStatus::Cancelled),
            "waits" => {
                for _ in 0..5 {
                    bench.seconds(2);
                    assert_eq!(bench.flying(), ["take[0]"], "no attempt is used up");
                    bench.replies("take", Some(0), status(423));
                }
                bench.seconds(2);
                bench.replies("take", Some(0), ok(json!(1)));
                assert_ne!(bench.status(), RunStatus::Failed);
            }
            _ => {
                assert_eq!(bench.run.conflict().map(|c| c.kind), Some(ConflictKind::Busy));
                let wait = Order::Resolve { step: "take".into(), item: Some(0), choice: Choice::Wait, reason: None };
                bench.says("ann", wait).unwrap();
                bench.seconds(2);
                assert_eq!(bench.flying(), ["take[0]"]);
            }
        }
    }
}

#[test]
fn locks_beside_legacy_have_names_of_their_own() {
    let yaml = "
workflow: w
steps: { a: { call: 'POST ${services.stock}/a', effect: private, lock: { key: x } } }
respond: { status: 200 }
";
    let plan = plan(yaml);
    let mut dark = Bench::new(&plan, Mode::Dark, json!({}));
    dark.rest();
    assert_eq!(dark.locks(), [("dark:x".to_owned(), None)]);
    let mut rehearsed = Bench::new(&plan, Mode::Rehearse, json!({}));
    rehearsed.rest();
    assert_eq!((rehearsed.status(), rehearsed.locks().len()), (RunStatus::Completed, 0));
}

fn parent(more: &str) -> Plan {
    plan(&format!(
        "
workflow: w
steps:
  part:
    for_each: ${{request.body.items}}
    concurrency: 2
    run: child
    input: {{ n: '${{item}}' }}
    {more}
  sum: {{ set: '${{sum(steps.part.output)}}' }}
respond: {{ status: 200, body: '${{steps.sum.output}}' }}
"
    ))
}

#[test]
fn a_run_begins_others_and_goes_on_with_what_they_answer() {
    let plan = parent("");
    let mut bench = Bench::of_api(&plan);
    bench.rest();
    let first = bench.children();
    assert_eq!((first.len(), bench.status(), bench.causes()), (2, RunStatus::Running, vec!["child", "child"]));
    bench.child_ends(first[1], RunStatus::Completed, json!(20));
    let now = bench.children();
    assert_eq!(now.len(), 2);
    bench.child_ends(first[0], RunStatus::Completed, json!(10));
    bench.child_ends(*bench.children().last().unwrap(), RunStatus::Completed, json!(30));
    assert_eq!(bench.run.answer().unwrap().body.value(), json!(60));
    assert!(
        bench
            .ask(Command::ChildEnded {
                child: first[0],
                status: RunStatus::Completed,
                output: Arc::default(),
                note: None,
                effects: true,
            })
            .is_err()
    );
}

#[test]
fn a_run_that_fails_takes_its_parent_along_or_asks() {
    let plan = parent("");
    let mut bench = Bench::of_api(&plan);
    bench.rest();
    let children = bench.children();
    bench.child_ends(children[0], RunStatus::Failed, Value::Null);
    assert_eq!((bench.status(), bench.told()), (RunStatus::Running, vec!["cancel"]), "the other has to end first");
    bench.child_ends(children[1], RunStatus::Cancelled, Value::Null);
    assert_eq!(
        (bench.status(), bench.run.failure().map(|f| f.kind)),
        (RunStatus::Failed, Some(FailureKind::ChildFailed))
    );
    let asks = parent("on_failure: pause");
    let mut bench = Bench::of_api(&asks);
    bench.rest();
    let children = bench.children();
    bench.child_ends(children[0], RunStatus::Failed, Value::Null);
    assert_eq!(bench.run.conflict().map(|c| (c.kind, c.item)), Some((ConflictKind::ChildFailed, Some(0))));
    let resolve = |choice| Order::Resolve { step: "part".into(), item: Some(0), choice, reason: None };
    bench.says("ann", resolve(Choice::Retry)).unwrap();
    let again: Vec<_> = bench.children().into_iter().filter(|child| !children.contains(child)).collect();
    assert_eq!(again.len(), 1, "another run, under another id");
    bench.child_ends(again[0], RunStatus::Failed, Value::Null);
    bench.says("ann", resolve(Choice::Take { output: Arc::new(json!(1)) })).unwrap();
    bench.child_ends(children[1], RunStatus::Completed, json!(2));
    bench.child_ends(*bench.children().last().unwrap(), RunStatus::Completed, json!(3));
    assert_eq!(bench.run.answer().unwrap().body.value(), json!(6));
}

#[test]
fn what_is_ordered_of_a_run_reaches_those_that_it_began() {
    let plan = parent("");
    let mut bench = Bench::of_api(&plan);
    bench.rest();
    bench.says("ann", Order::Pause { reason: None }).unwrap();
    assert_eq!(bench.told(), ["pause", "pause"]);
    bench.says("ann", Order::Resume { reason: None }).unwrap();
    assert_eq!(bench.told(), ["resume", "resume"]);
    bench.says("ann", Order::Cancel { compensate: true, reason: None }).unwrap();
    assert_eq!((bench.told(), bench.status()), (vec!["cancel", "cancel"], RunStatus::Running));
    for child in bench.children() {
        bench.child_ends(child, RunStatus::Cancelled, Value::Null);
    }
    assert_eq!(bench.status(), RunStatus::Cancelled);
    let rehearsed = parent("rehearse: 7");
    let mut bench = Bench::new(&rehearsed, Mode::Dark, json!({"body": {"items": [1, 2]}}));
    bench.rest();
    assert_eq!((bench.run.answer().unwrap().body.value(), bench.children().len()), (json!(14), 0));
}

const CHAIN: &str = "
workflow: w
steps:
  a: { call: 'POST ${services.stock}/a', body: { n: 1 }, undo: 'DELETE ${services.stock}/a/${output.id}' }
  ok: { needs: [a], checkpoint: { question: sure } }
  b: { needs: [ok], call: 'POST ${services.stock}/b', body: { n: '${steps.a.output.id}', id: '${uuid(\"b\")}' } }
  side: { set: 5 }
  c: { set: '${[steps.b.output, steps.side.output]}' }
respond: { status: 200, body: '${steps.c.output}' }
";

#[test]
fn a_rerun_takes_over_what_does_not_depend_on_its_step() {
    let plan = plan(CHAIN);
    let mut bench = Bench::of_api(&plan);
    bench.rest();
    bench.replies("a", None, ok(json!({"id": 7})));
    let refused = rerun(&bench.run, &plan, &"b".into());
    assert!(matches!(refused, Err(Refusal::NoSense(why)) if why.contains("waiting_checkpoint")));
    bench.answers("ann", yes()).unwrap();
    bench.replies("b", None, ok(json!({"done": 1})));
    assert_eq!(bench.status(), RunStatus::Completed);
    assert_eq!(rerun(&bench.run, &plan, &"x".into()), Err(Refusal::NoSuchStep));
    let taken = rerun(&bench.run, &plan, &"b".into()).unwrap();
    let mut again = Bench::born(&plan, |started| {
        started.route = None;
        started.run = RunId(uuid::Uuid::from_u128(2));
        started.rerun_of = Some(bench.run.id());
    });
    for event in taken {
        again.run.take_in(&event).unwrap();
        again.events.push(event);
    }
    again.rest();
    assert_eq!(again.flying(), ["b"], "the answer before it holds, and the step itself is done anew");
    assert_eq!(again.run.in_flight()[0].request.body.value()["n"], json!(7));
    again.replies("b", None, status(404));
    again.rest();
    // What the first run did is undone under that one's key.
    let undo = again.run.attempt(&"a".into(), None, Part::Undo).unwrap();
    assert_eq!(undo.request.url, "/a/7");
    let mut failed = Bench::of_api(&plan);
    failed.rest();
    failed.replies("a", None, ok(json!({"id": 7})));
    failed.answers("ann", yes()).unwrap();
    failed.replies("b", None, status(404));
    assert_eq!(failed.run.attempt(&"a".into(), None, Part::Undo).unwrap().key, undo.key);
    failed.undo("a", ok(json!({})));
    assert_eq!(failed.status(), RunStatus::Failed);
    let names: Vec<_> = rerun(&failed.run, &plan, &"c".into())
        .unwrap()
        .iter()
        .map(|event| match event {
            Event::ResultTaken(taken) => taken.step.as_str().to_owned(),
            _ => panic!(),
        })
        .collect();
    assert_eq!(names, ["side"], "what was undone, and what needs it, is done anew");
    let dark = Bench::new(&plan, Mode::Dark, json!({}));
    assert!(matches!(rerun(&dark.run, &plan, &"a".into()), Err(Refusal::NoSense(_))));
}

#[test]
fn another_plan_is_held_against_what_happened() {
    let first = plan(CHAIN);
    let mut bench = Bench::of_api(&first);
    bench.rest();
    bench.replies("a", None, ok(json!({"id": 7})));
    bench.answers("ann", yes()).unwrap();
    bench.replies("b", None, ok(json!({"done": 1})));
    let events: Vec<_> = bench.events.iter().map(|event| (bench.now, event.clone())).collect();
    let against = |from: &str, to: &str| {
        let plan = plan(&CHAIN.replace(from, to));
        let found = replay_with(&events, &plan, &bench.world).unwrap();
        found.into_iter().map(|d| (d.step.map(|s| s.to_string()), d.kind, d.would)).collect::<Vec<_>>()
    };
    assert_eq!(against("zzz", ""), []);
    let step = |name: &str| Some(name.to_owned());
    let request = against("n: 1 }", "n: 2 }");
    assert_eq!(request.len(), 1);
    assert_eq!((&request[0].0, request[0].1), (&step("a"), DivergenceKind::Request));
    assert_eq!(
        against("side: { set: 5 }", "side: { set: 6 }").iter().map(|d| d.1).collect::<Vec<_>>(),
        [DivergenceKind::Decision]
    );
    let order = against("side: { set: 5 }", "side: { set: 5, needs: [b] }");
    assert_eq!((&order[0].0, order[0].1), (&step("side"), DivergenceKind::Order));
    assert!(order[0].2.contains("something that it needs has not ended"), "{}", order[0].2);
    let question = against("question: sure", "question: really");
    assert_eq!((&question[0].0, question[0].1), (&step("ok"), DivergenceKind::Decision));
    let answer = against("status: 200, body", "status: 201, body");
    assert_eq!((&answer[0].0, answer[0].1), (&None, DivergenceKind::Answer));
    let more = against("  side:", "  extra: { needs: [c], set: 1 }\n  side:");
    assert!(more.iter().any(|d| d.1 == DivergenceKind::MoreSteps && d.2.contains("extra")), "{more:?}");
    let accepts = against("/b', body", "/b', accept: [201], body");
    assert_eq!(accepts.iter().map(|d| d.1).collect::<Vec<_>>(), [DivergenceKind::Outcome]);
}

#[test]
fn a_run_that_did_nothing_leaves_nothing_to_undo() {
    let plan = plan(
        "
workflow: w
steps:
  below: { run: sub }
  stop: { needs: [below], fail: { status: 402 } }
respond: { status: 200, body: 1 }
",
    );
    for (effects, left) in [(false, 0), (true, 1)] {
        let mut bench = Bench::of_api(&plan);
        bench.rest();
        let child = bench.children()[0];
        let (status, output) = (RunStatus::Completed, Arc::new(json!(1)));
        bench.ask(Command::ChildEnded { child, status, output, note: None, effects }).unwrap();
        bench.rest();
        assert_eq!((bench.status(), bench.run.undone().len()), (RunStatus::Failed, left));
    }
}

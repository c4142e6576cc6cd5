//! Runs that a run begins, reruns, and other plans held against a run.

use super::kit::plan;
use super::stage::yes;
use super::*;
use crate::workflow::{Choice, ConflictKind, DivergenceKind, Order, Part, StepEvent, replay_with, rerun};

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
    assert!(matches!(refused, Err(Refusal::NotApplicable(why)) if why.contains("waiting_checkpoint")));
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
            Event::Step(StepEvent::ResultTaken(taken)) => taken.step.as_str().to_owned(),
            _ => panic!(),
        })
        .collect();
    assert_eq!(names, ["side"], "what was undone, and what needs it, is done anew");
    let dark = Bench::new(&plan, Mode::Dark, json!({}));
    assert!(matches!(rerun(&dark.run, &plan, &"a".into()), Err(Refusal::NotApplicable(_))));
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
        assert_eq!((bench.status(), bench.run.undone().len()), (RunStatus::Completed, left));
    }
}

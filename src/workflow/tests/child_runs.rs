//! Child runs, reruns, and replays of a run with another plan.

use super::harness::plan;
use super::people_harness::yes;
use super::*;
use crate::workflow::{
    Choice, ConflictKind, ControlCommand, DivergenceKind, Parent, StepEvent, StepPart, TreeEffects, UndoStatus,
    replay_with, rerun,
};

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

/// The parent is still paused when its process ends, so the next process repeats the parent's commands to the child.
#[test]
fn a_repeated_pause_does_not_pause_a_child_that_somebody_has_resumed() {
    let plan = plan("{ workflow: w, steps: { a: { call: 'POST ${services.bank}/a' } }, respond: { status: 200 } }");
    let parent = RunId(uuid::Uuid::from_u128(9));
    let mut harness = Harness::started_with(&plan, |started| {
        started.parent = Some(Parent { run: parent, step: "sub".into(), item: None });
    });
    harness.perform_due();
    let (by, pause, resume) =
        (parent.to_string(), || ControlCommand::Pause { reason: None }, || ControlCommand::Resume { reason: None });
    harness.give_command_by(&by, pause()).unwrap();
    harness.give_command_by("ann", resume()).unwrap();
    assert!(harness.give_command_by(&by, pause()).is_err(), "this repeats the command");
    assert_eq!(harness.status(), RunStatus::Running);
    harness.give_command_by(&by, resume()).unwrap();
    assert!(harness.give_command_by(&by, resume()).is_err(), "this repeats the command");
    harness.give_command_by(&by, pause()).unwrap();
    assert_eq!(harness.status(), RunStatus::Paused, "after the resume, a pause is a new command");
    harness.give_command_by(&by, resume()).unwrap();
    assert_eq!(harness.status(), RunStatus::Running);
}

#[test]
fn a_run_starts_children_and_uses_their_answers() {
    let plan = parent("");
    let mut harness = Harness::of_api(&plan);
    harness.perform_due();
    let first = harness.children();
    assert_eq!((first.len(), harness.status(), harness.causes()), (2, RunStatus::Running, vec!["child", "child"]));
    harness.child_ends(first[1], RunStatus::Completed, json!(20));
    let now = harness.children();
    assert_eq!(now.len(), 2);
    harness.child_ends(first[0], RunStatus::Completed, json!(10));
    harness.child_ends(*harness.children().last().unwrap(), RunStatus::Completed, json!(30));
    assert_eq!(harness.run.answer().unwrap().body.value(), json!(60));
    assert!(
        harness
            .command(Command::ChildEnded {
                child: first[0],
                status: RunStatus::Completed,
                output: Arc::default(),
                note: None,
                failure: None,
                tree: None,
                sensitive: Vec::new(),
            })
            .is_err()
    );
}

#[test]
fn a_failed_child_fails_its_parent_or_pauses_it() {
    let plan = parent("");
    let mut harness = Harness::of_api(&plan);
    harness.perform_due();
    let children = harness.children();
    harness.child_ends(children[0], RunStatus::Failed, Value::Null);
    assert_eq!(
        (harness.status(), harness.commands_to_children()),
        (RunStatus::Running, vec!["cancel"]),
        "the other child has to end first"
    );
    harness.child_ends(children[1], RunStatus::Cancelled, Value::Null);
    assert_eq!(
        (harness.status(), harness.run.failure().map(|f| f.kind)),
        (RunStatus::Failed, Some(FailureKind::ChildFailed))
    );
    let asks = parent("on_failure: pause");
    let mut harness = Harness::of_api(&asks);
    harness.perform_due();
    let children = harness.children();
    harness.child_ends(children[0], RunStatus::Failed, Value::Null);
    assert_eq!(harness.run.conflict().map(|c| (c.kind, c.item)), Some((ConflictKind::ChildFailed, Some(0))));
    harness.choose("part", Some(0), Choice::Retry).unwrap();
    harness.perform_due();
    let again: Vec<_> = harness.children().into_iter().filter(|child| !children.contains(child)).collect();
    assert_eq!(again.len(), 1, "the retry begins another run, with another id");
    harness.child_ends(again[0], RunStatus::Failed, Value::Null);
    harness.choose("part", Some(0), Choice::Take { output: Arc::new(json!(1)) }).unwrap();
    harness.child_ends(children[1], RunStatus::Completed, json!(2));
    harness.child_ends(*harness.children().last().unwrap(), RunStatus::Completed, json!(3));
    assert_eq!(harness.run.answer().unwrap().body.value(), json!(6));
}

#[test]
fn commands_to_a_run_are_passed_to_its_children() {
    let plan = parent("");
    let mut harness = Harness::of_api(&plan);
    harness.perform_due();
    harness.give_command_by("ann", ControlCommand::Pause { reason: None }).unwrap();
    assert_eq!(harness.commands_to_children(), ["pause", "pause"]);
    harness.give_command_by("ann", ControlCommand::Resume { reason: None }).unwrap();
    assert_eq!(harness.commands_to_children(), ["resume", "resume"]);
    harness
        .give_command_by("ann", ControlCommand::Cancel { compensate: true, reason: None, automatic: false })
        .unwrap();
    assert_eq!((harness.commands_to_children(), harness.status()), (vec!["cancel", "cancel"], RunStatus::Running));
    for child in harness.children() {
        harness.child_ends(child, RunStatus::Cancelled, Value::Null);
    }
    assert_eq!(harness.status(), RunStatus::Cancelled);
    let rehearsed = parent("rehearse: 7");
    let mut harness = Harness::new(&rehearsed, Mode::Dark, json!({"body": {"items": [1, 2]}}));
    harness.perform_due();
    assert_eq!((harness.run.answer().unwrap().body.value(), harness.children().len()), (json!(14), 0));
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
fn a_rerun_takes_over_results_that_do_not_depend_on_its_step() {
    let plan = plan(CHAIN);
    let mut harness = Harness::of_api(&plan);
    harness.perform_due();
    harness.replies("a", None, ok(json!({"id": 7})));
    let refused = rerun(&harness.run, &plan, &"b".into());
    assert!(matches!(refused, Err(CommandRefusal::NotApplicable(why)) if why.contains("waiting_checkpoint")));
    harness.answers("ann", yes()).unwrap();
    harness.replies("b", None, ok(json!({"done": 1})));
    assert_eq!(harness.status(), RunStatus::Completed);
    assert_eq!(rerun(&harness.run, &plan, &"x".into()), Err(CommandRefusal::NoSuchStep));
    let taken = rerun(&harness.run, &plan, &"b".into()).unwrap();
    let mut again = Harness::started_with(&plan, |started| {
        started.route = None;
        started.run = RunId(uuid::Uuid::from_u128(2));
        started.rerun_of = Some(harness.run.id());
    });
    for event in taken {
        again.run.evolve_in_place(&event).unwrap();
        again.events.push(event);
    }
    again.perform_due();
    assert_eq!(again.in_flight_names(), ["b"], "earlier results are taken over, and the step itself runs again");
    assert_eq!(again.run.in_flight()[0].request.body.value()["n"], json!(7));
    again.replies("b", None, status(404));
    again.perform_due();
    // What the first run did is undone with the first run's idempotency key.
    let undo = again.run.attempt(&"a".into(), None, StepPart::Undo).unwrap();
    assert_eq!(undo.request.url, "/a/7");
    let mut failed = Harness::of_api(&plan);
    failed.perform_due();
    failed.replies("a", None, ok(json!({"id": 7})));
    failed.answers("ann", yes()).unwrap();
    failed.replies("b", None, status(404));
    assert_eq!(failed.run.attempt(&"a".into(), None, StepPart::Undo).unwrap().key, undo.key);
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
    assert_eq!(names, ["side"], "a step that was undone runs again, and so does a step that needs it");
    let dark = Harness::new(&plan, Mode::Dark, json!({}));
    assert!(matches!(rerun(&dark.run, &plan, &"a".into()), Err(CommandRefusal::NotApplicable(_))));
}

/// A child without effects needs no undo; one with effects is named if it is not undone.
#[test]
fn a_rerun_takes_over_which_child_a_step_began_and_whether_it_did_anything() {
    let plan = plan(
        "
workflow: w
steps:
  read: { run: sub, undo: 'DELETE ${services.stock}/subs' }
  done: { run: sub }
  ship: { needs: [read, done], call: 'POST ${services.stock}/ships' }
respond: { status: 200 }
",
    );
    let mut harness = Harness::of_api(&plan);
    harness.perform_due();
    let shared = TreeEffects { shared: true, ..TreeEffects::default() };
    let mut children = Vec::new();
    for (step, tree) in [("read", TreeEffects::default()), ("done", shared)] {
        let child = harness.run.children().find(|open| open.step.as_str() == step).unwrap().run;
        let (status, output, tree) = (RunStatus::Completed, Arc::new(json!({})), Some(tree));
        let (note, failure, sensitive) = (None, None, Vec::new());
        harness.command(Command::ChildEnded { child, status, output, note, failure, tree, sensitive }).unwrap();
        children.push(child);
    }
    harness.perform_due();
    harness.replies("ship", None, status(409));
    for _ in 0..2 {
        let events = rerun(&harness.run, &plan, &"ship".into()).unwrap();
        harness = Harness::started_with(&plan, |started| {
            started.route = None;
            started.run = RunId(uuid::Uuid::from_u128(started.run.0.as_u128() + 1));
        });
        for event in events {
            let stored: Event = serde_json::from_str(&serde_json::to_string(&event).unwrap()).unwrap();
            harness.run.evolve_in_place(&stored).unwrap();
            harness.events.push(stored);
        }
        harness.perform_due();
        harness.replies("ship", None, status(409));
    }
    harness.cancel(false).unwrap();
    let undone: Vec<_> = harness.run.undone().into_iter().map(|(step, _, undone)| (step.to_string(), undone)).collect();
    assert_eq!(undone.len(), 1, "{undone:?}");
    assert_eq!(undone[0].0, "done");
    let UndoStatus::Left(why) = &undone[0].1 else { panic!("{undone:?}") };
    assert!(why.contains("cancelled without undoing"), "{why}");
    let known = harness.run.done.iter().find(|done| done.step.as_str() == "done").unwrap();
    assert_eq!(known.child, Some((children[1], "sub".into())));
}

#[test]
fn a_replay_finds_each_kind_of_difference_of_another_plan() {
    let first = plan(CHAIN);
    let mut harness = Harness::of_api(&first);
    harness.perform_due();
    harness.replies("a", None, ok(json!({"id": 7})));
    harness.answers("ann", yes()).unwrap();
    harness.replies("b", None, ok(json!({"done": 1})));
    let events: Vec<_> = harness.events.iter().map(|event| (harness.now, event.clone())).collect();
    let against = |from: &str, to: &str| {
        let plan = plan(&CHAIN.replace(from, to));
        let found = replay_with(&events, &plan, &harness.inputs).unwrap();
        found.into_iter().map(|d| (d.step.map(|s| s.to_string()), d.kind, d.expected)).collect::<Vec<_>>()
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
    let out_of_order = against("side: { set: 5 }", "side: { set: 5, needs: [b] }");
    assert_eq!((&out_of_order[0].0, out_of_order[0].1), (&step("side"), DivergenceKind::Order));
    assert!(out_of_order[0].2.contains("something that it needs has not ended"), "{}", out_of_order[0].2);
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
fn a_child_that_ends_because_a_service_failed_fails_its_parent_for_the_same_reason_unless_the_run_is_real() {
    use FailureKind::{Broken, ChildFailed, Refused, TimedOut, Unavailable};
    let plan = parent("");
    for (cause, above) in [(Unavailable, Unavailable), (TimedOut, TimedOut), (Broken, Broken), (Refused, ChildFailed)] {
        for (mode, expected) in [(Mode::Rehearse, above), (Mode::Dark, above), (Mode::Real, ChildFailed)] {
            let mut harness = Harness::new(&plan, mode, json!({"body": {"items": [1]}}));
            harness.perform_due();
            harness.child_ends_with(harness.children()[0], RunStatus::Failed, Value::Null, Some(cause));
            assert_eq!(harness.run.failure().map(|failure| failure.kind), Some(expected), "{mode:?} {cause:?}");
        }
    }
}

/// If the parent paused instead, the comparison would be skipped with the wrong reason.
#[test]
fn a_child_that_cannot_be_rehearsed_fails_its_parent_for_the_same_reason() {
    let plan = parent("on_failure: pause");
    for lacks in [FailureKind::Unresolved, FailureKind::NeedsPerson, FailureKind::NeedsSignal, FailureKind::WouldPause]
    {
        for mode in [Mode::Rehearse, Mode::Dark, Mode::Real] {
            let mut harness = Harness::new(&plan, mode, json!({"body": {"items": [1]}}));
            harness.perform_due();
            let child = harness.children()[0];
            harness.child_ends_with(child, RunStatus::Failed, Value::Null, Some(lacks));
            let failure = harness.run.failure().map(|failure| failure.kind);
            let expected = (mode != Mode::Real).then_some(lacks);
            assert_eq!((failure, harness.run.conflict().is_some()), (expected, mode == Mode::Real), "{mode:?}");
            let events: Vec<_> = harness.events.iter().map(|event| (harness.now, event.clone())).collect();
            assert_eq!(replay_with(&events, &plan, &harness.inputs).unwrap(), [], "{mode:?} {lacks:?}");
        }
    }
    let mut harness = Harness::new(&plan, Mode::Dark, json!({"body": {"items": [1]}}));
    harness.perform_due();
    let child = harness.children()[0];
    harness.child_ends_with(child, RunStatus::Failed, Value::Null, Some(FailureKind::Refused));
    let failure = harness.run.failure().expect("a run fails in dark, where nobody decides");
    assert_eq!(failure.kind, FailureKind::WouldPause);
    assert!(failure.message.contains("ended as failed"), "{failure:?}");
}

#[test]
fn a_child_without_effects_leaves_nothing_to_undo() {
    let plan = plan(
        "
workflow: w
steps:
  below: { run: sub }
  stop: { needs: [below], fail: { status: 402 } }
respond: { status: 200, body: 1 }
",
    );
    let shared = TreeEffects { shared: true, ..TreeEffects::default() };
    for (tree, left) in [(Some(TreeEffects::default()), 0), (Some(shared), 1), (None, 1)] {
        let mut harness = Harness::of_api(&plan);
        harness.perform_due();
        let child = harness.children()[0];
        let (status, output) = (RunStatus::Completed, Arc::new(json!(1)));
        harness
            .command(Command::ChildEnded {
                child,
                status,
                output,
                note: None,
                failure: None,
                tree,
                sensitive: Vec::new(),
            })
            .unwrap();
        harness.perform_due();
        assert_eq!((harness.status(), harness.run.undone().len()), (RunStatus::Completed, left));
    }
}

/// After a restore of the store, a child that is ending is paused in its parent's name. The parent, if it is ending
/// too, gives the child no command but the cancellation, which the child has already had: this has to lift the pause.
#[test]
fn a_parent_that_is_ending_lifts_its_pause_of_a_child_that_is_ending() {
    let plan = plan(
        "
workflow: w
steps:
  a: { call: 'POST ${services.stock}/a', undo: 'DELETE ${services.stock}/a' }
  b: { needs: [a], call: 'POST ${services.stock}/b', on_conflict: fail }
respond: { status: 200 }
",
    );
    let parent = RunId(uuid::Uuid::from_u128(9));
    let by = parent.to_string();
    let cancel = || ControlCommand::Cancel { compensate: true, reason: None, automatic: true };
    for was_cancelled in [true, false] {
        for pauser in [by.as_str(), "ann"] {
            let mut harness = Harness::started_with(&plan, |started| {
                started.route = None;
                started.parent = Some(Parent { run: parent, step: "sub".into(), item: None });
            });
            harness.perform_due();
            harness.replies("a", None, ok(json!({})));
            if was_cancelled {
                harness.give_command_by(&by, cancel()).unwrap();
            }
            harness.replies("b", None, status(409));
            assert_eq!(harness.in_flight_names(), ["undo a"]);
            harness.command(Command::PauseCopied { by: pauser.to_owned(), reason: "a copy".into() }).unwrap();
            let attempt = harness.run.in_flight()[0].attempt;
            let (step, item, part) = (plan.step(&"a".into()).unwrap().0, None, StepPart::Undo);
            let result = AttemptResult::NotSent("refused".into());
            let command = Command::Record { step, item, part, attempt, result, may_be_repeat: false, jitter: 0.5 };
            harness.command(command).unwrap();
            harness.advance_seconds(60);
            assert!(harness.in_flight_names().is_empty(), "the undos are held while the run is paused");
            let resumed = harness.give_command_by(&by, cancel());
            assert_eq!(resumed.is_ok(), pauser == by, "{resumed:?}");
            assert_eq!(harness.in_flight_names().len(), usize::from(pauser == by));
        }
    }
}

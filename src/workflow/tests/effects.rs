//! Which effects count as performed: all but those that were certainly not done.

use super::harness::{breaker_open, plan, timed_out};
use super::*;
use crate::workflow::{ChildEvent, EndingEvent, StepPart, TreeEffects};

const TWO: &str = "
workflow: w
steps:
  draft: { call: 'POST ${services.bank}/drafts', effect: private, retry: { attempts: 1 } }
  charge: { needs: [draft], call: 'POST ${services.bank}/charges', retry: { attempts: 1 } }
respond: { status: 200 }
";

/// Returns whether an effect counts as performed, whether a shared effect does, and whether legacy may still answer.
fn counts(harness: &mut Harness<'_>) -> (bool, bool, bool) {
    let (run, events) = (harness.run.clone(), harness.events.clone());
    let may_abandon = harness.command(Command::Abandon { reason: "x" }).is_ok();
    (harness.run, harness.events) = (run, events);
    (harness.run.effects_begun(), harness.run.shared_begun(), may_abandon)
}

#[test]
fn an_effect_that_was_certainly_not_done_does_not_count() {
    let plan = plan(TWO);
    for result in [status(429), AttemptResult::NotSent("x".into()), breaker_open(1_000)] {
        let mut harness = Harness::of_route(&plan);
        harness.settle();
        assert_eq!(counts(&mut harness), (true, false, false), "the attempt may be sent at any moment");
        let attempt = harness.run.attempt(&"draft".into(), None, StepPart::Do).unwrap().attempt;
        let index = plan.step(&"draft".into()).unwrap().0;
        let item = None;
        harness
            .command(Command::Record {
                step: index,
                item,
                part: StepPart::Do,
                attempt,
                result,
                may_be_repeat: false,
                jitter: 0.5,
            })
            .unwrap();
        assert_eq!(counts(&mut harness), (false, false, true));
        harness.settle();
        assert_eq!(harness.run.status(), RunStatus::Failed);
    }
}

#[test]
fn an_effect_that_was_or_may_have_been_done_counts() {
    let plan = plan(TWO);
    for result in [status(404), status(500), status(503), timed_out()] {
        let mut harness = Harness::of_route(&plan);
        harness.settle();
        harness.call("draft", ok(json!({})));
        assert_eq!(counts(&mut harness), (true, true, false));
        harness.call("charge", result);
        assert_eq!(counts(&mut harness), (true, true, false));
    }
    let mut harness = Harness::of_route(&plan);
    harness.settle();
    harness.call("draft", ok(json!({})));
    harness.call("charge", status(429));
    assert_eq!(
        (harness.run.effects_begun(), harness.run.shared_begun()),
        (true, false),
        "the draft was made, the charge was not"
    );
}

#[test]
fn the_effects_of_earlier_runs_of_the_job_count() {
    let plan = plan(TWO);
    let cases = [
        (None, (false, false, true)),
        (Some(EffectClass::Private), (true, false, false)),
        (Some(EffectClass::Shared), (true, true, false)),
    ];
    for (effects_before, expected) in cases {
        let mut harness = Harness::started_with(&plan, |started| started.effects_before = effects_before);
        assert_eq!(counts(&mut harness), expected);
        assert_eq!(harness.run.strongest_effect(), effects_before, "the next rerun is told of the same effect");
    }
}

const BELOW: &str = "
workflow: w
steps: { below: { run: sub } }
respond: { status: 200 }
";

#[test]
fn what_the_tree_of_a_child_did_counts_as_the_run_s_own() {
    let plan = plan(BELOW);
    let report = |private, shared| Some(TreeEffects { private, shared, ..TreeEffects::default() });
    let cases = [
        (report(false, false), (false, false, true)),
        (report(true, false), (true, false, false)),
        (report(false, true), (true, true, false)),
        (None, (true, true, false)),
    ];
    for status in [RunStatus::Completed, RunStatus::Failed, RunStatus::Cancelled] {
        for (tree, expected) in &cases {
            let mut harness = Harness::of_route(&plan);
            harness.settle();
            let child = harness.run.children().next().map(|child| child.run);
            let child = child.unwrap_or_else(|| {
                let (step, child) = (plan.step(&"below".into()).unwrap().0, RunId(uuid::Uuid::from_u128(7)));
                harness.command(Command::BeginChild { step, item: None, child }).unwrap();
                child
            });
            assert_eq!(counts(&mut harness), (true, true, false), "the child may perform an effect at any moment");
            let (output, note, tree, sensitive) = (Arc::default(), None, tree.clone(), Vec::new());
            harness
                .command(Command::ChildEnded { child, status, output, note, failure: None, tree, sensitive })
                .unwrap();
            assert_eq!(counts(&mut harness), *expected, "{status:?}");
            let TreeEffects { private, shared, .. } = harness.run.tree_effects();
            assert_eq!((private, shared), (expected.0 && !expected.1, expected.1));
        }
    }
}

#[test]
fn a_run_is_not_given_to_legacy_after_a_decision_against_an_effect_in_its_child() {
    let plan = plan(BELOW);
    for (status, decided_against) in [
        (RunStatus::Failed, false),
        (RunStatus::Failed, true),
        (RunStatus::Cancelled, false),
        (RunStatus::Cancelled, true),
        (RunStatus::Completed, true),
    ] {
        let mut harness = Harness::of_route(&plan);
        let child = RunId(uuid::Uuid::from_u128(7));
        let step = plan.step(&"below".into()).unwrap().0;
        harness.command(Command::BeginChild { step, item: None, child }).unwrap();
        let (output, note, sensitive) = (Arc::default(), None, Vec::new());
        let tree = Some(TreeEffects { decided_against, ..TreeEffects::default() });
        harness.command(Command::ChildEnded { child, status, output, note, failure: None, tree, sensitive }).unwrap();
        assert_eq!(harness.run.tree_effects().decided_against, decided_against);
        let abandoned = harness.command(Command::Abandon { reason: "x" });
        assert_eq!(abandoned.is_ok(), !decided_against, "{status:?}: {abandoned:?}");
    }
}

/// For earlier versions a child without a report had done nothing, so legacy may have been called after it.
#[test]
fn a_run_of_an_earlier_version_that_was_abandoned_after_its_child_can_be_read() {
    let plan = plan(BELOW);
    let mut harness = Harness::of_route(&plan);
    let child = RunId(uuid::Uuid::from_u128(7));
    let step = plan.step(&"below".into()).unwrap().0;
    harness.command(Command::BeginChild { step, item: None, child }).unwrap();
    let (status, output, note, sensitive) = (RunStatus::Failed, Arc::default(), None, Vec::new());
    let tree = Some(TreeEffects::default());
    harness.command(Command::ChildEnded { child, status, output, note, failure: None, tree, sensitive }).unwrap();
    harness.command(Command::Abandon { reason: "x" }).unwrap();
    let mut stored = serde_json::to_value(&harness.events).unwrap();
    for event in stored.as_array_mut().unwrap() {
        if let Some(ended) = event.get_mut("child_ended").and_then(Value::as_object_mut) {
            assert!(ended.remove("tree").is_some() && ended["effects"] == json!(false));
        }
    }
    let events: Vec<Event> = serde_json::from_value(stored).unwrap();
    let is_unreported =
        |event: &Event| matches!(event, Event::Child(ChildEvent::Ended { tree: None, effects: false, .. }));
    assert!(events.iter().any(is_unreported));
    assert!(matches!(events.last(), Some(Event::Ending(EndingEvent::Abandoned { .. }))));
    let run = fold(&events).unwrap();
    assert_eq!((run.status(), run.shared_begun()), (RunStatus::Abandoned, true));
}

#[test]
fn a_status_of_500_or_more_that_a_workflow_declares_is_a_failure() {
    let declares = |status: u16| {
        let plan =
            plan(&format!("{{ workflow: w, steps: {{ end: {{ fail: {{ status: {status} }} }} }}, respond: {{}} }}"));
        let mut harness = Harness::of_route(&plan);
        harness.settle();
        harness.run.status()
    };
    assert_eq!([declares(404), declares(422)], [RunStatus::Completed; 2]);
    assert_eq!([declares(500), declares(503)], [RunStatus::Failed; 2]);
}

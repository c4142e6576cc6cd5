//! Which effects count as performed: one that was certainly not done does not.

use super::harness::{lost, plan, shut};
use super::*;
use crate::workflow::Part;

const TWO: &str = "
workflow: w
steps:
  draft: { call: 'POST ${services.bank}/drafts', effect: private, retry: { attempts: 1 } }
  charge: { needs: [draft], call: 'POST ${services.bank}/charges', retry: { attempts: 1 } }
respond: { status: 200 }
";

/// Whether anything private or shared counts, whether anything shared does, and whether legacy may still answer.
fn counts(harness: &mut Harness<'_>) -> (bool, bool, bool) {
    let (run, events) = (harness.run.clone(), harness.events.clone());
    let given = harness.ask(Command::Abandon { reason: "x" }).is_ok();
    (harness.run, harness.events) = (run, events);
    (harness.run.effects_begun(), harness.run.shared_begun(), given)
}

#[test]
fn an_effect_that_was_certainly_not_done_does_not_count() {
    let plan = plan(TWO);
    for result in [status(429), AttemptResult::NotSent("x".into()), shut(1_000)] {
        let mut harness = Harness::of_route(&plan);
        harness.settle();
        assert_eq!(counts(&mut harness), (true, false, false), "it may leave at any moment");
        let attempt = harness.run.attempt(&"draft".into(), None, Part::Do).unwrap().attempt;
        let place = plan.step(&"draft".into()).unwrap().0;
        let item = None;
        harness
            .ask(Command::Record { step: place, item, part: Part::Do, attempt, result, again: false, jitter: 0.5 })
            .unwrap();
        assert_eq!(counts(&mut harness), (false, false, true));
        harness.settle();
        assert_eq!(harness.run.status(), RunStatus::Failed);
    }
}

#[test]
fn an_effect_that_was_or_may_have_been_done_counts() {
    let plan = plan(TWO);
    for result in [status(404), status(500), status(503), lost()] {
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
    assert_eq!((harness.run.effects_begun(), harness.run.shared_begun()), (true, false), "the draft was made");
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

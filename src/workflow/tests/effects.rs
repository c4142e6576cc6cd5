//! What a run may have done: what was certainly not done does not count.

use super::kit::{lost, plan, shut};
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
fn counts(bench: &mut Bench<'_>) -> (bool, bool, bool) {
    let (run, events) = (bench.run.clone(), bench.events.clone());
    let given = bench.ask(Command::Abandon { reason: "x" }).is_ok();
    (bench.run, bench.events) = (run, events);
    (bench.run.effects_begun(), bench.run.shared_begun(), given)
}

#[test]
fn what_was_certainly_not_done_does_not_count() {
    let plan = plan(TWO);
    for heard in [status(429), AttemptResult::NotSent("x".into()), shut(1_000)] {
        let mut bench = Bench::of_route(&plan);
        bench.settle();
        assert_eq!(counts(&mut bench), (true, false, false), "it may leave at any moment");
        let attempt = bench.run.attempt(&"draft".into(), None, Part::Do).unwrap().attempt;
        let place = plan.step(&"draft".into()).unwrap().0;
        let item = None;
        bench
            .ask(Command::Record { step: place, item, part: Part::Do, attempt, heard, again: false, jitter: 0.5 })
            .unwrap();
        assert_eq!(counts(&mut bench), (false, false, true));
        bench.settle();
        assert_eq!(bench.run.status(), RunStatus::Failed);
    }
}

#[test]
fn what_was_done_or_may_have_been_counts() {
    let plan = plan(TWO);
    for heard in [status(404), status(500), status(503), lost()] {
        let mut bench = Bench::of_route(&plan);
        bench.settle();
        bench.call("draft", ok(json!({})));
        assert_eq!(counts(&mut bench), (true, true, false));
        bench.call("charge", heard);
        assert_eq!(counts(&mut bench), (true, true, false));
    }
    let mut bench = Bench::of_route(&plan);
    bench.settle();
    bench.call("draft", ok(json!({})));
    bench.call("charge", status(429));
    assert_eq!((bench.run.effects_begun(), bench.run.shared_begun()), (true, false), "the draft was made");
}

#[test]
fn a_status_of_500_or_more_that_a_workflow_declares_is_a_failure() {
    let declares = |status: u16| {
        let plan =
            plan(&format!("{{ workflow: w, steps: {{ end: {{ fail: {{ status: {status} }} }} }}, respond: {{}} }}"));
        let mut bench = Bench::of_route(&plan);
        bench.settle();
        bench.run.status()
    };
    assert_eq!([declares(404), declares(422)], [RunStatus::Completed; 2]);
    assert_eq!([declares(500), declares(503)], [RunStatus::Failed; 2]);
}

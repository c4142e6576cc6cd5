//! Replays of runs against the plan that they were made with.

use super::harness::plan;
use super::*;
use crate::workflow::replay_with;

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
    assert_eq!(replay_with(&events, &plan, &harness.inputs).unwrap(), []);
}

//! Pending answers, and runs that pause or fail after them.

use super::harness::plan;
use super::*;

/// A pending answer that was given because of the conflict says that the outcome is unknown; one that was given before
/// tells nothing of it.
#[test]
fn a_run_that_pauses_or_fails_after_a_pending_answer_has_failed_after_its_answer() {
    let plan = plan(
        "{ workflow: w, steps: { a: { call: 'POST ${services.bank}/a' } }, respond: [{ pending: { status: 202 } }, { status: 200 }] }",
    );
    for answered_before in [true, false] {
        let mut harness = Harness::of_route(&plan);
        harness.settle();
        if answered_before {
            harness.command(Command::AnswerPending).unwrap();
            assert!(!harness.run.failed_after_answer());
        }
        harness.call("a", status(500));
        assert_eq!(harness.status(), RunStatus::Paused);
        if !answered_before {
            harness.command(Command::AnswerPending).unwrap();
        }
        assert_eq!(
            (harness.run.is_pending_in_conflict(), harness.run.failed_after_answer()),
            (!answered_before, answered_before)
        );
    }
    let mut harness = Harness::of_route(&plan);
    harness.settle();
    harness.command(Command::AnswerPending).unwrap();
    harness.call("a", status(404));
    assert_eq!((harness.status(), harness.run.failed_after_answer()), (RunStatus::Failed, true));
}

/// Also where the workflow declares an answer for its failure: the caller has got another one.
#[test]
fn a_failure_is_told_by_its_declared_answer_unless_a_pending_one_was_given() {
    let plan = plan(
        "{ workflow: w, steps: { a: { call: 'POST ${services.bank}/a' } }, respond: [{ pending: { status: 202 } }, { when: '${failed.status == 404}', status: 500 }, { status: 200 }] }",
    );
    for is_pending in [true, false] {
        let mut harness = Harness::of_route(&plan);
        harness.settle();
        if is_pending {
            harness.command(Command::AnswerPending).unwrap();
        }
        harness.call("a", status(404));
        assert_eq!((harness.status(), harness.run.failed_after_answer()), (RunStatus::Failed, is_pending));
    }
}

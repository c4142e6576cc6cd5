//! What a run says of steps that are not undone for certain: an undo that may have taken effect counts neither as
//! "undone" nor as "not undone", and no rerun relies on either; a call that was refused is named with its status.

use super::harness::{plan, take_output, timed_out};
use super::*;
use crate::workflow::{Choice, ConflictKind, ControlCommand, StepPart, UndoStatus, rerun};

const ORDER_PLAN: &str = "
workflow: w
steps:
  reserve: { call: 'POST ${services.stock}/reservations', undo: { call: 'METHOD ${services.bank}/reservations/1', retry: { attempts: 3, base: 10s, max: 10s } } }
  charge: { needs: [reserve], call: 'POST ${services.bank}/charges' }
respond: { status: 200 }
";

fn order_plan(method: &str) -> Plan {
    plan(&ORDER_PLAN.replace("METHOD", method))
}

/// Returns a run in which `charge` was refused and the undo of `reserve` is under way.
fn undoing(plan: &Plan) -> Harness<'_> {
    let mut harness = Harness::of_route(plan);
    harness.perform_due();
    harness.replies("reserve", None, ok(json!({})));
    harness.replies("charge", None, status(400));
    assert_eq!(harness.in_flight_names(), ["undo reserve"]);
    harness
}

/// Records how the undo's attempt ended, without advancing the clock.
fn undo_ends(harness: &mut Harness<'_>, result: AttemptResult) {
    let attempt = harness.run.attempt(&"reserve".into(), None, StepPart::Undo).unwrap().attempt;
    let step = harness.plan.step(&"reserve".into()).unwrap().0;
    let command =
        Command::Record { step, item: None, part: StepPart::Undo, attempt, result, may_be_repeat: false, jitter: 1.0 };
    harness.command(command).unwrap();
    harness.perform_due();
}

fn left(harness: &Harness<'_>) -> String {
    match harness.run.undone().as_slice() {
        [(_, None, UndoStatus::Left(why))] => why.clone(),
        other => panic!("{other:?}"),
    }
}

fn assert_unknown(harness: &Harness<'_>) {
    assert_eq!(harness.run.status(), harness.run.summary(harness.now).status);
    assert!(harness.run.is_final(), "{:?}", harness.run.note());
    assert!(left(harness).starts_with("whether it was undone is unknown"), "{}", left(harness));
    let note = harness.run.note().unwrap();
    assert!(note.contains("not undone: `reserve` (whether it was undone is unknown"), "{note}");
    let refused = rerun(&harness.run, harness.plan, &"charge".into()).unwrap_err().to_string();
    assert!(refused.contains("unknown whether what `reserve` did was undone"), "{refused}");
    assert!(
        rerun(&harness.run, harness.plan, &"reserve".into()).is_ok(),
        "a rerun from the step itself repeats it on purpose"
    );
}

fn assert_certain(harness: &Harness<'_>, why: &str) {
    assert!(harness.run.is_final() && left(harness).contains(why), "{}", left(harness));
    assert!(rerun(&harness.run, harness.plan, &"charge".into()).is_ok(), "the result of `reserve` is taken over");
}

#[test]
fn an_undo_that_waits_for_another_attempt_is_unknown_when_the_run_is_cancelled_without_undoing() {
    let plan = order_plan("DELETE");
    let mut harness = undoing(&plan);
    undo_ends(&mut harness, timed_out());
    assert_eq!(harness.status(), RunStatus::Compensating, "another attempt is to come");
    harness.cancel(false).unwrap();
    assert_unknown(&harness);

    let mut harness = undoing(&plan);
    undo_ends(&mut harness, status(429));
    harness.cancel(false).unwrap();
    assert_certain(&harness, "undoing was called off");
}

#[test]
fn an_undo_that_is_under_way_when_its_run_is_cancelled_without_undoing_asks_nobody() {
    let plan = order_plan("DELETE");
    for (result, unknown) in [(timed_out(), true), (status(400), false), (status(429), false)] {
        let mut harness = undoing(&plan);
        harness.cancel(false).unwrap();
        assert_eq!(harness.in_flight_names(), ["undo reserve"]);
        undo_ends(&mut harness, result);
        assert_eq!(harness.status(), RunStatus::Cancelled);
        match unknown {
            true => assert_unknown(&harness),
            false => assert_certain(&harness, "what `reserve` did could not be undone"),
        }
    }
    let mut harness = undoing(&plan);
    harness.cancel(false).unwrap();
    undo_ends(&mut harness, ok(json!({})));
    assert!(matches!(harness.run.undone().as_slice(), [(_, None, UndoStatus::Undone)]));
    assert_eq!(harness.status(), RunStatus::Cancelled);
}

#[test]
fn an_undo_that_a_person_leaves_although_it_may_have_taken_effect_is_unknown() {
    let plan = order_plan("POST");
    for leaves in [true, false] {
        let mut harness = undoing(&plan);
        undo_ends(&mut harness, timed_out());
        assert_eq!(harness.run.conflict().map(|open| open.kind), Some(ConflictKind::UndoUnknown));
        match leaves {
            true => harness.choose("reserve", None, Choice::Skip).unwrap(),
            false => harness.cancel(false).unwrap(),
        };
        assert_unknown(&harness);
    }
    let mut harness = undoing(&plan);
    undo_ends(&mut harness, timed_out());
    harness.choose("reserve", None, take_output(json!(null))).unwrap();
    assert!(matches!(harness.run.undone().as_slice(), [(_, None, UndoStatus::Undone)]));
}

/// The first attempt may have undone the step. Before the second attempt the service was removed from the files.
#[test]
fn an_undo_that_may_have_taken_effect_stays_unknown_while_its_service_is_missing() {
    let plan = order_plan("DELETE");
    for leaves in [true, false] {
        let mut harness = undoing(&plan);
        undo_ends(&mut harness, timed_out());
        Arc::make_mut(&mut harness.inputs.services).as_object_mut().unwrap().remove("bank");
        harness.advance_seconds(10);
        assert_eq!(harness.run.conflict().map(|open| open.kind), Some(ConflictKind::Missing));
        match leaves {
            true => harness.choose("reserve", None, Choice::Skip).unwrap(),
            false => harness.cancel(false).unwrap(),
        };
        assert_unknown(&harness);
    }
}

#[test]
fn a_retry_starts_the_next_attempt_of_an_undo_at_once() {
    let plan = order_plan("DELETE");
    let mut harness = undoing(&plan);
    undo_ends(&mut harness, status(429));
    assert!(harness.in_flight_names().is_empty(), "the next attempt waits for 10 s");
    harness.give_command_by("ann", ControlCommand::Retry { step: None, attempt: None }).unwrap();
    assert_eq!(harness.in_flight_names(), ["undo reserve"]);
    undo_ends(&mut harness, ok(json!({})));
    assert_eq!(harness.status(), RunStatus::Failed);
    assert!(matches!(harness.run.undone().as_slice(), [(_, None, UndoStatus::Undone)]));
}

/// The run has no conflict that a person could decide instead.
#[test]
fn a_rerun_of_a_run_that_is_ending_and_paused_by_a_command_asks_for_its_resume() {
    let plan = order_plan("DELETE");
    let mut harness = Harness::of_route(&plan);
    harness.perform_due();
    harness.replies("reserve", None, ok(json!({})));
    harness.give_command_by("ann", ControlCommand::Pause { reason: None }).unwrap();
    harness.replies("charge", None, status(400));
    assert!(harness.run.is_ending() && harness.status() == RunStatus::Paused);
    let refused = rerun(&harness.run, &plan, &"charge".into()).unwrap_err().to_string();
    assert!(refused.contains("resume it first"), "{refused}");
}

/// Neither result can be taken over, so a rerun from one of the steps performs both.
#[test]
fn a_rerun_from_one_of_two_steps_with_unknown_undos_performs_both_again() {
    let plan = plan(
        "
workflow: w
steps:
  reserve: { call: 'POST ${services.stock}/reservations', undo: 'POST ${services.bank}/reserved' }
  rent: { call: 'POST ${services.stock}/rents', undo: 'POST ${services.bank}/rented' }
  charge: { needs: [reserve, rent], call: 'POST ${services.bank}/charges' }
respond: { status: 200 }
",
    );
    let mut harness = Harness::of_route(&plan);
    harness.perform_due();
    for step in ["reserve", "rent"] {
        harness.replies(step, None, ok(json!({})));
    }
    harness.replies("charge", None, status(400));
    for _ in 0..2 {
        let attempt = harness.run.in_flight()[0].clone();
        let (step, _) = plan.step(&attempt.step).unwrap();
        let (part, attempt_number, result) = (StepPart::Undo, attempt.attempt, timed_out());
        let attempt_ends = Command::Record {
            step,
            item: None,
            part,
            attempt: attempt_number,
            result,
            may_be_repeat: false,
            jitter: 1.0,
        };
        harness.command(attempt_ends).unwrap();
        harness.perform_due();
        harness.choose(attempt.step.as_str(), None, Choice::Skip).unwrap();
        harness.perform_due();
    }
    assert!(harness.run.is_final(), "{:?}", harness.kinds());
    let refused = rerun(&harness.run, &plan, &"charge".into()).unwrap_err().to_string();
    assert!(refused.contains("every step whose undo has an unknown outcome runs again"), "{refused}");
    for from in ["reserve", "rent"] {
        let events = rerun(&harness.run, &plan, &from.into()).unwrap();
        assert!(!format!("{events:?}").contains("ResultTaken"), "{from}: {events:?}");
    }
}

#[test]
fn the_note_gives_the_status_of_a_call_that_was_refused() {
    let plan = plan(
        "
workflow: w
steps:
  charge: { call: 'POST ${services.bank}/charges', accept: [2xx, 402] }
  declined: { if: '${!has(steps.charge.output.id)}', fail: { status: 402, body: { error: declined } } }
respond: { status: 201, body: '${steps.charge.output.id}' }
",
    );
    let mut harness = Harness::of_route(&plan);
    harness.settle();
    let declined = json!({"error": "declined"});
    harness.call(
        "charge",
        AttemptResult::Reply {
            status: 402,
            headers: BTreeMap::new(),
            output: Arc::new(declined),
            retry_after_ms: None,
        },
    );
    assert_eq!(harness.run.status(), RunStatus::Completed);
    let note = harness.run.note().unwrap();
    assert!(note.ends_with("not undone: `charge` (its reply was 402)"), "{note}");
}

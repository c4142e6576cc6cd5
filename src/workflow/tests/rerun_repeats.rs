//! A rerun repeats an effect that was done and is not undone only if a person asks for the repeat.

use super::harness::plan;
use super::rerun_decisions::successor;
use super::*;
use crate::workflow::{Choice, ConflictKind, ControlCommand, StepEvent, StepPart, rerun};

const ITEMS: &str = "
workflow: w
steps:
  charge: { for_each: '${request.body.items}', concurrency: 1, call: 'POST ${services.stock}/charges' }
  mail: { call: 'POST ${services.stock}/mails' }
respond: { status: 200 }
";

/// Returns the reason for which a rerun is refused.
fn refusal(harness: &Harness<'_>, from: &str) -> String {
    rerun(&harness.run, harness.plan, &from.into()).expect_err("the rerun would repeat an effect").to_string()
}

#[test]
fn items_that_were_done_are_repeated_only_from_their_step() {
    let plan = plan(ITEMS);
    let mut harness = Harness::of_api(&plan);
    harness.settle();
    harness.item("charge", 0, ok(json!({})));
    harness.call("mail", status(400));
    harness.item("charge", 1, ok(json!({})));
    assert_eq!(harness.status(), RunStatus::Failed);
    let why = refusal(&harness, "mail");
    assert!(why.contains("`charge[0]` was done and is not undone") && why.contains("begin at `charge`"), "{why}");
    assert!(rerun(&harness.run, &plan, &"charge".into()).is_ok(), "a rerun from the step itself repeats it on purpose");
}

/// The fallback ran only for the item that was not done. A rerun from the fallback would repeat the other items, too.
#[test]
fn items_that_were_done_are_not_repeated_with_the_fallback_of_another_item() {
    let fallback = "/charges', retry: { attempts: 1 }, fallback: invoice }\n  invoice: { fallback_only: true, call: 'POST ${services.stock}/invoices' }";
    let plan = plan(&ITEMS.replace("/charges' }", fallback));
    let mut harness = Harness::of_api(&plan);
    harness.settle();
    harness.call("mail", ok(json!({})));
    harness.item("charge", 0, ok(json!({})));
    harness.item("charge", 1, status(429));
    harness.item("invoice", 1, status(400));
    assert_eq!(harness.status(), RunStatus::Failed);
    let why = refusal(&harness, "invoice");
    assert!(why.contains("`charge[0]` was done and is not undone") && why.contains("begin at `charge`"), "{why}");
    assert!(rerun(&harness.run, &plan, &"charge".into()).is_ok(), "a rerun from the step itself repeats it on purpose");

    // The step has ended, with the result of the fallback for one item.
    let mut harness = Harness::of_api(&plan);
    harness.settle();
    harness.call("mail", ok(json!({})));
    harness.item("charge", 0, ok(json!({})));
    harness.item("charge", 1, status(429));
    harness.item("invoice", 1, ok(json!({})));
    harness.item("charge", 2, ok(json!({})));
    assert_eq!(harness.status(), RunStatus::Completed);
    let why = refusal(&harness, "invoice");
    assert!(why.contains("`charge[0]` was done and is not undone"), "{why}");
}

/// The fallback needs the step at which the rerun begins, but the charge did not need the fallback.
#[test]
fn a_step_is_not_repeated_because_of_a_fallback_that_was_not_taken() {
    let plan = plan(
        "
workflow: w
steps:
  address: { call: 'GET ${services.stock}/address' }
  charge: { call: 'POST ${services.bank}/charges', retry: { attempts: 1 }, fallback: invoice }
  invoice: { fallback_only: true, call: 'POST ${services.bank}/invoices', body: { to: '${steps.address.output}' } }
  ship: { needs: [charge, address], call: 'POST ${services.stock}/ship', body: { to: '${steps.address.output}' } }
respond: { status: 200 }
",
    );
    let run_with = |charged: AttemptResult| {
        let mut harness = Harness::of_api(&plan);
        harness.settle();
        harness.call("address", ok(json!("a")));
        let replaced = charged != ok(json!({}));
        harness.call("charge", charged);
        if replaced {
            harness.call("invoice", ok(json!({})));
        }
        harness.call("ship", status(400));
        assert_eq!(harness.status(), RunStatus::Failed);
        harness
    };
    let taken_over = |harness: &Harness<'_>| {
        let events = rerun(&harness.run, &plan, &"address".into()).unwrap();
        let taken = events.into_iter().filter_map(|event| match event {
            Event::Step(StepEvent::ResultTaken(taken)) => Some(taken.step.as_str().to_owned()),
            _ => None,
        });
        taken.collect::<Vec<_>>()
    };
    assert_eq!(taken_over(&run_with(ok(json!({})))), ["charge"]);
    assert!(taken_over(&run_with(status(429))).is_empty(), "the result is that of the fallback, which runs again");
}

#[test]
fn items_whose_undo_was_left_are_repeated_only_from_their_step() {
    let undo = "/charges', undo: 'DELETE ${services.bank}/charges/${output.id}' }";
    let plan = plan(
        &ITEMS
            .replace("/charges' }", undo)
            .replace("call: 'POST ${services.stock}/mails'", "needs: [charge], call: 'POST ${services.stock}/mails'"),
    );
    let run_with = |leaves_one: bool| {
        let mut harness = Harness::of_api(&plan);
        harness.settle();
        (0..3).for_each(|item| harness.item("charge", item, ok(json!({ "id": item }))));
        harness.call("mail", status(400));
        for item in [2, 1, 0] {
            let reply = if leaves_one && item == 2 { status(400) } else { ok(json!({})) };
            harness.record_result("charge", Some(item), StepPart::Undo, reply);
            if leaves_one && item == 2 {
                harness.choose("charge", Some(item), Choice::Skip).unwrap();
            }
        }
        assert_eq!(harness.status(), RunStatus::Failed);
        harness
    };
    let why = refusal(&run_with(true), "mail");
    assert!(why.contains("`charge[2]` was done and is not undone"), "{why}");
    assert!(rerun(&run_with(true).run, &plan, &"charge".into()).is_ok());
    let undone = rerun(&run_with(false).run, &plan, &"mail".into()).unwrap();
    assert_eq!(undone, [], "the results that were undone are not taken over");
}

#[test]
fn a_call_that_needs_an_undone_step_is_repeated_only_if_asked_for() {
    let plan = plan(
        "
workflow: w
steps:
  reserve: { call: 'POST ${services.stock}/r', undo: 'DELETE ${services.stock}/r' }
  charge: { needs: [reserve], call: 'POST ${services.stock}/c' }
  ship: { needs: [charge], call: 'POST ${services.stock}/s' }
respond: { status: 200 }
",
    );
    let mut harness = Harness::of_api(&plan);
    harness.settle();
    harness.call("reserve", ok(json!({})));
    harness.call("charge", ok(json!({})));
    harness.call("ship", status(400));
    harness.undo("reserve", ok(json!({})));
    assert_eq!(harness.status(), RunStatus::Failed);
    let why = refusal(&harness, "ship");
    assert!(why.contains("`charge` was done and is not undone"), "{why}");
    for from in ["charge", "reserve"] {
        assert!(rerun(&harness.run, &plan, &from.into()).is_ok(), "a step that depends on `{from}` runs again with it");
    }
}

#[test]
fn a_call_whose_output_did_not_fit_is_repeated_only_from_its_step() {
    let plan = plan(
        "
workflow: w
steps:
  charge: { call: 'POST ${services.stock}/c', output: { schema: { required: [id] } } }
  look: { call: 'GET ${services.stock}/l', output: { schema: { required: [id] } } }
  mail: { call: 'POST ${services.stock}/m' }
respond: { status: 200 }
",
    );
    for is_cancelled in [false, true] {
        let mut harness = Harness::of_api(&plan);
        harness.settle();
        harness.call("look", ok(json!({})));
        harness.call("charge", ok(json!({ "other": 1 })));
        harness.call("mail", status(409));
        assert_eq!(harness.run.conflict_over(&"charge".into(), None).unwrap().kind, ConflictKind::Schema);
        if is_cancelled {
            harness.give_command(ControlCommand::Cancel { compensate: true, reason: None, automatic: false }).unwrap();
        }
        let why = refusal(&harness, "mail");
        assert!(why.contains("`charge` was done and is not undone"), "{why}");
        assert!(rerun(&harness.run, &plan, &"charge".into()).is_ok(), "a read may be repeated");
    }
}

/// Items and steps that overlapped are undone at the same time, both by the run that performed them and by reruns that
/// took their results over.
#[test]
fn what_a_rerun_took_over_is_undone_in_the_groups_of_the_run_that_did_it() {
    let plan = plan(
        "
workflow: w
steps:
  hold: { call: 'POST ${services.stock}/holds', undo: 'DELETE ${services.stock}/holds' }
  seats:
    needs: [hold]
    for_each: ${request.body.items}
    concurrency: 3
    call: POST ${services.stock}/seats
    undo: DELETE ${services.stock}/seats/${index}
  hotel: { needs: [hold], call: 'POST ${services.stock}/hotels', undo: 'DELETE ${services.stock}/hotels' }
  pay: { needs: [seats, hotel], call: 'POST ${services.stock}/pays', undo: 'DELETE ${services.stock}/pays' }
  mail: { needs: [pay], call: 'POST ${services.stock}/mails' }
respond: { status: 200 }
",
    );
    for reruns in 0..3 {
        let mut harness = Harness::of_api(&plan);
        harness.settle();
        harness.call("hold", ok(json!({})));
        (0..3).for_each(|item| harness.item("seats", item, ok(json!({}))));
        harness.call("hotel", ok(json!({})));
        harness.call("pay", ok(json!({})));
        harness.call("mail", status(409));
        for _ in 0..reruns {
            harness = successor(&harness, "mail");
            harness.call("mail", status(409));
        }
        harness.cancel(true).unwrap();
        let mut groups = Vec::new();
        while harness.status() == RunStatus::Compensating {
            groups.push(harness.in_flight_names());
            for undo in harness.run.in_flight() {
                harness.record_result(undo.step.as_str(), undo.item, StepPart::Undo, ok(json!({})));
            }
        }
        let together = ["undo hotel", "undo seats[0]", "undo seats[1]", "undo seats[2]"];
        assert_eq!(groups, [&["undo pay"][..], &together, &["undo hold"]], "after {reruns} reruns");
    }
}

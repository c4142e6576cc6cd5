//! People are asked about the items of a step that are left: after a decision about a missing service, and when the
//! service has moved.

use super::approvals::{choose, of_items, payments, payments_one_by_one};
use super::harness::{plan, take_output};
use super::people_harness::{no, review, yes};
use super::*;
use crate::workflow::{Choice, Skipped, StepEvent};

/// A person chose the fallback for the first item, and the decision about the other items then ends the step as a
/// whole. The fallback ends with the step, and the run ends, too.
#[test]
fn a_decision_about_the_items_that_are_left_ends_the_fallback_of_an_item() {
    let fallback = "fallback: note\n  note:\n    fallback_only: true\n    call: POST ${services.stock}/notes";
    for (concurrency, decision) in
        [1, 2].into_iter().flat_map(|at_once| ["struck", "skipped", "taken"].map(|d| (at_once, d)))
    {
        let risk = match decision {
            "struck" => "risk: high",
            "skipped" => "risk: high\n    on_reject: skip",
            _ => "risk: '${item.level}'",
        };
        let yaml = payments_one_by_one(&format!("{risk}\n    {fallback}"), "");
        let plan = plan(&yaml.replace("concurrency: 1", &format!("concurrency: {concurrency}")));
        let mut harness = of_items(&plan, json!([1, 2, 3]));
        let all = harness.inputs.services.clone();
        Arc::make_mut(&mut harness.inputs.services).as_object_mut().unwrap().remove("bank");
        harness.perform_due();
        choose(&mut harness, Some(0), Choice::Fallback);
        // One at a time, the fallback ends before the next item is due; two at a time, the fallback is still under way.
        if concurrency == 1 {
            harness.replies("note", Some(0), ok(json!({})));
        }
        harness.inputs.services = all;
        harness.perform_due();
        if concurrency == 2 {
            let is_asked = harness.run.open_checkpoints().next().is_some() || harness.run.conflict().is_some();
            assert_eq!((is_asked, harness.in_flight_names()), (false, vec!["note[0]".to_owned()]), "{decision}");
            harness.replies("note", Some(0), ok(json!({})));
        }
        match decision {
            "struck" => drop(harness.answers("alice", review(&[], &[1, 2])).unwrap()),
            "skipped" => drop(harness.answers("alice", no()).unwrap()),
            _ => choose(&mut harness, None, take_output(json!([7, 8, 9]))),
        }
        let ended = ["pay", "note"].map(|step| harness.run.has_ended(&step.into()));
        assert_eq!(
            (harness.status(), ended),
            (RunStatus::Completed, [true, true]),
            "{decision}, {concurrency} at a time"
        );
    }
}

/// Gives the service `bank` this address, as a reload of the files does.
fn move_bank(harness: &mut Harness<'_>, url: &str) {
    Arc::make_mut(&mut harness.inputs.services)["bank"] = json!(url);
    harness.perform_due();
}

fn urls(harness: &Harness<'_>) -> Vec<String> {
    let urls = harness.events.iter().filter_map(|event| match event {
        Event::StepStarted(started) => Some(started.request.as_ref()?.url.clone()),
        _ => None,
    });
    urls.collect()
}

#[test]
fn an_approved_call_whose_service_has_moved_is_asked_about_again() {
    let plan = plan(
        "
workflow: w
steps: { pay: { call: 'POST ${services.bank}/pay', body: { amount: 1 }, risk: medium } }
respond: { status: 200 }
",
    );
    let mut harness = Harness::of_api(&plan);
    move_bank(&mut harness, "http://sandbox");
    assert!(harness.open_checkpoint().question.contains("POST http://sandbox/pay"));
    move_bank(&mut harness, "http://bank");
    harness.answers("alice", yes()).unwrap();
    assert!(urls(&harness).is_empty(), "nobody has approved a call to the new address");
    assert!(harness.open_checkpoint().question.contains("POST http://bank/pay"));
    harness.answers("alice", yes()).unwrap();
    assert_eq!(urls(&harness), ["http://bank/pay"]);
}

#[test]
fn items_that_were_approved_are_asked_about_again_when_their_service_has_moved() {
    let plan = payments("risk: high", "");
    let moved = || {
        let mut harness = of_items(&plan, json!([1, 2, 3, 4]));
        harness.perform_due();
        harness.answers("alice", review(&[0, 1, 3], &[2])).unwrap();
        move_bank(&mut harness, "http://other");
        harness.replies("pay", Some(0), ok(json!("paid")));
        assert!(harness.run.open_checkpoints().next().is_none(), "nobody is asked while another item is under way");
        harness.replies("pay", Some(1), ok(json!("paid")));
        let shown: Vec<_> =
            harness.open_checkpoint().items.iter().map(|item| (item.index, item.what.clone())).collect();
        assert_eq!(shown, [(3, "POST http://other/pay".to_owned())]);
        harness
    };
    let struck = |harness: &Harness<'_>| harness.run.answer().map(|answer| answer.body.value());
    let mut approved = moved();
    approved.answers("alice", review(&[3], &[])).unwrap();
    assert_eq!(urls(&approved), ["/pay", "/pay", "http://other/pay"]);
    approved.replies("pay", Some(3), ok(json!("paid")));
    assert_eq!((approved.status(), struck(&approved)), (RunStatus::Completed, Some(json!(1))));
    let mut rejected = moved();
    rejected.answers("alice", review(&[], &[3])).unwrap();
    assert_eq!((rejected.status(), struck(&rejected)), (RunStatus::Completed, Some(json!(2))));
    assert_eq!(
        rejected.output("pay")["output"],
        json!(["paid", "paid", null, null]),
        "results of items that were done stay"
    );
    let mut failed = moved();
    failed.answers("alice", no()).unwrap();
    assert_eq!((failed.status(), urls(&failed).len()), (RunStatus::Failed, 2));
}

/// The events are of earlier versions, in which the other items were rejected as a whole.
#[test]
fn a_fallback_of_an_item_does_not_outlive_its_step() {
    let fallback =
        "risk: high\n    fallback: note\n  note:\n    fallback_only: true\n    call: POST ${services.stock}/notes";
    let plan = payments(fallback, "");
    for is_under_way in [true, false] {
        let mut harness = of_items(&plan, json!([1, 2]));
        let all = harness.inputs.services.clone();
        Arc::make_mut(&mut harness.inputs.services).as_object_mut().unwrap().remove("bank");
        harness.perform_due();
        choose(&mut harness, Some(0), Choice::Fallback);
        harness.inputs.services = all;
        harness.perform_due();
        assert_eq!(harness.in_flight_names(), ["note[0]"]);
        if !is_under_way {
            harness.replies("note", Some(0), ok(json!({})));
        }
        let rejected = Event::Step(StepEvent::Skipped { step: "pay".into(), item: None, reason: Skipped::Rejected });
        harness.run.evolve_in_place(&rejected).unwrap();
        harness.events.push(rejected);
        match is_under_way {
            true => harness.replies("note", Some(0), ok(json!({}))),
            false => harness.perform_due(),
        }
        assert_eq!((harness.status(), harness.run.has_ended(&"note".into())), (RunStatus::Completed, true));
    }
}

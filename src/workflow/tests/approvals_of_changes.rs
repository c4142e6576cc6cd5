//! After an approval, another input needs an approval of at least the same risk, even in reruns.

use super::approvals::{choose, of_items, payments};
use super::harness::plan;
use super::people_harness::{no, review, yes};
use super::rerun_decisions::successor;
use super::*;
use crate::workflow::{CheckpointKind, Choice, ControlCommand, OpenCheckpoint, Risk};

fn adjust(step: &str, item: Option<u32>, input: Value) -> ControlCommand {
    ControlCommand::Adjust { step: step.into(), item, input: Arc::new(input), reason: None }
}

fn retry_with(input: Value) -> Choice {
    Choice::RetryWith { input: Arc::new(input) }
}

fn risk_and_people(asked: &OpenCheckpoint) -> (Risk, Vec<&str>) {
    (asked.risk, asked.who.iter().map(String::as_str).collect())
}

/// The input that the rerun takes over has too few items for the policy, which alone would ask nobody.
#[test]
fn a_rerun_asks_about_an_input_that_it_takes_over_at_no_lower_risk() {
    let plan = plan(
        "
workflow: w
risks: [{ effect: shared, items_over: 2, risk: high }]
steps:
  refund:
    call: POST ${services.bank}/refunds
    body: { charges: '${request.body.items}' }
    ask: { who: [alice] }
respond: { status: 200 }
",
    );
    for refused in [false, true] {
        let mut harness = Harness::of_api(&plan);
        harness.perform_due();
        harness.give_command_by("bob", adjust("refund", None, json!({"charges": [1_000_000]}))).unwrap();
        assert_eq!(risk_and_people(&harness.open_checkpoint()), (Risk::High, vec!["alice"]));
        if refused {
            harness.answers("alice", no()).unwrap();
            assert_eq!(harness.status(), RunStatus::Failed);
        } else {
            harness.give_command_by("bob", ControlCommand::Pause { reason: None }).unwrap();
        }
        let harness = successor(&harness, "refund");
        let asked = harness.open_checkpoint();
        assert_eq!((risk_and_people(&asked), harness.sent.len()), ((Risk::High, vec!["alice"]), 0));
        let mut last = harness;
        last.give_command_by("bob", ControlCommand::Pause { reason: None }).unwrap();
        let mut last = successor(&last, "refund");
        assert_eq!(last.open_checkpoint().kind, CheckpointKind::Review, "a later rerun asks, too");
        last.give_command_by("bob", adjust("refund", None, json!({"charges": [2]}))).unwrap();
        assert_eq!(
            risk_and_people(&last.open_checkpoint()),
            (Risk::High, vec!["alice"]),
            "a rerun with another input asks, too"
        );
        last.answers("alice", review(&[0], &[])).unwrap();
        assert_eq!(last.sent_bodies(), [json!({"charges": [2]})]);
    }
}

/// The risk's expression reads the request, not the input that a person gives the step.
#[test]
fn an_input_that_a_computed_risk_does_not_read_is_asked_about() {
    let with_amount = |amount: u32| {
        move |started: &mut RunStarted| {
            (started.route, started.request) = (None, Arc::new(json!({"body": {"amount": amount}})));
        }
    };
    let plan = plan(
        "
workflow: w
steps:
  first: { call: 'GET ${services.bank}/first' }
  pay:
    needs: [first]
    call: POST ${services.bank}/pay
    body: { amount: '${request.body.amount}' }
    risk: '${request.body.amount > 10000 ? \"high\" : \"low\"}'
    ask: { who: [alice] }
respond: { status: 200 }
",
    );
    for (amount, risk) in [(50, Risk::Medium), (20_000, Risk::High)] {
        let mut harness = Harness::started_with(&plan, with_amount(amount));
        harness.perform_due();
        harness.give_command_by("bob", adjust("pay", None, json!({"amount": 1_000_000}))).unwrap();
        harness.replies("first", None, ok(json!({})));
        let asked = harness.open_checkpoint();
        assert_eq!((risk_and_people(&asked), harness.sent_bodies().len()), ((risk, vec!["alice"]), 1));
    }
    let mut harness = Harness::started_with(&plan, with_amount(50));
    harness.perform_due();
    harness.replies("first", None, ok(json!({})));
    harness.replies("pay", None, status(409));
    choose(&mut harness, None, retry_with(json!({"amount": 2_000_000})));
    assert_eq!((harness.open_checkpoint().risk, harness.in_flight_names().len()), (Risk::Medium, 0));
    harness.answers("alice", yes()).unwrap();
    assert_eq!(harness.sent_bodies().last(), Some(&json!({"amount": 2_000_000})));
}

#[test]
fn an_input_of_an_item_that_a_computed_risk_does_not_read_is_asked_about() {
    let plan = payments("risk: '${item > 10 ? \"high\" : \"low\"}'", "");
    let mut harness = of_items(&plan, json!([1, 2, 3]));
    harness.perform_due();
    harness.give_command_by("bob", adjust("pay", Some(2), json!({"amount": 1_000_000}))).unwrap();
    harness.replies("pay", Some(0), ok(json!({})));
    let asked = harness.open_checkpoint();
    assert_eq!((asked.item, risk_and_people(&asked)), (Some(2), (Risk::Medium, vec!["alice"])));
    harness.replies("pay", Some(1), status(409));
    choose(&mut harness, Some(1), retry_with(json!({"amount": 5_000})));
    assert_eq!(harness.run.open_checkpoints().filter(|asked| asked.risk == Risk::Medium).count(), 2);
    assert!(harness.in_flight_names().is_empty());
}

//! An approval of all items of a step holds for these items only: neither another input nor a decision about a missing
//! service lets an item begin without approval.

use super::harness::{plan, take_output};
use super::people_harness::{no, review, yes};
use super::*;
use crate::workflow::{CheckpointKind, Choice, ConflictKind, ControlCommand, Risk, StepPart};

fn retry_with(input: Value) -> Choice {
    Choice::RetryWith { input: Arc::new(input) }
}

/// A workflow that pays each item, with this risk. Only alice is asked for approval; anybody may resolve conflicts.
pub(super) fn payments(risk: &str, top: &str) -> Plan {
    plan(&payments_one_by_one(risk, top).replace("concurrency: 1", "concurrency: 2"))
}

pub(super) fn payments_one_by_one(risk: &str, top: &str) -> String {
    format!(
        "
workflow: w
{top}
steps:
  pay:
    for_each: ${{request.body.items}}
    concurrency: 1
    call: POST ${{services.bank}}/pay
    body: {{ amount: '${{item}}' }}
    ask: {{ who: [alice] }}
    {risk}
respond: {{ status: 200, body: '${{default(steps.pay.struck, 0)}}' }}
"
    )
}

pub(super) fn of_items(plan: &Plan, items: Value) -> Harness<'_> {
    Harness::started_with(plan, |started| {
        (started.route, started.request) = (None, Arc::new(json!({"body": {"items": items}})));
    })
}

pub(super) fn choose(harness: &mut Harness<'_>, item: Option<u32>, choice: Choice) {
    let resolve = ControlCommand::Resolve { step: "pay".into(), item, attempt: None, choice, reason: None };
    harness.give_command_by("bob", resolve).unwrap();
}

#[test]
fn another_input_of_one_item_is_asked_about_at_the_risk_of_all_items() {
    let computed = payments("risk: '${item > 10 ? \"medium\" : \"low\"}'", "");
    let by_number = payments("", "risks: [{ effect: shared, items_over: 1, risk: medium }]");
    for plan in [&computed, &by_number] {
        let mut harness = of_items(plan, json!([1, 20]));
        harness.perform_due();
        harness.answers("alice", yes()).unwrap();
        harness.replies("pay", Some(0), status(409));
        choose(&mut harness, Some(0), retry_with(json!({"amount": 1_000_000})));
        assert!(!harness.in_flight_names().contains(&"pay[0]".to_owned()), "nobody has approved the other input");
        let asked = harness.open_checkpoint();
        assert_eq!((asked.item, asked.risk, asked.who), (Some(0), Risk::Medium, vec!["alice".to_owned()]));
        harness.answers("alice", yes()).unwrap();
        assert!(harness.in_flight_names().contains(&"pay[0]".to_owned()));
        assert_eq!(harness.sent_bodies().last(), Some(&json!({"amount": 1_000_000})));
    }
}

#[test]
fn an_adjusted_item_is_asked_about_at_the_risk_of_all_items() {
    let plan = payments("risk: '${item > 10 ? \"high\" : \"low\"}'", "");
    let mut harness = of_items(&plan, json!([20, 1, 2]));
    harness.perform_due();
    harness.answers("alice", review(&[0, 1, 2], &[])).unwrap();
    let adjust = ControlCommand::Adjust {
        step: "pay".into(),
        item: Some(2),
        input: Arc::new(json!({"amount": 9})),
        reason: None,
    };
    harness.give_command_by("bob", adjust).unwrap();
    let begun = |harness: &Harness<'_>| harness.sent.iter().any(|(_, item, ..)| *item == Some(2));
    harness.replies("pay", Some(0), ok(json!({})));
    harness.replies("pay", Some(1), ok(json!({})));
    assert_eq!((begun(&harness), harness.open_checkpoint().kind), (false, CheckpointKind::Review));
    harness.answers("alice", review(&[0], &[])).unwrap();
    assert!(begun(&harness));
}

/// Nobody was asked about the items, because their risk was low: a risk that does not depend on the input holds for
/// another input, too.
#[test]
fn another_input_of_an_item_of_low_risk_asks_nobody() {
    for (risk, top) in [("risk: low", ""), ("", "risks: [{ effect: shared, items_over: 1, risk: medium }]")] {
        let plan = payments(risk, top);
        let mut harness = of_items(&plan, json!([1]));
        harness.perform_due();
        harness.replies("pay", Some(0), status(409));
        choose(&mut harness, Some(0), retry_with(json!({"amount": 2})));
        assert_eq!(harness.in_flight_names(), ["pay[0]"]);
    }
}

/// With the other input the list in the body is so short that the risk is low. People are asked again nevertheless,
/// because they were asked about the first input.
#[test]
fn another_input_of_a_call_that_was_asked_about_is_asked_about_again() {
    let plan = plan(
        "
workflow: w
risks: [{ items_over: 2, risk: high }]
steps: { pay: { call: 'POST ${services.bank}/pay', body: { all: '${request.body.items}' } } }
respond: { status: 200 }
",
    );
    let mut harness = Harness::of_api(&plan);
    harness.perform_due();
    harness.answers("alice", review(&[0, 1, 2], &[])).unwrap();
    harness.replies("pay", None, status(409));
    choose(&mut harness, None, retry_with(json!({"all": [9]})));
    let asked = harness.open_checkpoint();
    assert_eq!((asked.kind, asked.items.len(), harness.in_flight_names().len()), (CheckpointKind::Review, 1, 0));
    harness.answers("alice", review(&[0], &[])).unwrap();
    assert_eq!(harness.sent_bodies().last(), Some(&json!({"all": [9]})));
}

/// The conflict over a missing service comes before the question. What people decide in this conflict about one item
/// does not approve the other items.
#[test]
fn a_decision_about_an_item_whose_service_is_missing_approves_no_other_item() {
    let with_fallback =
        "risk: high\n    fallback: note\n  note:\n    fallback_only: true\n    call: POST ${services.stock}/notes";
    let plan = plan(&payments_one_by_one(with_fallback, ""));
    for choice in [Choice::Skip, take_output(json!({})), Choice::Fallback] {
        let mut harness = of_items(&plan, json!([1, 2, 3]));
        let all = harness.inputs.services.clone();
        Arc::make_mut(&mut harness.inputs.services).as_object_mut().unwrap().remove("bank");
        harness.perform_due();
        let conflict = |harness: &Harness<'_>| {
            let conflict = harness.run.conflict().unwrap();
            (conflict.kind, conflict.item)
        };
        assert_eq!(conflict(&harness), (ConflictKind::Missing, Some(0)));
        choose(&mut harness, Some(0), choice.clone());
        if choice == Choice::Fallback {
            harness.replies("note", Some(0), ok(json!({})));
        }
        assert_eq!(conflict(&harness), (ConflictKind::Missing, Some(1)));
        harness.inputs.services = all;
        harness.perform_due();
        assert_eq!(harness.in_flight_names(), Vec::<String>::new(), "{choice:?}: nobody has approved the items");
        let asked = harness.open_checkpoint();
        assert_eq!((asked.item, asked.kind), (None, CheckpointKind::Review));
        let shown: Vec<u32> = asked.items.iter().map(|item| item.index).collect();
        assert_eq!(shown, [1, 2], "{choice:?}: the first item has ended");
        harness.answers("alice", review(&[1], &[2])).unwrap();
        assert_eq!(harness.in_flight_names(), ["pay[1]"]);
        harness.replies("pay", Some(1), ok(json!({})));
        assert_eq!(harness.status(), RunStatus::Completed, "{choice:?}: {:?}", harness.run.note());
    }
}

#[test]
fn items_struck_out_stay_counted_when_one_item_is_asked_about_alone() {
    let plan = payments("risk: high", "");
    for (alone, struck) in [(review(&[0], &[]), 1), (review(&[], &[0]), 2)] {
        let mut harness = of_items(&plan, json!([1, 2, 3]));
        harness.perform_due();
        harness.answers("alice", review(&[1, 2], &[0])).unwrap();
        harness.replies("pay", Some(1), status(409));
        choose(&mut harness, Some(1), retry_with(json!({"amount": 5})));
        let skips = !alone.struck.is_empty();
        harness.answers("alice", alone).unwrap();
        if !skips {
            harness.replies("pay", Some(1), ok(json!({})));
        }
        harness.replies("pay", Some(2), ok(json!({})));
        assert_eq!(harness.run.answer().map(|answer| answer.body.value()), Some(json!(struck)));
    }
}

#[test]
fn the_outputs_of_all_items_may_be_given_where_their_risk_has_no_value() {
    let plan = payments("risk: '${item.level}'", "");
    let mut harness = of_items(&plan, json!([{ "level": "low" }, {}]));
    harness.perform_due();
    assert_eq!(harness.run.conflict().map(|open| (open.kind, open.item)), Some((ConflictKind::Expression, None)));
    choose(&mut harness, None, take_output(json!([1, 2])));
    assert_eq!((harness.status(), harness.output("pay")["output"].clone()), (RunStatus::Completed, json!([1, 2])));
    assert!(harness.sent.is_empty());
}

/// After people rejected another input, *retry* repeats what was approved before.
#[test]
fn a_retry_after_a_rejected_input_sends_the_earlier_bytes_under_the_earlier_key() {
    let plan = payments("risk: medium", "");
    let mut harness = of_items(&plan, json!([1]));
    harness.perform_due();
    harness.answers("alice", yes()).unwrap();
    let attempt = |harness: &Harness<'_>| harness.run.attempt(&"pay".into(), Some(0), StepPart::Do).unwrap();
    let first = attempt(&harness);
    harness.replies("pay", Some(0), status(409));
    choose(&mut harness, Some(0), retry_with(json!({"amount": 5})));
    harness.answers("alice", no()).unwrap();
    assert_eq!(harness.run.conflict().map(|open| open.kind), Some(ConflictKind::Refused));
    choose(&mut harness, Some(0), Choice::Retry);
    let again = attempt(&harness);
    assert_eq!((again.attempt, &again.key, &again.request), (2, &first.key, &first.request));
    // A later retry repeats the other input once people have approved it.
    harness.replies("pay", Some(0), status(409));
    choose(&mut harness, Some(0), retry_with(json!({"amount": 6})));
    harness.answers("alice", yes()).unwrap();
    let other = attempt(&harness);
    assert_eq!((other.request.body.value(), other.key != first.key), (json!({"amount": 6}), true));
    harness.replies("pay", Some(0), status(409));
    choose(&mut harness, Some(0), retry_with(json!({"amount": 7})));
    harness.answers("alice", no()).unwrap();
    assert_eq!(harness.run.inputs.values().map(|input| (**input).clone()).collect::<Vec<_>>(), [json!({"amount": 6})]);
    choose(&mut harness, Some(0), Choice::Retry);
    let last = attempt(&harness);
    assert_eq!((&last.key, &last.request), (&other.key, &other.request));
}

/// A rejection of the items that are left ends the run as any rejection does.
#[test]
fn a_rejection_after_a_decision_about_an_item_whose_service_is_missing_fails_the_run() {
    let plan = plan(&payments_one_by_one("risk: high", ""));
    let mut harness = of_items(&plan, json!([1, 2]));
    let all = harness.inputs.services.clone();
    Arc::make_mut(&mut harness.inputs.services).as_object_mut().unwrap().remove("bank");
    harness.perform_due();
    choose(&mut harness, Some(0), Choice::Skip);
    harness.inputs.services = all;
    harness.perform_due();
    assert_eq!(harness.open_checkpoint().item, None);
    harness.answers("alice", no()).unwrap();
    assert_eq!((harness.status(), harness.in_flight_names()), (RunStatus::Failed, Vec::<String>::new()));
}

//! An approval of a `run` step binds its child run: other inputs in the child, and reruns of the child, need approval.

use super::harness::plan;
use super::people_harness::{review, yes};
use super::rerun_decisions::successor;
use super::*;
use crate::workflow::{ApprovalAbove, Choice, ControlCommand, OnTimeout, OpenCheckpoint, Risk, approval_above_child};

fn adjust(step: &str, item: Option<u32>, input: Value) -> ControlCommand {
    ControlCommand::Adjust { step: step.into(), item, input: Arc::new(input), reason: None }
}

fn retry_with(input: Value) -> Choice {
    Choice::RetryWith { input: Arc::new(input) }
}

fn risk_and_people(asked: &OpenCheckpoint) -> (Risk, Vec<&str>) {
    (asked.risk, asked.who.iter().map(String::as_str).collect())
}

const CHILD: &str = "
workflow: w
steps:
  look: { call: 'GET ${services.bank}/look' }
  rates: { needs: [look], call: 'POST ${services.bank}/rates', effect: read, body: { day: today } }
  amount: { set: '${steps.rates.status + request.body.items[0]}' }
  send: { call: 'POST ${services.bank}/send', body: { amount: '${steps.amount.output}' } }
  pay:
    needs: [send]
    run: inner
    input: { amount: 1 }
    risk: '${request.body.items[0] > 5 ? \"medium\" : \"low\"}'
    ask: { timeout: 1m, on_timeout: approve }
respond: { status: 200 }
";

fn approved(risk: Risk, who: &[&str]) -> Option<ApprovalAbove> {
    Some(ApprovalAbove { risk, who: who.iter().map(|name| (*name).to_owned()).collect() })
}

/// A child run, with what people approved above it.
fn child(plan: &Plan, above: Option<ApprovalAbove>) -> Harness<'_> {
    let mut harness = Harness::started_with(plan, |started| (started.route, started.approval_above) = (None, above));
    harness.perform_due();
    harness
}

#[test]
fn another_input_in_a_child_that_people_approved_is_asked_about_by_them() {
    let plan = plan(CHILD);
    let above = || approved(Risk::High, &["alice"]);
    let inputs = [("rates", json!({"day": "later"})), ("amount", json!(9)), ("send", json!({"amount": 1_000_000}))];
    for (step, input) in &inputs {
        for above in [above(), None] {
            let is_approved = above.is_some();
            let mut harness = child(&plan, above);
            harness.give_command_by("bob", adjust(step, None, input.clone())).unwrap();
            harness.replies("look", None, ok(json!({})));
            harness.replies("rates", None, ok(json!({})));
            if !is_approved {
                assert_eq!(harness.in_flight_names(), ["send"]);
                continue;
            }
            let asked = harness.open_checkpoint();
            assert_eq!((asked.step.as_str(), risk_and_people(&asked)), ("send", (Risk::High, vec!["alice"])), "{step}");
            assert!(matches!(harness.answers("bob", review(&[0], &[])), Err(CommandRefusal::NotYours(_))));
            harness.answers("alice", review(&[0], &[])).unwrap();
            harness.replies("send", None, ok(json!({})));
            assert_eq!(harness.children().len(), 1, "the input of `pay` is that of its workflow, so nobody is asked");
        }
    }
    let mut harness = child(&plan, above());
    harness.replies("look", None, ok(json!({})));
    harness.replies("rates", None, ok(json!({})));
    assert_eq!(harness.in_flight_names(), ["send"], "without another input nobody is asked");
    harness.give_command_by("bob", adjust("pay", None, json!({"amount": 2}))).unwrap();
    harness.replies("send", None, status(409));
    choose_of(&mut harness, "send", retry_with(json!({"amount": 3})));
    assert_eq!((harness.open_checkpoint().step.as_str(), harness.in_flight_names().len()), ("send", 0));
    harness.answers("alice", review(&[0], &[])).unwrap();
    harness.replies("send", None, ok(json!({})));
    let asked = harness.open_checkpoint();
    assert_eq!((asked.step.as_str(), risk_and_people(&asked)), ("pay", (Risk::High, vec!["alice"])));
    assert_eq!(asked.on_timeout, OnTimeout::Reject, "the time-out must not approve the other input");
    harness.advance_seconds(60);
    assert_eq!((harness.children().len(), harness.status()), (0, RunStatus::Failed));
}

fn choose_of(harness: &mut Harness<'_>, step: &str, choice: Choice) {
    harness
        .give_command_by(
            "bob",
            ControlCommand::Resolve { step: step.into(), item: None, attempt: None, choice, reason: None },
        )
        .unwrap();
}

#[test]
fn a_rerun_of_a_child_that_people_approved_is_asked_about_by_them() {
    let plan = plan(CHILD);
    for above in [approved(Risk::Medium, &["alice"]), None] {
        let is_approved = above.is_some();
        let mut harness = child(&plan, above);
        harness.replies("look", None, status(409));
        let mut harness = successor(&harness, "look");
        harness.replies("look", None, ok(json!({})));
        harness.replies("rates", None, ok(json!({})));
        if !is_approved {
            assert_eq!(harness.in_flight_names(), ["send"]);
            continue;
        }
        for step in ["send", "pay"] {
            let asked = harness.open_checkpoint();
            assert_eq!((asked.step.as_str(), risk_and_people(&asked)), (step, (Risk::Medium, vec!["alice"])));
            harness.answers("alice", yes()).unwrap();
            if step == "send" {
                harness.replies("send", None, ok(json!({})));
            }
        }
        assert_eq!(harness.children().len(), 1);
        let below = approval_above_child(&harness.run, &"pay".into(), None);
        assert_eq!(below, approved(Risk::Medium, &["alice"]), "the child's own child is told of the approval, too");
    }
}

#[test]
fn a_child_is_told_of_the_approvals_above_it() {
    let told = |risk: &str, above: Option<ApprovalAbove>| {
        let plan = plan(&format!(
            "
workflow: w
steps: {{ sub: {{ for_each: '${{request.body.items}}', run: child, {risk} }} }}
respond: {{ status: 200 }}
"
        ));
        let mut harness = child(&plan, above);
        if harness.run.open_checkpoints().next().is_some() {
            harness.answers("bob", yes()).unwrap();
        }
        assert!(!harness.children().is_empty());
        approval_above_child(&harness.run, &"sub".into(), Some(0))
    };
    let asks_bob = "risk: medium, ask: { who: [bob] }";
    assert_eq!(told("risk: low", None), None);
    assert_eq!(told(asks_bob, None), approved(Risk::Medium, &["bob"]));
    assert_eq!(told("risk: low", approved(Risk::High, &["alice"])), approved(Risk::High, &["alice"]));
    assert_eq!(told(asks_bob, approved(Risk::High, &["alice"])), approved(Risk::High, &["alice"]));
    assert_eq!(told(asks_bob, approved(Risk::Medium, &["alice"])), approved(Risk::Medium, &["alice"]));
    assert_eq!(told(asks_bob, approved(Risk::High, &[])), approved(Risk::High, &["bob"]));
    assert_eq!(told("risk: medium", approved(Risk::Medium, &["alice"])), approved(Risk::Medium, &["alice"]));
}

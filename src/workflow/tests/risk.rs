//! Risk: who is asked about what, and that nothing is performed without approval.

use super::harness::plan;
use super::people_harness::{no, review, yes};
use super::*;
use crate::workflow::{CheckpointKind, Choice, ConflictKind, ControlCommand, OnTimeout, StepPart};

fn mails(risk: &str, more: &str) -> Plan {
    plan(&format!(
        "
workflow: w
steps:
  mail:
    for_each: ${{request.body.items}}
    concurrency: 2
    call: POST ${{services.bank}}/mail/${{item}}
    body: {{ to: '${{item}}', at: '${{now}}', password: x }}
    risk: {risk}
    {more}
  tell: {{ set: '${{[steps.mail.output, steps.mail.struck]}}' }}
respond: {{ status: 200, body: '${{steps.tell.output}}' }}
"
    ))
}

#[test]
fn low_risk_runs_and_medium_risk_waits_for_one_approval() {
    let low = mails("'${item > 5 ? \"high\" : \"low\"}'", "");
    let mut harness = Harness::of_api(&low);
    harness.perform_due();
    assert_eq!(harness.in_flight_names(), ["mail[0]", "mail[1]"]);
    let medium = mails("'${item == 2 ? \"medium\" : \"low\"}'", "");
    let mut harness = Harness::of_api(&medium);
    harness.perform_due();
    assert_eq!((harness.open_checkpoint().kind, harness.in_flight_names().len()), (CheckpointKind::Approval, 0));
    assert_eq!(harness.open_checkpoint().question, "May `mail` be performed for 3 items? (POST /mail/1)");
    harness.answers("ann", yes()).unwrap();
    assert_eq!(harness.in_flight_names(), ["mail[0]", "mail[1]"]);
    let mut harness = Harness::of_api(&medium);
    harness.perform_due();
    harness.answers("ann", no()).unwrap();
    assert_eq!(
        (harness.status(), harness.run.failure().map(|f| f.kind)),
        (RunStatus::Failed, Some(FailureKind::Rejected))
    );
    let odd = mails("'${item == 2 ? \"huge\" : \"low\"}'", "");
    let mut harness = Harness::of_route(&odd);
    harness.perform_due();
    assert_eq!(harness.run.failure().map(|f| f.kind), Some(FailureKind::Expression));
}

#[test]
fn high_risk_is_reviewed_item_by_item_and_only_approved_items_are_performed() {
    let high = mails("high", "ask: { question: 'Send them?', who: [ann] }");
    let mut harness = Harness::of_api(&high);
    harness.perform_due();
    let asked = harness.open_checkpoint();
    assert_eq!((asked.kind, asked.question.as_str(), asked.items.len()), (CheckpointKind::Review, "Send them?", 3));
    assert_eq!(asked.items[1].what, "POST /mail/2");
    assert_eq!(asked.items[1].value["password"], json!("***"));
    let wrong = |said| match harness
        .give_command_by("ann", ControlCommand::Answer { checkpoint: asked.checkpoint.clone(), answer: said })
    {
        Err(CommandRefusal::BadValues(wrong)) => wrong.join("; "),
        other => panic!("{other:?}"),
    };
    let mut wrong = wrong;
    assert_eq!(wrong(yes()).matches("neither").count(), 3);
    assert_eq!(wrong(review(&[0, 1], &[1, 2, 7])), "item 1 is both approved and struck out; there is no item 7");
    let no_but_yes = crate::workflow::CheckpointAnswer { approve: false, ..review(&[0], &[]) };
    assert_eq!(wrong(no_but_yes), "`approve` is false, but items are approved");
    harness.advance_seconds(60);
    harness.answers("ann", review(&[0, 2], &[1])).unwrap();
    assert_eq!(harness.in_flight_names(), ["mail[0]", "mail[2]"]);
    assert_eq!(harness.sent_bodies()[0]["at"], json!("1970-01-01T00:00:00Z"), "the request is sent as it was shown");
    harness.replies("mail", Some(2), ok(json!(2)));
    harness.replies("mail", Some(0), ok(json!(0)));
    assert_eq!(harness.run.answer().unwrap().body.value(), json!([[0, null, 2], 1]));
}

#[test]
fn a_step_is_skipped_when_all_its_items_are_struck_out() {
    let high = mails("high", "");
    let mut harness = Harness::of_api(&high);
    harness.perform_due();
    harness.answers("ann", review(&[], &[0, 1, 2])).unwrap();
    assert!(harness.run.was_skipped(&"mail".into()) && harness.run.was_skipped(&"tell".into()));
    assert!(harness.sent.is_empty());
}

const BATCH: &str = "
workflow: w
risks:
  - { effect: shared, method: POST, items_over: 2, reversible: false, risk: high }
  - { method: DELETE, risk: medium }
steps:
  pay:
    call: POST ${services.bank}/pay
    body: { all: '${request.body.items}', memo: m }
    reversible: false
  wipe: { needs: [pay], call: 'DELETE ${services.bank}/x', on_reject: skip }
  fine: { needs: [wipe], needs_any: true, set: '${steps.pay.struck}' }
respond: { status: 200, body: '${default(steps.fine.output, -1)}' }
";

#[test]
fn a_policy_sets_the_risk_and_struck_out_items_are_left_out_of_the_body() {
    let plan = plan(BATCH);
    let mut harness = Harness::of_api(&plan);
    harness.perform_due();
    let asked = harness.open_checkpoint();
    assert_eq!((asked.kind, asked.items.len(), &*asked.items[2].value), (CheckpointKind::Review, 3, &json!(3)));
    harness.answers("ann", review(&[0, 2], &[1])).unwrap();
    assert_eq!(harness.sent_bodies(), [json!({"all": [1, 3], "memo": "m"})]);
    harness.replies("pay", None, ok(json!({})));
    assert_eq!(harness.open_checkpoint().kind, CheckpointKind::Approval);
    harness.answers("ann", no()).unwrap();
    assert_eq!(harness.status(), RunStatus::Completed);
    assert!(harness.run.was_skipped(&"wipe".into()));
}

#[test]
fn no_command_replaces_an_approval() {
    let high = mails("high", "");
    let mut harness = Harness::of_api(&high);
    harness.perform_due();
    let adjust = |item, input: Value| ControlCommand::Adjust {
        step: "mail".into(),
        item: Some(item),
        input: Arc::new(input),
        reason: None,
    };
    for command in [
        ControlCommand::Retry { step: None, attempt: None },
        ControlCommand::Resume { reason: None },
        ControlCommand::Skip { step: "x".into(), reason: None },
    ] {
        assert!(harness.give_command_by("eve", command).is_err());
    }
    harness.give_command_by("eve", ControlCommand::Pause { reason: None }).unwrap();
    harness.give_command_by("eve", ControlCommand::Resume { reason: None }).unwrap();
    assert!(harness.sent.is_empty());
    // People are asked again about an adjusted input, and the old question is withdrawn.
    let before = harness.checkpoint();
    harness.give_command_by("eve", adjust(1, json!({"to": "all"}))).unwrap();
    let after = harness.open_checkpoint();
    assert_ne!(before, after.checkpoint);
    assert_eq!(after.items[1].value["to"], json!("all"));
    let old =
        harness.give_command_by("ann", ControlCommand::Answer { checkpoint: before, answer: review(&[0, 1, 2], &[]) });
    assert!(matches!(old, Err(CommandRefusal::NotApplicable(why)) if why.contains(after.checkpoint.as_str())));
    harness.answers("ann", review(&[0, 1, 2], &[])).unwrap();
    assert_eq!(harness.in_flight_names(), ["mail[0]", "mail[1]"]);
    // People are asked separately about an item that has not begun; the others go on.
    harness.give_command_by("eve", adjust(2, json!({"to": "everybody"}))).unwrap();
    harness.replies("mail", Some(0), ok(json!(0)));
    assert_eq!((harness.in_flight_names(), harness.open_checkpoint().item), (vec!["mail[1]".to_owned()], Some(2)));
    harness.replies("mail", Some(1), ok(json!(1)));
    assert_eq!(harness.status(), RunStatus::WaitingCheckpoint);
    harness.answers("ann", review(&[0], &[])).unwrap();
    assert_eq!(harness.in_flight_names(), ["mail[2]"]);
    assert_eq!(harness.sent_bodies()[2], json!({"to": "everybody"}));
}

#[test]
fn another_input_for_a_retry_needs_approval_and_a_rejection_reopens_the_conflict() {
    let plan = plan(BATCH);
    let mut harness = Harness::of_api(&plan);
    harness.perform_due();
    harness.answers("ann", review(&[0, 1, 2], &[])).unwrap();
    harness.replies("pay", None, status(409));
    let retry = || Choice::RetryWith { input: Arc::new(json!({"all": [1, 2, 3, 4]})) };
    let resolve =
        |choice| ControlCommand::Resolve { step: "pay".into(), item: None, attempt: None, choice, reason: None };
    harness.give_command_by("eve", resolve(retry())).unwrap();
    assert_eq!((harness.in_flight_names().len(), harness.open_checkpoint().items.len()), (0, 4));
    harness.answers("ann", no()).unwrap();
    assert_eq!(harness.status(), RunStatus::Paused);
    harness.give_command_by("eve", resolve(retry())).unwrap();
    harness.answers("ann", review(&[0, 1, 2], &[3])).unwrap();
    assert_eq!(harness.sent_bodies()[1], json!({"all": [1, 2, 3]}));
}

#[test]
fn an_elapsed_question_is_answered_by_its_time_out() {
    let reject = mails("high", "ask: { timeout: 1m, on_timeout: reject }\n    on_reject: skip");
    let mut harness = Harness::of_api(&reject);
    harness.perform_due();
    assert_eq!(harness.open_checkpoint().on_timeout, OnTimeout::Reject);
    harness.advance_seconds(60);
    assert!(harness.run.was_skipped(&"mail".into()));
    let approve = mails("medium", "ask: { timeout: 1m, on_timeout: approve }");
    let mut harness = Harness::of_api(&approve);
    harness.perform_due();
    harness.advance_seconds(60);
    assert_eq!(harness.in_flight_names().len(), 2);
}

#[test]
fn in_shadow_and_dark_nobody_is_asked_and_nothing_risky_is_sent() {
    let run = |more: &str, mode| {
        let plan = mails("high", more);
        let mut harness = Harness::new(&plan, mode, json!({"body": {"items": [1, 2]}}));
        harness.perform_due();
        (harness.status(), harness.run.failure().map(|f| f.kind), harness.sent.len(), harness.run.intents().count())
    };
    for mode in [Mode::Rehearse, Mode::Dark] {
        for effect in ["", "\n    effect: private"] {
            let declared = format!("rehearse: {{ ok: true }}{effect}");
            assert_eq!(run(&declared, mode), (RunStatus::Completed, None, 0, 2), "{mode:?}{effect}");
            let (status, why, sent, _) = run(effect.trim(), mode);
            assert_eq!((status, why, sent), (RunStatus::Failed, Some(FailureKind::NeedsPerson), 0), "{mode:?}{effect}");
        }
    }
}

/// A person gives a refused call another input, and the text of the question about this input has no value.
#[test]
fn a_question_that_cannot_be_asked_about_another_input_is_a_conflict() {
    let plan = plan(
        "
workflow: w
risks: [{ items_over: 2, risk: medium }]
steps:
  pay:
    call: POST ${services.bank}/pay
    body: { all: [1] }
    on_failure: pause
    ask: { question: '${request.body.nothing}' }
respond: { status: 200 }
",
    );
    let mut harness = Harness::of_api(&plan);
    harness.settle();
    harness.call("pay", status(400));
    let retry_with = |count: u32| Choice::RetryWith { input: Arc::new(json!({"all": (0..count).collect::<Vec<_>>()})) };
    harness.choose("pay", None, retry_with(3)).unwrap();
    let conflict = harness.run.conflict().unwrap();
    assert_eq!((conflict.kind, conflict.attempt), (ConflictKind::Expression, 1), "{}", conflict.message);
    harness.choose("pay", None, retry_with(2)).unwrap();
    assert_eq!(harness.run.attempt(&"pay".into(), None, StepPart::Do).map(|attempt| attempt.attempt), Some(2));
    harness.call("pay", ok(json!({})));
    assert_eq!(harness.status(), RunStatus::Completed);
}

/// A dark run asks nobody, and a call that it has sent once cannot be rehearsed.
#[test]
fn another_input_that_would_need_an_approval_is_a_conflict_in_a_dark_run() {
    for rehearse in ["", "rehearse: { ok: true }"] {
        let plan = plan(&format!(
            "
workflow: w
risks: [{{ items_over: 2, risk: medium }}]
steps:
  pay:
    call: POST ${{services.bank}}/pay
    effect: private
    body: {{ all: [1] }}
    on_failure: pause
    {rehearse}
  slow: {{ call: 'GET ${{services.bank}}/slow' }}
respond: {{ status: 200 }}
"
        ));
        let mut harness = Harness::new(&plan, Mode::Dark, json!({"body": {}}));
        harness.settle();
        // The call `slow` is under way, so the run does not end yet.
        harness.call("pay", status(400));
        let retry_with =
            |count: u32| Choice::RetryWith { input: Arc::new(json!({"all": (0..count).collect::<Vec<_>>()})) };
        harness.choose("pay", None, retry_with(3)).unwrap();
        let conflict = harness.run.conflict().expect("a new conflict is open");
        assert_eq!(conflict.attempt, 1);
        assert!(conflict.message.contains("needs an approval"), "{}", conflict.message);
        harness.choose("pay", None, retry_with(2)).unwrap();
        harness.call("pay", ok(json!({})));
        harness.call("slow", ok(json!({})));
        assert_eq!(harness.status(), RunStatus::Completed);
    }
}

/// The risk depends on the time, so it may have no valid value when it is computed again.
#[test]
fn a_risk_that_is_no_level_for_another_input_is_a_conflict() {
    let plan = plan(
        "
workflow: w
steps:
  pay:
    call: POST ${services.bank}/pay
    body: { n: 1 }
    on_failure: pause
    risk: '${now == run.started ? \"low\" : \"odd\"}'
respond: { status: 200 }
",
    );
    let mut harness = Harness::of_api(&plan);
    harness.settle();
    harness.call("pay", status(400));
    harness.advance_seconds(60);
    harness.choose("pay", None, Choice::RetryWith { input: Arc::new(json!({})) }).unwrap();
    let conflict = harness.run.conflict().expect("a new conflict is open");
    assert!(conflict.message.contains("which is not a risk level"), "{}", conflict.message);
}

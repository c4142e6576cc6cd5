//! Risk: who is asked, about what, and that nothing goes past it.

use super::kit::plan;
use super::stage::{items, no, yes};
use super::*;
use crate::workflow::{CheckpointKind, Choice, OnTimeout, Order};

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
fn low_runs_and_medium_waits_for_one_yes() {
    let low = mails("'${item > 5 ? \"high\" : \"low\"}'", "");
    let mut bench = Bench::of_api(&low);
    bench.rest();
    assert_eq!(bench.flying(), ["mail[0]", "mail[1]"]);
    let medium = mails("'${item == 2 ? \"medium\" : \"low\"}'", "");
    let mut bench = Bench::of_api(&medium);
    bench.rest();
    assert_eq!((bench.asked().kind, bench.flying().len()), (CheckpointKind::Approval, 0));
    assert_eq!(bench.asked().question, "May `mail` be performed for 3 items? (POST /mail/1)");
    bench.answers("ann", yes()).unwrap();
    assert_eq!(bench.flying(), ["mail[0]", "mail[1]"]);
    let mut bench = Bench::of_api(&medium);
    bench.rest();
    bench.answers("ann", no()).unwrap();
    assert_eq!((bench.status(), bench.run.failure().map(|f| f.kind)), (RunStatus::Failed, Some(FailureKind::Rejected)));
    let odd = mails("'${item == 2 ? \"huge\" : \"low\"}'", "");
    let mut bench = Bench::of_route(&odd);
    bench.rest();
    assert_eq!(bench.run.failure().map(|f| f.kind), Some(FailureKind::Expression));
}

#[test]
fn high_is_reviewed_item_by_item_and_only_what_was_approved_is_performed() {
    let high = mails("high", "ask: { question: 'Send them?', who: [ann] }");
    let mut bench = Bench::of_api(&high);
    bench.rest();
    let asked = bench.asked();
    assert_eq!((asked.kind, asked.question.as_str(), asked.items.len()), (CheckpointKind::Review, "Send them?", 3));
    assert_eq!(asked.items[1].what, "POST /mail/2");
    assert_eq!(asked.items[1].value["password"], json!("***"));
    let wrong = |said| match bench.says("ann", Order::Answer { checkpoint: asked.checkpoint.clone(), said }) {
        Err(Refusal::BadValues(wrong)) => wrong.join("; "),
        other => panic!("{other:?}"),
    };
    let mut wrong = wrong;
    assert_eq!(wrong(yes()).matches("neither").count(), 3);
    assert_eq!(wrong(items(&[0, 1], &[1, 2, 7])), "item 1 is both approved and struck out; there is no item 7");
    bench.seconds(60);
    bench.answers("ann", items(&[0, 2], &[1])).unwrap();
    assert_eq!(bench.flying(), ["mail[0]", "mail[2]"]);
    assert_eq!(bench.bodies()[0]["at"], json!("1970-01-01T00:00:00Z"), "what was shown is what is sent");
    bench.replies("mail", Some(2), ok(json!(2)));
    bench.replies("mail", Some(0), ok(json!(0)));
    assert_eq!(bench.run.answer().unwrap().body.value(), json!([[0, null, 2], 1]));
}

#[test]
fn all_struck_out_is_a_step_that_did_not_run() {
    let high = mails("high", "");
    let mut bench = Bench::of_api(&high);
    bench.rest();
    bench.answers("ann", items(&[], &[0, 1, 2])).unwrap();
    assert!(bench.run.was_skipped(&"mail".into()) && bench.run.was_skipped(&"tell".into()));
    assert!(bench.sent.is_empty());
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
fn a_policy_judges_and_what_is_struck_is_left_out_of_the_body() {
    let plan = plan(BATCH);
    let mut bench = Bench::of_api(&plan);
    bench.rest();
    let asked = bench.asked();
    assert_eq!((asked.kind, asked.items.len(), &*asked.items[2].value), (CheckpointKind::Review, 3, &json!(3)));
    bench.answers("ann", items(&[0, 2], &[1])).unwrap();
    assert_eq!(bench.bodies(), [json!({"all": [1, 3], "memo": "m"})]);
    bench.replies("pay", None, ok(json!({})));
    assert_eq!(bench.asked().kind, CheckpointKind::Approval);
    bench.answers("ann", no()).unwrap();
    assert_eq!(bench.status(), RunStatus::Completed);
    assert!(bench.run.was_skipped(&"wipe".into()));
}

#[test]
fn nothing_goes_past_an_approval() {
    let high = mails("high", "");
    let mut bench = Bench::of_api(&high);
    bench.rest();
    let adjust = |item, input: Value| Order::Adjust {
        step: "mail".into(),
        item: Some(item),
        input: Arc::new(input),
        reason: None,
    };
    for order in
        [Order::Retry { step: None }, Order::Resume { reason: None }, Order::Skip { step: "x".into(), reason: None }]
    {
        assert!(bench.says("eve", order).is_err());
    }
    bench.says("eve", Order::Pause { reason: None }).unwrap();
    bench.says("eve", Order::Resume { reason: None }).unwrap();
    assert!(bench.sent.is_empty());
    // An adjusted input is asked about anew, and the old question is void.
    let before = bench.checkpoint();
    bench.says("eve", adjust(1, json!({"to": "all"}))).unwrap();
    let after = bench.asked();
    assert_ne!(before, after.checkpoint);
    assert_eq!(after.items[1].value["to"], json!("all"));
    let old = bench.says("ann", Order::Answer { checkpoint: before, said: items(&[0, 1, 2], &[]) });
    assert!(matches!(old, Err(Refusal::NotApplicable(why)) if why.contains(after.checkpoint.as_str())));
    bench.answers("ann", items(&[0, 1, 2], &[])).unwrap();
    assert_eq!(bench.flying(), ["mail[0]", "mail[1]"]);
    // One that has not begun is asked about alone; the others go on.
    bench.says("eve", adjust(2, json!({"to": "everybody"}))).unwrap();
    bench.replies("mail", Some(0), ok(json!(0)));
    assert_eq!((bench.flying(), bench.asked().item), (vec!["mail[1]".to_owned()], Some(2)));
    bench.replies("mail", Some(1), ok(json!(1)));
    assert_eq!(bench.status(), RunStatus::WaitingCheckpoint);
    bench.answers("ann", items(&[0], &[])).unwrap();
    assert_eq!(bench.flying(), ["mail[2]"]);
    assert_eq!(bench.bodies()[2], json!({"to": "everybody"}));
}

#[test]
fn another_input_for_a_retry_is_asked_about_and_a_no_opens_the_conflict_again() {
    let plan = plan(BATCH);
    let mut bench = Bench::of_api(&plan);
    bench.rest();
    bench.answers("ann", items(&[0, 1, 2], &[])).unwrap();
    bench.replies("pay", None, status(409));
    let retry = || Choice::RetryWith { input: Arc::new(json!({"all": [1, 2, 3, 4]})) };
    let resolve = |choice| Order::Resolve { step: "pay".into(), item: None, choice, reason: None };
    bench.says("eve", resolve(retry())).unwrap();
    assert_eq!((bench.flying().len(), bench.asked().items.len()), (0, 4));
    bench.answers("ann", no()).unwrap();
    assert_eq!(bench.status(), RunStatus::Paused);
    bench.says("eve", resolve(retry())).unwrap();
    bench.answers("ann", items(&[0, 1, 2], &[3])).unwrap();
    assert_eq!(bench.bodies()[1], json!({"all": [1, 2, 3]}));
}

#[test]
fn time_goes_by_without_an_answer() {
    let reject = mails("high", "ask: { timeout: 1m, on_timeout: reject }\n    on_reject: skip");
    let mut bench = Bench::of_api(&reject);
    bench.rest();
    assert_eq!(bench.asked().on_timeout, OnTimeout::Reject);
    bench.seconds(60);
    assert!(bench.run.was_skipped(&"mail".into()));
    let approve = mails("medium", "ask: { timeout: 1m, on_timeout: approve }");
    let mut bench = Bench::of_api(&approve);
    bench.rest();
    bench.seconds(60);
    assert_eq!(bench.flying().len(), 2);
}

#[test]
fn beside_legacy_nobody_is_asked_and_nothing_risky_is_sent() {
    let run = |more: &str, mode| {
        let plan = mails("high", more);
        let mut bench = Bench::new(&plan, mode, json!({"body": {"items": [1, 2]}}));
        bench.rest();
        (bench.status(), bench.run.failure().map(|f| f.kind), bench.sent.len(), bench.run.intents().count())
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

//! Checkpoints, waits, signals, pauses and other commands.

use super::harness::plan;
use super::people_harness::{no, yes, yes_with};
use super::*;
use crate::workflow::CommandRefusal::NotApplicable;
use crate::workflow::{Choice, ConflictKind, ControlCommand, StepStatus};

const PICK: &str = "
workflow: w
steps:
  pick:
    checkpoint:
      question: Which of ${size(request.body.items)}?
      schema: { type: object, required: [id], properties: { id: { type: integer, maximum: 3 } } }
      who: [ann, bob]
      timeout: 1h
      on_timeout: escalate
      escalate: { who: [eve], timeout: 1h, on_timeout: approve }
      default: { id: 1 }
    on_reject: skip
  use: { set: '${steps.pick.output.id}' }
  otherwise: { if: '${!steps.pick.approved}', needs_any: true, set: none, needs: [other] }
  other: { set: 1 }
respond: { status: 200, body: '${default(steps.use.output, steps.otherwise.output)}' }
";

#[test]
fn an_answer_is_accepted_once_from_those_who_may_give_it_with_fitting_values() {
    let plan = plan(PICK);
    let mut harness = Harness::of_api(&plan);
    harness.perform_due();
    assert_eq!(
        (harness.status(), harness.open_checkpoint().question.as_str()),
        (RunStatus::WaitingCheckpoint, "Which of 3?")
    );
    assert_eq!(harness.run.summary(harness.now).wake, Some("1970-01-01T01:00:00Z".parse().unwrap()));
    let checkpoint = harness.checkpoint();
    assert_eq!(harness.run.summary(harness.now).checkpoint.unwrap().0, checkpoint);
    let said = harness.answers("eve", yes_with(json!({"id": 2})));
    assert_eq!(said, Err(CommandRefusal::NotYours("only ann or bob may answer this".into())));
    assert_eq!(
        harness.answers("ann", yes_with(json!({"id": 9}))),
        Err(CommandRefusal::BadValues(vec!["/id: value is greater than the maximum of 3".into()]))
    );
    assert!(matches!(harness.answers("ann", yes()), Err(CommandRefusal::BadValues(_))), "the question requires values");
    let unverified = harness.answers("eve (unverified)", yes_with(json!({"id": 2})));
    assert!(matches!(unverified, Err(CommandRefusal::NotYours(_))), "{unverified:?}");
    let unverified = harness.answers("ann (unverified)", yes());
    assert!(
        matches!(unverified, Err(CommandRefusal::BadValues(_))),
        "without tokens any name may answer, so only the values are refused: {unverified:?}"
    );
    let unknown = ControlCommand::Answer { checkpoint: "chk_x".into(), answer: yes() };
    assert_eq!(harness.give_command_by("ann", unknown), Err(CommandRefusal::NoSuchCheckpoint));
    harness.answers("ann", yes_with(json!({"id": 2}))).unwrap();
    assert_eq!(harness.status(), RunStatus::Completed);
    assert_eq!(harness.run.answer().unwrap().body.value(), json!(2));
    assert_eq!(harness.output("pick"), json!({"output": {"id": 2}, "approved": true, "by": "ann", "skipped": false}));
    let mut harness = Harness::of_api(&plan);
    harness.perform_due();
    harness.give_command_by("x", ControlCommand::Pause { reason: None }).unwrap();
    harness.answers("bob", yes_with(json!({"id": 3}))).unwrap();
    let again = harness.give_command_by("ann", ControlCommand::Answer { checkpoint, answer: no() }).unwrap_err();
    let CommandRefusal::AnsweredBefore { by, said, seq } = again else { panic!("{again:?}") };
    assert_eq!((by.as_str(), said.values.as_deref(), seq.0), ("bob", Some(&json!({"id": 3})), harness.run.seq().0));
    assert_eq!(harness.status(), RunStatus::Paused, "an answer does not resume a paused run");
    harness.give_command_by("x", ControlCommand::Resume { reason: None }).unwrap();
    assert_eq!(harness.status(), RunStatus::Completed);
}

#[test]
fn an_unanswered_question_escalates_and_then_takes_its_default() {
    let plan = plan(PICK);
    let mut harness = Harness::of_api(&plan);
    harness.perform_due();
    harness.advance_seconds(3600);
    assert_eq!(harness.open_checkpoint().who, ["eve"]);
    assert!(matches!(harness.answers("ann", yes_with(json!({"id": 1}))), Err(CommandRefusal::NotYours(_))));
    harness.advance_seconds(3600);
    assert_eq!(harness.status(), RunStatus::Completed);
    assert_eq!(harness.output("pick")["by"], json!("time-out"));
    assert_eq!(harness.output("use")["output"], json!(1));
}

#[test]
fn a_rejection_skips_the_steps_that_need_the_approval_and_another_branch_runs() {
    let plan = plan(PICK);
    let mut harness = Harness::of_api(&plan);
    harness.perform_due();
    harness.answers("ann", no()).unwrap();
    assert_eq!(harness.status(), RunStatus::Completed, "{:?}", harness.run.note());
    assert_eq!(harness.run.answer().unwrap().body.value(), json!("none"));
    assert!(harness.run.was_skipped(&"use".into()));
}

const SHIP: &str = "
workflow: w
steps:
  calm: { wait: 10m }
  paid:
    wait: { signal: paid, where: '${signal.sum >= 7}', timeout: 1h }
  later: { needs: [calm, paid], wait: { until: '1970-01-01T02:00:00Z' } }
  ship: { needs: [later], set: '${[steps.paid.output, steps.paid.timed_out]}' }
respond: { status: 200, body: '${steps.ship.output}' }
";

fn paid(sum: u64, id: Option<&str>) -> ControlCommand {
    ControlCommand::Signal { name: "paid".into(), payload: Arc::new(json!({"sum": sum})), id: id.map(str::to_owned) }
}

#[test]
fn signals_are_stored_until_a_step_takes_them_and_a_repeated_delivery_counts_once() {
    let plan = plan(SHIP);
    let mut harness = Harness::of_api(&plan);
    assert_eq!(harness.give_command_by("shop", paid(1, Some("a"))), Ok(1));
    assert_eq!(harness.give_command_by("shop", paid(1, Some("a"))), Ok(0), "the same delivery counts once");
    assert_eq!(harness.status(), RunStatus::WaitingSignal);
    assert_eq!(harness.causes(), ["time", "signal"]);
    let why = harness.reasons()[1].sentence.clone();
    assert!(why.starts_with("`paid` waits for the signal `paid`; one came that its `where` refuses"), "{why}");
    let note = |harness: &Harness<'_>| {
        let seen = view(harness.events.iter().map(|event| (harness.now, event))).unwrap();
        seen.steps.into_iter().find(|step| step.step.as_str() == "paid").unwrap().note
    };
    assert_eq!(note(&harness).as_deref(), Some("it waits for `paid`; 1 came that its `where` refuses"));
    assert_eq!(harness.give_command_by("shop", paid(7, None)), Ok(2));
    assert_eq!((harness.status(), harness.causes()), (RunStatus::Running, vec!["time"]));
    assert_eq!(note(&harness), None, "the signal has come");
    harness.advance_seconds(600);
    assert_eq!(harness.run.wake(), Some("1970-01-01T02:00:00Z".parse().unwrap()));
    harness.advance_seconds(6600);
    assert_eq!(harness.run.answer().unwrap().body.value(), json!([{"sum": 7}, false]));
    let mut early = Harness::of_api(&plan);
    early.command(Command::Control { command: paid(8, None), by: "shop".into() }).unwrap();
    early.perform_due();
    assert_eq!(early.output("paid")["output"], json!({"sum": 8}), "a signal that came before the step waited is taken");
    let refused =
        early.give_command_by("x", ControlCommand::Signal { name: "piad".into(), payload: Arc::default(), id: None });
    assert!(matches!(refused, Err(NotApplicable(why)) if why.contains("it waits for paid")));
    early.inputs.signals_max = 2;
    early.give_command_by("x", paid(1, None)).unwrap();
    early.give_command_by("x", paid(1, None)).unwrap();
    assert!(
        matches!(early.give_command_by("x", paid(1, None)), Err(NotApplicable(why)) if why.contains("signals_max"))
    );
}

#[test]
fn a_signal_that_does_not_come_fails_its_step_or_lets_the_run_go_on() {
    let mut ship = plan(SHIP);
    let mut harness = Harness::of_api(&ship);
    harness.perform_due();
    harness.advance_seconds(3600);
    assert_eq!(
        (harness.status(), harness.run.failure().map(|f| f.kind)),
        (RunStatus::Failed, Some(FailureKind::TimedOut))
    );
    ship = plan(&SHIP.replace("timeout: 1h", "timeout: 1h, on_timeout: continue"));
    let mut harness = Harness::of_api(&ship);
    harness.perform_due();
    harness.advance_seconds(7200);
    assert_eq!(harness.run.answer().unwrap().body.value(), json!([null, true]));
}

const WORK: &str = "
workflow: w
steps:
  a: { call: 'POST ${services.stock}/a', body: { n: 1 }, retry: { attempts: 3, base: 1h, max: 1h } }
  b: { needs: [a], call: 'POST ${services.stock}/b', body: { n: 2 } }
  c: { needs: [b], set: 3 }
respond: { status: 200, body: '${default(steps.b.output, \"none\")}' }
";

#[test]
fn a_paused_run_begins_nothing_and_goes_on_when_it_is_resumed() {
    let plan = plan(WORK);
    let mut harness = Harness::of_api(&plan);
    harness.perform_due();
    let refused = harness.give_command_by("ann", ControlCommand::Resume { reason: None });
    assert_eq!(refused, Err(NotApplicable("it is not paused".into())));
    harness.give_command_by("ann", ControlCommand::Pause { reason: Some("stock-taking".into()) }).unwrap();
    assert_eq!(harness.run.note().as_deref(), Some("ann paused it: stock-taking"));
    assert!(matches!(harness.give_command_by("bob", ControlCommand::Pause { reason: None }), Err(NotApplicable(_))));
    harness.replies("a", None, ok(json!({})));
    assert_eq!((harness.status(), harness.in_flight_names().len()), (RunStatus::Paused, 0), "calls under way ended");
    assert_eq!(harness.causes(), ["paused"]);
    harness.give_command_by("ann", ControlCommand::Resume { reason: None }).unwrap();
    assert_eq!(harness.in_flight_names(), ["b"]);
}

#[test]
fn a_command_to_retry_starts_the_next_attempt_at_once() {
    let plan = plan(WORK);
    let mut harness = Harness::of_api(&plan);
    harness.perform_due();
    let retry = |step: Option<&str>| ControlCommand::Retry { step: step.map(StepId::from), attempt: None };
    assert!(matches!(harness.give_command_by("ann", retry(Some("a"))), Err(NotApplicable(_))), "the step is under way");
    harness.replies("a", None, status(429));
    assert_eq!((harness.in_flight_names().len(), harness.causes()), (0, vec!["retry"]));
    harness.give_command_by("ann", retry(None)).unwrap();
    assert_eq!(harness.in_flight_names(), ["a"]);
    assert_eq!(harness.give_command_by("ann", retry(Some("x"))), Err(CommandRefusal::NoSuchStep));
}

#[test]
fn a_command_to_skip_skips_a_step_and_its_dependents_and_only_where_that_is_possible() {
    let plan = plan(WORK);
    let mut harness = Harness::of_api(&plan);
    harness.perform_due();
    let skip = |step: &str| ControlCommand::Skip { step: step.into(), reason: None };
    assert!(matches!(harness.give_command_by("ann", skip("a")), Err(NotApplicable(why)) if why.contains("under way")));
    harness.give_command_by("ann", skip("b")).unwrap();
    assert!(matches!(harness.give_command_by("ann", skip("b")), Err(NotApplicable(why)) if why.contains("ended")));
    harness.replies("a", None, ok(json!({})));
    assert_eq!((harness.status(), harness.run.was_skipped(&"c".into())), (RunStatus::Completed, true));
    let mut harness = Harness::of_api(&plan);
    harness.perform_due();
    harness.replies("a", None, status(429));
    harness.give_command_by("ann", skip("a")).unwrap();
    assert_eq!(harness.status(), RunStatus::Completed, "a step whose attempt did nothing may be skipped");
    let mut harness = Harness::of_api(&plan);
    harness.perform_due();
    harness.replies("a", None, status(409));
    assert_eq!(harness.run.conflict().map(|c| c.kind), Some(ConflictKind::Refused));
    harness.give_command_by("ann", skip("a")).unwrap();
    assert_eq!(harness.status(), RunStatus::Completed);
}

#[test]
fn an_input_that_a_call_cannot_send_is_refused() {
    let plan = plan(
        "
workflow: w
steps:
  ask: { checkpoint: { question: Go on? } }
  form: { needs: [ask], call: 'POST ${services.bank}/form', form: { a: '1' } }
  raw: { needs: [ask], call: 'POST ${services.bank}/raw', raw: '${request.raw}' }
respond: { status: 200, body: done }
",
    );
    let mut harness = Harness::of_api(&plan);
    harness.perform_due();
    let adjust = |step: &str, input: Value| ControlCommand::Adjust {
        step: step.into(),
        item: None,
        input: Arc::new(input),
        reason: None,
    };
    for input in [json!([1]), json!("a=1"), json!(null)] {
        let refused = harness.give_command_by("ann", adjust("form", input.clone()));
        assert!(matches!(refused, Err(CommandRefusal::BadValues(_))), "{input}: {refused:?}");
    }
    let refused = harness.give_command_by("ann", adjust("raw", json!({ "a": 1 })));
    assert!(matches!(refused, Err(NotApplicable(_))), "{refused:?}");
    harness.give_command_by("ann", adjust("form", json!({ "a": 2 }))).unwrap();
    harness.answers("ann", yes()).unwrap();
    let sent = harness.run.attempt(&"form".into(), None, crate::workflow::StepPart::Do).unwrap();
    assert_eq!(sent.request.body, crate::workflow::Payload::Text("a=2".into()));
}

#[test]
fn an_input_is_adjusted_before_its_step_begins() {
    let plan = plan(WORK);
    let mut harness = Harness::of_api(&plan);
    harness.perform_due();
    let adjust = |step: &str, item, input: Value| ControlCommand::Adjust {
        step: step.into(),
        item,
        input: Arc::new(input),
        reason: None,
    };
    assert!(
        matches!(harness.give_command_by("ann", adjust("a", None, json!(1))), Err(NotApplicable(why)) if why.contains("begun"))
    );
    assert!(matches!(harness.give_command_by("ann", adjust("b", Some(0), json!(1))), Err(NotApplicable(_))));
    harness.give_command_by("ann", adjust("b", None, json!({"n": 20}))).unwrap();
    harness.give_command_by("ann", adjust("c", None, json!(30))).unwrap();
    harness.replies("a", None, ok(json!({})));
    assert_eq!(harness.sent_bodies(), [json!({"n": 1}), json!({"n": 20})]);
    harness.replies("b", None, ok(json!({})));
    assert_eq!(harness.output("c")["output"], json!(30));
}

#[test]
fn a_rehearsal_asks_nobody() {
    let rehearsed = PICK.replace("on_reject: skip", "on_reject: skip\n    rehearse: { id: 2 }");
    let run = |yaml: &str, mode| {
        let plan = plan(yaml);
        let mut harness = Harness::new(&plan, mode, json!({"body": {"items": [1]}}));
        harness.perform_due();
        (harness.status(), harness.run.failure().map(|failure| failure.kind))
    };
    for mode in [Mode::Rehearse, Mode::Dark] {
        assert_eq!(run(&rehearsed, mode), (RunStatus::Completed, None));
        assert_eq!(run(PICK, mode), (RunStatus::Failed, Some(FailureKind::NeedsPerson)));
        assert_eq!(run(SHIP, mode), (RunStatus::Failed, Some(FailureKind::NeedsSignal)));
    }
    let wrong = PICK.replace("on_reject: skip", "on_reject: skip\n    rehearse: { id: 9 }");
    assert_eq!(run(&wrong, Mode::Dark), (RunStatus::Failed, Some(FailureKind::Schema)));
}

#[test]
fn the_view_shows_open_checkpoints_until_the_run_is_cancelled() {
    let plan = plan(PICK);
    let mut harness = Harness::of_api(&plan);
    harness.perform_due();
    let look = |harness: &Harness<'_>| view(harness.events.iter().map(|event| (harness.now, event))).unwrap();
    let seen = look(&harness);
    assert_eq!(seen.checkpoints.len(), 1);
    assert_eq!((seen.steps[0].step.as_str(), seen.steps[0].status), ("pick", StepStatus::WaitingCheckpoint));
    let reason = &harness.reasons()[0];
    assert!(
        reason.sentence.starts_with("`pick` waits for ann or bob: Which of 3?; since 0 s (1970-01-01T"),
        "{}",
        reason.sentence
    );
    harness.give_command_by("x", ControlCommand::Cancel { compensate: false, reason: None, automatic: false }).unwrap();
    let seen = look(&harness);
    assert_eq!((seen.status, seen.checkpoints.len()), (RunStatus::Cancelled, 0));
    assert_eq!(seen.steps[0].status, StepStatus::Skipped);
    let late = ControlCommand::Answer { checkpoint: "chk_x".into(), answer: yes() };
    assert_eq!(harness.give_command_by("ann", late), Err(CommandRefusal::Ended));
    assert!(harness.choose("pick", None, Choice::Skip).is_err());
}

#[test]
fn timeouts_are_later_by_the_length_of_a_pause() {
    let plan = plan(
        "
workflow: w
steps:
  ok: { checkpoint: { question: sure, timeout: 1h, on_timeout: approve } }
  paid: { wait: { signal: paid, timeout: 2h, on_timeout: continue } }
  nap: { wait: { for: 30m } }
  charge: { needs: [ok], call: 'POST ${services.bank}/charges' }
respond: { status: 200 }
",
    );
    let mut harness = Harness::of_api(&plan);
    harness.perform_due();
    harness.advance_seconds(600);
    harness.give_command_by("ann", ControlCommand::Pause { reason: None }).unwrap();
    harness.advance_seconds(4 * 3600);
    harness.give_command_by("ann", ControlCommand::Resume { reason: None }).unwrap();
    harness.perform_due();
    assert_eq!(harness.in_flight_names(), Vec::<String>::new(), "nobody has approved the charge");
    assert!(harness.output("nap").is_object(), "a pause does not postpone the time that a step waits for");
    assert_eq!(harness.run.summary(harness.now).wake, Some("1970-01-01T05:00:00Z".parse().unwrap()));
    harness.advance_seconds(3000 - 1);
    assert_eq!(harness.in_flight_names(), Vec::<String>::new());
    harness.advance_seconds(1);
    assert_eq!(harness.in_flight_names(), ["charge"], "the question had fifty minutes left when the run was paused");
    harness.replies("charge", None, ok(json!({})));
    assert_eq!(harness.status(), RunStatus::WaitingSignal);
    harness.advance_seconds(3600);
    assert_eq!(harness.status(), RunStatus::Completed);
    assert_eq!(fold(&harness.events).unwrap(), harness.run);
}

const DEFAULT: &str = "
workflow: w
steps:
  q:
    checkpoint:
      question: How much?
      schema: { type: object, required: [amount], properties: { amount: { type: number, maximum: 100 } } }
      timeout: 1h
      on_timeout: approve
      default: { amount: '${request.body.amount}' }
  pay: { needs: [q], call: 'POST ${services.bank}/pay', body: { amount: '${steps.q.output.amount}' } }
respond: { status: 200, body: done }
";

#[test]
fn a_default_that_the_schema_refuses_approves_nothing() {
    let plan = plan(DEFAULT);
    let with = |amount: Value| {
        let mut harness = Harness::started_with(&plan, |first| {
            first.request = Arc::new(json!({ "body": { "amount": amount } }));
            first.route = None;
        });
        harness.perform_due();
        assert_eq!(harness.status(), RunStatus::WaitingCheckpoint);
        harness
    };
    let mut fits = with(json!(50));
    fits.advance_seconds(3600);
    assert_eq!(fits.sent_bodies(), [json!({ "amount": 50 })]);
    for amount in [json!(1_000_000), json!("abc")] {
        let mut nobody_answers = with(amount.clone());
        nobody_answers.advance_seconds(3600);
        assert!(nobody_answers.sent.is_empty(), "{amount}");
        assert_eq!(nobody_answers.run.failure().map(|failure| failure.kind), Some(FailureKind::Rejected), "{amount}");
        let mut answered = with(amount);
        answered.answers("alice", yes_with(json!({ "amount": 70 }))).unwrap();
        assert_eq!(answered.sent_bodies(), [json!({ "amount": 70 })]);
    }
}

//! Runs whose plan needs a service or a workflow that the files in force do not have.

use super::harness::{plan, timed_out};
use super::*;
use crate::limits::Limits;
use crate::workflow::{Choice, ConflictKind, Missing, StepPart, is_requested_repeat, missing};

mod values;

const CHARGE: &str = "
workflow: w
steps:
  first: { call: 'POST ${services.bank}/first', undo: 'DELETE ${services.gone}/first' }
  charge: { needs: [first], call: 'POST ${services.gone}/charges', fallback: invoice, not_done: [503] }
  invoice: { fallback_only: true, call: 'POST ${services.bank}/invoices' }
  last: { needs: [charge], run: other }
respond: { status: 200, body: '${steps.charge.by}' }
";

fn stored_plan() -> Plan {
    stored_plan_with(&BTreeMap::new())
}

/// The stored plan as it is loaded with files that have these services.
fn stored_plan_with(services: &BTreeMap<ServiceName, bool>) -> Plan {
    let source: Value = serde_saphyr::from_str(CHARGE).unwrap();
    Plan::from_stored(&source, services, &Limits { steps_max: 1, ..Limits::default() }).unwrap()
}

fn with_gone(harness: &mut Harness<'_>) {
    let services = json!({"bank": "", "stock": "", "gone": "http://gone"});
    harness.inputs.services = Arc::new(services);
    harness.settle();
}

#[test]
fn a_stored_plan_is_not_checked_against_the_current_files() {
    let plan = stored_plan();
    assert_eq!(plan.steps.len(), 4, "the plan is not checked against the present limits either");
    assert!(!plan.step(&"charge".into()).unwrap().1.call(StepPart::Do).unwrap().keyed);
    let inputs = inputs().with_workflows([]);
    let all: Vec<String> =
        missing::all(&plan, None, &inputs).into_iter().map(|(step, missing)| format!("{step}: {missing}")).collect();
    let expected = ["charge: the service `gone`", "first: the service `gone`", "last: the workflow `other`"];
    assert_eq!(all, expected);
    assert!(Plan::from_stored(&json!({"workflow": "w", "steps": 1}), &BTreeMap::new(), &Limits::default()).is_err());
}

#[test]
fn a_run_pauses_over_a_missing_service_and_goes_on_after_a_reload() {
    let plan = stored_plan();
    let mut harness = Harness::of_route(&plan);
    harness.settle();
    harness.call("first", ok(json!({})));
    let conflict = harness.run.conflict().unwrap().clone();
    assert_eq!((conflict.kind, conflict.attempt), (ConflictKind::Missing, 0));
    assert_eq!(conflict.choices, ["retry", "skip", "take", "fallback", "cancel"]);
    assert!(harness.run.note().is_some_and(|note| missing::is_noted(&note)), "{:?}", harness.run.note());
    assert!(harness.in_flight_names().is_empty() && harness.due().is_empty());
    harness.choose("charge", None, Choice::Retry).unwrap();
    assert!(harness.run.misses_something(), "the service is still missing");
    with_gone(&mut harness);
    assert_eq!(harness.in_flight_names(), ["charge"]);
    let attempt = harness.run.attempt(&"charge".into(), None, StepPart::Do).unwrap();
    assert_eq!((attempt.attempt, attempt.request.url.as_str()), (1, "http://gone/charges"));
}

#[test]
fn a_person_may_choose_the_fallback_when_nothing_was_sent() {
    let plan = stored_plan();
    let mut harness = Harness::of_route(&plan);
    harness.settle();
    harness.call("first", ok(json!({})));
    harness.choose("charge", None, Choice::Fallback).unwrap();
    assert_eq!(harness.in_flight_names(), ["invoice"]);
}

#[test]
fn the_outcome_of_an_attempt_stays_unknown_if_it_could_not_be_sent_again() {
    let (plan, keyed) = (stored_plan(), stored_plan_with(&BTreeMap::from([(ServiceName::from("gone"), true)])));
    let mut harness = Harness::of_route(&plan);
    with_gone(&mut harness);
    harness.call("first", ok(json!({})));
    let gone = inputs();
    harness.inputs = gone;
    let index = plan.step(&"charge".into()).unwrap().0;
    let result = AttemptResult::Missing("x".into());
    let record = Command::Record {
        step: index,
        item: None,
        part: StepPart::Do,
        attempt: 1,
        result,
        may_be_repeat: true,
        jitter: 0.5,
    };
    harness.command(record).unwrap();
    harness.settle();
    let conflict = harness.run.conflict().unwrap();
    assert_eq!((conflict.kind, conflict.attempt), (ConflictKind::Missing, 1));
    assert!(!conflict.choices.contains(&"fallback".to_owned()), "an earlier attempt may have been sent");
    harness.plan = &keyed;
    with_gone(&mut harness);
    assert_eq!(harness.run.attempt(&"charge".into(), None, StepPart::Do).unwrap().attempt, 2);
}

/// When the run is paused, a call that waits for its turn at the service is withdrawn, unless it is a repeat that a
/// person asked for.
#[test]
fn only_a_person_asks_for_a_repeat() {
    let plan = plan(
        "
workflow: w
steps:
  a: { call: 'POST ${services.stock}/a', retry: { attempts: 3, base: 1ms, max: 1ms } }
  b: { call: 'POST ${services.bank}/b' }
respond: { status: 200 }
",
    );
    let is_asked_for = |harness: &Harness<'_>, step: &str| {
        let (_, step) = plan.step(&step.into()).unwrap();
        is_requested_repeat(&harness.run, step, None, StepPart::Do)
    };
    let mut harness = Harness::of_route(&plan);
    harness.settle();
    Arc::make_mut(&mut harness.inputs.services).as_object_mut().unwrap().remove("stock");
    harness.call("a", timed_out());
    harness.now += SignedDuration::from_secs(1);
    harness.settle();
    assert!(harness.run.misses_something());
    harness.inputs = inputs();
    harness.settle();
    assert_eq!(harness.run.attempt(&"a".into(), None, StepPart::Do).unwrap().attempt, 2);
    assert!(!is_asked_for(&harness, "a"), "a reload began the attempt");
    harness.call("b", timed_out());
    harness.choose("b", None, Choice::Retry).unwrap();
    assert_eq!(harness.run.attempt(&"b".into(), None, StepPart::Do).unwrap().attempt, 2);
    assert!(is_asked_for(&harness, "b"));
    harness.cancel(false).unwrap();
    assert!(!is_asked_for(&harness, "b"), "the cancellation calls off the attempt");
}

/// After the reload that ends the pause, the attempts so far still count, and the deadline begins anew.
#[test]
fn a_reload_gives_a_step_no_further_attempts() {
    let plan = plan(
        "
workflow: w
steps:
  a: { call: 'POST ${services.stock}/a', retry: { attempts: 3, base: 10s, max: 10s }, deadline: 1m }
respond: { status: 200 }
",
    );
    let mut harness = Harness::of_route(&plan);
    harness.settle();
    for attempt in 1..=3 {
        let in_flight = harness.run.attempt(&"a".into(), None, StepPart::Do).unwrap();
        let until = harness.now + SignedDuration::from_mins(1);
        assert_eq!((in_flight.attempt, in_flight.until), (attempt, Some(until)));
        Arc::make_mut(&mut harness.inputs.services).as_object_mut().unwrap().remove("stock");
        harness.call("a", status(429));
        if attempt < 3 {
            assert!(harness.run.misses_something(), "{:?}", harness.run.note());
            harness.now += SignedDuration::from_mins(10);
            harness.inputs = inputs();
            harness.settle();
        }
    }
    assert_eq!(harness.run.status(), RunStatus::Failed, "all attempts are used up");
}

/// The check of files refuses `request.peer`; a run that began before this was refused keeps its plan.
#[test]
fn a_stored_plan_that_reads_the_address_of_the_caller_is_still_read() {
    let source = json!({
        "workflow": "w",
        "steps": { "a": { "set": "${default(request.peer, 'unknown')}" } },
        "respond": { "status": 200, "body": "${steps.a.output}" },
    });
    let plan = Plan::from_stored(&source, &BTreeMap::new(), &Limits::default()).unwrap();
    let mut harness = Harness::of_route(&plan);
    harness.settle();
    assert_eq!(harness.run.answer().unwrap().body.value(), json!("unknown"));
}

#[test]
fn an_undo_whose_service_is_missing_waits_for_it() {
    let plan = stored_plan();
    let mut harness = Harness::of_route(&plan);
    harness.settle();
    harness.call("first", ok(json!({})));
    harness.cancel(true).unwrap();
    let conflict = harness.run.conflict().unwrap();
    assert_eq!(
        (conflict.kind, conflict.part, conflict.step.as_str()),
        (ConflictKind::Missing, StepPart::Undo, "first")
    );
    with_gone(&mut harness);
    assert_eq!(harness.in_flight_names(), ["undo first"]);
    harness.undo("first", ok(json!({})));
    assert_eq!(harness.run.status(), RunStatus::Cancelled);
}

#[test]
fn a_run_waits_for_a_missing_workflow() {
    let plan = plan("{ workflow: w, steps: { last: { run: other } }, respond: { status: 200 } }");
    let mut harness = Harness::of_api(&plan);
    harness.inputs = inputs().with_workflows([]);
    harness.settle();
    let last = crate::workflow::StepIndex(0);
    let begin = || Command::BeginChild { step: last, item: None, child: RunId(uuid::Uuid::from_u128(9)) };
    harness.command(begin()).unwrap();
    assert_eq!(harness.run.conflict().unwrap().kind, ConflictKind::Missing);
    assert_eq!(
        missing::all(&plan, Some(&harness.run), &harness.inputs).into_iter().next().unwrap().1,
        Missing::Workflow("other".into())
    );
    harness.inputs = inputs().with_workflows(["other".into()]);
    harness.settle();
    harness.command(begin()).unwrap();
    assert_eq!(harness.run.children().count(), 1);
}

/// The workflow existed when the step began, and was gone when the child run was to be started.
#[test]
fn a_run_waits_for_a_child_whose_workflow_is_missing() {
    let plan = plan("{ workflow: w, steps: { last: { run: other } }, respond: { status: 200 } }");
    let begun = |id: u128| {
        let child = RunId(uuid::Uuid::from_u128(id));
        (child, Command::BeginChild { step: crate::workflow::StepIndex(0), item: None, child })
    };
    let without_workflow = || {
        let mut harness = Harness::of_api(&plan);
        let (child, begin) = begun(9);
        harness.command(begin).unwrap();
        harness.inputs = inputs().with_workflows([]);
        harness.command(Command::ChildHasNoWorkflow { child }).unwrap();
        harness.settle();
        harness
    };
    let mut harness = without_workflow();
    let conflict = harness.run.conflict().unwrap().clone();
    assert_eq!((conflict.kind, conflict.step.as_str(), conflict.attempt), (ConflictKind::Missing, "last", 0));
    assert!(conflict.message.contains("the workflow `other`"), "{}", conflict.message);
    assert!(harness.run.note().is_some_and(|note| missing::is_noted(&note)), "{:?}", harness.run.note());
    assert_eq!(
        (harness.run.children().count(), harness.due()),
        (0, Vec::new()),
        "the run waits for a reload of the files"
    );
    harness.inputs = inputs().with_workflows(["other".into()]);
    harness.settle();
    assert!(!harness.run.misses_something());
    let (child, begin) = begun(10);
    harness.command(begin).unwrap();
    assert_eq!(harness.run.children().map(|known| known.run).collect::<Vec<_>>(), [child], "another id");
    for (choice, status) in
        [(Choice::Skip, RunStatus::Completed), (Choice::Cancel { compensate: true }, RunStatus::Cancelled)]
    {
        let mut harness = without_workflow();
        harness.choose("last", None, choice).unwrap();
        assert_eq!(harness.run.status(), status);
    }
    let mut harness = Harness::of_api(&plan);
    let (child, begin) = begun(9);
    harness.command(begin).unwrap();
    harness.cancel(true).unwrap();
    harness.command(Command::ChildHasNoWorkflow { child }).unwrap();
    harness.settle();
    assert_eq!(harness.run.status(), RunStatus::Cancelled, "a run that ends waits for nothing");
}

const PROBED: &str = "
workflow: w
steps:
  charge:
    call: POST ${services.bank}/charges
    retry: { attempts: 1 }
    probe: { call: 'GET ${services.gone}/charges', retry: { attempts: 3 }, done: '${output.found}' }
  invoice: { needs: [charge], set: 1 }
respond: { status: 200 }
";

/// The attempt's outcome stays unknown: its probe needs the missing service, and nothing is sent again.
#[test]
fn a_probe_whose_service_is_missing_waits_for_it() {
    let source: Value = serde_saphyr::from_str(PROBED).unwrap();
    let plan = Plan::from_stored(&source, &BTreeMap::new(), &Limits::default()).unwrap();
    let unknown = || {
        let mut harness = Harness::of_route(&plan);
        harness.settle();
        harness.call("charge", AttemptResult::TimedOut("x".into()));
        harness
    };
    let assert_waits = |harness: &Harness<'_>| {
        let conflict = harness.run.conflict().unwrap().clone();
        assert_eq!((conflict.kind, conflict.part), (ConflictKind::Missing, StepPart::Probe));
        assert!(conflict.message.contains("its probe cannot ask: it needs the service `gone`"), "{}", conflict.message);
        assert!(
            conflict.key.is_some() && conflict.request.is_some(),
            "with the key and the request a person can ask the service"
        );
        assert_eq!(
            conflict.choices,
            ["retry", "skip", "take", "cancel"],
            "no fallback, because the call may have been done"
        );
        assert!(harness.run.note().is_some_and(|note| missing::is_noted(&note)));
        assert!(harness.in_flight_names().is_empty() && harness.due().is_empty(), "{:?}", harness.due());
    };
    let mut harness = unknown();
    assert_waits(&harness);
    harness.choose("charge", None, Choice::Retry).unwrap();
    assert_waits(&harness);
    with_gone(&mut harness);
    assert_eq!(harness.in_flight_names(), ["probe charge"], "the step itself is not sent again");
    // The service is removed once more between two of the probe's attempts.
    harness.inputs = inputs();
    harness.record_result("charge", None, StepPart::Probe, status(503));
    assert_waits(&harness);
    with_gone(&mut harness);
    harness.record_result("charge", None, StepPart::Probe, ok(json!({"found": true})));
    assert_eq!(harness.run.status(), RunStatus::Completed);
    let sent = harness.events.iter().filter(|event| matches!(event, Event::StepStarted(s) if s.part == StepPart::Do));
    assert_eq!(sent.count(), 1);

    // If a person decides instead, the charge may have been done, and stays listed unless the person gives its output.
    let mut skipped = unknown();
    skipped.choose("charge", None, Choice::Skip).unwrap();
    assert_eq!(skipped.run.status(), RunStatus::Completed);
    let mut taken = unknown();
    taken.choose("charge", None, super::harness::take_output(json!({"id": 1}))).unwrap();
    assert_eq!(taken.run.status(), RunStatus::Completed);
    for compensate in [true, false] {
        let mut cancelled = unknown();
        cancelled.cancel(compensate).unwrap();
        assert_eq!(cancelled.run.status(), RunStatus::Cancelled);
        assert!(cancelled.run.note().unwrap().ends_with("not undone: `charge`"), "{:?}", cancelled.run.note());
    }
}

#[test]
fn an_input_that_the_childs_workflow_refuses_pauses_a_run_of_the_api_until_it_gets_another() {
    let plan = plan(
        "
workflow: w
steps:
  first: { call: 'POST ${services.bank}/first', undo: 'DELETE ${services.bank}/first' }
  kid: { needs: [first], run: other, input: { amount: five } }
respond: { status: 200, body: done }
",
    );
    let refused = |mut harness: Harness<'static>| {
        harness.settle();
        harness.call("first", ok(json!({})));
        let child = RunId(uuid::Uuid::from_u128(9));
        let begin = Command::BeginChild { step: crate::workflow::StepIndex(1), item: None, child };
        harness.command(begin).unwrap();
        harness.command(Command::ChildInputRefused { child, why: "/amount is no number".into() }).unwrap();
        harness.settle();
        harness
    };
    let plan: &'static Plan = Box::leak(Box::new(plan));
    let mut harness = refused(Harness::of_api(plan));
    let conflict = harness.run.conflict().unwrap().clone();
    assert_eq!((conflict.kind, conflict.attempt), (ConflictKind::Expression, 0));
    assert_eq!(
        conflict.message, "`kid`: `other` does not take this input: /amount is no number",
        "the message names no run"
    );
    let input = Arc::new(json!({ "amount": 5 }));
    harness.choose("kid", None, Choice::RetryWith { input: input.clone() }).unwrap();
    let child = RunId(uuid::Uuid::from_u128(10));
    harness.command(Command::BeginChild { step: crate::workflow::StepIndex(1), item: None, child }).unwrap();
    let begun: Vec<_> = harness.run.children().map(|known| (known.run, known.input)).collect();
    assert_eq!(begun, [(child, input)]);
    let harness = refused(Harness::of_route(plan));
    assert_eq!(harness.run.failure().map(|failure| failure.kind), Some(FailureKind::ChildFailed));
    assert_eq!(harness.in_flight_names(), ["undo first"]);
}

#[test]
fn a_refused_input_of_an_item_is_collected_where_the_step_collects_failures() {
    let plan = plan(
        "
workflow: w
steps: { rows: { for_each: '${[1, 2]}', failures: collect, run: other, input: '${item}' } }
respond: { status: 200, body: '${size(steps.rows.errors)}' }
",
    );
    let mut harness = Harness::of_api(&plan);
    harness.settle();
    let child = RunId(uuid::Uuid::from_u128(9));
    let begin = Command::BeginChild { step: crate::workflow::StepIndex(0), item: Some(0), child };
    harness.command(begin).unwrap();
    harness.command(Command::ChildInputRefused { child, why: "it is no map".into() }).unwrap();
    assert!(harness.run.conflict().is_none(), "{:?}", harness.run.conflict());
    assert!(harness.run.open_step(&"rows".into()).is_some_and(|open| open.has_ended(0)));
}

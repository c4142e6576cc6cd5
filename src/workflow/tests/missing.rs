//! A run keeps its plan, and the files have lost what it needs.

use super::kit::plan;
use super::*;
use crate::limits::Limits;
use crate::workflow::{Choice, ConflictKind, Missing, Part, missing};

const CHARGE: &str = "
workflow: w
steps:
  first: { call: 'POST ${services.bank}/first', undo: 'DELETE ${services.gone}/first' }
  charge: { needs: [first], call: 'POST ${services.gone}/charges', fallback: invoice, not_done: [503] }
  invoice: { fallback_only: true, call: 'POST ${services.bank}/invoices' }
  last: { needs: [charge], run: other }
respond: { status: 200, body: '${steps.charge.by}' }
";

fn kept() -> Plan {
    let source: Value = serde_saphyr::from_str(CHARGE).unwrap();
    Plan::kept(&source, &BTreeMap::new(), &Limits { steps_max: 1, ..Limits::default() }).unwrap()
}

fn with_gone(bench: &mut Bench<'_>) {
    let services = json!({"bank": "http://bank", "stock": "http://stock", "gone": "http://gone"});
    bench.world.services = Arc::new(services);
    bench.settle();
}

#[test]
fn a_kept_plan_is_not_held_against_today_s_files() {
    let plan = kept();
    assert_eq!(plan.steps.len(), 4, "nor against today's limits");
    assert!(!plan.step(&"charge".into()).unwrap().1.call(Part::Do).unwrap().keyed);
    let world = world().with_workflows([]);
    let all: Vec<String> =
        missing::all(&plan, None, &world).into_iter().map(|(step, missing)| format!("{step}: {missing}")).collect();
    let expected = ["charge: the service `gone`", "first: the service `gone`", "last: the workflow `other`"];
    assert_eq!(all, expected);
    assert!(Plan::kept(&json!({"workflow": "w", "steps": 1}), &BTreeMap::new(), &Limits::default()).is_err());
}

#[test]
fn what_is_missing_pauses_and_goes_on_by_itself() {
    let plan = kept();
    let mut bench = Bench::of_route(&plan);
    bench.settle();
    bench.call("first", ok(json!({})));
    let conflict = bench.run.conflict().unwrap().clone();
    assert_eq!((conflict.kind, conflict.attempt), (ConflictKind::Missing, 0));
    assert_eq!(conflict.choices, ["retry", "skip", "take", "fallback", "cancel"]);
    assert!(bench.run.note().is_some_and(|note| missing::is_noted(&note)), "{:?}", bench.run.note());
    assert!(bench.flying().is_empty() && bench.due().is_empty());
    bench.choose("charge", None, Choice::Retry).unwrap();
    assert!(bench.run.misses_something(), "it is asked again");
    with_gone(&mut bench);
    assert_eq!(bench.flying(), ["charge"]);
    let attempt = bench.run.attempt(&"charge".into(), None, Part::Do).unwrap();
    assert_eq!((attempt.attempt, attempt.request.url.as_str()), (1, "http://gone/charges"));
}

#[test]
fn the_fallback_may_be_chosen_as_nothing_was_sent() {
    let plan = kept();
    let mut bench = Bench::of_route(&plan);
    bench.settle();
    bench.call("first", ok(json!({})));
    bench.choose("charge", None, Choice::Fallback).unwrap();
    assert_eq!(bench.flying(), ["invoice"]);
}

#[test]
fn an_attempt_that_could_not_be_sent_again_costs_none_and_stays_unknown() {
    let plan = kept();
    let mut bench = Bench::of_route(&plan);
    with_gone(&mut bench);
    bench.call("first", ok(json!({})));
    let gone = world();
    bench.world = gone;
    let place = plan.step(&"charge".into()).unwrap().0;
    let heard = AttemptResult::Missing("x".into());
    let record =
        Command::Record { step: place, item: None, part: Part::Do, attempt: 1, heard, again: true, jitter: 0.5 };
    bench.ask(record).unwrap();
    bench.settle();
    let conflict = bench.run.conflict().unwrap();
    assert_eq!((conflict.kind, conflict.attempt), (ConflictKind::Missing, 1));
    assert!(!conflict.choices.contains(&"fallback".to_owned()), "it may have been sent before");
    with_gone(&mut bench);
    assert_eq!(bench.run.attempt(&"charge".into(), None, Part::Do).unwrap().attempt, 2);
}

#[test]
fn an_undo_waits_for_its_service_too() {
    let plan = kept();
    let mut bench = Bench::of_route(&plan);
    bench.settle();
    bench.call("first", ok(json!({})));
    bench.cancel(true).unwrap();
    let conflict = bench.run.conflict().unwrap();
    assert_eq!((conflict.kind, conflict.part, conflict.step.as_str()), (ConflictKind::Missing, Part::Undo, "first"));
    with_gone(&mut bench);
    assert_eq!(bench.flying(), ["undo first"]);
    bench.undo("first", ok(json!({})));
    assert_eq!(bench.run.status(), RunStatus::Cancelled);
}

#[test]
fn a_workflow_that_is_not_there_is_waited_for() {
    let plan = plan("{ workflow: w, steps: { last: { run: other } }, respond: { status: 200 } }");
    let mut bench = Bench::of_api(&plan);
    bench.world = world().with_workflows([]);
    bench.settle();
    let last = crate::workflow::StepIndex(0);
    let begin = || Command::BeginChild { step: last, item: None, child: RunId(uuid::Uuid::from_u128(9)) };
    bench.ask(begin()).unwrap();
    assert_eq!(bench.run.conflict().unwrap().kind, ConflictKind::Missing);
    assert_eq!(
        missing::all(&plan, Some(&bench.run), &bench.world).into_iter().next().unwrap().1,
        Missing::Workflow("other".into())
    );
    bench.world = world().with_workflows(["other".into()]);
    bench.settle();
    bench.ask(begin()).unwrap();
    assert_eq!(bench.run.children().count(), 1);
}

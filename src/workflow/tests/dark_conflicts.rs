//! Conflicts in dark: nobody resolves them, so they end the run.

use super::harness::plan;
use super::*;
use crate::limits::Limits;
use crate::workflow::{ConflictKind, replay_with};

const PAY: &str = "
workflow: w
steps:
  pay: { call: 'POST ${services.bank}/pay', effect: private, undo: 'DELETE ${services.bank}/pay' }
  slow: { call: 'GET ${services.bank}/slow' }
  next: { needs: [pay, slow], call: 'GET ${services.bank}/next' }
respond: { status: 200 }
";

fn cut_off() -> AttemptResult {
    AttemptResult::CutOff("the connection was closed".into())
}

/// In a real run the same conflict waits for a person.
#[test]
fn a_conflict_ends_a_dark_run_once_its_calls_have_ended() {
    let plan = plan(PAY);
    for mode in [Mode::Dark, Mode::Real] {
        let mut harness = Harness::new(&plan, mode, json!({"body": {}}));
        harness.settle();
        harness.call("pay", cut_off());
        assert_eq!(harness.run.conflict().map(|conflict| conflict.kind), Some(ConflictKind::OutcomeUnknown));
        assert_eq!(harness.status(), RunStatus::Paused, "a call is under way");
        harness.call("slow", ok(json!({})));
        let kind = harness.run.failure().map(|failure| failure.kind);
        let expected = match mode {
            Mode::Dark => (RunStatus::Failed, Some(FailureKind::WouldPause)),
            Mode::Real | Mode::Rehearse => (RunStatus::Paused, None),
        };
        assert_eq!((harness.status(), kind), expected, "{mode:?}");
        assert_eq!(harness.run.conflicts().is_empty(), mode == Mode::Dark);
        assert!(!harness.kinds().contains(&"compensation_began"));
        assert_eq!(harness.run.undone().is_empty(), mode == Mode::Real, "calls with unknown outcome are listed");
        let events: Vec<_> = harness.events.iter().map(|event| (harness.now, event.clone())).collect();
        assert_eq!(replay_with(&events, &plan, &harness.inputs).unwrap(), [], "{mode:?}");
    }
}

/// What could not be undone is listed, and the run ends.
#[test]
fn an_undo_that_fails_ends_a_dark_run() {
    let plan = plan(PAY);
    let mut harness = Harness::new(&plan, Mode::Dark, json!({"body": {}}));
    harness.settle();
    harness.call("pay", ok(json!({})));
    harness.call("slow", status(400));
    harness.undo("pay", status(409));
    assert_eq!(harness.status(), RunStatus::Failed);
    assert_eq!(harness.run.failure().map(|failure| failure.kind), Some(FailureKind::WouldPause));
    assert!(harness.run.conflicts().is_empty());
}

/// A reload of the files may bring what is missing, so no person is needed.
#[test]
fn a_dark_run_waits_for_files_that_have_what_is_missing() {
    let source =
        json!({ "workflow": "w", "steps": { "look": { "call": "GET ${services.gone}/look" } }, "respond": {} });
    let plan = Plan::from_stored(&source, &BTreeMap::new(), &Limits::default()).unwrap();
    let mut harness = Harness::new(&plan, Mode::Dark, json!({"body": {}}));
    harness.settle();
    assert_eq!(harness.run.conflict().map(|conflict| conflict.kind), Some(ConflictKind::Missing));
    assert_eq!(harness.status(), RunStatus::Paused);
    harness.inputs.services = Arc::new(json!({ "gone": "http://gone" }));
    harness.settle();
    assert_eq!((harness.status(), harness.in_flight_names()), (RunStatus::Running, vec!["look".to_owned()]));
}

/// The run is ending, and only the missing service would keep it open.
#[test]
fn a_dark_run_that_is_ending_waits_for_no_files() {
    let source = json!({
        "workflow": "w",
        "steps": {
            "pay": {
                "call": "POST ${services.bank}/pay",
                "effect": "private",
                "probe": { "call": "GET ${services.gone}/pay", "done": "${output.done}" },
            },
            "other": { "call": "GET ${services.bank}/other" },
        },
        "respond": {},
    });
    let plan = Plan::from_stored(&source, &BTreeMap::new(), &Limits::default()).unwrap();
    for fails_first in [true, false] {
        let mut harness = Harness::new(&plan, Mode::Dark, json!({"body": {}}));
        harness.settle();
        for step in if fails_first { ["other", "pay"] } else { ["pay", "other"] } {
            harness.call(step, if step == "pay" { cut_off() } else { status(400) });
        }
        let kind = harness.run.failure().map(|failure| failure.kind);
        assert_eq!((harness.status(), kind), (RunStatus::Failed, Some(FailureKind::WouldPause)), "{fails_first}");
        assert!(!harness.run.undone().is_empty(), "calls with unknown outcome are listed");
    }
}

/// A child that waits would keep the run open, and its locks held. The child's cancellation is not a failure of the
/// run, which would undo what the run did.
#[test]
fn a_conflict_in_dark_ends_the_child_runs() {
    let source = json!({
        "workflow": "w",
        "steps": {
            "first": { "call": "POST ${services.bank}/first", "effect": "private", "undo": "DELETE ${services.bank}/first" },
            "pay": { "call": "POST ${services.bank}/pay", "effect": "private", "on_conflict": "pause" },
            "sub": { "run": "other" },
        },
        "respond": {},
    });
    let plan = Plan::from_stored(&source, &BTreeMap::new(), &Limits::default()).unwrap();
    for (result, kind) in [(cut_off(), ConflictKind::OutcomeUnknown), (status(409), ConflictKind::Refused)] {
        let mut harness = Harness::new(&plan, Mode::Dark, json!({"body": {}}));
        harness.perform_due();
        assert_eq!((harness.children().len(), harness.commands_to_children()), (1, vec![]));
        harness.call("first", ok(json!({})));
        harness.call("pay", result);
        assert_eq!(harness.run.conflict().map(|conflict| conflict.kind), Some(kind));
        assert_eq!(harness.commands_to_children(), ["cancel"]);
        let child = harness.children()[0];
        harness.child_ends(child, RunStatus::Cancelled, Value::Null);
        let failed = harness.run.failure().map(|failure| failure.kind);
        assert_eq!((harness.status(), failed), (RunStatus::Failed, Some(FailureKind::WouldPause)), "{kind:?}");
        assert!(!harness.kinds().contains(&"compensation_began"));
    }
}

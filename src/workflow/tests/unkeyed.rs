//! A service that is not `keyed` any more: a call that was sent while it was keyed is not sent again.

use super::harness::timed_out;
use super::*;
use crate::limits::Limits;
use crate::workflow::{Choice, ConflictKind, ControlCommand, DeclaredNames, StepPart};

fn plan_of(is_keyed: bool) -> Plan {
    let source: Value = serde_saphyr::from_str(
        "
workflow: w
steps:
  charge:
    call: POST ${services.stock}/charges
    retry: { attempts: 3, base: 1ms, max: 1ms }
    undo: { call: 'POST ${services.stock}/refunds', retry: { attempts: 3, base: 1ms, max: 1ms } }
  put: { call: 'PUT ${services.stock}/puts', retry: { attempts: 3, base: 1ms, max: 1ms } }
respond: { status: 200 }
",
    )
    .unwrap();
    let services = BTreeMap::from([(ServiceName::from("stock"), is_keyed)]);
    let known = DeclaredNames {
        services: &services,
        secrets: &BTreeSet::new(),
        has_store_key: false,
        limits: &Limits::default(),
    };
    Plan::from_source(&source, &known).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

fn end_attempt(harness: &mut Harness<'_>, step: &str, part: StepPart, result: AttemptResult) {
    let attempt = harness.run.attempt(&step.into(), None, part).expect("the attempt is under way").attempt;
    let step = harness.plan.step(&step.into()).unwrap().0;
    harness
        .command(Command::Record { step, item: None, part, attempt, result, may_be_repeat: false, jitter: 0.5 })
        .unwrap();
}

#[test]
fn an_unknown_attempt_is_not_repeated_by_files_that_say_its_service_is_not_keyed() {
    let (keyed, unkeyed) = (plan_of(true), plan_of(false));
    assert_eq!(keyed.id, unkeyed.id, "a run loads its plan with the services of the files in force");
    // The outcome became unknown before the restart, or because of the restart.
    for (ends_before, result) in [(true, timed_out()), (false, AttemptResult::Interrupted)] {
        for plan in [&keyed, &unkeyed] {
            let mut harness = Harness::of_api(&keyed);
            harness.settle();
            for step in ["charge", "put"] {
                if ends_before {
                    end_attempt(&mut harness, step, StepPart::Do, result.clone());
                }
            }
            harness.plan = plan;
            for step in ["charge", "put"] {
                if !ends_before {
                    end_attempt(&mut harness, step, StepPart::Do, result.clone());
                }
            }
            harness.settle();
            if std::ptr::eq(plan, &keyed) {
                assert_eq!(harness.in_flight_names(), ["charge", "put"]);
                continue;
            }
            let conflict = harness.run.conflict().expect("a conflict is open");
            assert_eq!((conflict.kind, conflict.step.as_str()), (ConflictKind::OutcomeUnknown, "charge"));
            assert_eq!(conflict.message.contains("is not `keyed` in the files in force"), ends_before);
            harness.choose("charge", None, Choice::Retry).unwrap();
            harness.advance_seconds(1);
            assert_eq!(
                harness.in_flight_names(),
                ["charge", "put"],
                "a person asked for the repeat of `charge`; a PUT needs no key"
            );
        }
    }
}

#[test]
fn an_unknown_undo_is_not_repeated_by_files_that_say_its_service_is_not_keyed() {
    let (keyed, unkeyed) = (plan_of(true), plan_of(false));
    for (ends_before, result) in [(true, timed_out()), (false, AttemptResult::Interrupted)] {
        let mut harness = Harness::of_api(&keyed);
        harness.settle();
        harness.call("charge", ok(json!({})));
        harness.give_command(ControlCommand::Cancel { compensate: true, reason: None, automatic: false }).unwrap();
        harness.call("put", status(400));
        assert_eq!(harness.in_flight_names(), ["undo charge"]);
        if ends_before {
            end_attempt(&mut harness, "charge", StepPart::Undo, result.clone());
        }
        harness.plan = &unkeyed;
        if !ends_before {
            end_attempt(&mut harness, "charge", StepPart::Undo, result);
        }
        harness.settle();
        let conflict = harness.run.conflict().expect("a conflict is open");
        assert_eq!((conflict.kind, conflict.part), (ConflictKind::UndoUnknown, StepPart::Undo));
        assert!(harness.in_flight_names().is_empty());
        harness.choose("charge", None, Choice::Retry).unwrap();
        assert_eq!(harness.in_flight_names(), ["undo charge"]);
    }
}

/// The service was missing for a while. The reload that ends the pause does not count as a person's wish for another
/// attempt.
#[test]
fn an_unknown_attempt_is_not_repeated_when_its_service_comes_back_without_keys() {
    let (keyed, unkeyed) = (plan_of(true), plan_of(false));
    let mut harness = Harness::of_api(&keyed);
    harness.settle();
    harness.call("put", ok(json!({})));
    end_attempt(&mut harness, "charge", StepPart::Do, timed_out());
    let all = harness.inputs.services.clone();
    Arc::make_mut(&mut harness.inputs.services).as_object_mut().unwrap().remove("stock");
    harness.settle();
    assert_eq!(harness.run.conflict().map(|open| open.kind), Some(ConflictKind::Missing));
    (harness.inputs.services, harness.plan) = (all, &unkeyed);
    harness.settle();
    let kinds: Vec<_> = harness.run.conflicts().iter().map(|open| (open.step.as_str(), open.kind)).collect();
    assert_eq!(kinds, [("charge", ConflictKind::OutcomeUnknown)]);
    assert!(!harness.in_flight_names().contains(&"charge".to_owned()), "{:?}", harness.in_flight_names());
}

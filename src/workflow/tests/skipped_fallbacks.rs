//! Fallbacks of whole steps that are skipped: by a person, by a "no", or because of a lock.

use super::harness::plan;
use super::people_harness::{no, review};
use super::*;
use crate::workflow::{Choice, ControlCommand, LockPosition};

/// A plan in which `a` is not done, nor is its fallback `b`; `c` is the fallback of `b`, with these settings.
fn chain(c: &str) -> Plan {
    plan(&format!(
        "
workflow: w
steps:
  a: {{ call: 'POST ${{services.bank}}/a', retry: {{ attempts: 1 }}, fallback: b }}
  b: {{ fallback_only: true, call: 'POST ${{services.bank}}/b', retry: {{ attempts: 1 }}, fallback: c }}
  c: {{ fallback_only: true, {c} }}
  last: {{ needs: [a], set: 1 }}
respond: {{ status: 200, body: '${{[steps.a.skipped, steps.b.skipped, steps.c.skipped, steps.last.skipped]}}' }}
"
    ))
}

/// Skips `c` after it has replaced `b`.
type Skip = fn(&mut Harness<'_>);

const CALL: &str = "call: 'POST ${services.stock}/c', retry: { attempts: 2, base: 1s, max: 1s }";

fn says_no(harness: &mut Harness<'_>) {
    harness.answers("ann", no()).unwrap();
}

fn gives_skip(harness: &mut Harness<'_>) {
    harness.give_command_by("ann", ControlCommand::Skip { step: "c".into(), reason: None }).unwrap();
}

#[test]
fn a_step_whose_fallback_is_skipped_is_skipped_too() {
    let question = "checkpoint: { question: Sure?, timeout: 1h, on_timeout: reject }, on_reject: skip";
    let risky = format!("{CALL}, on_reject: skip");
    let cases: [(String, Skip); 8] = [
        (question.into(), says_no),
        (question.into(), |harness| harness.advance_seconds(3600)),
        (question.into(), gives_skip),
        (format!("{risky}, risk: medium"), says_no),
        (format!("{risky}, risk: high, body: [1, 2]"), |harness| {
            harness.answers("ann", review(&[], &[0, 1])).unwrap();
        }),
        (format!("{CALL}, lock: {{ key: k, busy: skip }}"), |harness| {
            let holder = RunId(uuid::Uuid::from_u128(9));
            harness.see_lock("c", None, LockPosition::Behind { holder }).unwrap();
        }),
        (format!("{CALL}, lock: {{ busy: skip }}"), |harness| harness.replies("c", None, status(423))),
        (format!("{CALL}, deadline: 1h"), |harness| {
            harness.replies("c", None, status(429));
            gives_skip(harness);
        }),
    ];
    for (c, skip) in cases {
        let plan = chain(&c);
        let mut harness = Harness::of_api(&plan);
        harness.perform_due();
        harness.replies("a", None, status(429));
        harness.replies("b", None, status(429));
        skip(&mut harness);
        assert_eq!(harness.status(), RunStatus::Completed, "{c}: {:?}", harness.run.note());
        assert_eq!(harness.run.answer().unwrap().body.value(), json!([true, true, true, true]), "{c}");
    }
}

/// The person resolves the conflict over the last fallback by skipping it: a single event skips the whole chain.
#[test]
fn a_person_who_skips_the_last_fallback_of_a_chain_skips_all_steps_of_the_chain() {
    let plan = chain(CALL);
    let mut harness = Harness::of_api(&plan);
    harness.perform_due();
    harness.replies("a", None, status(429));
    harness.replies("b", None, status(429));
    harness.replies("c", None, status(409));
    let choice = Choice::Skip;
    harness
        .give_command_by(
            "ann",
            ControlCommand::Resolve { step: "c".into(), item: None, attempt: None, choice, reason: None },
        )
        .unwrap();
    assert_eq!(harness.status(), RunStatus::Completed, "{:?}", harness.run.note());
    assert_eq!(harness.run.answer().unwrap().body.value(), json!([true, true, true, true]));
}

/// If a fallback does not run because of its conditions, nobody has decided to leave the step out.
#[test]
fn a_step_whose_fallback_does_not_run_has_failed() {
    for c in ["set: 1, if: '${false}'", "set: 1, needs: [other]"] {
        let plan = plan(&format!(
            "
workflow: w
steps:
  a: {{ call: 'POST ${{services.bank}}/a', retry: {{ attempts: 1 }}, fallback: c }}
  c: {{ fallback_only: true, {c} }}
  other: {{ set: 1, if: '${{false}}' }}
respond: {{ status: 200 }}
"
        ));
        let mut harness = Harness::of_api(&plan);
        harness.perform_due();
        harness.replies("a", None, status(429));
        assert_eq!(harness.status(), RunStatus::Failed, "{c}");
    }
}

//! Single cases: what the machine does after one input.

use std::time::Duration;

use jiff::SignedDuration;
use serde_json::json;

use super::copies::move_to_call;
use super::faults::reply;
use super::plans;
use super::rig::{Pending, Rig, plan};
use crate::engine::machine::{CallerAnswer, CommandAnswer, CommandId, DriverEnd, Input, Output, WakeCause};
use crate::exchange::ArmReply;
use crate::store::AppendError;
use crate::workflow::{Choice, ControlCommand, Event, RunStatus, StepPart};

fn rig(name: &str) -> Rig {
    let (_, plan) = plans().into_iter().find(|(known, _)| *known == name).unwrap();
    let mut rig = Rig::new(&plan);
    rig.begin();
    rig
}

/// Answers pending requests until the next one is an append.
fn move_to_append(rig: &mut Rig) {
    while !matches!(rig.pending.front(), Some(Pending::Append(_))) {
        let pending = rig.pending.pop_front().expect("something is under way");
        let input = rig.resolve(pending);
        rig.step(input);
    }
}

#[test]
fn a_read_does_not_wait_for_the_store_and_a_shared_call_does() {
    let mut rig = rig("saga");
    assert!(matches!(rig.pending.pop_front(), Some(Pending::Call(read)) if read.attempt.step.as_str() == "look"));
    assert!(rig.pending.is_empty(), "a run that has only read is not appended yet");
    let mut rig = self::rig("saga");
    move_to_append(&mut rig);
    assert_eq!(rig.pending.len(), 1, "the shared call waits");
}

#[test]
fn an_append_of_unknown_outcome_is_retried_unchanged_with_growing_pauses() {
    let mut rig = rig("saga");
    move_to_append(&mut rig);
    let Some(Pending::Append(first)) = rig.pending.pop_front() else { panic!("an append is under way") };
    rig.pauses.clear();
    for _ in 0..10 {
        rig.step(Input::AppendFinished(Err(AppendError::Unavailable("no answer".into()))));
        let Some(Pending::Append(retry)) = rig.pending.pop_front() else { panic!("the append is retried") };
        assert_eq!((retry.batch, retry.first, &retry.events), (first.batch, first.first, &first.events));
        assert!(rig.pending.is_empty(), "no call is sent meanwhile");
    }
    let ms: Vec<_> = rig.pauses.iter().map(Duration::as_millis).collect();
    assert_eq!(ms, [40, 80, 160, 320, 640, 1_280, 2_560, 2_560, 2_560, 2_560]);
    let [CallerAnswer::Reply(reply)] = &rig.caller[..] else { panic!("the caller gets one reply: {:?}", rig.caller) };
    assert!(matches!(&**reply, ArmReply::Refused(problem, _) if problem.kind == "outcome-unknown"), "{reply:?}");
    assert!(rig.violations.is_empty(), "{:?}", rig.violations);
}

#[test]
fn a_first_append_that_is_certainly_refused_gives_the_request_back_to_legacy() {
    let mut rig = rig("saga");
    move_to_append(&mut rig);
    rig.pending.clear();
    rig.step(Input::AppendFinished(Err(AppendError::Refused("the disk is full".into()))));
    assert_eq!(rig.end, Some(DriverEnd::Discarded));
    let [CallerAnswer::Reply(reply)] = &rig.caller[..] else { panic!("the caller gets one reply: {:?}", rig.caller) };
    assert!(matches!(&**reply, ArmReply::Abandoned(abandoned) if abandoned.reason == "store_refused"), "{reply:?}");
}

/// The refusal of a repeated append does not tell whether the first one was stored.
#[test]
fn a_refusal_after_an_unknown_outcome_is_not_certain() {
    let mut rig = rig("saga");
    move_to_append(&mut rig);
    rig.pending.clear();
    rig.step(Input::AppendFinished(Err(AppendError::Unavailable("no answer".into()))));
    rig.pending.clear();
    rig.step(Input::AppendFinished(Err(AppendError::Refused("the disk is full".into()))));
    assert_eq!(rig.end, None, "the append is retried");
    assert!(matches!(rig.pending.front(), Some(Pending::Append(_))));
    rig.finish();
    assert_eq!((rig.status(), rig.violations), (Some(RunStatus::Completed), Vec::<String>::new()));
}

#[test]
fn a_deadline_before_the_first_append_discards_the_run_without_an_event() {
    let mut rig = rig("saga");
    rig.now = rig.timer.expect("the caller's deadline");
    rig.step(Input::Time);
    assert_eq!((rig.end, rig.stored.len()), (Some(DriverEnd::Discarded), 0));
}

/// A run that has failed by the deadline does not answer `respond.pending`, even where the plan declares it.
#[test]
fn a_run_that_fails_at_the_deadline_goes_back_to_legacy_in_spite_of_a_pending_answer() {
    let plan = plan(&json!({
        "workflow": "w",
        "steps": { "look": { "call": "GET ${services.bank}/a" } },
        "respond": [{ "status": 200, "body": {} }, { "pending": { "status": 202, "body": {} } }],
    }));
    for (status, gives_back) in [(404, true), (200, false)] {
        let mut rig = Rig::new(&plan);
        rig.begin();
        let Some(Pending::Call(look)) = rig.pending.pop_front() else { panic!("a call is under way") };
        rig.now = rig.timer.expect("the caller's deadline");
        rig.step(Input::CallFinished { call: look.id, result: reply(status, json!({})) });
        rig.finish();
        let [CallerAnswer::Reply(reply)] = &rig.caller[..] else { panic!("one reply: {:?}", rig.caller) };
        assert_eq!(matches!(**reply, ArmReply::Abandoned(_)), gives_back, "{reply:?}");
    }
}

/// The caller's deadline comes while the append of a shared step is in flight: whatever its outcome, the caller is not
/// told that nothing was done.
#[test]
fn a_deadline_while_an_effect_is_recorded_never_says_not_started() {
    for outcome in [Ok(()), Err(AppendError::Unavailable("no answer".into()))] {
        let mut rig = rig("saga");
        move_to_append(&mut rig);
        rig.now = rig.timer.expect("the caller's deadline");
        rig.step(Input::Time);
        assert!(rig.caller.is_empty() && rig.end.is_none(), "no answer before the result of the append");
        let Some(pending) = rig.pending.pop_front() else { panic!("an append is in flight") };
        match outcome {
            Ok(()) => {
                let input = rig.resolve(pending);
                rig.step(input);
            }
            Err(error) => rig.step(Input::AppendFinished(Err(error))),
        }
        rig.finish();
        let [CallerAnswer::Reply(reply)] = &rig.caller[..] else {
            panic!("the caller gets one reply: {:?}", rig.caller)
        };
        let ArmReply::Refused(problem, _) = &**reply else { panic!("{reply:?}") };
        assert!(["run-goes-on", "outcome-unknown"].contains(&problem.kind.as_str()), "{problem:?}");
        assert_eq!(problem.shared_step_begun, Some(true), "{problem:?}");
        assert_eq!((rig.status(), rig.violations), (Some(RunStatus::Completed), Vec::<String>::new()));
    }
}

#[test]
fn a_frozen_run_waits_for_the_end_of_the_freeze_and_completes_after_it() {
    let mut rig = rig("saga");
    rig.frozen = true;
    rig.step(Input::Freeze(true));
    let read = rig.pending.pop_front().unwrap();
    let input = rig.resolve(read);
    rig.step(input);
    rig.step(Input::CallerGone);
    assert!(rig.pending.is_empty() && rig.end.is_none(), "no call is sent, and the run has not answered the caller");
    rig.frozen = false;
    rig.step(Input::Freeze(false));
    rig.finish();
    assert_eq!((rig.status(), rig.violations), (Some(RunStatus::Completed), Vec::<String>::new()));
}

#[test]
fn a_run_that_waits_for_a_person_names_the_person_as_its_cause() {
    let mut rig = rig("people");
    while rig.end.is_none() {
        let input = match rig.pending.pop_front() {
            Some(pending) => rig.resolve(pending),
            None => {
                rig.now = rig.timer.expect("a time");
                Input::Time
            }
        };
        rig.step(input);
    }
    assert_eq!(rig.end, Some(DriverEnd::Suspended { cause: WakeCause::Person, wake: None }));
}

/// Only a bug gives a command events that do not fit the run. Here it is a plan in which the step makes no call.
#[test]
fn a_command_whose_events_do_not_fit_is_refused_and_the_run_goes_on() {
    let plan_with = |step: serde_json::Value| {
        plan(&json!({ "workflow": "w", "steps": { "pay": step }, "respond": { "status": 200, "body": {} } }))
    };
    let right = plan_with(json!({ "call": "POST ${services.bank}/pay", "on_conflict": "pause" }));
    let mut rig = Rig::new(&right);
    rig.begin();
    move_to_call(&mut rig, "pay", StepPart::Do);
    let Some(Pending::Call(pay)) = rig.pending.pop_front() else { panic!("the call is under way") };
    rig.step(Input::CallFinished { call: pay.id, result: reply(409, json!({})) });
    let before = rig.machine.run().clone();
    let command = |choice: Choice| Input::Command {
        command_id: CommandId(1),
        command: ControlCommand::Resolve { step: "pay".into(), item: None, attempt: None, choice, reason: None },
        by: "ann".into(),
        owned: true,
    };
    rig.machine.set_plan(plan_with(json!({ "set": 1 })));
    let outputs = rig.machine.step(rig.now, command(Choice::Take { output: Default::default() }));
    let refused = outputs.iter().find_map(|output| match output {
        Output::AnswerCommand(_, CommandAnswer::Refused { refusal, .. }) => Some(refusal.to_string()),
        _ => None,
    });
    assert!(refused.as_ref().is_some_and(|why| why.contains("nothing has changed")), "{outputs:?}");
    assert!(*rig.machine.run() == before && rig.machine.misfit().is_none());
    rig.machine.set_plan(right);
    rig.step(command(Choice::Skip));
    rig.finish();
    assert_eq!((rig.status(), rig.violations), (Some(RunStatus::Completed), Vec::<String>::new()));
}

/// A run with two shared calls under way, of which the first has been answered.
fn one_of_two_calls_answered() -> Rig {
    let plan = plan(&json!({
        "workflow": "both",
        "steps": { "a": { "call": "POST ${services.bank}/a" }, "b": { "call": "POST ${services.bank}/b" } },
        "respond": { "status": 200, "body": {} },
    }));
    let mut rig = Rig::new(&plan);
    rig.begin();
    move_to_call(&mut rig, "a", StepPart::Do);
    let Some(Pending::Call(call)) = rig.pending.pop_front() else { panic!("a call is under way") };
    rig.step(Input::CallFinished { call: call.id, result: reply(200, json!({})) });
    assert!(matches!(rig.pending.make_contiguous(), [Pending::Call(_)]), "nothing waits for the result of `a`");
    rig
}

fn appends_the_result(rig: &Rig) -> bool {
    rig.pending.iter().any(|pending| match pending {
        Pending::Append(append) => append.events.iter().any(|(_, event)| matches!(event, Event::StepFinished(_))),
        _ => false,
    })
}

#[test]
fn the_result_of_a_shared_call_is_appended_soon_although_another_call_is_under_way() {
    let mut rig = one_of_two_calls_answered();
    let due = rig.timer.expect("the append is due");
    assert!(due.duration_since(rig.now) <= SignedDuration::from_millis(10));
    rig.now = due;
    rig.step(Input::Time);
    assert!(appends_the_result(&rig));
    rig.finish();
    assert_eq!((rig.status(), rig.violations), (Some(RunStatus::Completed), Vec::<String>::new()));
}

#[test]
fn a_draining_process_appends_the_results_that_it_has() {
    let mut rig = one_of_two_calls_answered();
    rig.step(Input::Drain);
    assert!(appends_the_result(&rig));
}

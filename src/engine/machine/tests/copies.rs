//! Runs of a store that is a copy, such as a restored backup: calls in flight when the copy was made.

use serde_json::json;

use super::faults::reply;
use super::plans;
use super::rig::{Pending, Rig, plan};
use crate::engine::machine::{CallRequest, Input};
use crate::workflow::{Event, RunStatus, StepPart, StepStarted};

/// Answers pending requests until the next one is a call of this part of this step.
pub(super) fn move_to_call(rig: &mut Rig, step: &str, part: StepPart) {
    loop {
        match rig.pending.front().expect("something is under way") {
            Pending::Call(call) if call.attempt.step.as_str() == step && call.attempt.part == part => return,
            _ => {}
        }
        let pending = rig.pending.pop_front().expect("something is under way");
        let input = rig.resolve(pending);
        rig.step(input);
    }
}

pub(super) fn pending_calls(rig: &Rig) -> Vec<&CallRequest> {
    rig.pending.iter().filter_map(|pending| if let Pending::Call(call) = pending { Some(call) } else { None }).collect()
}

fn starts(rig: &Rig, part: StepPart) -> Vec<&StepStarted> {
    let starts = rig.stored.iter().filter_map(|(_, event)| match event {
        Event::StepStarted(start) if start.part == part => Some(start),
        _ => None,
    });
    starts.collect()
}

#[test]
fn a_call_that_a_copy_interrupted_costs_no_attempt() {
    let plan = plan(&json!({
        "workflow": "once",
        "steps": {
            "look": { "call": "GET ${services.bank}/look", "retry": { "attempts": 1 } },
            "take": { "needs": ["look"], "call": "POST ${services.stock}/take", "retry": { "attempts": 1 } },
        },
        "respond": { "status": 200, "body": {} },
    }));
    let mut rig = Rig::new(&plan);
    rig.begin();
    move_to_call(&mut rig, "take", StepPart::Do);
    rig.recover_copy();
    assert!(pending_calls(&rig).is_empty(), "nothing is sent before a person resumes the run");
    rig.finish(); // a person resumes it
    let keys: Vec<_> =
        starts(&rig, StepPart::Do).iter().filter(|s| s.step.as_str() == "take").map(|s| &s.key).collect();
    assert!(keys.len() == 2 && keys[0] == keys[1] && keys[0].is_some(), "it is sent again with its key: {keys:?}");
    assert_eq!((rig.status(), rig.violations), (Some(RunStatus::Completed), Vec::<String>::new()));
}

/// A pause lets the calls in flight end. In a copy none is in flight any more, and none is sent again before a person
/// resumes the run.
#[test]
fn a_copied_run_that_a_person_had_paused_sends_nothing_before_it_is_resumed() {
    let (_, plan) = plans().into_iter().find(|(name, _)| *name == "saga").unwrap();
    let mut rig = Rig::new(&plan);
    rig.begin();
    move_to_call(&mut rig, "take", StepPart::Do);
    let pause = rig.pause();
    let call = rig.pending.pop_front();
    rig.step(pause);
    let append = rig.pending.pop_front().expect("the pause is stored");
    let input = rig.resolve(append);
    rig.step(input);
    drop(call);
    rig.recover_copy();
    assert!(pending_calls(&rig).is_empty(), "nothing is sent before a person resumes the run");
    rig.finish();
    assert_eq!((rig.status(), rig.violations), (Some(RunStatus::Completed), Vec::<String>::new()));
}

/// The process of the original store may have undone the other steps after the copy was made.
#[test]
fn a_copied_run_that_is_ending_undoes_nothing_before_it_is_resumed() {
    let (_, plan) = plans().into_iter().find(|(name, _)| *name == "saga").unwrap();
    let mut rig = Rig::new(&plan);
    rig.begin();
    move_to_call(&mut rig, "pay", StepPart::Do);
    let Some(Pending::Call(pay)) = rig.pending.pop_front() else { panic!("the call of `pay` is under way") };
    rig.step(Input::CallFinished { call: pay.id, result: reply(400, json!({})) });
    move_to_call(&mut rig, "take", StepPart::Undo);
    rig.recover_copy();
    assert!(pending_calls(&rig).is_empty(), "nothing is sent before a person resumes the run");
    rig.finish(); // a person resumes it
    let keys: Vec<_> = starts(&rig, StepPart::Undo).iter().map(|start| &start.key).collect();
    assert!(keys.len() == 2 && keys[0] == keys[1], "the undo is sent again with its key: {keys:?}");
    assert_eq!((rig.status(), rig.violations), (Some(RunStatus::Failed), Vec::<String>::new()));
}

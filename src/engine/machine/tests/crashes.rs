//! A crash after each output of each step of the driver (one input, not a step of the workflow); another driver
//! continues from the stored events.

use serde_json::json;

use super::copies::{move_to_call, pending_calls};
use super::plans;
use super::rig::{self, Crash, Pending, Rig};
use crate::engine::machine::Input;
use crate::workflow::{RunStatus, StepPart};

/// The next input: the result of the oldest pending request, or the timer; `None` where nothing is pending or the run
/// has ended.
fn next_input(rig: &mut Rig) -> Option<Input> {
    if rig.end.is_some() {
        return None;
    }
    match (rig.pending.pop_front(), rig.timer) {
        (Some(pending), _) => Some(rig.resolve(pending)),
        (None, Some(at)) => {
            rig.now = rig.now.max(at);
            Some(Input::Time)
        }
        (None, None) => None,
    }
}

/// Takes this many steps, then performs this many outputs of the next step. Returns how many outputs were performed;
/// `None` if the run had ended or had nothing pending before that step.
fn run_partly(rig: &mut Rig, steps: usize, outputs: usize) -> Option<usize> {
    let mut input = Input::Begin { frozen: false, draining: false };
    for _ in 0..steps {
        rig.step(input);
        input = next_input(rig)?;
    }
    Some(rig.step_until(input, outputs))
}

/// The files of the next process say that the service does not honour keys: the call that was in flight is not sent
/// again.
#[test]
fn a_call_in_flight_is_repeated_after_a_crash_only_where_its_service_is_still_keyed() {
    let definition = json!({
        "workflow": "pay",
        "steps": { "pay": { "call": "POST ${services.stock}/pay" } },
        "respond": { "status": 200, "body": {} },
    });
    for is_keyed in [true, false] {
        let mut rig = Rig::new(&rig::plan(&definition));
        let outputs = run_partly(&mut rig, 1, usize::MAX);
        assert!(outputs.is_some() && matches!(rig.pending.front(), Some(Pending::Call(_))), "the call is in flight");
        rig.plan = rig::plan_with(&definition, is_keyed);
        rig.recover();
        let is_sent = rig.pending.iter().any(|pending| matches!(pending, Pending::Call(_)));
        assert_eq!(is_sent, is_keyed);
    }
}

#[test]
fn a_crash_after_any_output_loses_nothing_and_does_nothing_twice() {
    let (mut violations, mut tried) = (Vec::new(), 0);
    for (name, plan) in plans() {
        for steps in 0..40 {
            let Some(outputs) = run_partly(&mut Rig::new(&plan), steps, usize::MAX) else { break };
            for performed in 0..=outputs {
                for (appends_written, calls_arrived) in [(false, false), (true, false), (false, true), (true, true)] {
                    let mut rig = Rig::new(&plan);
                    run_partly(&mut rig, steps, performed);
                    let acknowledged = rig.stored[..rig.acknowledged].to_vec();
                    rig.crash(Crash { appends_written, calls_arrived });
                    rig.finish();
                    tried += 1;
                    let at = format!(
                        "{name}, step {steps}, output {performed}, written {appends_written}, arrived {calls_arrived}"
                    );
                    if !rig.stored.starts_with(&acknowledged) {
                        rig.violations.push("I1: acknowledged events are lost".into());
                    }
                    violations.extend(rig.violations.into_iter().map(|violation| format!("{at}: {violation}")));
                }
            }
        }
    }
    assert!(tried > 300, "{tried} crashes were tried");
    assert!(
        violations.is_empty(),
        "{} of {tried}:\n{}",
        violations.len(),
        violations[..violations.len().min(20)].join("\n")
    );
}

/// A person pauses or cancels the run while a repeatable call is under way; then the process ends. The call is sent
/// again unless the run ends without undoing anything.
#[test]
fn the_next_process_repeats_no_call_of_a_run_that_was_cancelled_without_undoing() {
    let (_, plan) = plans().into_iter().find(|(name, _)| *name == "saga").unwrap();
    type CommandOf = fn(&mut Rig) -> Input;
    let commands: [(CommandOf, usize, RunStatus); 3] = [
        (Rig::pause, 1, RunStatus::Completed),
        (|rig| rig.cancel(false), 0, RunStatus::Cancelled),
        (|rig| rig.cancel(true), 1, RunStatus::Cancelled),
    ];
    for (command, sent_again, end) in commands {
        let mut rig = Rig::new(&plan);
        rig.begin();
        move_to_call(&mut rig, "take", StepPart::Do);
        rig.pending.pop_front();
        let input = command(&mut rig);
        rig.step(input);
        let append = rig.pending.pop_front().expect("the command is stored");
        let input = rig.resolve(append);
        rig.step(input);
        rig.recover();
        assert_eq!(pending_calls(&rig).len(), sent_again, "{end:?}");
        rig.finish(); // a person resumes a paused run
        assert_eq!((rig.status(), &rig.violations), (Some(end), &Vec::<String>::new()));
        let note = rig.acknowledged_run().and_then(|run| run.note()).unwrap_or_default();
        assert_eq!(note.contains("not undone: `take`"), end == RunStatus::Cancelled && sent_again == 0, "{note}");
    }
}

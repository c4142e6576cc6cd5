//! Generic tests of every workflow of the example set: each of its calls fails in turn, and the process
//! is killed after each.
//!
//! A run without faults shows which calls a workflow makes. Then each kind of fault is injected into each call: the run
//! has to come to a defined end without partial effects. And for each call the process is killed after the effect and
//! before its record: the next process sends the same key and bytes again, or asks a person. A workflow that is added
//! to the example set is tested without further work.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pointsman::demo::world::Fault;
use pointsman::names::{StepId, WorkflowName};
use pointsman::workflow::{Choice, ControlCommand, Run, RunStatus, UndoStatus};
use serde_json::json;

use crate::support::in_process_engine::{InProcessEngine, OPERATIONS, WorkflowRun};
use crate::support::until_true;

/// One call of a workflow: the operation, and how many calls of it came before in the run.
type CallPosition = (&'static str, u64);

/// What goes wrong with one call, and for how many of its attempts.
const FAULTS: [(&str, Fault, usize); 9] = [
    ("refused", Fault::Refuse(400), 1),
    ("conflict", Fault::Refuse(409), 1),
    ("not done", Fault::Refuse(429), 1),
    ("never done", Fault::Refuse(429), 100),
    ("unavailable", Fault::Refuse(503), 1),
    ("broken", Fault::Refuse(500), 1),
    ("cut off before", Fault::Close, 1),
    ("cut off after", Fault::LoseReply, 1),
    ("too slow", Fault::DelayReply(Duration::from_millis(900)), 1),
];

/// The example set with short times; every POST goes to a service that honours keys, or none does.
async fn rig(keyed: bool) -> InProcessEngine {
    InProcessEngine::new(|flags| {
        flags.edit("pointsman.yaml", |text| {
            let text = if keyed { text } else { text.replace("keyed: true", "keyed: false") };
            format!("{text}limits: {{ step_timeout_ms: 300 }}\n")
        });
        for workflow in ["create-order", "saga-order", "get-order", "cancel-order"] {
            flags.edit(&format!("workflows/{workflow}.yaml"), |text| {
                text.replace("timeout: 2s", "timeout: 300ms").replace("base: 50ms", "base: 2ms")
            });
        }
    })
    .await
}

/// Every call that a run without faults makes, and its effects.
async fn calls(rig: &InProcessEngine, workflow: &WorkflowName) -> (Vec<CallPosition>, BTreeMap<String, u64>) {
    let workflow_run = rig.prepare(workflow).await;
    let before = rig.arrived();
    workflow_run.send_and_wait().await;
    let run = workflow_run.wait_until_ended_or_paused().await.expect("a run");
    assert_eq!(run.status, RunStatus::Completed, "{workflow} is clean: {:?}", run.note);
    assert_eq!(workflow_run.violations(0).await, Vec::<String>::new());
    let after = rig.arrived();
    let counts = OPERATIONS.iter().map(|operation| (*operation, after[operation] - before[operation]));
    (
        counts.flat_map(|(operation, count)| (0..count).map(move |nth| (operation, nth))).collect(),
        workflow_run.effects(),
    )
}

/// Injects a fault into one call; earlier calls of the same operation have none.
fn inject_fault(rig: &InProcessEngine, (operation, nth): CallPosition, fault: Fault, times: usize) {
    rig.world.fault(operation, Fault::None, usize::try_from(nth).expect("few"));
    rig.world.fault(operation, fault, times);
}

/// Whether the operation is a DELETE, which is idempotent.
fn is_repeatable(operation: &str) -> bool {
    matches!(operation, "release" | "budget-back" | "book-back")
}

/// Waits until a run has ended or is paused, and returns its status (`none` if no run was kept). Records a violation
/// where the run completed with other effects, stopped without a reason, or was not kept although it had effects.
async fn wait_for_end(
    workflow_run: &WorkflowRun<'_>,
    clean: &BTreeMap<String, u64>,
    wrong: &mut Vec<String>,
) -> &'static str {
    let Some(run) = workflow_run.wait_until_ended_or_paused().await else {
        if !workflow_run.effects().is_empty() {
            wrong.push(format!("I1: no run is kept, and this was done: {:?}", workflow_run.effects()));
        }
        return "none";
    };
    match run.status {
        RunStatus::Completed if workflow_run.effects() != *clean => {
            wrong.push(format!("completed, with {:?} instead of {clean:?}", workflow_run.effects()));
        }
        RunStatus::Completed => {}
        RunStatus::Failed | RunStatus::Paused if run.note.is_some() => {}
        other => wrong.push(format!("{other:?} without a reason")),
    }
    run.status.as_str()
}

/// Repeats a run that waits for a person once for each possible decision: all of them have to end.
async fn try_each_choice(
    rig: &InProcessEngine,
    workflow: &WorkflowName,
    position: CallPosition,
    fault: Fault,
    wrong: &mut Vec<String>,
) -> usize {
    let mut choices: Option<Vec<String>> = None;
    let mut tried = 0;
    while choices.as_ref().is_none_or(|choices| tried < choices.len()) {
        let workflow_run = rig.prepare(workflow).await;
        inject_fault(rig, position, fault, 1);
        workflow_run.send_and_wait().await;
        let Some(run) = workflow_run.wait_until_ended_or_paused().await.filter(|run| run.status == RunStatus::Paused)
        else {
            return tried;
        };
        let conflict = workflow_run.state_of(run.run_id).await.conflict().cloned().expect("a conflict");
        let choice = choices.get_or_insert(conflict.choices)[tried].clone();
        tried += 1;
        let chosen = match choice.as_str() {
            "retry" => Choice::Retry,
            "retry_with" => Choice::RetryWith { input: Arc::new(json!({ "amount": 1 })) },
            "skip" => Choice::Skip,
            "take" => Choice::Take { output: Arc::new(json!({ "id": "taken" })) },
            "fallback" => Choice::Fallback,
            "cancel" => Choice::Cancel { compensate: true },
            "cancel_without_undo" => Choice::Cancel { compensate: false },
            other => {
                wrong.push(format!("this test does not know the choice `{other}`"));
                continue;
            }
        };
        let command = ControlCommand::Resolve {
            step: conflict.step.clone(),
            item: conflict.item,
            attempt: None,
            choice: chosen,
            reason: None,
        };
        if let Err(why) = workflow_run.engine().give_command(run.run_id, command, "ann".into()).await {
            wrong.push(format!("{choice} is offered and refused: {why}"));
            continue;
        }
        let mut end = workflow_run.wait_until_ended_or_paused().await.expect("the run");
        if end.status == RunStatus::Paused && matches!(choice.as_str(), "retry_with" | "take" | "skip") {
            // The chosen output, or the skipped step, left a later step or the answer without a value: there is another
            // conflict, which can be resolved.
            let next = workflow_run.state_of(run.run_id).await.conflict().cloned().expect("a conflict");
            let (step, item, choice) = (next.step, next.item, Choice::Cancel { compensate: true });
            let cancel = ControlCommand::Resolve { step, item, attempt: None, choice, reason: None };
            workflow_run.engine().give_command(run.run_id, cancel, "ann".into()).await.expect("it is offered");
            end = workflow_run.wait_until_ended_or_paused().await.expect("the run");
        }
        if !end.status.is_final() {
            wrong.push(format!("after {choice} it is {}: {:?}", end.status.as_str(), end.note));
        }
        let again = u64::from(choice == "retry");
        wrong.extend(workflow_run.violations(again).await.into_iter().map(|found| format!("{choice}: {found}")));
        let left_effect = (conflict.step.clone(), conflict.item);
        let run = workflow_run.state_of(run.run_id).await;
        // A cancel or skip of an unknown outcome leaves the effect as it is, and the run lists it.
        let left = matches!(choice.as_str(), "cancel" | "cancel_without_undo" | "skip");
        wrong.extend(not_undone(rig, workflow, &run, left.then_some(&left_effect)));
    }
    tried
}

/// Steps that were done and declare an `undo`, and that a run which did not complete has not undone.
fn not_undone(
    rig: &InProcessEngine,
    workflow: &WorkflowName,
    run: &Run,
    except: Option<&(StepId, Option<u32>)>,
) -> Vec<String> {
    let plan = rig.plan(workflow);
    let declared = |step| plan.step(step).is_some_and(|(_, step)| step.undo.is_some());
    let left = run.undone().into_iter().filter(|(step, item, undone)| {
        let known = except.is_some_and(|(id, of)| *step == id && item == of);
        declared(step) && !known && *undone != UndoStatus::Undone
    });
    left.map(|(step, item, undone)| format!("`{step}` {item:?} is left: {undone:?}")).collect()
}

async fn each_call_fails_in_turn(keyed: bool) {
    let rig = rig(keyed).await;
    let (mut cases, mut choices, mut wrong, mut ends) = (0, 0, Vec::new(), BTreeMap::<_, u32>::new());
    for workflow in rig.workflows() {
        let (positions, clean) = calls(&rig, &workflow).await;
        for position in positions {
            for (name, fault, times) in FAULTS {
                let workflow_run = rig.prepare(&workflow).await;
                inject_fault(&rig, position, fault, times);
                workflow_run.send_and_wait().await;
                let mut found = Vec::new();
                let end = wait_for_end(&workflow_run, &clean, &mut found).await;
                found.extend(workflow_run.violations(times as u64).await);
                // Where a repetition could have a second effect, nothing is sent again automatically.
                if !keyed && workflow_run.ledger().iter().any(|line| line.repeated && !is_repeatable(&line.operation)) {
                    found.push("a call whose outcome is unknown was sent again".into());
                }
                if let Some(run) = workflow_run.run().await.filter(|run| run.status.is_final()) {
                    found.extend(not_undone(&rig, &workflow, &workflow_run.state_of(run.run_id).await, None));
                }
                if end == "paused" && name != "broken" {
                    choices += try_each_choice(&rig, &workflow, position, fault, &mut found).await;
                }
                wrong.extend(found.into_iter().map(|found| format!("{workflow}, {position:?} {name}: {found}")));
                *ends.entry((name, end)).or_default() += 1;
                cases += 1;
            }
        }
    }
    let choices = format!("{choices} choices of a person");
    eprintln!("{cases} cases, {cases} faults, {choices}, {} violations; ends: {ends:?}", wrong.len());
    eprintln!("to repeat: cargo test --test it every_call_fails_or_repeats::each_call_fails");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

async fn killed_after_each_call(keyed: bool) {
    let rig = rig(keyed).await;
    let (mut cases, mut wrong, mut ends, mut extra) = (0, Vec::new(), BTreeMap::<_, u32>::new(), 0);
    for workflow in rig.workflows() {
        let (positions, clean) = calls(&rig, &workflow).await;
        for position in positions {
            let mut workflow_run = rig.prepare(&workflow).await;
            let arrived = rig.world.arrived(position.0);
            inject_fault(&rig, position, Fault::DelayReply(Duration::from_secs(30)), 1);
            {
                // The outside world performs a call when it arrives.
                let request = workflow_run.send_and_wait();
                let done = until_true("the call to be done", || rig.world.arrived(position.0) > arrived + position.1);
                tokio::select! {
                    _ = request => panic!("{workflow} {position:?}: it was answered before the process ended"),
                    () = done => {}
                }
            }
            rig.world.clear_faults();
            workflow_run.crash().await;
            let mut found = Vec::new();
            let end = wait_for_end(&workflow_run, &clean, &mut found).await;
            found.extend(workflow_run.violations(1).await);
            if keyed && !matches!(end, "completed" | "none") {
                found.push(format!("the run is {end}, though a repeat is harmless"));
            }
            if !keyed && workflow_run.ledger().iter().any(|line| line.repeated && !is_repeatable(&line.operation)) {
                found.push("a call whose outcome is unknown was sent again".into());
            }
            extra += workflow_run.ledger().iter().filter(|line| line.repeated).count();
            wrong.extend(found.into_iter().map(|found| format!("{workflow}, {position:?}: {found}")));
            *ends.entry(end).or_default() += 1;
            cases += 1;
        }
    }
    eprintln!("{cases} cases, {cases} crashes, {extra} calls sent again, {} violations; ends: {ends:?}", wrong.len());
    eprintln!("to repeat: cargo test --test it every_call_fails_or_repeats::killed_after_each_call");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn each_call_fails_in_turn_where_keys_are_honoured() {
    each_call_fails_in_turn(true).await;
}

#[tokio::test]
async fn each_call_fails_in_turn_where_keys_are_not_honoured() {
    each_call_fails_in_turn(false).await;
}

#[tokio::test]
async fn killed_after_each_call_where_keys_are_honoured() {
    killed_after_each_call(true).await;
}

#[tokio::test]
async fn killed_after_each_call_where_keys_are_not_honoured() {
    killed_after_each_call(false).await;
}

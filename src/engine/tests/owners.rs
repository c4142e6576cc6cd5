//! Two processes share one store: each run is executed by one of them at a time.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;

use super::harness::{Harness, ServiceReply, StepService, TIMEOUT, start};
use super::test_stores;
use crate::engine::CommandError;
use crate::limits::Limits;
use crate::store::MemoryStore;
use crate::workflow::testing::PlanBuilder;
use crate::workflow::{CommandRefusal, ControlCommand, Plan, RunStatus, StepStatus};

fn plan() -> Arc<Plan> {
    PlanBuilder::new()
        .call("a", &[], "POST /a", json!({}))
        .call("b", &["a"], "POST /b", json!({}))
        .respond(200, json!({}))
        .build("w")
}

async fn gated_service() -> Arc<StepService> {
    StepService::new(|seen, _| match seen.path.as_str() {
        "/a" => ServiceReply::Gated(200, json!({})),
        _ => ServiceReply::Json(200, json!({})),
    })
    .await
}

fn retry() -> ControlCommand {
    ControlCommand::Retry { step: None, attempt: None }
}

/// Another process takes over the runs of a process that still lives: the first one's appends are refused.
#[tokio::test]
async fn the_appends_of_a_living_process_whose_runs_were_taken_over_are_refused() {
    let step_service = gated_service().await;
    let store = Arc::new(MemoryStore::new());
    let fenced = Harness::with_store(&step_service, plan(), store.clone(), Limits::default(), None).await;
    let run = start(&fenced, json!({})).await.run;
    step_service.wait_for_calls(1).await;
    let other = Harness::with_store(&step_service, plan(), store, Limits::default(), None).await;
    assert_eq!(other.recover().await.resumed, 1);
    // The call may have taken effect: a person has to decide.
    other.wait_until(run, |view| view.status == RunStatus::Paused).await;
    step_service.open_gate();
    let ended = async {
        while fenced.engine.runs_in_flight() > 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, ended).await.expect("the tasks of the fenced process end");
    assert_eq!(other.view(run).await.status, RunStatus::Paused, "nothing of the fenced process is stored");
    assert_eq!(step_service.paths(), ["POST /a"]);
}

#[tokio::test]
async fn a_command_reaches_a_run_that_another_process_executes() {
    let step_service = gated_service().await;
    let store = test_stores::shared();
    let limits = Limits { lease_ms: 300, sweep_ms: 100, command_wait_ms: 3_000, ..Limits::default() };
    let owner = Harness::with_store(&step_service, plan(), store.clone(), limits.clone(), None).await;
    let other = Harness::with_store(&step_service, plan(), store.clone(), limits, None).await;
    owner.recover().await;
    other.recover().await;
    let run = start(&owner, json!({})).await.run;
    step_service.wait_for_calls(1).await;
    let result = other.engine.give_command(run, retry(), "ann".into()).await;
    assert!(matches!(result, Err(CommandError::Refused { .. })), "{result:?}");
    step_service.open_gate();
    // The other process can wait for the run too.
    assert_eq!(other.engine.wait_until_ended_or_awaits_input(run, TIMEOUT).await.unwrap().status, RunStatus::Completed);
    let result = other.engine.give_command(run, retry(), "ann".into()).await;
    assert!(matches!(result, Err(CommandError::Refused { refusal: CommandRefusal::Ended, .. })), "{result:?}");
    let unknown_run = crate::names::RunId(uuid::Uuid::now_v7());
    assert_eq!(other.engine.give_command(unknown_run, retry(), "ann".into()).await, Err(CommandError::NoRun));
}

/// A task of a process whose lease has lapsed waits for a reply while another process executes the run. A command
/// that is sent to the first process is carried out by the second one, and not answered from the memory of the first.
#[tokio::test]
async fn a_task_that_lost_its_run_does_not_answer_from_memory() {
    let step_service = gated_service().await;
    let store = test_stores::shared();
    let limits = Limits { sweep_ms: 50, command_wait_ms: 5_000, ..Limits::default() };
    let fenced = Harness::with_store(&step_service, plan(), store.clone(), limits.clone(), None).await;
    let other = Harness::with_store(&step_service, plan(), store.clone(), limits, None).await;
    fenced.recover().await;
    other.recover().await;
    let run = start(&fenced, json!({})).await.run;
    step_service.wait_for_calls(1).await;
    fenced.engine.core.schedule.lease.lapse();
    store.expire_lease(fenced.engine.core.schedule.worker);
    other.wait_until(run, |view| view.status == RunStatus::Paused).await;
    assert!(fenced.engine.runs_in_flight() > 0, "it still waits for the reply");
    let skip = ControlCommand::Resolve {
        step: "a".into(),
        item: None,
        attempt: None,
        choice: crate::workflow::Choice::Skip,
        reason: None,
    };
    let result = fenced.engine.give_command(run, skip, "ann".into()).await;
    assert!(result.is_ok(), "the owner's copy of the run has a conflict over `a`: {result:?}");
    assert_eq!(other.engine.wait_until_ended_or_awaits_input(run, TIMEOUT).await.unwrap().status, RunStatus::Completed);
}

/// The process that owns the run is gone: the command times out with an unknown outcome.
#[tokio::test]
async fn a_command_that_no_process_carries_out_is_unknown_after_its_timeout() {
    let step_service = gated_service().await;
    let store = test_stores::shared();
    let limits = Limits { command_wait_ms: 200, ..Limits::default() };
    let mut owner = Harness::with_store(&step_service, plan(), store.clone(), limits.clone(), None).await;
    let other = Harness::with_store(&step_service, plan(), store.clone(), limits, None).await;
    owner.recover().await;
    other.recover().await;
    let run = start(&owner, json!({})).await.run;
    step_service.wait_for_calls(1).await;
    let worker = owner.engine.core.schedule.worker;
    owner.crash().await; // its lease is still valid for a while
    let result = other.engine.give_command(run, retry(), "ann".into()).await;
    assert!(matches!(result, Err(CommandError::Store { unknown: true, .. })), "{result:?}");
    store.expire_lease(worker);
}

#[tokio::test]
async fn the_runs_of_a_dead_process_are_taken_over() {
    let step_service = gated_service().await;
    let store = test_stores::shared();
    let limits = Limits { sweep_ms: 50, ..Limits::default() };
    let plan = PlanBuilder::new()
        .call("a", &[], "PUT /a", json!({}))
        .call("b", &["a"], "POST /b", json!({}))
        .respond(200, json!({}))
        .build("w");
    let mut owner = Harness::with_store(&step_service, plan.clone(), store.clone(), limits.clone(), None).await;
    let other = Harness::with_store(&step_service, plan, store.clone(), limits, None).await;
    owner.recover().await;
    other.recover().await;
    let run = start(&owner, json!({})).await.run;
    step_service.wait_for_calls(1).await;
    let worker = owner.engine.core.schedule.worker;
    owner.crash().await;
    store.expire_lease(worker);
    step_service.open_gate();
    assert_eq!(other.engine.wait_until_ended_or_awaits_input(run, TIMEOUT).await.unwrap().status, RunStatus::Completed);
    assert_eq!(step_service.paths(), ["POST /b", "PUT /a", "PUT /a"]);
}

/// A process takes over no more runs than it has places for.
#[tokio::test]
async fn the_runs_of_a_dead_process_go_to_those_that_have_places_for_them() {
    let step_service = gated_service().await;
    let store = test_stores::shared();
    let plan = PlanBuilder::new().call("a", &[], "PUT /a", json!({})).respond(200, json!({})).build("w");
    let large = Limits { sweep_ms: 60_000, ..Limits::default() };
    let small = Limits { runs_in_flight_max: 2, ..large.clone() };
    let mut owner = Harness::with_store(&step_service, plan.clone(), store.clone(), large.clone(), None).await;
    owner.recover().await;
    let worker = owner.engine.core.schedule.worker;
    for _ in 0..6 {
        start(&owner, json!({})).await;
    }
    step_service.wait_for_calls(6).await;
    owner.crash().await;
    store.expire_lease(worker);
    let few = Harness::with_store(&step_service, plan.clone(), store.clone(), small, None).await;
    assert_eq!(few.recover().await.resumed, 2);
    let many = Harness::with_store(&step_service, plan, store, large, None).await;
    assert_eq!(many.recover().await.resumed, 4);
    step_service.open_gate();
    assert!(few.engine.drain(TIMEOUT).await && many.engine.drain(TIMEOUT).await);
    assert_eq!(step_service.paths().len(), 12, "each once more");
}

/// A drained process gives its lease up: its runs are taken over at once.
#[tokio::test]
async fn the_runs_of_a_drained_process_are_taken_over_at_once() {
    let step_service = gated_service().await;
    let store = test_stores::shared();
    let limits = Limits { sweep_ms: 60_000, ..Limits::default() };
    let owner = Harness::with_store(&step_service, plan(), store.clone(), limits.clone(), None).await;
    let other = Harness::with_store(&step_service, plan(), store.clone(), limits, None).await;
    owner.recover().await;
    other.recover().await;
    let run = start(&owner, json!({})).await.run;
    step_service.wait_for_calls(1).await;
    let drained = async {
        step_service.open_gate();
        owner.engine.drain(TIMEOUT).await
    };
    assert!(drained.await);
    assert_eq!(other.engine.wait_until_ended_or_awaits_input(run, TIMEOUT).await.unwrap().status, RunStatus::Completed);
    assert_eq!(step_service.paths(), ["POST /a", "POST /b"]);
}

/// Two processes cannot read a run whose owner is gone. Neither of them keeps the run or acquires it again and again,
/// and a process that can read it acquires it.
#[tokio::test]
async fn a_run_that_a_process_cannot_read_is_left_to_one_that_can() {
    let step_service = StepService::new(|_, nth| match nth {
        0 => ServiceReply::Hang,
        _ => ServiceReply::Json(200, json!({})),
    })
    .await;
    let store = test_stores::shared();
    let limits = Limits { sweep_ms: 10, watchdog_ms: 20, ..Limits::default() };
    // The stored source of this plan is not a valid definition: its run can be read only while the files have the plan.
    let plan = PlanBuilder::new().call("a", &[], "PUT /a", json!({})).respond(200, json!({})).build("w");
    let starter = Harness::with_store(&step_service, plan.clone(), store.clone(), limits.clone(), None).await;
    starter.recover().await;
    let run = start(&starter, json!({})).await.run;
    step_service.wait_for_calls(1).await;
    let worker = starter.engine.core.schedule.worker;
    drop(starter);
    let other = PlanBuilder::new().respond(200, json!({})).build("x");
    let first = Harness::with_store(&step_service, other.clone(), store.clone(), limits.clone(), None).await;
    let second = Harness::with_store(&step_service, other, store.clone(), limits.clone(), None).await;
    store.expire_lease(worker);
    assert_eq!(first.recover().await.unreadable, 1);
    assert_eq!(second.recover().await.unreadable, 1, "the first one does not keep it");
    let wait_for = async |what: &str, condition: &dyn Fn() -> bool| {
        let poll = async {
            while !condition() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(TIMEOUT, poll).await.unwrap_or_else(|_| panic!("{what}"));
    };
    assert_eq!((first.engine.stuck(9).len(), second.engine.stuck(9).len()), (1, 1));
    // After the start each process acquires the run once more, to try the files in force.
    wait_for("both acquire it again", &|| store.acquisitions.load(Ordering::SeqCst) == 4).await;
    let sweeps = store.sweeps.load(Ordering::SeqCst);
    wait_for("both sweep", &|| store.sweeps.load(Ordering::SeqCst) >= sweeps + 20).await;
    assert_eq!(store.acquisitions.load(Ordering::SeqCst), 4, "neither acquires it a third time");
    let newer = Harness::with_store(&step_service, plan, store.clone(), limits, None).await;
    newer.recover().await;
    newer.wait_until(run, |view| view.status == RunStatus::Completed).await;
    wait_for("it is not stuck any more", &|| first.engine.stuck(9).is_empty()).await;
}

/// No process can read a run: a command to it is answered nevertheless.
#[tokio::test]
async fn a_command_to_a_run_that_no_process_can_read_is_answered() {
    let step_service = gated_service().await;
    let store = test_stores::shared();
    let limits = Limits { sweep_ms: 50, command_wait_ms: 5_000, ..Limits::default() };
    let starter = Harness::with_store(&step_service, plan(), store.clone(), limits.clone(), None).await;
    starter.recover().await;
    let run = start(&starter, json!({})).await.run;
    step_service.wait_for_calls(1).await;
    let worker = starter.engine.core.schedule.worker;
    drop(starter);
    store.expire_lease(worker);
    // The files have another plan, and the stored plan of the run cannot be rebuilt.
    let others =
        PlanBuilder::new().call("c", &[], "GET /c", serde_json::Value::Null).respond(200, json!({})).build("x");
    let owner = Harness::with_store(&step_service, others.clone(), store.clone(), limits.clone(), None).await;
    let asking = Harness::with_store(&step_service, others, store.clone(), limits, None).await;
    assert_eq!(owner.recover().await.unreadable, 1);
    asking.recover().await;
    let cancel = |compensate| ControlCommand::Cancel { compensate, reason: Some("of no use".into()), automatic: false };
    match asking.engine.give_command(run, cancel(true), "ann".into()).await {
        Err(CommandError::Refused { refusal: CommandRefusal::NotApplicable(why), .. }) => {
            assert!(why.contains("--no-undo"), "{why}")
        }
        other => panic!("it is refused: {other:?}"),
    }
    let paused = asking.engine.give_command(run, ControlCommand::Pause { reason: None }, "ann".into()).await;
    assert!(matches!(paused, Err(CommandError::Unreadable(_))), "{paused:?}");
    assert_eq!(owner.engine.stuck(9).len(), 1);
    let ended = asking.engine.give_command(run, cancel(false), "ann".into()).await.unwrap();
    assert_eq!(ended.status, RunStatus::Cancelled);
    assert!(ended.note.as_deref().is_some_and(|note| note.contains("ann cancelled it: of no use")), "{ended:?}");
    let removed = async {
        while !owner.engine.stuck(9).is_empty() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, removed).await.expect("the other process is notified that the run has ended");
    let ended = asking.view(run).await;
    assert_eq!((ended.status, ended.steps[0].status), (RunStatus::Cancelled, StepStatus::Unknown));
    assert_eq!(step_service.paths(), ["POST /a"], "nothing is sent or undone");
}

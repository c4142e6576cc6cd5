//! Commands to runs that wait for people, signals and the end of a freeze.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::harness::{Harness, ServiceReply, StepService, TIMEOUT, answer, checked_plan, refused, request, start};
use super::test_stores::counting;
use crate::engine::CommandError;
use crate::flag::{Freeze, RetryKey};
use crate::limits::Limits;
use crate::names::RunId;
use crate::workflow::{CheckpointAnswer, CommandRefusal, ControlCommand, Event, Mode, Plan, RunStatus, WaitEvent};

fn plan_of(steps: Value, respond: Value) -> Arc<Plan> {
    checked_plan(&json!({ "workflow": "w", "steps": steps, "respond": respond }), false)
}

fn plan() -> Arc<Plan> {
    let steps = json!({
        "ok": { "checkpoint": { "question": "Shall it go?" } },
        "go": { "needs": ["ok"], "call": "POST ${services.world}/go" },
    });
    plan_of(steps, json!({ "status": 201, "body": { "run": "${run.id}" } }))
}

async fn step_service() -> Arc<StepService> {
    StepService::new(|_, _| ServiceReply::Json(200, json!({}))).await
}

/// Approves the one open checkpoint.
async fn approve(harness: &Harness, run: RunId) -> Result<crate::workflow::RunSummary, CommandError> {
    let (checkpoint, _) = harness.store.run(run).await.unwrap().unwrap().checkpoint.expect("a checkpoint is open");
    let said = CheckpointAnswer { approve: true, values: None, approved: Vec::new(), struck: Vec::new(), note: None };
    harness.engine.give_command(run, ControlCommand::Answer { checkpoint, answer: said }, "ann".into()).await
}

/// Waits until the store has had no operation for 50 ms: the reads of the start have ended, and nothing polls.
async fn wait_until_unused(store_operations: &AtomicUsize) {
    let poll = async {
        loop {
            let before = store_operations.load(Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(50)).await;
            if store_operations.load(Ordering::SeqCst) == before {
                return;
            }
        }
    };
    tokio::time::timeout(TIMEOUT, poll).await.expect("the store is used again and again");
}

#[tokio::test]
async fn a_run_waits_for_an_answer_without_a_task_also_across_a_restart() {
    let (step_service, (store, store_operations)) = (step_service().await, counting());
    let mut harness = Harness::with_store(&step_service, plan(), store, Limits::default(), None).await;
    for restart in [false, true] {
        let run = start(&harness, json!({})).await.run;
        assert_eq!(harness.wait_until_ended_or_awaits_input(run).await.status, RunStatus::WaitingCheckpoint);
        harness.wait_until_idle(run).await;
        if restart {
            harness.crash().await;
            assert_eq!(harness.recover().await.resumed, 0);
        }
        assert!(!harness.engine.core.schedule.timers.will_wake(run), "memory holds nothing of the run");
        let explained = harness.engine.explain(run).await.unwrap();
        assert!(!explained.stuck && explained.sentence.contains("Shall it go?"), "{explained:?}");
        wait_until_unused(&store_operations).await;
        let after = approve(&harness, run).await.unwrap();
        assert_ne!(after.status, RunStatus::WaitingCheckpoint);
        assert_eq!(harness.wait_until_ended_or_awaits_input(run).await.status, RunStatus::Completed);
    }
    assert_eq!(step_service.seen().len(), 2);
    assert!(harness.engine.stuck(9).is_empty());
}

#[tokio::test]
async fn of_concurrent_answers_one_is_accepted_and_the_others_are_refused() {
    let step_service = step_service().await;
    let harness = Harness::new(&step_service, plan()).await;
    let run = start(&harness, json!({})).await.run;
    harness.wait_until_ended_or_awaits_input(run).await;
    let (checkpoint, _) = harness.store.run(run).await.unwrap().unwrap().checkpoint.unwrap();
    let all = futures_util::future::join_all((0..20).map(|_| approve(&harness, run))).await;
    assert_eq!(all.iter().filter(|result| result.is_ok()).count(), 1, "{all:?}");
    let others = all.iter().filter_map(|result| result.as_ref().err());
    for other in others {
        let CommandError::Refused { refusal, .. } = other else { panic!("{other:?}") };
        assert!(matches!(refusal, CommandRefusal::AnsweredBefore { .. }), "{refusal:?}");
    }
    assert_eq!(harness.wait_until_ended_or_awaits_input(run).await.status, RunStatus::Completed);
    harness.wait_until_idle(run).await;
    let said = CheckpointAnswer { approve: false, values: None, approved: Vec::new(), struck: Vec::new(), note: None };
    let later =
        harness.engine.give_command(run, ControlCommand::Answer { checkpoint, answer: said }, "bob".into()).await;
    let Err(CommandError::Refused { refusal: CommandRefusal::AnsweredBefore { by, said, .. }, .. }) = later else {
        panic!("the run has ended, and its checkpoint has an answer: {later:?}")
    };
    assert!(by == "ann" && said.approve, "{by} {said:?}");
    assert_eq!(step_service.seen().len(), 1);
}

#[tokio::test]
async fn a_caller_does_not_wait_for_a_person_and_its_retry_gets_the_later_answer() {
    let step_service = step_service().await;
    let harness = Harness::new(&step_service, plan()).await;
    let mut arm_request = request("w", Mode::Real, &json!({}));
    arm_request.retry_keys = Some(RetryKey([4; 32]).into());
    let (problem, report) = refused(harness.send(arm_request.clone()).await);
    assert_eq!((problem.status, problem.shared_step_begun), (503, Some(false)));
    let run = report.run.unwrap();
    harness.wait_until_idle(run).await;
    assert_eq!(refused(harness.send(arm_request.clone()).await).0.run, Some(run), "a retry while the run waits");
    approve(&harness, run).await.unwrap();
    harness.wait_until_ended_or_awaits_input(run).await;
    let (status, body, _) = answer(harness.send(arm_request).await);
    assert_eq!((status, &body["run"]), (201, &json!(run.0.simple().to_string())));
}

#[tokio::test]
async fn a_run_is_paused_in_flight_and_goes_on_from_there() {
    let step_service = StepService::new(|seen, _| match seen.path.as_str() {
        "/a" => ServiceReply::Gated(200, json!({})),
        _ => ServiceReply::Json(200, json!({})),
    })
    .await;
    let steps = json!({
        "a": { "call": "POST ${services.world}/a" },
        "b": { "needs": ["a"], "call": "POST ${services.world}/b" },
    });
    let mut harness = Harness::new(&step_service, plan_of(steps, json!({ "status": 200 }))).await;
    let run = start(&harness, json!({})).await.run;
    step_service.wait_for_calls(1).await;
    let paused = harness.engine.give_command(run, ControlCommand::Pause { reason: None }, "ann".into()).await.unwrap();
    assert_eq!(paused.status, RunStatus::Paused);
    let again = harness.engine.give_command(run, ControlCommand::Pause { reason: None }, "bob".into()).await;
    assert!(matches!(again, Err(CommandError::Refused { refusal: CommandRefusal::NotApplicable(_), .. })), "{again:?}");
    step_service.open_gate();
    harness.wait_until_idle(run).await;
    assert_eq!(step_service.paths(), ["POST /a"], "the call in flight ends, and no step begins");
    harness.crash().await;
    assert_eq!(harness.recover().await.resumed, 0);
    harness.engine.give_command(run, ControlCommand::Resume { reason: None }, "ann".into()).await.unwrap();
    assert_eq!(harness.wait_until_ended_or_awaits_input(run).await.status, RunStatus::Completed);
    assert_eq!(step_service.paths(), ["POST /a", "POST /b"]);
}

#[tokio::test]
async fn a_signal_wakes_the_run_that_waits_for_it() {
    let step_service = step_service().await;
    let steps = json!({ "paid": { "wait": { "signal": "paid", "where": "${signal.sum >= 7}", "timeout": "1h" } } });
    let harness =
        Harness::new(&step_service, plan_of(steps, json!({ "status": 200, "body": "${steps.paid.output}" }))).await;
    let run = start(&harness, json!({})).await.run;
    assert_eq!(harness.wait_until_ended_or_awaits_input(run).await.status, RunStatus::WaitingSignal);
    harness.wait_until_idle(run).await;
    for sum in [1, 7] {
        let command =
            ControlCommand::Signal { name: "paid".into(), payload: Arc::new(json!({ "sum": sum })), id: None };
        harness.engine.give_command(run, command, "bank".into()).await.unwrap();
        harness.wait_until_idle(run).await;
    }
    assert_eq!(harness.wait_until_ended_or_awaits_input(run).await.status, RunStatus::Completed);
}

#[tokio::test]
async fn a_frozen_run_has_no_task_and_is_woken_when_the_freeze_ends() {
    let step_service = step_service().await;
    let harness = Harness::new(
        &step_service,
        plan_of(json!({ "a": { "call": "POST ${services.world}/a" } }), json!({ "status": 200 })),
    )
    .await;
    harness.engine.freeze(1, Freeze::Effects).await;
    let run = start(&harness, json!({})).await.run;
    harness.wait_until_idle(run).await;
    assert!(harness.engine.stuck(9).is_empty() && step_service.seen().is_empty());
    let explained = harness.engine.explain(run).await.unwrap();
    assert!(!explained.stuck && explained.waits.iter().any(|wait| wait.contains("froz")), "{explained:?}");
    harness.engine.freeze(2, Freeze::No).await;
    assert_eq!(harness.wait_until_ended_or_awaits_input(run).await.status, RunStatus::Completed);
}

#[tokio::test]
async fn a_long_wait_is_stored_as_a_wake_time() {
    let step_service = step_service().await;
    let steps = json!({ "short": { "wait": "30ms" }, "long": { "needs": ["short"], "wait": "1h" } });
    let harness = Harness::new(&step_service, plan_of(steps, json!({ "status": 200 }))).await;
    let run = start(&harness, json!({})).await.run;
    let two_waits = async {
        let began = |events: Vec<Event>| {
            events.iter().filter(|event| matches!(event, Event::Wait(WaitEvent::Began { .. }))).count()
        };
        while began(harness.events(run).await) < 2 || harness.engine.core.schedule.mailboxes.has_task(run) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, two_waits).await.unwrap();
    assert_eq!(harness.engine.core.schedule.timers.len(), 1);
    let wake = harness.store.run(run).await.unwrap().unwrap().wake.unwrap();
    assert!(wake.duration_since(jiff::Timestamp::now()).as_secs() > 3_500);
}

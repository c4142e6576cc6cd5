//! Runs that wait have no task, and are woken in time, by this process or the next.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::json;

use super::harness::{Harness, ServiceReply, StepService, TIMEOUT, answer, checked_plan, request, start};
use super::test_stores::counting;
use crate::engine::CommandError;
use crate::limits::Limits;
use crate::names::RunId;
use crate::workflow::testing::PlanBuilder;
use crate::workflow::{ControlCommand, Mode, Plan, RunStatus};

/// How long the store is watched while nothing happens.
const OBSERVED: Duration = Duration::from_millis(300);

/// A read whose first attempt gets a `Retry-After`.
fn retrying_plan() -> Arc<Plan> {
    let retry = json!({ "attempts": 3, "base": "1ms", "max": "1h" });
    let steps = json!({ "a": { "call": "GET ${services.world}/a", "retry": retry } });
    checked_plan(&json!({ "workflow": "w", "steps": steps, "respond": { "status": 200, "body": {} } }), false)
}

async fn step_service(after: &'static str) -> Arc<StepService> {
    StepService::new(move |_, before| match before {
        0 => ServiceReply::RetryAfter(503, after),
        _ => ServiceReply::Json(200, json!({})),
    })
    .await
}

#[tokio::test]
async fn a_run_that_waits_has_no_task_and_is_not_woken_early() {
    let step_service = step_service("2").await;
    let harness = Harness::new(&step_service, retrying_plan()).await;
    let begun = Instant::now();
    let run = start(&harness, json!({})).await.run;
    harness.wait_until_idle(run).await;
    assert_eq!(harness.engine.runs_in_flight(), 0);
    let summary = harness.store.run(run).await.unwrap().unwrap();
    assert!(summary.wake.is_some(), "the wake time is stored");
    let ended = harness.engine.wait_until_ended_or_awaits_input(run, TIMEOUT).await.unwrap();
    assert_eq!((ended.status, ended.wake), (RunStatus::Completed, None));
    assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(step_service.paths(), ["GET /a", "GET /a"]);
    assert!(harness.engine.stuck(9).is_empty());
}

#[tokio::test]
async fn the_next_process_wakes_a_waiting_run_in_time_and_does_not_load_it_before() {
    let step_service = step_service("2").await;
    let mut harness = Harness::new(&step_service, retrying_plan()).await;
    let begun = Instant::now();
    let run = start(&harness, json!({})).await.run;
    harness.wait_until_idle(run).await;
    harness.crash().await;
    let recovered = harness.recover().await;
    assert_eq!((recovered.resumed, recovered.waiting), (0, 1), "it is counted as waiting");
    assert!(
        !harness.engine.core.schedule.mailboxes.has_task(run) && harness.engine.core.schedule.timers.will_wake(run)
    );
    assert_eq!(
        harness.engine.wait_until_ended_or_awaits_input(run, TIMEOUT).await.unwrap().status,
        RunStatus::Completed
    );
    assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(step_service.seen().len(), 2);
}

#[tokio::test]
async fn a_run_that_is_due_at_the_start_of_a_process_is_resumed_at_once() {
    let step_service = step_service("2").await;
    let mut harness = Harness::new(&step_service, retrying_plan()).await;
    let run = start(&harness, json!({})).await.run;
    harness.wait_until_idle(run).await;
    let wake = harness.store.run(run).await.unwrap().unwrap().wake.unwrap();
    harness.crash().await;
    while crate::clock::now() < wake {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(harness.recover().await.resumed, 1);
    assert_eq!(
        harness.engine.wait_until_ended_or_awaits_input(run, TIMEOUT).await.unwrap().status,
        RunStatus::Completed
    );
}

/// The answer does not wait for a step that is retried later.
#[tokio::test]
async fn a_caller_is_answered_before_its_run_is_suspended() {
    let step_service = StepService::new(|seen, _| match seen.path.as_str() {
        "/a" => ServiceReply::RetryAfter(503, "600"),
        _ => ServiceReply::Json(200, json!({})),
    })
    .await;
    let retry = json!({ "attempts": 3, "base": "1ms", "max": "1h" });
    let steps = json!({
        "now": { "call": "POST ${services.world}/now" },
        "a": { "needs": ["now"], "call": "GET ${services.world}/a", "retry": retry },
    });
    let respond = json!({ "status": 202, "body": {}, "after": ["now"] });
    let plan = checked_plan(&json!({ "workflow": "w", "steps": steps, "respond": respond }), false);
    let harness = Harness::new(&step_service, plan).await;
    let (status, _, report) = answer(harness.send(request("w", Mode::Real, &json!({}))).await);
    assert_eq!(status, 202);
    harness.wait_until_idle(report.run.unwrap()).await;
    assert_eq!(harness.engine.runs_in_flight(), 0);
}

#[tokio::test]
async fn a_thousand_waiting_runs_use_no_task_and_no_store_access() {
    let step_service = StepService::new(|_, _| ServiceReply::RetryAfter(503, "600")).await;
    let (store, store_operations) = counting();
    let harness = Harness::with_store(&step_service, retrying_plan(), store, Limits::default(), None).await;
    let runs = futures_util::future::join_all((0..1_000).map(|_| start(&harness, json!({})))).await;
    for started in &runs {
        harness.wait_until_idle(started.run).await;
    }
    assert_eq!(harness.engine.runs_in_flight(), 0);
    assert_eq!(harness.engine.core.schedule.timers.len(), 1_000);
    let before = store_operations.load(Ordering::SeqCst);
    tokio::time::sleep(OBSERVED).await;
    assert_eq!(store_operations.load(Ordering::SeqCst), before, "the store is not used while nothing happens");
    assert_eq!(
        harness.engine.core.schedule.wake_permits.available_permits(),
        Limits::default().runs_in_flight_max as usize
    );
}

/// Runs are woken and get commands at random moments while they are being suspended; each of them still ends, and each
/// command is answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_wake_up_is_lost() {
    let seed: u64 = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let step_service = StepService::new(|seen, before| match (seen.path.as_str(), before % 2) {
        (_, 0) => ServiceReply::RetryAfter(503, "1"),
        _ => ServiceReply::Json(200, json!({})),
    })
    .await;
    let harness = Arc::new(Harness::new(&step_service, retrying_plan()).await);
    let runs: Vec<RunId> = futures_util::future::join_all((0..60).map(|_| start(&harness, json!({}))))
        .await
        .iter()
        .map(|s| s.run)
        .collect();
    let mut senders = Vec::new();
    for _ in 0..400 {
        let run = runs[random.usize(..runs.len())];
        let kind = random.u8(..4);
        match kind {
            0 => harness.engine.core.wake(run),
            1 => tokio::time::sleep(Duration::from_micros(random.u64(..8_000))).await,
            _ => {
                let harness = harness.clone();
                senders.push(tokio::spawn(async move {
                    let pause = [ControlCommand::Pause { reason: None }, ControlCommand::Resume { reason: None }];
                    let commands = if kind == 2 {
                        pause.to_vec()
                    } else {
                        vec![ControlCommand::Retry { step: None, attempt: None }]
                    };
                    for command in commands {
                        let result = harness.engine.give_command(run, command, "test".into());
                        match tokio::time::timeout(TIMEOUT, result).await {
                            Ok(Ok(_) | Err(CommandError::Refused { .. })) => {}
                            other => return Err(format!("{other:?}")),
                        }
                    }
                    Ok(())
                }));
            }
        }
    }
    for sender in senders {
        let result = sender.await.unwrap();
        assert!(result.is_ok(), "SEED={seed}: {result:?}");
    }
    for run in &runs {
        if harness.store.run(*run).await.unwrap().unwrap().status == RunStatus::Paused {
            // The last of the concurrent pauses and resumes may have been a pause.
            let _ = harness.engine.give_command(*run, ControlCommand::Resume { reason: None }, "test".into()).await;
        }
        let ended = harness.engine.wait_until_ended_or_awaits_input(*run, TIMEOUT).await.unwrap();
        assert!(ended.status.is_final(), "SEED={seed}: {run} is left {:?}", ended.status);
    }
    assert!(harness.engine.stuck(9).is_empty());
}

#[tokio::test]
async fn a_paused_run_is_suspended_and_the_next_process_does_not_resume_it() {
    let step_service = StepService::new(|_, _| ServiceReply::Json(500, json!({}))).await;
    let plan = PlanBuilder::new().call("a", &[], "POST /a", json!({})).respond(200, json!({})).build("w");
    let mut harness = Harness::new(&step_service, plan).await;
    let run = start(&harness, json!({})).await.run;
    assert_eq!(harness.engine.wait_until_ended_or_awaits_input(run, TIMEOUT).await.unwrap().status, RunStatus::Paused);
    harness.crash().await;
    let recovered = harness.recover().await;
    assert_eq!((recovered.resumed, recovered.paused, recovered.waiting), (0, 1, 0));
    assert!(!harness.engine.core.schedule.timers.will_wake(run), "memory holds no timer of the run");
    assert!(harness.engine.stuck(9).is_empty());
}

/// Runs of a plan that this process cannot read are all tried again at a reload, page by page.
#[tokio::test]
async fn a_reload_wakes_every_stuck_run() {
    let step_service = StepService::new(|_, _| ServiceReply::Json(500, json!({}))).await;
    // The stored source of this plan is not a valid definition: its runs can be read only while the files have the
    // plan.
    let plan = PlanBuilder::new().call("a", &[], "POST /a", json!({})).respond(200, json!({})).build("w");
    let mut harness = Harness::new(&step_service, plan.clone()).await;
    for _ in 0..5 {
        let run = start(&harness, json!({})).await.run;
        assert_eq!(
            harness.engine.wait_until_ended_or_awaits_input(run, TIMEOUT).await.unwrap().status,
            RunStatus::Paused
        );
    }
    harness.plan = PlanBuilder::new().respond(200, json!({})).build("other");
    harness.crash().await;
    harness.recover().await;
    let wait_for_stuck = async |count: usize| {
        let poll = async {
            while harness.engine.stuck(9).len() != count {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(TIMEOUT, poll).await.expect("the number of stuck runs is reached");
    };
    wait_for_stuck(5).await;
    harness.load_plans(&[&plan]);
    wait_for_stuck(0).await;
}

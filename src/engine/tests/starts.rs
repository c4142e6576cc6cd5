//! Runs that people and programs start.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use tokio::sync::Notify;

use super::harness::{
    Harness, ServiceReply, StepService, TIMEOUT, abandoned, answer, checked_plan, refused, request, start,
};
use super::test_stores;
use crate::engine::CatchUp;
use crate::engine::CommandError;
use crate::engine::Start;
use crate::engine::StartError;
use crate::engine::Started;
use crate::exchange::ArmRequest;
use crate::flag::RetryKey;
use crate::limits::Limits;
use crate::names::{JobId, RunId, Seq};
use crate::store::{MemoryStore, StoreError};
use crate::workflow::{CommandRefusal, ControlCommand, Mode, RunStatus};

fn definition() -> Value {
    json!({
        "workflow": "w",
        "input": { "schema": { "type": "object", "required": ["n"], "properties": { "n": { "type": "integer" } } } },
        "steps": { "a": { "call": "POST ${services.world}/a", "body": { "n": "${request.body.n}" } } },
        "respond": { "status": 201, "body": { "n": "${request.body.n}", "by": "${request.method} ${request.path}" } },
    })
}

/// No other process has recorded anything.
fn nothing_to_catch_up_with() -> CatchUp {
    Arc::new(|| Box::pin(std::future::ready(Ok(()))))
}

async fn harness() -> Harness {
    let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({}))).await;
    Harness::new(&step_service, checked_plan(&definition(), false)).await
}

fn keyed(n: u64, body: u8) -> Start {
    let key = Some((RetryKey([7; 32]), [body; 32]));
    Start { workflow: "w".into(), input: json!({ "n": n }), by: "ann".into(), key }
}

#[tokio::test]
async fn a_started_run_is_durable_and_its_output_is_the_value_of_respond() {
    let harness = harness().await;
    let started = start(&harness, json!({ "n": 1 })).await;
    let stored = harness.store.run(started.run).await.unwrap().expect("it is on disk");
    assert_eq!((stored.route, started.job, started.is_new), (None, JobId(started.run.0), true));
    assert_eq!(
        harness.engine.wait_until_ended_or_awaits_input(started.run, TIMEOUT).await.unwrap().status,
        RunStatus::Completed
    );
    let events = harness.store.events(started.run, Seq::FIRST).await.unwrap();
    let run = crate::workflow::fold(events.iter().map(|stored| &stored.event)).unwrap();
    assert_eq!(run.started().by.as_deref(), Some("test"));
    let output = run.answer().unwrap().body.value();
    assert_eq!(output, json!({ "n": 1, "by": "POST /api/v2/orchestrate/run" }));
    let last = harness.engine.wait_for_events_after(started.run, Seq(1), TIMEOUT).await;
    assert_eq!(last, Some(run.seq()));
    assert_eq!(harness.engine.wait_for_events_after(RunId(uuid::Uuid::now_v7()), Seq(1), TIMEOUT).await, None);
    assert_eq!(harness.engine.wait_until_ended_or_awaits_input(RunId(uuid::Uuid::now_v7()), TIMEOUT).await, None);
}

#[tokio::test]
async fn start_watched_returns_the_events_as_they_are_stored() {
    let harness = harness().await;
    let (started, ended) = harness.engine.start_watched(keyed(1, 1), TIMEOUT).await.unwrap();
    let collected = ended.await.expect("all events were collected");
    assert_eq!(collected, harness.store.events(started.run, Seq::FIRST).await.unwrap());
    let run = crate::workflow::fold(collected.iter().map(|stored| &stored.event)).unwrap();
    assert_eq!(run.status(), RunStatus::Completed);
    // The same key returns the existing run; this start collected none of its events.
    let (again, ended) = harness.engine.start_watched(keyed(1, 1), TIMEOUT).await.unwrap();
    assert_eq!((again.run, again.is_new, ended.await), (started.run, false, None));
}

#[tokio::test]
async fn an_invalid_start_is_refused() {
    let harness = harness().await;
    let other = Start { workflow: "x".into(), ..keyed(1, 1) };
    let known = vec!["w".to_owned()];
    assert_eq!(harness.engine.start(other).await, Err(StartError::UnknownWorkflow { workflow: "x".into(), known }));
    let wrong = Start { input: json!({ "n": "1" }), ..keyed(1, 1) };
    let Err(StartError::BadInput(why)) = harness.engine.start(wrong).await else { panic!() };
    assert!(why[0].starts_with("/n: "), "{why:?}");
    harness.engine.core.process.draining.send_replace(true);
    assert!(matches!(harness.engine.start(keyed(1, 1)).await, Err(StartError::Unavailable(_))));
    assert!(harness.runs().await.is_empty());
}

#[tokio::test]
async fn a_repeated_start_returns_its_run_after_the_workflow_was_changed_or_removed() {
    let harness = harness().await;
    let first = harness.engine.start(keyed(1, 1)).await.unwrap();
    harness.wait_until_ended_or_awaits_input(first.run).await;
    let mut narrowed = definition();
    narrowed["input"]["schema"]["required"] = json!(["n", "more"]);
    let mut other = definition();
    other["workflow"] = json!("other");
    for definition in [narrowed, other] {
        let plan = checked_plan(&definition, false);
        let plans = [(plan.workflow.clone(), plan.clone())].into();
        harness.engine.reload(0, &plans, &Default::default(), &Default::default());
        let again = harness.engine.start(keyed(1, 1)).await.unwrap();
        assert_eq!((again.run, again.is_new), (first.run, false));
        let new = Start { key: Some((RetryKey([8; 32]), [1; 32])), ..keyed(1, 1) };
        let refused = harness.engine.start(new).await;
        assert!(
            matches!(refused, Err(StartError::BadInput(_) | StartError::UnknownWorkflow { .. })),
            "a new key: {refused:?}"
        );
    }
    assert_eq!(harness.runs().await.len(), 1);
}

async fn two_hundred_starts(harness: &Harness) -> Vec<Started> {
    let all = (0..200).map(|_| harness.engine.start(keyed(1, 1)));
    futures_util::future::join_all(all).await.into_iter().map(Result::unwrap).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_starts_with_one_key_create_one_run_even_across_restarts() {
    let mut harness = harness().await;
    let all = two_hundred_starts(&harness).await;
    assert_eq!(all.iter().filter(|started| started.is_new).count(), 1);
    assert!(all.iter().all(|started| started.run == all[0].run && started.job == all[0].job));
    let other = harness.engine.start(keyed(2, 2)).await;
    assert_eq!(other, Err(StartError::KeyReused(all[0].run)));
    let run = all[0].run;
    harness.crash().await;
    let again = two_hundred_starts(&harness).await;
    assert!(again.iter().all(|started| started.run == run && !started.is_new));
    assert_eq!(harness.engine.start(keyed(2, 2)).await, Err(StartError::KeyReused(run)));
    assert_eq!(harness.runs().await.len(), 1);
}

#[tokio::test]
async fn a_command_to_an_ended_or_unknown_run_is_refused() {
    let harness = harness().await;
    let run = start(&harness, json!({ "n": 1 })).await.run;
    harness.engine.wait_until_ended_or_awaits_input(run, TIMEOUT).await.unwrap();
    let command = ControlCommand::Pause { reason: None };
    let result = harness.engine.give_command(run, command.clone(), "ann".into()).await;
    assert!(matches!(result, Err(CommandError::Refused { refusal: CommandRefusal::Ended, .. })), "{result:?}");
    let unknown_run = RunId(uuid::Uuid::now_v7());
    assert_eq!(harness.engine.give_command(unknown_run, command, "ann".into()).await, Err(CommandError::NoRun));
    let explained = harness.engine.explain(run).await.unwrap();
    assert!(explained.sentence.contains("completed") && !explained.stuck, "{explained:?}");
}

#[tokio::test]
async fn nothing_new_begins_until_the_runs_of_the_last_process_are_resumed() {
    let store = test_stores::shared();
    let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({}))).await;
    let (plan, limits) = (checked_plan(&definition(), false), Limits::default());
    let harness = Harness::with_store(&step_service, plan, store.clone(), limits, None).await;
    let earlier = harness.engine.start(keyed(1, 1)).await.unwrap();
    harness.wait_until_ended_or_awaits_input(earlier.run).await;
    store.heartbeats.shut();
    let while_recovering = async {
        store.heartbeats.wait_for_arrivals(1).await;
        let new = Start { key: None, ..keyed(2, 2) };
        let Err(StartError::Unavailable(why)) = harness.engine.start(new).await else { panic!("it was started") };
        assert!(why.contains("not resumed yet"), "{why}");
        let again = harness.engine.start(keyed(1, 1)).await.unwrap();
        assert_eq!((again.run, again.is_new), (earlier.run, false), "a repeated start returns the earlier run");
        assert!(matches!(
            harness.engine.rerun(earlier.run, "a".into(), "ann".into()).await,
            Err(StartError::Unavailable(_))
        ));
        for mode in [Mode::Real, Mode::Dark] {
            let (problem, _) = refused(harness.send(request("w", mode, &json!({ "n": 2 }))).await);
            assert_eq!((problem.status, problem.retry_after_s), (503, Some(1)), "{mode:?}");
            assert_eq!(problem.title, "The workflow was not started", "{mode:?}");
        }
        let may_fall_back = ArmRequest { may_fall_back: true, ..request("w", Mode::Real, &json!({ "n": 2 })) };
        assert_eq!(abandoned(harness.send(may_fall_back).await).reason, "resuming_runs");
        store.heartbeats.pass(1_000);
    };
    tokio::join!(harness.engine.recover_in_background(nothing_to_catch_up_with()), while_recovering);
    assert_eq!(harness.engine.why_unresumed(), None);
    assert_eq!(harness.runs().await.len(), 1);
    assert!(harness.engine.start(keyed(3, 3)).await.is_err(), "the key belongs to another body");
    start(&harness, json!({ "n": 3 })).await;
}

/// The runs of other processes are not resumed before a freeze that was set at one of them is in force.
#[tokio::test]
async fn no_run_is_resumed_before_this_process_has_caught_up_with_the_others() {
    let store = test_stores::shared();
    let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({}))).await;
    let waits =
        json!({ "workflow": "w", "steps": { "a": { "wait": "1h" } }, "respond": { "status": 200, "body": {} } });
    let (plan, limits) = (checked_plan(&waits, false), Limits::default());
    let harness = Harness::with_store(&step_service, plan, store.clone(), limits, None).await;
    let (calls, called) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let catch_up: CatchUp = {
        let (calls, called) = (calls.clone(), called.clone());
        Arc::new(move || {
            let call = calls.fetch_add(1, Ordering::Relaxed);
            called.notify_one();
            Box::pin(async move { if call == 0 { Err(StoreError("no answer".into())) } else { Ok(()) } })
        })
    };
    harness.engine.recover_in_background(catch_up).await;
    assert!(harness.engine.why_unresumed().is_some_and(|why| why.contains("no answer")));
    while calls.load(Ordering::Relaxed) < 2 {
        called.notified().await;
    }
    while harness.engine.why_unresumed().is_some() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_run_that_is_not_stored_does_not_wait_until_the_runs_of_the_last_process_are_resumed() {
    let store = test_stores::shared();
    let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({}))).await;
    let reads =
        json!({ "workflow": "w", "steps": { "a": { "set": { "n": 1 } } }, "respond": { "status": 200, "body": {} } });
    let (plan, limits) = (checked_plan(&reads, false), Limits::default());
    let harness = Harness::with_store(&step_service, plan, store.clone(), limits, None).await;
    store.heartbeats.shut();
    let while_recovering = async {
        store.heartbeats.wait_for_arrivals(1).await;
        let not_kept = ArmRequest { keep: false, ..request("w", Mode::Real, &json!({})) };
        assert_eq!(answer(harness.send(not_kept).await).0, 200);
        let (problem, _) = refused(harness.send(request("w", Mode::Real, &json!({}))).await);
        assert_eq!(problem.status, 503);
        store.heartbeats.pass(1_000);
    };
    tokio::join!(harness.engine.recover_in_background(nothing_to_catch_up_with()), while_recovering);
    assert_eq!(harness.runs().await.len(), 0);
}

/// A rerun is open when retention removes the first run of its job: the key of the start leads to the rerun.
#[tokio::test]
async fn a_repeated_start_returns_the_rerun_of_a_run_that_was_purged() {
    let step_service = StepService::new(|_, _| ServiceReply::Json(409, json!({}))).await;
    let store = Arc::new(MemoryStore::with_limits(&Limits { retry_window_s: 0, ..Limits::default() }));
    let plan = checked_plan(&definition(), false);
    let harness = Harness::with_store(&step_service, plan, store, Limits::default(), None).await;
    let first = harness.engine.start(keyed(1, 1)).await.unwrap();
    assert_eq!(harness.wait_until_ended_or_awaits_input(first.run).await.status, RunStatus::Paused);
    let cancel = ControlCommand::Cancel { compensate: false, reason: None, automatic: false };
    harness.engine.give_command(first.run, cancel, "ann".into()).await.unwrap();
    let rerun = harness.engine.rerun(first.run, "a".into(), "ann".into()).await.unwrap();
    assert_eq!(harness.wait_until_ended_or_awaits_input(rerun.run).await.status, RunStatus::Paused);
    assert_eq!(harness.engine.start(keyed(1, 1)).await.unwrap().run, first.run);
    harness.store.purge(RunStatus::Cancelled, jiff::Timestamp::MAX, 99).await.unwrap();
    assert_eq!(harness.store.run(first.run).await.unwrap(), None, "it is purged");
    let again = harness.engine.start(keyed(1, 1)).await.unwrap();
    assert_eq!((again.run, again.job, again.is_new), (rerun.run, first.job, false));
}

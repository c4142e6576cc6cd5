//! The process ends while runs are in progress, and the next one resumes them.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use super::harness::{Harness, ServiceReply, StepService, TIMEOUT, checked_plan, request, request_copy, start};
use crate::flag::RetryKey;
use crate::limits::Limits;
use crate::names::{Fence, RunId, Seq};
use crate::secret::Secret;
use crate::store::{Append, MemoryStore, Priority};
use crate::workflow::testing::PlanBuilder;
use crate::workflow::{EffectClass, Event, Mode, RunStatus, StepStatus, fold};

fn definition() -> Value {
    json!({
        "workflow": "w",
        "steps": {
            "reserve": {
                "for_each": "${request.body.items}",
                "concurrency": 4,
                "call": "POST ${services.world}/reserve/${item}",
                "body": { "n": "${item}" },
            },
            "charge": {
                "needs": ["reserve"],
                "call": "POST ${services.world}/charge",
                "body": { "amount": 12.30 },
            },
            "last": { "needs": ["charge"], "call": "GET ${services.world}/last" },
        },
        "respond": { "status": 201, "body": { "run": "${run.id}" } },
    })
}

/// Ends the process while the charge is in flight; a second charge is answered.
async fn crash_during_charge(keyed: bool) -> (Arc<StepService>, Harness, crate::names::RunId) {
    crash_during(&definition(), keyed).await
}

async fn crash_during(definition: &Value, keyed: bool) -> (Arc<StepService>, Harness, crate::names::RunId) {
    let step_service = StepService::new(|seen, before| match (seen.path.as_str(), before) {
        ("/charge", 0) => ServiceReply::Hang,
        _ => ServiceReply::Json(200, json!({"id": 1})),
    })
    .await;
    let mut harness = Harness::new(&step_service, checked_plan(definition, keyed)).await;
    let mut arm_request = request("w", Mode::Real, &json!({"items": [1, 2, 3]}));
    arm_request.retry_keys = Some(RetryKey([3; 32]).into());
    let arm = harness.engine.arm();
    let caller = tokio::spawn(tower::ServiceExt::oneshot(arm, arm_request));
    step_service.wait_for_calls(4).await;
    harness.crash().await;
    let _ = tokio::time::timeout(TIMEOUT, caller).await.unwrap();
    let runs = harness.runs().await;
    assert_eq!((runs.len(), runs[0].status), (1, RunStatus::Running));
    let run = runs[0].run_id;
    (step_service, harness, run)
}

#[tokio::test]
async fn a_resumed_run_repeats_a_keyed_call_with_the_same_bytes() {
    let (step_service, harness, run) = crash_during_charge(true).await;
    assert_eq!(harness.recover().await.resumed, 1);
    let view = harness.wait_until(run, |view| view.status.is_final()).await;
    assert_eq!((view.status, view.answered), (RunStatus::Completed, Some(201)));
    let seen = step_service.seen();
    let charges: Vec<_> = seen.iter().filter(|seen| seen.path == "/charge").collect();
    assert_eq!(charges.len(), 2);
    assert_eq!(charges[0].body, charges[1].body);
    assert_eq!(charges[0].header("idempotency-key"), charges[1].header("idempotency-key"));
    assert_eq!(seen.iter().filter(|seen| seen.path.starts_with("/reserve")).count(), 3, "finished steps stay finished");

    // The client's retry gets the run's answer.
    let mut arm_request = request("w", Mode::Real, &json!({"items": [1, 2, 3]}));
    arm_request.retry_keys = Some(RetryKey([3; 32]).into());
    let (_, body, _) = super::harness::answer(harness.send(arm_request).await);
    assert_eq!(body["run"], run.0.simple().to_string());
}

#[tokio::test]
async fn an_unrepeatable_call_in_flight_pauses_the_resumed_run() {
    let (step_service, harness, run) = crash_during_charge(false).await;
    assert_eq!(harness.recover().await.resumed, 1);
    let view = harness.wait_until(run, |view| view.status == RunStatus::Paused).await;
    assert!(view.note.unwrap().contains("unknown"));
    assert_eq!(step_service.seen().iter().filter(|seen| seen.path == "/charge").count(), 1);
    let mut harness = harness;
    harness.crash().await;
    let recovered = harness.recover().await;
    assert_eq!((recovered.resumed, recovered.paused), (0, 1));
}

#[tokio::test]
async fn credentials_of_the_caller_survive_a_crash_and_are_erased_when_the_run_ends() {
    let step_service = StepService::new(|seen, before| match (seen.path.as_str(), before) {
        ("/b", 0) => ServiceReply::Hang,
        _ => ServiceReply::Json(200, json!({})),
    })
    .await;
    let plan = PlanBuilder::new()
        .call("a", &[], "POST /a", json!({}))
        .call("b", &["a"], "PUT /b", json!({}))
        .header("authorization", "${request.headers.authorization}")
        .respond(200, json!({}))
        .build("w");
    let (store, key) = (Arc::new(MemoryStore::new()), Some(Secret::new("k")));
    let mut harness = Harness::with_store(&step_service, plan, store, Limits::default(), key).await;
    let mut arm_request = request("w", Mode::Real, &json!({}));
    arm_request.request = request_copy(&json!({}), &[("authorization", "Basic abc")]);
    let caller = tokio::spawn(tower::ServiceExt::oneshot(harness.engine.arm(), arm_request));
    step_service.wait_for_calls(2).await;
    harness.crash().await;
    let _ = tokio::time::timeout(TIMEOUT, caller).await.unwrap();
    let run = harness.runs().await[0].run_id;
    assert!(harness.store.run_key(run).await.unwrap().is_some());
    assert_eq!(harness.recover().await.resumed, 1);
    harness.wait_until(run, |view| view.status == RunStatus::Completed).await;
    assert_eq!(step_service.seen().pop().unwrap().header("authorization"), Some("Basic abc"));
    assert_eq!(harness.store.run_key(run).await.unwrap(), None);
}

#[tokio::test]
async fn a_run_keeps_the_plan_that_it_started_with() {
    let mut definition = definition();
    definition["steps"]["charge"]["call"] = json!("PUT ${services.world}/charge"); // repeated whether keyed or not
    let (_, mut harness, run) = crash_during(&definition, false).await;
    harness.plan = PlanBuilder::new().respond(200, json!({})).build("w");
    harness.crash().await;
    assert_eq!(harness.recover().await.resumed, 1);
    harness.wait_until(run, |view| view.status == RunStatus::Completed).await;
}

#[tokio::test]
async fn a_run_whose_plan_cannot_be_rebuilt_is_left_unchanged() {
    let step_service = StepService::new(|seen, _| match seen.path.as_str() {
        "/a" => ServiceReply::Json(200, json!({})),
        _ => ServiceReply::Hang,
    })
    .await;
    // The stored source of this plan is not a valid definition, so the plan cannot be rebuilt from it.
    let plan = PlanBuilder::new().call("a", &[], "POST /a", json!({})).call("b", &["a"], "PUT /b", json!({}));
    let plan = plan.respond(202, json!({})).respond_after(&["a"]).build("w");
    let mut harness = Harness::new(&step_service, plan).await;
    let (_, _, report) = super::harness::answer(harness.send(request("w", Mode::Real, &json!({}))).await);
    step_service.wait_for_calls(2).await;
    harness.plan = PlanBuilder::new().respond(200, json!({})).build("other");
    harness.crash().await;
    assert_eq!(harness.recover().await.unreadable, 1);
    assert_eq!(harness.view(report.run.unwrap()).await.status, RunStatus::Running);
}

#[tokio::test]
async fn a_drain_waits_for_calls_in_flight_and_begins_no_further_steps() {
    let step_service = StepService::new(|seen, _| match seen.path.as_str() {
        "/b" => ServiceReply::Gated(200, json!({})),
        _ => ServiceReply::Json(200, json!({})),
    })
    .await;
    let plan = PlanBuilder::new()
        .call("a", &[], "POST /a", json!({}))
        .call("b", &["a"], "POST /b", json!({}))
        .call("c", &["b"], "POST /c", json!({}))
        .respond(202, json!({}))
        .respond_after(&["a"])
        .build("w");
    let mut harness = Harness::new(&step_service, plan).await;
    let (status, _, report) = super::harness::answer(harness.send(request("w", Mode::Real, &json!({}))).await);
    assert_eq!(status, 202);
    step_service.wait_for_calls(2).await;
    let drained = harness.engine.drain(Duration::from_secs(5));
    let opens = async { step_service.open_gate() };
    assert!(tokio::join!(drained, opens).0);
    assert_eq!(step_service.paths(), ["POST /a", "POST /b"]);
    harness.crash().await;
    assert_eq!(harness.recover().await.resumed, 1);
    let run = report.run.unwrap();
    harness.wait_until(run, |view| view.status == RunStatus::Completed).await;
    assert_eq!(step_service.paths(), ["POST /a", "POST /b", "POST /c"]);
    let finished = harness.events(run).await.iter().filter(|event| matches!(event, Event::StepFinished(_))).count();
    assert_eq!(finished, 3);
}

#[tokio::test]
async fn an_answered_call_keeps_its_result_when_the_process_ends_while_another_is_under_way() {
    let step_service = StepService::new(|seen, before| match (seen.path.as_str(), before) {
        ("/slow", 0) => ServiceReply::Hang,
        _ => ServiceReply::Json(200, json!({"id": 7})),
    })
    .await;
    let definition = json!({
        "workflow": "w",
        "steps": {
            "charge": { "call": "POST ${services.world}/charge" },
            "slow": { "call": "GET ${services.world}/slow" },
        },
        "respond": { "status": 200, "body": { "id": "${steps.charge.output.id}" } },
    });
    let mut harness = Harness::new(&step_service, checked_plan(&definition, false)).await;
    let run = super::harness::start(&harness, json!({})).await.run;
    harness.wait_until(run, |view| view.steps.iter().any(|step| step.status == StepStatus::Done)).await;
    harness.crash().await;
    assert_eq!(harness.recover().await.resumed, 1);
    let view = harness.wait_until(run, |view| view.status.is_final()).await;
    assert_eq!(view.status, RunStatus::Completed, "{:?}", view.note);
    assert_eq!(step_service.paths(), ["GET /slow", "GET /slow", "POST /charge"]);
}

/// The process is killed between the conflict and the end of the run, while another call is under way.
#[tokio::test]
async fn a_dark_run_with_a_conflict_ends_in_the_next_process() {
    let step_service = StepService::new(|seen, before| match (seen.path.as_str(), before) {
        ("/pay", _) => ServiceReply::Json(500, json!({})),
        (_, 0) => ServiceReply::Hang,
        _ => ServiceReply::Json(200, json!({})),
    })
    .await;
    let plan = PlanBuilder::new()
        .call("pay", &[], "POST /pay", json!({}))
        .effect(EffectClass::Private)
        .call("slow", &[], "GET /slow", Value::Null)
        .respond(201, json!({}))
        .build("w");
    let mut harness = Harness::new(&step_service, plan).await;
    let arm = harness.engine.arm();
    let caller = tokio::spawn(tower::ServiceExt::oneshot(arm, request("w", Mode::Dark, &json!({}))));
    step_service.wait_for_calls(2).await;
    let run = loop {
        match harness.runs().await.first() {
            Some(run) if run.status == RunStatus::Paused => break run.run_id,
            _ => tokio::task::yield_now().await,
        }
    };
    harness.crash().await;
    let _ = tokio::time::timeout(TIMEOUT, caller).await.unwrap();
    harness.recover().await;
    let view = harness.wait_until(run, |view| view.status == RunStatus::Failed).await;
    assert!(view.note.is_some_and(|note| note.contains("a person would have to decide")));
    assert_eq!(step_service.paths().iter().filter(|path| path.contains("/pay")).count(), 1);
}

/// An earlier version left such a run paused, as if it were a real one.
#[tokio::test]
async fn a_dark_run_that_an_earlier_version_left_at_a_conflict_ends_at_the_next_start() {
    let step_service = StepService::new(|_, _| ServiceReply::Json(500, json!({}))).await;
    let plan = PlanBuilder::new()
        .call("pay", &[], "POST /pay", json!({}))
        .effect(EffectClass::Private)
        .respond(201, json!({}))
        .build("w");
    let mut harness = Harness::new(&step_service, plan).await;
    let real = start(&harness, json!({})).await.run;
    harness.wait_until_idle(real).await;
    assert_eq!(harness.view(real).await.status, RunStatus::Paused);
    let dark = append_copy_in_dark(&harness, real).await;
    assert_eq!(harness.view(dark).await.status, RunStatus::Paused);
    harness.crash().await;
    harness.recover().await;
    let view = harness.wait_until(dark, |view| view.status == RunStatus::Failed).await;
    assert!(view.note.is_some_and(|note| note.contains("a person would have to decide")));
    assert_eq!(harness.view(real).await.status, RunStatus::Paused, "a person decides about the real run");
    assert_eq!(step_service.paths(), ["POST /pay"]);
}

/// Stores a run in dark with the events of this run.
async fn append_copy_in_dark(harness: &Harness, run: RunId) -> RunId {
    let mut events = harness.events(run).await;
    let Some(Event::RunStarted(started)) = events.first_mut() else { panic!("{events:?}") };
    let started = Arc::make_mut(started);
    (started.run, started.mode) = (RunId(Uuid::now_v7()), Mode::Dark);
    let now = started.started;
    let after = fold(&events).unwrap();
    let append = Append {
        run_id: after.id(),
        first: Seq::FIRST,
        events: events.into_iter().map(|event| (now, event)).collect(),
        summary: after.summary(now),
        batch: Uuid::now_v7(),
        pins: Vec::new(),
        claim: None,
        priority: Priority::Dark,
        worker: harness.engine.core.schedule.worker,
        fence: Fence::FIRST,
        release: true,
        locks: Vec::new(),
        webhook_messages: Vec::new(),
        answered_commands: Vec::new(),
        pending_runs: Vec::new(),
        size: Default::default(),
    };
    harness.store.append(append.into()).await.unwrap();
    after.id()
}

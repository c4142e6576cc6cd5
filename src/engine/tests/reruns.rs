//! Reruns: each run has at most one successor, and a run and its successor are never active at the same time.

use std::sync::Arc;

use serde_json::{Value, json};

use super::harness::{Harness, ServiceReply, StepService, answer, checked_plan, refused, request, request_copy, start};
use crate::engine::CommandError;
use crate::engine::StartError;
use crate::engine::Started;
use crate::exchange::ArmRequest;
use crate::flag::{Arm, Family, InstanceId, PinKey, RetryKey};
use crate::limits::Limits;
use crate::names::{RouteId, RunId};
use crate::secret::Secret;
use crate::store::{MemoryStore, SqliteStore};
use crate::workflow::testing::PlanBuilder;
use crate::workflow::{ControlCommand, EndingEvent, Event, Mode, Plan, RunStatus};

/// Two steps; the undo of `one` is a DELETE.
fn plan() -> Arc<Plan> {
    checked_plan(
        &json!({
            "workflow": "w",
            "steps": {
                "one": { "call": "POST ${services.world}/one", "undo": "DELETE ${services.world}/one" },
                "two": { "needs": ["one"], "call": "POST ${services.world}/two" },
            },
            "respond": { "status": 200, "body": {} },
        }),
        false,
    )
}

/// A run that is paused by a conflict over `two`: the service answers 409 to the first `refused` calls of `two`.
async fn paused(refused: usize) -> (Arc<StepService>, Harness, RunId) {
    let step_service = StepService::new(move |seen, before| match (seen.path.as_str(), before) {
        ("/two", before) if before < refused => ServiceReply::Json(409, json!({})),
        _ => ServiceReply::Json(200, json!({})),
    })
    .await;
    let harness = Harness::new(&step_service, plan()).await;
    let run = start(&harness, json!({})).await.run;
    assert_eq!(harness.wait_until_ended_or_awaits_input(run).await.status, RunStatus::Paused);
    (step_service, harness, run)
}

async fn rerun(harness: &Harness, of: RunId, from: &str) -> Result<Started, StartError> {
    harness.engine.rerun(of, from.into(), "ann".into()).await
}

async fn send_command(harness: &Harness, run: RunId, command: ControlCommand) -> Result<(), String> {
    harness.engine.give_command(run, command, "bob".into()).await.map(drop).map_err(|error| match error {
        CommandError::Refused { run, .. } => run.note.unwrap_or_default(),
        error => error.to_string(),
    })
}

#[tokio::test]
async fn a_rerun_ends_a_paused_run() {
    let (step_service, harness, run) = paused(1).await;
    let successor = rerun(&harness, run, "two").await.unwrap();
    assert_eq!(harness.wait_until_ended_or_awaits_input(successor.run).await.status, RunStatus::Completed);
    for command in [
        ControlCommand::Resume { reason: None },
        ControlCommand::Cancel { compensate: true, reason: None, automatic: false },
        ControlCommand::Retry { step: Some("two".into()), attempt: None },
    ] {
        let why = send_command(&harness, run, command).await.unwrap_err();
        assert!(why.contains(&successor.run.to_string()), "{why}");
    }
    assert_eq!(step_service.paths(), ["POST /one", "POST /two", "POST /two"], "the superseded run undoes nothing");
    let superseded = harness.events(run).await.pop();
    assert!(
        matches!(superseded, Some(Event::Ending(EndingEvent::Superseded(superseded))) if superseded.successor == successor.run)
    );
    let Err(StartError::Invalid(why)) = rerun(&harness, run, "two").await else { panic!() };
    assert!(why.contains(&successor.run.to_string()), "only the newest run of a job is rerun: {why}");
    assert!(rerun(&harness, successor.run, "two").await.is_ok());
}

#[tokio::test]
async fn of_concurrent_reruns_one_wins() {
    for ended in [false, true] {
        let (step_service, harness, run) = paused(1).await;
        if ended {
            send_command(&harness, run, ControlCommand::Cancel { compensate: false, reason: None, automatic: false })
                .await
                .unwrap();
        }
        let all: Vec<_> = futures_util::future::join_all((0..8).map(|_| rerun(&harness, run, "two"))).await;
        let (won, lost): (Vec<_>, Vec<_>) = all.into_iter().partition(Result::is_ok);
        assert_eq!((won.len(), lost.len()), (1, 7), "{lost:?}");
        assert!(lost.iter().all(|lost| matches!(lost, Err(StartError::Invalid(_)))), "{lost:?}");
        harness.wait_until_ended_or_awaits_input(won[0].as_ref().unwrap().run).await;
        assert_eq!(step_service.paths(), ["POST /one", "POST /two", "POST /two"]);
        assert_eq!(harness.runs().await.len(), 2);
    }
}

#[tokio::test]
async fn steps_that_a_successor_undid_are_not_taken_over_from_its_predecessor() {
    let (step_service, harness, run) = paused(2).await;
    send_command(&harness, run, ControlCommand::Cancel { compensate: false, reason: None, automatic: false })
        .await
        .unwrap();
    let first = rerun(&harness, run, "two").await.unwrap().run;
    harness.wait_until_ended_or_awaits_input(first).await;
    send_command(&harness, first, ControlCommand::Cancel { compensate: true, reason: None, automatic: false })
        .await
        .unwrap();
    assert_eq!(harness.wait_until_ended_or_awaits_input(first).await.status, RunStatus::Cancelled);
    assert!(matches!(rerun(&harness, run, "two").await, Err(StartError::Invalid(_))));
    let second = rerun(&harness, first, "two").await.unwrap().run;
    assert_eq!(harness.wait_until_ended_or_awaits_input(second).await.status, RunStatus::Completed);
    assert_eq!(step_service.paths(), ["DELETE /one", "POST /one", "POST /one", "POST /two", "POST /two", "POST /two"]);
}

/// The process ends between the two appends: the next one creates the successor from the outbox.
#[tokio::test]
async fn a_successor_that_was_not_created_before_a_crash_is_created_by_the_next_process() {
    let (step_service, mut harness, run) = paused(1).await;
    let to = RunId(uuid::Uuid::now_v7());
    send_command(&harness, run, ControlCommand::HandOver { to, from: "two".into(), sealed: None }).await.unwrap();
    let pending_runs = harness.store.pending_runs(9).await.unwrap();
    assert_eq!(pending_runs.iter().map(|row| (row.run, row.parent)).collect::<Vec<_>>(), [(to, Some(run))]);
    harness.crash().await;
    assert!(harness.store.run(to).await.unwrap().is_none());
    harness.recover().await;
    let created = async {
        while harness.store.run(to).await.unwrap().is_none() {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(super::harness::TIMEOUT, created).await.expect("it is created");
    assert_eq!(harness.wait_until_ended_or_awaits_input(to).await.status, RunStatus::Completed);
    assert_eq!(step_service.paths(), ["POST /one", "POST /two", "POST /two"], "the successor runs once");
    assert_eq!((harness.store.pending_runs(9).await.unwrap().len(), harness.runs().await.len()), (0, 2));
}

/// A repeated rerun creates the successor, without the outbox.
#[tokio::test]
async fn a_successor_that_was_not_created_is_created_when_the_rerun_is_repeated() {
    let (step_service, mut harness, run) = paused(1).await;
    let to = RunId(uuid::Uuid::now_v7());
    send_command(&harness, run, ControlCommand::HandOver { to, from: "two".into(), sealed: None }).await.unwrap();
    harness.crash().await;
    assert!(harness.store.run(to).await.unwrap().is_none());
    assert!(
        harness.store.run(run).await.unwrap().unwrap().note.unwrap().contains(&to.to_string()),
        "its note names the successor"
    );
    let Err(StartError::Invalid(why)) = rerun(&harness, run, "one").await else { panic!() };
    assert!(why.contains("from `two`"), "{why}");
    assert_eq!(rerun(&harness, run, "two").await.unwrap().run, to);
    assert_eq!(harness.wait_until_ended_or_awaits_input(to).await.status, RunStatus::Completed);
    assert_eq!(step_service.paths(), ["POST /one", "POST /two", "POST /two"]);
    assert!(rerun(&harness, run, "two").await.is_err());
}

#[tokio::test]
async fn a_successor_has_the_credentials_of_the_caller() {
    let step_service = StepService::new(|seen, before| match (seen.path.as_str(), before) {
        ("/a", 0) => ServiceReply::Json(409, json!({})),
        _ => ServiceReply::Json(200, json!({})),
    })
    .await;
    let definition: Value = json!({
        "workflow": "w",
        "steps": { "a": { "call": "POST ${services.world}/a", "on_conflict": "pause",
                          "headers": { "cookie": "${request.headers.cookie}" } } },
        "respond": { "status": 200, "body": {} },
    });
    let services = [(crate::names::ServiceName::from("world"), false)].into();
    let known = crate::workflow::DeclaredNames {
        services: &services,
        secrets: &Default::default(),
        has_store_key: true,
        limits: &Limits::default(),
    };
    let plan = Arc::new(Plan::from_source(&definition, &known).unwrap());
    let key = Some(Secret::new("k"));
    let store = Arc::new(MemoryStore::new());
    let mut harness = Harness::with_store(&step_service, plan, store, Limits::default(), key).await;
    let arm_request = crate::exchange::ArmRequest {
        request: request_copy(&json!({}), &[("cookie", "sid=1")]),
        ..request("w", Mode::Real, &json!({}))
    };
    harness.send(arm_request).await;
    let run = harness.runs().await[0].run_id;
    // The process ends after the predecessor was ended and before the successor is created.
    let successor = crate::engine::api::rerun::hand_over_for_test(&harness.engine, run, "a").await;
    harness.crash().await;
    assert_eq!(rerun(&harness, run, "a").await.unwrap().run, successor);
    assert_eq!(harness.wait_until_ended_or_awaits_input(successor).await.status, RunStatus::Completed);
    assert_eq!(step_service.seen()[1].header("cookie"), Some("sid=1"));
}

/// The id of a successor is known before the successor is stored. A command to it makes a task hold its slot for a
/// moment.
#[tokio::test]
async fn a_successor_is_created_once_its_slot_is_free() {
    let plan = checked_plan(
        &json!({
            "workflow": "w",
            "steps": { "a": { "call": "POST ${services.world}/a", "timeout": "30s" } },
            "respond": { "status": 200, "body": {} },
        }),
        false,
    );
    let step_service = StepService::new(|_, before| match before {
        0 => ServiceReply::Json(409, json!({})),
        _ => ServiceReply::Gated(200, json!({})),
    })
    .await;
    let harness = Harness::new(&step_service, plan).await;
    let run = start(&harness, json!({})).await.run;
    assert_eq!(harness.wait_until_ended_or_awaits_input(run).await.status, RunStatus::Paused);
    let successor = crate::engine::api::rerun::hand_over_for_test(&harness.engine, run, "a").await;
    let schedule = &harness.engine.core.schedule;
    let slot = schedule.mailboxes.claim_slot(&schedule.timers, successor).expect("it is free");
    let mut reruns = Box::pin(rerun(&harness, run, "a"));
    let turns = async {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = &mut reruns => panic!("the slot is not free"),
        () = turns => {}
    }
    assert!(harness.store.run(successor).await.unwrap().is_none());
    drop(slot);
    assert_eq!(reruns.await.unwrap().run, successor);
    step_service.wait_for_calls(2).await;
    assert!(schedule.mailboxes.notify(successor), "its task has a mailbox");
    step_service.open_gate();
    assert_eq!(harness.wait_until_ended_or_awaits_input(successor).await.status, RunStatus::Completed);
}

/// An item that is null stays an item when the events are read back: its `undo` names it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rerun_that_took_over_a_null_item_undoes_it_after_a_restart() {
    let plan = checked_plan(
        &json!({
            "workflow": "w",
            "steps": {
                "one": {
                    "for_each": "${request.body.items}",
                    "call": "POST ${services.world}/one",
                    "undo": { "call": "POST ${services.world}/undone", "body": { "item": "${item}" } },
                },
                "two": { "needs": ["one"], "call": "POST ${services.world}/two" },
            },
            "respond": { "status": 200, "body": {} },
        }),
        false,
    );
    let step_service = StepService::new(|seen, _| match seen.path.as_str() {
        "/two" => ServiceReply::Json(409, json!({})),
        _ => ServiceReply::Json(200, json!({})),
    })
    .await;
    let (folder, limits) = (tempfile::tempdir().unwrap(), Limits::default());
    let store = Arc::new(SqliteStore::open(&folder.path().join("runs.db"), &limits).await.unwrap());
    let mut harness = Harness::with_store(&step_service, plan, store, limits, None).await;
    let run = start(&harness, json!({ "items": [null, 7] })).await.run;
    assert_eq!(harness.wait_until_ended_or_awaits_input(run).await.status, RunStatus::Paused);
    let successor = rerun(&harness, run, "two").await.unwrap().run;
    assert_eq!(harness.wait_until_ended_or_awaits_input(successor).await.status, RunStatus::Paused);
    harness.crash().await;
    harness.recover().await;
    send_command(&harness, successor, ControlCommand::Cancel { compensate: true, reason: None, automatic: false })
        .await
        .unwrap();
    assert_eq!(harness.wait_until_ended_or_awaits_input(successor).await.status, RunStatus::Cancelled);
    let undone = step_service.seen().into_iter().filter(|seen| seen.path == "/undone");
    let mut undone: Vec<String> = undone.map(|seen| String::from_utf8(seen.body.to_vec()).unwrap()).collect();
    undone.sort();
    assert_eq!(undone, [r#"{"item":7}"#, r#"{"item":null}"#]);
}

/// A route's request that creates an instance, whose run is paused by a conflict over `two`.
async fn created_by_a_route(pending: bool, retry_window_s: u64) -> (Arc<StepService>, Harness, ArmRequest) {
    let step_service = StepService::new(|seen, before| match (seen.path.as_str(), before) {
        ("/two", 0) => ServiceReply::Json(409, json!({})),
        _ => ServiceReply::Json(200, json!({})),
    })
    .await;
    let mut definition = json!({
        "workflow": "w",
        "steps": {
            "one": { "call": "POST ${services.world}/one" },
            "two": { "needs": ["one"], "call": "POST ${services.world}/two", "on_conflict": "pause" },
        },
        "respond": { "status": 201, "body": { "id": "${run.id}" } },
    });
    if pending {
        definition["respond"]["pending"] = json!({ "status": 202, "body": { "id": "${run.id}" } });
    }
    let store = Arc::new(MemoryStore::with_limits(&Limits { retry_window_s, ..Limits::default() }));
    let harness =
        Harness::with_store(&step_service, checked_plan(&definition, false), store, Limits::default(), None).await;
    let mut arm_request = request("w", Mode::Real, &json!({}));
    arm_request.retry_keys = Some(RetryKey([7; 32]).into());
    arm_request.creates =
        Some((Family::from(RouteId::from(FAMILY)), serde_json_path::JsonPath::parse("$.id").unwrap().into()));
    (step_service, harness, arm_request)
}

const FAMILY: &str = "orders.create";

fn pin_key(id: &Value) -> PinKey {
    PinKey { family: FAMILY.into(), id: id.as_str().unwrap().into() }
}

/// What a follow-up request sees of the instance.
async fn instance(harness: &Harness, id: &Value) -> Value {
    let pin = harness.store.pin(pin_key(id)).await.unwrap().expect("it is pinned");
    assert_eq!(pin.arm, Arm::Engine);
    let follow =
        PlanBuilder::new().set("i", &[], json!("${instance}")).respond(200, json!("${steps.i.output}")).build("f");
    harness.load_plans(&[&follow]);
    let mut arm_request = request("f", Mode::Real, &json!({}));
    arm_request.instance = Some(InstanceId { key: pin_key(id).into(), run: pin.run });
    answer(harness.send(arm_request).await).1
}

#[tokio::test]
async fn the_successor_of_a_run_that_creates_an_instance_pins_it_and_answers_retries() {
    let (step_service, harness, arm_request) = created_by_a_route(false, 600).await;
    let (problem, report) = refused(harness.send(arm_request.clone()).await);
    assert_eq!((problem.status, problem.kind.as_str()), (503, "run-paused"));
    let successor = rerun(&harness, report.run.unwrap(), "two").await.unwrap().run;
    assert_eq!(harness.wait_until_ended_or_awaits_input(successor).await.status, RunStatus::Completed);
    let (status, body, report) = answer(harness.send(arm_request.clone()).await);
    assert_eq!((status, report.run), (201, Some(successor)), "a retry gets the answer of the rerun");
    assert_eq!(body["id"], successor.0.simple().to_string());
    assert_eq!(instance(&harness, &body["id"]).await["status"], "completed");
    assert_eq!(step_service.paths(), ["POST /one", "POST /two", "POST /two"]);

    // After a further rerun the instance has the output of the newest run.
    let newest = rerun(&harness, successor, "two").await.unwrap().run;
    assert_eq!(harness.wait_until_ended_or_awaits_input(newest).await.status, RunStatus::Completed);
    let seen = instance(&harness, &body["id"]).await;
    assert_eq!(seen["output"]["id"], newest.0.simple().to_string(), "the instance shows the newest run");
    let (status, body, report) = answer(harness.send(arm_request).await);
    assert_eq!((status, report.run), (201, Some(newest)), "and a retry gets its answer");
    assert_eq!(body["id"], newest.0.simple().to_string());
    assert_eq!(step_service.paths(), ["POST /one", "POST /two", "POST /two", "POST /two"], "a retry sends nothing");
}

#[tokio::test]
async fn an_id_in_a_pending_answer_leads_to_the_successor() {
    let (step_service, harness, arm_request) = created_by_a_route(true, 600).await;
    let (status, body, report) = answer(harness.send(arm_request.clone()).await);
    assert_eq!(status, 202);
    let id = body["id"].clone();
    assert_eq!(instance(&harness, &id).await["status"], "paused");
    let predecessor = report.run.unwrap();

    // The predecessor has ended, and the successor is not created yet.
    let to = RunId(uuid::Uuid::now_v7());
    send_command(&harness, predecessor, ControlCommand::HandOver { to, from: "two".into(), sealed: None })
        .await
        .unwrap();
    let (status, body, _) = answer(harness.send(arm_request.clone()).await);
    assert_eq!((status, &body["id"]), (202, &id));

    assert_eq!(rerun(&harness, predecessor, "two").await.unwrap().run, to);
    assert_eq!(harness.wait_until_ended_or_awaits_input(to).await.status, RunStatus::Completed);
    let seen = instance(&harness, &id).await;
    assert_eq!((&seen["id"], &seen["status"]), (&id, &json!("completed")));
    let (status, body, _) = answer(harness.send(arm_request).await);
    assert_eq!((status, &body["id"]), (201, &json!(to.0.simple().to_string())));
    assert_eq!(seen["output"], body);
    assert_eq!(step_service.paths(), ["POST /one", "POST /two", "POST /two"]);
}

/// Retention removes the events of both runs, and follow-up requests still see the successor's result.
#[tokio::test]
async fn an_id_in_a_pending_answer_leads_to_the_successor_after_a_purge() {
    let (_step_service, harness, mut arm_request) = created_by_a_route(true, 0).await;
    arm_request.retry_keys = None;
    let (_, body, report) = answer(harness.send(arm_request).await);
    let successor = rerun(&harness, report.run.unwrap(), "two").await.unwrap().run;
    assert_eq!(harness.wait_until_ended_or_awaits_input(successor).await.status, RunStatus::Completed);
    for status in [RunStatus::Cancelled, RunStatus::Completed] {
        assert_eq!(harness.store.purge(status, jiff::Timestamp::MAX, 99).await.unwrap().pinned, 1);
    }
    let seen = instance(&harness, &body["id"]).await;
    assert_eq!(
        (&seen["status"], &seen["output"]["id"]),
        (&json!("completed"), &json!(successor.0.simple().to_string()))
    );
}

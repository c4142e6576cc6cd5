//! Reruns: each run has at most one successor, and a run and its successor are never active at the same time.

use std::sync::Arc;

use serde_json::{Value, json};

use super::harness::{Harness, ServiceReply, StepService, checked_plan, copy, request, start};
use crate::engine::OrderError;
use crate::engine::StartError;
use crate::engine::Started;
use crate::limits::Limits;
use crate::names::RunId;
use crate::secret::Secret;
use crate::store::{MemoryStore, SqliteStore};
use crate::workflow::{EndingEvent, Event, Mode, Order, Plan, RunStatus};

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
    assert_eq!(harness.wait_until_resting(run).await.status, RunStatus::Paused);
    (step_service, harness, run)
}

async fn rerun(harness: &Harness, of: RunId, from: &str) -> Result<Started, StartError> {
    harness.engine.rerun(of, from.into(), "ann".into()).await
}

async fn send_order(harness: &Harness, run: RunId, order: Order) -> Result<(), String> {
    harness.engine.order(run, order, "bob".into()).await.map(drop).map_err(|error| match error {
        OrderError::Refused { run, .. } => run.note.unwrap_or_default(),
        error => error.to_string(),
    })
}

#[tokio::test]
async fn a_rerun_ends_a_paused_run() {
    let (step_service, harness, run) = paused(1).await;
    let successor = rerun(&harness, run, "two").await.unwrap();
    assert_eq!(harness.wait_until_resting(successor.run).await.status, RunStatus::Completed);
    for order in [
        Order::Resume { reason: None },
        Order::Cancel { compensate: true, reason: None, automatic: false },
        Order::Retry { step: Some("two".into()) },
    ] {
        let why = send_order(&harness, run, order).await.unwrap_err();
        assert!(why.contains(&successor.run.to_string()), "{why}");
    }
    assert_eq!(step_service.paths(), ["POST /one", "POST /two", "POST /two"], "the superseded run undoes nothing");
    let superseded = harness.events(run).await.pop();
    assert!(
        matches!(superseded, Some(Event::Ending(EndingEvent::Superseded(superseded))) if superseded.by == successor.run)
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
            send_order(&harness, run, Order::Cancel { compensate: false, reason: None, automatic: false })
                .await
                .unwrap();
        }
        let all: Vec<_> = futures_util::future::join_all((0..8).map(|_| rerun(&harness, run, "two"))).await;
        let (won, lost): (Vec<_>, Vec<_>) = all.into_iter().partition(Result::is_ok);
        assert_eq!((won.len(), lost.len()), (1, 7), "{lost:?}");
        assert!(lost.iter().all(|lost| matches!(lost, Err(StartError::Invalid(_)))), "{lost:?}");
        harness.wait_until_resting(won[0].as_ref().unwrap().run).await;
        assert_eq!(step_service.paths(), ["POST /one", "POST /two", "POST /two"]);
        assert_eq!(harness.runs().await.len(), 2);
    }
}

#[tokio::test]
async fn steps_that_a_successor_undid_are_not_taken_over_from_its_predecessor() {
    let (step_service, harness, run) = paused(2).await;
    send_order(&harness, run, Order::Cancel { compensate: false, reason: None, automatic: false }).await.unwrap();
    let first = rerun(&harness, run, "two").await.unwrap().run;
    harness.wait_until_resting(first).await;
    send_order(&harness, first, Order::Cancel { compensate: true, reason: None, automatic: false }).await.unwrap();
    assert_eq!(harness.wait_until_resting(first).await.status, RunStatus::Cancelled);
    assert!(matches!(rerun(&harness, run, "two").await, Err(StartError::Invalid(_))));
    let second = rerun(&harness, first, "two").await.unwrap().run;
    assert_eq!(harness.wait_until_resting(second).await.status, RunStatus::Completed);
    assert_eq!(step_service.paths(), ["DELETE /one", "POST /one", "POST /one", "POST /two", "POST /two", "POST /two"]);
}

/// The process ends between the two appends: the next one creates the successor from the outbox.
#[tokio::test]
async fn a_successor_that_was_not_created_before_a_crash_is_created_by_the_next_process() {
    let (step_service, mut harness, run) = paused(1).await;
    let to = RunId(uuid::Uuid::now_v7());
    send_order(&harness, run, Order::HandOver { to, from: "two".into(), sealed: None }).await.unwrap();
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
    assert_eq!(harness.wait_until_resting(to).await.status, RunStatus::Completed);
    assert_eq!(step_service.paths(), ["POST /one", "POST /two", "POST /two"], "the successor runs once");
    assert_eq!((harness.store.pending_runs(9).await.unwrap().len(), harness.runs().await.len()), (0, 2));
}

/// A repeated rerun creates the successor, without the outbox.
#[tokio::test]
async fn a_successor_that_was_not_created_is_created_when_the_rerun_is_repeated() {
    let (step_service, mut harness, run) = paused(1).await;
    let to = RunId(uuid::Uuid::now_v7());
    send_order(&harness, run, Order::HandOver { to, from: "two".into(), sealed: None }).await.unwrap();
    harness.crash().await;
    assert!(harness.store.run(to).await.unwrap().is_none());
    assert!(
        harness.store.run(run).await.unwrap().unwrap().note.unwrap().contains(&to.to_string()),
        "its note names the successor"
    );
    let Err(StartError::Invalid(why)) = rerun(&harness, run, "one").await else { panic!() };
    assert!(why.contains("from `two`"), "{why}");
    assert_eq!(rerun(&harness, run, "two").await.unwrap().run, to);
    assert_eq!(harness.wait_until_resting(to).await.status, RunStatus::Completed);
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
    let known = crate::workflow::Known {
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
        request: copy(&json!({}), &[("cookie", "sid=1")]),
        ..request("w", Mode::Real, &json!({}))
    };
    harness.send(arm_request).await;
    let run = harness.runs().await[0].run_id;
    // The process ends after the predecessor was ended and before the successor is created.
    let successor = crate::engine::api::rerun::hand_over_for_test(&harness.engine, run, "a").await;
    harness.crash().await;
    assert_eq!(rerun(&harness, run, "a").await.unwrap().run, successor);
    assert_eq!(harness.wait_until_resting(successor).await.status, RunStatus::Completed);
    assert_eq!(step_service.seen()[1].header("cookie"), Some("sid=1"));
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
    assert_eq!(harness.wait_until_resting(run).await.status, RunStatus::Paused);
    let successor = rerun(&harness, run, "two").await.unwrap().run;
    assert_eq!(harness.wait_until_resting(successor).await.status, RunStatus::Paused);
    harness.crash().await;
    harness.recover().await;
    send_order(&harness, successor, Order::Cancel { compensate: true, reason: None, automatic: false }).await.unwrap();
    assert_eq!(harness.wait_until_resting(successor).await.status, RunStatus::Cancelled);
    let undone = step_service.seen().into_iter().filter(|seen| seen.path == "/undone");
    let mut undone: Vec<String> = undone.map(|seen| String::from_utf8(seen.body.to_vec()).unwrap()).collect();
    undone.sort();
    assert_eq!(undone, [r#"{"item":7}"#, r#"{"item":null}"#]);
}

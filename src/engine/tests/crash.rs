//! The process ends in the middle of runs, and the next one goes on.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::kit::{Bench, PATIENCE, React, World, checked, copy, request};
use crate::flag::RetryKey;
use crate::limits::Limits;
use crate::secret::Secret;
use crate::store::MemoryStore;
use crate::workflow::testing::PlanBuilder;
use crate::workflow::{Event, Mode, RunStatus};

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

/// Cuts the process while the charge is under way; the second charge is answered.
async fn cut_in_charge(keyed: bool) -> (Arc<World>, Bench, crate::names::RunId) {
    let world = World::new(|seen, before| match (seen.path.as_str(), before) {
        ("/charge", 0) => React::Hang,
        _ => React::Json(200, json!({"id": 1})),
    })
    .await;
    let mut bench = Bench::new(&world, checked(&definition(), keyed)).await;
    let mut asked = request("w", Mode::Real, &json!({"items": [1, 2, 3]}));
    asked.retry_key = Some(RetryKey([3; 32]));
    let arm = bench.engine.arm();
    let caller = tokio::spawn(tower::ServiceExt::oneshot(arm, asked));
    world.has_seen(4).await;
    bench.crash().await;
    let _ = tokio::time::timeout(PATIENCE, caller).await.unwrap();
    let runs = bench.runs().await;
    assert_eq!((runs.len(), runs[0].status), (1, RunStatus::Running));
    let run = runs[0].run_id;
    (world, bench, run)
}

#[tokio::test]
async fn a_run_goes_on_where_it_was_and_a_keyed_call_is_sent_again_with_the_same_bytes() {
    let (world, bench, run) = cut_in_charge(true).await;
    assert_eq!(bench.recover().await.resumed, 1);
    let view = bench.until(run, |view| view.status.is_final()).await;
    assert_eq!((view.status, view.answered), (RunStatus::Completed, Some(201)));
    let seen = world.seen();
    let charges: Vec<_> = seen.iter().filter(|seen| seen.path == "/charge").collect();
    assert_eq!(charges.len(), 2);
    assert_eq!(charges[0].body, charges[1].body);
    assert_eq!(charges[0].header("idempotency-key"), charges[1].header("idempotency-key"));
    assert_eq!(seen.iter().filter(|seen| seen.path.starts_with("/reserve")).count(), 3, "finished steps stay finished");

    // The client's retry gets the run's answer.
    let mut asked = request("w", Mode::Real, &json!({"items": [1, 2, 3]}));
    asked.retry_key = Some(RetryKey([3; 32]));
    let (_, body, _) = super::kit::answer(bench.ask(asked).await);
    assert_eq!(body["run"], run.0.simple().to_string());
}

#[tokio::test]
async fn what_must_not_be_sent_again_pauses_its_run() {
    let (world, bench, run) = cut_in_charge(false).await;
    assert_eq!(bench.recover().await.resumed, 1);
    let view = bench.until(run, |view| view.status == RunStatus::Paused).await;
    assert!(view.note.unwrap().contains("unknown"));
    assert_eq!(world.seen().iter().filter(|seen| seen.path == "/charge").count(), 1);
    let mut bench = bench;
    bench.crash().await;
    let recovered = bench.recover().await;
    assert_eq!((recovered.resumed, recovered.paused), (0, 1));
}

#[tokio::test]
async fn credentials_of_the_caller_outlive_a_crash_and_not_the_run() {
    let world = World::new(|seen, before| match (seen.path.as_str(), before) {
        ("/b", 0) => React::Hang,
        _ => React::Json(200, json!({})),
    })
    .await;
    let plan = PlanBuilder::new()
        .call("a", &[], "POST /a", json!({}))
        .call("b", &["a"], "PUT /b", json!({}))
        .header("authorization", "${request.headers.authorization}")
        .respond(200, json!({}))
        .build("w");
    let (store, key) = (Arc::new(MemoryStore::new()), Some(Secret::new("k")));
    let mut bench = Bench::over(&world, plan, store, Limits::default(), key).await;
    let mut asked = request("w", Mode::Real, &json!({}));
    asked.request = copy(&json!({}), &[("authorization", "Basic abc")]);
    let caller = tokio::spawn(tower::ServiceExt::oneshot(bench.engine.arm(), asked));
    world.has_seen(2).await;
    bench.crash().await;
    let _ = tokio::time::timeout(PATIENCE, caller).await.unwrap();
    let run = bench.runs().await[0].run_id;
    assert!(bench.store.run_key(run).await.unwrap().is_some());
    assert_eq!(bench.recover().await.resumed, 1);
    bench.until(run, |view| view.status == RunStatus::Completed).await;
    assert_eq!(world.seen().pop().unwrap().header("authorization"), Some("Basic abc"));
    assert_eq!(bench.store.run_key(run).await.unwrap(), None);
}

#[tokio::test]
async fn a_run_keeps_the_plan_that_it_started_with() {
    let (_, mut bench, run) = cut_in_charge(true).await;
    bench.plan = PlanBuilder::new().respond(200, json!({})).build("w");
    bench.crash().await;
    assert_eq!(bench.recover().await.resumed, 1);
    bench.until(run, |view| view.status == RunStatus::Completed).await;
}

#[tokio::test]
async fn a_run_whose_plan_cannot_be_made_again_is_left_as_it_is() {
    let world = World::new(|seen, _| match seen.path.as_str() {
        "/a" => React::Json(200, json!({})),
        _ => React::Hang,
    })
    .await;
    // Its source is no definition.
    let plan = PlanBuilder::new().call("a", &[], "POST /a", json!({})).call("b", &["a"], "PUT /b", json!({}));
    let plan = plan.respond(202, json!({})).respond_after(&["a"]).build("w");
    let mut bench = Bench::new(&world, plan).await;
    let (_, _, report) = super::kit::answer(bench.ask(request("w", Mode::Real, &json!({}))).await);
    world.has_seen(2).await;
    bench.plan = PlanBuilder::new().respond(200, json!({})).build("other");
    bench.crash().await;
    assert_eq!(bench.recover().await.unreadable, 1);
    assert_eq!(bench.view(report.run.unwrap()).await.status, RunStatus::Running);
}

#[tokio::test]
async fn a_drain_lets_callers_have_their_answer_and_begins_nothing_else() {
    let world = World::new(|seen, _| match seen.path.as_str() {
        "/b" => React::Gated(200, json!({})),
        _ => React::Json(200, json!({})),
    })
    .await;
    let plan = PlanBuilder::new()
        .call("a", &[], "POST /a", json!({}))
        .call("b", &["a"], "POST /b", json!({}))
        .call("c", &["b"], "POST /c", json!({}))
        .respond(202, json!({}))
        .respond_after(&["a"])
        .build("w");
    let mut bench = Bench::new(&world, plan).await;
    let (status, _, report) = super::kit::answer(bench.ask(request("w", Mode::Real, &json!({}))).await);
    assert_eq!(status, 202);
    world.has_seen(2).await;
    let drained = bench.engine.drain(Duration::from_secs(5));
    let opens = async { world.open_gate() };
    assert!(tokio::join!(drained, opens).0);
    assert_eq!(world.paths(), ["POST /a", "POST /b"]);
    bench.crash().await;
    assert_eq!(bench.recover().await.resumed, 1);
    let run = report.run.unwrap();
    bench.until(run, |view| view.status == RunStatus::Completed).await;
    assert_eq!(world.paths(), ["POST /a", "POST /b", "POST /c"]);
    let finished = bench.events(run).await.iter().filter(|event| matches!(event, Event::StepFinished(_))).count();
    assert_eq!(finished, 3);
}

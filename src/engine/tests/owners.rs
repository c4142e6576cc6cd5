//! Two processes and one store: a run is moved by one of them.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::kit::{Bench, PATIENCE, React, World, start};
use super::through;
use crate::engine::OrderError;
use crate::limits::Limits;
use crate::store::MemoryStore;
use crate::workflow::testing::PlanBuilder;
use crate::workflow::{Order, Plan, Refusal, RunStatus};

fn plan() -> Arc<Plan> {
    PlanBuilder::new()
        .call("a", &[], "POST /a", json!({}))
        .call("b", &["a"], "POST /b", json!({}))
        .respond(200, json!({}))
        .build("w")
}

async fn gated() -> Arc<World> {
    World::new(|seen, _| match seen.path.as_str() {
        "/a" => React::Gated(200, json!({})),
        _ => React::Json(200, json!({})),
    })
    .await
}

fn retry() -> Order {
    Order::Retry { step: None }
}

/// The first process was thought dead: it is fenced when it comes back.
#[tokio::test]
async fn a_zombie_is_fenced() {
    let world = gated().await;
    let store = Arc::new(MemoryStore::new());
    let zombie = Bench::over(&world, plan(), store.clone(), Limits::default(), None).await;
    let run = start(&zombie, json!({})).await.run;
    world.has_seen(1).await;
    let other = Bench::over(&world, plan(), store, Limits::default(), None).await;
    assert_eq!(other.recover().await.resumed, 1);
    // The call may have been done: nobody but a person may say.
    other.until(run, |view| view.status == RunStatus::Paused).await;
    world.open_gate();
    let gone = async {
        while zombie.engine.runs_in_flight() > 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("the zombie goes on");
    assert_eq!(other.view(run).await.status, RunStatus::Paused, "nothing of the zombie is kept");
    assert_eq!(world.paths(), ["POST /a"]);
}

#[tokio::test]
async fn an_order_finds_a_run_that_another_process_moves() {
    let world = gated().await;
    let store = through::shared();
    let limits = Limits { lease_ms: 300, sweep_ms: 100, order_wait_ms: 3_000, ..Limits::default() };
    let mover = Bench::over(&world, plan(), store.clone(), limits.clone(), None).await;
    let other = Bench::over(&world, plan(), store.clone(), limits, None).await;
    mover.recover().await;
    other.recover().await;
    let run = start(&mover, json!({})).await.run;
    world.has_seen(1).await;
    let said = other.engine.order(run, retry(), "ann".into()).await;
    assert!(matches!(said, Err(OrderError::Refused { .. })), "{said:?}");
    world.open_gate();
    // Who waits at the other process sees it too.
    assert_eq!(other.engine.rest(run, PATIENCE).await.unwrap().status, RunStatus::Completed);
    let said = other.engine.order(run, retry(), "ann".into()).await;
    assert!(matches!(said, Err(OrderError::Refused { refusal: Refusal::Ended, .. })), "{said:?}");
    let nobody = crate::names::RunId(uuid::Uuid::now_v7());
    assert_eq!(other.engine.order(nobody, retry(), "ann".into()).await, Err(OrderError::NoRun));
}

/// A process that was thought dead has a task that waits for a reply, while another moves the run: what is asked of the
/// first is answered by the second, and never from what the first remembers.
#[tokio::test]
async fn a_task_that_lost_its_run_does_not_answer_from_memory() {
    let world = gated().await;
    let store = through::shared();
    let limits = Limits { sweep_ms: 50, order_wait_ms: 5_000, ..Limits::default() };
    let zombie = Bench::over(&world, plan(), store.clone(), limits.clone(), None).await;
    let other = Bench::over(&world, plan(), store.clone(), limits, None).await;
    zombie.recover().await;
    other.recover().await;
    let run = start(&zombie, json!({})).await.run;
    world.has_seen(1).await;
    zombie.engine.core.schedule.lease.lapse();
    store.dies(zombie.engine.core.schedule.worker);
    other.until(run, |view| view.status == RunStatus::Paused).await;
    assert!(zombie.engine.runs_in_flight() > 0, "it still waits for the reply");
    let skip = Order::Resolve { step: "a".into(), item: None, choice: crate::workflow::Choice::Skip, reason: None };
    let said = zombie.engine.order(run, skip, "ann".into()).await;
    assert!(said.is_ok(), "where the run is, there is a conflict over `a`: {said:?}");
    assert_eq!(other.engine.rest(run, PATIENCE).await.unwrap().status, RunStatus::Completed);
}

/// Its mover does not come to it: whoever asks hears that nobody knows, in time.
#[tokio::test]
async fn an_order_that_nobody_takes_is_unknown_in_time() {
    let world = gated().await;
    let store = through::shared();
    let limits = Limits { order_wait_ms: 200, ..Limits::default() };
    let mut mover = Bench::over(&world, plan(), store.clone(), limits.clone(), None).await;
    let other = Bench::over(&world, plan(), store.clone(), limits, None).await;
    mover.recover().await;
    other.recover().await;
    let run = start(&mover, json!({})).await.run;
    world.has_seen(1).await;
    let worker = mover.engine.core.schedule.worker;
    mover.crash().await; // its lease goes on for a while
    let said = other.engine.order(run, retry(), "ann".into()).await;
    assert!(matches!(said, Err(OrderError::Store { unknown: true, .. })), "{said:?}");
    store.dies(worker);
}

#[tokio::test]
async fn what_a_dead_process_left_moves_in_another() {
    let world = gated().await;
    let store = through::shared();
    let limits = Limits { sweep_ms: 50, ..Limits::default() };
    let plan = PlanBuilder::new()
        .call("a", &[], "PUT /a", json!({}))
        .call("b", &["a"], "POST /b", json!({}))
        .respond(200, json!({}))
        .build("w");
    let mut mover = Bench::over(&world, plan.clone(), store.clone(), limits.clone(), None).await;
    let other = Bench::over(&world, plan, store.clone(), limits, None).await;
    mover.recover().await;
    other.recover().await;
    let run = start(&mover, json!({})).await.run;
    world.has_seen(1).await;
    let worker = mover.engine.core.schedule.worker;
    mover.crash().await;
    store.dies(worker);
    world.open_gate();
    assert_eq!(other.engine.rest(run, PATIENCE).await.unwrap().status, RunStatus::Completed);
    assert_eq!(world.paths(), ["POST /b", "PUT /a", "PUT /a"]);
}

/// A process that goes says so: what it leaves moves at once.
#[tokio::test]
async fn a_drained_process_leaves_its_runs_to_the_others() {
    let world = gated().await;
    let store = through::shared();
    let limits = Limits { sweep_ms: 60_000, ..Limits::default() };
    let mover = Bench::over(&world, plan(), store.clone(), limits.clone(), None).await;
    let other = Bench::over(&world, plan(), store.clone(), limits, None).await;
    mover.recover().await;
    other.recover().await;
    let run = start(&mover, json!({})).await.run;
    world.has_seen(1).await;
    let drained = async {
        world.open_gate();
        mover.engine.drain(PATIENCE).await
    };
    assert!(drained.await);
    assert_eq!(other.engine.rest(run, PATIENCE).await.unwrap().status, RunStatus::Completed);
    assert_eq!(world.paths(), ["POST /a", "POST /b"]);
}

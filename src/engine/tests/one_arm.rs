//! One request is one arm's, whatever comes in between: flips, retries, drains, crowds, a store that does not answer.

use std::sync::Arc;

use serde_json::{Value, json};

use super::kit::{Bench, React, World, abandoned, answer, refused, request};
use crate::exchange::{Affinity, ArmRequest, LegacyTake, Remembered};
use crate::flag::{Arm, RetryKey};
use crate::limits::Limits;
use crate::store::MemoryStore;
use crate::workflow::testing::PlanBuilder;
use crate::workflow::{Mode, Plan, RunStatus};

const KEY: RetryKey = RetryKey([9; 32]);

fn keyed() -> ArmRequest {
    ArmRequest { retry_key: Some(KEY), may_fall_back: true, ..request("w", Mode::Real, &json!({})) }
}

fn plan() -> Arc<Plan> {
    PlanBuilder::new()
        .call("price", &[], "GET /price", Value::Null)
        .call("charge", &["price"], "POST /charges", json!({}))
        .respond(201, json!({"run": "${run.id}"}))
        .build("w")
}

#[tokio::test]
async fn nothing_that_keeps_a_new_run_out_sends_a_retry_to_legacy() {
    let world = World::new(|_, _| React::Gated(200, json!({}))).await;
    let limits = Limits { runs_in_flight_max: 1, ..Limits::default() };
    let bench = Bench::over(&world, plan(), Arc::new(MemoryStore::new()), limits, None).await;
    let retries = async {
        world.has_seen(1).await; // a read is under way, and nothing is on disk
        let mut crowded = Box::pin(bench.ask(keyed()));
        assert!(futures_util::poll!(&mut crowded).is_pending());
        bench.engine.core.process.draining.send_replace(true);
        let mut draining = Box::pin(bench.ask(keyed()));
        assert!(futures_util::poll!(&mut draining).is_pending());
        world.open_gate();
        (crowded.await, draining.await)
    };
    let (first, (crowded, draining)) = tokio::join!(bench.ask(keyed()), retries);
    let body = answer(first).1;
    assert_eq!((answer(crowded).1, answer(draining).1), (body.clone(), body.clone()));
    assert_eq!(answer(bench.ask(keyed()).await).1, body, "after it, too");
    assert_eq!(world.paths(), ["GET /price", "POST /charges"]);
}

#[tokio::test]
async fn legacy_cannot_take_what_the_engine_works_on_before_it_is_on_disk() {
    let world = World::new(|_, _| React::Gated(200, json!({}))).await;
    let mut bench = Bench::new(&world, plan()).await;
    let flipped = async {
        world.has_seen(1).await;
        assert!(bench.runs().await.is_empty(), "nothing is on disk");
        let pins = &bench.engine.core.ports.pins;
        assert_eq!(pins.remembered(&KEY), Remembered::By(Arm::Engine));
        assert_eq!(pins.take_for_legacy(KEY), LegacyTake::HeldByEngine);
        world.open_gate();
    };
    let (first, ()) = tokio::join!(bench.ask(keyed()), flipped);
    assert_eq!(answer(first).0, 201);
    bench.crash().await;
    let pins = &bench.engine.core.ports.pins;
    assert_eq!(pins.first_try(&KEY).await, Ok(Some(Arm::Engine)), "the next process knows");
    let other = RetryKey([1; 32]);
    while pins.remembered(&other) != Remembered::NotEngine {
        tokio::task::yield_now().await; // until what the store has is read
    }
    assert_eq!(pins.remembered(&KEY), Remembered::Unknown, "the store is asked");
}

#[tokio::test]
async fn the_engine_does_not_take_what_legacy_has() {
    let world = World::new(|_, _| React::Json(200, json!({}))).await;
    let bench = Bench::new(&world, plan()).await;
    assert_eq!(bench.engine.core.ports.pins.take_for_legacy(KEY), LegacyTake::Noted);
    assert_eq!(abandoned(bench.ask(keyed()).await).reason, "legacy_took_first_try");
    let only = ArmRequest { may_fall_back: false, ..keyed() };
    assert_eq!(refused(bench.ask(only.clone()).await).0.kind, "given-to-legacy");
    // Noted by an earlier process.
    let bench = Bench::new(&world, plan()).await;
    bench.store.note_legacy_tries(vec![KEY]).await.unwrap();
    assert_eq!(refused(bench.ask(only).await).0.kind, "given-to-legacy");
    assert_eq!(abandoned(bench.ask(keyed()).await).reason, "legacy_took_first_try");
    assert!(world.paths().is_empty());
}

#[tokio::test]
async fn what_is_given_back_is_legacys_before_anybody_hears_of_it() {
    let world = World::new(|_, _| React::Json(404, json!({}))).await;
    let bench = Bench::new(&world, plan()).await;
    assert_eq!(abandoned(bench.ask(keyed()).await).reason, "engine_failed");
    assert_eq!(bench.engine.core.ports.pins.remembered(&KEY), Remembered::By(Arm::Legacy));
    assert_eq!(abandoned(bench.ask(keyed()).await).reason, "legacy_took_first_try");
    assert_eq!(world.paths(), ["GET /price"]);
}

#[tokio::test]
async fn what_was_refused_before_it_began_is_nobodys() {
    let world = World::new(|_, _| React::Json(200, json!({}))).await;
    let bench = Bench::new(&world, plan()).await;
    let unknown = ArmRequest { workflow: "x".into(), may_fall_back: false, ..keyed() };
    assert_eq!(refused(bench.ask(unknown).await).0.kind, "no-workflow");
    assert_eq!(bench.engine.core.ports.pins.take_for_legacy(KEY), LegacyTake::Noted);
}

#[tokio::test]
async fn dark_runs_never_take_the_places_of_callers() {
    let world = World::new(|_, before| if before == 0 { React::Hang } else { React::Json(200, json!({})) }).await;
    let plan = PlanBuilder::new().call("a", &[], "GET /a", Value::Null).respond(200, json!({})).build("w");
    let limits = Limits { runs_in_flight_max: 1, ..Limits::default() };
    let bench = Bench::over(&world, plan, Arc::new(MemoryStore::new()), limits, None).await;
    let mut dark = Box::pin(bench.ask(request("w", Mode::Dark, &json!({}))));
    assert!(futures_util::poll!(&mut dark).is_pending());
    world.has_seen(1).await;
    assert_eq!(answer(bench.ask(request("w", Mode::Real, &json!({}))).await).0, 200);
}

#[tokio::test]
async fn what_is_nested_too_deep_to_be_read_again_is_not_written() {
    let deep = |depth: usize| (0..depth).fold(json!(1), |value, _| json!([value]));
    let replied = deep(120);
    let world = World::new(move |_, _| React::Json(200, replied.clone())).await;
    let plan = PlanBuilder::new()
        .set("seen", &[], json!("${request.body}"))
        .set("more", &["seen"], json!([[["${steps.seen.output}"]]]))
        .call("charge", &[], "POST /charges", json!({}))
        .respond(200, json!({}))
        .build("w");
    let mut bench = Bench::new(&world, plan).await;
    for depth in [98, 120] {
        let reply = bench.ask(request("w", Mode::Real, &deep(depth))).await;
        assert_eq!(refused(reply).0.kind, "workflow-bound", "{depth}");
    }
    for run in bench.runs().await {
        let events = bench.events(run.run_id).await;
        let text = serde_json::to_string(&events).unwrap();
        let again: Vec<crate::workflow::Event> = serde_json::from_str(&text).unwrap();
        assert_eq!(again, events);
    }
    bench.crash().await;
    bench.recover().await;
}

#[tokio::test]
async fn a_resent_attempt_that_did_nothing_leaves_the_first_sending_unknown() {
    let world = World::new(|_, before| if before == 0 { React::Hang } else { React::Json(429, json!({})) }).await;
    let plan = PlanBuilder::new().call("charge", &[], "POST /charges", json!({})).keyed().respond(200, json!({}));
    let mut bench = Bench::new(&world, plan.build("w")).await;
    let caller = tokio::spawn(tower::ServiceExt::oneshot(bench.engine.arm(), request("w", Mode::Real, &json!({}))));
    world.has_seen(1).await;
    bench.crash().await;
    caller.await.unwrap().unwrap();
    let run = bench.runs().await[0].run_id;
    bench.recover().await;
    bench.until(run, |view| view.status == RunStatus::Paused).await;
}

#[tokio::test]
async fn a_drain_does_not_wait_for_an_answer_that_nobody_hears() {
    let world = World::new(|_, _| React::Gated(200, json!({}))).await;
    let bench = Bench::new(&world, plan()).await;
    {
        let mut asked = Box::pin(bench.ask(request("w", Mode::Real, &json!({}))));
        assert!(futures_util::poll!(&mut asked).is_pending());
        world.has_seen(1).await;
    }
    let open = async {
        tokio::task::yield_now().await;
        world.open_gate();
    };
    let (rested, ()) = tokio::join!(bench.engine.drain(super::kit::PATIENCE), open);
    assert!(rested);
    assert_eq!(world.paths(), ["GET /price"], "the charge is the next process's");
    assert_eq!(bench.runs().await[0].status, RunStatus::Running);
}

#[tokio::test]
async fn a_dark_run_that_goes_on_gives_nothing_to_compare() {
    let world = World::new(|_, _| React::Gated(200, json!({}))).await;
    let plan = PlanBuilder::new()
        .call("a", &[], "GET /a", Value::Null)
        .respond(200, json!({}))
        .pending(202, json!({}))
        .build("w");
    let bench = Bench::new(&world, plan).await;
    let soon = std::time::Duration::from_millis(100);
    let late = ArmRequest { deadline: soon, ..request("w", Mode::Dark, &json!({})) };
    let (problem, report) = refused(bench.ask(late).await);
    assert_eq!(problem.kind, "run-goes-on");
    world.open_gate();
    bench.until(report.run.unwrap(), |view| view.status == RunStatus::Completed).await;
}

/// A shared step that was certainly not done is none that had begun.
#[tokio::test]
async fn what_was_certainly_not_done_is_given_back_to_legacy() {
    let world = World::new(|_, _| React::Retry(429, "0")).await;
    let plan = PlanBuilder::new().call("charge", &[], "POST /charges", json!({})).respond(200, json!({})).build("w");
    let bench = Bench::new(&world, plan).await;
    let mut asked = request("w", Mode::Real, &json!({}));
    let (problem, _) = refused(bench.ask(asked.clone()).await);
    assert_eq!((problem.status, problem.shared_step_begun), (503, Some(false)));
    assert!(problem.detail.contains("Nothing but reads was done"), "{}", problem.detail);
    asked.may_fall_back = true;
    let given = abandoned(bench.ask(asked).await);
    assert_eq!(given.reason, "engine_failed");
    bench.until(given.run.unwrap(), |view| view.status == RunStatus::Abandoned).await;
    assert_eq!(world.seen().len(), 2);
}

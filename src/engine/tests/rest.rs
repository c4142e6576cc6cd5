//! Runs that wait have no task, and are woken in time, by this process or the next.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::json;

use super::kit::{Bench, PATIENCE, React, World, answer, checked, request, start};
use super::through::counting;
use crate::engine::OrderError;
use crate::limits::Limits;
use crate::names::RunId;
use crate::workflow::testing::PlanBuilder;
use crate::workflow::{Mode, Order, Plan, RunStatus};

/// A read whose first attempt is told to come again after some seconds.
fn waits() -> Arc<Plan> {
    let retry = json!({ "attempts": 3, "base": "1ms", "max": "1h" });
    let steps = json!({ "a": { "call": "GET ${services.world}/a", "retry": retry } });
    checked(&json!({ "workflow": "w", "steps": steps, "respond": { "status": 200, "body": {} } }), false)
}

async fn world(after: &'static str) -> Arc<World> {
    World::new(move |_, before| match before {
        0 => React::Retry(503, after),
        _ => React::Json(200, json!({})),
    })
    .await
}

#[tokio::test]
async fn a_run_that_waits_has_no_task_and_is_not_woken_early() {
    let world = world("2").await;
    let bench = Bench::new(&world, waits()).await;
    let begun = Instant::now();
    let run = start(&bench, json!({})).await.run;
    bench.rests(run).await;
    assert_eq!(bench.engine.runs_in_flight(), 0);
    let summary = bench.store.run(run).await.unwrap().unwrap();
    assert!(summary.wake.is_some(), "the next process knows when");
    let ended = bench.engine.rest(run, PATIENCE).await.unwrap();
    assert_eq!((ended.status, ended.wake), (RunStatus::Completed, None));
    assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(world.paths(), ["GET /a", "GET /a"]);
    assert!(bench.engine.stuck().is_empty());
}

#[tokio::test]
async fn the_next_process_wakes_what_waits_and_reads_nothing_before() {
    let world = world("2").await;
    let mut bench = Bench::new(&world, waits()).await;
    let begun = Instant::now();
    let run = start(&bench, json!({})).await.run;
    bench.rests(run).await;
    bench.crash().await;
    let recovered = bench.recover().await;
    assert_eq!((recovered.resumed, recovered.waiting), (0, 1), "it is counted all the same");
    assert!(!bench.engine.core.schedule.mailboxes.has_task(run) && bench.engine.core.schedule.timers.will_wake(run));
    assert_eq!(bench.engine.rest(run, PATIENCE).await.unwrap().status, RunStatus::Completed);
    assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(world.seen().len(), 2);
}

#[tokio::test]
async fn what_is_due_when_a_process_starts_goes_on_at_once() {
    let world = world("2").await;
    let mut bench = Bench::new(&world, waits()).await;
    let run = start(&bench, json!({})).await.run;
    bench.rests(run).await;
    let wake = bench.store.run(run).await.unwrap().unwrap().wake.unwrap();
    bench.crash().await;
    let left = Duration::try_from(wake.duration_since(jiff::Timestamp::now())).unwrap_or_default();
    tokio::time::sleep(left + Duration::from_millis(5)).await;
    assert_eq!(bench.recover().await.resumed, 1);
    assert_eq!(bench.engine.rest(run, PATIENCE).await.unwrap().status, RunStatus::Completed);
}

/// An answer is not held up by a run that goes on to wait.
#[tokio::test]
async fn a_caller_is_told_before_its_run_rests() {
    let world = World::new(|seen, _| match seen.path.as_str() {
        "/a" => React::Retry(503, "600"),
        _ => React::Json(200, json!({})),
    })
    .await;
    let retry = json!({ "attempts": 3, "base": "1ms", "max": "1h" });
    let steps = json!({
        "now": { "call": "POST ${services.world}/now" },
        "a": { "needs": ["now"], "call": "GET ${services.world}/a", "retry": retry },
    });
    let respond = json!({ "status": 202, "body": {}, "after": ["now"] });
    let plan = checked(&json!({ "workflow": "w", "steps": steps, "respond": respond }), false);
    let bench = Bench::new(&world, plan).await;
    let (status, _, report) = answer(bench.ask(request("w", Mode::Real, &json!({}))).await);
    assert_eq!(status, 202);
    bench.rests(report.run.unwrap()).await;
    assert_eq!(bench.engine.runs_in_flight(), 0);
}

#[tokio::test]
async fn a_thousand_runs_that_wait_cost_nothing() {
    let world = World::new(|_, _| React::Retry(503, "600")).await;
    let (store, asked) = counting();
    let bench = Bench::over(&world, waits(), store, Limits::default(), None).await;
    let runs = futures_util::future::join_all((0..1_000).map(|_| start(&bench, json!({})))).await;
    for started in &runs {
        bench.rests(started.run).await;
    }
    assert_eq!(bench.engine.runs_in_flight(), 0);
    assert_eq!(bench.engine.core.schedule.timers.len(), 1_000);
    let before = asked.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(asked.load(Ordering::SeqCst), before, "the store is asked nothing while nothing happens");
    assert_eq!(
        bench.engine.core.schedule.wake_permits.available_permits(),
        Limits::default().runs_in_flight_max as usize
    );
}

/// Runs are woken, looked at and asked things at any moment of their going to rest; each still comes to its end, and
/// whoever asks gets an answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_wake_up_is_lost() {
    let seed: u64 = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let world = World::new(|seen, before| match (seen.path.as_str(), before % 2) {
        (_, 0) => React::Retry(503, "1"),
        _ => React::Json(200, json!({})),
    })
    .await;
    let bench = Arc::new(Bench::new(&world, waits()).await);
    let runs: Vec<RunId> =
        futures_util::future::join_all((0..60).map(|_| start(&bench, json!({})))).await.iter().map(|s| s.run).collect();
    let mut askers = Vec::new();
    for _ in 0..400 {
        let run = runs[random.usize(..runs.len())];
        let kind = random.u8(..4);
        match kind {
            0 => bench.engine.core.wake(run),
            1 => tokio::time::sleep(Duration::from_micros(random.u64(..8_000))).await,
            _ => {
                let bench = bench.clone();
                askers.push(tokio::spawn(async move {
                    let pause = [Order::Pause { reason: None }, Order::Resume { reason: None }];
                    let orders = if kind == 2 { pause.to_vec() } else { vec![Order::Retry { step: None }] };
                    for order in orders {
                        let said = bench.engine.order(run, order, "test".into());
                        match tokio::time::timeout(PATIENCE, said).await {
                            Ok(Ok(_) | Err(OrderError::Refused { .. })) => {}
                            other => return Err(format!("{other:?}")),
                        }
                    }
                    Ok(())
                }));
            }
        }
    }
    for asker in askers {
        let told = asker.await.unwrap();
        assert!(told.is_ok(), "SEED={seed}: {told:?}");
    }
    for run in &runs {
        if bench.store.run(*run).await.unwrap().unwrap().status == RunStatus::Paused {
            // Two that paused it at the same time, and one that went on: the last word counts.
            let _ = bench.engine.order(*run, Order::Resume { reason: None }, "test".into()).await;
        }
        let ended = bench.engine.rest(*run, PATIENCE).await.unwrap();
        assert!(ended.status.is_final(), "SEED={seed}: {run} is left {:?}", ended.status);
    }
    assert!(bench.engine.stuck().is_empty());
}

#[tokio::test]
async fn a_paused_run_rests_and_the_next_process_leaves_it_alone() {
    let world = World::new(|_, _| React::Json(500, json!({}))).await;
    let plan = PlanBuilder::new().call("a", &[], "POST /a", json!({})).respond(200, json!({})).build("w");
    let mut bench = Bench::new(&world, plan).await;
    let run = start(&bench, json!({})).await.run;
    assert_eq!(bench.engine.rest(run, PATIENCE).await.unwrap().status, RunStatus::Paused);
    bench.crash().await;
    let recovered = bench.recover().await;
    assert_eq!((recovered.resumed, recovered.paused, recovered.waiting), (0, 1, 0));
    assert!(!bench.engine.core.schedule.timers.will_wake(run), "nothing is kept of it in memory");
    assert!(bench.engine.stuck().is_empty());
}

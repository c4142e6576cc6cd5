//! Runs that people and programs start.

use serde_json::{Value, json};

use super::kit::{Bench, PATIENCE, React, World, checked, start};
use crate::engine::OrderError;
use crate::engine::Start;
use crate::engine::StartError;
use crate::engine::Started;
use crate::flag::RetryKey;
use crate::names::{JobId, RunId, Seq};
use crate::workflow::{Order, Refusal, RunStatus};

fn definition() -> Value {
    json!({
        "workflow": "w",
        "input": { "schema": { "type": "object", "required": ["n"], "properties": { "n": { "type": "integer" } } } },
        "steps": { "a": { "call": "POST ${services.world}/a", "body": { "n": "${request.body.n}" } } },
        "respond": { "status": 201, "body": { "n": "${request.body.n}", "by": "${request.method} ${request.path}" } },
    })
}

async fn bench() -> Bench {
    let world = World::new(|_, _| React::Json(200, json!({}))).await;
    Bench::new(&world, checked(&definition(), false)).await
}

fn keyed(n: u64, body: u8) -> Start {
    let key = Some((RetryKey([7; 32]), [body; 32]));
    Start { workflow: "w".into(), input: json!({ "n": n }), by: "ann".into(), key }
}

#[tokio::test]
async fn a_start_is_on_disk_and_its_output_is_what_respond_gives() {
    let bench = bench().await;
    let started = start(&bench, json!({ "n": 1 })).await;
    let born = bench.store.run(started.run).await.unwrap().expect("it is on disk");
    assert_eq!((born.route, started.job, started.fresh), (None, JobId(started.run.0), true));
    assert_eq!(bench.engine.rest(started.run, PATIENCE).await.unwrap().status, RunStatus::Completed);
    let events = bench.store.events(started.run, Seq::FIRST).await.unwrap();
    let run = crate::workflow::fold(events.iter().map(|stored| &stored.event)).unwrap();
    assert_eq!(run.started().by.as_deref(), Some("test"));
    let output = run.answer().unwrap().body.value();
    assert_eq!(output, json!({ "n": 1, "by": "POST /api/v2/orchestrate/run" }));
    let last = bench.engine.beyond(started.run, Seq(1), PATIENCE).await;
    assert_eq!(last, Some(run.seq()));
    assert_eq!(bench.engine.beyond(RunId(uuid::Uuid::now_v7()), Seq(1), PATIENCE).await, None);
    assert_eq!(bench.engine.rest(RunId(uuid::Uuid::now_v7()), PATIENCE).await, None);
}

#[tokio::test]
async fn whoever_starts_a_run_and_waits_gets_its_events_as_the_store_has_them() {
    let bench = bench().await;
    let (started, rest) = bench.engine.start_watched(keyed(1, 1), PATIENCE).await.unwrap();
    let collected = rest.await.expect("all events were collected");
    assert_eq!(collected, bench.store.events(started.run, Seq::FIRST).await.unwrap());
    let run = crate::workflow::fold(collected.iter().map(|stored| &stored.event)).unwrap();
    assert_eq!(run.status(), RunStatus::Completed);
    // The same key names the run that is there: this start saw none of its events.
    let (again, rest) = bench.engine.start_watched(keyed(1, 1), PATIENCE).await.unwrap();
    assert_eq!((again.run, again.fresh, rest.await), (started.run, false, None));
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_and_starts_nothing() {
    let bench = bench().await;
    let other = Start { workflow: "x".into(), ..keyed(1, 1) };
    let known = vec!["w".to_owned()];
    assert_eq!(bench.engine.start(other).await, Err(StartError::UnknownWorkflow { workflow: "x".into(), known }));
    let wrong = Start { input: json!({ "n": "1" }), ..keyed(1, 1) };
    let Err(StartError::BadInput(why)) = bench.engine.start(wrong).await else { panic!() };
    assert!(why[0].starts_with("/n: "), "{why:?}");
    bench.engine.core.process.draining.send_replace(true);
    assert!(matches!(bench.engine.start(keyed(1, 1)).await, Err(StartError::Unavailable(_))));
    assert!(bench.runs().await.is_empty());
}

async fn crowd(bench: &Bench) -> Vec<Started> {
    let all = (0..200).map(|_| bench.engine.start(keyed(1, 1)));
    futures_util::future::join_all(all).await.into_iter().map(Result::unwrap).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_starts_with_one_key_are_one_run_across_restarts() {
    let mut bench = bench().await;
    let all = crowd(&bench).await;
    assert_eq!(all.iter().filter(|started| started.fresh).count(), 1);
    assert!(all.iter().all(|started| started.run == all[0].run && started.job == all[0].job));
    let other = bench.engine.start(keyed(2, 2)).await;
    assert_eq!(other, Err(StartError::KeyReused(all[0].run)));
    let run = all[0].run;
    bench.crash().await;
    let again = crowd(&bench).await;
    assert!(again.iter().all(|started| started.run == run && !started.fresh));
    assert_eq!(bench.engine.start(keyed(2, 2)).await, Err(StartError::KeyReused(run)));
    assert_eq!(bench.runs().await.len(), 1);
}

#[tokio::test]
async fn an_order_to_what_has_ended_or_never_was_is_refused() {
    let bench = bench().await;
    let run = start(&bench, json!({ "n": 1 })).await.run;
    bench.engine.rest(run, PATIENCE).await.unwrap();
    let order = Order::Pause { reason: None };
    let said = bench.engine.order(run, order.clone(), "ann".into()).await;
    assert!(matches!(said, Err(OrderError::Refused { refusal: Refusal::Ended, .. })), "{said:?}");
    let nobody = RunId(uuid::Uuid::now_v7());
    assert_eq!(bench.engine.order(nobody, order, "ann".into()).await, Err(OrderError::NoRun));
    let explained = bench.engine.explain(run).await.unwrap();
    assert!(explained.sentence.contains("completed") && !explained.stuck, "{explained:?}");
}

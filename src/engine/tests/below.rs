//! A person is waited for by a run that another one began: whoever waits for that other one hears so.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::kit::{Bench, React, World, checked, refused, request, start};
use crate::names::RunId;
use crate::workflow::{CheckpointAnswer, Mode, Order, Plan, RunStatus, RunSummary};

fn begins(name: &str, child: &str) -> Arc<Plan> {
    let steps = json!({ "sub": { "run": child } });
    checked(&json!({ "workflow": name, "steps": steps, "respond": { "status": 200, "body": {} } }), false)
}

fn asks() -> Arc<Plan> {
    let steps: Value = json!({
        "first": { "call": "GET ${services.world}/first" },
        "ok": { "needs": ["first"], "checkpoint": { "question": "Shall it go?" } },
    });
    checked(&json!({ "workflow": "inner", "steps": steps, "respond": { "status": 200, "body": {} } }), false)
}

/// A run, the one that it begins, and the one which that begins: that one asks.
async fn family() -> Bench {
    let world = World::new(|_, _| React::Json(200, json!({}))).await;
    let bench = Bench::new(&world, begins("w", "middle")).await;
    bench.with(&[&begins("middle", "inner"), &asks()]);
    bench
}

async fn asking(bench: &Bench) -> RunSummary {
    let all = bench.runs().await;
    all.into_iter().find(|run| run.status == RunStatus::WaitingCheckpoint).expect("one asks")
}

async fn yes(bench: &Bench, run: &RunSummary) {
    let said = CheckpointAnswer { approve: true, values: None, approved: Vec::new(), struck: Vec::new(), note: None };
    let (checkpoint, _) = run.checkpoint.clone().unwrap();
    bench.engine.order(run.run_id, Order::Answer { checkpoint, said }, "ann".into()).await.unwrap();
}

async fn rests(bench: &Bench, run: RunId) -> RunSummary {
    let begun = Instant::now();
    let summary = bench.ended(run).await;
    assert!(begun.elapsed() < Duration::from_secs(5), "nobody waits for a person");
    summary
}

#[tokio::test]
async fn whoever_waits_for_a_run_hears_that_one_below_it_waits_for_a_person() {
    let bench = family().await;
    let run = start(&bench, json!({})).await.run;
    assert_eq!(rests(&bench, run).await.status, RunStatus::Running);
    let inner = asking(&bench).await;
    assert_eq!(rests(&bench, run).await.status, RunStatus::Running, "and again, without news");
    let explained = bench.engine.explain(run).await.unwrap();
    for said in ["which is running", "which is waiting_checkpoint", "Shall it go?", &inner.run_id.to_string()] {
        assert!(explained.sentence.contains(said), "{said}: {}", explained.sentence);
    }
    yes(&bench, &inner).await;
    assert_eq!(rests(&bench, run).await.status, RunStatus::Completed);
}

#[tokio::test]
async fn a_caller_does_not_wait_for_a_person_below() {
    let bench = family().await;
    let begun = Instant::now();
    let (problem, report) = refused(bench.ask(request("w", Mode::Real, &json!({}))).await);
    assert!(begun.elapsed() < Duration::from_secs(5), "its time is 8 s");
    assert_eq!((problem.status, problem.shared_step_begun), (503, Some(true)));
    yes(&bench, &asking(&bench).await).await;
    assert_eq!(rests(&bench, report.run.unwrap()).await.status, RunStatus::Completed);
}

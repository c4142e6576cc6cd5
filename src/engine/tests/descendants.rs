//! A descendant of a run waits for a person: waiting for the run ends too.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::harness::{Harness, ServiceReply, StepService, checked_plan, refused, request, start};
use crate::exchange::ArmRequest;
use crate::flag::RetryKey;
use crate::names::RunId;
use crate::workflow::{CheckpointAnswer, ControlCommand, Mode, Plan, RunStatus, RunSummary};

fn parent_plan(name: &str, child: &str) -> Arc<Plan> {
    let steps = json!({ "sub": { "run": child } });
    checked_plan(&json!({ "workflow": name, "steps": steps, "respond": { "status": 200, "body": {} } }), false)
}

fn inner_plan() -> Arc<Plan> {
    let steps: Value = json!({
        "first": { "call": "GET ${services.world}/first" },
        "ok": { "needs": ["first"], "checkpoint": { "question": "Shall it go?" } },
    });
    checked_plan(&json!({ "workflow": "inner", "steps": steps, "respond": { "status": 200, "body": {} } }), false)
}

/// A plan with a child and a grandchild, which opens a checkpoint.
async fn three_generations() -> Harness {
    let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({}))).await;
    let harness = Harness::new(&step_service, parent_plan("w", "middle")).await;
    harness.load_plans(&[&parent_plan("middle", "inner"), &inner_plan()]);
    harness
}

async fn waiting_run(harness: &Harness) -> RunSummary {
    let all = harness.runs().await;
    all.into_iter().find(|run| run.status == RunStatus::WaitingCheckpoint).expect("one run waits for a person")
}

async fn approve(harness: &Harness, run: &RunSummary) {
    let said = CheckpointAnswer { approve: true, values: None, approved: Vec::new(), struck: Vec::new(), note: None };
    let (checkpoint, _) = run.checkpoint.clone().unwrap();
    harness
        .engine
        .give_command(run.run_id, ControlCommand::Answer { checkpoint, answer: said }, "ann".into())
        .await
        .unwrap();
}

/// Waits until the run has ended or awaits input, or a descendant waits for a person. Asserts that this takes less than
/// 5 s.
async fn wait_briefly(harness: &Harness, run: RunId) -> RunSummary {
    let begun = Instant::now();
    let summary = harness.wait_until_ended_or_awaits_input(run).await;
    assert!(begun.elapsed() < Duration::from_secs(5), "waiting ends as soon as the descendant waits for a person");
    summary
}

#[tokio::test]
async fn waiting_for_a_run_ends_when_a_descendant_waits_for_a_person() {
    let harness = three_generations().await;
    let run = start(&harness, json!({})).await.run;
    assert_eq!(wait_briefly(&harness, run).await.status, RunStatus::Running);
    let inner = waiting_run(&harness).await;
    assert_eq!(
        wait_briefly(&harness, run).await.status,
        RunStatus::Running,
        "a second wait ends too, without a new event"
    );
    let explained = harness.engine.explain(run).await.unwrap();
    for text in ["which is running", "which is waiting_checkpoint", "Shall it go?", &inner.run_id.to_string()] {
        assert!(explained.sentence.contains(text), "{text}: {}", explained.sentence);
    }
    approve(&harness, &inner).await;
    assert_eq!(wait_briefly(&harness, run).await.status, RunStatus::Completed);
}

#[tokio::test]
async fn a_caller_is_answered_when_a_descendant_waits_for_a_person() {
    let harness = three_generations().await;
    let begun = Instant::now();
    let keyed = || ArmRequest { retry_keys: Some(RetryKey([9; 32]).into()), ..request("w", Mode::Real, &json!({})) };
    let (problem, report) = refused(harness.send(keyed()).await);
    assert!(begun.elapsed() < Duration::from_secs(5), "its deadline is 8 s");
    assert_eq!((problem.status, problem.kind.as_str(), problem.shared_step_begun), (503, "run-paused", Some(true)));
    assert!(problem.title.starts_with("A run below"), "{problem:?}");
    let (of_retry, _) = refused(harness.send(ArmRequest { deadline: Duration::from_secs(1), ..keyed() }).await);
    assert_eq!((of_retry.run, of_retry.kind), (report.run, problem.kind), "a retry is told the same");
    approve(&harness, &waiting_run(&harness).await).await;
    assert_eq!(wait_briefly(&harness, report.run.unwrap()).await.status, RunStatus::Completed);
}

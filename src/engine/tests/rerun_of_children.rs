//! A child is run again only after its parent has ended, and people who approved the parent's step are asked again.

use std::sync::Arc;

use serde_json::{Value, json};

use super::harness::{Harness, ServiceReply, StepService, checked_plan, start};
use crate::engine::StartError;
use crate::names::RunId;
use crate::workflow::{ApprovalAbove, CheckpointAnswer, ControlCommand, Event, Risk, RunStatus};

#[tokio::test]
async fn a_child_whose_parent_waits_for_a_decision_over_it_is_not_run_again() {
    let step_service = StepService::new(|_, before| match before {
        0 => ServiceReply::Json(400, json!({})),
        _ => ServiceReply::Json(200, json!({})),
    })
    .await;
    let definition = json!({
        "workflow": "w",
        "steps": { "sub": { "run": "child", "on_failure": "pause" } },
        "respond": { "status": 200, "body": {} },
    });
    let child = json!({
        "workflow": "child",
        "steps": { "a": { "call": "POST ${services.world}/a" } },
        "respond": { "status": 200, "body": {} },
    });
    let harness = Harness::new(&step_service, checked_plan(&definition, false)).await;
    harness.load_plans(&[&checked_plan(&child, false)]);
    let parent = start(&harness, json!({})).await.run;
    assert_eq!(harness.wait_until_ended_or_awaits_input(parent).await.status, RunStatus::Paused);
    let child = harness.runs().await.into_iter().find(|run| run.parent == Some(parent)).unwrap();
    assert_eq!(child.status, RunStatus::Failed);
    let rerun = async || harness.engine.rerun(child.run_id, "a".into(), "ann".into()).await;
    let Err(StartError::Invalid(why)) = rerun().await else { panic!("it is refused") };
    assert!(why.contains(&format!("{parent} began it, and is paused")), "{why}");
    let cancel = ControlCommand::Cancel { compensate: true, reason: None, automatic: false };
    harness.engine.give_command(parent, cancel, "ann".into()).await.unwrap();
    assert_eq!(harness.wait_until_ended_or_awaits_input(parent).await.status, RunStatus::Cancelled);
    let again = rerun().await.unwrap();
    assert_eq!(harness.wait_until_ended_or_awaits_input(again.run).await.status, RunStatus::Completed);
    assert_eq!(step_service.paths(), ["POST /a", "POST /a"]);
}

/// Waits until the run asks for an approval, and answers as the only person who may.
async fn alice_answers(harness: &Harness, run: RunId, approve: bool) {
    let summary = harness.wait_until_ended_or_awaits_input(run).await;
    assert_eq!(summary.status, RunStatus::WaitingCheckpoint);
    let said = CheckpointAnswer { approve, values: None, approved: Vec::new(), struck: Vec::new(), note: None };
    let (checkpoint, _) = summary.checkpoint.unwrap();
    let answer = ControlCommand::Answer { checkpoint, answer: said };
    assert!(harness.engine.give_command(run, answer.clone(), "bob".into()).await.is_err(), "he is not asked");
    harness.engine.give_command(run, answer, "alice".into()).await.unwrap();
}

#[tokio::test]
async fn the_approver_of_a_run_step_is_asked_about_an_adjusted_input_and_a_rerun_two_runs_below() {
    let step_service = StepService::new(|call, _| match call.path.as_str() {
        "/look" => ServiceReply::Gated(200, json!({})),
        _ => ServiceReply::Json(200, json!({})),
    })
    .await;
    let runs = |name: &str, step: Value| {
        let definition =
            json!({ "workflow": name, "steps": { "sub": step }, "respond": { "status": 200, "body": {} } });
        checked_plan(&definition, false)
    };
    let inner = json!({
        "workflow": "inner",
        "steps": {
            "look": { "call": "GET ${services.world}/look" },
            "send": { "needs": ["look"], "call": "POST ${services.world}/send", "body": { "amount": 50 } },
        },
        "respond": { "status": 200, "body": {} },
    });
    let parent = runs("w", json!({ "run": "middle", "risk": "medium", "ask": { "who": ["alice"] } }));
    let harness = Harness::new(&step_service, parent).await;
    harness.load_plans(&[&runs("middle", json!({ "run": "inner" })), &checked_plan(&inner, false)]);
    let parent = start(&harness, json!({})).await.run;
    alice_answers(&harness, parent, true).await;
    step_service.wait_for_calls(1).await;
    let inner = harness.runs().await.into_iter().find(|run| run.workflow.as_str() == "inner").unwrap().run_id;
    let input = Arc::new(json!({ "amount": 1_000_000 }));
    let adjust = ControlCommand::Adjust { step: "send".into(), item: None, input, reason: None };
    harness.engine.give_command(inner, adjust, "bob".into()).await.unwrap();
    step_service.open_gate();
    alice_answers(&harness, inner, false).await;
    assert_eq!(harness.wait_until_ended_or_awaits_input(parent).await.status, RunStatus::Failed);
    let again = harness.engine.rerun(inner, "look".into(), "bob".into()).await.unwrap().run;
    let Event::RunStarted(started) = harness.events(again).await.remove(0) else { panic!("it is the first event") };
    let above = ApprovalAbove { risk: Risk::Medium, who: vec!["alice".to_owned()] };
    assert_eq!(started.approval_above, Some(above));
    alice_answers(&harness, again, true).await;
    assert_eq!(harness.wait_until_ended_or_awaits_input(again).await.status, RunStatus::Completed);
    assert_eq!(step_service.paths(), ["GET /look", "GET /look", "POST /send"]);
}

//! A child is run again only after its parent has ended.

use serde_json::json;

use super::harness::{Harness, ServiceReply, StepService, checked_plan, start};
use crate::engine::StartError;
use crate::workflow::{Order, RunStatus};

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
    assert_eq!(harness.wait_until_resting(parent).await.status, RunStatus::Paused);
    let child = harness.runs().await.into_iter().find(|run| run.parent == Some(parent)).unwrap();
    assert_eq!(child.status, RunStatus::Failed);
    let rerun = async || harness.engine.rerun(child.run_id, "a".into(), "ann".into()).await;
    let Err(StartError::Invalid(why)) = rerun().await else { panic!("it is refused") };
    assert!(why.contains(&format!("{parent} began it, and is paused")), "{why}");
    let cancel = Order::Cancel { compensate: true, reason: None, automatic: false };
    harness.engine.order(parent, cancel, "ann".into()).await.unwrap();
    assert_eq!(harness.wait_until_resting(parent).await.status, RunStatus::Cancelled);
    let again = rerun().await.unwrap();
    assert_eq!(harness.wait_until_resting(again.run).await.status, RunStatus::Completed);
    assert_eq!(step_service.paths(), ["POST /a", "POST /a"]);
}

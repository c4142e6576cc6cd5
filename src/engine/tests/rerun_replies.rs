//! What a caller is told about a run that a rerun has replaced.

use serde_json::json;

use super::harness::{Harness, ServiceReply, StepService, checked_plan, refused, request};
use crate::flag::RetryKey;
use crate::workflow::{Mode, RunStatus};

/// The caller sent one request for both runs: what the first one did counts, whether the rerun takes over its result or
/// fails before it repeats the step.
#[tokio::test]
async fn a_retry_is_told_that_the_run_before_the_rerun_began_a_shared_step() {
    for from in ["two", "look"] {
        let step_service = StepService::new(|seen, before| match (seen.path.as_str(), before) {
            ("/two", 0) => ServiceReply::Json(409, json!({})),
            ("/one", _) | ("/look", 0) => ServiceReply::Json(200, json!({})),
            _ => ServiceReply::Json(404, json!({})),
        })
        .await;
        let definition = json!({
            "workflow": "w",
            "steps": {
                "look": { "call": "GET ${services.world}/look" },
                "one": { "needs": ["look"], "call": "POST ${services.world}/one" },
                "two": { "needs": ["one"], "call": "GET ${services.world}/two", "on_conflict": "pause" },
            },
            "respond": { "status": 200, "body": {} },
        });
        let harness = Harness::new(&step_service, checked_plan(&definition, false)).await;
        let mut arm_request = request("w", Mode::Real, &json!({}));
        arm_request.retry_keys = Some(RetryKey([7; 32]).into());
        let (problem, report) = refused(harness.send(arm_request.clone()).await);
        assert_eq!((problem.kind.as_str(), problem.shared_step_begun), ("run-paused", Some(true)));
        let successor = harness.engine.rerun(report.run.unwrap(), from.into(), "ann".into()).await.unwrap().run;
        assert_eq!(harness.wait_until_resting(successor).await.status, RunStatus::Failed);
        assert_eq!(step_service.paths().iter().filter(|path| *path == "POST /one").count(), 1, "{from}");
        let (problem, _) = refused(harness.send(arm_request).await);
        assert_eq!((problem.run, problem.shared_step_begun), (Some(successor), Some(true)), "{from}");
        assert!(problem.detail.contains("A shared step was done or may have been"), "{from}: {}", problem.detail);
    }
}

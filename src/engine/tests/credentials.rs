//! Credentials of callers: taken only where the workflow reads them, sealed, and sent only by steps that name them.

use serde_json::{Value, json};

use super::harness::{Harness, ServiceReply, StepService, answer, refused, request, request_copy};
use crate::limits::Limits;
use crate::secret::Secret;
use crate::store::MemoryStore;
use crate::workflow::testing::PlanBuilder;
use crate::workflow::{Mode, RunStatus};

#[tokio::test]
async fn credentials_of_the_caller_are_sealed_and_sent_only_by_steps_that_name_them() {
    let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({}))).await;
    let plan = |name: &str| {
        PlanBuilder::new()
            .call("a", &[], "POST /a", json!({"x": "${request.headers[\"x-tenant\"]}"}))
            .header("authorization", "${request.headers.authorization}")
            .call("b", &["a"], "GET /b", Value::Null)
            .respond(200, json!({}))
            .build(name)
    };
    let store = std::sync::Arc::new(MemoryStore::new());
    let harness = Harness::with_store(&step_service, plan("w"), store, Limits::default(), Some(Secret::new("k"))).await;
    let mut arm_request = request("w", Mode::Real, &json!({}));
    arm_request.request =
        request_copy(&json!({}), &[("authorization", "Basic abc"), ("cookie", "sid=1"), ("x-tenant", "t")]);
    let (_, _, report) = answer(harness.send(arm_request.clone()).await);
    let seen = step_service.seen();
    assert_eq!((seen[0].header("authorization"), seen[0].header("cookie")), (Some("Basic abc"), None));
    assert_eq!((seen[1].header("authorization"), seen[1].header("x-tenant")), (None, None));
    let text = serde_json::to_string(&harness.events(report.run.unwrap()).await).unwrap();
    assert!(!text.contains("Basic abc") && !text.contains("sid=1"), "{text}");
    harness.wait_until(report.run.unwrap(), |view| view.status == RunStatus::Completed).await;
    assert_eq!(harness.store.run_key(report.run.unwrap()).await.unwrap(), None, "the run has ended");

    let bare = Harness::new(&step_service, plan("w")).await;
    assert_eq!(refused(bare.send(arm_request).await).0.kind, "no-store-key");
}

/// The record masks credentials; it has the header only if the caller sent one.
#[tokio::test]
async fn a_credential_that_is_null_is_not_sent() {
    let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({}))).await;
    let plan = PlanBuilder::new()
        .call("a", &[], "POST /a", json!({}))
        .header("authorization", "${default(request.headers.authorization, null)}")
        .respond(200, json!({}))
        .build("w");
    let store = std::sync::Arc::new(MemoryStore::new());
    let harness = Harness::with_store(&step_service, plan, store, Limits::default(), Some(Secret::new("k"))).await;
    for headers in [&[("authorization", "Basic abc")][..], &[]] {
        let mut arm_request = request("w", Mode::Real, &json!({}));
        arm_request.request = request_copy(&json!({}), headers);
        let (status, problem, _) = answer(harness.send(arm_request).await);
        assert_eq!(status, 200, "{problem}");
        let seen = step_service.seen().pop().unwrap();
        assert_eq!(seen.header("authorization"), headers.first().map(|(_, value)| *value));
    }
}

/// A workflow that reads one ordinary header, and other parts of the request as a whole, reads no credentials: callers
/// who send some need no `store_key`.
#[tokio::test]
async fn credentials_that_the_workflow_does_not_read_are_not_taken() {
    let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({}))).await;
    let headers = [("authorization", "Basic abc"), ("cookie", "sid=1"), ("x-tenant", "t")];
    for part in ["body", "body.cookie", "query", "method", "path", "params"] {
        let plan = PlanBuilder::new()
            .set("tenant", &[], json!("${request.headers[\"x-tenant\"]}"))
            .set("seen", &[], json!(format!("${{request.{part}}}")))
            .respond(200, json!({}))
            .build("w");
        let harness = Harness::new(&step_service, plan).await;
        let mut arm_request = request("w", Mode::Real, &json!({}));
        arm_request.request = request_copy(&json!({ "cookie": "a biscuit" }), &headers);
        let (status, problem, _) = answer(harness.send(arm_request).await);
        assert_eq!(status, 200, "{part}: {problem}");
    }
}

//! Runs of routes with `keep: none` are not stored. They answer their callers as other runs do.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::harness::{Harness, ServiceReply, StepService, abandoned, answer, checked_plan, refused, request};
use super::test_stores::gated;
use crate::exchange::ArmRequest;
use crate::flag::RetryKey;
use crate::limits::Limits;
use crate::workflow::{Mode, Plan};

fn read_plan() -> Arc<Plan> {
    checked_plan(
        &json!({
            "workflow": "w",
            "steps": {
                "look": {
                    "call": "GET ${services.world}/look", "timeout": "5s",
                    "retry": { "attempts": 2, "base": "1ms", "max": "1ms" },
                },
            },
            "respond": { "status": 200, "body": "${steps.look.output}" },
        }),
        false,
    )
}

fn unstored_request(mode: Mode, may_fall_back: bool) -> ArmRequest {
    // The retry key of such a request is not stored.
    let retry_keys = Some(RetryKey([3; 32]).into());
    ArmRequest { keep: false, retry_keys, may_fall_back, ..request("w", mode, &Value::Null) }
}

#[tokio::test]
async fn a_run_of_a_route_with_keep_none_does_not_use_the_store() {
    let step_service = StepService::new(|_, before| match before {
        0 => ServiceReply::Json(503, json!({})),
        _ => ServiceReply::Json(200, json!({ "n": 7 })),
    })
    .await;
    let store = gated();
    let harness = Harness::with_store(&step_service, read_plan(), store.clone(), Limits::default(), None).await;
    store.appends.shut();
    for mode in [Mode::Real, Mode::Real, Mode::Dark] {
        let (status, body, _) = answer(harness.send(unstored_request(mode, false)).await);
        assert_eq!((status, body), (200, json!({ "n": 7 })), "{mode:?}");
    }
    assert_eq!(harness.store.plan(harness.plan.id.clone()).await.unwrap(), None, "its plan is not stored either");
    assert_eq!(harness.store.first_try(RetryKey([3; 32])).await.unwrap(), None);
    assert_eq!(
        step_service.seen().len(),
        4,
        "the first run repeats its failed read, and each request sends its own read"
    );
    let key = |seen: &super::harness::ReceivedCall| seen.header("idempotency-key").map(str::to_owned);
    assert!(step_service.seen().iter().all(|seen| key(seen).is_none()));
    assert!(harness.runs().await.is_empty());
    store.appends.pass(1_000);
    // The same request of a route whose runs are stored.
    let stored = ArmRequest { keep: true, ..unstored_request(Mode::Real, false) };
    answer(harness.send(stored).await);
    assert_eq!(harness.runs().await.len(), 1);
}

#[tokio::test]
async fn a_failed_run_of_a_route_with_keep_none_falls_back_or_is_an_error_without_a_run_id() {
    let step_service = StepService::new(|_, _| ServiceReply::Hang).await;
    let harness = Harness::new(&step_service, read_plan()).await;
    let with_short_deadline =
        |may| ArmRequest { deadline: Duration::from_millis(200), ..unstored_request(Mode::Real, may) };
    let given_back = abandoned(harness.send(with_short_deadline(true)).await);
    assert_eq!((given_back.reason, given_back.run), ("deadline", None));
    let (problem, _) = refused(harness.send(with_short_deadline(false)).await);
    assert_eq!((problem.status, problem.kind.as_str(), problem.run), (504, "deadline", None), "{}", problem.detail);
    assert!(harness.runs().await.is_empty());

    // The service is no longer in the files: a run that is not stored cannot wait for it.
    let plans = [(harness.plan.workflow.clone(), harness.plan.clone())].into();
    harness.engine.reload(0, &plans, &[].into(), &[].into());
    let (problem, _) = refused(harness.send(unstored_request(Mode::Real, false)).await);
    assert_eq!((problem.status, problem.kind.as_str(), problem.run), (503, "workflow-stuck", None));
    assert!(problem.detail.contains("the service `world`"), "{}", problem.detail);
    assert_eq!(abandoned(harness.send(unstored_request(Mode::Real, true)).await).reason, "run_paused");
    assert!(harness.runs().await.is_empty() && harness.engine.stuck(9).is_empty());
}

/// No answer is kept for a retry.
#[tokio::test]
async fn the_problem_of_a_failed_run_that_is_not_stored_promises_no_kept_answer() {
    let step_service = StepService::new(|_, _| ServiceReply::Json(404, json!({}))).await;
    let harness = Harness::new(&step_service, read_plan()).await;
    let (problem, _) = refused(harness.send(unstored_request(Mode::Real, false)).await);
    assert_eq!(problem.run, None);
    assert!(problem.detail.contains("nothing of the run is kept"), "{}", problem.detail);
    assert!(!problem.detail.contains("gets this answer"), "{}", problem.detail);
}

/// `check` refuses files with such a route. If one came into force nevertheless, its effects could be repeated without
/// anybody knowing.
#[tokio::test]
async fn a_run_that_must_be_stored_is_not_begun_without_being_stored() {
    let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({ "n": 7 }))).await;
    for effect in ["shared", "private"] {
        let plan = checked_plan(
            &json!({
                "workflow": "w",
                "steps": {
                    "charge": { "call": "POST ${services.world}/charges", "effect": effect, "rehearse": { "n": 7 } },
                },
                "respond": { "status": 200, "body": "${steps.charge.output}" },
            }),
            false,
        );
        let harness = Harness::new(&step_service, plan).await;
        for mode in [Mode::Real, Mode::Dark] {
            let (problem, _) = refused(harness.send(unstored_request(mode, false)).await);
            assert_eq!((problem.status, problem.kind.as_str(), problem.run), (503, "must-be-kept", None), "{mode:?}");
            assert!(problem.detail.contains(&format!("the {effect} step `charge`")), "{}", problem.detail);
        }
        assert_eq!(abandoned(harness.send(unstored_request(Mode::Real, true)).await).reason, "must_be_kept");
        assert!(harness.runs().await.is_empty());
        // A rehearsal sends nothing and is never stored.
        assert_eq!(answer(harness.send(unstored_request(Mode::Rehearse, false)).await).0, 200);
    }
    assert!(step_service.seen().is_empty(), "{:?}", step_service.paths());
}

//! Files that change while runs go on: a run keeps its plan, and uses the services and secrets of the newest files.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::harness::{Harness, ServiceReply, StepService, answer, checked_plan, refused, request, start};
use crate::exchange::ArmRequest;
use crate::flag::RetryKey;
use crate::limits::Limits;
use crate::names::ServiceName;
use crate::secret::Secret;
use crate::store::MemoryStore;
use crate::workflow::{ConflictKind, ControlCommand, DeclaredNames, Mode, Plan, RunStatus, StepStatus};

/// A request with a retry key, and with a deadline that passes before its run ends.
fn keyed_request(body: &Value) -> ArmRequest {
    let deadline = Duration::from_millis(300);
    ArmRequest { retry_keys: Some(RetryKey([9; 32]).into()), deadline, ..request("w", Mode::Real, body) }
}

async fn gated() -> Arc<StepService> {
    StepService::new(|_, _| ServiceReply::Gated(200, json!({}))).await
}

fn plan(respond: &Value) -> Arc<Plan> {
    let steps = json!({ "a": { "call": "POST ${services.world}/a" } });
    checked_plan(&json!({ "workflow": "w", "steps": steps, "respond": respond }), false)
}

#[tokio::test]
async fn a_retry_learns_that_the_run_goes_on() {
    let pending = json!({ "pending": { "status": 202, "body": { "run": "${run.id}" } } });
    let before = json!([pending.clone(), { "status": 200, "body": "before" }]);
    let harness = Harness::new(&gated().await, plan(&before)).await;
    let (status, body, report) = answer(harness.send(keyed_request(&json!({}))).await);
    assert_eq!(status, 202);
    harness.load_plans(&[&plan(&json!([pending, { "status": 200, "body": "after" }]))]);
    let (again, same_body, _) = answer(harness.send(keyed_request(&json!({}))).await);
    assert_eq!((again, same_body), (202, body));
    harness.step_service.open_gate();
    harness.wait_until(report.run.unwrap(), |view| view.status == RunStatus::Completed).await;
    let (status, body, _) = answer(harness.send(keyed_request(&json!({}))).await);
    assert_eq!((status, body), (200, json!("before")));

    let harness = Harness::new(&gated().await, plan(&json!({ "status": 200, "body": "before" }))).await;
    for is_edited in [false, true] {
        let (problem, report) = refused(harness.send(keyed_request(&json!({}))).await);
        assert_eq!((problem.status, problem.kind.as_str()), (503, "run-goes-on"), "edited: {is_edited}");
        assert_eq!((problem.run, problem.shared_step_begun), (report.run, Some(true)), "edited: {is_edited}");
        harness.load_plans(&[&plan(&json!({ "status": 200, "body": "after" }))]);
    }
}

/// The error of an expression may quote the sensitive value that it read.
#[tokio::test]
async fn a_retry_is_shown_no_sensitive_values() {
    let plan = |status: u16| {
        let source = json!({
            "workflow": "w",
            "input": { "sensitive": ["$.card"] },
            "steps": {
                "a": { "call": "POST ${services.world}/a", "body": "${request.body.card}" },
                "b": { "needs": ["a"], "set": "${int(request.body.card)}" },
            },
            "respond": { "status": status },
        });
        let services = BTreeMap::from([(ServiceName::from("world"), true)]);
        let (secrets, limits) = (BTreeSet::new(), Limits::default());
        let known = DeclaredNames { services: &services, secrets: &secrets, has_store_key: true, limits: &limits };
        Arc::new(Plan::from_source(&source, &known).unwrap())
    };
    let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({}))).await;
    let (store, key) = (Arc::new(MemoryStore::new()), Some(Secret::new("k")));
    let harness = Harness::with_store(&step_service, plan(200), store, Limits::default(), key).await;
    let body = json!({ "card": "4111-1111-2222" });
    for is_edited in [false, true] {
        let (problem, _) = refused(harness.send(keyed_request(&body)).await);
        assert_eq!(problem.kind, "workflow-expression");
        assert!(problem.detail.starts_with("`b` (expression): ***"), "edited: {is_edited}: {}", problem.detail);
        harness.load_plans(&[&plan(201)]);
    }
    assert_eq!(step_service.seen().len(), 1, "the second request is a retry");
}

/// The run is not suspended while it has items to perform.
#[tokio::test]
async fn a_run_uses_the_secrets_of_the_newest_files_for_its_next_call() {
    let items = checked_plan(
        &json!({
            "workflow": "w",
            "steps": { "a": {
                "for_each": "${request.body.items}",
                "concurrency": 1,
                "call": "POST ${services.world}/${item}",
                "headers": { "authorization": "Bearer ${secrets.bank}" },
            } },
            "respond": { "status": 200 },
        }),
        false,
    );
    let harness = Harness::new(&gated().await, items).await;
    let run = start(&harness, json!({ "items": ["x", "y"] })).await.run;
    harness.step_service.wait_for_calls(1).await;
    harness.rotate_secret("rotated");
    harness.step_service.open_gate();
    harness.wait_until(run, |view| view.status == RunStatus::Completed).await;
    let seen = harness.step_service.seen();
    let sent: Vec<_> = seen.iter().map(|call| call.header("authorization").unwrap()).collect();
    assert_eq!(sent, ["Bearer s3cret", "Bearer rotated"]);
}

/// Twice the same key, with two credentials: a service whose keys belong to credentials would perform it twice.
#[tokio::test]
async fn an_attempt_of_unknown_outcome_is_not_repeated_with_another_secret() {
    let charge = checked_plan(
        &json!({
            "workflow": "w",
            "steps": { "a": {
                "call": "POST ${services.world}/charge",
                "headers": { "authorization": "Bearer ${secrets.bank}" },
                "retry": { "attempts": 5, "base": "1ms", "max": "1ms" },
            } },
            "respond": { "status": 200 },
        }),
        true,
    );
    let step_service = StepService::new(|_, before| match before {
        0 => ServiceReply::Gated(500, json!({})),
        _ => ServiceReply::Json(200, json!({})),
    })
    .await;
    let harness = Harness::new(&step_service, charge).await;
    let run = start(&harness, json!({})).await.run;
    harness.step_service.wait_for_calls(1).await;
    harness.rotate_secret("rotated");
    harness.step_service.open_gate();
    let view = harness.wait_until(run, |view| view.status == RunStatus::Paused).await;
    let conflict = &view.conflicts[0];
    assert!(conflict.message.contains("the secret `bank` had another value"), "{}", conflict.message);
    assert_eq!(harness.step_service.seen().len(), 1);
}

/// The run is not suspended while `slow` is under way. The workflow is still in force, or no longer in any file.
#[tokio::test]
async fn a_run_that_is_never_suspended_repeats_nothing_at_a_service_that_is_not_keyed_any_more() {
    let definition = json!({
        "workflow": "w",
        "steps": {
            "slow": { "call": "POST ${services.world}/slow", "timeout": "30s" },
            "charge": { "call": "POST ${services.world}/charge", "retry": { "attempts": 5, "base": "30m", "max": "30m" } },
        },
        "respond": { "status": 200 },
    });
    let other = json!({ "workflow": "other", "steps": { "a": { "set": 1 } }, "respond": { "status": 200 } });
    for after in [definition.clone(), other] {
        let step_service = StepService::new(|seen, before| match (seen.path.as_str(), before) {
            ("/slow", _) => ServiceReply::Gated(200, json!({})),
            (_, 0) => ServiceReply::Json(500, json!({})),
            _ => ServiceReply::Json(200, json!({})),
        })
        .await;
        let mut harness = Harness::new(&step_service, checked_plan(&definition, true)).await;
        let run = start(&harness, json!({})).await.run;
        step_service.wait_for_calls(2).await;
        let has_failed = async {
            // A command makes the events before it durable.
            while !harness.view(run).await.steps.iter().any(|step| step.status == StepStatus::Retrying) {
                for command in [ControlCommand::Pause { reason: None }, ControlCommand::Resume { reason: None }] {
                    harness.engine.give_command(run, command, "ann".into()).await.unwrap();
                }
            }
        };
        tokio::time::timeout(super::harness::TIMEOUT, has_failed).await.expect("another attempt is to come");
        harness.plan = checked_plan(&after, false);
        harness.load_plans(&[]);
        harness
            .engine
            .give_command(run, ControlCommand::Retry { step: Some("charge".into()), attempt: None }, "ann".into())
            .await
            .unwrap();
        let view = harness.wait_until(run, |view| view.status == RunStatus::Paused).await;
        assert_eq!(view.conflicts[0].kind, ConflictKind::OutcomeUnknown);
        assert_eq!(step_service.paths(), ["POST /charge", "POST /slow"], "it is not sent again");
        step_service.open_gate();
    }
}

//! Requests to the engine's arm: answers, fallback to legacy, repeated attempts of steps, retries by clients.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::harness::{Harness, ServiceReply, StepService, abandoned, answer, refused, request, request_copy};
use crate::exchange::ArmReply;
use crate::flag::{Freeze, RetryKey, SkipReason};
use crate::limits::Limits;
use crate::names::{RouteId, Seq};
use crate::store::MemoryStore;
use crate::workflow::testing::PlanBuilder;
use crate::workflow::{AnswerEvent, EffectClass, Event, Mode, RunStatus, StepStatus};

#[tokio::test]
async fn independent_steps_run_concurrently_and_the_answer_is_durable() {
    let step_service = StepService::new(|seen, _| ServiceReply::Gated(200, json!({"of": seen.path}))).await;
    let plan = PlanBuilder::new()
        .call("a", &[], "GET /a?q=${request.query.a}", Value::Null)
        .call("b", &[], "GET /b/${request.params.id}", Value::Null)
        .call("c", &["a", "b"], "POST /c", json!({"a": "${steps.a.output.of}"}))
        .header("authorization", "Bearer ${secrets.bank}")
        .respond(201, json!({"run": "${run.id}", "c": "${steps.c.output}"}))
        .build("w");
    let harness = Harness::new(&step_service, plan).await;
    let reply = async { answer(harness.send(request("w", Mode::Real, &json!({}))).await) };
    let observe = async {
        step_service.wait_for_calls(2).await; // both calls, although neither was answered yet
        step_service.open_gate();
    };
    let ((status, body, report), ()) = tokio::join!(reply, observe);
    assert_eq!((status, &body["c"]), (201, &json!({"of": "/c"})));
    assert_eq!(step_service.paths(), ["GET /a?q=1", "GET /b/7", "POST /c"]);
    let charge = step_service.seen().pop().unwrap();
    assert_eq!(charge.header("authorization"), Some("Bearer s3cret"));
    assert_eq!(charge.header("idempotency-key").map(str::len), Some(32));
    let run = report.run.unwrap();
    assert_eq!(body["run"], run.0.simple().to_string());
    let events = harness.events(run).await;
    assert!(events.iter().any(|event| matches!(event, Event::Answer(AnswerEvent::Responded { .. }))));
    assert!(!serde_json::to_string(&events).unwrap().contains("s3cret"));
    harness.wait_until(run, |view| view.status == RunStatus::Completed).await;
}

#[tokio::test]
async fn a_for_each_has_at_most_as_many_calls_in_flight_as_its_concurrency() {
    let step_service = StepService::new(|_, _| ServiceReply::Gated(200, json!({}))).await;
    let plan = PlanBuilder::new()
        .call("a", &[], "GET /a/${item}", Value::Null)
        .for_each("${request.body.items}", 3)
        .respond(200, json!("${steps.a.status}"))
        .build("w");
    let harness = Harness::new(&step_service, plan).await;
    let body = json!({"items": [1, 2, 3, 4, 5, 6, 7]});
    let reply = async { answer(harness.send(request("w", Mode::Real, &body)).await) };
    let observe = async {
        step_service.wait_for_calls(3).await;
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        assert_eq!(step_service.seen().len(), 3);
        step_service.open_gate();
    };
    let ((status, body, _), ()) = tokio::join!(reply, observe);
    assert_eq!((status, body), (200, json!([200, 200, 200, 200, 200, 200, 200])));
}

#[tokio::test]
async fn a_failed_read_is_repeated_until_it_succeeds() {
    let step_service = StepService::new(|_, before| match before {
        0 => ServiceReply::RetryAfter(503, "0"),
        1 => ServiceReply::Json(500, json!({})),
        _ => ServiceReply::Json(200, json!({"n": before})),
    })
    .await;
    let plan = PlanBuilder::new()
        .call("a", &[], "GET /a", Value::Null)
        .attempts(4)
        .respond(200, json!("${steps.a.output.n}"))
        .build("w");
    let harness = Harness::new(&step_service, plan).await;
    let (status, body, report) = answer(harness.send(request("w", Mode::Real, &json!({}))).await);
    assert_eq!((status, body), (200, json!(2)));
    let view = harness.view(report.run.unwrap()).await;
    assert_eq!(view.steps[0].attempts, 3);
}

#[tokio::test]
async fn a_keyed_call_without_an_answer_is_repeated_with_the_same_key_and_bytes() {
    let step_service =
        StepService::new(|_, before| if before == 0 { ServiceReply::Hang } else { ServiceReply::Json(200, json!({})) })
            .await;
    let plan = PlanBuilder::new()
        .call("a", &[], "POST /a", json!({"v": "${request.body.v}"}))
        .keyed()
        .attempts(2)
        .timeout_ms(100)
        .respond(200, json!({}))
        .build("w");
    let harness = Harness::new(&step_service, plan).await;
    let (status, ..) = answer(harness.send(request("w", Mode::Real, &json!({"v": 1.50}))).await);
    assert_eq!(status, 200);
    let seen = step_service.seen();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0].body, seen[1].body);
    assert!(seen[0].header("idempotency-key").is_some());
    assert_eq!(seen[0].header("idempotency-key"), seen[1].header("idempotency-key"));
}

#[tokio::test]
async fn an_unknown_outcome_pauses_the_run_and_the_answer_says_that_a_shared_step_began() {
    let step_service = StepService::new(|_, _| ServiceReply::Hang).await;
    let plan = PlanBuilder::new()
        .call("charge", &[], "POST /charges", json!({}))
        .attempts(3)
        .timeout_ms(50)
        .respond(200, json!({}))
        .build("w");
    let harness = Harness::new(&step_service, plan).await;
    let mut arm_request = request("w", Mode::Real, &json!({}));
    arm_request.may_fall_back = true;
    let (problem, report) = refused(harness.send(arm_request).await);
    assert_eq!((problem.status, problem.shared_step_begun), (503, Some(true)));
    assert_eq!(step_service.seen().len(), 1);
    let view = harness.view(report.run.unwrap()).await;
    assert_eq!((view.status, view.steps[0].status), (RunStatus::Paused, StepStatus::Unknown));
}

#[tokio::test]
async fn fifty_retries_of_one_request_are_one_run() {
    let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({"id": 1}))).await;
    let plan = PlanBuilder::new()
        .call("price", &[], "GET /price", Value::Null)
        .call("charge", &["price"], "POST /charges", json!({}))
        .respond(201, json!({"run": "${run.id}"}))
        .build("w");
    let mut harness = Harness::new(&step_service, plan).await;
    let mut arm_request = request("w", Mode::Real, &json!({"v": 1}));
    arm_request.retry_keys = Some(RetryKey([9; 32]).into());
    let all = futures_util::future::join_all((0..50).map(|_| harness.send(arm_request.clone()))).await;
    let bodies: BTreeSet<String> = all.into_iter().map(|reply| answer(reply).1.to_string()).collect();
    assert_eq!(bodies.len(), 1);
    assert_eq!(harness.runs().await.len(), 1);
    assert_eq!(step_service.paths().iter().filter(|path| *path == "POST /charges").count(), 1);
    harness.crash().await; // the claim and the answer are on disk
    assert_eq!(answer(harness.send(arm_request.clone()).await).1.to_string(), *bodies.first().unwrap());
    arm_request.request = request_copy(&json!({"v": 2}), &[]);
    assert_eq!(refused(harness.send(arm_request).await).0.status, 422);
    assert_eq!(step_service.paths().iter().filter(|path| *path == "POST /charges").count(), 1);
}

#[tokio::test]
async fn a_retry_does_not_fall_back_while_its_first_try_runs_or_after_it() {
    let step_service = StepService::new(|seen, before| match (seen.path.as_str(), before) {
        ("/price", 0) => ServiceReply::Json(200, json!({})),
        ("/price", _) => ServiceReply::Json(404, json!({})),
        _ => ServiceReply::Gated(200, json!({})),
    })
    .await;
    let plan = PlanBuilder::new()
        .call("price", &[], "GET /price", Value::Null)
        .call("charge", &["price"], "POST /charges", json!({}))
        .respond(201, json!({"run": "${run.id}"}))
        .build("w");
    let harness = Harness::new(&step_service, plan).await;
    let mut arm_request = request("w", Mode::Real, &json!({}));
    arm_request.retry_keys = Some(RetryKey([9; 32]).into());
    arm_request.may_fall_back = true;
    let first = harness.send(arm_request.clone());
    let second = async {
        step_service.wait_for_calls(2).await; // the charge is under way
        let mut retry = Box::pin(harness.send(arm_request.clone()));
        assert!(futures_util::poll!(&mut retry).is_pending());
        step_service.open_gate();
        retry.await
    };
    let (first, second) = tokio::join!(first, second);
    let body = answer(first).1;
    assert_eq!(answer(second).1, body);
    assert_eq!(answer(harness.send(arm_request).await).1, body);
    assert_eq!(step_service.paths(), ["GET /price", "POST /charges"]);
}

#[tokio::test]
async fn a_retry_that_waits_for_a_run_falls_back_when_that_run_does() {
    let step_service = StepService::new(|_, _| ServiceReply::Gated(404, json!({}))).await;
    let plan = PlanBuilder::new().call("price", &[], "GET /price", Value::Null).respond(201, json!({})).build("w");
    let harness = Harness::new(&step_service, plan).await;
    let mut arm_request = request("w", Mode::Real, &json!({}));
    arm_request.retry_keys = Some(RetryKey([9; 32]).into());
    arm_request.may_fall_back = true;
    let second = async {
        step_service.wait_for_calls(1).await;
        let mut retry = Box::pin(harness.send(arm_request.clone()));
        assert!(futures_util::poll!(&mut retry).is_pending());
        step_service.open_gate();
        retry.await
    };
    let (first, second) = tokio::join!(harness.send(arm_request.clone()), second);
    assert_eq!((abandoned(first).reason, abandoned(second).reason), ("engine_failed", "engine_failed"));
    assert_eq!(step_service.paths(), ["GET /price"]);
}

#[tokio::test]
async fn a_failure_before_any_effect_falls_back() {
    let step_service = StepService::new(|_, _| ServiceReply::Json(404, json!({}))).await;
    let plan = PlanBuilder::new()
        .call("price", &[], "GET /price", Value::Null)
        .call("charge", &["price"], "POST /charges", json!({}))
        .respond(201, json!({}))
        .build("w");
    let harness = Harness::new(&step_service, plan).await;
    let mut arm_request = request("w", Mode::Real, &json!({}));
    arm_request.may_fall_back = true;
    let given_back = abandoned(harness.send(arm_request.clone()).await);
    assert_eq!((given_back.reason, given_back.run), ("engine_failed", None));
    assert!(harness.runs().await.is_empty(), "nothing was handed to the writer");
    arm_request.may_fall_back = false;
    let (problem, _) = refused(harness.send(arm_request).await);
    assert_eq!((problem.status, problem.shared_step_begun), (502, Some(false)));
}

#[tokio::test]
async fn a_failure_after_an_effect_does_not_fall_back() {
    let step_service = StepService::new(|seen, _| match seen.path.as_str() {
        "/drafts" => ServiceReply::Json(200, json!({})),
        _ => ServiceReply::Json(404, json!({})),
    })
    .await;
    let plan = PlanBuilder::new()
        .call("draft", &[], "POST /drafts", json!({}))
        .effect(EffectClass::Private)
        .call("read", &["draft"], "GET /read", Value::Null)
        .respond(201, json!({}))
        .build("w");
    let harness = Harness::new(&step_service, plan).await;
    let mut arm_request = request("w", Mode::Real, &json!({}));
    arm_request.may_fall_back = true;
    let (problem, report) = refused(harness.send(arm_request).await);
    assert_eq!((problem.status, problem.shared_step_begun), (502, Some(false)));
    assert_eq!(harness.view(report.run.unwrap()).await.status, RunStatus::Failed);
}

#[tokio::test]
async fn at_the_deadline_a_request_without_a_pending_answer_falls_back() {
    let step_service = StepService::new(|_, _| ServiceReply::Gated(200, json!({"n": 1}))).await;
    let reads = || PlanBuilder::new().call("a", &[], "GET /a", Value::Null).respond(200, json!({}));
    // The pending answer of the second plan cannot be made before the step has an output.
    for plan in [reads().build("w"), reads().pending(202, json!({"n": "${steps.a.output.n}"})).build("w")] {
        let harness = Harness::new(&step_service, plan).await;
        let mut arm_request = request("w", Mode::Real, &json!({}));
        (arm_request.deadline, arm_request.may_fall_back) = (Duration::from_millis(400), true);
        assert_eq!(abandoned(harness.send(arm_request).await).reason, "deadline");
    }
}

/// Also where the request may fall back: the run goes on, so legacy must not get the request.
#[tokio::test]
async fn at_the_deadline_a_request_is_answered_pending_and_the_run_goes_on() {
    let step_service = StepService::new(|_, _| ServiceReply::Gated(200, json!({"n": 1}))).await;
    let plan = PlanBuilder::new()
        .call("a", &[], "GET /a", Value::Null)
        .respond(200, json!("${steps.a.output.n}"))
        .pending(202, json!({"run": "${run.id}"}))
        .build("w");
    let harness = Harness::new(&step_service, plan).await;
    let mut runs = Vec::new();
    for may_fall_back in [true, false] {
        let mut arm_request = request("w", Mode::Real, &json!({}));
        (arm_request.deadline, arm_request.may_fall_back) = (Duration::from_millis(800), may_fall_back);
        let (status, _, report) = answer(harness.send(arm_request).await);
        assert!(status == 202 && report.outlived_deadline);
        runs.push(report.run.unwrap());
    }
    step_service.open_gate();
    for run in runs {
        let view = harness.wait_until(run, |view| view.status == RunStatus::Completed).await;
        assert_eq!(view.answered, Some(200));
    }
}

#[tokio::test]
async fn bad_input_is_refused_before_a_run_is_created() {
    let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({}))).await;
    let plan =
        PlanBuilder::new().schema(json!({"type": "object", "required": ["items"]})).respond(200, json!({})).build("w");
    let harness = Harness::new(&step_service, plan).await;
    let (status, body, report) = answer(harness.send(request("w", Mode::Real, &json!({"secret": "x"}))).await);
    assert_eq!((status, report.run), (422, None));
    assert!(body["detail"].as_str().unwrap().contains("items"), "{body}");
    assert!(harness.runs().await.is_empty());
}

#[tokio::test]
async fn a_created_instance_is_pinned_and_followers_see_the_result_of_its_run() {
    let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({"id": 17}))).await;
    let family = RouteId::from("orders.create");
    let plan = PlanBuilder::new()
        .call("make", &[], "POST /make", json!("${request.body.items}"))
        .respond(201, json!({"id": "${steps.make.output.id}"}))
        .build("w");
    let limits = Limits { retry_window_s: 0, ..Limits::default() };
    let store = std::sync::Arc::new(MemoryStore::with_limits(&limits));
    let harness = Harness::with_store(&step_service, plan, store, Limits::default(), None).await;
    let mut arm_request = request("w", Mode::Real, &json!({"items": [1]}));
    arm_request.creates = Some((family.clone().into(), serde_json_path::JsonPath::parse("$.id").unwrap().into()));
    let (_, _, report) = answer(harness.send(arm_request).await);
    let key = crate::flag::PinKey { family, id: "17".into() };
    assert_eq!(report.pinned, Some(key.clone()));
    let pin = harness.store.pin(key.clone()).await.unwrap().unwrap();
    assert_eq!((pin.arm, pin.run), (crate::flag::Arm::Engine, report.run));

    let follow =
        PlanBuilder::new().set("i", &[], json!("${instance}")).respond(200, json!("${steps.i.output}")).build("f");
    let follower = Harness::with_store(&step_service, follow, harness.store.clone(), Limits::default(), None).await;
    for purged in [false, true] {
        if purged {
            let created = report.run.unwrap();
            let gone = harness.store.purge(RunStatus::Completed, jiff::Timestamp::MAX, 99).await.unwrap();
            assert_eq!((gone.pinned, harness.store.events(created, Seq::FIRST).await.unwrap().len()), (1, 0));
        }
        let mut arm_request = request("f", Mode::Real, &json!({}));
        arm_request.instance = Some(crate::flag::InstanceId { key: key.clone().into(), run: report.run });
        let (_, body, _) = answer(follower.send(arm_request).await);
        assert_eq!(
            (&body["id"], &body["output"], &body["input"], &body["status"]),
            (&json!("17"), &json!({"id": 17}), &json!({"items": [1]}), &json!("completed"))
        );
        // A dark request names no run: the proxy does not wait for the store to look it up.
        let mut arm_request = request("f", Mode::Dark, &json!({}));
        arm_request.instance = Some(crate::flag::InstanceId { key: key.clone().into(), run: None });
        let (_, body, _) = answer(follower.send(arm_request).await);
        assert_eq!((&body["id"], &body["input"]), (&json!("17"), &json!({"items": [1]})));
    }
    for (mode, why) in [(Mode::Dark, SkipReason::NoTwin), (Mode::Rehearse, SkipReason::NoInstance)] {
        let mut arm_request = request("f", mode, &json!({}));
        let key = crate::flag::PinKey { id: "99".into(), ..key.clone() };
        arm_request.instance = Some(crate::flag::InstanceId { key: key.into(), run: None });
        let ArmReply::Refused(_, report) = follower.send(arm_request).await else {
            panic!("there is no such instance")
        };
        assert_eq!(report.unresolved.map(|(why, _)| why), Some(why));
    }
}

#[tokio::test]
async fn above_the_limit_of_runs_requests_are_refused_or_fall_back() {
    let step_service = StepService::new(|_, _| ServiceReply::Gated(200, json!({}))).await;
    let plan = PlanBuilder::new().call("a", &[], "GET /a", Value::Null).respond(200, json!({})).build("w");
    let limits = Limits { runs_in_flight_max: 1, ..Limits::default() };
    let harness = Harness::with_store(&step_service, plan, std::sync::Arc::new(MemoryStore::new()), limits, None).await;
    let first = async { answer(harness.send(request("w", Mode::Real, &json!({}))).await).0 };
    let second = async {
        step_service.wait_for_calls(1).await;
        assert_eq!(harness.engine.runs_in_flight(), 1);
        let mut arm_request = request("w", Mode::Real, &json!({}));
        assert_eq!(refused(harness.send(arm_request.clone()).await).0.status, 503);
        arm_request.may_fall_back = true;
        assert_eq!(abandoned(harness.send(arm_request).await).reason, "too_many_runs");
        step_service.open_gate();
    };
    assert_eq!(tokio::join!(first, second).0, 200);
}

#[tokio::test]
async fn a_freeze_of_effects_holds_steps_that_have_not_begun() {
    let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({}))).await;
    let plan = PlanBuilder::new()
        .call("read", &[], "GET /read", Value::Null)
        .call("charge", &["read"], "POST /charges", json!({}))
        .respond(200, json!({}))
        .build("w");
    let harness = Harness::new(&step_service, plan).await;
    harness.engine.freeze(1, Freeze::Effects).await;
    let reply = async { answer(harness.send(request("w", Mode::Real, &json!({}))).await).0 };
    let observe = async {
        step_service.wait_for_calls(1).await;
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(step_service.paths(), ["GET /read"]);
        harness.engine.freeze(2, Freeze::No).await;
    };
    assert_eq!(tokio::join!(reply, observe).0, 200);
}

//! Requests that follow up an instance of legacy of which the engine has a twin.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::LOCATION;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Value, json};

use super::harness::{Harness, ServiceReply, StepService, answer, legacy, refused, request};
use crate::compare::{Body, Observation};
use crate::expression::CreatedIdSource;
use crate::flag::{Arm, PinKey, SkipReason};
use crate::limits::Limits;
use crate::names::RouteId;
use crate::store::MemoryStore;
use crate::workflow::testing::PlanBuilder;
use crate::workflow::{Mode, RunStatus};

/// A follow-up in `dark` gets the engine's own id; legacy's is `legacy_id`.
#[tokio::test]
async fn a_follower_in_dark_sees_the_engines_own_id_of_the_instance() {
    let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({"id": 7}))).await;
    let create = PlanBuilder::new()
        .call("make", &[], "GET /make", Value::Null)
        .respond(201, json!({"id": "${steps.make.output.id}"}))
        .build("w");
    let harness = Harness::new(&step_service, create).await;
    let key = PinKey { family: RouteId::from("orders.create"), id: "17".into() };
    let ids = CreatedIdSource::Body(serde_json_path::JsonPath::parse("$.id").unwrap());
    let mut arm_request = request("w", Mode::Dark, &json!({}));
    arm_request.creates = Some((key.family.clone().into(), ids.clone()));
    arm_request.legacy = Some(legacy(201, &json!({"id": 17})));
    let (_, _, report) = answer(harness.send(arm_request).await);

    let look =
        PlanBuilder::new().set("i", &[], json!("${instance}")).respond(200, json!("${steps.i.output}")).build("f");
    let follower = Harness::with_store(&step_service, look, harness.store.clone(), Limits::default(), None).await;
    for mode in [Mode::Dark, Mode::Rehearse] {
        let mut arm_request = request("f", mode, &json!({}));
        arm_request.instance = Some(crate::flag::InstanceId { key: key.clone().into(), run: report.run });
        arm_request.instance_ids = Some(ids.clone());
        let (_, body, _) = answer(follower.send(arm_request.clone()).await);
        assert_eq!((&body["id"], &body["legacy_id"]), (&json!("7"), &json!("17")), "{mode:?}: {body}");
        arm_request.instance_ids = Some(serde_json_path::JsonPath::parse("$.number").unwrap().into());
        let (_, report) = refused(follower.send(arm_request).await);
        let (why, detail) = report.unresolved.expect("it is not comparable");
        assert_eq!((why, detail.as_str()), (SkipReason::NoInstance, "The twin's answer has no id of the instance"));
    }
}

/// The same with an id in a header and no body, also when of the twin's run only the summary is left.
#[tokio::test]
async fn an_id_in_a_header_is_found_in_legacys_reply_and_in_the_twins_answer() {
    let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({"id": 7}))).await;
    let create = PlanBuilder::new()
        .call("make", &[], "GET /make", Value::Null)
        .respond(201, Value::Null)
        .respond_header("location", "/orders/${steps.make.output.id}")
        .build("w");
    // A run whose retries may come is not purged.
    let limits = Limits { retry_window_s: 0, ..Limits::default() };
    let store = Arc::new(MemoryStore::with_limits(&limits));
    let harness = Harness::with_store(&step_service, create, store, Limits::default(), None).await;
    let key = PinKey { family: RouteId::from("orders.create"), id: "17".into() };
    let ids = CreatedIdSource::from_text("header.location: /orders/{id}");
    let mut arm_request = request("w", Mode::Dark, &json!({}));
    arm_request.creates = ids.clone().map(|ids| (key.family.clone().into(), ids));
    let headers = HeaderMap::from_iter([(LOCATION, HeaderValue::from_static("http://shop/orders/17"))]);
    let body = Body::Whole(Bytes::new());
    let seen = Observation::new(StatusCode::CREATED, headers, body, Duration::ZERO, Vec::new());
    arm_request.legacy = Some(Arc::new(seen));
    let (_, _, report) = answer(harness.send(arm_request).await);
    let pin = harness.store.pin(key.clone()).await.expect("the store answers").expect("the twin's");
    assert_eq!((pin.arm, pin.run), (Arm::Legacy, report.run));

    let look =
        PlanBuilder::new().set("i", &[], json!("${instance}")).respond(200, json!("${steps.i.output}")).build("f");
    let follower = Harness::with_store(&step_service, look, harness.store.clone(), Limits::default(), None).await;
    for is_purged in [false, true] {
        if is_purged {
            let purged = harness.store.purge(RunStatus::Completed, jiff::Timestamp::MAX, 99).await.unwrap();
            assert_eq!(purged.pinned, 1);
        }
        let mut arm_request = request("f", Mode::Dark, &json!({}));
        arm_request.instance = Some(crate::flag::InstanceId { key: key.clone().into(), run: report.run });
        arm_request.instance_ids.clone_from(&ids);
        let (_, body, report) = answer(follower.send(arm_request).await);
        assert_eq!((&body["id"], &body["legacy_id"]), (&json!("7"), &json!("17")), "{is_purged}: {body}");
        let ids = report.instance.expect("the comparison knows them");
        assert_eq!((ids.engine.as_str(), ids.legacy.as_str()), ("7", "17"));
    }
}

/// The shared steps of the twin were rehearsed: a real call must not use their results.
#[tokio::test]
async fn a_real_follower_does_not_read_the_result_of_a_dark_twin() {
    let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({"id": 17}))).await;
    let create = PlanBuilder::new()
        .call("make", &[], "GET /make", Value::Null)
        .respond(201, json!({"id": "${steps.make.output.id}"}))
        .build("w");
    let harness = Harness::new(&step_service, create).await;
    let key = PinKey { family: RouteId::from("orders.create"), id: "17".into() };
    let mut arm_request = request("w", Mode::Dark, &json!({}));
    arm_request.creates = Some((key.family.clone().into(), serde_json_path::JsonPath::parse("$.id").unwrap().into()));
    arm_request.legacy = Some(legacy(201, &json!({"id": 17})));
    let (_, _, report) = answer(harness.send(arm_request).await);

    let refund = PlanBuilder::new()
        .call("refund", &[], "POST /refunds", json!("${instance.output.id}"))
        .respond(200, json!({}))
        .build("f");
    let follower = Harness::with_store(&step_service, refund, harness.store.clone(), Limits::default(), None).await;
    let mut arm_request = request("f", Mode::Real, &json!({}));
    arm_request.instance = Some(crate::flag::InstanceId { key: key.into(), run: report.run });
    let (problem, _) = refused(follower.send(arm_request).await);
    assert_eq!(problem.status, 503);
    assert!(format!("{problem:?}").contains("Legacy created the instance"), "{problem:?}");
    assert!(step_service.seen().iter().all(|call| call.path != "/refunds"), "{:?}", step_service.seen());
}

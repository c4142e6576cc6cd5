//! What each mode of a run sends.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::harness::{Harness, ServiceReply, StepService, answer, checked_plan, legacy, refused, request};
use crate::exchange::{ArmReply, ArmRequest, MayBegin};
use crate::flag::{Arm, PinKey, SkipReason};
use crate::names::{RouteId, RunId, WorkerId};
use crate::store::{AdoptionClaim, NewAdoption};
use crate::workflow::testing::PlanBuilder;
use crate::workflow::{EffectClass, Mode, Plan, RunStatus};

#[tokio::test]
async fn an_answer_whose_status_has_no_content_is_compared_and_sent_without_its_body() {
    let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({}))).await;
    for (status, has_body) in [(204, false), (205, false), (304, false), (200, true)] {
        let respond = json!({ "status": status, "body": { "n": 1 } });
        let plan = json!({ "workflow": "w", "steps": { "a": { "set": 1 } }, "respond": respond });
        let harness = Harness::new(&step_service, checked_plan(&plan, false)).await;
        for mode in [Mode::Rehearse, Mode::Dark, Mode::Real] {
            let reply = harness.send(request("w", mode, &json!({}))).await;
            let has_type = matches!(&reply, ArmReply::Answer(answer) if answer.headers.contains_key("content-type"));
            assert_eq!(has_type, has_body, "{mode:?}");
            let (answered, body, _) = answer(reply);
            let expected = if has_body { json!({ "n": 1 }) } else { Value::Null };
            assert_eq!((answered, body), (status, expected), "{mode:?}");
        }
    }
}

/// A 304 may have the content type that the answer with content would have; legacy may send it too.
#[tokio::test]
async fn a_declared_content_type_is_sent_although_the_status_has_no_content() {
    let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({}))).await;
    for (body, kind) in [(json!({ "n": 1 }), "application/json"), (json!("a"), "text/csv"), (Value::Null, "text/csv")] {
        let mut respond = json!({ "status": 304, "headers": { "Content-Type": kind }, "body": body });
        respond.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        let plan = json!({ "workflow": "w", "steps": { "a": { "set": 1 } }, "respond": respond });
        let harness = Harness::new(&step_service, checked_plan(&plan, false)).await;
        for mode in [Mode::Rehearse, Mode::Dark, Mode::Real] {
            let ArmReply::Answer(answer) = harness.send(request("w", mode, &json!({}))).await else {
                panic!("{mode:?}")
            };
            assert_eq!(
                (answer.headers["content-type"].as_bytes(), answer.body.whole().unwrap().len()),
                (kind.as_bytes(), 0),
                "{mode:?}"
            );
        }
    }
}

fn order_plan() -> std::sync::Arc<Plan> {
    PlanBuilder::new()
        .call("price", &[], "GET /price", Value::Null)
        .call("draft", &["price"], "POST /drafts", json!({}))
        .effect(EffectClass::Private)
        .rehearse(json!({"id": "d"}))
        .call("charge", &["draft"], "POST /charges", json!({"amount": "${steps.price.output.total}"}))
        .header("authorization", "Bearer ${secrets.bank}")
        .rehearse(json!({"id": "${legacy.body.payment_id}"}))
        .call("mail", &["charge"], "POST /mails", json!({"to": "x"}))
        .respond(201, json!({"id": "${steps.charge.output.id}"}))
        .build("order")
}

#[tokio::test]
async fn a_rehearsal_sends_only_reads_and_stores_nothing() {
    let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({"total": 5}))).await;
    let harness = Harness::new(&step_service, order_plan()).await;
    let mut arm_request = request("order", Mode::Rehearse, &json!({}));
    arm_request.legacy = Some(legacy(201, &json!({"payment_id": "p1"})));
    let (status, body, report) = answer(harness.send(arm_request).await);
    assert_eq!((status, body), (201, json!({"id": "p1"})));
    assert_eq!(step_service.paths(), ["GET /price"]);
    let intents: Vec<_> = report.intents.iter().map(|intent| (intent.step.as_str(), intent.method.as_str())).collect();
    assert_eq!(intents, [("draft", "POST"), ("charge", "POST"), ("mail", "POST")]);
    assert_eq!(report.intents[1].body, json!({"amount": 5}));
    assert!(report.intents[1].headers.contains(&("authorization".into(), "Bearer ***".into())));
    assert!(harness.runs().await.is_empty());
    assert_eq!(report.unresolved, None);
}

#[tokio::test]
async fn an_intent_has_its_service_and_the_bytes_that_its_json_value_does_not_represent() {
    let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({}))).await;
    let call = |body: Value| {
        let mut step = json!({ "call": "POST ${services.world}/x", "rehearse": {} });
        step.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        step
    };
    let steps = json!({
        "json": call(json!({ "body": { "a": 1 } })),
        "form": call(json!({ "form": { "a": 1, "b": "x" } })),
        "text": call(json!({ "text": "5" })),
        "none": call(json!({})),
    });
    let plan = json!({ "workflow": "w", "steps": steps, "respond": { "status": 200 } });
    let harness = Harness::new(&step_service, checked_plan(&plan, false)).await;
    let (_, _, report) = answer(harness.send(request("w", Mode::Rehearse, &json!({}))).await);
    assert_eq!(report.intents.len(), 4);
    for intent in &report.intents {
        assert_eq!(intent.service.as_ref().map(|service| service.as_str()), Some("world"));
        let bytes = intent.bytes.as_ref().map(|bytes| std::str::from_utf8(bytes).unwrap());
        let expected = match intent.step.as_str() {
            "form" => Some("a=1&b=x"),
            "text" => Some("5"),
            _ => None,
        };
        assert_eq!(bytes, expected, "{intent:?}");
    }
}

#[tokio::test]
async fn a_for_each_without_items_is_reported_and_one_that_is_skipped_is_not() {
    let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({}))).await;
    let mail = |items: &str, condition: &str| {
        let call = "POST ${services.world}/mails";
        json!({ "if": condition, "for_each": items, "call": call, "rehearse": {} })
    };
    let plan = checked_plan(
        &json!({
            "workflow": "w",
            "steps": {
                "none": mail("${request.body.none}", "${true}"),
                "two": mail("${request.body.two}", "${true}"),
                "skipped": mail("${request.body.none}", "${false}"),
            },
            "respond": { "status": 200, "body": {} },
        }),
        false,
    );
    let harness = Harness::new(&step_service, plan).await;
    for mode in [Mode::Rehearse, Mode::Dark] {
        let (_, _, report) = answer(harness.send(request("w", mode, &json!({ "none": [], "two": [1, 2] }))).await);
        let without: Vec<_> = report.steps_without_items.iter().map(|step| step.as_str()).collect();
        assert_eq!((without, report.intents.len(), report.open_steps), (vec!["none"], 2, None));
    }
}

/// Some clients read `100.0` as 100 and ask for `/orders/100`.
#[tokio::test]
async fn an_id_that_is_a_whole_number_is_pinned_as_in_the_reply_and_as_an_integer() {
    for (id, under, not_under) in [
        ("100.0", ["100.0", "100"], "1e2"),
        ("1e2", ["100", "100"], "100.0"),
        ("100", ["100", "100"], "100.0"),
        ("100.5", ["100.5", "100.5"], "100"),
        ("\"100.0\"", ["100.0", "100.0"], "100"),
        ("9007199254740993", ["9007199254740993", "9007199254740993"], "9007199254740992"),
    ] {
        let reply: Value = serde_json::from_str(&format!("{{\"id\":{id}}}")).unwrap();
        let step_service = StepService::new(move |_, _| ServiceReply::Json(200, reply.clone())).await;
        let family = RouteId::from("orders.create");
        let plan = PlanBuilder::new()
            .call("make", &[], "POST /make", json!(null))
            .respond(201, json!({"id": "${steps.make.output.id}"}))
            .build("w");
        let harness = Harness::new(&step_service, plan).await;
        let mut arm_request = request("w", Mode::Real, &json!({}));
        arm_request.creates = Some((family.clone().into(), serde_json_path::JsonPath::parse("$.id").unwrap().into()));
        let (status, _, report) = answer(harness.send(arm_request).await);
        assert_eq!(status, 201, "{id}");
        let run = async |id: &str| {
            let key = PinKey { family: family.clone(), id: id.into() };
            harness.store.pin(key).await.unwrap().and_then(|pin| pin.run)
        };
        for text in under {
            assert_eq!(run(text).await, report.run, "{id}: {text}");
        }
        assert_eq!(run(not_under).await, None, "{id}: {not_under}");
    }
}

/// Each spelling leads to the instance that has it first.
#[tokio::test]
async fn an_id_of_which_another_spelling_is_taken_is_pinned() {
    for (first, later) in [("18", "18.0"), ("18.0", "18")] {
        let step_service = StepService::new(|_, _| ServiceReply::Json(200, Value::Null)).await;
        let family = RouteId::from("orders.create");
        let plan = PlanBuilder::new()
            .call("make", &[], "POST /make", Value::Null)
            .respond(201, json!({"id": "${request.body.id}"}))
            .build("w");
        let harness = Harness::new(&step_service, plan).await;
        let mut runs = Vec::new();
        for id in [first, later] {
            let body: Value = serde_json::from_str(&format!("{{\"id\":{id}}}")).unwrap();
            let mut arm_request = request("w", Mode::Real, &body);
            arm_request.creates =
                Some((family.clone().into(), serde_json_path::JsonPath::parse("$.id").unwrap().into()));
            let (status, _, report) = answer(harness.send(arm_request).await);
            assert_eq!(status, 201, "{id}");
            runs.push(report.run);
        }
        let pinned = async |id: &str| {
            let key = PinKey { family: family.clone(), id: id.into() };
            harness.store.pin(key).await.unwrap().and_then(|pin| pin.run)
        };
        assert_eq!(pinned("18.0").await, runs[usize::from(first == "18")], "after {first}");
        assert_eq!(pinned("18").await, runs[0], "after {first}");
    }
}

#[tokio::test]
async fn a_dark_run_sends_private_steps_and_pins_its_twin() {
    // Legacy may redirect to what it created.
    for (status, is_created) in [(201, true), (303, true), (304, false), (422, false)] {
        let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({"total": 5, "id": "e"}))).await;
        let harness = Harness::new(&step_service, order_plan()).await;
        let mut arm_request = request("order", Mode::Dark, &json!({}));
        arm_request.legacy = Some(legacy(status, &json!({"payment_id": "p1", "id": 99})));
        let family = RouteId::from("orders.create");
        arm_request.creates = Some((family.clone().into(), serde_json_path::JsonPath::parse("$.id").unwrap().into()));
        let (_, _, report) = answer(harness.send(arm_request).await);
        assert_eq!(step_service.paths(), ["GET /price", "POST /drafts"]);
        assert_eq!(report.intents.len(), 3, "the private step, which was sent, has an intent too");
        let run = report.run.unwrap();
        assert_eq!(harness.view(run).await.status, RunStatus::Completed);
        let pin = harness.store.pin(PinKey { family, id: "99".into() }).await.unwrap();
        assert_eq!(pin.map(|pin| (pin.arm, pin.run)), is_created.then_some((Arm::Legacy, Some(run))), "{status}");
    }
}

#[tokio::test]
async fn an_output_without_rehearse_is_named_as_unresolved() {
    let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({"total": 5}))).await;
    let harness = Harness::new(&step_service, order_plan()).await;
    // Legacy answered without what `rehearse:` reads.
    let mut arm_request = request("order", Mode::Rehearse, &json!({}));
    arm_request.legacy = Some(legacy(422, &json!({"error": "x"})));
    let (_, report) = refused(harness.send(arm_request).await);
    let (reason, detail) = report.unresolved.unwrap();
    assert_eq!(reason, SkipReason::UnresolvedEffect);
    assert!(detail.contains("`charge`"), "{detail}");
    assert_eq!(report.intents.len(), 3, "the intents are reported nevertheless");
}

#[tokio::test]
async fn a_rehearsal_does_not_wait_between_attempts() {
    let step_service = StepService::new(|_, before| match before {
        0..5 => ServiceReply::RetryAfter(503, "3600"),
        _ => ServiceReply::Json(200, json!({})),
    })
    .await;
    let mut builder = PlanBuilder::new().call("a", &[], "GET /a", Value::Null).attempts(9);
    builder = builder.retry_pause(Duration::from_secs(60));
    let harness = Harness::new(&step_service, builder.respond(200, json!({})).build("w")).await;
    let begun = Instant::now();
    let (status, ..) = answer(harness.send(request("w", Mode::Rehearse, &json!({}))).await);
    assert_eq!(status, 200);
    assert!(begun.elapsed() < Duration::from_secs(5));
}

/// Its clock is virtual: a wait for the lock would be one request after the other, until the rehearsal's deadline.
#[tokio::test]
async fn a_rehearsal_does_not_wait_for_a_lock_at_a_service() {
    let step_service = StepService::new(|_, _| ServiceReply::Json(423, json!({}))).await;
    let definition = json!({
        "workflow": "w",
        "steps": { "a": { "call": "GET ${services.world}/a", "busy_on": [409], "retry": { "attempts": 2 } } },
        "respond": { "status": 200 },
    });
    let harness = Harness::new(&step_service, checked_plan(&definition, false)).await;
    let (problem, report) = refused(harness.send(request("w", Mode::Rehearse, &json!({}))).await);
    assert_eq!((problem.status, report.status), (502, Some(RunStatus::Failed)), "{problem:?}");
    assert_eq!(step_service.seen().len(), 2);
}

#[tokio::test]
async fn a_read_with_rehearse_is_sent_only_by_real_runs() {
    let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({"n": 2}))).await;
    let plan = PlanBuilder::new()
        .call("stock", &[], "GET /stock", Value::Null)
        .rehearse(json!({"n": 1}))
        .respond(200, json!("${steps.stock.output.n}"))
        .build("w");
    let harness = Harness::new(&step_service, plan).await;
    for mode in [Mode::Rehearse, Mode::Dark] {
        assert_eq!(answer(harness.send(request("w", mode, &json!({}))).await).1, json!(1));
    }
    assert!(step_service.seen().is_empty());
    assert_eq!(answer(harness.send(request("w", Mode::Real, &json!({}))).await).1, json!(2));
}

#[tokio::test]
async fn an_id_that_legacy_used_too_stops_new_instances_and_one_that_only_the_engine_used_does_not() {
    let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({"id": 17}))).await;
    let plan = PlanBuilder::new()
        .call("make", &[], "GET /make", Value::Null)
        .respond(201, json!({"id": "${steps.make.output.id}"}))
        .build("w");
    for (first, later) in [(Mode::Real, None), (Mode::Dark, Some("pin_collision"))] {
        let harness = Harness::new(&step_service, plan.clone()).await;
        let create = |mode| {
            let mut arm_request = request("w", mode, &json!({}));
            arm_request.creates =
                Some((RouteId::from("orders.create").into(), serde_json_path::JsonPath::parse("$.id").unwrap().into()));
            arm_request.legacy = (mode == Mode::Dark).then(|| legacy(201, &json!({"id": 17})));
            arm_request.may_fall_back = true;
            arm_request
        };
        answer(harness.send(create(first)).await);
        let (status, ..) = answer(harness.send(create(Mode::Real)).await);
        assert_eq!(status, 201, "the effects of the run stand, and its caller gets the answer");
        let reason = match harness.send(create(Mode::Real)).await {
            crate::exchange::ArmReply::Abandoned(abandoned) => Some(abandoned.reason),
            _ => None,
        };
        assert_eq!(reason, later, "after {first:?}");
        if later.is_some() {
            // In `live` too where legacy cannot take the request, because a follower is in `only`; in `only` itself
            // legacy creates none.
            for (may_begin, begins) in [(MayBegin::UnlessFrozen, false), (MayBegin::Always, true)] {
                let reply = harness.send(ArmRequest { may_fall_back: false, may_begin, ..create(Mode::Real) }).await;
                assert_eq!(matches!(reply, ArmReply::Answer(_)), begins, "{may_begin:?}: {reply:?}");
            }
        }
    }
}

/// The dark run of a create may end after the instance was adopted: legacy alone has given out the id.
#[tokio::test]
async fn a_late_dark_run_of_an_adopted_instance_is_no_collision() {
    let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({"id": 17}))).await;
    let plan = PlanBuilder::new()
        .call("make", &[], "GET /make", Value::Null)
        .respond(201, json!({"id": "${steps.make.output.id}"}))
        .build("w");
    let harness = Harness::new(&step_service, plan).await;
    let family = RouteId::from("orders.create");
    let key = PinKey { family: family.clone(), id: "17".into() };
    let claim = NewAdoption {
        key: key.clone(),
        id: key.id.clone(),
        pins: vec![key.clone()],
        twins: Vec::new(),
        run: RunId(uuid::Uuid::from_u128(9)),
        workflow: "adopt".into(),
        by: "anna".to_owned(),
        at: crate::clock::now(),
        worker: WorkerId(uuid::Uuid::from_u128(7)),
        settles_s: 0,
    };
    assert_eq!(harness.store.claim_adoption(claim).await.expect("the store answers"), AdoptionClaim::Claimed);
    let mut dark = request("w", Mode::Dark, &json!({}));
    dark.creates = Some((family.clone().into(), serde_json_path::JsonPath::parse("$.id").unwrap().into()));
    dark.legacy = Some(legacy(201, &json!({"id": 17})));
    answer(harness.send(dark).await);
    assert!(!harness.engine.core.ports.affinity.collided(&family.into()));
    let pin = harness.store.pin(key).await.expect("the store answers").expect("the adoption's");
    assert_eq!((pin.arm, pin.run), (Arm::Engine, Some(RunId(uuid::Uuid::from_u128(9)))));
}

#[tokio::test]
async fn a_compressed_reply_of_legacy_is_decompressed() {
    use std::io::Write as _;
    let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({"total": 5, "id": "e"}))).await;
    let harness = Harness::new(&step_service, order_plan()).await;
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(json!({"payment_id": "p1", "id": 99}).to_string().as_bytes()).unwrap();
    let mut headers = http::HeaderMap::new();
    headers.insert("content-type", http::HeaderValue::from_static("application/json"));
    headers.insert("content-encoding", http::HeaderValue::from_static("gzip"));
    let body = crate::compare::Body::Whole(packed.finish().unwrap().into());
    let seen = crate::compare::Observation::new(http::StatusCode::CREATED, headers, body, Duration::ZERO, Vec::new());
    let mut arm_request = request("order", Mode::Dark, &json!({}));
    arm_request.legacy = Some(std::sync::Arc::new(seen));
    let family = RouteId::from("orders.create");
    arm_request.creates = Some((family.clone().into(), serde_json_path::JsonPath::parse("$.id").unwrap().into()));
    let (_, _, report) = answer(harness.send(arm_request).await);
    assert_eq!(report.unresolved, None, "`rehearse:` finds the value that it reads");
    assert!(
        harness.store.pin(PinKey { family, id: "99".into() }).await.unwrap().is_some(),
        "the id in the reply is pinned to the twin"
    );
}

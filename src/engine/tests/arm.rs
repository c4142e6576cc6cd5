//! Requests, answers, retries of attempts and of clients.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::kit::{Bench, React, World, abandoned, answer, copy, refused, request};
use crate::exchange::ArmReply;
use crate::flag::{Freeze, RetryKey, SkipReason};
use crate::limits::Limits;
use crate::names::{RouteId, Seq};
use crate::secret::Secret;
use crate::store::MemoryStore;
use crate::workflow::testing::PlanBuilder;
use crate::workflow::{AnswerEvent, EffectClass, Event, Mode, RunStatus, StepStatus};

#[tokio::test]
async fn what_depends_on_nothing_runs_at_once_and_the_answer_is_on_disk() {
    let world = World::new(|seen, _| React::Gated(200, json!({"of": seen.path}))).await;
    let plan = PlanBuilder::new()
        .call("a", &[], "GET /a?q=${request.query.a}", Value::Null)
        .call("b", &[], "GET /b/${request.params.id}", Value::Null)
        .call("c", &["a", "b"], "POST /c", json!({"a": "${steps.a.output.of}"}))
        .header("authorization", "Bearer ${secrets.bank}")
        .respond(201, json!({"run": "${run.id}", "c": "${steps.c.output}"}))
        .build("w");
    let bench = Bench::new(&world, plan).await;
    let asked = async { answer(bench.ask(request("w", Mode::Real, &json!({}))).await) };
    let watch = async {
        world.has_seen(2).await; // both, although neither has been answered
        world.open_gate();
    };
    let ((status, body, report), ()) = tokio::join!(asked, watch);
    assert_eq!((status, &body["c"]), (201, &json!({"of": "/c"})));
    assert_eq!(world.paths(), ["GET /a?q=1", "GET /b/7", "POST /c"]);
    let charge = world.seen().pop().unwrap();
    assert_eq!(charge.header("authorization"), Some("Bearer s3cret"));
    assert_eq!(charge.header("idempotency-key").map(str::len), Some(32));
    let run = report.run.unwrap();
    assert_eq!(body["run"], run.0.simple().to_string());
    let events = bench.events(run).await;
    assert!(events.iter().any(|event| matches!(event, Event::Answer(AnswerEvent::Responded { .. }))));
    assert!(!serde_json::to_string(&events).unwrap().contains("s3cret"));
    bench.until(run, |view| view.status == RunStatus::Completed).await;
}

#[tokio::test]
async fn a_fan_out_keeps_to_its_concurrency() {
    let world = World::new(|_, _| React::Gated(200, json!({}))).await;
    let plan = PlanBuilder::new()
        .call("a", &[], "GET /a/${item}", Value::Null)
        .for_each("${request.body.items}", 3)
        .respond(200, json!("${steps.a.status}"))
        .build("w");
    let bench = Bench::new(&world, plan).await;
    let body = json!({"items": [1, 2, 3, 4, 5, 6, 7]});
    let asked = async { answer(bench.ask(request("w", Mode::Real, &body)).await) };
    let watch = async {
        world.has_seen(3).await;
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        assert_eq!(world.seen().len(), 3);
        world.open_gate();
    };
    let ((status, body, _), ()) = tokio::join!(asked, watch);
    assert_eq!((status, body), (200, json!([200, 200, 200, 200, 200, 200, 200])));
}

#[tokio::test]
async fn a_read_is_tried_again_and_then_counts() {
    let world = World::new(|_, before| match before {
        0 => React::Retry(503, "0"),
        1 => React::Json(500, json!({})),
        _ => React::Json(200, json!({"n": before})),
    })
    .await;
    let plan = PlanBuilder::new()
        .call("a", &[], "GET /a", Value::Null)
        .attempts(4)
        .respond(200, json!("${steps.a.output.n}"))
        .build("w");
    let bench = Bench::new(&world, plan).await;
    let (status, body, report) = answer(bench.ask(request("w", Mode::Real, &json!({}))).await);
    assert_eq!((status, body), (200, json!(2)));
    let view = bench.view(report.run.unwrap()).await;
    assert_eq!(view.steps[0].attempts, 3);
}

#[tokio::test]
async fn a_keyed_step_is_sent_again_with_the_same_key_and_bytes() {
    let world = World::new(|_, before| if before == 0 { React::Hang } else { React::Json(200, json!({})) }).await;
    let plan = PlanBuilder::new()
        .call("a", &[], "POST /a", json!({"v": "${request.body.v}"}))
        .keyed()
        .attempts(2)
        .timeout_ms(100)
        .respond(200, json!({}))
        .build("w");
    let bench = Bench::new(&world, plan).await;
    let (status, ..) = answer(bench.ask(request("w", Mode::Real, &json!({"v": 1.50}))).await);
    assert_eq!(status, 200);
    let seen = world.seen();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0].body, seen[1].body);
    assert!(seen[0].header("idempotency-key").is_some());
    assert_eq!(seen[0].header("idempotency-key"), seen[1].header("idempotency-key"));
}

#[tokio::test]
async fn an_unknown_outcome_pauses_and_the_caller_hears_that_a_shared_step_began() {
    let world = World::new(|_, _| React::Hang).await;
    let plan = PlanBuilder::new()
        .call("charge", &[], "POST /charges", json!({}))
        .attempts(3)
        .timeout_ms(50)
        .respond(200, json!({}))
        .build("w");
    let bench = Bench::new(&world, plan).await;
    let mut asked = request("w", Mode::Real, &json!({}));
    asked.may_fall_back = true;
    let (problem, report) = refused(bench.ask(asked).await);
    assert_eq!((problem.status, problem.shared_step_begun), (503, Some(true)));
    assert_eq!(world.seen().len(), 1);
    let view = bench.view(report.run.unwrap()).await;
    assert_eq!((view.status, view.steps[0].status), (RunStatus::Paused, StepStatus::Unknown));
}

#[tokio::test]
async fn fifty_retries_of_one_request_are_one_run() {
    let world = World::new(|_, _| React::Json(200, json!({"id": 1}))).await;
    let plan = PlanBuilder::new()
        .call("price", &[], "GET /price", Value::Null)
        .call("charge", &["price"], "POST /charges", json!({}))
        .respond(201, json!({"run": "${run.id}"}))
        .build("w");
    let mut bench = Bench::new(&world, plan).await;
    let mut asked = request("w", Mode::Real, &json!({"v": 1}));
    asked.retry_key = Some(RetryKey([9; 32]));
    let all = futures_util::future::join_all((0..50).map(|_| bench.ask(asked.clone()))).await;
    let bodies: BTreeSet<String> = all.into_iter().map(|reply| answer(reply).1.to_string()).collect();
    assert_eq!(bodies.len(), 1);
    assert_eq!(bench.runs().await.len(), 1);
    assert_eq!(world.paths().iter().filter(|path| *path == "POST /charges").count(), 1);

    bench.crash().await; // the claim and the answer are on disk
    assert_eq!(answer(bench.ask(asked.clone()).await).1.to_string(), *bodies.first().unwrap());
    asked.request = copy(&json!({"v": 2}), &[]);
    assert_eq!(refused(bench.ask(asked).await).0.status, 422);
    assert_eq!(world.paths().iter().filter(|path| *path == "POST /charges").count(), 1);
}

#[tokio::test]
async fn a_retry_is_never_given_back_while_its_first_try_is_at_work_or_after() {
    let world = World::new(|seen, before| match (seen.path.as_str(), before) {
        ("/price", 0) => React::Json(200, json!({})),
        ("/price", _) => React::Json(404, json!({})),
        _ => React::Gated(200, json!({})),
    })
    .await;
    let plan = PlanBuilder::new()
        .call("price", &[], "GET /price", Value::Null)
        .call("charge", &["price"], "POST /charges", json!({}))
        .respond(201, json!({"run": "${run.id}"}))
        .build("w");
    let bench = Bench::new(&world, plan).await;
    let mut asked = request("w", Mode::Real, &json!({}));
    asked.retry_key = Some(RetryKey([9; 32]));
    asked.may_fall_back = true;
    let first = bench.ask(asked.clone());
    let second = async {
        world.has_seen(2).await; // the charge is under way
        let mut retry = Box::pin(bench.ask(asked.clone()));
        assert!(futures_util::poll!(&mut retry).is_pending());
        world.open_gate();
        retry.await
    };
    let (first, second) = tokio::join!(first, second);
    let body = answer(first).1;
    assert_eq!(answer(second).1, body);
    assert_eq!(answer(bench.ask(asked).await).1, body);
    assert_eq!(world.paths(), ["GET /price", "POST /charges"]);
}

#[tokio::test]
async fn who_waited_for_a_run_that_was_given_back_is_given_back_too() {
    let world = World::new(|_, _| React::Gated(404, json!({}))).await;
    let plan = PlanBuilder::new().call("price", &[], "GET /price", Value::Null).respond(201, json!({})).build("w");
    let bench = Bench::new(&world, plan).await;
    let mut asked = request("w", Mode::Real, &json!({}));
    asked.retry_key = Some(RetryKey([9; 32]));
    asked.may_fall_back = true;
    let second = async {
        world.has_seen(1).await;
        let mut retry = Box::pin(bench.ask(asked.clone()));
        assert!(futures_util::poll!(&mut retry).is_pending());
        world.open_gate();
        retry.await
    };
    let (first, second) = tokio::join!(bench.ask(asked.clone()), second);
    assert_eq!((abandoned(first).reason, abandoned(second).reason), ("engine_failed", "engine_failed"));
    assert_eq!(world.paths(), ["GET /price"]);
}

#[tokio::test]
async fn before_any_effect_a_failure_gives_the_request_back() {
    let world = World::new(|_, _| React::Json(404, json!({}))).await;
    let plan = PlanBuilder::new()
        .call("price", &[], "GET /price", Value::Null)
        .call("charge", &["price"], "POST /charges", json!({}))
        .respond(201, json!({}))
        .build("w");
    let bench = Bench::new(&world, plan).await;
    let mut asked = request("w", Mode::Real, &json!({}));
    asked.may_fall_back = true;
    let given_back = abandoned(bench.ask(asked.clone()).await);
    assert_eq!((given_back.reason, given_back.run), ("engine_failed", None));
    assert!(bench.runs().await.is_empty(), "nothing was handed to the writer");
    asked.may_fall_back = false;
    let (problem, _) = refused(bench.ask(asked).await);
    assert_eq!((problem.status, problem.shared_step_begun), (502, Some(false)));
}

#[tokio::test]
async fn after_an_effect_a_failure_is_not_given_back() {
    let world = World::new(|seen, _| match seen.path.as_str() {
        "/drafts" => React::Json(200, json!({})),
        _ => React::Json(404, json!({})),
    })
    .await;
    let plan = PlanBuilder::new()
        .call("draft", &[], "POST /drafts", json!({}))
        .effect(EffectClass::Private)
        .call("read", &["draft"], "GET /read", Value::Null)
        .respond(201, json!({}))
        .build("w");
    let bench = Bench::new(&world, plan).await;
    let mut asked = request("w", Mode::Real, &json!({}));
    asked.may_fall_back = true;
    let (problem, report) = refused(bench.ask(asked).await);
    assert_eq!((problem.status, problem.shared_step_begun), (502, Some(false)));
    assert_eq!(bench.view(report.run.unwrap()).await.status, RunStatus::Failed);
}

#[tokio::test]
async fn a_deadline_gives_back_or_answers_pending_and_the_run_goes_on() {
    let world = World::new(|_, _| React::Gated(200, json!({"n": 1}))).await;
    let plan = PlanBuilder::new()
        .call("a", &[], "GET /a", Value::Null)
        .respond(200, json!("${steps.a.output.n}"))
        .pending(202, json!({"run": "${run.id}"}))
        .build("w");
    let bench = Bench::new(&world, plan).await;
    let mut asked = request("w", Mode::Real, &json!({}));
    asked.deadline = Duration::from_millis(800);
    asked.may_fall_back = true;
    assert_eq!(abandoned(bench.ask(asked.clone()).await).reason, "deadline");
    asked.may_fall_back = false;
    let (status, _, report) = answer(bench.ask(asked).await);
    assert_eq!(status, 202);
    world.open_gate();
    let view = bench.until(report.run.unwrap(), |view| view.status == RunStatus::Completed).await;
    assert_eq!(view.answered, Some(200));
}

#[tokio::test]
async fn bad_input_is_refused_before_there_is_a_run() {
    let world = World::new(|_, _| React::Json(200, json!({}))).await;
    let plan =
        PlanBuilder::new().schema(json!({"type": "object", "required": ["items"]})).respond(200, json!({})).build("w");
    let bench = Bench::new(&world, plan).await;
    let (status, body, report) = answer(bench.ask(request("w", Mode::Real, &json!({"secret": "x"}))).await);
    assert_eq!((status, report.run), (422, None));
    assert!(body["detail"].as_str().unwrap().contains("items"), "{body}");
    assert!(bench.runs().await.is_empty());
}

#[tokio::test]
async fn what_was_created_is_pinned_and_its_followers_see_what_the_run_left() {
    let world = World::new(|_, _| React::Json(200, json!({"id": 17}))).await;
    let family = RouteId::from("orders.create");
    let plan = PlanBuilder::new()
        .call("make", &[], "POST /make", json!("${request.body.items}"))
        .respond(201, json!({"id": "${steps.make.output.id}"}))
        .build("w");
    let limits = Limits { retry_window_s: 0, ..Limits::default() };
    let store = std::sync::Arc::new(MemoryStore::with_limits(&limits));
    let bench = Bench::over(&world, plan, store, Limits::default(), None).await;
    let mut asked = request("w", Mode::Real, &json!({"items": [1]}));
    asked.creates = Some((family.clone().into(), serde_json_path::JsonPath::parse("$.id").unwrap()));
    let (_, _, report) = answer(bench.ask(asked).await);
    let key = crate::flag::PinKey { family, id: "17".into() };
    assert_eq!(report.pinned, Some(key.clone()));
    let pin = bench.store.pin(key.clone()).await.unwrap().unwrap();
    assert_eq!((pin.arm, pin.run), (crate::flag::Arm::Engine, report.run));

    let follow =
        PlanBuilder::new().set("i", &[], json!("${instance}")).respond(200, json!("${steps.i.output}")).build("f");
    let follower = Bench::over(&world, follow, bench.store.clone(), Limits::default(), None).await;
    for purged in [false, true] {
        if purged {
            let created = report.run.unwrap();
            let gone = bench.store.purge(RunStatus::Completed, jiff::Timestamp::MAX, 99).await.unwrap();
            assert_eq!((gone.pinned, bench.store.events(created, Seq::FIRST).await.unwrap().len()), (1, 0));
        }
        let mut asked = request("f", Mode::Real, &json!({}));
        asked.instance = Some(crate::flag::InstanceId { key: key.clone().into(), run: report.run });
        let (_, body, _) = answer(follower.ask(asked).await);
        assert_eq!(
            (&body["id"], &body["output"], &body["input"], &body["status"]),
            (&json!("17"), &json!({"id": 17}), &json!({"items": [1]}), &json!("completed"))
        );
        // Who legacy answered was not kept waiting for the run's name.
        let mut asked = request("f", Mode::Dark, &json!({}));
        asked.instance = Some(crate::flag::InstanceId { key: key.clone().into(), run: None });
        let (_, body, _) = answer(follower.ask(asked).await);
        assert_eq!((&body["id"], &body["input"]), (&json!("17"), &json!({"items": [1]})));
    }
    for (mode, why) in [(Mode::Dark, SkipReason::NoTwin), (Mode::Rehearse, SkipReason::NoInstance)] {
        let mut asked = request("f", mode, &json!({}));
        let key = crate::flag::PinKey { id: "99".into(), ..key.clone() };
        asked.instance = Some(crate::flag::InstanceId { key: key.into(), run: None });
        let ArmReply::Refused(_, report) = follower.ask(asked).await else { panic!("there is no such instance") };
        assert_eq!(report.unresolved.map(|(why, _)| why), Some(why));
    }
}

#[tokio::test]
async fn credentials_of_the_caller_are_sealed_and_sent_on_only_where_named() {
    let world = World::new(|_, _| React::Json(200, json!({}))).await;
    let plan = |name: &str| {
        PlanBuilder::new()
            .call("a", &[], "POST /a", json!({"x": "${request.headers[\"x-tenant\"]}"}))
            .header("authorization", "${request.headers.authorization}")
            .call("b", &["a"], "GET /b", Value::Null)
            .respond(200, json!({}))
            .build(name)
    };
    let store = std::sync::Arc::new(MemoryStore::new());
    let bench = Bench::over(&world, plan("w"), store, Limits::default(), Some(Secret::new("k"))).await;
    let mut asked = request("w", Mode::Real, &json!({}));
    asked.request = copy(&json!({}), &[("authorization", "Basic abc"), ("cookie", "sid=1"), ("x-tenant", "t")]);
    let (_, _, report) = answer(bench.ask(asked.clone()).await);
    let seen = world.seen();
    assert_eq!((seen[0].header("authorization"), seen[0].header("cookie")), (Some("Basic abc"), None));
    assert_eq!((seen[1].header("authorization"), seen[1].header("x-tenant")), (None, None));
    let text = serde_json::to_string(&bench.events(report.run.unwrap()).await).unwrap();
    assert!(!text.contains("Basic abc") && !text.contains("sid=1"), "{text}");
    bench.until(report.run.unwrap(), |view| view.status == RunStatus::Completed).await;
    assert_eq!(bench.store.run_key(report.run.unwrap()).await.unwrap(), None, "the run has ended");

    let bare = Bench::new(&world, plan("w")).await;
    assert_eq!(refused(bare.ask(asked).await).0.kind, "no-store-key");
}

#[tokio::test]
async fn too_many_runs_are_refused_or_given_back() {
    let world = World::new(|_, _| React::Gated(200, json!({}))).await;
    let plan = PlanBuilder::new().call("a", &[], "GET /a", Value::Null).respond(200, json!({})).build("w");
    let limits = Limits { runs_in_flight_max: 1, ..Limits::default() };
    let bench = Bench::over(&world, plan, std::sync::Arc::new(MemoryStore::new()), limits, None).await;
    let first = async { answer(bench.ask(request("w", Mode::Real, &json!({}))).await).0 };
    let second = async {
        world.has_seen(1).await;
        assert_eq!(bench.engine.runs_in_flight(), 1);
        let mut asked = request("w", Mode::Real, &json!({}));
        assert_eq!(refused(bench.ask(asked.clone()).await).0.status, 503);
        asked.may_fall_back = true;
        assert_eq!(abandoned(bench.ask(asked).await).reason, "too_many_runs");
        world.open_gate();
    };
    assert_eq!(tokio::join!(first, second).0, 200);
}

#[tokio::test]
async fn a_freeze_of_effects_holds_what_has_not_begun() {
    let world = World::new(|_, _| React::Json(200, json!({}))).await;
    let plan = PlanBuilder::new()
        .call("read", &[], "GET /read", Value::Null)
        .call("charge", &["read"], "POST /charges", json!({}))
        .respond(200, json!({}))
        .build("w");
    let bench = Bench::new(&world, plan).await;
    bench.engine.freeze(1, Freeze::Effects).await;
    let asked = async { answer(bench.ask(request("w", Mode::Real, &json!({}))).await).0 };
    let watch = async {
        world.has_seen(1).await;
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(world.paths(), ["GET /read"]);
        bench.engine.freeze(2, Freeze::No).await;
    };
    assert_eq!(tokio::join!(asked, watch).0, 200);
}

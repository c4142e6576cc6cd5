//! A request is taken by one arm only, whatever happens meanwhile: flips, retries, a drain, too many runs, a crash.

use std::sync::Arc;

use serde_json::{Value, json};

use super::harness::{Harness, ServiceReply, StepService, abandoned, answer, refused, request};
use crate::affinity::StoreAffinity;
use crate::exchange::{
    Affinity, ArmRequest, EarlierKeys, KnownBody, LegacyTake, MayBegin, NO_FIRST_TRY, ProblemDocument, Remembered,
};
use crate::expression::CreatedIdSource;
use crate::flag::{Arm, Owner, PinKey, RetryKey, RetryKeys};
use crate::limits::Limits;
use crate::names::{RouteId, Seq};
use crate::store::tests::{completed_run, taken_now};
use crate::store::{Append, Claim, MemoryStore, Store as _};
use crate::workflow::testing::PlanBuilder;
use crate::workflow::{Mode, Plan, RunStatus};

const KEY: RetryKey = RetryKey([9; 32]);

pub(super) fn keyed() -> ArmRequest {
    ArmRequest { retry_keys: Some(KEY.into()), may_fall_back: true, ..request("w", Mode::Real, &json!({})) }
}

pub(super) fn plan() -> Arc<Plan> {
    PlanBuilder::new()
        .call("price", &[], "GET /price", Value::Null)
        .call("charge", &["price"], "POST /charges", json!({}))
        .respond(201, json!({"run": "${run.id}"}))
        .build("w")
}

#[tokio::test]
async fn a_limit_or_a_drain_does_not_send_a_retry_to_legacy() {
    let step_service = StepService::new(|_, _| ServiceReply::Gated(200, json!({}))).await;
    let limits = Limits { runs_in_flight_max: 1, ..Limits::default() };
    let harness = Harness::with_store(&step_service, plan(), Arc::new(MemoryStore::new()), limits, None).await;
    let retries = async {
        step_service.wait_for_calls(1).await; // a read is in flight, and nothing is stored
        let mut above_the_limit = Box::pin(harness.send(keyed()));
        assert!(futures_util::poll!(&mut above_the_limit).is_pending());
        harness.engine.core.process.draining.send_replace(true);
        let mut draining = Box::pin(harness.send(keyed()));
        assert!(futures_util::poll!(&mut draining).is_pending());
        step_service.open_gate();
        (above_the_limit.await, draining.await)
    };
    let (first, (above_the_limit, draining)) = tokio::join!(harness.send(keyed()), retries);
    let body = answer(first).1;
    assert_eq!((answer(above_the_limit).1, answer(draining).1), (body.clone(), body.clone()));
    assert_eq!(answer(harness.send(keyed()).await).1, body, "also after the run has ended");
    assert_eq!(step_service.paths(), ["GET /price", "POST /charges"]);
}

/// Legacy takes the request with [`KEY`].
async fn legacy_takes(affinity: &StoreAffinity) -> LegacyTake {
    affinity.take_for_legacy(&"r".into(), KEY.into(), &EarlierKeys::none(), KnownBody::Unread).await
}

#[tokio::test]
async fn legacy_cannot_take_a_request_of_the_engine_before_its_run_is_durable() {
    let step_service = StepService::new(|_, _| ServiceReply::Gated(200, json!({}))).await;
    let mut harness = Harness::new(&step_service, plan()).await;
    let flipped = async {
        step_service.wait_for_calls(1).await;
        assert!(harness.runs().await.is_empty(), "nothing is on disk");
        let affinity = &harness.engine.core.ports.affinity;
        assert_eq!(affinity.remembered(&KEY), Remembered::TakenBy(Arm::Engine));
        assert_eq!(legacy_takes(affinity).await, LegacyTake::HeldByEngine);
        step_service.open_gate();
    };
    let (first, ()) = tokio::join!(harness.send(keyed()), flipped);
    assert_eq!(answer(first).0, 201);
    harness.crash().await;
    let affinity = &harness.engine.core.ports.affinity;
    assert_eq!(affinity.first_try(&KEY).await, Ok(Some(Arm::Engine)), "the next process reads it from the store");
    let other = RetryKey([1; 32]);
    while affinity.remembered(&other) != Remembered::NotEngine {
        tokio::task::yield_now().await; // until the keys in the store are read
    }
    assert_eq!(affinity.remembered(&KEY), Remembered::Unknown, "the store is asked");
}

#[tokio::test]
async fn the_engine_refuses_a_key_that_legacy_took() {
    let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({}))).await;
    let harness = Harness::new(&step_service, plan()).await;
    assert_eq!(legacy_takes(&harness.engine.core.ports.affinity).await, LegacyTake::FIRST);
    assert_eq!(abandoned(harness.send(keyed()).await).reason, "legacy_took_first_try");
    let only = ArmRequest { may_fall_back: false, ..keyed() };
    let problem = refused(harness.send(only.clone()).await).0;
    assert_eq!(problem.kind, "given-to-legacy");
    // The key may belong to another request: for example, a follower's one for an instance of legacy.
    assert!(problem.detail.contains("If it was another one"), "{problem:?}");
    // An earlier process noted the key for legacy.
    let harness = Harness::new(&step_service, plan()).await;
    harness.store.note_legacy_tries(taken_now(vec![KEY])).await.unwrap();
    assert_eq!(refused(harness.send(only).await).0.kind, "given-to-legacy");
    assert_eq!(abandoned(harness.send(keyed()).await).reason, "legacy_took_first_try");
    assert!(step_service.paths().is_empty());
}

#[tokio::test]
async fn the_key_of_a_request_that_falls_back_belongs_to_legacy_before_its_caller_is_answered() {
    let step_service = StepService::new(|_, _| ServiceReply::Json(404, json!({}))).await;
    let harness = Harness::new(&step_service, plan()).await;
    assert_eq!(abandoned(harness.send(keyed()).await).reason, "engine_failed");
    assert_eq!(harness.engine.core.ports.affinity.remembered(&KEY), Remembered::TakenBy(Arm::Legacy));
    assert_eq!(abandoned(harness.send(keyed()).await).reason, "legacy_took_first_try");
    assert_eq!(step_service.paths(), ["GET /price"]);
}

#[tokio::test]
async fn the_key_of_a_request_that_was_refused_before_it_began_is_free() {
    let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({}))).await;
    let harness = Harness::new(&step_service, plan()).await;
    let unknown = ArmRequest { workflow: Some("x".into()), may_fall_back: false, ..keyed() };
    assert_eq!(refused(harness.send(unknown).await).0.kind, "no-workflow");
    assert_eq!(legacy_takes(&harness.engine.core.ports.affinity).await, LegacyTake::FIRST);
}

/// The engine was recorded as the arm of the first try, but no run exists.
#[tokio::test]
async fn a_retry_without_a_first_try_begins_no_run() {
    let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({}))).await;
    let harness = Harness::new(&step_service, plan()).await;
    let retry = ArmRequest { may_begin: MayBegin::Never, ..keyed() };
    assert_eq!(abandoned(harness.send(retry.clone()).await).reason, NO_FIRST_TRY);
    assert_eq!(harness.engine.core.ports.affinity.remembered(&KEY), Remembered::TakenBy(Arm::Legacy));
    let other = ArmRequest { retry_keys: Some(RetryKey([8; 32]).into()), ..keyed() };
    let first = answer(harness.send(other.clone()).await).1;
    let retry = ArmRequest { may_begin: MayBegin::Never, ..other };
    assert_eq!(answer(harness.send(retry).await).1, first, "a run is found");
    assert_eq!(step_service.paths(), ["GET /price", "POST /charges"]);
}

/// A retry of a run that only the store knows does not make this process remember the key for longer than the store.
#[tokio::test]
async fn a_key_is_free_once_the_window_after_the_end_of_its_run_is_over() {
    let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({}))).await;
    let store = Arc::new(MemoryStore::with_limits(&Limits { retry_window_s: 1, ..Limits::default() }));
    let mut harness = Harness::with_store(&step_service, plan(), store, Limits::default(), None).await;
    let first = answer(harness.send(keyed()).await).1;
    harness.crash().await;
    assert_eq!(answer(harness.send(keyed()).await).1, first);
    while harness.store.first_try(KEY).await.unwrap().is_some() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let new = ArmRequest { may_begin: MayBegin::Never, ..keyed() };
    assert_eq!(abandoned(harness.send(new).await).reason, NO_FIRST_TRY);
}

/// The run's append is in the store, and the second process does not know that yet. The caller may use the instance as
/// soon as its retry was answered.
#[tokio::test]
async fn the_pin_of_a_stored_answer_is_known_before_the_answer_is_sent() {
    let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({}))).await;
    let plan =
        PlanBuilder::new().call("charge", &[], "POST /charges", json!({})).respond(201, json!({"id": 17})).build("w");
    let store = Arc::new(MemoryStore::new());
    let new = || Harness::with_store(&step_service, plan.clone(), store.clone(), Limits::default(), None);
    let (harness, other) = (new().await, new().await);
    let family = RouteId::from("orders.create");
    let path = CreatedIdSource::Body(serde_json_path::JsonPath::parse("$.id").unwrap());
    let create = ArmRequest { creates: Some((family.clone().into(), path)), ..keyed() };
    let (_, body, report) = answer(harness.send(create.clone()).await);
    let key = PinKey { family, id: "17".into() }.into();
    let affinity = &other.engine.core.ports.affinity;
    assert_eq!(affinity.owner(&key).await, Ok((Owner::NoPin, None)), "it does not know the pin yet");
    assert_eq!(answer(other.send(create).await).1, body);
    assert_eq!(affinity.owner(&key).await, Ok((Owner::Engine, report.run)));
}

/// A client that parses a UUID may write it in upper or in lower case.
#[tokio::test]
async fn an_instance_whose_id_is_a_uuid_is_found_in_either_case() {
    let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({}))).await;
    let lower = "0190abcd-0000-7000-8000-00000000abcd";
    let ids = [lower.to_owned(), lower.to_uppercase()];
    for pinned in &ids {
        let plan = PlanBuilder::new().set("x", &[], json!(1)).respond(201, json!({"id": pinned})).build("w");
        let harness = Harness::new(&step_service, plan).await;
        let path = CreatedIdSource::Body(serde_json_path::JsonPath::parse("$.id").unwrap());
        let family = RouteId::from("orders.create");
        let (_, _, report) =
            answer(harness.send(ArmRequest { creates: Some((family.clone().into(), path)), ..keyed() }).await);
        let owner = async |id: &str| {
            let key = PinKey { family: family.clone(), id: id.into() }.into();
            harness.engine.core.ports.affinity.owner(&key).await
        };
        for asked in &ids {
            assert_eq!(owner(asked).await, Ok((Owner::Engine, report.run)), "{pinned}, {asked}");
        }
        assert_eq!(owner("0190ABCD").await, Ok((Owner::NoPin, None)));
    }
}

/// Two processes take the same request under two credentials, and the store decides.
#[tokio::test]
async fn a_request_that_another_process_took_under_another_credential_is_refused() {
    let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({}))).await;
    let store = Arc::new(MemoryStore::new());
    let new = || Harness::with_store(&step_service, plan(), store.clone(), Limits::default(), None);
    let (harness, other) = (new().await, new().await);
    let of = |key: u8| {
        let keys = RetryKeys { any_caller: Some(RetryKey([7; 32])), ..RetryKey([key; 32]).into() };
        ArmRequest { retry_keys: Some(keys), ..keyed() }
    };
    while other.engine.core.ports.affinity.remembered(&KEY) != Remembered::NotEngine {
        tokio::task::yield_now().await; // until the keys in the store are read
    }
    assert_eq!(answer(harness.send(of(1)).await).0, 201);
    let (problem, _) = refused(other.send(of(2)).await);
    assert_eq!((problem.status, problem.kind), (409, ProblemDocument::taken_under_another_credential().kind));
    assert_eq!(step_service.paths().iter().filter(|path| *path == "POST /charges").count(), 1);
}

#[tokio::test]
async fn dark_runs_do_not_use_the_permits_of_real_runs() {
    let step_service =
        StepService::new(|_, before| if before == 0 { ServiceReply::Hang } else { ServiceReply::Json(200, json!({})) })
            .await;
    let plan = PlanBuilder::new().call("a", &[], "GET /a", Value::Null).respond(200, json!({})).build("w");
    let limits = Limits { runs_in_flight_max: 1, ..Limits::default() };
    let harness = Harness::with_store(&step_service, plan, Arc::new(MemoryStore::new()), limits, None).await;
    let mut dark = Box::pin(harness.send(request("w", Mode::Dark, &json!({}))));
    assert!(futures_util::poll!(&mut dark).is_pending());
    step_service.wait_for_calls(1).await;
    assert_eq!(answer(harness.send(request("w", Mode::Real, &json!({}))).await).0, 200);
}

#[tokio::test]
async fn values_that_are_nested_too_deeply_to_be_read_back_are_not_stored() {
    let deep = |depth: usize| (0..depth).fold(json!(1), |value, _| json!([value]));
    let replied = deep(120);
    let step_service = StepService::new(move |_, _| ServiceReply::Json(200, replied.clone())).await;
    let plan = PlanBuilder::new()
        .set("seen", &[], json!("${request.body}"))
        .set("more", &["seen"], json!([[["${steps.seen.output}"]]]))
        .call("charge", &[], "POST /charges", json!({}))
        .respond(200, json!({}))
        .build("w");
    let mut harness = Harness::new(&step_service, plan).await;
    // A value that `more` makes, and the reply of `charge`.
    for depth in [98, 1] {
        let reply = harness.send(request("w", Mode::Real, &deep(depth))).await;
        assert_eq!(refused(reply).0.kind, "workflow-bound", "{depth}");
    }
    let runs = harness.runs().await.len();
    let (status, problem, _) = answer(harness.send(request("w", Mode::Real, &deep(120))).await);
    assert!(status == 422 && problem["detail"].as_str().unwrap().contains("output_depth_max"), "{problem}");
    assert_eq!(harness.runs().await.len(), runs);
    for run in harness.runs().await {
        let events = harness.events(run.run_id).await;
        let text = serde_json::to_string(&events).unwrap();
        let again: Vec<crate::workflow::Event> = serde_json::from_str(&text).unwrap();
        assert_eq!(again, events);
    }
    harness.crash().await;
    harness.recover().await;
}

#[tokio::test]
async fn a_repeated_attempt_that_was_not_done_leaves_the_first_one_unknown() {
    let step_service =
        StepService::new(|_, before| if before == 0 { ServiceReply::Hang } else { ServiceReply::Json(429, json!({})) })
            .await;
    let plan = PlanBuilder::new().call("charge", &[], "POST /charges", json!({})).keyed().respond(200, json!({}));
    let mut harness = Harness::new(&step_service, plan.build("w")).await;
    let caller = tokio::spawn(tower::ServiceExt::oneshot(harness.engine.arm(), request("w", Mode::Real, &json!({}))));
    step_service.wait_for_calls(1).await;
    harness.crash().await;
    caller.await.unwrap().unwrap();
    let run = harness.runs().await[0].run_id;
    harness.recover().await;
    harness.wait_until(run, |view| view.status == RunStatus::Paused).await;
}

#[tokio::test]
async fn a_drain_does_not_wait_for_the_answer_of_a_caller_that_is_gone() {
    let step_service = StepService::new(|_, _| ServiceReply::Gated(200, json!({}))).await;
    let harness = Harness::new(&step_service, plan()).await;
    {
        let mut arm_request = Box::pin(harness.send(request("w", Mode::Real, &json!({}))));
        assert!(futures_util::poll!(&mut arm_request).is_pending());
        step_service.wait_for_calls(1).await;
    }
    let open = async {
        tokio::task::yield_now().await;
        step_service.open_gate();
    };
    let (drained, ()) = tokio::join!(harness.engine.drain(super::harness::TIMEOUT), open);
    assert!(drained);
    assert_eq!(step_service.paths(), ["GET /price"], "the charge is left to the next process");
    assert_eq!(harness.runs().await[0].status, RunStatus::Running);
}

/// The next process would not know that legacy may have the request.
#[tokio::test]
async fn a_drain_stores_nothing_of_a_run_that_may_fall_back_and_whose_caller_is_gone() {
    let script = |_: &_, before: usize| {
        if before == 0 { ServiceReply::Gated(200, json!({})) } else { ServiceReply::Json(200, json!({})) }
    };
    let step_service = StepService::new(script).await;
    let mut harness = Harness::new(&step_service, plan()).await;
    {
        let mut arm_request = Box::pin(harness.send(keyed()));
        assert!(futures_util::poll!(&mut arm_request).is_pending());
        step_service.wait_for_calls(1).await;
    }
    let open = async {
        tokio::task::yield_now().await;
        step_service.open_gate();
    };
    let (drained, ()) = tokio::join!(harness.engine.drain(super::harness::TIMEOUT), open);
    assert!(drained && harness.runs().await.is_empty());
    harness.crash().await;
    harness.recover().await;
    assert_eq!(answer(harness.send(keyed()).await).0, 201, "a retry begins anew");
    assert_eq!(step_service.paths(), ["GET /price", "GET /price", "POST /charges"]);
}

/// The process ended after the event was stored, and before the keys of the request were noted for legacy.
#[tokio::test]
async fn a_request_that_was_given_back_is_given_back_under_another_credential_too() {
    let step_service = StepService::new(|_, _| ServiceReply::RetryAfter(429, "0")).await;
    let plan = PlanBuilder::new().call("charge", &[], "POST /charges", json!({})).respond(200, json!({})).build("w");
    let ended = Harness::new(&step_service, plan.clone()).await;
    let of = |key: u8| {
        let keys = RetryKeys { any_caller: Some(RetryKey([7; 32])), ..RetryKey([key; 32]).into() };
        ArmRequest { retry_keys: Some(keys), ..keyed() }
    };
    let run = abandoned(ended.send(of(1)).await).run.unwrap();
    ended.wait_until(run, |view| view.status == RunStatus::Abandoned).await;
    let events = ended.store.events(run, Seq::FIRST).await.unwrap();
    let request = of(1).request.digest();
    let of_request = Some(RetryKey([7; 32]).of_request(&request));
    let append = Append {
        run_id: run,
        first: Seq::FIRST,
        summary: ended.runs().await.swap_remove(0),
        events: events.into_iter().map(|stored| (stored.at, stored.event)).collect(),
        claim: Some(Claim { key: RetryKey([1; 32]), request, of_request, legacy_keys: [None; 2], decided_in: None }),
        ..completed_run(run, jiff::Timestamp::UNIX_EPOCH)
    };
    let store = Arc::new(MemoryStore::new());
    store.append(append.into()).await.unwrap();
    let harness = Harness::with_store(&step_service, plan, store, Limits::default(), None).await;
    assert_eq!(abandoned(harness.send(of(2)).await).run, Some(run));
    let only = ArmRequest { may_fall_back: false, ..of(3) };
    assert_eq!(refused(harness.send(only).await).0.status, 503);
}

#[tokio::test]
async fn a_dark_run_that_passes_its_deadline_has_no_reply_to_compare() {
    let step_service = StepService::new(|_, _| ServiceReply::Gated(200, json!({}))).await;
    let plan = PlanBuilder::new()
        .call("a", &[], "GET /a", Value::Null)
        .respond(200, json!({}))
        .pending(202, json!({}))
        .build("w");
    let harness = Harness::new(&step_service, plan).await;
    let soon = std::time::Duration::from_millis(100);
    let late = ArmRequest { deadline: soon, ..request("w", Mode::Dark, &json!({})) };
    let (problem, report) = refused(harness.send(late).await);
    assert_eq!(problem.kind, "run-goes-on");
    step_service.open_gate();
    harness.wait_until(report.run.unwrap(), |view| view.status == RunStatus::Completed).await;
}

/// A shared step that was certainly not done counts as not begun.
#[tokio::test]
async fn a_request_whose_shared_step_was_not_done_falls_back() {
    let step_service = StepService::new(|_, _| ServiceReply::RetryAfter(429, "0")).await;
    let plan = PlanBuilder::new().call("charge", &[], "POST /charges", json!({})).respond(200, json!({})).build("w");
    let harness = Harness::new(&step_service, plan).await;
    let mut arm_request = request("w", Mode::Real, &json!({}));
    let (problem, _) = refused(harness.send(arm_request.clone()).await);
    assert_eq!((problem.status, problem.shared_step_begun), (503, Some(false)));
    assert!(problem.detail.contains("Nothing but reads was done"), "{}", problem.detail);
    arm_request.may_fall_back = true;
    let given = abandoned(harness.send(arm_request).await);
    assert_eq!(given.reason, "engine_failed");
    harness.wait_until(given.run.unwrap(), |view| view.status == RunStatus::Abandoned).await;
    assert_eq!(step_service.seen().len(), 2);
}

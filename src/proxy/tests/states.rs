//! The five states as a caller, legacy and the engine see them; every ticket is settled exactly once.

use std::sync::atomic::Ordering::SeqCst;

use super::rig::{OK, Origin, Rig, Setup, engine_gives_back, engine_refuses, engine_says, flag_set, get, post};
use super::wire::bounded;
use crate::compare::Body;
use crate::exchange::{ComparisonOutcome, MayBegin, Served};
use crate::expression::Expression;
use crate::flag::{Cohort, Owner, Route, SkipReason, State};
use crate::limits::Limits;
use crate::workflow::Mode;

fn at(state: State) -> Setup {
    Setup { state, ..Setup::default() }
}

const ORDER: &str = "{\"items\":[1]}";

fn skipped(reason: SkipReason) -> ComparisonOutcome {
    ComparisonOutcome::Skipped(reason)
}

#[tokio::test]
async fn in_off_ids_of_legacy_are_checked_for_pin_collisions() {
    let origin = Origin::always_answers(OK).await;
    let rig = Rig::new(&origin, at(State::Off)).await;
    rig.fakes.engine_owns.store(true, SeqCst);
    assert_eq!(rig.ask(&post("/orders", ORDER)).await.status(), 200);
    rig.fakes.until("the id", |fakes| fakes.created.lock().unwrap().pop()).await;
    assert!(rig.fakes.outcomes.lock().unwrap().is_empty());
}

#[tokio::test]
async fn off_copies_nothing() {
    let origin = Origin::always_answers(OK).await;
    let rig = Rig::new(&origin, at(State::Off)).await;
    assert_eq!(rig.ask(&post("/orders", ORDER)).await.status(), 200);
    assert!(rig.fakes.outcomes.lock().unwrap().is_empty());
    assert!(rig.fakes.created.lock().unwrap().is_empty());
    assert!(rig.fakes.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn shadow_and_dark_offer_what_was_answered() {
    for (state, mode) in [(State::Shadow, Mode::Rehearse), (State::Dark, Mode::Dark)] {
        let origin = Origin::always_answers(OK).await;
        let rig = Rig::new(&origin, at(state)).await;
        let reply = rig.ask(&post("/orders?q=1", ORDER)).await;
        assert_eq!(reply.text(), "{\"id\":\"o-17\"}");
        assert_eq!(rig.fakes.outcome().await, ComparisonOutcome::Matched);
        let offered = rig.fakes.offered.lock().unwrap().pop().unwrap();
        assert_eq!(offered.mode, mode);
        assert_eq!(offered.request.body, ORDER);
        assert_eq!((offered.request.path.as_str(), offered.request.query.as_deref()), ("/orders", Some("q=1")));
        assert!(offered.request.headers.contains_key("traceparent"));
        assert!(!offered.request.headers.contains_key("x-forwarded-for"), "as the client sent it");
        assert_eq!(offered.legacy.status(), 200);
        assert_eq!(*offered.legacy.body(), Body::Whole("{\"id\":\"o-17\"}".into()));
        let created = rig.fakes.created.lock().unwrap().clone();
        assert_eq!(created.len(), 1);
        assert_eq!((created[0].key.family.id().as_str(), &*created[0].key.id), ("orders.create", "o-17"));
        assert!(rig.fakes.asked.lock().unwrap().is_empty(), "in these states the proxy does not call the engine");
    }
}

#[tokio::test]
async fn the_offer_comes_after_the_last_byte() {
    let origin = Origin::script(|mut wire, _| async move {
        wire.message(true).await;
        wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n").await;
        wire.until("!").await;
        wire.send("0\r\n\r\n").await;
    })
    .await;
    let rig = Rig::new(&origin, at(State::Shadow)).await;
    let mut client = rig.connect().await;
    client.send("POST /orders HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n").await;
    client.until("{}").await.unwrap();
    assert!(rig.fakes.outcomes.lock().unwrap().is_empty(), "the reply has not ended");
    drop(client);
    assert_eq!(rig.fakes.outcome().await, skipped(SkipReason::ClientWentAway));
}

#[tokio::test]
async fn requests_that_cannot_be_compared_are_counted_with_the_reason() {
    let plain = || post("/orders", ORDER);
    let events = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nContent-Length: 2\r\n\r\nok";
    let big = "HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n012345678901234567890123456789";
    let big_chunked =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1e\r\n012345678901234567890123456789\r\n0\r\n\r\n";
    let conditional = "POST /orders HTTP/1.1\r\nHost: a\r\nIf-Match: x\r\nContent-Length: 0\r\n\r\n";
    for (name, request, reply, reason) in [
        ("429", plain(), "HTTP/1.1 429 No\r\nContent-Length: 0\r\n\r\n", SkipReason::LegacyRefused),
        ("503", plain(), "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", SkipReason::LegacyRefused),
        ("events", plain(), events, SkipReason::Streaming),
        ("large reply", plain(), big, SkipReason::BodyTooLarge),
        ("large reply in chunks", plain(), big_chunked, SkipReason::BodyTooLarge),
        ("large request", post("/orders", &"x".repeat(30)), OK, SkipReason::BodyTooLarge),
        ("conditional", conditional.into(), OK, SkipReason::Conditional),
        ("no reply", plain(), "", SkipReason::LegacyFailed),
        ("cut reply", plain(), "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab", SkipReason::LegacyFailed),
        ("unasked switch", plain(), "HTTP/1.1 101 Switching Protocols\r\nUpgrade: a\r\n\r\n", SkipReason::LegacyFailed),
    ] {
        let origin = Origin::script(move |mut wire, _| async move {
            wire.message(true).await;
            wire.send(reply).await;
        })
        .await;
        let limits = Limits { body_capture_bytes_max: 20, ..Limits::default() };
        let rig = Rig::new(&origin, Setup { limits, ..at(State::Shadow) }).await;
        let mut client = rig.connect().await;
        client.send(request).await;
        client.message(true).await;
        assert_eq!(rig.fakes.outcome().await, skipped(reason), "{name}");
        assert!(rig.fakes.offered.lock().unwrap().is_empty(), "{name}");
    }
}

/// A freeze lowers a cohort in `only`, but not a route in `only`.
#[tokio::test]
async fn a_freeze_stops_what_a_cohort_in_only_has_not_begun() {
    let origin = Origin::always_answers(OK).await;
    for (state, may_begin) in
        [(State::Off, MayBegin::UnlessFrozen), (State::Live, MayBegin::UnlessFrozen), (State::Only, MayBegin::Always)]
    {
        let edit_route = |route: &mut Route| {
            let (when, force) = (Expression::parse("true").unwrap(), Some("a test".to_owned()));
            route.cohorts = vec![Cohort { name: "all".into(), when, state: State::Only, force }];
        };
        let rig = Rig::new(&origin, Setup { edit_route, ..at(state) }).await;
        rig.fakes.answers.lock().unwrap().push_back(engine_says("{}"));
        assert_eq!(rig.ask(&post("/orders", ORDER)).await.status(), 201);
        let asked = rig.fakes.asked.lock().unwrap().pop().unwrap();
        assert_eq!((asked.may_begin, asked.may_fall_back), (may_begin, false), "{state}");
    }
    assert!(origin.requests().is_empty());
}

#[tokio::test]
async fn a_dark_request_that_cannot_be_compared_counts_as_without_twin() {
    let with = |method: &str, path: &str, field: &str| {
        format!("{method} {path} HTTP/1.1\r\nHost: shop.test\r\n{field}\r\nContent-Length: 0\r\n\r\n")
    };
    // The route's workflow would run for all of these in `live`.
    let conditional_write = || with("POST", "/orders", "If-Match: \"v1\"");
    let conditional_create = || with("POST", "/orders", "If-None-Match: *");
    let upgrade = || with("GET", "/plain", "Connection: upgrade\r\nUpgrade: other");
    // A server may ignore the condition of a read, so the workflow's unconditional answer would be right.
    let conditional_read = || with("GET", "/plain", "If-None-Match: \"v1\"");
    let range = || with("GET", "/plain", "Range: bytes=0-1");
    for (state, request, reason, without_twin) in [
        (State::Dark, conditional_write(), SkipReason::Conditional, 1),
        (State::Dark, conditional_create(), SkipReason::Conditional, 1),
        (State::Dark, upgrade(), SkipReason::Streaming, 1),
        (State::Dark, conditional_read(), SkipReason::Conditional, 0),
        (State::Dark, range(), SkipReason::Conditional, 0),
        (State::Shadow, conditional_write(), SkipReason::Conditional, 0),
        (State::Shadow, upgrade(), SkipReason::Streaming, 0),
    ] {
        let origin = Origin::always_answers(OK).await;
        let rig = Rig::new(&origin, at(state)).await;
        assert_eq!(rig.ask(&request).await.status(), 200, "{request}");
        assert_eq!(rig.fakes.outcome().await, skipped(reason), "{request}");
        assert_eq!(rig.fakes.without_twin.load(SeqCst), without_twin, "{state}: {request}");
    }
}

#[tokio::test]
async fn a_large_request_in_chunks_reaches_legacy_and_is_not_compared() {
    let origin = Origin::always_answers(OK).await;
    let limits = Limits { body_capture_bytes_max: 20, ..Limits::default() };
    let rig = Rig::new(&origin, Setup { limits, ..at(State::Dark) }).await;
    let body = "x".repeat(30);
    rig.ask(&format!(
        "POST /orders HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1e\r\n{body}\r\n0\r\n\r\n"
    ))
    .await;
    assert_eq!(rig.fakes.outcome().await, skipped(SkipReason::BodyTooLarge));
    assert_eq!(origin.only_request().text(), body, "legacy gets all of it");
}

#[tokio::test]
async fn an_answer_before_the_request_is_whole_is_not_compared() {
    let origin = Origin::script(|mut wire, _| async move {
        wire.head().await;
        wire.send(OK).await;
        wire.rest().await;
    })
    .await;
    let rig = Rig::new(&origin, at(State::Shadow)).await;
    let mut client = rig.connect().await;
    client.send("POST /orders HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\n").await;
    assert_eq!(client.reply().await.status(), 200);
    assert_eq!(rig.fakes.outcome().await, skipped(SkipReason::Streaming));
}

#[tokio::test]
async fn a_full_queue_copies_nothing() {
    let origin = Origin::always_answers(OK).await;
    let rig = Rig::new(&origin, at(State::Shadow)).await;
    rig.fakes.queue_full.store(true, SeqCst);
    assert_eq!(rig.ask(&post("/orders", ORDER)).await.status(), 200);
    assert_eq!(rig.fakes.outcome().await, skipped(SkipReason::QueueFull));
}

#[tokio::test]
async fn a_client_that_goes_away_while_legacy_works_is_counted() {
    let origin = Origin::script(|mut wire, seen| async move {
        let request = wire.message(true).await.unwrap();
        seen.lock().unwrap().push(request);
        wire.rest().await;
    })
    .await;
    let limits = Limits { client_half_close_ms: 50, ..Limits::default() };
    let rig = Rig::new(&origin, Setup { limits, ..at(State::Shadow) }).await;
    let mut client = rig.connect().await;
    client.send(post("/orders", ORDER)).await;
    drop(client);
    assert_eq!(rig.fakes.outcome().await, skipped(SkipReason::ClientWentAway));
}

#[tokio::test]
async fn live_answers_from_the_engine() {
    let origin = Origin::always_answers(OK).await;
    let rig = Rig::new(&origin, at(State::Live)).await;
    rig.fakes.answers.lock().unwrap().push_back(engine_says("{\"id\":\"e-1\"}"));
    let reply = rig.ask(&post("/orders", ORDER)).await;
    assert_eq!((reply.status(), reply.text().as_str()), (201, "{\"id\":\"e-1\"}"));
    assert_eq!(reply.fields("content-length"), ["12"]);
    assert_eq!(reply.field("x-pointsman-source"), None);
    assert!(origin.requests().is_empty());
    let asked = rig.fakes.asked.lock().unwrap().pop().unwrap();
    assert_eq!((asked.mode, asked.may_fall_back), (Mode::Real, true));
    assert_eq!(asked.request.body, ORDER);
    assert!(asked.creates.is_some());
    assert_eq!(*rig.fakes.served.lock().unwrap(), [Served::Answered]);
}

#[tokio::test]
async fn a_request_that_the_engine_gives_back_reaches_legacy_completely() {
    for request in [
        post("/orders", ORDER),
        format!("POST /orders HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nd\r\n{ORDER}\r\n0\r\n\r\n"),
    ] {
        let origin = Origin::always_answers(OK).await;
        let rig = Rig::new(&origin, at(State::Live)).await;
        rig.fakes.answers.lock().unwrap().push_back(engine_gives_back());
        let mut client = rig.connect().await;
        let reply = client.ask(&request).await;
        assert_eq!((reply.status(), reply.text().as_str()), (200, "{\"id\":\"o-17\"}"));
        assert_eq!(origin.only_request().text(), ORDER);
        assert_eq!(*rig.fakes.served.lock().unwrap(), [Served::FellBack]);
        rig.fakes.until("the id", |fakes| (fakes.created.lock().unwrap().len() == 1).then_some(())).await;
        // The connection is still usable.
        rig.fakes.answers.lock().unwrap().push_back(engine_says("{}"));
        assert_eq!(client.ask(&request).await.status(), 201);
    }
}

#[tokio::test]
async fn a_body_too_large_for_the_engine_goes_to_legacy_or_is_refused() {
    let body = "x".repeat(300_000);
    let chunked = format!(
        "POST /orders HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    for (state, request) in [
        (State::Live, post("/orders", &body)),
        (State::Live, chunked.clone()),
        (State::Only, post("/orders", &body)),
        (State::Only, chunked),
    ] {
        let origin = Origin::always_answers(OK).await;
        let limits = Limits { body_engine_bytes_max: 1_000, ..Limits::default() };
        let rig = Rig::new(&origin, Setup { limits, ..at(state) }).await;
        let reply = rig.ask(&request).await;
        assert!(rig.fakes.asked.lock().unwrap().is_empty());
        if state == State::Live {
            assert_eq!(reply.status(), 200);
            assert_eq!(origin.only_request().text(), body);
            assert_eq!(*rig.fakes.served.lock().unwrap(), [Served::FellBack]);
        } else {
            assert_eq!(reply.status(), 413);
            assert!(origin.requests().is_empty());
        }
    }
}

#[tokio::test]
async fn a_refusal_of_the_engine_is_the_callers_answer_and_legacy_is_not_called() {
    for (state, kind, served) in [
        (State::Live, "engine-unavailable", Served::Error),
        (State::Live, "outcome-unknown", Served::Unknown),
        (State::Live, "run-goes-on", Served::Unknown),
        (State::Only, "engine-unavailable", Served::Error),
    ] {
        let origin = Origin::always_answers(OK).await;
        let rig = Rig::new(&origin, at(state)).await;
        rig.fakes.answers.lock().unwrap().push_back(engine_refuses(kind));
        let reply = rig.ask(&post("/orders", ORDER)).await;
        assert_eq!((reply.status(), reply.field("retry-after")), (503, Some("7")));
        assert_eq!(reply.field("x-pointsman-source"), Some("workflow"));
        let json: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(json["shared_step_begun"], false);
        assert_eq!(json["status"], 503);
        assert!(origin.requests().is_empty());
        assert_eq!(*rig.fakes.served.lock().unwrap(), [served]);
    }
}

#[tokio::test]
async fn the_state_only_never_calls_legacy_whatever_the_engine_says() {
    let origin = Origin::always_answers(OK).await;
    let setup =
        Setup { edit_route: |route| route.deadline = Some(std::time::Duration::from_millis(50)), ..at(State::Only) };
    let rig = Rig::new(&origin, setup).await;
    rig.fakes.answers.lock().unwrap().extend([engine_says("{}"), engine_gives_back(), engine_refuses("x")]);
    let statuses = [201, 503, 503, 504];
    for status in statuses {
        // To the last request the engine gives no answer at all.
        assert_eq!(rig.ask(&post("/orders", ORDER)).await.status(), status);
    }
    assert!(origin.requests().is_empty());
    assert!(rig.fakes.asked.lock().unwrap().iter().all(|asked| !asked.may_fall_back));
    assert_eq!(*rig.fakes.served.lock().unwrap(), [Served::Answered, Served::Error, Served::Error, Served::Unknown]);
}

#[tokio::test]
async fn instances_of_the_engine_are_followed_up_there_in_every_state() {
    for state in State::ALL {
        let origin = Origin::always_answers(OK).await;
        let rig = Rig::new(&origin, at(state)).await;
        *rig.fakes.owner.lock().unwrap() = Some(Owner::Engine);
        rig.fakes.answers.lock().unwrap().push_back(engine_says("{}"));
        assert_eq!(rig.ask(&get("/orders/e-1")).await.status(), 201, "{state}");
        let asked = rig.fakes.asked.lock().unwrap().pop().unwrap();
        assert!(!asked.may_fall_back);
        let instance = asked.instance.unwrap();
        assert_eq!((instance.key.family.id().as_str(), &*instance.key.id), ("orders.create", "e-1"));
        // If the engine gives the request back, or the owner is unknown, the caller never gets legacy's 404.
        rig.fakes.answers.lock().unwrap().push_back(engine_gives_back());
        assert_eq!(rig.ask(&get("/orders/e-1")).await.status(), 503, "{state}");
        *rig.fakes.owner.lock().unwrap() = None;
        assert_eq!(rig.ask(&get("/orders/e-1")).await.status(), 503, "{state}");
        assert!(origin.requests().is_empty(), "{state}");
    }
}

#[tokio::test]
async fn legacy_is_not_called_when_the_caller_goes_away() {
    let origin = Origin::always_answers(OK).await;
    let limits = Limits { client_half_close_ms: 50, ..Limits::default() };
    let rig = Rig::new(&origin, Setup { limits, ..at(State::Live) }).await;
    let mut client = rig.connect().await;
    client.send(post("/orders", ORDER)).await;
    rig.fakes.until("the engine works", |f| (!f.asked.lock().unwrap().is_empty()).then_some(())).await;
    drop(client);
    rig.shutdown.cancel();
    bounded("the drain", rig.serving).await.unwrap();
    assert!(origin.requests().is_empty());
}

#[tokio::test]
async fn a_request_keeps_the_flags_it_started_with_and_a_swap_keeps_the_connections() {
    let go = std::sync::Arc::new(tokio::sync::Notify::new());
    let wait = go.clone();
    let origin = Origin::script(move |mut wire, seen| {
        let wait = wait.clone();
        async move {
            while let Some(request) = wire.message(true).await {
                seen.lock().unwrap().push(request);
                wait.notified().await;
                wire.send(OK).await;
            }
        }
    })
    .await;
    let rig = Rig::new(&origin, at(State::Shadow)).await;
    let mut client = rig.connect().await;
    client.send(post("/orders", ORDER)).await;
    bounded("legacy works", async {
        while origin.requests().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    rig.flags.store(std::sync::Arc::new(flag_set(origin.address, &at(State::Off), 2)));
    go.notify_one();
    assert_eq!(client.reply().await.status(), 200);
    assert_eq!(rig.fakes.outcome().await, ComparisonOutcome::Matched);
    assert_eq!(rig.fakes.offered.lock().unwrap()[0].flags.set_number, 1);
    go.notify_one();
    assert_eq!(client.ask(&post("/orders", ORDER)).await.status(), 200);
    assert_eq!(rig.fakes.offered.lock().unwrap().len(), 1, "the next one is on `off`");
    assert_eq!(*origin.connections.lock().unwrap(), 1);
}

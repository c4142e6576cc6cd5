//! Follow-ups that have the id of their instance in their body (`key: body.…`).

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use tokio::sync::Notify;

use super::rig::{OK, Origin, Rig, Setup, engine_says, post};
use crate::exchange::ComparisonOutcome;
use crate::flag::{Instance, InstanceKeySource, Owner, Route, SkipReason, State};
use crate::limits::Limits;

/// All routes follow up instances of one family.
fn by_body(route: &mut Route) {
    let path = serde_json_path::JsonPath::parse("$.order.id").unwrap();
    route.instance = Some(Instance::Follows { creator: "plain".into(), key: InstanceKeySource::Body(path) });
}

fn by_field(route: &mut Route) {
    let path = serde_json_path::JsonPath::parse("$.order").unwrap();
    route.instance = Some(Instance::Follows { creator: "plain".into(), key: InstanceKeySource::Body(path) });
}

const ENGINES: &str = "{\"of\":\"engine\"}";

fn post_as(content_type: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST /orders HTTP/1.1\r\nHost: a\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

#[tokio::test]
async fn a_follow_up_on_an_instance_of_the_engine_goes_to_the_engine_in_every_state() {
    let long = format!("{{\"note\":\"{}\",\"order\":{{\"id\":17}}}}", "x".repeat(100 << 10));
    let chunked = "POST /orders HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                   8\r\n{\"order\"\r\nd\r\n:{\"id\":\"17\"}}\r\n0\r\n\r\n";
    for state in [State::Off, State::Shadow, State::Dark, State::Live, State::Only] {
        for (edit_route, request) in [
            (by_body as fn(&mut Route), post_as("application/json", "{\"order\":{\"id\":\"17\"}}")),
            (by_body, post_as("application/json", &long)),
            (by_body, chunked.to_owned()),
            (by_field, post_as("application/x-www-form-urlencoded", "x=1&order=17")),
        ] {
            let origin = Origin::always_answers(OK).await;
            let rig = Rig::new(&origin, Setup { state, edit_route, ..Setup::default() }).await;
            rig.fakes.engine_owns.store(true, SeqCst);
            *rig.fakes.owner.lock().unwrap() = Some(Owner::Engine);
            rig.fakes.answers.lock().unwrap().push_back(engine_says(ENGINES));
            assert_eq!(rig.ask(&request).await.text(), ENGINES, "{state}");
            let asked = rig.fakes.asked.lock().unwrap().pop().expect("the engine was asked");
            let instance = asked.instance.expect("it follows up");
            assert_eq!((instance.key.family.id().as_str(), &*instance.key.id), ("plain", "17"));
            assert!(request.ends_with(std::str::from_utf8(&asked.request.body).unwrap()) || request == chunked);
            assert!(origin.requests().is_empty());
        }
    }
}

/// Whoever owned instances, legacy has the whole body.
#[tokio::test]
async fn a_body_without_an_id_is_about_no_known_instance_and_reaches_legacy_whole() {
    let large = format!("{{\"order\":{{\"id\":\"17\"}},\"note\":\"{}\"}}", "x".repeat(64));
    let chunked = format!("{:x}\r\n{}\r\n{:x}\r\n{}\r\n0\r\n\r\n", 30, &large[..30], large.len() - 30, &large[30..]);
    let chunked = format!("POST /orders HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunked}");
    let (json, form) = ("application/json", "application/x-www-form-urlencoded");
    for (request, body) in [
        (post_as(json, &large), large.as_str()),
        (chunked, &large),
        (post_as(json, "{\"order\":"), "{\"order\":"),
        (post_as(json, "{\"id\":\"17\"}"), "{\"id\":\"17\"}"),
        (post_as(json, ""), ""),
        (post_as("text/plain", "{\"order\":{\"id\":1}}"), "{\"order\":{\"id\":1}}"),
        (post_as(form, "order=17&order=18"), "order=17&order=18"),
        (post_as("application/grpc", "{\"order\":{\"id\":1}}"), "{\"order\":{\"id\":1}}"),
    ] {
        for (state, skipped) in [
            (State::Off, None),
            (State::Shadow, Some(SkipReason::NoInstance)),
            (State::Dark, Some(SkipReason::NoTwin)),
            (State::Live, Some(SkipReason::NoTwin)),
        ] {
            let origin = Origin::always_answers(OK).await;
            let limits = Limits { body_engine_bytes_max: 64, ..Limits::default() };
            let edit_route = if request.contains(form) { by_field } else { by_body };
            let rig = Rig::new(&origin, Setup { state, edit_route, limits, ..Setup::default() }).await;
            rig.fakes.engine_owns.store(true, SeqCst);
            // An owner is looked up only for a request that has an id.
            *rig.fakes.owner.lock().unwrap() = Some(Owner::Engine);
            assert_eq!(rig.ask(&request).await.text(), "{\"id\":\"o-17\"}", "{state} {body}");
            assert_eq!(origin.requests().pop().unwrap().text(), body, "{state}");
            assert!(rig.fakes.asked.lock().unwrap().is_empty());
            if let Some(reason) = skipped {
                assert_eq!(rig.fakes.outcome().await, ComparisonOutcome::Skipped(reason), "{state} {body}");
            }
        }
    }
    let origin = Origin::always_answers(OK).await;
    let limits = Limits { body_engine_bytes_max: 64, ..Limits::default() };
    let rig = Rig::new(&origin, Setup { state: State::Only, edit_route: by_body, limits, ..Setup::default() }).await;
    assert_eq!(rig.ask(&post_as(json, &large)).await.status(), 413);
    assert!(origin.requests().is_empty());
}

/// A body that ends early reaches no arm, and one that takes too long is cut.
#[tokio::test]
async fn legacy_gets_a_request_at_once_where_nothing_depends_on_its_instance() {
    for (state, engine_owns, is_streamed) in [
        (State::Off, false, true),
        (State::Off, true, false),
        (State::Shadow, false, false),
        (State::Dark, false, false),
    ] {
        let began = Arc::new(Notify::new());
        let tell = began.clone();
        let origin = Origin::script(move |mut wire, seen| {
            let tell = tell.clone();
            async move {
                let head = wire.head().await.expect("a head");
                tell.notify_one();
                if let Some(message) = wire.body_of(head).await {
                    seen.lock().unwrap().push(message);
                    wire.send(OK).await;
                    wire.rest().await;
                }
            }
        })
        .await;
        let rig = Rig::new(&origin, Setup { state, edit_route: by_body, ..Setup::default() }).await;
        rig.fakes.engine_owns.store(engine_owns, SeqCst);
        let request = post("/orders", "{\"order\":{\"id\":\"17\"}}");
        let (first, rest) = request.split_at(request.len() - 5);
        let mut client = rig.connect().await;
        client.send(first).await;
        if is_streamed {
            super::wire::bounded("the head at legacy", began.notified()).await;
        } else {
            let early = tokio::time::timeout(std::time::Duration::from_millis(100), began.notified()).await;
            assert!(early.is_err(), "{state}: legacy has it before it is decided");
        }
        client.send(rest).await;
        assert_eq!(client.reply().await.status(), 200, "{state}");
        assert_eq!(origin.requests().pop().unwrap().text(), "{\"order\":{\"id\":\"17\"}}");
    }
}

#[tokio::test]
async fn a_body_that_ends_early_reaches_neither_arm() {
    let origin = Origin::always_answers(OK).await;
    let rig = Rig::new(&origin, Setup { state: State::Dark, edit_route: by_body, ..Setup::default() }).await;
    let request = post("/orders", "{\"order\":{\"id\":\"17\"}}");
    let mut client = rig.connect().await;
    client.send(&request[..request.len() - 5]).await;
    client.fin().await;
    client.rest().await;
    assert!(origin.requests().is_empty() && rig.fakes.asked.lock().unwrap().is_empty());
}

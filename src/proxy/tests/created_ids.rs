//! Which id in a reply of legacy is the created instance's id.

use super::rig::{OK, Origin, Rig, Setup, post};
use crate::clock;
use crate::expression::CreatedIdSource;
use crate::flag::{Arm, Instance, Route, State};
use crate::limits::Limits;

/// The same holds for the engine: its instance is pinned under the first of several ids.
#[tokio::test]
async fn of_several_ids_in_a_reply_of_legacy_the_first_counts() {
    let reply = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 27\r\n\r\n\
                 [{\"id\":\"a-1\"},{\"id\":\"a-2\"}]";
    let origin = Origin::always_answers(reply).await;
    let edit_route = |route: &mut Route| {
        route.instance = Some(Instance::Creates { id: serde_json_path::JsonPath::parse("$[*].id").unwrap().into() });
    };
    let rig = Rig::new(&origin, Setup { edit_route, state: State::Shadow, ..Setup::default() }).await;
    assert_eq!(rig.ask(&post("/orders", "{}")).await.status(), 200);
    let created = rig.fakes.until("the id", |fakes| fakes.created.lock().unwrap().pop()).await;
    assert_eq!(&*created.key.id, "a-1");
}

#[tokio::test]
async fn a_redirect_of_legacy_creates_an_instance_and_an_error_does_not() {
    for (status, creates) in [("303 See Other", true), ("400 Bad Request", false)] {
        let reply = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n{{\"id\":\"r-1\"}}"
        );
        let origin = Origin::script(move |mut wire, _| {
            let reply = reply.clone();
            async move {
                wire.message(true).await;
                wire.send(&reply).await;
            }
        })
        .await;
        let rig = Rig::new(&origin, Setup { state: State::Shadow, ..Setup::default() }).await;
        rig.ask(&post("/orders", "{}")).await;
        // The reply is offered for comparison after it was searched for the id.
        rig.fakes.outcome().await;
        let created: Vec<_> = rig.fakes.created.lock().unwrap().iter().map(|of| of.key.id.to_string()).collect();
        assert_eq!(created, if creates { vec!["r-1"] } else { vec![] }, "{status}");
    }
}

/// A reply without a body, and one whose body is too large to be captured.
#[tokio::test]
async fn an_id_in_a_header_of_legacys_reply_counts_whatever_its_body_is() {
    let large = "x".repeat(64 << 10);
    for (status, location, body, expected) in [
        ("201 Created", "/orders/h-1?a", "", Some("h-1")),
        ("201 Created", "http://shop.example/orders/h%201", "{\"id\":\"b-1\"}", Some("h 1")),
        ("201 Created", "/orders/h-1", large.as_str(), Some("h-1")),
        ("303 See Other", "/orders/h-1", "", Some("h-1")),
        ("303 See Other", "/login", "{\"id\":\"b-1\"}", None),
        ("400 Bad Request", "/orders/h-1", "", None),
    ] {
        let length = body.len();
        let reply = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nLocation: {location}\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        let origin = Origin::script(move |mut wire, _| {
            let reply = reply.clone();
            async move {
                wire.message(true).await;
                wire.send(&reply).await;
            }
        })
        .await;
        let edit_route = |route: &mut Route| {
            let id = CreatedIdSource::from_text("header.location: /orders/{id}").unwrap();
            route.instance = Some(Instance::Creates { id });
        };
        let limits = Limits { body_capture_bytes_max: 16 << 10, ..Limits::default() };
        let setup = Setup { edit_route, limits, state: State::Shadow, ..Setup::default() };
        let rig = Rig::new(&origin, setup).await;
        rig.ask(&post("/orders", "{}")).await;
        // The ticket is settled after the reply was searched for the id.
        rig.fakes.outcome().await;
        let created: Vec<_> = rig.fakes.created.lock().unwrap().iter().map(|of| of.key.id.to_string()).collect();
        assert_eq!(created, expected.map(str::to_owned).into_iter().collect::<Vec<_>>(), "{status} {location}");
    }
}

/// Legacy's reply to a retry has the id of the instance that it created before, which may be adopted by now.
#[tokio::test]
async fn an_id_of_legacy_is_reported_with_the_time_of_its_reply_and_whether_that_is_to_a_retry() {
    let keyed = "POST /orders HTTP/1.1\r\nHost: a\r\nIdempotency-Key: k-1\r\nContent-Length: 2\r\n\r\n{}";
    let origin = Origin::always_answers(OK).await;
    for (state, is_retry) in [(State::Shadow, false), (State::Live, true)] {
        let rig = Rig::new(&origin, Setup { state, ..Setup::default() }).await;
        *rig.fakes.first_try.lock().unwrap() = is_retry.then_some(Ok(Some(Arm::Legacy)));
        let before = clock::now();
        assert_eq!(rig.ask(keyed).await.status(), 200);
        let after = clock::now();
        let created = rig.fakes.until("the id", |fakes| fakes.created.lock().unwrap().pop()).await;
        assert_eq!(created.is_retry, is_retry, "{state}");
        assert!(before <= created.replied_at && created.replied_at <= after, "{created:?}");
    }
}

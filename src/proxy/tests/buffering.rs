//! Request bodies that are read whole before legacy gets the request, and time-outs of services and routes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::rig::{OK, Origin, Rig, Setup, get};
use super::wire::bounded;
use crate::exchange::ComparisonOutcome;
use crate::flag::{RelaySettings, Route, SkipReason, State, TotalTimeout};
use crate::limits::Limits;

fn buffering(route: &mut Route) {
    route.relay = RelaySettings { buffer_request: Some(1 << 10), ..RelaySettings::default() };
}

/// A head that asks for `100 Continue`, which shows that the body is read from then on.
fn head(fields: &str) -> String {
    format!("POST /orders HTTP/1.1\r\nHost: shop.test\r\nExpect: 100-continue\r\n{fields}\r\n\r\n")
}

const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";

/// An origin that notifies when it has read a head, and answers when the whole message is there.
async fn origin_that_notifies() -> (Origin, Arc<Notify>) {
    let began = Arc::new(Notify::new());
    let tell = began.clone();
    let script = move |mut wire: super::wire::Wire, seen: Arc<std::sync::Mutex<Vec<super::wire::Message>>>| {
        let began = tell.clone();
        async move {
            let head = wire.head().await.expect("a head");
            began.notify_one();
            if let Some(message) = wire.body_of(head).await {
                seen.lock().unwrap().push(message);
                wire.send(OK).await;
                wire.rest().await;
            }
        }
    };
    (Origin::script(script).await, began)
}

#[tokio::test]
async fn a_slow_upload_takes_no_turn_and_no_connection_of_legacy() {
    let origin = Origin::always_answers(OK).await;
    let setup = Setup { requests_max: Some(1), edit_route: buffering, ..Setup::default() };
    let rig = Rig::new(&origin, setup).await;
    let mut slow = rig.connect().await;
    slow.send(head("Content-Length: 10")).await;
    assert_eq!(slow.until("\r\n\r\n").await.as_deref(), Some(CONTINUE));
    slow.send("01234").await;
    assert_eq!(rig.ask(&get("/plain")).await.status(), 200, "the turn is free");
    slow.send("56789").await;
    assert_eq!(slow.reply().await.status(), 200);
    let seen = origin.requests();
    assert_eq!(seen.iter().map(|request| request.text()).collect::<Vec<_>>(), ["", "0123456789"]);
    assert_eq!(seen[1].field("expect"), None);
    // The same with a chunked body that has trailers.
    slow.send(head("Transfer-Encoding: chunked\r\nTrailer: x-sum")).await;
    assert_eq!(slow.until("\r\n\r\n").await.as_deref(), Some(CONTINUE));
    slow.send("3\r\nabc\r\n").await;
    assert_eq!(rig.ask(&get("/plain")).await.status(), 200);
    slow.send("3\r\ndef\r\n0\r\nx-sum: 6\r\n\r\n").await;
    assert_eq!(slow.reply().await.status(), 200);
    let last = origin.requests().pop().unwrap();
    assert_eq!((last.text().as_str(), last.trailers.trim()), ("abcdef", "x-sum: 6"));
}

#[tokio::test]
async fn a_body_that_is_not_buffered_is_streamed() {
    let long = "x".repeat(1_500);
    let small_room = Limits { request_buffers_bytes_max: 3, ..Limits::default() };
    let cases = [
        (
            "a body of a larger declared size",
            "Content-Length: 3000".to_owned(),
            Limits::default(),
            long.as_str(),
            long.as_str(),
        ),
        ("a body that gets larger", "Transfer-Encoding: chunked".to_owned(), Limits::default(), "5dc\r\n", ""),
        ("no room", "Content-Length: 10".to_owned(), small_room, "01234", "56789"),
        (
            "gRPC",
            "Content-Type: application/grpc\r\nContent-Length: 10".to_owned(),
            Limits::default(),
            "01234",
            "56789",
        ),
    ];
    for (name, fields, limits, first, rest) in cases {
        let (origin, began) = origin_that_notifies().await;
        let rig = Rig::new(&origin, Setup { limits, edit_route: buffering, ..Setup::default() }).await;
        let mut client = rig.connect().await;
        client.send(head(&fields)).await;
        assert_eq!(client.until("\r\n\r\n").await.as_deref(), Some(CONTINUE), "{name}");
        client.send(first).await;
        if rest.is_empty() {
            client.send(&long).await;
        }
        bounded(name, began.notified()).await;
        if rest.is_empty() {
            client.send("\r\n0\r\n\r\n").await;
        }
        client.send(rest).await;
        assert_eq!(client.reply().await.status(), 200, "{name}");
        let expected = if rest.is_empty() { long.clone() } else { format!("{first}{rest}") };
        assert_eq!(origin.only_request().text(), expected, "{name}");
    }
}

#[tokio::test]
async fn a_client_that_stops_before_its_body_is_complete_costs_legacy_nothing() {
    let origin = Origin::always_answers(OK).await;
    let edit_route = |route: &mut Route| {
        buffering(route);
        route.relay.idle = Some(Duration::from_millis(60));
    };
    let rig = Rig::new(&origin, Setup { state: State::Shadow, edit_route, ..Setup::default() }).await;
    let mut client = rig.connect().await;
    client.send(head("Content-Length: 10")).await;
    client.send("01234").await;
    assert_eq!(client.until("\r\n\r\n").await.as_deref(), Some(CONTINUE));
    let reply = client.reply().await;
    assert_eq!(reply.status(), 408);
    assert!(reply.text().contains("body-timeout"), "{}", reply.text());
    assert_eq!(rig.fakes.outcome().await, ComparisonOutcome::Skipped(SkipReason::ClientWentAway));
    assert_eq!(*origin.connections.lock().unwrap(), 0);
}

#[tokio::test]
async fn the_time_outs_of_a_route_take_precedence() {
    let silent = || async {
        Origin::script(|mut wire, _| async move {
            wire.head().await;
            wire.rest().await;
        })
        .await
    };
    let quick = Duration::from_millis(60);
    let first_byte: fn(&mut Route) = |route| route.relay.first_byte = Some(Duration::from_millis(60));
    let total: fn(&mut Route) = |route| route.relay.total = Some(TotalTimeout::After(Duration::from_millis(60)));
    for (edit_route, kind) in [(first_byte, "legacy-timeout"), (total, "timeout")] {
        let rig = Rig::new(&silent().await, Setup { edit_route, ..Setup::default() }).await;
        let began = std::time::Instant::now();
        let reply = rig.ask(&get("/plain")).await;
        assert_eq!(reply.status(), 504);
        assert!(reply.text().contains(&format!("/{kind}\"")) || reply.text().contains(kind), "{}", reply.text());
        assert!(began.elapsed() >= quick && began.elapsed() < Duration::from_secs(5));
    }
    // A pause within the reply, and a total time that is set in the limits but switched off for the route.
    let half = || async {
        Origin::script(|mut wire, _| async move {
            wire.head().await;
            wire.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234").await;
            wire.rest().await;
        })
        .await
    };
    let idle: fn(&mut Route) = |route| {
        route.relay.idle = Some(Duration::from_millis(60));
        route.relay.total = Some(TotalTimeout::Off);
    };
    let limits = Limits { total_ms: 1, ..Limits::default() };
    let rig = Rig::new(&half().await, Setup { edit_route: idle, limits, ..Setup::default() }).await;
    let mut client = rig.connect().await;
    client.send(get("/plain")).await;
    assert!(client.head().await.is_some_and(|head| head.contains("200 OK")));
    assert_eq!(client.rest().await, b"01234");
}

//! Parked connections: everything that holds for an idle connection also holds for a parked one.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::time::sleep;

use super::drains::origin_that_waits;
use super::proxied_connections::{HEADER, expecting};
use super::rig::{OK, Origin, Rig, Setup, get, post};
use super::tls_clients::{SHOP, SUBJECT, client, connect, rig_with, server, setup as tls_setup};
use super::wire::{Wire, bounded};
use crate::limits::Limits;
use crate::listener::test_certificates::{Authority, Subject};
use crate::listener::{ForwardedFields, Forwarding, ProxyVersion};

const PARK_MS: u64 = 20;

fn limits() -> Limits {
    Limits { client_park_ms: PARK_MS, ..Limits::default() }
}

async fn rig_with_limits(origin: &Origin, limits: Limits) -> Rig {
    Rig::new(origin, Setup { limits, ..Setup::default() }).await
}

/// Waits until `count` connections are parked.
pub(super) async fn parked(rig: &Rig, count: usize) {
    bounded("connections are parked", async {
        while rig.proxy.shared.parking.count() != count {
            sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// How many connections may still be opened.
fn room(rig: &Rig) -> usize {
    rig.proxy.shared.connection_permits.available_permits()
}

#[tokio::test]
async fn a_parked_connection_is_served_as_before() {
    let origin = Origin::always_answers(OK).await;
    let rig = rig_with_limits(&origin, limits()).await;
    let mut wire = rig.connect().await;
    for round in 0..3 {
        assert_eq!(wire.ask(&get("/")).await.status(), 200);
        assert_eq!(wire.ask(&post("/any", "{}")).await.status(), 200);
        parked(&rig, 1).await;
        assert_eq!(room(&rig), 9_999, "it is still open");
        // New settings for new connections do not affect this connection.
        let fields = if round == 0 { ForwardedFields::Rfc7239 } else { ForwardedFields::XForwarded };
        rig.forwarding.store(Arc::new(Forwarding { fields, ..Forwarding::default() }));
    }
    let seen = origin.requests();
    assert_eq!(seen.len(), 6);
    assert!(seen.iter().all(|request| request.field("x-forwarded-for") == Some("127.0.0.1")), "{seen:?}");
}

#[tokio::test]
async fn a_connection_without_a_request_so_far_and_one_with_a_request_are_not_parked() {
    let (origin, may_answer, mut asked) = origin_that_waits().await;
    let rig = rig_with_limits(&origin, limits()).await;
    let (_fresh, mut busy) = (rig.connect().await, rig.connect().await);
    busy.send(get("/busy")).await;
    bounded("legacy works", asked.wait_for(|n| *n == 1)).await.unwrap();
    sleep(Duration::from_millis(5 * PARK_MS)).await;
    assert_eq!(rig.proxy.shared.parking.count(), 0);
    may_answer.send_replace(true);
    assert_eq!(busy.reply().await.status(), 200);
    parked(&rig, 1).await;
}

#[tokio::test]
async fn a_client_that_goes_gives_its_place_back() {
    let origin = Origin::always_answers(OK).await;
    let rig = rig_with_limits(&origin, limits()).await;
    let mut wires = Vec::new();
    for _ in 0..3 {
        let mut wire = rig.connect().await;
        assert_eq!(wire.ask(&get("/")).await.status(), 200);
        wires.push(wire);
    }
    parked(&rig, 3).await;
    let [mut fin, reset, mut asks_and_goes] = <[Wire; 3]>::try_from(wires).unwrap_or_else(|_| unreachable!("three"));
    fin.fin().await;
    fin.ends().await;
    reset.stream.set_zero_linger().unwrap();
    drop(reset);
    asks_and_goes.send(get("/last")).await;
    asks_and_goes.fin().await;
    assert_eq!(asks_and_goes.reply().await.status(), 200);
    asks_and_goes.ends().await;
    bounded("all are closed", async {
        while room(&rig) != 10_000 {
            sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
    assert_eq!(rig.proxy.shared.parking.count(), 0);
}

#[tokio::test]
async fn the_limit_of_idle_connections_ends_parked_ones() {
    let origin = Origin::always_answers(OK).await;
    let rig = rig_with_limits(&origin, Limits { client_idle_ms: 400, ..limits() }).await;
    let mut wire = rig.connect().await;
    assert_eq!(wire.ask(&get("/")).await.status(), 200);
    parked(&rig, 1).await;
    wire.ends().await;
    assert_eq!(rig.proxy.shared.parking.count(), 0);
}

#[tokio::test]
async fn a_new_connection_takes_the_place_of_the_one_that_was_parked_longest() {
    let origin = Origin::always_answers(OK).await;
    let rig = rig_with_limits(&origin, Limits { client_connections_max: 3, ..limits() }).await;
    let mut wires = Vec::new();
    for count in 1..=3 {
        let mut wire = rig.connect().await;
        assert_eq!(wire.ask(&get("/")).await.status(), 200);
        parked(&rig, count).await;
        wires.push(wire);
    }
    // Now the second connection has been idle longest.
    assert_eq!(wires[0].ask(&get("/")).await.status(), 200);
    assert_eq!(rig.ask(&get("/new")).await.status(), 200);
    wires[1].ends().await;
    for open in [0, 2] {
        assert_eq!(wires[open].ask(&get("/")).await.status(), 200);
    }
}

#[tokio::test]
async fn a_drain_closes_parked_connections_at_once() {
    let origin = Origin::always_answers(OK).await;
    let rig = rig_with_limits(&origin, limits()).await;
    let mut wire = rig.connect().await;
    assert_eq!(wire.ask(&get("/")).await.status(), 200);
    parked(&rig, 1).await;
    rig.shutdown.cancel();
    wire.ends().await;
    let drained = bounded("the drain", rig.serving).await.unwrap();
    assert!(drained.cut == 0 && drained.took < Duration::from_secs(5));
}

#[tokio::test]
async fn the_rest_of_a_head_completes_it() {
    let origin = Origin::always_answers(OK).await;
    let rig = rig_with_limits(&origin, Limits { head_read_ms: 600, ..limits() }).await;
    let next = get("/next");
    let (begin, end) = next.split_at(20);
    // Part of the next head comes with a request with a body, with one without a body, and by itself.
    for first in [get("/"), post("/any", "{}")] {
        let mut wire = rig.connect().await;
        wire.send(format!("{first}{begin}")).await;
        assert_eq!(wire.reply().await.status(), 200);
        sleep(Duration::from_millis(5 * PARK_MS)).await;
        wire.send(end).await;
        assert_eq!(wire.reply().await.status(), 200);
        parked(&rig, 1).await;
        wire.send(begin).await;
        sleep(Duration::from_millis(5 * PARK_MS)).await;
        assert_eq!(rig.proxy.shared.parking.count(), 0, "it is not idle");
        wire.send(end).await;
        assert_eq!(wire.reply().await.status(), 200);
        parked(&rig, 1).await;
        // The rest of a head is not waited for as long as an idle client's next request.
        wire.send(begin).await;
        wire.ends().await;
        assert_eq!(rig.proxy.shared.parking.count(), 0);
    }
    assert_eq!(origin.requests().iter().filter(|request| request.line().starts_with("GET /next ")).count(), 4);
}

#[tokio::test]
async fn a_connection_that_legacy_has_authenticated_is_not_parked() {
    let origin = Origin::always_answers(OK).await;
    let rig = rig_with_limits(&origin, limits()).await;
    let mut wire = rig.connect().await;
    let request = "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: NTLM hello\r\n\r\n";
    assert_eq!(wire.ask(request).await.status(), 200);
    sleep(Duration::from_millis(5 * PARK_MS)).await;
    assert_eq!(rig.proxy.shared.parking.count(), 0);
    assert_eq!(wire.ask(&get("/")).await.status(), 200);
    assert_eq!(*origin.connections.lock().unwrap(), 1, "it is the same connection to legacy");
    // Another client gets a connection of its own to legacy.
    assert_eq!(rig.ask(&get("/")).await.status(), 200);
    assert_eq!(*origin.connections.lock().unwrap(), 2);
}

#[tokio::test]
async fn a_tls_session_survives_parking() {
    let origin = Origin::always_answers(OK).await;
    let (rig, trusting) = rig_with(&origin, |setup| setup.limits = limits()).await;
    let mut wire = connect(&rig, &trusting, SHOP).await;
    for _ in 0..3 {
        assert_eq!(wire.ask(&get("/")).await.status(), 200);
        parked(&rig, 1).await;
    }
    assert_eq!(wire.ask(&get("/")).await.status(), 200);
    let seen = origin.requests();
    assert!(seen.iter().all(|request| request.field("x-forwarded-proto") == Some("https")), "{seen:?}");
    parked(&rig, 1).await;
    rig.shutdown.cancel();
    // Without `close_notify`, reading would return an error.
    let end = bounded("the end", wire.stream.read(&mut [0_u8; 1])).await;
    assert_eq!(end.map_err(|error| error.kind()), Ok(0));
    bounded("the drain", rig.serving).await.unwrap();
}

#[tokio::test]
async fn nothing_is_parked_if_the_limit_is_0() {
    let origin = Origin::always_answers(OK).await;
    let rig = rig_with_limits(&origin, Limits { client_park_ms: 0, ..Limits::default() }).await;
    let mut wire = rig.connect().await;
    assert_eq!(wire.ask(&get("/")).await.status(), 200);
    sleep(Duration::from_millis(100)).await;
    assert_eq!(rig.proxy.shared.parking.count(), 0);
    assert_eq!(wire.ask(&get("/")).await.status(), 200);
}

#[tokio::test]
async fn parked_connections_count_for_their_client_s_address() {
    let origin = Origin::always_answers(OK).await;
    let rig = rig_with_limits(&origin, Limits { client_connections_per_address_max: 2, ..limits() }).await;
    let (mut first, mut second) = (rig.connect().await, rig.connect().await);
    for wire in [&mut first, &mut second] {
        assert_eq!(wire.ask(&get("/")).await.status(), 200);
    }
    parked(&rig, 2).await;
    rig.connect().await.ends().await;
    assert_eq!(second.ask(&get("/")).await.status(), 200, "the others stay");
    drop(first);
    parked(&rig, 1).await;
    let mut third = rig.connect().await;
    assert_eq!(third.ask(&get("/")).await.status(), 200, "its place is free");
    rig.connect().await.ends().await;
}

#[tokio::test]
async fn a_minimum_rate_holds_after_parking_too_and_does_not_count_the_time_before() {
    let origin = Origin::always_answers(OK).await;
    let window = Duration::from_millis(100);
    let slow = Limits { client_send_bytes_per_s_min: 10_000, rate_window_ms: 100, ..limits() };
    let rig = rig_with_limits(&origin, slow).await;
    let mut wire = rig.connect().await;
    for _ in 0..2 {
        assert_eq!(wire.ask(&post("/any", "{}")).await.status(), 200);
        parked(&rig, 1).await;
        // Far longer than the window over which the rates are measured.
        sleep(3 * window).await;
    }
    wire.send("POST /any HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n").await;
    let reply = wire.reply().await;
    assert_eq!(reply.status(), 408);
    assert!(reply.text().contains("problem:body-too-slow"), "{}", reply.text());
}

#[tokio::test]
async fn a_client_certificate_and_the_source_of_a_proxy_header_survive_parking() {
    let origin = Origin::always_answers(OK).await;
    let (authority, subject) = (Authority::new("Clients"), "CN=alice");
    let own =
        Subject { names: &["alice.test"], common_name: Some("alice"), organization: None, uri: None, years: None };
    let (own, certificate) = (authority.issue(&own), authority.issue_for(SHOP));
    let mut setup = tls_setup(server(&[&certificate], Some((&authority, true)), false));
    setup.limits = limits();
    let rig = Rig::new(&origin, setup).await;
    let mut wire = connect(&rig, &Arc::new(client(&authority, Some(&own))), SHOP).await;
    for _ in 0..3 {
        // The fields that the client itself sends are removed.
        let forged = format!("GET / HTTP/1.1\r\nHost: a\r\n{SUBJECT}: CN=mallory\r\n\r\n");
        assert_eq!(wire.ask(&forged).await.status(), 200);
        parked(&rig, 1).await;
    }
    let subjects = origin.requests().into_iter().map(|request| request.field(SUBJECT.as_str()).map(str::to_owned));
    assert_eq!(subjects.collect::<Vec<_>>(), vec![Some(subject.to_owned()); 3]);

    let setup = Setup { limits: limits(), ..expecting(ProxyVersion::V1, &[]) };
    let origin = Origin::always_answers(OK).await;
    let rig = Rig::new(&origin, setup).await;
    let mut wire = rig.connect().await;
    wire.send(HEADER).await;
    for _ in 0..3 {
        assert_eq!(wire.ask(&get("/")).await.status(), 200);
        parked(&rig, 1).await;
    }
    let sources = origin.requests().into_iter().map(|request| request.field("x-forwarded-for").map(str::to_owned));
    assert_eq!(sources.collect::<Vec<_>>(), vec![Some("192.0.2.7".to_owned()); 3]);
}

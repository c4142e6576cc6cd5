//! Limits on the connections of one client address, and on the requests of the process and of a route.

use std::net::SocketAddr;

use tokio::net::TcpSocket;

use super::drains::origin_that_waits;
use super::http2_client::Http2Client;
use super::rig::{OK, Origin, Rig, Setup, engine_says, get};
use super::wire::{Wire, bounded};
use crate::flag::{Route, State};
use crate::limits::Limits;
use crate::listener::{ForwardedTrust, Forwarding, Listener, Network, ProxyProtocol, ProxyVersion};

fn per_address(connections: u64) -> Setup {
    let limits = Limits { client_connections_per_address_max: connections, ..Limits::default() };
    Setup { limits, ..Setup::default() }
}

/// A connection from another address of this machine.
async fn connect_from(rig: &Rig, source: &str) -> Wire {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(source.parse().unwrap(), 0)).unwrap();
    Wire::new(bounded("connecting", socket.connect(rig.address)).await.unwrap())
}

#[tokio::test]
async fn an_address_gets_no_more_connections_than_it_may_have() {
    let origin = Origin::always_answers(OK).await;
    let rig = Rig::new(&origin, per_address(2)).await;
    let (mut first, mut second) = (rig.connect().await, rig.connect().await);
    for wire in [&mut first, &mut second] {
        assert_eq!(wire.ask(&get("/")).await.status(), 200);
    }
    rig.connect().await.ends().await;
    assert_eq!(connect_from(&rig, "127.0.0.2").await.ask(&get("/")).await.status(), 200, "another address");
    assert_eq!(first.ask(&get("/")).await.status(), 200, "open connections are not affected");
    // The connection counts until its client has received the end of it.
    first.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    first.rest().await;
    bounded("the connection counts no more", async {
        loop {
            let mut next = rig.connect().await;
            next.send(get("/")).await;
            if next.head().await.is_some() {
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn behind_the_proxy_protocol_the_announced_address_counts() {
    let origin = Origin::always_answers(OK).await;
    let proxy_protocol = Some(ProxyProtocol { version: ProxyVersion::V1, trust: Vec::new() });
    let listener = Listener { proxy_protocol, ..Listener::plain("127.0.0.1:0".parse().unwrap()) };
    let rig = Rig::new(&origin, Setup { listeners: vec![listener], ..per_address(1) }).await;
    let mut open = Vec::new();
    for client in ["192.0.2.7", "192.0.2.8"] {
        let mut wire = rig.connect().await;
        wire.send(format!("PROXY TCP4 {client} 192.0.2.1 1 443\r\n")).await;
        assert_eq!(wire.ask(&get("/")).await.status(), 200, "{client}");
        open.push(wire);
    }
    let mut wire = rig.connect().await;
    wire.send("PROXY TCP4 192.0.2.7 192.0.2.1 2 443\r\n").await;
    wire.ends().await;
}

#[tokio::test]
async fn a_trusted_proxy_in_front_may_have_any_number() {
    let origin = Origin::always_answers(OK).await;
    let trust = ForwardedTrust::Networks(vec![Network::parse("127.0.0.1").unwrap()]);
    let forwarding = Forwarding { trust, ..Forwarding::default() };
    let rig = Rig::new(&origin, Setup { forwarding, ..per_address(1) }).await;
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut wire = rig.connect().await;
        assert_eq!(wire.ask(&get("/")).await.status(), 200);
        open.push(wire);
    }
}

#[tokio::test]
async fn requests_beyond_those_of_the_process_get_503_and_the_others_go_on() {
    let (origin, may_answer, mut asked) = origin_that_waits().await;
    let limits = Limits { requests_in_flight_max: 2, ..Limits::default() };
    let rig = Rig::new(&origin, Setup { limits, ..Setup::default() }).await;
    let (mut first, mut second) = (rig.connect().await, Http2Client::new(&rig).await);
    first.send(get("/first")).await;
    let (pending, _) = second.begin_get("/second").await;
    bounded("legacy works", asked.wait_for(|n| *n == 2)).await.unwrap();
    let mut third = rig.connect().await;
    for _ in 0..2 {
        let refused = third.ask(&get("/third")).await;
        assert_eq!((refused.status(), refused.field("retry-after")), (503, Some("1")));
        assert!(refused.text().contains("problem:overloaded") && refused.text().contains("Nothing was begun"));
    }
    assert_eq!(second.get("/fourth").await.status, 503, "a stream is a request");
    may_answer.send_replace(true);
    assert_eq!((first.reply().await.status(), pending.reply().await.status), (200, 200));
    for _ in 0..3 {
        assert_eq!(third.ask(&get("/third")).await.status(), 200, "ended requests count no more");
        assert_eq!(second.get("/fourth").await.status, 200);
    }
}

fn one_at_a_time(route: &mut Route) {
    route.requests_max = (route.matches.path == "/plain").then_some(1);
}

#[tokio::test]
async fn requests_beyond_those_of_a_route_wait_and_then_get_503() {
    let (origin, may_answer, mut asked) = origin_that_waits().await;
    let limits = Limits { legacy_turn_ms: 60, ..Limits::default() };
    let rig = Rig::new(&origin, Setup { limits, edit_route: one_at_a_time, ..Setup::default() }).await;
    let mut first = rig.connect().await;
    first.send(get("/plain")).await;
    bounded("legacy works", asked.wait_for(|n| *n == 1)).await.unwrap();
    let refused = rig.ask(&get("/plain")).await;
    assert_eq!((refused.status(), refused.field("retry-after")), (503, Some("1")));
    assert!(refused.text().contains("problem:route-busy") && refused.text().contains("Nothing was begun"));
    let mut other = rig.connect().await;
    other.send(get("/other")).await;
    bounded("another route's request", asked.wait_for(|n| *n == 2)).await.unwrap();
    may_answer.send_replace(true);
    assert_eq!((first.reply().await.status(), other.reply().await.status()), (200, 200));
    for _ in 0..3 {
        assert_eq!(first.ask(&get("/plain")).await.status(), 200, "turns come back");
    }
}

#[tokio::test]
async fn the_turns_of_a_route_hold_where_the_engine_answers_too() {
    let origin = Origin::always_answers(OK).await;
    let limits = Limits { legacy_turn_ms: 60, ..Limits::default() };
    let setup = Setup { limits, state: State::Live, edit_route: one_at_a_time, ..Setup::default() };
    let rig = Rig::new(&origin, setup).await;
    let mut first = rig.connect().await;
    first.send(get("/plain")).await;
    rig.fakes.until("the engine is asked", |fakes| (fakes.asked.lock().unwrap().len() == 1).then_some(())).await;
    assert_eq!(rig.ask(&get("/plain")).await.status(), 503);
    assert_eq!(rig.fakes.asked.lock().unwrap().len(), 1, "the engine was not asked again");
    // A client that goes away gives its turn back.
    drop(first);
    rig.fakes.answers.lock().unwrap().push_back(engine_says("{}"));
    bounded("the turn comes back", async {
        while rig.ask(&get("/plain")).await.status() != 201 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

//! The limit on open connections: a new one replaces an idle one, and never one with a request.

use std::time::Duration;

use tokio::time::timeout;

use super::drains::origin_that_waits;
use super::rig::{OK, Origin, Rig, Setup, get, post};
use super::wire::{Wire, bounded};
use crate::limits::Limits;

async fn rig_with_room_for(connections: u64, origin: &Origin) -> Rig {
    let limits = Limits { client_connections_max: connections, ..Limits::default() };
    Rig::new(origin, Setup { limits, ..Setup::default() }).await
}

async fn ask(wire: &mut Wire) {
    assert_eq!(wire.ask(&get("/")).await.status(), 200);
}

#[tokio::test]
async fn a_new_connection_takes_the_place_of_the_one_that_was_idle_longest() {
    let origin = Origin::always_answers(OK).await;
    let rig = rig_with_room_for(3, &origin).await;
    let mut wires = Vec::new();
    for _ in 0..3 {
        let mut wire = rig.connect().await;
        ask(&mut wire).await;
        wires.push(wire);
    }
    // Now the second connection has been idle longest.
    ask(&mut wires[0]).await;
    let mut fourth = rig.connect().await;
    ask(&mut fourth).await;
    wires[1].ends().await;
    for open in [0, 2] {
        ask(&mut wires[open]).await;
    }
}

#[tokio::test]
async fn a_connection_with_a_request_keeps_its_place_until_the_reply_was_sent() {
    let (origin, may_answer, mut asked) = origin_that_waits().await;
    let rig = rig_with_room_for(1, &origin).await;
    let mut busy = rig.connect().await;
    busy.send(get("/busy")).await;
    bounded("legacy works", asked.wait_for(|n| *n == 1)).await.unwrap();
    let (mut second, mut third) = (rig.connect().await, rig.connect().await);
    second.send(get("/second")).await;
    third.send(get("/third")).await;
    // Long enough for several searches for an idle connection.
    assert!(timeout(Duration::from_millis(100), second.stream.readable()).await.is_err(), "it waits");
    assert_eq!(*asked.borrow(), 1, "the others wait");
    may_answer.send_replace(true);
    for wire in [&mut busy, &mut second, &mut third] {
        assert_eq!(wire.reply().await.status(), 200);
    }
}

#[tokio::test]
async fn many_new_connections_find_room_among_idle_ones() {
    let origin = Origin::always_answers(OK).await;
    let rig = rig_with_room_for(200, &origin).await;
    let mut idle = Vec::new();
    for _ in 0..1_000 {
        let mut wire = rig.connect().await;
        ask(&mut wire).await;
        idle.push(wire);
    }
    // At most 200 are open, the newest among them.
    for wire in idle.iter_mut().rev().take(150) {
        ask(wire).await;
    }
    for wire in &mut idle[..800] {
        wire.ends().await;
    }
}

/// The HTTP reader already has the beginning of the head, so none of it is left in the socket.
#[tokio::test]
async fn a_connection_with_a_part_of_the_next_head_is_not_idle() {
    let origin = Origin::always_answers(OK).await;
    let rig = rig_with_room_for(2, &origin).await;
    let mut pipelining = rig.connect().await;
    let (begin, end) = ("GET /next HTTP/1.1\r\nHo", "st: shop.test\r\n\r\n");
    pipelining.send(format!("{}{begin}", get("/"))).await;
    assert_eq!(pipelining.reply().await.status(), 200);
    let mut idle = rig.connect().await;
    ask(&mut idle).await;
    let mut third = rig.connect().await;
    ask(&mut third).await;
    idle.ends().await;
    pipelining.send(end).await;
    assert_eq!(pipelining.reply().await.status(), 200);
}

#[tokio::test]
async fn a_refused_request_whose_body_nobody_reads_does_not_keep_its_place() {
    let origin = Origin::always_answers(OK).await;
    let refusing = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let service = crate::flag::Service::at("shop", [format!("http://{refusing}").parse().unwrap()]);
    let limits = Limits { client_connections_max: 1, ..Limits::default() };
    let rig = Rig::new(&origin, Setup { limits, service: Some(service), ..Setup::default() }).await;
    let mut first = rig.connect().await;
    let refused = first.ask(&post("/any", "{}")).await;
    assert_eq!((refused.status(), refused.field("connection")), (502, Some("close")));
    let mut second = rig.connect().await;
    assert_eq!(second.ask(&get("/any")).await.status(), 502);
}

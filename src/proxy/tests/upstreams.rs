//! Connections to legacy, and replies that cannot be passed on.

use std::time::{Duration, Instant};

use super::rig::{OK, Origin, Rig, Setup, get};
use super::wire::bounded;
use crate::limits::Limits;

#[tokio::test]
async fn a_reply_with_an_unknown_transfer_coding_is_refused() {
    for coding in ["gzip", "gzip, chunked", "chunked, chunked", "xchunked", "chunked\r\nTransfer-Encoding: gzip"] {
        let reply = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: {coding}\r\n\r\n2\r\nok\r\n0\r\n\r\n");
        let origin = Origin::script(move |mut wire, _| {
            let reply = reply.clone();
            async move {
                wire.message(true).await;
                wire.send(reply).await;
            }
        })
        .await;
        let rig = Rig::new(&origin, Setup::default()).await;
        let answer = rig.ask(&get("/any")).await;
        assert_eq!((answer.status(), answer.field("x-pointsman-source")), (502, Some("proxy")), "{coding}");
    }
}

/// The first request after the connection's greatest age opens a new connection.
#[tokio::test]
async fn a_connection_to_legacy_that_was_used_for_long_enough_is_replaced() {
    let origin = Origin::always_answers(OK).await;
    let limits = Limits { service_connection_age_ms: 200, ..Limits::default() };
    let rig = Rig::new(&origin, Setup { limits, ..Setup::default() }).await;
    let opened = Instant::now();
    let mut client = rig.connect().await;
    bounded("a second connection", async {
        while *origin.connections.lock().unwrap() < 2 {
            assert_eq!(client.ask(&get("/any")).await.status(), 200);
        }
    })
    .await;
    assert!(opened.elapsed() >= Duration::from_millis(180), "not before nine tenths of its greatest age");
}

/// A connection that waits for the bytes of another protocol would otherwise never count as idle.
#[tokio::test]
async fn after_a_switch_of_protocols_with_a_transfer_coding_the_connection_is_closed_when_it_is_idle() {
    let origin = Origin::script(|mut wire, _| async move {
        wire.message(true).await;
        wire.send("HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: chat\r\nTransfer-Encoding: gzip\r\n\r\n").await;
        wire.rest().await;
    })
    .await;
    let limits = Limits { client_idle_ms: 200, ..Limits::default() };
    let rig = Rig::new(&origin, Setup { limits, ..Setup::default() }).await;
    let mut client = rig.connect().await;
    client.send("GET /chat HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n").await;
    assert_eq!(client.reply().await.status(), 502);
    client.ends().await;
}

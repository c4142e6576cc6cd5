//! HTTP/2 over TLS: negotiated by ALPN, with the same guarantees as without TLS.

use std::sync::Arc;

use h2::client::Builder;
use http::Method;

use super::http2_client::{Http2Client, request};
use super::rig::{OK, Origin, get};
use super::tls_clients::{SHOP, connect, rig_with};
use super::wire::bounded;
use crate::exchange::ComparisonOutcome;
use crate::flag::{SkipReason, State};
use crate::limits::Limits;

/// A configuration that offers these protocols.
fn offering(config: &Arc<rustls::ClientConfig>, protocols: &[&str]) -> Arc<rustls::ClientConfig> {
    let mut config = rustls::ClientConfig::clone(config);
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

#[tokio::test]
async fn the_handshake_says_which_protocol_is_spoken() {
    let origin = Origin::always_answers(OK).await;
    let (rig, config) = rig_with(&origin, |_| {}).await;
    let wire = connect(&rig, &offering(&config, &["http/1.1", "h2"]), SHOP).await;
    assert_eq!(wire.stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let mut client = Http2Client::over(wire.stream, &Builder::new()).await;
    assert_eq!(client.get("/").await.status, 200);
    assert_eq!(origin.only_request().field("x-forwarded-proto"), Some("https"));
    for protocols in [&["http/1.1"][..], &[]] {
        let mut wire = connect(&rig, &offering(&config, protocols), SHOP).await;
        assert_eq!(wire.ask(&get("/")).await.status(), 200, "{protocols:?}");
    }
}

#[tokio::test]
async fn large_bodies_pass_both_ways() {
    const LARGE: usize = 2 << 20;
    let origin = Origin::script(|mut wire, _| async move {
        while let Some(request) = wire.message(true).await {
            wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", request.body.len())).await;
            wire.send(&request.body).await;
        }
    })
    .await;
    let (rig, config) = rig_with(&origin, |_| {}).await;
    let wire = connect(&rig, &offering(&config, &["h2"]), SHOP).await;
    let body: Vec<u8> = (0..LARGE).map(|at| (at % 249) as u8).collect();
    let mut client = Http2Client::over(wire.stream, &Builder::new()).await;
    let reply = client.ask(request(Method::PUT, "/echo"), body.clone()).await;
    assert!(reply.body == body, "the same bytes");
}

/// The window allows all of the reply, and the client closes its connection before its socket has taken all of it.
#[tokio::test]
async fn a_reply_that_the_client_has_not_taken_is_not_compared() {
    const LARGE: usize = 32 << 20;
    let origin = Origin::script(|mut wire, _| async move {
        wire.message(true).await;
        wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n")).await;
        wire.send(vec![b'x'; LARGE]).await;
    })
    .await;
    let edit = |setup: &mut super::rig::Setup| {
        setup.state = State::Shadow;
        setup.limits = Limits { body_capture_bytes_max: 64 << 20, ..Limits::default() };
    };
    let (rig, config) = rig_with(&origin, edit).await;
    let wire = connect(&rig, &offering(&config, &["h2"]), SHOP).await;
    let mut builder = Builder::new();
    builder.initial_window_size(64 << 20).initial_connection_window_size(64 << 20);
    let mut client = Http2Client::over(wire.stream, &builder).await;
    let (pending, mut send) = client.begin(request(Method::POST, "/orders")).await;
    send.send_data("{}".into(), true).unwrap();
    let _response = pending.head().await.unwrap();
    // Drops the client's socket.
    client.connection.abort();
    assert!(bounded("the connection's end", client.connection).await.is_err());
    assert_eq!(rig.fakes.outcome().await, ComparisonOutcome::Skipped(SkipReason::ClientWentAway));
}

//! TLS towards clients: everything that holds for a plain connection holds for one over TLS.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use rustls::ProtocolVersion;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

use super::super::settler::Settler;
use super::super::socket::{ClientIo, Transport};
use super::super::tls_handshake::handshake;
use super::super::tls_stream::TlsStream;
use super::super::wait::ConnectionWait;

use super::drains::origin_that_waits;
use super::origin::SMALL_BUFFER_BYTES;
use super::rig::{OK, Origin, Rig, engine_says, get, post};
use super::tls_clients::{SHOP, client, connect, connect_over, rig_with, server, setup};
use super::wire::{Wire, bounded, connect_with_buffer};
use crate::exchange::{ArmReply, ComparisonOutcome};
use crate::flag::{SkipReason, State};
use crate::limits::Limits;
use crate::listener::test_certificates::Authority;

/// More bytes than the sockets between two processes hold.
const LARGE: usize = 32 << 20;

#[tokio::test]
async fn requests_over_tls_are_forwarded_and_say_so() {
    let origin = Origin::always_answers(OK).await;
    let (rig, trusting) = rig_with(&origin, |_| {}).await;
    let mut wire = connect(&rig, &trusting, SHOP).await;
    assert_eq!(wire.stream.get_ref().1.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    for _ in 0..3 {
        assert_eq!(wire.ask(&get("/")).await.text(), "{\"id\":\"o-17\"}");
    }
    let mut plain = Wire::new(TcpStream::connect(rig.addresses[1]).await.unwrap());
    plain.ask(&get("/")).await;
    let protos = origin.requests().into_iter().map(|request| request.field("x-forwarded-proto").unwrap().to_owned());
    assert_eq!(protos.collect::<Vec<_>>(), ["https", "https", "https", "http"]);
}

#[tokio::test]
async fn large_bodies_pass_both_ways() {
    let origin = Origin::script(|mut wire, _| async move {
        while let Some(request) = wire.message(true).await {
            wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", request.body.len())).await;
            wire.send(request.body).await;
        }
    })
    .await;
    let (rig, trusting) = rig_with(&origin, |_| {}).await;
    let body: Vec<u8> = (0..8_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let wire = connect(&rig, &trusting, SHOP).await;
    let (read, mut write) = tokio::io::split(wire.stream);
    let head = format!("POST /echo HTTP/1.1\r\nHost: {SHOP}\r\nContent-Length: {}\r\n\r\n", body.len());
    let sending = async {
        write.write_all(head.as_bytes()).await.unwrap();
        write.write_all(&body).await.unwrap();
        write.flush().await.unwrap();
        write
    };
    let mut wire = Wire::new(tokio::io::join(read, tokio::io::sink()));
    let (reply, _write) = bounded("an echo", async { tokio::join!(wire.reply(), sending) }).await;
    assert_eq!(reply.status(), 200);
    assert!(reply.body == body, "the bytes are the same");
}

#[tokio::test]
async fn a_reply_is_complete_when_the_socket_has_its_last_byte() {
    let origin = Origin::always_answers(OK).await;
    let (rig, trusting) = rig_with(&origin, |setup| setup.state = State::Only).await;
    let ArmReply::Answer(mut large) = engine_says("") else { unreachable!("an answer") };
    large.body = vec![b'x'; LARGE].into();
    rig.fakes.answers.lock().unwrap().extend([ArmReply::Answer(large), engine_says("{}")]);
    let counted = |rig: &Rig| rig.proxy.traffic_counts(&"orders.create".into()).0;
    let mut wire = connect(&rig, &trusting, SHOP).await;
    wire.send(post("/orders", "{}")).await;
    wire.head().await.expect("the head");
    assert_eq!(counted(&rig), 0);
    wire.exactly(LARGE).await.expect("the whole body");
    assert_eq!(wire.ask(&post("/orders", "{}")).await.status(), 201);
    assert!(counted(&rig) >= 1);
    drop(wire);
    rig.shutdown.cancel();
    bounded("the drain", rig.serving).await.unwrap();
}

/// In this state hyper holds no bytes, and the TLS session many.
#[tokio::test]
async fn a_flush_ends_when_the_socket_has_taken_what_the_session_holds() {
    let authority = Authority::new("Test");
    let server = server(&[&authority.issue_for(SHOP)], None, false);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (socket, _) = listener.accept().await.unwrap();
    let connector = TlsConnector::from(Arc::new(client(&authority, None)));
    let shaking = connector.connect(ServerName::try_from(SHOP).unwrap(), stream);
    let (session, client) = tokio::join!(handshake(&socket, server.config()), shaking);
    let transport = Transport::Tls(Box::new(TlsStream::new(socket, session.unwrap().connection, false)));
    let (wait, settler) = (Arc::new(ConnectionWait::new()), Arc::new(Settler::start()));
    let mut io = ClientIo::new(Arc::new(transport), wait, settler, bytes::Bytes::new());
    let mut written = 0;
    // Writes until neither the socket nor the session takes more.
    while let Some(taken) = io.write(&[b'x'; 10_000]).now_or_never() {
        written += taken.unwrap();
    }
    assert!(io.flush().now_or_never().is_none(), "the session holds bytes");
    let reading = async {
        let mut client = client.unwrap();
        bounded("all of it", client.read_exact(&mut vec![0; written])).await.unwrap();
    };
    let (flushed, ()) = tokio::join!(bounded("the flush", io.flush()), reading);
    flushed.unwrap();
    assert!(io.flush().now_or_never().is_some());
}

/// The whole reply is in the buffers of hyper and of the TLS session.
#[tokio::test]
async fn a_reply_that_the_client_has_not_taken_is_not_compared() {
    let (origin, all_taken) = Origin::that_knows_when_its_reply_was_taken().await;
    let (rig, trusting) = rig_with(&origin, |setup| {
        setup.send_buffer_bytes = Some(SMALL_BUFFER_BYTES);
        setup.state = State::Shadow;
    })
    .await;
    let stream = connect_with_buffer(rig.address, SMALL_BUFFER_BYTES).await;
    let mut wire = connect_over(stream, trusting, SHOP).await.expect("a handshake");
    wire.send(post("/orders", "{}")).await;
    wire.head().await.expect("the head");
    bounded("the whole reply in the proxy", all_taken.notified()).await;
    drop(wire);
    assert_eq!(rig.fakes.outcome().await, ComparisonOutcome::Skipped(SkipReason::ClientWentAway));
}

/// The socket is not read while a request is in flight, and what arrives is encrypted.
#[tokio::test]
async fn a_client_that_leaves_during_a_request_is_noticed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let authority = Authority::new("Test");
    let trusting = Arc::new(client(&authority, None));
    let mut setup = setup(server(&[&authority.issue_for(SHOP)], None, false));
    setup.limits = Limits { client_half_close_ms: 100, ..Limits::default() };
    let rig = Rig::at(listener.local_addr().unwrap(), setup).await;
    for says_goodbye in [true, false] {
        let mut wire = connect(&rig, &trusting, SHOP).await;
        wire.send(get("/slow")).await;
        let (mut legacy, _) = bounded("the request", listener.accept()).await.unwrap();
        let mut some = [0; 16];
        bounded("its bytes", legacy.read(&mut some)).await.unwrap();
        match says_goodbye {
            // `close_notify`; the socket stays open.
            true => wire.stream.get_mut().1.send_close_notify(),
            // A FIN without `close_notify`.
            false => wire.stream.get_mut().0.shutdown().await.unwrap(),
        }
        if says_goodbye {
            wire.stream.flush().await.unwrap();
        }
        let mut rest = Vec::new();
        bounded("legacy's connection to end", legacy.read_to_end(&mut rest)).await.unwrap();
        drop(wire);
    }
}

/// A client that only ended its sending side is served as long as bytes move.
#[tokio::test]
async fn a_client_that_ended_its_own_bytes_gets_its_reply() {
    let (origin, may_answer, mut asked) = origin_that_waits().await;
    let (rig, trusting) = rig_with(&origin, |_| {}).await;
    let mut wire = connect(&rig, &trusting, SHOP).await;
    wire.send(get("/")).await;
    wire.stream.get_mut().1.send_close_notify();
    wire.stream.flush().await.unwrap();
    bounded("legacy works", asked.wait_for(|n| *n == 1)).await.unwrap();
    may_answer.send_replace(true);
    assert_eq!(wire.reply().await.status(), 200);
}

#[tokio::test]
async fn a_pipelined_request_is_not_lost_by_looking_at_the_socket() {
    let (origin, may_answer, mut asked) = origin_that_waits().await;
    let (rig, trusting) = rig_with(&origin, |_| {}).await;
    let mut wire = connect(&rig, &trusting, SHOP).await;
    wire.send(get("/first")).await;
    bounded("legacy works", asked.wait_for(|n| *n == 1)).await.unwrap();
    wire.send(get("/second")).await;
    may_answer.send_replace(true);
    assert_eq!((wire.reply().await.status(), wire.reply().await.status()), (200, 200));
}

/// Less than one record arrives within the limit for a pause in a body, but no pause is as long as the limit.
#[tokio::test]
async fn bytes_that_do_not_complete_a_record_restart_the_limit_of_an_upload() {
    let origin = Origin::always_answers(OK).await;
    let limits = Limits { body_idle_ms: 300, ..Limits::default() };
    let (rig, trusting) = rig_with(&origin, |setup| setup.limits = limits).await;
    let mut wire = connect(&rig, &trusting, SHOP).await;
    wire.send(format!("POST /orders HTTP/1.1\r\nHost: {SHOP}\r\nContent-Length: 4000\r\n\r\n")).await;
    // One record of 4,000 bytes, sent in pieces over twice the limit.
    let mut record = Vec::new();
    {
        let session = wire.stream.get_mut().1;
        std::io::Write::write_all(&mut session.writer(), &[b'x'; 4_000]).unwrap();
        while session.wants_write() {
            session.write_tls(&mut record).unwrap();
        }
    }
    for piece in record.chunks(record.len() / 6 + 1) {
        tokio::time::sleep(Duration::from_millis(100)).await; // the passing of time is what is tested
        wire.stream.get_mut().0.write_all(piece).await.unwrap();
    }
    assert_eq!(wire.reply().await.status(), 200);
}

#[tokio::test]
async fn an_early_answer_arrives_although_the_client_goes_on_sending() {
    let origin = Origin::always_answers(OK).await;
    let limits = Limits { body_engine_bytes_max: 1_000, ..Limits::default() };
    let (rig, trusting) = rig_with(&origin, |setup| {
        setup.limits = limits;
        setup.state = State::Only;
    })
    .await;
    let mut wire = connect(&rig, &trusting, SHOP).await;
    wire.send(format!("POST /orders HTTP/1.1\r\nHost: {SHOP}\r\nContent-Length: 900000\r\n\r\n")).await;
    wire.send(vec![b'x'; 300_000]).await;
    assert_eq!(wire.reply().await.status(), 413);
    wire.ends().await;
}

#[tokio::test]
async fn idle_connections_make_room_and_drain() {
    let origin = Origin::always_answers(OK).await;
    let limits = Limits { client_connections_max: 1, ..Limits::default() };
    let (rig, trusting) = rig_with(&origin, |setup| setup.limits = limits).await;
    let mut first = connect(&rig, &trusting, SHOP).await;
    assert_eq!(first.ask(&get("/")).await.status(), 200);
    let mut second = connect(&rig, &trusting, SHOP).await;
    assert_eq!(second.ask(&get("/")).await.status(), 200);
    rig.shutdown.cancel();
    for wire in [&mut first, &mut second] {
        // Without `close_notify`, reading would return an error.
        let read = bounded("the end", wire.stream.read(&mut [0])).await;
        assert!(matches!(read, Ok(0)), "{read:?}");
    }
    let drained = bounded("the drain", rig.serving).await.unwrap();
    assert!(drained.cut == 0 && drained.took < Duration::from_secs(5), "{drained:?}");
}

#[tokio::test]
async fn a_tunnel_goes_through_tls() {
    let origin = Origin::script(|mut wire, _| async move {
        wire.head().await;
        wire.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n").await;
        while let Some(line) = wire.until("\n").await {
            wire.send(line).await;
        }
    })
    .await;
    let (rig, trusting) = rig_with(&origin, |_| {}).await;
    let mut wire = connect(&rig, &trusting, SHOP).await;
    wire.send(format!("GET /ws HTTP/1.1\r\nHost: {SHOP}\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")).await;
    let head = wire.head().await.expect("the head");
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    for line in ["one\n".to_owned(), format!("{}\n", "x".repeat(100_000)), "three\n".to_owned()] {
        wire.send(&line).await;
        assert_eq!(wire.until("\n").await.as_deref(), Some(line.as_str()));
    }
    wire.stream.shutdown().await.unwrap();
    wire.ends().await;
}

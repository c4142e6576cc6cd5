//! Slow, absent and misbehaving clients and origins: what the other side gets, and that nothing stays open.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::Notify;

use super::rig::{OK, Origin, Rig, Setup, engine_says, get, post};
use super::wire::bounded;
use crate::exchange::{ArmReply, Served};
use crate::flag::State;
use crate::limits::Limits;

fn setup(limits: Limits) -> Setup {
    Setup { limits, ..Setup::default() }
}

/// An origin that reads a request and never answers; notifies when it got the request and when its connection ended.
async fn silent_origin() -> (Origin, Arc<Notify>, Arc<Notify>) {
    let (asked, ended) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell_asked, tell_ended) = (asked.clone(), ended.clone());
    let origin = Origin::script(move |mut wire, _| {
        let (asked, ended) = (tell_asked.clone(), tell_ended.clone());
        async move {
            wire.head().await;
            asked.notify_one();
            wire.rest().await;
            ended.notify_one();
        }
    })
    .await;
    (origin, asked, ended)
}

#[tokio::test]
async fn a_silent_legacy_times_out_and_the_client_connection_stays_open() {
    let (origin, _, ended) = silent_origin().await;
    let rig = Rig::new(&origin, setup(Limits { first_byte_ms: 100, ..Limits::default() })).await;
    let mut client = rig.connect().await;
    for _ in 0..2 {
        let began = Instant::now();
        let reply = client.ask(&get("/slow")).await;
        let took = began.elapsed();
        assert_eq!(reply.status(), 504);
        assert_eq!(reply.field("x-pointsman-source"), Some("proxy"));
        assert_eq!(reply.field("content-type"), Some("application/problem+json"));
        assert!(reply.text().contains("could do the work twice"), "{}", reply.text());
        assert!(took >= Duration::from_millis(100) && took < Duration::from_secs(2), "{took:?}");
        bounded("legacy's connection ends", ended.notified()).await;
    }
}

#[tokio::test]
async fn an_unreachable_service_gives_a_502_that_says_that_nothing_was_sent() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let rig = Rig::at(nobody, Setup::default()).await;
    let reply = rig.ask(&get("/gone")).await;
    assert_eq!(reply.status(), 502);
    assert!(reply.text().contains("cannot do the work twice"), "{}", reply.text());
    let mut client = rig.connect().await;
    assert_eq!(client.ask(&post("/gone", "abc")).await.status(), 502, "with a body too");
}

#[tokio::test]
async fn a_reply_that_is_not_http_is_a_502() {
    let origin = Origin::always_answers("SSH-2.0-OpenSSH_9.6\r\n\r\n").await;
    let rig = Rig::new(&origin, Setup::default()).await;
    assert_eq!(rig.ask(&get("/ssh")).await.status(), 502);
}

#[tokio::test]
async fn a_truncated_reply_is_truncated_for_the_client_too() {
    for reply in [
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ] {
        let origin = Origin::script(move |mut wire, _| async move {
            wire.head().await;
            wire.send(reply).await;
        })
        .await;
        let rig = Rig::new(&origin, Setup::default()).await;
        let mut client = rig.connect().await;
        client.send(get("/cut")).await;
        assert!(client.head().await.unwrap().starts_with("HTTP/1.1 200"));
        let rest = String::from_utf8(client.rest().await).unwrap();
        assert!(rest.contains("half") && !rest.contains("0\r\n\r\n"), "never completed: {rest:?}");
    }
}

#[tokio::test]
async fn a_reply_that_stalls_is_cut() {
    let origin = Origin::script(|mut wire, _| async move {
        wire.head().await;
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf").await;
        wire.rest().await;
    })
    .await;
    let rig = Rig::new(&origin, setup(Limits { body_idle_ms: 100, ..Limits::default() })).await;
    let mut client = rig.connect().await;
    client.send(get("/stall")).await;
    client.head().await.unwrap();
    assert_eq!(client.rest().await, b"half");
}

#[tokio::test]
async fn a_reset_by_the_client_closes_legacys_connection_at_once() {
    let (origin, asked, ended) = silent_origin().await;
    let rig = Rig::new(&origin, Setup::default()).await;
    let mut client = rig.connect().await;
    client.send(get("/work")).await;
    bounded("legacy works", asked.notified()).await;
    rustix::net::sockopt::set_socket_linger(&client.stream, Some(Duration::ZERO)).unwrap();
    drop(client);
    bounded("legacy's connection ends", ended.notified()).await;
}

#[tokio::test]
async fn a_close_by_the_client_closes_legacys_connection_soon() {
    for request in [get("/work"), post("/work", "abc")] {
        let (origin, asked, ended) = silent_origin().await;
        let rig = Rig::new(&origin, setup(Limits { client_half_close_ms: 100, ..Limits::default() })).await;
        let mut client = rig.connect().await;
        client.send(request).await;
        bounded("legacy works", asked.notified()).await;
        drop(client);
        bounded("legacy's connection ends", ended.notified()).await;
    }
}

#[tokio::test]
async fn a_client_that_closes_within_its_body_leaves_no_partial_request() {
    let (origin, asked, ended) = silent_origin().await;
    let rig = Rig::new(&origin, Setup::default()).await;
    let mut client = rig.connect().await;
    client.send("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf").await;
    bounded("legacy works", asked.notified()).await;
    drop(client);
    bounded("legacy's connection ends", ended.notified()).await;
}

#[tokio::test]
async fn a_body_that_is_framed_wrongly_is_never_completed() {
    let origin = Origin::script(|mut wire, seen| async move {
        wire.head().await;
        let body = wire.rest().await;
        seen.lock().unwrap().push(super::wire::Message { body, ..Default::default() });
    })
    .await;
    let rig = Rig::new(&origin, Setup::default()).await;
    let mut client = rig.connect().await;
    client.send("POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n\r\n").await;
    let reply = client.message(true).await.expect("an answer");
    assert_eq!(reply.status(), 400);
    rig.fakes.changed.notify_waiters();
    bounded("legacy saw the end", async {
        while origin.requests().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let seen = String::from_utf8(origin.only_request().body).unwrap();
    assert!(!seen.contains("0\r\n\r\n"), "{seen:?}");
}

#[tokio::test]
async fn a_client_that_stops_sending_its_body_gets_a_408() {
    let (origin, _, ended) = silent_origin().await;
    let rig = Rig::new(&origin, setup(Limits { body_idle_ms: 100, ..Limits::default() })).await;
    let mut client = rig.connect().await;
    client.send("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf").await;
    let reply = client.message(true).await.expect("an answer");
    assert_eq!((reply.status(), reply.field("connection")), (408, Some("close")));
    bounded("legacy's connection ends", ended.notified()).await;
}

#[tokio::test]
async fn a_slow_upload_does_not_count_as_a_silent_legacy() {
    let origin = Origin::always_answers(OK).await;
    let rig = Rig::new(&origin, setup(Limits { first_byte_ms: 150, body_idle_ms: 5_000, ..Limits::default() })).await;
    let mut client = rig.connect().await;
    client.send("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n").await;
    for byte in ["b", "o", "d", "y"] {
        tokio::time::sleep(Duration::from_millis(60)).await;
        client.send(byte).await;
    }
    assert_eq!(client.reply().await.status(), 200);
}

#[tokio::test]
async fn slow_heads_and_idle_connections_are_closed_in_time() {
    let origin = Origin::always_answers(OK).await;
    let limits = Limits { head_read_ms: 100, client_idle_ms: 100, ..Limits::default() };
    let rig = Rig::new(&origin, setup(limits)).await;
    let mut mute = rig.connect().await;
    mute.ends().await;
    let mut slow = rig.connect().await;
    slow.send("GET / HTTP/1.1\r\nHo").await;
    slow.ends().await;
    let mut idle = rig.connect().await;
    assert_eq!(idle.ask(&get("/")).await.status(), 200);
    idle.ends().await;
}

#[tokio::test]
async fn a_request_has_a_total_time_limit_where_one_is_set() {
    let origin = Origin::script(|mut wire, _| async move {
        wire.head().await;
        wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        // Bytes keep moving, but the reply never ends.
        while tokio::io::AsyncWriteExt::write_all(&mut wire.stream, b"1\r\nx\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let rig = Rig::new(&origin, setup(Limits { total_ms: 200, ..Limits::default() })).await;
    let mut client = rig.connect().await;
    client.send(get("/forever")).await;
    let rest = bounded("the cut", client.rest()).await;
    assert!(!rest.ends_with(b"0\r\n\r\n"));
}

#[tokio::test]
async fn an_early_answer_reaches_a_client_that_is_still_sending() {
    let origin = Origin::script(|mut wire, _| async move {
        wire.head().await;
        wire.send("HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno").await;
    })
    .await;
    let rig = Rig::new(&origin, Setup::default()).await;
    let mut client = rig.connect().await;
    client.send("POST /big HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n").await;
    client.send(vec![b'x'; 64 << 10]).await;
    let reply = client.reply().await;
    assert!(matches!(reply.status(), 413 | 502), "{}", reply.status());
}

/// A pending answer is neither evidence for the engine nor against it.
#[tokio::test]
async fn a_pending_answer_at_the_deadline_does_not_count_as_served() {
    let origin = Origin::always_answers(OK).await;
    let rig = Rig::new(&origin, Setup { state: State::Live, ..Setup::default() }).await;
    let ArmReply::Answer(mut pending) = engine_says("{}") else { unreachable!("an answer") };
    pending.report.outlived_deadline = true;
    rig.fakes.answers.lock().unwrap().extend([ArmReply::Answer(pending), engine_says("{}")]);
    for _ in 0..2 {
        assert_eq!(rig.ask(&post("/orders", "{}")).await.status(), 201);
    }
    assert_eq!(*rig.fakes.served.lock().unwrap(), [Served::Answered], "only the final answer");
}

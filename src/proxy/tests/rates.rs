//! Minimum rates: a side that is slower is cut, but no side is cut for the pauses of another one.

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::time::sleep;

use super::http2_client::{Http2Client, request, send_all, whole};
use super::rig::{OK, Origin, Rig, Setup};
use super::wire::bounded;
use crate::limits::Limits;

/// A rate, in bytes per second, that single bytes sent now and then do not reach.
const MIN: u64 = 10_000;
const WINDOW_MS: u64 = 200;

fn setup(edit: impl FnOnce(&mut Limits)) -> Setup {
    let mut limits = Limits { rate_window_ms: WINDOW_MS, ..Limits::default() };
    edit(&mut limits);
    Setup { limits, ..Setup::default() }
}

/// The pause between single bytes, far too short for a limit on pauses to apply.
const DRIBBLE: Duration = Duration::from_millis(10);

#[tokio::test]
async fn a_client_that_sends_too_slowly_gets_408() {
    let origin = Origin::always_answers(OK).await;
    let rig = Rig::new(&origin, setup(|limits| limits.client_send_bytes_per_s_min = MIN)).await;
    let mut client = rig.connect().await;
    let began = Instant::now();
    client.send("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n").await;
    let reply = bounded("the answer", async {
        loop {
            tokio::select! {
                biased;
                readable = client.stream.readable() => break readable.unwrap(),
                () = sleep(DRIBBLE) => client.send("x").await,
            }
        }
    });
    reply.await;
    assert!(began.elapsed() >= Duration::from_millis(WINDOW_MS), "{:?}", began.elapsed());
    let reply = client.reply().await;
    assert_eq!(reply.status(), 408);
    assert!(reply.text().contains("problem:body-too-slow"), "{}", reply.text());

    let mut client = Http2Client::new(&rig).await;
    let (pending, mut send) = client.begin(request(http::Method::POST, "/up")).await;
    let dribble = async {
        loop {
            sleep(DRIBBLE).await;
            if send_all(&mut send, "x".into()).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let head = tokio::select! { head = pending.head() => head.unwrap(), () = dribble => unreachable!() };
    assert_eq!(whole(head).await.unwrap().status, 408, "a stream of HTTP/2 is measured too");
}

#[tokio::test]
async fn a_client_that_sends_fast_enough_or_waits_for_legacy_is_served() {
    // Legacy is slow to answer after the client has sent everything.
    let origin = Origin::script(|mut wire, _| async move {
        while wire.message(true).await.is_some() {
            sleep(Duration::from_millis(3 * WINDOW_MS)).await;
            wire.send(OK).await;
        }
    })
    .await;
    let rig = Rig::new(&origin, setup(|limits| limits.client_send_bytes_per_s_min = MIN)).await;
    let mut client = rig.connect().await;
    client.send("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n").await;
    // The client sends at twice the minimum rate, for several windows.
    for _ in 0..25 {
        client.send(vec![b'x'; 4_000]).await;
        sleep(Duration::from_millis(40)).await;
    }
    assert_eq!(client.reply().await.status(), 200);
}

/// Legacy sends one byte at a time, with pauses, after a head with this content type.
async fn dribbling(kind: &'static str) -> Origin {
    Origin::script(move |mut wire, _| async move {
        while wire.head().await.is_some() {
            wire.send(format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: 100\r\n\r\n")).await;
            for _ in 0..100 {
                sleep(DRIBBLE).await;
                // Sending fails once the reply is cut.
                if wire.stream.write_all(b"x").await.is_err() {
                    return;
                }
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_reply_that_comes_too_slowly_is_cut_and_a_stream_of_events_is_not() {
    for (kind, expected) in [("text/plain", false), ("text/event-stream", true), ("application/grpc", true)] {
        let origin = dribbling(kind).await;
        let rig = Rig::new(&origin, setup(|limits| limits.legacy_send_bytes_per_s_min = MIN)).await;
        let mut client = rig.connect().await;
        client.send("GET /down HTTP/1.1\r\nHost: a\r\n\r\n").await;
        client.head().await.unwrap();
        assert_eq!(client.exactly(100).await.is_some(), expected, "{kind}");
        let mut client = Http2Client::new(&rig).await;
        let head = client.begin_get("/down").await.0.head().await.unwrap();
        assert_eq!(whole(head).await.is_ok(), expected, "{kind} over HTTP/2");
    }
}

#[tokio::test]
async fn a_client_that_reads_too_slowly_is_cut() {
    let origin = Origin::script(|mut wire, _| async move {
        wire.head().await;
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n").await;
        // Sends until the proxy takes no more.
        let part = vec![b'x'; 1 << 16];
        loop {
            if wire.stream.write_all(&part).await.is_err() {
                return;
            }
        }
    })
    .await;
    // At this minimum rate, the bytes that the sockets' buffers hold account for only a moment.
    let rig = Rig::new(&origin, setup(|limits| limits.client_read_bytes_per_s_min = 1 << 30)).await;
    let mut slow = rig.connect().await;
    slow.send("GET /down HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let began = Instant::now();
    // The client reads a little now and then, so that no limit on pauses applies.
    let read = bounded("the end", async {
        let mut read = 0;
        while let Some(bytes) = slow.exactly(1_000).await {
            read += bytes.len();
            sleep(DRIBBLE).await;
            if began.elapsed() > Duration::from_secs(1) {
                // Reads what was sent before the cut.
                return read + slow.rest().await.len();
            }
        }
        read
    })
    .await;
    assert!(read < 100_000_000, "it was cut, and not served to the end: {read}");
}

/// A client of HTTP/2 that opens its window a little now and then, so that no limit on pauses applies.
#[tokio::test]
async fn a_client_of_http2_that_reads_too_slowly_is_cut_and_one_that_is_fast_is_not() {
    const BODY: usize = 2_000_000;
    let origin = Origin::script(move |mut wire, _| async move {
        while wire.message(true).await.is_some() {
            wire.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: {BODY}\r\n\r\n")).await;
            let _ = wire.stream.write_all(&vec![b'x'; BODY]).await;
        }
    })
    .await;
    let rig = Rig::new(&origin, setup(|limits| limits.client_read_bytes_per_s_min = 1_000_000)).await;
    let mut client = Http2Client::new(&rig).await;
    let head = client.begin_get("/down").await.0.head().await.unwrap();
    assert_eq!(whole(head).await.map(|reply| reply.body.len()).ok(), Some(BODY), "it is fast enough");
    let mut body = client.begin_get("/down").await.0.head().await.unwrap().into_body();
    let read = bounded("the end", async {
        let (mut read, mut held) = (0, 0);
        while let Some(Ok(data)) = body.data().await {
            (read, held) = (read + data.len(), held + data.len());
            while held > 0 {
                let part = held.min(1_000);
                body.flow_control().release_capacity(part).unwrap();
                held -= part;
                sleep(DRIBBLE).await;
            }
        }
        read
    })
    .await;
    assert!(read < BODY, "it was cut: {read}");
}

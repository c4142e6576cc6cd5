//! Hostile HTTP/2 clients that send raw frames: their connection is closed, other clients are served.

use bytes::Bytes;
use h2::Reason;
use http::Method;

use super::drains::origin_that_waits;
use super::http2_client::{Http2Client, RawHttp2, fields, frame, request};
use super::rig::{OK, Origin, Rig, Setup};
use super::wire::bounded;
use crate::limits::Limits;
use crate::proxy::http2::PERIOD_MICROS;
use crate::proxy::monotonic::now;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Sends a flood, and asserts that the connection is closed, with this code if the client gets to see one, and that
/// another client is served afterwards.
async fn assert_closed(name: &str, flood: Vec<u8>, code: Reason) {
    let origin = Origin::always_answers(OK).await;
    let limits = Limits { linger_ms: 200, ..Limits::default() };
    let rig = Rig::new(&origin, Setup { limits, ..Setup::default() }).await;
    let mut other = Http2Client::new(&rig).await;
    let mut hostile = RawHttp2::new(&rig).await;
    hostile.flood(&flood).await;
    let closed = bounded(name, hostile.goaway()).await;
    // A client that goes on sending after the connection was closed may not see the GOAWAY, because of a reset.
    assert!(closed.is_none_or(|got| got == u32::from(code)), "{name}: {closed:?}");
    assert_eq!(other.get("/").await.status, 200, "{name}");
    drop(other.requests);
    rig.shutdown.cancel();
    bounded("the drain", rig.serving).await.unwrap();
}

fn repeated(count: u32, make: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
    (0..count).flat_map(make).collect()
}

#[tokio::test]
async fn streams_that_are_begun_and_reset_close_the_connection() {
    let begin_and_reset = |index: u32| {
        let stream = 2 * index + 1;
        let mut frames = frame(HEADERS, END_STREAM | END_HEADERS, stream, &fields("GET"));
        frames.extend(frame(RESET, 0, stream, &8_u32.to_be_bytes()));
        frames
    };
    assert_closed("rapid reset", repeated(5_000, begin_and_reset), Reason::ENHANCE_YOUR_CALM).await;
}

/// Each stream is accepted, and its request sent to legacy, before the stream is reset.
#[tokio::test]
async fn streams_that_are_reset_after_they_were_accepted_close_the_connection() {
    let (origin, _may_answer, mut asked) = origin_that_waits().await;
    const RESETS_MAX: usize = 20;
    let limits = Limits { client_http2_resets_max: RESETS_MAX as u64, linger_ms: 200, ..Limits::default() };
    let rig = Rig::new(&origin, Setup { limits, ..Setup::default() }).await;
    let mut client = Http2Client::new(&rig).await;
    let mut resets = 0;
    // Where the process is older than a period, the first period of a connection is over: it may have as many again.
    while resets <= RESETS_MAX || (resets <= 2 * RESETS_MAX && now() >= PERIOD_MICROS) {
        let (_pending, mut send) = client.begin(request(Method::POST, "/")).await;
        send.send_data(Bytes::new(), true).unwrap();
        bounded("legacy is called", asked.wait_for(|count| *count > resets)).await.unwrap();
        send.send_reset(Reason::CANCEL);
        resets += 1;
    }
    let error = bounded("the connection's end", client.connection).await.unwrap().expect_err("it was closed");
    assert!(error.is_io() || error.reason() == Some(Reason::ENHANCE_YOUR_CALM), "{error}");
}

#[tokio::test]
async fn floods_of_frames_without_content_close_the_connection() {
    let settings = repeated(20_000, |_| frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]));
    assert_closed("SETTINGS", settings, Reason::ENHANCE_YOUR_CALM).await;
    let pings = repeated(20_000, |_| frame(PING, 0, 0, &[7; 8]));
    assert_closed("PING", pings, Reason::ENHANCE_YOUR_CALM).await;
    let updates = repeated(20_000, |_| frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes()));
    assert_closed("WINDOW_UPDATE", updates, Reason::ENHANCE_YOUR_CALM).await;
    let mut empty = frame(HEADERS, END_HEADERS, 1, &fields("POST"));
    empty.extend(repeated(20_000, |_| frame(DATA, 0, 1, &[])));
    assert_closed("empty DATA", empty, Reason::ENHANCE_YOUR_CALM).await;
}

#[tokio::test]
async fn a_head_without_an_end_closes_the_connection() {
    let mut endless = frame(HEADERS, END_STREAM, 1, &fields("GET"));
    endless.extend(repeated(20_000, |_| frame(CONTINUATION, 0, 1, &[])));
    assert_closed("empty CONTINUATION", endless, Reason::ENHANCE_YOUR_CALM).await;
    let mut large = frame(HEADERS, END_STREAM, 1, &fields("GET"));
    // An uncompressed field, repeated without end.
    let field: Vec<u8> = [&[0, 1, b'x', 100][..], &[b'y'; 100]].concat();
    large.extend(repeated(2_000, |_| frame(CONTINUATION, 0, 1, &field.repeat(150))));
    assert_closed("large CONTINUATION", large, Reason::ENHANCE_YOUR_CALM).await;
}

#[tokio::test]
async fn a_head_that_comes_slowly_is_cut_while_other_clients_are_served() {
    let origin = Origin::always_answers(OK).await;
    let rig =
        Rig::new(&origin, Setup { limits: Limits { head_read_ms: 150, ..Limits::default() }, ..Setup::default() });
    let rig = rig.await;
    let mut hostile = RawHttp2::new(&rig).await;
    hostile.flood(&frame(HEADERS, END_STREAM, 1, &fields("GET"))).await;
    bounded("the connection is cut", async { while hostile.next().await.is_some() {} }).await;
    let mut silent = rig.connect().await;
    silent.send("PRI * HTTP/2.0\r\n").await;
    bounded("a preface that is incomplete is cut", silent.rest()).await;
    assert_eq!(Http2Client::new(&rig).await.get("/").await.status, 200);
}

#[tokio::test]
async fn frames_that_violate_the_protocol_close_the_connection() {
    let mut data_before_head = frame(DATA, 0, 1, b"x");
    data_before_head.extend(frame(DATA, 0, 3, b"x"));
    assert_closed("DATA on an idle stream", data_before_head, Reason::PROTOCOL_ERROR).await;
    assert_closed("an even stream", frame(HEADERS, END_HEADERS, 2, &fields("GET")), Reason::PROTOCOL_ERROR).await;
    assert_closed("a frame that is too large", frame(DATA, 0, 1, &[0; 17 << 10]), Reason::FRAME_SIZE_ERROR).await;
    assert_closed("a broken head", frame(HEADERS, END_HEADERS, 1, &[0xff; 20]), Reason::PROTOCOL_ERROR).await;
}

#[tokio::test]
async fn a_malformed_head_resets_its_stream_only() {
    let origin = Origin::always_answers(OK).await;
    let rig = Rig::new(&origin, Setup::default()).await;
    let with = |name: &str, value: &str| {
        let mut block = fields("POST");
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend(text.as_bytes());
        }
        block
    };
    for block in [
        with("connection", "close"),
        with("transfer-encoding", "chunked"),
        with("te", "gzip"),
        with("upgrade", "websocket"),
        with("content-length", "7"),
        with(":path", "/twice"),
    ] {
        let mut client = RawHttp2::new(&rig).await;
        client.flood(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &block)).await;
        client.flood(&frame(HEADERS, END_STREAM | END_HEADERS, 3, &fields("GET"))).await;
        let (mut reset, mut answered) = (false, false);
        while !(reset && answered) {
            let (kind, _, stream, _) = bounded("an answer", client.next()).await.expect("the connection is open");
            reset |= (kind, stream) == (RESET, 1);
            answered |= (kind, stream) == (HEADERS, 3);
            assert_ne!((kind, stream), (HEADERS, 1), "{block:?}");
        }
    }
    assert!(origin.requests().iter().all(|request| request.line() == "GET / HTTP/1.1"));
}

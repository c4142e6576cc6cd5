//! RFC 9113, section 5: states, numbers and number of streams, errors, extensions.

use super::STREAMS_MAX;
use super::case::Case;
use super::case::Outcome::{Answered, ConnectionError, Ignored, StreamOrConnectionError};
use crate::support::http2::frames::*;
use crate::support::http2::hpack::{field, request};
use crate::support::http2::peer::{FramePeer, describe};

/// The error codes allowed for a frame on a closed stream; section 5.1 allows a stream error or a connection error.
const CLOSED: &[u32] = &[STREAM_CLOSED];
const CLOSED_OR_PROTOCOL: &[u32] = &[STREAM_CLOSED, PROTOCOL_ERROR];

pub fn cases() -> Vec<Case> {
    let mut all = idle();
    all.extend(half_closed());
    all.extend(closed());
    all.extend(numbers());
    all.extend(errors());
    all
}

fn idle() -> Vec<Case> {
    vec![
        Case::new("5.1 idle: DATA", ConnectionError(&[PROTOCOL_ERROR])).send(&[&data(1, END_STREAM, b"x")]),
        Case::new("5.1 idle: RST_STREAM", ConnectionError(&[PROTOCOL_ERROR])).send(&[&rst_stream(1, CANCEL)]),
        Case::new("5.1 idle: WINDOW_UPDATE", ConnectionError(&[PROTOCOL_ERROR])).send(&[&window_update(1, 100)]),
        Case::new("5.1 idle: CONTINUATION", ConnectionError(&[PROTOCOL_ERROR])).send(&[&continuation(
            1,
            END_HEADERS,
            &request("GET", &[]),
        )]),
        Case::new("5.1 idle: a stream of the server", ConnectionError(&[PROTOCOL_ERROR]))
            .send(&[&window_update(2, 100)]),
    ]
}

fn half_closed() -> Vec<Case> {
    let get = headers(1, WHOLE, &request("GET", &[]));
    let whole_post = [headers(1, END_HEADERS, &request("POST", &[])), data(1, END_STREAM, b"body")].concat();
    vec![
        Case::new("5.1 half-closed: DATA", StreamOrConnectionError(1, CLOSED))
            .send(&[&get, &data(1, END_STREAM, b"x")]),
        Case::new("5.1 half-closed: HEADERS", StreamOrConnectionError(1, CLOSED)).send(&[&get, &get]),
        Case::new("5.1 half-closed: CONTINUATION", StreamOrConnectionError(1, CLOSED_OR_PROTOCOL))
            .send(&[&get, &continuation(1, END_HEADERS, &field("x", "y"))]),
        Case::new("5.1 half-closed by DATA: DATA", StreamOrConnectionError(1, CLOSED))
            .send(&[&whole_post, &data(1, END_STREAM, b"x")]),
        Case::new("5.1 half-closed by DATA: trailers", StreamOrConnectionError(1, CLOSED))
            .send(&[&whole_post, &headers(1, WHOLE, &field("x", "y"))]),
    ]
}

fn closed() -> Vec<Case> {
    let (get, post) = (headers(1, WHOLE, &request("GET", &[])), headers(1, END_HEADERS, &request("POST", &[])));
    let reset = rst_stream(1, CANCEL);
    vec![
        Case::new("5.1 closed by RST_STREAM: DATA", StreamOrConnectionError(1, CLOSED)).send(&[
            &post,
            &reset,
            &data(1, END_STREAM, b"x"),
        ]),
        Case::new("5.1 closed by RST_STREAM: HEADERS", StreamOrConnectionError(1, CLOSED_OR_PROTOCOL)).send(&[
            &post,
            &reset,
            &headers(1, WHOLE, &field("x", "y")),
        ]),
        Case::new("5.1 closed by RST_STREAM: CONTINUATION", StreamOrConnectionError(1, CLOSED_OR_PROTOCOL)).send(&[
            &post,
            &reset,
            &continuation(1, END_HEADERS, &field("x", "y")),
        ]),
        Case::new("5.1 closed: DATA", StreamOrConnectionError(1, CLOSED))
            .send(&[&get])
            .await_end(1)
            .send(&[&data(1, END_STREAM, b"x")]),
        Case::new("5.1 closed: HEADERS", StreamOrConnectionError(1, CLOSED_OR_PROTOCOL))
            .send(&[&get])
            .await_end(1)
            .send(&[&get]),
        Case::new("5.1 closed: CONTINUATION", StreamOrConnectionError(1, CLOSED_OR_PROTOCOL))
            .send(&[&get])
            .await_end(1)
            .send(&[&continuation(1, END_HEADERS, &field("x", "y"))]),
        Case::new("5.1 closed: WINDOW_UPDATE", Ignored).send(&[&get]).await_end(1).send(&[&window_update(1, 1)]),
        Case::new("5.1 closed: RST_STREAM", Ignored).send(&[&get]).await_end(1).send(&[&reset]),
    ]
}

fn numbers() -> Vec<Case> {
    let get = request("GET", &[]);
    vec![
        Case::new("5.1.1: an even number", ConnectionError(&[PROTOCOL_ERROR])).send(&[&headers(2, WHOLE, &get)]),
        Case::new("5.1.1: a number below the one before", ConnectionError(CLOSED_OR_PROTOCOL))
            .send(&[&headers(5, WHOLE, &get)])
            .await_end(5)
            .send(&[&headers(3, WHOLE, &get)]),
        Case::new("5.1.1: DATA on a stream that was skipped", StreamOrConnectionError(3, CLOSED_OR_PROTOCOL))
            .send(&[&headers(5, WHOLE, &get)])
            .await_end(5)
            .send(&[&data(3, END_STREAM, b"x")]),
        Case::new(
            "5.1.2: more streams than the server allows",
            StreamOrConnectionError(2 * STREAMS_MAX + 1, &[PROTOCOL_ERROR, REFUSED_STREAM]),
        )
        .send(&[&open_streams(STREAMS_MAX + 1)]),
        Case::new("5.1.2: as many streams as the server allows", Answered(2 * STREAMS_MAX - 1, 200))
            .send(&[&open_streams(STREAMS_MAX), &data(2 * STREAMS_MAX - 1, END_STREAM, b"x")]),
        Case::checked("5.1.2: the server tells how many streams it allows", |to| async move {
            let settings = FramePeer::handshake(to).await.settings;
            match settings.contains(&(MAX_CONCURRENT_STREAMS, STREAMS_MAX)) {
                true => Ok(()),
                false => Err(format!("its settings: {settings:?}")),
            }
        }),
        Case::checked("5.1.2: a stream that ended makes room for another", |to| async move {
            let mut peer = FramePeer::handshake(to).await;
            peer.send(&open_streams(STREAMS_MAX)).await;
            for stream in (1..=2 * STREAMS_MAX - 1).step_by(2) {
                peer.send(&data(stream, END_STREAM, b"x")).await;
                peer.until("an answer", |frame| super::case::ends(frame, stream)).await?;
            }
            let next = 2 * STREAMS_MAX + 1;
            peer.send(&headers(next, WHOLE, &request("GET", &[]))).await;
            peer.until("an answer", |frame| super::case::ends(frame, next)).await.map(drop)
        }),
    ]
}

/// Heads of requests, without their bodies.
fn open_streams(count: u32) -> Vec<u8> {
    (0..count).flat_map(|index| headers(2 * index + 1, END_HEADERS, &request("POST", &[]))).collect()
}

fn errors() -> Vec<Case> {
    let get = request("GET", &[]);
    vec![
        // RFC 9113 has deprecated priorities, and with them this error: a stream's dependency on itself may be ignored.
        Case::checked("5.3: a stream that depends on itself does not stop others", |to| async move {
            let mut peer = FramePeer::handshake(to).await;
            peer.send(&headers(1, WHOLE | WITH_PRIORITY, &[dependency(1, false, 255), request("GET", &[])].concat()))
                .await;
            peer.send(&priority(5, 5, false, 255)).await;
            peer.send(&headers(3, WHOLE, &request("GET", &[]))).await;
            match peer.until("an answer", |frame| super::case::ends(frame, 3)).await {
                Err(why) if !why.contains("GOAWAY on 0 flags 0x0 of 8 bytes code 1") => Err(why),
                _ => Ok(()),
            }
        }),
        Case::checked("5.4.1: GOAWAY tells the last stream that was begun, before the end", |to| async move {
            let mut peer = FramePeer::handshake(to).await;
            peer.send(&[headers(1, WHOLE, &get), headers(3, WHOLE, &get)].concat()).await;
            peer.until("an answer", |frame| super::case::ends(frame, 3)).await?;
            peer.send(&data(0, 0, b"x")).await;
            let seen = peer.until("GOAWAY", |frame| frame.kind == GOAWAY).await?;
            let last = seen.last().and_then(|frame| frame.payload.get(..4)?.try_into().ok()).map(u32::from_be_bytes);
            while peer.next().await.is_some() {}
            if last == Some(3) { Ok(()) } else { Err(format!("{last:?}: {}", describe(&seen))) }
        }),
        Case::new("5.4.1: frames behind a connection error are not answered", ConnectionError(&[PROTOCOL_ERROR]))
            .send(&[&data(0, 0, b"x"), &ping(0, &[0; 8]), &headers(1, WHOLE, &request("GET", &[]))]),
        Case::new("5.4.2: an error of one stream leaves others alone", Answered(3, 200)).send(&[
            &headers(1, END_HEADERS, &request("POST", &[("te", "gzip")])),
            &headers(3, WHOLE, &request("GET", &[])),
        ]),
        Case::new("5.4.2: frames of a stream that the server has reset", Answered(3, 200)).send(&[
            &headers(1, END_HEADERS, &request("POST", &[("te", "gzip")])),
            &data(1, 0, b"on its way"),
            &data(1, END_STREAM, b"on its way too"),
            &headers(3, WHOLE, &request("GET", &[])),
        ]),
        Case::new("5.5: an unknown extension", Ignored).send(&[&frame(0x16, 0, 0, b"unknown")]),
        Case::new("5.5: an unknown extension within a block", ConnectionError(&[PROTOCOL_ERROR]))
            .send(&[&headers(1, END_STREAM, &request("GET", &[])), &frame(0x16, 0, 0, b"unknown")]),
    ]
}

//! RFC 9113, sections 3.4 and 4: the preface, the frame's format and size, header blocks.

use super::case::Case;
use super::case::Outcome::{Answered, Closed, ConnectionError, Ignored, StreamOrConnectionError};
use crate::support::http2::frames::*;
use crate::support::http2::hpack::Indexing::Incremental;
use crate::support::http2::hpack::{FIRST_DYNAMIC, Name, Text, field, indexed, literal, request};
use crate::support::http2::peer::{FramePeer, describe};

pub fn cases() -> Vec<Case> {
    let mut all = preface();
    all.extend(format());
    all.extend(blocks());
    all
}

fn preface() -> Vec<Case> {
    let get = headers(1, WHOLE, &request("GET", &[]));
    vec![
        Case::checked("3.4: the first frame of a server is SETTINGS", |to| async move {
            let mut peer = FramePeer::connect(to).await;
            peer.send(&[PREFACE, &settings(&[])].concat()).await;
            match peer.next().await {
                Some(first) if first.kind == SETTINGS && !first.has(ACK) => Ok(()),
                other => Err(format!("instead: {}", describe(other.as_slice()))),
            }
        }),
        Case::new("3.4: another protocol", Closed).raw().send(&[b"INVALID CONNECTION PREFACE\r\n\r\n"]),
        Case::new("3.4: a preface with a wrong end", Closed).raw().send(&[b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"]),
        Case::new("3.4: PRI of another version", Closed).raw().send(&[b"PRI * HTTP/2.1\r\n\r\nSM\r\n\r\n"]),
        Case::new("3.4: a first frame that is not SETTINGS", ConnectionError(&[PROTOCOL_ERROR]))
            .raw()
            .send(&[PREFACE, &ping(0, &[0; 8])]),
        Case::new("3.4: a first frame that acknowledges settings", ConnectionError(&[PROTOCOL_ERROR]))
            .raw()
            .send(&[PREFACE, &frame(SETTINGS, ACK, 0, &[])]),
        Case::new("3.4: a request before the server's settings", Answered(1, 200)).raw().send(&[
            PREFACE,
            &settings(&[]),
            &get,
        ]),
        Case::checked("3.4: a preface in pieces", |to| async move {
            let mut peer = FramePeer::connect(to).await;
            for byte in [PREFACE, &settings(&[]), &get].concat() {
                peer.send(&[byte]).await;
            }
            peer.until("an answer", |frame| super::case::ends(frame, 1)).await.map(drop)
        }),
    ]
}

fn format() -> Vec<Case> {
    let (get, post) = (request("GET", &[]), request("POST", &[]));
    let large_field = "x".repeat(17 << 10);
    vec![
        Case::new("4.1: a frame of an unknown type", Ignored).send(&[&frame(0x16, 0, 0, &[0; 8])]),
        Case::new("4.1: an unknown type on an open stream", Answered(1, 200)).send(&[
            &headers(1, END_HEADERS, &post),
            &frame(0xbe, 0xff, 1, b"nothing"),
            &data(1, END_STREAM, b"body"),
        ]),
        Case::new("4.1: flags that are not defined", Ignored).send(&[&ping(0x16, &[1; 8])]),
        Case::new("4.1: flags that are not defined, on HEADERS", Answered(1, 200)).send(&[&headers(
            1,
            WHOLE | 0x82,
            &get,
        )]),
        Case::new("4.1: the reserved bit of the stream", Ignored)
            .send(&[&frame(PING, 0, 0x8000_0000, &[1; 8]), &frame(PRIORITY, 0, 0x8000_0001, &dependency(0, false, 1))]),
        Case::new("4.1: the reserved bit of HEADERS", Answered(1, 200)).send(&[&headers(0x8000_0001, WHOLE, &get)]),
        Case::new("4.2: DATA of 2^14 bytes", Answered(1, 200))
            .send(&[&headers(1, END_HEADERS, &post), &data(1, END_STREAM, &[b'x'; 1 << 14])]),
        Case::new("4.2: DATA of more than 2^14 bytes", StreamOrConnectionError(1, &[FRAME_SIZE_ERROR]))
            .send(&[&headers(1, END_HEADERS, &post), &data(1, END_STREAM, &[b'x'; (1 << 14) + 1])]),
        Case::new("4.2: HEADERS of more than 2^14 bytes", ConnectionError(&[FRAME_SIZE_ERROR])).send(&[&headers(
            1,
            WHOLE,
            &[get.clone(), field("x-large", &large_field)].concat(),
        )]),
        Case::new("4.2: SETTINGS of more than 2^14 bytes", ConnectionError(&[FRAME_SIZE_ERROR]))
            .send(&[&settings(&vec![(0xff, 0); 2_731])]),
        Case::new("4.2: a frame that claims the greatest length", ConnectionError(&[FRAME_SIZE_ERROR]))
            .send(&[&[0xff, 0xff, 0xff, 0xee, 0, 0, 0, 0, 0]]),
        Case::new(
            "4.2: HEADERS that is too short for its priority",
            ConnectionError(&[FRAME_SIZE_ERROR, PROTOCOL_ERROR]),
        )
        .send(&[&headers(1, WHOLE | WITH_PRIORITY, &[0; 4])]),
    ]
}

fn blocks() -> Vec<Case> {
    let get = request("GET", &[]);
    let (first, second) = get.split_at(10);
    let kept = [get.clone(), literal(Incremental, Name::New("x-kept"), Text::Plain("v"))].concat();
    let uses = [get.clone(), indexed(FIRST_DYNAMIC)].concat();
    vec![
        // A literal field without a name or a value.
        Case::new("4.3: a block that is no HPACK", ConnectionError(&[COMPRESSION_ERROR])).send(&[&headers(
            1,
            WHOLE,
            &[0x40],
        )]),
        Case::new("4.3: a block that ends within a field", ConnectionError(&[COMPRESSION_ERROR])).send(&[&headers(
            1,
            WHOLE,
            &get[..get.len() - 3],
        )]),
        Case::new("4.3: PRIORITY within a block", ConnectionError(&[PROTOCOL_ERROR])).send(&[
            &headers(1, END_STREAM, first),
            &priority(1, 0, false, 255),
            &continuation(1, END_HEADERS, second),
        ]),
        Case::new("4.3: HEADERS of another stream within a block", ConnectionError(&[PROTOCOL_ERROR]))
            .send(&[&headers(1, END_STREAM, first), &headers(3, WHOLE, &get)]),
        Case::new("4.3: an unknown frame within a block", ConnectionError(&[PROTOCOL_ERROR])).send(&[
            &headers(1, END_STREAM, first),
            &frame(0x16, 0, 1, &[]),
            &continuation(1, END_HEADERS, second),
        ]),
        Case::new("4.3: the table lives on after a malformed request", Answered(3, 200))
            .send(&[&headers(1, WHOLE, &[kept.clone(), field("te", "gzip")].concat()), &headers(3, WHOLE, &uses)])
            .legacy_sees("x-kept", "v"),
        Case::new("4.3: the table lives on after a reset", Answered(3, 200))
            .send(&[&headers(1, END_HEADERS, &kept), &rst_stream(1, CANCEL), &headers(3, WHOLE, &uses)])
            .legacy_sees("x-kept", "v"),
        Case::new("4.3: trailers of a stream that the server has reset count for the table", Answered(3, 200))
            .send(&[
                &headers(1, END_HEADERS, &request("POST", &[("te", "gzip")])),
                &headers(1, WHOLE, &literal(Incremental, Name::New("x-kept"), Text::Plain("v"))),
                &headers(3, WHOLE, &uses),
            ])
            .legacy_sees("x-kept", "v"),
    ]
}

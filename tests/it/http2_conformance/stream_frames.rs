//! RFC 9113, sections 6.1 to 6.4, 6.6 and 6.10: frames that belong to a stream; and unknown error codes (section 7).

use super::case::Case;
use super::case::Outcome::{Answered, ConnectionError, Ignored, IgnoredOrClosed, StreamOrConnectionError};
use crate::support::http2::frames::*;
use crate::support::http2::hpack::{field, request};

pub fn cases() -> Vec<Case> {
    let mut all = data_and_headers();
    all.extend(priority_and_reset());
    all.extend(continuations());
    all
}

fn data_and_headers() -> Vec<Case> {
    let (get, post) = (request("GET", &[]), request("POST", &[]));
    let (first, second) = get.split_at(10);
    vec![
        Case::new("6.1: DATA on stream 0", ConnectionError(&[PROTOCOL_ERROR])).send(&[&data(0, END_STREAM, b"x")]),
        Case::new("6.1: DATA on a stream that is not open", StreamOrConnectionError(1, &[STREAM_CLOSED]))
            .send(&[&headers(1, WHOLE, &get), &data(1, END_STREAM, b"x")]),
        Case::new("6.1: padding as long as the payload", ConnectionError(&[PROTOCOL_ERROR]))
            .send(&[&headers(1, END_HEADERS, &post), &data(1, END_STREAM | PADDED, &[4, 0, 0, 0])]),
        Case::new("6.1: padding longer than the payload", ConnectionError(&[PROTOCOL_ERROR]))
            .send(&[&headers(1, END_HEADERS, &post), &data(1, END_STREAM | PADDED, &[200, 1, 2, 3])]),
        Case::new(
            "6.1: padded, without the length of the padding",
            ConnectionError(&[FRAME_SIZE_ERROR, PROTOCOL_ERROR]),
        )
        .send(&[&headers(1, END_HEADERS, &post), &data(1, END_STREAM | PADDED, &[])]),
        Case::new("6.2: HEADERS on stream 0", ConnectionError(&[PROTOCOL_ERROR])).send(&[&headers(0, WHOLE, &get)]),
        Case::new("6.2: PRIORITY before END_HEADERS", ConnectionError(&[PROTOCOL_ERROR]))
            .send(&[&headers(1, END_STREAM, first), &priority(1, 0, false, 1)]),
        Case::new("6.2: DATA before END_HEADERS", ConnectionError(&[PROTOCOL_ERROR]))
            .send(&[&headers(1, 0, &post), &data(1, END_STREAM, b"x")]),
        Case::new("6.2: HEADERS of another stream before END_HEADERS", ConnectionError(&[PROTOCOL_ERROR]))
            .send(&[&headers(1, END_STREAM, first), &headers(3, WHOLE, second)]),
        Case::new("6.2: padding longer than the payload", ConnectionError(&[PROTOCOL_ERROR])).send(&[&headers(
            1,
            WHOLE | PADDED,
            &[&[255][..], &get].concat(),
        )]),
        Case::new("6.6: PUSH_PROMISE of a client", ConnectionError(&[PROTOCOL_ERROR])).send(&[
            &headers(1, WHOLE, &get),
            &frame(PUSH_PROMISE, END_HEADERS, 1, &[&[0, 0, 0, 2][..], &get].concat()),
        ]),
    ]
}

fn priority_and_reset() -> Vec<Case> {
    let post = headers(1, END_HEADERS, &request("POST", &[]));
    vec![
        Case::new("6.3: PRIORITY on stream 0", ConnectionError(&[PROTOCOL_ERROR])).send(&[&priority(0, 1, false, 1)]),
        Case::new("6.3: a short PRIORITY", StreamOrConnectionError(1, &[FRAME_SIZE_ERROR]))
            .send(&[&post, &frame(PRIORITY, 0, 1, &[0; 4])]),
        Case::new("6.3: a long PRIORITY", StreamOrConnectionError(1, &[FRAME_SIZE_ERROR]))
            .send(&[&post, &frame(PRIORITY, 0, 1, &[0; 6])]),
        Case::new("6.4: RST_STREAM on stream 0", ConnectionError(&[PROTOCOL_ERROR])).send(&[&rst_stream(0, CANCEL)]),
        Case::new("6.4: RST_STREAM on an idle stream", ConnectionError(&[PROTOCOL_ERROR]))
            .send(&[&rst_stream(1, CANCEL)]),
        Case::new("6.4: a short RST_STREAM", ConnectionError(&[FRAME_SIZE_ERROR]))
            .send(&[&post, &frame(RST_STREAM, 0, 1, &[0; 3])]),
        Case::new("6.4: a long RST_STREAM", ConnectionError(&[FRAME_SIZE_ERROR]))
            .send(&[&post, &frame(RST_STREAM, 0, 1, &[0; 5])]),
        Case::new("6.4: a reset is not answered by a reset", Ignored).send(&[&post, &rst_stream(1, CANCEL)]),
        Case::new("7: RST_STREAM with an unknown code", Ignored).send(&[&post, &rst_stream(1, 0xdead_beef)]),
        Case::new("7: GOAWAY with an unknown code", IgnoredOrClosed).send(&[&goaway(0, 0, 0xdead_beef)]),
    ]
}

fn continuations() -> Vec<Case> {
    let (get, post) = (request("GET", &[]), request("POST", &[]));
    let (first, second) = get.split_at(10);
    let (one, two) = second.split_at(10);
    let more = field("x", "y");
    vec![
        Case::new("6.10: several CONTINUATIONs", Answered(1, 200)).send(&[
            &headers(1, END_STREAM, first),
            &continuation(1, 0, one),
            &continuation(1, 0, &[]),
            &continuation(1, END_HEADERS, two),
        ]),
        Case::new("6.10: another frame behind CONTINUATION", ConnectionError(&[PROTOCOL_ERROR])).send(&[
            &headers(1, END_STREAM, first),
            &continuation(1, 0, second),
            &data(1, END_STREAM, b"x"),
        ]),
        Case::new("6.10: PING behind HEADERS without END_HEADERS", ConnectionError(&[PROTOCOL_ERROR]))
            .send(&[&headers(1, END_STREAM, first), &ping(0, &[0; 8])]),
        Case::new("6.10: CONTINUATION of another stream", ConnectionError(&[PROTOCOL_ERROR]))
            .send(&[&headers(1, END_STREAM, first), &continuation(3, END_HEADERS, second)]),
        Case::new("6.10: CONTINUATION on stream 0", ConnectionError(&[PROTOCOL_ERROR]))
            .send(&[&headers(1, END_STREAM, first), &continuation(0, END_HEADERS, second)]),
        Case::new("6.10: CONTINUATION behind HEADERS with END_HEADERS", ConnectionError(&[PROTOCOL_ERROR]))
            .send(&[&headers(1, END_HEADERS, &post), &continuation(1, END_HEADERS, &more)]),
        Case::new("6.10: CONTINUATION behind CONTINUATION with END_HEADERS", ConnectionError(&[PROTOCOL_ERROR]))
            .send(&[&headers(1, 0, &post), &continuation(1, END_HEADERS, &more), &continuation(1, END_HEADERS, &more)]),
        Case::new("6.10: CONTINUATION behind DATA", ConnectionError(&[PROTOCOL_ERROR])).send(&[
            &headers(1, END_HEADERS, &post),
            &data(1, 0, b"x"),
            &continuation(1, END_HEADERS, &more),
        ]),
        Case::new("6.10: trailers in several frames", Answered(1, 200)).send(&[
            &headers(1, END_HEADERS, &post),
            &data(1, 0, b"x"),
            &headers(1, END_STREAM, &more[..2]),
            &continuation(1, END_HEADERS, &more[2..]),
        ]),
    ]
}

//! RFC 9113, sections 6.5, 6.7 and 6.8: frames that belong to the connection.

use super::case::Case;
use super::case::Outcome::{Answered, ConnectionError, Ignored};
use crate::support::http2::frames::*;
use crate::support::http2::hpack::request;
use crate::support::http2::peer::{FramePeer, ReceivedFrame, describe};

pub fn cases() -> Vec<Case> {
    let mut all = settings_cases();
    all.extend(pings_and_goaways());
    all
}

fn settings_cases() -> Vec<Case> {
    let get = headers(1, WHOLE, &request("GET", &[]));
    let is_ack = |frame: &ReceivedFrame| frame.kind == SETTINGS && frame.has(ACK);
    vec![
        Case::checked("6.5: settings are acknowledged", move |to| async move {
            let mut peer = FramePeer::handshake(to).await;
            peer.send(&settings(&[(MAX_CONCURRENT_STREAMS, 100)])).await;
            peer.until("ACK", is_ack).await.map(drop)
        }),
        Case::checked("6.5.3: each SETTINGS is acknowledged", move |to| async move {
            let mut peer = FramePeer::handshake(to).await;
            peer.send(&settings(&[]).repeat(3)).await;
            let seen = peer.ping().await?;
            match seen.iter().filter(|frame| is_ack(frame)).count() {
                3 => Ok(()),
                _ => Err(describe(&seen)),
            }
        }),
        Case::new("6.5: ACK with a payload", ConnectionError(&[FRAME_SIZE_ERROR])).send(&[&frame(
            SETTINGS,
            ACK,
            0,
            &[0, 3, 0, 0, 0, 1],
        )]),
        Case::new("6.5: SETTINGS on a stream", ConnectionError(&[PROTOCOL_ERROR])).send(&[&frame(
            SETTINGS,
            0,
            1,
            &[0, 3, 0, 0, 0, 1],
        )]),
        Case::new("6.5: a length that is no multiple of 6", ConnectionError(&[FRAME_SIZE_ERROR])).send(&[&frame(
            SETTINGS,
            0,
            0,
            &[0, 3, 0],
        )]),
        Case::new("6.5.2: ENABLE_PUSH of 2", ConnectionError(&[PROTOCOL_ERROR]))
            .send(&[&settings(&[(ENABLE_PUSH, 2)])]),
        Case::new("6.5.2: ENABLE_PUSH of 0 and 1", Ignored).send(&[&settings(&[(ENABLE_PUSH, 0), (ENABLE_PUSH, 1)])]),
        Case::new("6.5.2: a window above 2^31-1", ConnectionError(&[FLOW_CONTROL_ERROR]))
            .send(&[&settings(&[(INITIAL_WINDOW_SIZE, 0x8000_0000)])]),
        Case::new("6.5.2: the greatest window", Answered(1, 200))
            .send(&[&settings(&[(INITIAL_WINDOW_SIZE, 0x7fff_ffff)]), &get]),
        Case::new("6.5.2: MAX_FRAME_SIZE below 2^14", ConnectionError(&[PROTOCOL_ERROR]))
            .send(&[&settings(&[(MAX_FRAME_SIZE, (1 << 14) - 1)])]),
        Case::new("6.5.2: MAX_FRAME_SIZE above 2^24-1", ConnectionError(&[PROTOCOL_ERROR]))
            .send(&[&settings(&[(MAX_FRAME_SIZE, 1 << 24)])]),
        Case::new("6.5.2: the least and the greatest MAX_FRAME_SIZE", Answered(1, 200)).send(&[
            &settings(&[(MAX_FRAME_SIZE, 1 << 14)]),
            &settings(&[(MAX_FRAME_SIZE, (1 << 24) - 1)]),
            &get,
        ]),
        Case::new("6.5.2: an unknown setting", Ignored).send(&[&settings(&[(0xff, 1), (0, 7)])]),
        Case::new("6.5.2: no table for header fields", Answered(1, 200))
            .send(&[&settings(&[(HEADER_TABLE_SIZE, 0)]), &get]),
        Case::checked("6.5.2: MAX_CONCURRENT_STREAMS of 0 concerns streams of the server only", |to| async move {
            let mut peer = FramePeer::handshake_with(to, &[(MAX_CONCURRENT_STREAMS, 0)]).await;
            peer.send(&headers(1, WHOLE, &request("GET", &[]))).await;
            peer.until("an answer", |frame| super::case::ends(frame, 1)).await.map(drop)
        }),
    ]
}

fn pings_and_goaways() -> Vec<Case> {
    vec![
        Case::checked("6.7: a PING is answered with its payload", |to| async move {
            let mut peer = FramePeer::handshake(to).await;
            peer.send(&ping(0, b"01234567")).await;
            let seen = peer.until("the answer", |frame| frame.kind == PING).await?;
            match seen.last() {
                Some(frame) if frame.flags == ACK && frame.payload == b"01234567" && frame.stream == 0 => Ok(()),
                _ => Err(describe(&seen)),
            }
        }),
        Case::checked("6.7: an ACK is not answered", |to| async move {
            let mut peer = FramePeer::handshake(to).await;
            peer.send(&ping(ACK, b"nobody's")).await;
            let seen = peer.ping().await?;
            match seen.iter().any(|frame| frame.payload == b"nobody's") {
                true => Err(describe(&seen)),
                false => Ok(()),
            }
        }),
        Case::new("6.7: PING on a stream", ConnectionError(&[PROTOCOL_ERROR])).send(&[&frame(PING, 0, 1, &[0; 8])]),
        Case::new("6.7: a short PING", ConnectionError(&[FRAME_SIZE_ERROR])).send(&[&ping(0, &[0; 6])]),
        Case::new("6.7: a long PING", ConnectionError(&[FRAME_SIZE_ERROR])).send(&[&ping(0, &[0; 9])]),
        Case::new("6.8: GOAWAY on a stream", ConnectionError(&[PROTOCOL_ERROR])).send(&[&goaway(1, 0, NO_ERROR)]),
        Case::new("6.8: a short GOAWAY", ConnectionError(&[FRAME_SIZE_ERROR, PROTOCOL_ERROR]))
            .send(&[&frame(GOAWAY, 0, 0, &[0; 7])]),
        Case::checked("6.8: what is in flight at a GOAWAY is answered", |to| async move {
            let mut peer = FramePeer::handshake(to).await;
            let begin = headers(1, END_HEADERS, &request("POST", &[]));
            peer.send(&[begin, goaway(0, 0, NO_ERROR), data(1, END_STREAM, b"body")].concat()).await;
            peer.until("an answer", |frame| super::case::ends(frame, 1)).await.map(drop)
        }),
    ]
}

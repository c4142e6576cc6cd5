//! RFC 9113, section 6.9: flow-control windows.

use std::net::SocketAddr;

use super::BODY;
use super::case::Outcome::{Answered, ConnectionError, Ignored, StreamError, StreamOrConnectionError};
use super::case::{Case, ends};
use crate::support::http2::frames::*;
use crate::support::http2::hpack::request;
use crate::support::http2::peer::{FramePeer, describe};

/// The greatest window.
const MAX: u32 = 0x7fff_ffff;
/// The initial window of a connection.
const FIRST: u32 = 65_535;

pub fn cases() -> Vec<Case> {
    let (get, post) = (headers(1, WHOLE, &request("GET", &[])), headers(1, END_HEADERS, &request("POST", &[])));
    let short = [0; 3];
    vec![
        Case::new("6.9: an increment of 0 for the connection", ConnectionError(&[PROTOCOL_ERROR]))
            .send(&[&window_update(0, 0)]),
        Case::new("6.9: an increment of 0 for a stream", StreamOrConnectionError(1, &[PROTOCOL_ERROR]))
            .send(&[&post, &window_update(1, 0)]),
        Case::new("6.9: a short WINDOW_UPDATE", ConnectionError(&[FRAME_SIZE_ERROR])).send(&[&frame(
            WINDOW_UPDATE,
            0,
            0,
            &short,
        )]),
        Case::new("6.9: a long WINDOW_UPDATE of a stream", ConnectionError(&[FRAME_SIZE_ERROR]))
            .send(&[&post, &frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1, 0])]),
        Case::new("6.9: the reserved bit of an increment", Ignored).send(&[&window_update(0, 0x8000_0001)]),
        Case::new("6.9.1: a window of the connection above 2^31-1", ConnectionError(&[FLOW_CONTROL_ERROR]))
            .send(&[&window_update(0, MAX), &window_update(0, MAX)]),
        Case::new("6.9.1: the greatest window of the connection", Ignored).send(&[&window_update(0, MAX - FIRST)]),
        Case::new("6.9.1: a window of a stream above 2^31-1", StreamError(1, &[FLOW_CONTROL_ERROR])).send(&[
            &post,
            &window_update(1, MAX),
            &window_update(1, MAX),
        ]),
        Case::new("6.9.1: a window of an answered stream above 2^31-1", Ignored)
            .send(&[&get])
            .await_end(1)
            .send(&[&window_update(1, MAX), &window_update(1, MAX)]),
        Case::checked("6.9.1: a window of one byte", |to| async move {
            let mut peer = begin(to, 1).await;
            sizes(&mut peer, &[1]).await?;
            peer.send(&window_update(1, 5)).await;
            sizes(&mut peer, &[5]).await?;
            peer.send(&window_update(1, 100)).await;
            sizes(&mut peer, &[BODY.len() - 6]).await
        }),
        Case::checked("6.9.2: settings open the windows of streams that exist", |to| async move {
            let mut peer = begin(to, 0).await;
            sizes(&mut peer, &[]).await?;
            peer.send(&settings(&[(INITIAL_WINDOW_SIZE, 1)])).await;
            sizes(&mut peer, &[1]).await
        }),
        Case::checked("6.9.2: a window may become negative", |to| async move {
            let mut peer = begin(to, 3).await;
            sizes(&mut peer, &[3]).await?;
            // The settings make the window -1, and the update makes it 1.
            peer.send(&settings(&[(INITIAL_WINDOW_SIZE, 2)])).await;
            sizes(&mut peer, &[]).await?;
            peer.send(&window_update(1, 2)).await;
            sizes(&mut peer, &[1]).await
        }),
        Case::checked("6.5.3: of two values for the window the last one counts", |to| async move {
            let mut peer = FramePeer::handshake_with(to, &[(INITIAL_WINDOW_SIZE, 100), (INITIAL_WINDOW_SIZE, 1)]).await;
            peer.send(&headers(1, WHOLE, &request("GET", &[]))).await;
            await_head(&mut peer).await?;
            sizes(&mut peer, &[1]).await
        }),
        Case::new("6.9.2: a window above 2^31-1", ConnectionError(&[FLOW_CONTROL_ERROR]))
            .send(&[&settings(&[(INITIAL_WINDOW_SIZE, MAX + 1)])]),
        Case::new("6.9.2: settings that raise an open window above 2^31-1", ConnectionError(&[FLOW_CONTROL_ERROR]))
            .send(&[&post, &window_update(1, MAX - FIRST), &settings(&[(INITIAL_WINDOW_SIZE, FIRST + 1)])]),
        Case::new("6.9: an answer without a body needs no window", Answered(1, 200))
            .with_settings(&[(INITIAL_WINDOW_SIZE, 0)])
            .send(&[&headers(1, WHOLE, &request("HEAD", &[]))]),
        Case::checked("6.9: what a client sends gives its window back", |to| async move {
            let mut peer = FramePeer::handshake(to).await;
            peer.send(&headers(1, END_HEADERS, &request("POST", &[]))).await;
            let told = peer.settings.iter().find(|(name, _)| *name == INITIAL_WINDOW_SIZE).map(|(_, value)| *value);
            // `windows`: of the connection and of the stream. More bytes are sent than either of them allows.
            let (mut windows, mut left) = ([FIRST, told.unwrap_or(FIRST)], 8 * FIRST);
            while left > 0 {
                let count = windows[0].min(windows[1]).min(left).min(1 << 14);
                if count > 0 {
                    peer.send(&data(1, 0, &vec![b'x'; count as usize])).await;
                    windows = windows.map(|window| window - count);
                    left -= count;
                    continue;
                }
                let seen = peer.until("an update of a window", |frame| frame.kind == WINDOW_UPDATE).await?;
                if let Some(update) = seen.last() {
                    windows[usize::from(update.stream == 1)] += update.code().unwrap_or(0);
                }
            }
            peer.send(&data(1, END_STREAM, &[])).await;
            peer.until("an answer", |frame| ends(frame, 1)).await.map(drop)
        }),
    ]
}

/// Begins a request on stream 1 with this window for its answer, and waits for the head.
async fn begin(to: SocketAddr, window: u32) -> FramePeer {
    let mut peer = FramePeer::handshake_with(to, &[(INITIAL_WINDOW_SIZE, window)]).await;
    peer.send(&headers(1, WHOLE, &request("GET", &[]))).await;
    await_head(&mut peer).await.expect("an answer");
    peer
}

async fn await_head(peer: &mut FramePeer) -> Result<(), String> {
    peer.until("the head of an answer", |frame| (frame.kind, frame.stream) == (HEADERS, 1)).await.map(drop)
}

/// Reads DATA until as many bytes have come as these sizes add up to, and checks that no more come before a PING is
/// answered.
async fn sizes(peer: &mut FramePeer, expected: &[usize]) -> Result<(), String> {
    let expected: usize = expected.iter().sum();
    let mut count = 0;
    while count < expected {
        let seen = peer.until("DATA", |frame| frame.kind == DATA).await?;
        count += seen.last().map_or(0, |frame| frame.payload.len());
    }
    let rest = peer.ping().await?;
    let more: usize = rest.iter().filter(|frame| frame.kind == DATA).map(|frame| frame.payload.len()).sum();
    match count + more == expected {
        true => Ok(()),
        false => Err(format!("{} bytes instead of {expected}: {}", count + more, describe(&rest))),
    }
}

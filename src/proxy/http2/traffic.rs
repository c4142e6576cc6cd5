//! The state of an HTTP/2 connection as its frames show it: streams that ended, errors, floods.
//!
//! `io` reports the bytes; `connection` queries the state after each poll of the h2 crate. Always true: the last byte
//! of an answer counts as flushed only when the socket has taken everything that was written up to it; only the
//! connection's own task takes the lock.

use std::io::IoSlice;
use std::sync::{Mutex, MutexGuard, PoisonError};

use h2::Reason;
use metrics::counter;

use super::flood::FloodLimits;
use super::frames::{Frame, FrameKind, FrameParser};
use crate::limits::Limits;
use crate::proxy::monotonic::now;

/// The bytes with which a client begins HTTP/2.
pub(in crate::proxy) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The frames of one connection.
pub(super) struct Traffic {
    state: Mutex<TrafficState>,
}

struct TrafficState {
    received: FrameParser,
    has_begun: bool,
    /// Why a frame of the client was refused by its header.
    refused: Option<Reason>,
    sent: FrameParser,
    /// The client has sent a part of a head, and frames of it are missing.
    is_within_head: bool,
    /// The stream that will end with a head of which some frames have not been written yet.
    ends_with_head: Option<u32>,
    /// Streams of which the last byte was written, but perhaps not flushed.
    written: Vec<EndedStream>,
    flushed: Vec<EndedStream>,
    flood: FloodLimits,
    is_flooded: bool,
    has_failed: bool,
    is_write_blocked: bool,
    /// The socket has taken everything that was written, since the last [`Traffic::observe`].
    has_flushed: bool,
}

/// A stream of which the last byte was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EndedStream {
    pub stream: u32,
    /// Whether it ended with HEADERS: a head without a body, or trailers.
    pub by_head: bool,
}

/// The state of the connection after a poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Observed {
    /// The error code, if the client has sent a frame that ends the connection.
    pub refused: Option<Reason>,
    /// The client floods the connection.
    pub is_flooded: bool,
    /// A GOAWAY with an error was sent.
    pub has_failed: bool,
    /// Part of a head, or of a frame other than DATA, has come.
    pub is_within_head: bool,
    /// The stream of a DATA frame of which a part has come.
    pub partial_data: Option<u32>,
    /// The socket takes no bytes now, although some are waiting.
    pub is_write_blocked: bool,
    /// The socket has taken everything that the h2 crate had to write.
    pub has_flushed: bool,
}

impl Traffic {
    pub(super) fn new(limits: &Limits) -> Self {
        let state = TrafficState {
            received: FrameParser::new(PREFACE.len()),
            has_begun: false,
            refused: None,
            sent: FrameParser::new(0),
            is_within_head: false,
            ends_with_head: None,
            written: Vec::new(),
            flushed: Vec::new(),
            flood: FloodLimits::new(limits),
            is_flooded: false,
            has_failed: false,
            is_write_blocked: false,
            has_flushed: false,
        };
        Self { state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, TrafficState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records bytes from the client. Returns how many of them may be read: fewer than all if a frame among them ends
    /// the connection, which `observe` then reports.
    pub(super) fn on_received(&self, bytes: &[u8]) -> usize {
        let TrafficState { received, has_begun, refused, is_within_head, flood, is_flooded, .. } = &mut *self.state();
        if refused.is_some() {
            return 0;
        }
        let accepts = |frame: &Frame| {
            if !std::mem::replace(has_begun, true) && !frame.may_come_first() {
                *refused = Some(Reason::PROTOCOL_ERROR);
            } else if frame.has_wrong_length() {
                *refused = Some(Reason::FRAME_SIZE_ERROR);
            }
            refused.is_none()
        };
        received.feed_while(bytes, accepts, |frame| {
            let is_allowed = match frame.kind {
                FrameKind::Headers | FrameKind::Continuation => {
                    *is_within_head = !frame.ends_head();
                    flood.on_message_frame();
                    true
                }
                FrameKind::Data if frame.length > 0 || frame.ends_stream() => {
                    flood.on_message_frame();
                    true
                }
                FrameKind::Reset(code) => {
                    count_reset("client", code);
                    flood.allows_reset(now)
                }
                FrameKind::Data | FrameKind::GoAway(_) | FrameKind::Control => flood.allows_control(now),
            };
            *is_flooded |= !is_allowed;
        })
    }

    /// Records that the transport took this many bytes.
    pub(super) fn on_sent(&self, bufs: &[IoSlice<'_>], mut count: usize) {
        let state = &mut *self.state();
        state.is_write_blocked = false;
        let TrafficState { sent, ends_with_head, written, flood, has_failed, .. } = state;
        for buf in bufs {
            let part = count.min(buf.len());
            sent.feed(&buf[..part], |frame| {
                let Frame { kind, stream, .. } = frame;
                match kind {
                    FrameKind::Data => {
                        flood.on_message_frame();
                        if frame.ends_stream() {
                            written.push(EndedStream { stream, by_head: false });
                        }
                    }
                    FrameKind::Headers | FrameKind::Continuation => {
                        flood.on_message_frame();
                        if frame.ends_stream() {
                            *ends_with_head = Some(stream);
                        }
                        if frame.ends_head()
                            && let Some(stream) = ends_with_head.take()
                        {
                            written.push(EndedStream { stream, by_head: true });
                        }
                    }
                    FrameKind::Reset(code) => count_reset("pointsman", code),
                    FrameKind::GoAway(code) => {
                        *has_failed |= code != 0;
                        counter!("pointsman_client_goaways_total", "reason" => reason_name(code)).increment(1);
                    }
                    FrameKind::Control => {}
                }
            });
            count -= part;
        }
    }

    /// Records that the transport takes no bytes now.
    pub(super) fn on_write_blocked(&self) {
        self.state().is_write_blocked = true;
    }

    /// Records that the socket has taken everything that was written.
    pub(super) fn on_flushed(&self) {
        let TrafficState { written, flushed, is_write_blocked, has_flushed, .. } = &mut *self.state();
        (*is_write_blocked, *has_flushed) = (false, true);
        flushed.append(written);
    }

    /// Returns the current state, and adds to `ended` the streams whose last byte the socket has taken.
    pub(super) fn observe(&self, ended: &mut Vec<EndedStream>) -> Observed {
        let state = &mut *self.state();
        ended.append(&mut state.flushed);
        Observed {
            refused: state.refused,
            is_flooded: state.is_flooded,
            has_failed: state.has_failed,
            is_within_head: state.is_within_head || state.received.is_within_other(),
            partial_data: state.received.partial_data(),
            is_write_blocked: state.is_write_blocked,
            has_flushed: std::mem::take(&mut state.has_flushed) && !state.is_write_blocked,
        }
    }

    /// Records that an answer was written, which allows one more reset.
    pub(super) fn on_answer(&self) {
        self.state().flood.on_answer();
    }
}

fn count_reset(by: &'static str, code: u32) {
    counter!("pointsman_client_stream_resets_total", "by" => by, "reason" => reason_name(code)).increment(1);
}

/// Returns the name of an error code, as a label.
fn reason_name(code: u32) -> &'static str {
    const NAMES: [&str; 14] = [
        "no_error",
        "protocol_error",
        "internal_error",
        "flow_control_error",
        "settings_timeout",
        "stream_closed",
        "frame_size_error",
        "refused_stream",
        "cancel",
        "compression_error",
        "connect_error",
        "enhance_your_calm",
        "inadequate_security",
        "http_1_1_required",
    ];
    usize::try_from(code).ok().and_then(|code| NAMES.get(code)).copied().unwrap_or("other")
}

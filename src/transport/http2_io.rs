//! The bytes of an HTTP/2 connection to a service, and those facts in its frames that hyper does not report.
//!
//! Always true: hyper gets the bytes as they came, except empty DATA frames ([`EmptyDataFilter`]); only the heads of
//! frames and the first bytes of GOAWAY and RST_STREAM are read here.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

use super::empty_data::EmptyDataFilter;
use super::frame::{DATA, END_STREAM, FRAME_HEAD_BYTES, length_of};
use super::stream::ServiceStream;

/// The first field of a payload: the last stream of a GOAWAY, the error code of an RST_STREAM.
const FIELD_BYTES: usize = 4;
/// The types of frames.
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
/// Error codes of a reset that hyper takes for the end of a body.
const NO_ERROR: u32 = 0;
const CANCEL: u32 = 8;
/// How many ended streams are remembered: a reset follows the end of its stream closely.
const ENDED_STREAMS_MAX: usize = 128;
/// The largest stream id. A GOAWAY with it announces the end, and does not say yet which stream is the last.
const NO_LAST_STREAM: u32 = (1 << 31) - 1;

/// State that the connection's task shares with the [`Http2Io`] that it polls. Only that task holds and releases
/// reads; the tasks of requests only ask how many requests the peer processes.
#[derive(Default)]
pub(super) struct IoState {
    reads_are_held: AtomicBool,
    /// Wakes the read that waits while reads are held.
    reader: AtomicWaker,
    /// One more than the id of the last stream that the peer processes; 0 as long as the peer has not named one.
    last_stream: AtomicU32,
    /// Whether the peer has reset a stream before its end with a code that hyper takes for the end of the body.
    has_cut_streams: AtomicBool,
}

impl IoState {
    /// Makes reads wait until [`Self::release_reads`] is called.
    pub(super) fn hold_reads(&self) {
        self.reads_are_held.store(true, Relaxed);
    }
    /// Lets reads go on.
    pub(super) fn release_reads(&self) {
        self.reads_are_held.store(false, Relaxed);
        self.reader.wake();
    }
    /// Whether the peer has reset a stream before its end with a code that hyper takes for the end of the body.
    pub(super) fn has_cut_streams(&self) -> bool {
        self.has_cut_streams.load(Relaxed)
    }
    /// Returns how many requests the peer has processed or still processes, if it has named the last one.
    pub(super) fn requests_processed(&self) -> Option<usize> {
        // A client's streams have odd numbers.
        let last_stream = self.last_stream.load(Relaxed).checked_sub(1)?;
        usize::try_from(last_stream.div_ceil(2)).ok()
    }
}

/// The byte stream of a connection, which inspects the frames that are read.
pub(super) struct Http2Io {
    stream: ServiceStream,
    state: Arc<IoState>,
    opening: Opening,
    frames: FrameHeads,
    empty_data: EmptyDataFilter,
}

/// The first frame that the peer sends.
struct Opening {
    /// The frame, as far as it was read.
    first: Vec<u8>,
    /// Gets whether the frame has the peer's settings; `None` once that was sent.
    settings: Option<oneshot::Sender<bool>>,
}

impl Http2Io {
    /// The receiver tells when the first frame has been read, and whether it has the peer's settings.
    pub(super) fn new(stream: ServiceStream, state: Arc<IoState>) -> (Self, oneshot::Receiver<bool>) {
        let (sender, receiver) = oneshot::channel();
        let opening = Opening { first: Vec::new(), settings: Some(sender) };
        // A server has no preface but its SETTINGS frame.
        let (frames, empty_data) = (FrameHeads::default(), EmptyDataFilter::new(0));
        (Self { stream, state, opening, frames, empty_data }, receiver)
    }
}

impl Opening {
    /// Takes bytes that were read, and tells the receiver once the first frame is known.
    fn feed(&mut self, read: &[u8]) {
        if self.settings.is_none() {
            return;
        }
        // Settings are small: more than this is something else.
        const BYTES_MAX: usize = 4 << 10;
        self.first.extend_from_slice(&read[..read.len().min(BYTES_MAX - self.first.len())]);
        let is_settings = self.first.get(3).is_none_or(|kind| *kind == SETTINGS);
        let length = self.first.get(..3).map_or(0, length_of);
        let is_whole = self.first.len() >= FRAME_HEAD_BYTES + length;
        if (!is_settings || is_whole || self.first.len() >= BYTES_MAX)
            && let Some(settings) = self.settings.take()
        {
            let _ = settings.send(is_settings && is_whole);
            self.first = Vec::new();
        }
    }
}

/// What is learned from a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FrameFinding {
    /// The peer ends the connection; this is the last stream that it processes.
    GoingAway(u32),
    /// The peer has reset a stream before its end, with a code that hyper takes for the end of the body.
    Cut,
}

/// Finds the heads of frames in the bytes that are read.
#[derive(Default)]
struct FrameHeads {
    head: [u8; FRAME_HEAD_BYTES + FIELD_BYTES],
    /// How many bytes of `head` were read.
    read: usize,
    /// How many bytes are left of the payload of the frame before.
    payload: usize,
    /// The streams that ended last.
    ended: VecDeque<u32>,
}

impl FrameHeads {
    /// Takes bytes that were read, and calls `report` for each frame from which something is learned.
    fn feed(&mut self, mut bytes: &[u8], mut report: impl FnMut(FrameFinding)) {
        while !bytes.is_empty() {
            if self.payload > 0 {
                let skipped = self.payload.min(bytes.len());
                self.payload -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            let is_field_wanted = self.read >= FRAME_HEAD_BYTES;
            let wanted = if is_field_wanted { self.head.len() } else { FRAME_HEAD_BYTES };
            let taken = (wanted - self.read).min(bytes.len());
            self.head[self.read..self.read + taken].copy_from_slice(&bytes[..taken]);
            self.read += taken;
            bytes = &bytes[taken..];
            if self.read < wanted {
                continue;
            }
            let length = length_of(&self.head);
            let has_field = matches!(self.head[3], GOAWAY | RST_STREAM) && length >= FIELD_BYTES;
            match (is_field_wanted, has_field) {
                (false, true) => {}
                (false, false) => {
                    self.note_end();
                    (self.read, self.payload) = (0, length);
                }
                (true, _) => {
                    self.finding().into_iter().for_each(&mut report);
                    (self.read, self.payload) = (0, length - FIELD_BYTES);
                }
            }
        }
    }

    fn number_at(&self, index: usize) -> u32 {
        u32::from_be_bytes(std::array::from_fn(|byte| self.head[index + byte]))
    }

    fn stream(&self) -> u32 {
        self.number_at(FRAME_HEAD_BYTES - 4) & NO_LAST_STREAM
    }

    /// Remembers the stream of the frame if it ends here.
    fn note_end(&mut self) {
        if matches!(self.head[3], DATA | HEADERS) && self.head[4] & END_STREAM != 0 {
            if self.ended.len() == ENDED_STREAMS_MAX {
                self.ended.pop_front();
            }
            self.ended.push_back(self.stream());
        }
    }

    /// Returns what is learned from a frame whose head and first field were read.
    fn finding(&self) -> Option<FrameFinding> {
        let field = self.number_at(FRAME_HEAD_BYTES);
        if self.head[3] == GOAWAY {
            return Some(FrameFinding::GoingAway(field & NO_LAST_STREAM));
        }
        // A reset after the end of the stream cuts nothing: the service has sent its whole answer, and wants no more of
        // the request.
        let is_cut = matches!(field, NO_ERROR | CANCEL) && !self.ended.contains(&self.stream());
        is_cut.then_some(FrameFinding::Cut)
    }
}

impl AsyncRead for Http2Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.state.reads_are_held.load(Relaxed) {
            self.state.reader.register(cx.waker());
            return Poll::Pending;
        }
        let Self { stream, state, opening, frames, empty_data } = &mut *self;
        empty_data.poll_read(buf, |buf| {
            let before = buf.filled().len();
            ready!(Pin::new(&mut *stream).poll_read(cx, buf))?;
            let read = &buf.filled()[before..];
            opening.feed(read);
            frames.feed(read, |finding| match finding {
                FrameFinding::GoingAway(NO_LAST_STREAM) => {}
                FrameFinding::GoingAway(last_stream) => state.last_stream.store(last_stream + 1, Relaxed),
                FrameFinding::Cut => state.has_cut_streams.store(true, Relaxed),
            });
            Poll::Ready(Ok(()))
        })
    }
}

impl AsyncWrite for Http2Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        frame_of(kind, 0, 0, payload)
    }

    fn frame_of(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    /// What is found in the bytes, the same in whatever pieces they come.
    fn found(bytes: &[u8]) -> Vec<FrameFinding> {
        let in_pieces = |size: usize| {
            let (mut frames, mut found) = (FrameHeads::default(), Vec::new());
            bytes.chunks(size).for_each(|chunk| frames.feed(chunk, |finding| found.push(finding)));
            found
        };
        let whole = in_pieces(bytes.len());
        (1..bytes.len()).for_each(|size| assert_eq!(in_pieces(size), whole, "in pieces of {size}"));
        whole
    }

    #[test]
    fn the_last_stream_is_found_however_the_bytes_come() {
        let goaway = |last: u32| frame(GOAWAY, &[last.to_be_bytes(), [0; 4]].concat());
        // The payload of the DATA frame looks like a GOAWAY frame.
        let data = frame(DATA, &goaway(99));
        let bytes = [frame(SETTINGS, &[]), data, goaway(NO_LAST_STREAM), frame(GOAWAY, b"abc"), goaway(13)].concat();
        assert_eq!(found(&bytes), [FrameFinding::GoingAway(NO_LAST_STREAM), FrameFinding::GoingAway(13)]);
    }

    #[test]
    fn a_reset_without_an_error_cuts_a_stream_that_has_not_ended() {
        let reset = |stream: u32, code: u32| frame_of(RST_STREAM, 0, stream, &code.to_be_bytes());
        let ended = [frame_of(HEADERS, 4, 1, b"head"), frame_of(DATA, END_STREAM, 1, b"whole"), reset(1, NO_ERROR)];
        assert_eq!(found(&ended.concat()), []);
        let by_trailers = [frame_of(HEADERS, 4 | END_STREAM, 3, b"trailers"), reset(3, CANCEL)];
        assert_eq!(found(&by_trailers.concat()), []);
        let of_another = [frame_of(DATA, END_STREAM, 1, b"whole"), frame_of(DATA, 0, 5, b"part"), reset(5, NO_ERROR)];
        assert_eq!(found(&of_another.concat()), [FrameFinding::Cut]);
        // hyper itself reports these.
        assert_eq!(found(&reset(7, 2)), []);
    }
}

//! The bytes of an HTTP/2 connection to a service, and what its frames tell beside what hyper tells.
//!
//! Always true: hyper gets the bytes as they came; only the heads of frames and the first bytes of GOAWAY are looked
//! at.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

use super::stream::ServiceStream;

/// The head of a frame.
const FRAME_HEAD_BYTES: usize = 9;
/// The head of a GOAWAY frame, and the last stream that it names.
const GOAWAY_BYTES: usize = FRAME_HEAD_BYTES + 4;
/// The types of frames.
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
/// The largest id. A GOAWAY that names it announces the end, and does not say yet which stream is the last.
const NO_LAST_STREAM: u32 = (1 << 31) - 1;

/// State that the connection's task shares with its stream. Only that task uses both.
#[derive(Default)]
pub(super) struct IoState {
    reads_are_held: AtomicBool,
    /// Wakes the read that waits meanwhile.
    reader: AtomicWaker,
    /// One more than the last stream that the peer processes; 0 as long as it has not named one.
    last_stream: AtomicU32,
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
    /// How many requests the peer has processed or still processes, if it has named the last one.
    pub(super) fn requests_processed(&self) -> Option<usize> {
        // A client's streams have odd numbers.
        let last_stream = self.last_stream.load(Relaxed).checked_sub(1)?;
        usize::try_from(last_stream.div_ceil(2)).ok()
    }
}

/// A stream that looks at the frames that are read.
pub(super) struct Http2Io {
    stream: ServiceStream,
    state: Arc<IoState>,
    /// The first frame, as far as it was read.
    first: Vec<u8>,
    settings: Option<oneshot::Sender<bool>>,
    frames: FrameHeads,
}

impl Http2Io {
    /// The receiver tells when the first frame has been read, and whether it has the peer's settings.
    pub(super) fn new(stream: ServiceStream, state: Arc<IoState>) -> (Self, oneshot::Receiver<bool>) {
        let (sender, receiver) = oneshot::channel();
        let (first, frames) = (Vec::new(), FrameHeads::default());
        (Self { stream, state, first, settings: Some(sender), frames }, receiver)
    }

    fn look_for_settings(&mut self, read: &[u8]) {
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

/// The length of a frame's payload, by the first three bytes of its head.
fn length_of(head: &[u8]) -> usize {
    head.iter().take(3).fold(0, |length, byte| length << 8 | usize::from(*byte))
}

/// Finds the heads of frames in the bytes that are read.
#[derive(Default)]
struct FrameHeads {
    head: [u8; GOAWAY_BYTES],
    /// How much of it was read.
    read: usize,
    /// What is left of the payload of the frame before.
    payload: usize,
}

impl FrameHeads {
    /// Calls `going_away` with the last stream of each GOAWAY.
    fn look_at(&mut self, mut bytes: &[u8], mut going_away: impl FnMut(u32)) {
        while !bytes.is_empty() {
            if self.payload > 0 {
                let skipped = self.payload.min(bytes.len());
                self.payload -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            let length = length_of(&self.head);
            let has_last_stream = self.head[3] == GOAWAY && length >= GOAWAY_BYTES - FRAME_HEAD_BYTES;
            let wanted = if self.read >= FRAME_HEAD_BYTES && has_last_stream { GOAWAY_BYTES } else { FRAME_HEAD_BYTES };
            let taken = (wanted - self.read).min(bytes.len());
            self.head[self.read..self.read + taken].copy_from_slice(&bytes[..taken]);
            self.read += taken;
            bytes = &bytes[taken..];
            let length = length_of(&self.head);
            match self.read {
                GOAWAY_BYTES => {
                    let last_stream: [u8; 4] = std::array::from_fn(|index| self.head[FRAME_HEAD_BYTES + index]);
                    going_away(u32::from_be_bytes(last_stream) & NO_LAST_STREAM);
                    (self.read, self.payload) = (0, length - (GOAWAY_BYTES - FRAME_HEAD_BYTES));
                }
                FRAME_HEAD_BYTES if self.head[3] != GOAWAY || length < GOAWAY_BYTES - FRAME_HEAD_BYTES => {
                    (self.read, self.payload) = (0, length);
                }
                _ => {}
            }
        }
    }
}

impl AsyncRead for Http2Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.state.reads_are_held.load(Relaxed) {
            self.state.reader.register(cx.waker());
            return Poll::Pending;
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let (this, read) = (&mut *self, &buf.filled()[before..]);
        if this.settings.is_some() {
            this.look_for_settings(read);
        }
        let state = &this.state;
        this.frames.look_at(read, |last_stream| {
            if last_stream < NO_LAST_STREAM {
                state.last_stream.store(last_stream + 1, Relaxed);
            }
        });
        Poll::Ready(Ok(()))
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
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, 0], &[0; 4], payload].concat()
    }

    #[test]
    fn the_last_stream_is_found_however_the_bytes_come() {
        let goaway = |last: u32| frame(GOAWAY, &[last.to_be_bytes(), [0; 4]].concat());
        // The payload of the DATA frame looks like a GOAWAY frame.
        let data = frame(0, &goaway(99));
        let bytes = [frame(SETTINGS, &[]), data, goaway(NO_LAST_STREAM), frame(GOAWAY, b"abc"), goaway(13)].concat();
        for size in 1..=bytes.len() {
            let (mut frames, mut found) = (FrameHeads::default(), Vec::new());
            bytes.chunks(size).for_each(|chunk| frames.look_at(chunk, |last_stream| found.push(last_stream)));
            assert_eq!(found, [NO_LAST_STREAM, 13], "in pieces of {size}");
        }
    }
}

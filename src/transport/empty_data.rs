//! Leaves DATA frames without content out of the bytes of an HTTP/2 connection, unless they end their stream.
//!
//! The h2 crate closes a connection after 100 such frames, however long the connection lasts, because they cost the
//! receiver work and the sender no flow-control window. But some servers send them without meaning harm: those that
//! pass on each chunk of a body, also an empty one. The frames of clients have a limit in time of their own
//! (`client_http2_control_frames_max`). Always true: all other bytes pass unchanged and in their order; the head of a
//! frame is held back until it is whole.

use std::io;
use std::task::{Poll, ready};

use tokio::io::ReadBuf;

use super::frame::{DATA, END_STREAM, FRAME_HEAD_BYTES, length_of};

/// A caller's buffer with less room than this is filled through a buffer of this size.
const ROOM_MIN: usize = 64;

/// The result of one read.
#[derive(PartialEq, Eq)]
enum ReadResult {
    /// Some of the bytes pass.
    Passed,
    /// All bytes are left out or held back.
    NothingPassed,
    /// The peer sends no more bytes.
    AtEnd,
}

/// The state of one direction of one connection.
pub struct EmptyDataFilter {
    /// How many bytes pass before the next frame begins.
    passing: usize,
    /// The first bytes of a frame's head, held back until the head is whole.
    held: [u8; FRAME_HEAD_BYTES],
    held_count: usize,
    /// Bytes that have passed and found no room in the caller's buffer.
    waiting: Vec<u8>,
}

impl EmptyDataFilter {
    /// Creates a filter for a direction whose first frame begins after this many bytes.
    pub fn new(preface_bytes: usize) -> Self {
        Self { passing: preface_bytes, held: [0; FRAME_HEAD_BYTES], held_count: 0, waiting: Vec::new() }
    }

    /// Reads into `buf` by calling `read`, which adds bytes to the buffer that it gets, and adds none if the peer sends
    /// no more.
    pub fn poll_read(
        &mut self,
        buf: &mut ReadBuf<'_>,
        mut read: impl FnMut(&mut ReadBuf<'_>) -> Poll<io::Result<()>>,
    ) -> Poll<io::Result<()>> {
        loop {
            if !self.waiting.is_empty() {
                let count = self.waiting.len().min(buf.remaining());
                buf.put_slice(&self.waiting[..count]);
                self.waiting.drain(..count);
                return Poll::Ready(Ok(()));
            }
            if buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            let step = if buf.remaining() >= ROOM_MIN {
                ready!(self.poll_filtered(buf, &mut read))?
            } else {
                let mut room = [0; ROOM_MIN];
                let mut scratch = ReadBuf::new(&mut room);
                let step = ready!(self.poll_filtered(&mut scratch, &mut read))?;
                self.waiting.extend_from_slice(scratch.filled());
                if step == ReadResult::Passed { continue } else { step }
            };
            match step {
                ReadResult::NothingPassed => {}
                ReadResult::Passed | ReadResult::AtEnd => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Reads once, and adds to the buffer what passes.
    fn poll_filtered(
        &mut self,
        buf: &mut ReadBuf<'_>,
        read: &mut impl FnMut(&mut ReadBuf<'_>) -> Poll<io::Result<()>>,
    ) -> Poll<io::Result<ReadResult>> {
        let start = buf.filled().len();
        buf.put_slice(&self.held[..self.held_count]);
        let before = buf.filled().len();
        let polled = read(buf);
        if !matches!(polled, Poll::Ready(Ok(()))) || buf.filled().len() == before {
            buf.set_filled(start);
            return polled.map_ok(|()| ReadResult::AtEnd);
        }
        let passed = self.filter(&mut buf.filled_mut()[start..]);
        buf.set_filled(start + passed);
        Poll::Ready(Ok(if passed == 0 { ReadResult::NothingPassed } else { ReadResult::Passed }))
    }

    /// Moves the bytes that pass to the front, and returns their number.
    fn filter(&mut self, bytes: &mut [u8]) -> usize {
        let (mut from, mut to) = (0, 0);
        self.held_count = 0;
        while from < bytes.len() {
            if self.passing == 0 {
                let Some((head, _)) = bytes[from..].split_first_chunk::<FRAME_HEAD_BYTES>() else {
                    let rest = &bytes[from..];
                    self.held[..rest.len()].copy_from_slice(rest);
                    self.held_count = rest.len();
                    break;
                };
                let length = length_of(head);
                if head[3] == DATA && length == 0 && head[4] & END_STREAM == 0 {
                    from += FRAME_HEAD_BYTES;
                    continue;
                }
                self.passing = FRAME_HEAD_BYTES + length;
            }
            let count = self.passing.min(bytes.len() - from);
            if to != from {
                bytes.copy_within(from..from + count, to);
            }
            (from, to, self.passing) = (from + count, to + count, self.passing - count);
        }
        to
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    /// What is read of these bytes, which come in pieces of one size into buffers of another size.
    fn passed(bytes: &[u8], preface: usize, piece: usize, room: usize) -> Vec<u8> {
        let (mut filter, mut pieces, mut all) = (EmptyDataFilter::new(preface), bytes.chunks(piece), Vec::new());
        let mut rest: &[u8] = &[];
        loop {
            let mut memory = vec![0; room];
            let mut buf = ReadBuf::new(&mut memory);
            let read = filter.poll_read(&mut buf, |buf| {
                if rest.is_empty() {
                    rest = pieces.next().unwrap_or_default();
                }
                let count = rest.len().min(buf.remaining());
                buf.put_slice(&rest[..count]);
                rest = &rest[count..];
                Poll::Ready(Ok(()))
            });
            assert!(matches!(read, Poll::Ready(Ok(()))));
            if buf.filled().is_empty() {
                return all;
            }
            all.extend_from_slice(buf.filled());
        }
    }

    #[test]
    fn only_empty_data_that_ends_nothing_is_left_out_however_the_bytes_come() {
        let (empty, last, data) = (frame(DATA, 0, b""), frame(DATA, END_STREAM, b""), frame(DATA, 0, &empty_like()));
        let (head, settings) = (frame(1, 4, b"head"), frame(4, 0, b""));
        let all = [&b"preface"[..], &settings, &empty, &empty, &head, &data, &empty, &data, &last, &empty].concat();
        let expected = [&b"preface"[..], &settings, &head, &data, &data, &last].concat();
        for piece in 1..all.len() {
            for room in [1, 2, 9, 63, 64, 200] {
                assert_eq!(passed(&all, 7, piece, room), expected, "pieces of {piece}, room for {room}");
            }
        }
    }

    /// A payload that looks like an empty DATA frame.
    fn empty_like() -> Vec<u8> {
        frame(DATA, 0, b"")
    }

    #[test]
    fn a_read_that_waits_keeps_what_is_held() {
        let mut filter = EmptyDataFilter::new(0);
        let head = frame(6, 0, b"");
        let mut memory = [0; 100];
        let mut buf = ReadBuf::new(&mut memory);
        let mut reads = [Some(&head[..4]), None, Some(&head[4..])].into_iter();
        let mut read = |buf: &mut ReadBuf<'_>| match reads.next().flatten() {
            Some(bytes) => {
                buf.put_slice(bytes);
                Poll::Ready(Ok(()))
            }
            None => Poll::Pending,
        };
        assert!(filter.poll_read(&mut buf, &mut read).is_pending() && buf.filled().is_empty());
        assert!(filter.poll_read(&mut buf, &mut read).is_ready());
        assert_eq!(buf.filled(), head);
    }
}

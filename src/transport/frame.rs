//! The parts of an HTTP/2 frame's head (RFC 9113, 4.1) that this module reads in the bytes of a connection.

/// The size of a frame's head.
pub(super) const FRAME_HEAD_BYTES: usize = 9;
/// The type of a frame with a part of a body.
pub(super) const DATA: u8 = 0;
/// The flag of the last DATA or HEADERS frame of a stream.
pub(super) const END_STREAM: u8 = 1;

/// Returns the length of a frame's payload, which the first three bytes of its head contain.
pub(super) fn length_of(head: &[u8]) -> usize {
    head.iter().take(3).fold(0, |length, byte| length << 8 | usize::from(*byte))
}

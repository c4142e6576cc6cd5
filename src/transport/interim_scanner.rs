//! Finds the interim replies (1xx) that come over an HTTP/1.1 connection before the reply to a request.
//!
//! hyper consumes them and says nothing, unless it gets a callback with each request, which would cost three
//! allocations. Always true: only the first twelve bytes of a final reply are read here, and nothing of its body; `100
//! Continue` answers `Expect` and does not count; `101` is a final reply.

/// The position of the scan in the received bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum InterimScanner {
    /// No reply is awaited, or its status is known.
    #[default]
    Done,
    /// In a status line, before the end of the status.
    Status { at: usize, digits: [u8; 3] },
    /// In an interim reply, after its status.
    Fields { counts: bool, is_line_empty: bool },
}

/// The number of bytes before the status: `HTTP/1.1 `.
const BEFORE_STATUS: usize = 9;
const STATUS_END: usize = BEFORE_STATUS + 3;

impl InterimScanner {
    /// The state when a request is sent: the next bytes are the head of a reply.
    pub(super) fn begin() -> Self {
        Self::Status { at: 0, digits: [0; 3] }
    }

    /// Returns how many interim replies end in these bytes.
    pub(super) fn scan(&mut self, bytes: &[u8]) -> u64 {
        let mut found = 0;
        for byte in bytes {
            *self = match (*self, byte) {
                (Self::Done, _) => return found,
                // Empty lines may precede a head.
                (Self::Status { at: 0, .. }, b'\r' | b'\n') => continue,
                (Self::Status { at, mut digits }, byte) => {
                    if let Some(digit) = at.checked_sub(BEFORE_STATUS).and_then(|place| digits.get_mut(place)) {
                        *digit = *byte;
                    }
                    match digits {
                        _ if at + 1 < STATUS_END => Self::Status { at: at + 1, digits },
                        [b'1', rest @ ..] if rest != *b"01" => {
                            Self::Fields { counts: rest != *b"00", is_line_empty: false }
                        }
                        _ => Self::Done,
                    }
                }
                (Self::Fields { counts, is_line_empty: true }, b'\n') => {
                    found += u64::from(counts);
                    Self::begin()
                }
                (Self::Fields { counts, .. }, b'\n') => Self::Fields { counts, is_line_empty: true },
                (Self::Fields { .. }, b'\r') => continue,
                (Self::Fields { counts, .. }, _) => Self::Fields { counts, is_line_empty: false },
            };
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The count, if the bytes come in pieces of this size.
    fn count(bytes: &str, piece: usize) -> u64 {
        let mut scanner = InterimScanner::begin();
        let found = bytes.as_bytes().chunks(piece).map(|piece| scanner.scan(piece)).sum();
        assert_eq!(scanner, InterimScanner::Done, "{bytes:?}");
        found
    }

    #[test]
    fn interim_replies_are_counted_however_they_are_cut_and_bodies_are_not_read() {
        let last = "HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 103 no head\r\n\r\n";
        for (before, expected) in [
            ("", 0),
            ("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", 1),
            ("HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nA: 1\r\nB: 2\r\n\r\n", 2),
            ("HTTP/1.1 100 Continue\r\n\r\n", 0),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 199 X\n\n", 1),
            ("\r\nHTTP/1.1 103\r\n\r\n", 1),
        ] {
            for piece in [1, 2, 3, 7, 12, 13, 1_000] {
                assert_eq!(count(&format!("{before}{last}"), piece), expected, "{before:?} in pieces of {piece}");
            }
        }
        assert_eq!(count("HTTP/1.1 101 Switching Protocols\r\n\r\nHTTP/1.1 103 X\r\n\r\n", 5), 0);
        assert_eq!(InterimScanner::default().scan(b"HTTP/1.1 103 X\r\n\r\n"), 0, "nothing was asked for");
    }
}

//! Compares names of header fields as leniently as some servers do.

/// Whether some servers take these two names for the same field.
pub(super) fn is_read_as(name: &[u8], other: &[u8]) -> bool {
    let folded = |byte: &u8| if *byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    name.len() == other.len() && name.iter().map(folded).eq(other.iter().map(folded))
}

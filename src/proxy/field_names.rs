//! Compares names of header fields as lenient servers do.

/// Whether some servers take these names for the same one.
pub(super) fn is_read_as(name: &[u8], other: &[u8]) -> bool {
    let folded = |byte: &u8| if *byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    name.len() == other.len() && name.iter().map(folded).eq(other.iter().map(folded))
}

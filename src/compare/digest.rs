//! The text that is shown in place of bytes: their length and hash.

/// Returns the length and the hash of `bytes` as text, which is equal for equal bytes.
pub(super) fn digest(bytes: &[u8]) -> String {
    format!("{} bytes, digest {}", bytes.len(), &blake3::hash(bytes).to_hex()[..16])
}

//! How both formats render times and texts from a client.

use std::borrow::Cow;

use super::record::{RequestHead, Text, version_name};
use crate::secret::redact_line;

/// A target or a referer with the values of secret parameters replaced. Bytes that are not UTF-8 become U+FFFD.
pub(super) fn redacted(text: &Text) -> String {
    redact_line(&lossy(text))
}

/// Like [`redacted`], but what is not replaced consists of the very bytes that the client sent.
pub(super) fn redacted_bytes(text: &Text) -> Vec<u8> {
    // Each byte as the character of the same number: names of parameters and what separates them are ASCII.
    let characters: String = text.bytes().iter().copied().map(char::from).collect();
    redact_line(&characters).chars().map(|character| u8::try_from(character).unwrap_or(b'?')).collect()
}

/// The text; bytes that are not UTF-8 become U+FFFD.
pub(super) fn lossy(text: &Text) -> Cow<'_, str> {
    String::from_utf8_lossy(text.bytes())
}

/// A duration in milliseconds, with three decimals.
pub(super) fn milliseconds(time: std::time::Duration) -> String {
    let micros = time.as_micros();
    format!("{}.{:03}", micros / 1_000, micros % 1_000)
}

impl RequestHead {
    /// The path of the target, redacted like the target.
    pub fn redacted_path(&self) -> String {
        let mut path = redacted(&self.target);
        path.truncate(path.find('?').unwrap_or(path.len()));
        path
    }
    /// The version of HTTP as a number: `1.1`.
    pub fn version_name(&self) -> &'static str {
        version_name(self.version)
    }
}

//! How both formats render times and texts from a client.

use std::borrow::Cow;

use super::record::{RequestHead, Text, version_name};
use crate::secret::{STARS, redact_line, without_secret_params};

/// A target or a referer without what is secret in it. Bytes that are not UTF-8 become U+FFFD.
pub(super) fn redacted(head: &RequestHead, text: &Text) -> String {
    redact_line(&without_params(head, &lossy(text)))
}

/// Like [`redacted`], but what is not replaced consists of the very bytes that the client sent.
pub(super) fn redacted_bytes(head: &RequestHead, text: &Text) -> Vec<u8> {
    with_bytes(text, |characters| redact_line(&without_params(head, characters)))
}

/// A `user-agent` without what is secret in it. Bytes that are not UTF-8 become U+FFFD.
pub(super) fn redacted_agent(agent: &Text) -> String {
    redact_line(&lossy(agent))
}

/// Like [`redacted_agent`], but what is not replaced consists of the very bytes that the client sent.
pub(super) fn redacted_agent_bytes(agent: &Text) -> Vec<u8> {
    with_bytes(agent, redact_line)
}

fn with_bytes(text: &Text, redact: impl FnOnce(&str) -> String) -> Vec<u8> {
    // Each byte as the character of the same number: names of parameters and what separates them are ASCII.
    let characters: String = text.bytes().iter().copied().map(char::from).collect();
    redact(&characters).chars().map(|character| u8::try_from(character).unwrap_or(b'?')).collect()
}

/// A target or a referer without the parameters of the route's path that have secret names. The referer of a request is
/// often the page with the same path.
fn without_params<'t>(head: &RequestHead, text: &'t str) -> Cow<'t, str> {
    let Some(template) = &head.template else { return Cow::Borrowed(text) };
    let (before, rest) = match text.split_once("://") {
        Some((scheme, rest)) if !scheme.contains('/') => {
            text.split_at(scheme.len() + 3 + rest.find('/').unwrap_or(rest.len()))
        }
        Some(_) | None => ("", text),
    };
    let (path, behind) = rest.split_at(rest.find(['?', '#']).unwrap_or(rest.len()));
    match without_secret_params(path, template, STARS) {
        Cow::Borrowed(_) => Cow::Borrowed(text),
        Cow::Owned(path) => Cow::Owned(format!("{before}{path}{behind}")),
    }
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
        let mut path = redacted(self, &self.target);
        path.truncate(path.find('?').unwrap_or(path.len()));
        path
    }
    /// The version of HTTP as a number: `1.1`.
    pub fn version_name(&self) -> &'static str {
        version_name(self.version)
    }
}

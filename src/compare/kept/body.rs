//! A body as it is stored.

use bytes::Bytes;
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::mask::Placeholders;
use crate::compare::bounds::{BoundExceeded, CompareBounds};
use crate::compare::digest::digest;
use crate::compare::observation::Body;
use crate::compare::parsed_body::ParsedBody;
use crate::compare::redact;
use crate::compare::secret_lines::{SecretLines, with_content};
use crate::compare::structure::rendered_document;
use crate::secret::{STARS, redact_line};

/// A body without anything secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum KeptBody {
    /// There is none.
    Empty,
    /// JSON, or another text, with placeholders.
    Text(String),
    /// The digest of what is compared byte by byte: it is equal if the bytes are.
    Bytes(String),
    /// The digest of a text, of which nothing else is kept.
    Digest(String),
}

/// What may be kept of a text that has no structure.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Lines {
    /// Its lines: the route has `text:` rules, under which differences show them too.
    Kept,
    /// Its digest: a line has no key that tells whether it is secret.
    Digested,
}

/// What a [`KeptBody`] is made with.
pub(super) struct BodyMaking<'a> {
    /// The bounds within which it is read.
    pub bounds: &'a CompareBounds,
    /// Hides what is sensitive in it.
    pub hide: &'a dyn Fn(&mut Value),
    /// Whether the value under a name is secret.
    pub is_secret: &'a dyn Fn(&str) -> bool,
    /// Whether the time for the pair is over.
    pub expired: &'a dyn Fn() -> bool,
}

impl KeptBody {
    /// A body with a placeholder for everything that `hide` hides in it or that redaction replaces. Once the time is
    /// over, the result is of no use: the caller checks the time afterwards.
    pub(super) fn of(
        headers: &HeaderMap,
        body: &Body,
        lines: Lines,
        placeholders: &mut Placeholders,
        making: &BodyMaking<'_>,
    ) -> Result<Self, BoundExceeded> {
        let BodyMaking { bounds, hide, expired, .. } = making;
        let mut masked = |value: &Value| {
            let mut hidden = value.clone();
            hide(&mut hidden);
            if expired() {
                return Value::Null;
            }
            let redacted = redact::redact(&hidden);
            if expired() { Value::Null } else { placeholders.value(value, &redacted) }
        };
        Ok(match ParsedBody::of_parts(headers, body, bounds)? {
            ParsedBody::Empty => Self::Empty,
            ParsedBody::Json(value, repeated) if repeated.is_empty() => Self::Text(masked(&value).to_string()),
            ParsedBody::Json(value, _) => Self::Digest(digest(value.to_string().as_bytes())),
            ParsedBody::Bytes(bytes) => Self::Bytes(digest(&bytes)),
            ParsedBody::NotJson(text) => Self::Digest(digest(text.as_bytes())),
            ParsedBody::Text(text) => match rendered_document(headers, &text, bounds, &mut masked)? {
                Some(rendered) => Self::Text(rendered),
                None if lines == Lines::Kept => Self::lines(&text, placeholders, making),
                None => Self::Digest(digest(text.as_bytes())),
            },
        })
    }

    /// A text line by line.
    fn lines(text: &str, placeholders: &mut Placeholders, making: &BodyMaking<'_>) -> Self {
        let mut hidden = Value::from(text);
        (making.hide)(&mut hidden);
        let hidden = hidden.as_str().unwrap_or_default();
        if hidden.split('\n').count() != text.split('\n').count() {
            return Self::Digest(digest(text.as_bytes()));
        }
        let mut secret = SecretLines::of(making.is_secret);
        let line = |(line, hidden): (&str, &str)| {
            if secret.next(line).is_some() {
                return with_content(line, &placeholders.text(line.trim(), STARS));
            }
            let redacted = redact::line(&redact_line(hidden));
            placeholders.text(line, &redacted)
        };
        Self::Text(text.split('\n').zip(hidden.split('\n')).map(line).collect::<Vec<_>>().join("\n"))
    }

    /// The body as it is compared; `None` if nothing but the digest of a text is kept.
    pub(super) fn bytes(&self) -> Option<Bytes> {
        match self {
            Self::Empty => Some(Bytes::new()),
            Self::Text(text) | Self::Bytes(text) => Some(text.clone().into()),
            Self::Digest(_) => None,
        }
    }

    /// The body for people.
    pub(super) fn shown(&self) -> &str {
        match self {
            Self::Empty => "",
            Self::Text(text) | Self::Bytes(text) | Self::Digest(text) => text,
        }
    }
}

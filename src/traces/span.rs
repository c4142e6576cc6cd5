//! A span: something that was done, with its start, its end and the span that it is part of.

use http::Uri;
use jiff::Timestamp;

use super::context::TraceContext;
use crate::limits::SPAN_TEXT_BYTES_MAX;

/// The attribute with the method of a request.
pub const HTTP_METHOD: &str = "http.request.method";
/// The attribute with the status of a reply.
pub const HTTP_STATUS: &str = "http.response.status_code";

/// A span that has ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// The span and its trace.
    pub context: TraceContext,
    /// The span within which it was done.
    pub parent: Option<u64>,
    /// What was done. Made of names from the files, methods and words of ours, never of what a client sent.
    pub name: String,
    /// Its kind.
    pub kind: SpanKind,
    /// When it began.
    pub start: Timestamp,
    /// When it ended.
    pub end: Timestamp,
    /// What is known of it; no byte of a body, a query or a header.
    pub attributes: Attributes,
    /// Why it failed.
    pub error: Option<String>,
}

/// The kinds of spans. The numbers are those of OTLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    /// Work within the process.
    Internal = 1,
    /// A request that was answered.
    Server = 2,
    /// A request that was sent.
    Client = 3,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// A text.
    Text(String),
    /// A number.
    Number(u64),
}

impl From<&str> for Attribute {
    /// What is beyond `SPAN_TEXT_BYTES_MAX` is cut off.
    fn from(text: &str) -> Self {
        Self::Text(text[..text.floor_char_boundary(SPAN_TEXT_BYTES_MAX)].to_owned())
    }
}

impl From<u64> for Attribute {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

/// Attributes by their keys.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attributes(Vec<(&'static str, Attribute)>);

impl Attributes {
    /// No attributes.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds an attribute, if it has a value.
    pub fn add<T: Into<Attribute>>(&mut self, key: &'static str, value: Option<T>) {
        self.0.extend(value.map(|value| (key, value.into())));
    }

    /// Adds the host and the port of a URL.
    pub fn add_server(&mut self, uri: Option<&Uri>) {
        self.add("server.address", uri.and_then(Uri::host));
        let https = |uri: &Uri| uri.scheme_str() == Some("https");
        let port = uri.filter(|uri| uri.host().is_some()).map(|uri| match uri.port_u16() {
            Some(port) => port,
            None if https(uri) => 443,
            None => 80,
        });
        self.add("server.port", port.map(u64::from));
    }

    /// All attributes.
    pub fn iter(&self) -> impl Iterator<Item = &(&'static str, Attribute)> {
        self.0.iter()
    }
}

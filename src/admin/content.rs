//! What requests and responses of the API consist of, for their description.

use schemars::{Schema, SchemaGenerator};

/// Generates the schema of a type.
pub(super) type SchemaFn = fn(&mut SchemaGenerator) -> Schema;

/// The kind of content of a response.
#[derive(Clone, Copy)]
pub(super) enum Content {
    Json(SchemaFn),
    Text,
    /// Text, or HTML for a browser.
    TextOrHtml,
    /// Server-sent events.
    EventStream,
    /// Server-sent events that say what has changed.
    ChangeStream(SchemaFn),
    Empty,
}

/// A header that a request may have.
#[derive(Clone, Copy)]
pub(super) struct Header {
    pub name: &'static str,
    pub about: &'static str,
    /// A regular expression that the value matches, if its form is restricted.
    pub pattern: Option<&'static str>,
}

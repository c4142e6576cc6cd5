//! Places where it cannot be known whether the engine's value differs from a captured one, because the captured value
//! is redacted.
//!
//! The question it answers: "is it known whether these two values differ?" Of a redacted value a capture has a hash, so
//! that only a value that came from the capture too can be held against it. What the workflow has from elsewhere (a
//! constant, a computed value) may be equal to the value that legacy had.
//!
//! Always true: such a place is counted, and shown; it is no difference. Only a value under a name counts: a body of
//! which nothing but a hash is known differs from any other body.

use super::node::{Kind, Node};
use crate::secret::{REDACTED, STARS, is_redacted};

/// How the text begins that counts such a place beside the rules; its path follows.
pub const NOT_KNOWN: &str = "not known: ";

/// The places of one pair of which it is not known whether they differ.
#[derive(Debug, Default)]
pub(super) struct NotKnown {
    /// Whether legacy's side comes from a capture.
    is_captured: bool,
    paths: Vec<String>,
}

impl NotKnown {
    pub(super) fn of_capture(is_captured: bool) -> Self {
        Self { is_captured, paths: Vec::new() }
    }

    /// Whether it is not known if these texts differ.
    pub(super) fn covers_texts(&self, legacy: Option<&str>, engine: Option<&str>) -> bool {
        let is_from_capture = |text: &str| text.contains(REDACTED) || text.contains(STARS);
        self.is_captured && legacy.is_some_and(is_redacted) && engine.is_some_and(|engine| !is_from_capture(engine))
    }

    /// Whether it is not known if these values differ.
    pub(super) fn covers(&self, legacy: Option<Node<'_>>, engine: Option<Node<'_>>) -> bool {
        let (true, Some(legacy), Some(engine)) = (self.is_captured, legacy.and_then(Node::as_str), engine) else {
            return false;
        };
        match engine.kind() {
            Kind::String(engine) => self.covers_texts(Some(legacy), Some(engine)),
            // A redacted number is a text. Null, lists and maps are kept as they are.
            Kind::Number(_) | Kind::Bool(_) => is_redacted(legacy),
            Kind::Null | Kind::Array(_) | Kind::Object(_) => false,
        }
    }

    pub(super) fn add(&mut self, path: String) {
        self.paths.push(path);
    }

    /// How many were added.
    pub(super) fn len(&self) -> usize {
        self.paths.len()
    }

    /// Takes back what was added after the first so many.
    pub(super) fn truncate(&mut self, len: usize) {
        self.paths.truncate(len);
    }

    /// The places, each once, as texts that are counted beside the rules.
    pub(super) fn counted(mut self) -> Vec<(String, u32)> {
        self.paths.sort_unstable();
        self.paths.dedup();
        self.paths.into_iter().map(|path| (format!("{NOT_KNOWN}{path}"), 1)).collect()
    }
}

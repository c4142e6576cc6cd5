//! Places where it cannot be known whether the engine's value differs from a captured one, because the captured value
//! is redacted.
//!
//! Of a redacted value a capture has a hash, so that only a value that came from the capture too can be compared with
//! it. What the workflow has from elsewhere (a constant, a computed value) may be equal to the value that legacy had.
//! But one value cannot be equal to two different ones: over several pairs it may show that it differs
//! ([`UndecidedValues`]).
//!
//! Always true: such a place is counted, and shown; it is no difference of the pair. Only a value under a name counts:
//! a body of which nothing but a hash is known differs from any other body.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::node::{Kind, Node};
use super::value_path::ValuePath;
use crate::secret::{REDACTED, STARS, is_redacted};

/// Prefix of the text by which such a place is counted beside the rules; its path follows.
pub const NOT_KNOWN: &str = "not known: ";

/// The two values at a place of which it is not known whether they differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UndecidedValues {
    /// The place.
    pub path: String,
    /// A hash of legacy's redacted value: equal for equal values of all captures of one store.
    pub legacy: u64,
    /// A hash of the engine's value.
    pub engine: u64,
}

/// The places of one pair of which it is not known whether they differ.
#[derive(Debug, Default)]
pub(super) struct NotKnown {
    /// Whether legacy's side comes from a capture.
    is_captured: bool,
    values: Vec<UndecidedValues>,
}

impl NotKnown {
    pub(super) fn of_capture(is_captured: bool) -> Self {
        Self { is_captured, values: Vec::new() }
    }

    /// Whether it is not known if these texts differ.
    pub(super) fn covers_texts(&self, legacy: &str, engine: &str) -> bool {
        let is_from_capture = |text: &str| text.contains(REDACTED) || text.contains(STARS);
        self.is_captured && is_redacted(legacy) && !is_from_capture(engine)
    }

    /// Whether it is not known if these values at a path differ.
    pub(super) fn covers(&self, path: &ValuePath<'_>, (legacy, engine): (Node<'_>, Node<'_>)) -> bool {
        let (true, Some(legacy)) = (self.is_captured && path.keys().next().is_some(), legacy.as_str()) else {
            return false;
        };
        match engine.kind() {
            Kind::String(engine) => self.covers_texts(legacy, engine),
            // A redacted number, or boolean under a secret name, is a text. Null, lists and maps are kept as they are.
            Kind::Number(_) | Kind::Bool(_) => is_redacted(legacy),
            Kind::Null | Kind::Array(_) | Kind::Object(_) => false,
        }
    }

    /// Adds a place with its two texts.
    pub(super) fn add(&mut self, path: String, legacy: &str, engine: &str) {
        let hash = |text: &str| {
            let mut hasher = DefaultHasher::new();
            text.hash(&mut hasher);
            hasher.finish()
        };
        self.values.push(UndecidedValues { path, legacy: hash(legacy), engine: hash(engine) });
    }

    /// Adds a place with its two values.
    pub(super) fn add_values(&mut self, path: String, (legacy, engine): (Node<'_>, Node<'_>)) {
        self.add(path, &legacy.value().to_string(), &engine.value().to_string());
    }

    /// How many places were added.
    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    /// Keeps the first `len` places.
    pub(super) fn truncate(&mut self, len: usize) {
        self.values.truncate(len);
    }

    /// The places, each once, as texts that are counted beside the rules.
    pub(super) fn counted(&self) -> Vec<(String, u32)> {
        let mut paths: Vec<&String> = self.values.iter().map(|values| &values.path).collect();
        paths.sort_unstable();
        paths.dedup();
        paths.into_iter().map(|path| (format!("{NOT_KNOWN}{path}"), 1)).collect()
    }

    pub(super) fn into_values(self) -> Vec<UndecidedValues> {
        self.values
    }
}

//! What is compared: one request, and what each arm did with it.

use std::sync::Arc;

use serde_json::Value;

use super::effect::Effect;
use super::observation::Observation;

/// Replaces the sensitive values of the engine's run.
pub trait HidesSensitive {
    /// In a value.
    fn hide_in_value(&self, value: &mut Value);
    /// In a text.
    fn hide_in_text(&self, text: &str) -> String;
}

/// One request, what both arms did with it, and what is known of how they did.
pub struct Pair<'a> {
    /// What legacy did.
    pub legacy: &'a Observation,
    /// What the engine did.
    pub engine: &'a Observation,
    /// The calls that legacy made to other services; `None` where they were not watched, and nothing about them is
    /// judged.
    pub effects: Option<&'a [Arc<Effect>]>,
    /// The request, as expressions see it.
    pub request: &'a Value,
    /// The engine read its data after legacy had changed it: differences in the body are of kind `stale_read`.
    pub stale_reads: bool,
    /// Hides what is sensitive in a value before anything else in it is redacted; `None` where nothing is.
    pub sensitive: Option<&'a dyn HidesSensitive>,
}

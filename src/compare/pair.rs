//! The input of a comparison: one request, and what each arm did with it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::effect::Effect;
use super::observation::Observation;

/// Replaces the sensitive values of the engine's run.
pub trait HidesSensitive {
    /// Replaces the sensitive values in a JSON value.
    fn hide_in_value(&self, value: &mut Value);
    /// Returns a text with the sensitive values replaced.
    fn hide_in_text(&self, text: &str) -> String;
}

/// The ids that the two arms gave to one instance, as text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceIds {
    /// Legacy's.
    pub legacy: String,
    /// The engine's.
    pub engine: String,
}

/// One request, what both arms did with it, and the circumstances that the comparison has to know.
pub struct Pair<'a> {
    /// What legacy did.
    pub legacy: &'a Observation,
    /// What the engine did.
    pub engine: &'a Observation,
    /// The calls that legacy made to other services; `None` if they were not watched, in which case nothing about them
    /// is judged.
    pub effects: Option<&'a [Arc<Effect>]>,
    /// The request, as expressions see it.
    pub request: &'a Value,
    /// Of a follow-up whose instance has a twin: legacy's id of the instance, and the engine's.
    pub instance: Option<&'a InstanceIds>,
    /// Whether the engine read data after legacy had changed it: differences in the body are then of kind `stale_read`.
    pub stale_reads: bool,
    /// Hides the sensitive parts of a value before anything else in it is redacted; `None` if nothing is sensitive.
    pub sensitive: Option<&'a dyn HidesSensitive>,
}

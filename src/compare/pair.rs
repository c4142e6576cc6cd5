//! What is compared: one request, and what each arm did with it.

use super::observation::Observation;

/// One request, what both arms did with it, and what is known of how they did.
pub struct Pair<'a> {
    /// What legacy did.
    pub legacy: &'a Observation,
    /// What the engine did.
    pub engine: &'a Observation,
    /// The request, as expressions see it.
    pub request: &'a serde_json::Value,
    /// The engine read its data after legacy had changed it: differences in the body are of kind `stale_read`.
    pub stale_reads: bool,
}

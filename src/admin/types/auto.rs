//! How far the share of a route is that grows by itself (`auto:`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How far the share of a route is on its way to the next one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AutoRow {
    /// The next share, in percent.
    pub next: f64,
    /// How long it is until the present share has had its time, in seconds.
    pub due_in_s: u64,
    /// The requests with the present share: answers of the engine in a row without an error in `live`, else compared
    /// pairs.
    pub requests: u64,
    /// How many of these it takes.
    pub requests_wanted: u64,
    /// What else holds the next share, as sentences.
    pub held: Vec<String>,
}

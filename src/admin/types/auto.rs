//! Progress of a share that grows by itself (`auto:`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Progress towards the route's next share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AutoRow {
    /// The next share, in percent.
    pub next: f64,
    /// Seconds until the present share has been in force for `auto.each`.
    pub due_in_s: u64,
    /// Requests counted with the present share: in `live`, consecutive answers of the engine without an error; else
    /// compared pairs.
    pub requests: u64,
    /// How many of these it takes.
    pub requests_wanted: u64,
    /// What else blocks the next share, as sentences.
    pub held: Vec<String>,
}

//! Captures, as the API returns them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Some captures of a route.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CapturePage {
    /// The captures, in the order in which they were stored. Their form is that of the topic `captures`.
    pub captures: Vec<Value>,
    /// The position of the last of them: the next page begins after it. `null` if there is none.
    pub next: Option<u64>,
}

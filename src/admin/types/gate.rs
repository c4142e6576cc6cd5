//! What a route still needs for its next rung, in short.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::evidence::GateVerdict;
use crate::flag::State;

/// The gate to the next rung. `GET /api/v2/routes/{id}` has all of its conditions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GateRow {
    /// The rung.
    pub to: State,
    /// The verdict.
    pub verdict: GateVerdict,
    /// The first thing that is missing, as a sentence; `null` if the gate is open.
    pub needs: Option<String>,
    /// How many other things are missing.
    pub more: u64,
}

//! The gates that a flip passed or overrode, as they were judged.

use serde::{Deserialize, Serialize};

/// A gate on the way of a flip.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JudgedGate {
    /// The state, or the stage of a candidate, below it.
    pub from: String,
    /// The state, or the stage of a candidate, above it.
    pub to: String,
    /// Its conditions, whether they held or not.
    pub conditions: Vec<JudgedCondition>,
}

/// A condition of a gate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JudgedCondition {
    /// The key of `promote:` that sets it, or another name; `other` for what is no condition on the route's evidence.
    pub name: String,
    /// `pass`, or why it did not hold.
    pub verdict: String,
    /// What `promote:` wanted; `None` where no key sets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted: Option<String>,
    /// What was found, as a sentence; cut if it is long.
    pub found: String,
}

//! That the guard has stopped the candidate of a route: a condition of the candidate's gate.
//!
//! Always true: it belongs to the evidence, so that it holds for as long as that does: over a restart, and if a change
//! of the files is taken back. It ends with new evidence, of files with which the candidate may answer otherwise, or
//! when a person passes the gate by force.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::part_names::{LEGACY_PARTS, RULES};

/// The guard has set the share of a candidate to 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GuardStop {
    /// When.
    pub at: Timestamp,
    /// What it found, as a sentence.
    pub why: String,
}

/// Whether a change of these parts of the basis leaves what the candidate answers as it was: then it stays stopped.
pub(super) fn is_kept(changed: &[&String]) -> bool {
    changed.iter().all(|part| *part == RULES || LEGACY_PARTS.contains(&part.as_str()))
}

//! That the guard has stopped the candidate of a route: a condition of the candidate's gate.
//!
//! Always true: it belongs to the evidence, so that it holds for as long as that does: over a restart, and if a change
//! of the files is taken back. It ends with new evidence, of files with which the candidate may answer otherwise, or
//! when a person passes the gate by force.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::basis::{BasisParts, EvidenceBasis};
use crate::names::PlanId;

/// The guard has set the share of a candidate to 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GuardStop {
    /// When.
    pub at: Timestamp,
    /// What it found, as a sentence.
    pub why: String,
}

/// Whether the candidate of these plan and parts answers as it did under this basis: then it stays stopped. So it does
/// after a change of anything but its workflow, the workflows that this runs, and the addresses of the services that
/// they call; and if it is not known what changed.
pub(super) fn is_same_candidate((plan, before): (Option<&PlanId>, &BasisParts), now: &EvidenceBasis) -> bool {
    // An earlier version stored no parts, and the plan is not known after a restart.
    let has_other_plan = plan.is_some_and(|plan| now.plan.as_ref().is_some_and(|now| plan != now));
    let is_same = |part: &String| before.hashes.get(part) == now.parts.hashes.get(part);
    !has_other_plan && (before.hashes.is_empty() || now.own_parts.iter().all(is_same))
}

//! Records that the guard has stopped the candidate of a route, which shuts the candidate's gate.
//!
//! Always true: the record is a part of the evidence. So it survives a restart of the process, and it returns with its
//! evidence if a change of the files is taken back. It ends when the files change so that the candidate may answer
//! otherwise, or when a person passes the gate by force.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::basis::{BasisParts, EvidenceBasis};
use crate::names::PlanId;

/// The guard has set the share of a candidate to 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GuardStop {
    /// When it did so.
    pub at: Timestamp,
    /// What the guard found, as a sentence.
    pub why: String,
}

/// Whether the candidate answers under the basis `now` as it did with the plan and the parts before: then it stays
/// stopped. It answers otherwise only if one of these changed: its workflow, the workflows that this one runs, or the
/// addresses of the services that they call. If it is not known what changed, the candidate stays stopped.
pub(super) fn is_same_candidate((plan, before): (Option<&PlanId>, &BasisParts), now: &EvidenceBasis) -> bool {
    // An earlier version stored no parts, and the plan is not known after a restart.
    let has_other_plan = plan.is_some_and(|plan| now.plan.as_ref().is_some_and(|now| plan != now));
    let is_same = |part: &String| before.hashes.get(part) == now.parts.hashes.get(part);
    !has_other_plan && (before.hashes.is_empty() || now.own_parts.iter().all(is_same))
}

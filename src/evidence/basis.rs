//! What the evidence of a route depends on, as hashes.

use std::collections::BTreeMap;

use crate::names::PlanId;

/// What the evidence of a route depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EvidenceBasis {
    /// A hash of all of it.
    pub hash: String,
    /// A hash of each part, by the name of the part as [`changed`](super::EvidenceRestart::changed) lists it.
    pub parts: BTreeMap<String, String>,
    /// The plan of the route's own workflow.
    pub plan: Option<PlanId>,
    /// A hash of what legacy's replies and their comparison depend on; empty if the route is not declared safe to
    /// repeat.
    pub noise: String,
    /// As `noise`, without the rules.
    pub noise_apart_from_rules: String,
    /// The rules as JSON; empty if they compare nothing of the replies.
    pub rules: String,
}

impl From<&str> for EvidenceBasis {
    fn from(hash: &str) -> Self {
        Self { hash: hash.to_owned(), ..Self::default() }
    }
}

//! What the first event of a child run says of the approvals above it; `least_approval` decides by it.

use serde::{Deserialize, Serialize};

use super::Risk;

/// The approval of the `run` step that began a child, together with those of the `run` steps above that one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalAbove {
    /// The highest risk at which people were asked.
    pub risk: Risk,
    /// Who could answer; empty means everybody who may decide.
    pub who: Vec<String>,
}

impl ApprovalAbove {
    /// This approval together with one below it: the higher risk, and the people who were asked at that risk. Where the
    /// risk is the same, the people above decide. Where only one of the two names people, these decide.
    pub(super) fn with(&self, below: &Self) -> Self {
        let naming = [below, self].into_iter().filter(|approval| !approval.who.is_empty());
        // Of several with the same risk it takes the last one.
        let who = naming.max_by_key(|approval| approval.risk).map(|approval| approval.who.clone());
        Self { risk: self.risk.max(below.risk), who: who.unwrap_or_default() }
    }
}

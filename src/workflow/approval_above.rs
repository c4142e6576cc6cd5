//! What the first event of a child run says of the approvals above the child; used by `least_approval`.

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
    /// Combines this approval with one below it. The result has the higher risk. It has the people whom the approval of
    /// higher risk names (at equal risk, this one); if that one names nobody, those whom the other one names.
    pub(super) fn with(&self, below: &Self) -> Self {
        let naming = [below, self].into_iter().filter(|approval| !approval.who.is_empty());
        // Among equal risks `max_by_key` returns the last element, which is `self`.
        let who = naming.max_by_key(|approval| approval.risk).map(|approval| approval.who.clone());
        Self { risk: self.risk.max(below.risk), who: who.unwrap_or_default() }
    }
}

//! The rules that cover one value.

use super::rule_texts::{IdRule, RuleId};

/// The rules that cover one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CoveringRules {
    pub(super) ignore: Option<RuleId>,
    pub(super) id: Option<IdRule>,
    /// Set for an object whose keys are ids.
    pub(super) keys: Option<IdRule>,
    /// An index into `BodyRules::unordered`.
    pub(super) unordered: Option<usize>,
    /// An index into `BodyRules::tolerance`.
    pub(super) tolerance: Option<usize>,
}

/// What one rule says of the nodes that it covers.
#[derive(Clone, Copy, Debug)]
pub(super) enum CoveringRule {
    Ignore(RuleId),
    Id(IdRule),
    Keys(IdRule),
    Unordered(usize),
    Tolerance(usize),
}

impl CoveringRules {
    /// Adds a rule, which counts unless there is an earlier one of its sort.
    pub(super) fn add(&mut self, covers: CoveringRule) {
        match covers {
            CoveringRule::Ignore(rule) => self.ignore = self.ignore.or(Some(rule)),
            CoveringRule::Id(ids) => self.id = self.id.or(Some(ids)),
            CoveringRule::Keys(ids) => self.keys = self.keys.or(Some(ids)),
            CoveringRule::Unordered(n) => self.unordered = self.unordered.or(Some(n)),
            CoveringRule::Tolerance(n) => self.tolerance = self.tolerance.or(Some(n)),
        }
    }

    /// The rules that cover one of two nodes at the same path.
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            ignore: self.ignore.or(other.ignore),
            id: self.id.or(other.id),
            keys: self.keys.or(other.keys),
            unordered: self.unordered.or(other.unordered),
            tolerance: self.tolerance.or(other.tolerance),
        }
    }

    /// Whether the node is an id, or an object whose keys are ids.
    pub(super) fn has_ids(&self) -> bool {
        self.id.is_some() || self.keys.is_some()
    }

    pub(super) fn is_tolerated(&self) -> bool {
        self.tolerance.is_some()
    }

    pub(super) fn is_unordered(&self) -> bool {
        self.unordered.is_some()
    }
}

//! The data that every part of a walk over two JSON documents needs.

use super::body_rules::BodyRules;
use super::findings::ComparisonFindings;
use super::id_map::IdMap;
use super::rules_by_node::RulesByNode;

/// The rules, the nodes that they cover, the ids that are bound, and the findings so far.
pub(super) struct WalkContext<'a, 'f> {
    pub(super) rules: &'a BodyRules,
    pub(super) rules_by_node: &'a RulesByNode,
    pub(super) ids: &'a mut IdMap,
    pub(super) findings: &'a mut ComparisonFindings<'f>,
}

impl<'f> WalkContext<'_, 'f> {
    /// The same context for a shorter time.
    pub(super) fn reborrow(&mut self) -> WalkContext<'_, 'f> {
        WalkContext {
            rules: self.rules,
            rules_by_node: self.rules_by_node,
            ids: &mut *self.ids,
            findings: &mut *self.findings,
        }
    }
}

//! Maps the nodes of documents to the rules that cover them.

use std::collections::HashMap;

use serde_json::Value;
use serde_json_path::JsonPath;

use super::body_rules::{BodyRules, IdRule, RuleId};
use super::bounds::BoundExceeded;
use super::findings::ComparisonFindings;
use super::repeated_keys::{Document, RepeatedByNode};

/// The rules that cover each node, and the keys that each node's text repeats. A node is identified by its address in
/// memory, so the documents must not be moved or changed while this is in use.
#[derive(Default)]
pub(super) struct RulesByNode {
    covering: Covering,
    repeated: RepeatedByNode,
}

type Covering = HashMap<*const Value, CoveringRules>;

fn cover(covering: &mut Covering, path: &JsonPath, document: &Value, add: impl Fn(&mut CoveringRules)) {
    for node in path.query(document) {
        add(covering.entry(std::ptr::from_ref(node)).or_default());
    }
}

/// The rules that cover one node.
#[derive(Clone, Copy, Default)]
pub(super) struct CoveringRules {
    pub(super) ignore: Option<RuleId>,
    pub(super) id: Option<IdRule>,
    /// Of an object: its keys are ids.
    pub(super) keys: Option<IdRule>,
    /// An index into [`BodyRules::unordered`].
    pub(super) unordered: Option<usize>,
    /// An index into [`BodyRules::tolerance`].
    pub(super) tolerance: Option<usize>,
}

impl RulesByNode {
    pub(super) fn of<'v>(
        rules: &BodyRules,
        documents: impl IntoIterator<Item = Document<'v>>,
        findings: &ComparisonFindings<'_>,
    ) -> Result<Self, BoundExceeded> {
        let (mut repeated, mut all) = (RepeatedByNode::default(), Vec::new());
        for document in documents {
            repeated.add(document);
            all.push(document.value);
        }
        let mut covering = Covering::default();
        for document in all.into_iter().chain(repeated.variants()) {
            for (path, rule) in rules.ignore.iter().filter(|(_, rule)| findings.applies(*rule)) {
                findings.check_time()?;
                cover(&mut covering, path, document, |rules| rules.ignore = rules.ignore.or(Some(*rule)));
            }
            for (path, ids) in rules.ids.iter().filter(|(_, ids)| findings.applies(ids.rule)) {
                findings.check_time()?;
                cover(&mut covering, path, document, |rules| rules.id = rules.id.or(Some(*ids)));
            }
            for (path, ids) in rules.keys.iter().filter(|(_, ids)| findings.applies(ids.rule)) {
                findings.check_time()?;
                cover(&mut covering, path, document, |rules| rules.keys = rules.keys.or(Some(*ids)));
            }
            let unordered = rules.unordered.iter().enumerate();
            for (n, (path, ..)) in unordered.filter(|(_, (_, rule, _))| findings.applies(*rule)) {
                findings.check_time()?;
                cover(&mut covering, path, document, |rules| rules.unordered = rules.unordered.or(Some(n)));
            }
            let tolerance = rules.tolerance.iter().enumerate();
            for (n, (path, ..)) in tolerance.filter(|(_, (_, rule, _))| findings.applies(*rule)) {
                findings.check_time()?;
                cover(&mut covering, path, document, |rules| rules.tolerance = rules.tolerance.or(Some(n)));
            }
        }
        Ok(RulesByNode { covering, repeated })
    }
    pub(super) fn on(&self, node: &Value) -> CoveringRules {
        if self.covering.is_empty() {
            CoveringRules::default()
        } else {
            self.covering.get(&std::ptr::from_ref(node)).copied().unwrap_or_default()
        }
    }
    /// The keys that the objects of the documents have more than once.
    pub(super) fn repeated(&self) -> &RepeatedByNode {
        &self.repeated
    }
    /// Returns the rules that cover one of two nodes at the same path: a rule for the node of one document also covers
    /// the node of the other.
    pub(super) fn on_either(&self, legacy: &Value, engine: &Value) -> CoveringRules {
        let (a, b) = (self.on(legacy), self.on(engine));
        CoveringRules {
            ignore: a.ignore.or(b.ignore),
            id: a.id.or(b.id),
            keys: a.keys.or(b.keys),
            unordered: a.unordered.or(b.unordered),
            tolerance: a.tolerance.or(b.tolerance),
        }
    }
}

impl CoveringRules {
    pub(super) fn is_tolerated(self) -> bool {
        self.tolerance.is_some()
    }
    pub(super) fn is_unordered(self) -> bool {
        self.unordered.is_some()
    }
}

//! Maps the nodes of documents to the rules that cover them.

use serde_json::Value;
use serde_json_path::JsonPath;

use super::body_rules::{BodyRules, IdRule, RuleId};
use super::bounds::BoundExceeded;
use super::fast_hash::ByAddress;
use super::findings::ComparisonFindings;
use super::repeated_keys::{Document, RepeatedByNode};

/// The rules that cover each node, and the keys that each node's text repeats. A node is identified by its address in
/// memory, so the documents must not be moved or changed while this is in use.
#[derive(Default)]
pub(super) struct RulesByNode {
    covering: Covering,
    /// The nodes that are ids, or objects whose keys are ids, and all nodes around them.
    with_ids: ByAddress<Value, ()>,
    repeated: RepeatedByNode,
}

type Covering = ByAddress<Value, CoveringRules>;

fn cover(covering: &mut Covering, path: &JsonPath, document: &Value, add: impl Fn(&mut CoveringRules)) {
    for node in path.query(document) {
        add(covering.entry(std::ptr::from_ref(node)).or_default());
    }
}

/// Notes the nodes with ids in them. Recursion is bounded by the depth of the document.
fn note_ids(node: &Value, covering: &Covering, with_ids: &mut ByAddress<Value, ()>) -> bool {
    let rules = covering.get(&std::ptr::from_ref(node));
    let mut has_ids = rules.is_some_and(|rules| rules.id.is_some() || rules.keys.is_some());
    match node {
        Value::Array(items) => items.iter().for_each(|item| has_ids |= note_ids(item, covering, with_ids)),
        Value::Object(map) => map.values().for_each(|value| has_ids |= note_ids(value, covering, with_ids)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    if has_ids {
        with_ids.insert(std::ptr::from_ref(node), ());
    }
    has_ids
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
        for document in all.iter().copied().chain(repeated.variants()) {
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
        let mut with_ids = ByAddress::default();
        if rules.have_ids() && !covering.is_empty() {
            for document in all {
                findings.check_time()?;
                note_ids(document, &covering, &mut with_ids);
            }
        }
        Ok(RulesByNode { covering, with_ids, repeated })
    }
    /// Whether binding the ids of two nodes at the same path may find one: there is none in most nodes of a document,
    /// and these need not be walked for it.
    pub(super) fn may_have_ids(&self, legacy: &Value, engine: &Value) -> bool {
        let has_ids = |node: &Value| self.with_ids.contains_key(&std::ptr::from_ref(node));
        has_ids(legacy) || has_ids(engine) || !self.repeated.is_empty()
    }
    pub(super) fn on(&self, node: &Value) -> CoveringRules {
        if self.covering.is_empty() {
            CoveringRules::default()
        } else {
            self.covering.get(&std::ptr::from_ref(node)).copied().unwrap_or_default()
        }
    }
    /// Whether a value has the same hash with each precision: no rule covers a node.
    pub(super) fn is_precision_irrelevant(&self) -> bool {
        self.covering.is_empty()
    }
    /// The keys that the objects of the documents have more than once.
    pub(super) fn repeated(&self) -> &RepeatedByNode {
        &self.repeated
    }
    /// Returns the rules that cover one of two nodes at the same path: a rule for the node of one document also covers
    /// the node of the other.
    #[inline]
    pub(super) fn on_either(&self, legacy: &Value, engine: &Value) -> CoveringRules {
        if self.covering.is_empty() {
            return CoveringRules::default();
        }
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

#[cfg(test)]
impl RulesByNode {
    /// Counts all nodes of these documents as if there were ids in them.
    pub(super) fn note_all<'v>(&mut self, documents: impl IntoIterator<Item = &'v Value>) {
        let mut open: Vec<&Value> = documents.into_iter().collect();
        while let Some(node) = open.pop() {
            self.with_ids.insert(std::ptr::from_ref(node), ());
            match node {
                Value::Array(items) => open.extend(items),
                Value::Object(map) => open.extend(map.values()),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
            }
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

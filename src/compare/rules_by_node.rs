//! Maps the nodes of documents to the rules that cover them.

use serde_json::Value;

use super::body_rules::BodyRules;
use super::bounds::BoundExceeded;
use super::covering::CoveringRules;
use super::fast_hash::ByAddress;
use super::findings::ComparisonFindings;
use super::json_tree::{JsonTree, TreeNode, TreeValue};
use super::node::Node;
use super::path_matcher::CoveredTree;
use super::repeated_keys::{Document, RepeatedByNode};

/// The rules that cover each node, and the keys that each node's text repeats. A node is identified by its address in
/// memory, so the documents must not be moved or changed while this is in use.
#[derive(Default)]
pub(super) struct RulesByNode {
    covering: Covering,
    /// The nodes that are ids, or objects whose keys are ids, and all nodes that contain them.
    with_ids: ByAddress<Value, ()>,
    /// The same for documents that are trees.
    trees: Vec<(*const JsonTree, CoveredTree)>,
    repeated: RepeatedByNode,
    /// Whether a rule covers a node.
    covers_any: bool,
}

type Covering = ByAddress<Value, CoveringRules>;

/// What the rules that apply cover in a document.
fn cover(covering: &mut Covering, rules: &BodyRules, document: &Value, findings: &ComparisonFindings<'_>) {
    for (path, _, covers) in rules.covering().filter(|(_, rule, _)| findings.applies(*rule)) {
        for node in path.search.query(document) {
            covering.entry(std::ptr::from_ref(node)).or_default().add(covers);
        }
    }
}

/// Notes the nodes with ids in them. Returns whether there are ids in this node. Recursion is bounded by the depth of
/// the document.
fn note_ids(node: &Value, covering: &Covering, with_ids: &mut ByAddress<Value, ()>) -> bool {
    let rules = covering.get(&std::ptr::from_ref(node));
    let mut has_ids = rules.is_some_and(CoveringRules::has_ids);
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

/// What the rules that apply cover in a tree, where their paths have to be searched for in a value.
fn cover_by_search(rules: &BodyRules, tree: &JsonTree, findings: &ComparisonFindings<'_>) -> CoveredTree {
    let (value, mut covering, mut covered) = (tree.root().to_value(), Covering::default(), CoveredTree::of(tree));
    cover(&mut covering, rules, &value, findings);
    if !covering.is_empty() {
        note_covered(tree.root(), &value, &covering, &mut covered);
    }
    covered
}

/// Notes what covers a node of a tree, and the nodes in it. `value` is the same node as a value, by whose address
/// `covering` has the rules. Returns whether there are ids in it. Recursion is bounded by the depth of the document.
fn note_covered(node: TreeNode<'_>, value: &Value, covering: &Covering, covered: &mut CoveredTree) -> bool {
    let rules = covering.get(&std::ptr::from_ref(value));
    let mut has_ids = rules.is_some_and(CoveringRules::has_ids);
    match (node.value(), value) {
        (TreeValue::Array(items), Value::Array(values)) => items.iter().zip(values).for_each(|((_, item), value)| {
            has_ids |= note_covered(item, value, covering, covered);
        }),
        (TreeValue::Object(members), Value::Object(map)) => members.iter().zip(map.values()).for_each(|(of, value)| {
            has_ids |= note_covered(of.1, value, covering, covered);
        }),
        _ => {}
    }
    covered.note(node, rules, has_ids);
    has_ids
}

impl RulesByNode {
    pub(super) fn of<'v>(
        rules: &BodyRules,
        documents: impl IntoIterator<Item = Document<'v>>,
        findings: &ComparisonFindings<'_>,
    ) -> Result<Self, BoundExceeded> {
        let (mut repeated, mut values, mut trees) = (RepeatedByNode::default(), Vec::new(), Vec::new());
        let has_rules = rules.covering().any(|(_, rule, _)| findings.applies(rule));
        for document in documents {
            match document.root {
                Node::Value(value) => {
                    repeated.add(value, document.repeated);
                    values.push(value);
                }
                Node::Tree(root) if has_rules => {
                    findings.check_time()?;
                    let tree = root.tree();
                    let covered = match &rules.matcher {
                        matcher if matcher.is_partial() => cover_by_search(rules, tree, findings),
                        matcher => matcher.covered(tree, |rule| findings.applies(rule)),
                    };
                    trees.push((std::ptr::from_ref(tree), covered));
                }
                Node::Tree(_) => {}
            }
        }
        let mut covering = Covering::default();
        if has_rules {
            for document in values.iter().copied().chain(repeated.variants()) {
                findings.check_time()?;
                cover(&mut covering, rules, document, findings);
            }
        }
        let mut with_ids = ByAddress::default();
        if rules.have_ids() && !covering.is_empty() {
            for document in values {
                findings.check_time()?;
                note_ids(document, &covering, &mut with_ids);
            }
        }
        let covers_any = !covering.is_empty() || trees.iter().any(|(_, covered)| !covered.is_empty());
        Ok(RulesByNode { covering, with_ids, trees, repeated, covers_any })
    }

    fn covered_tree(&self, node: TreeNode<'_>) -> Option<&CoveredTree> {
        self.trees.iter().find(|(tree, _)| std::ptr::eq(*tree, node.tree())).map(|(_, covered)| covered)
    }

    /// Whether binding the ids of two nodes at the same path may find one: there is none in most nodes of a document,
    /// and these need not be walked for it.
    pub(super) fn may_have_ids(&self, legacy: Node<'_>, engine: Node<'_>) -> bool {
        let has_ids = |node: Node<'_>| match node {
            Node::Value(value) => self.with_ids.contains_key(&std::ptr::from_ref(value)),
            Node::Tree(node) => self.covered_tree(node).is_some_and(|covered| covered.has_ids(node)),
        };
        has_ids(legacy) || has_ids(engine) || !self.repeated.is_empty()
    }

    #[inline]
    fn covering(&self, node: Node<'_>) -> Option<&CoveringRules> {
        match node {
            Node::Value(value) => self.covering.get(&std::ptr::from_ref(value)),
            Node::Tree(node) => self.covered_tree(node)?.on(node),
        }
    }

    pub(super) fn on(&self, node: Node<'_>) -> CoveringRules {
        if self.covers_any { self.covering(node).copied().unwrap_or_default() } else { CoveringRules::default() }
    }

    /// Whether a value has the same hash with each precision: no rule covers a node.
    pub(super) fn is_precision_irrelevant(&self) -> bool {
        !self.covers_any
    }

    /// The keys that the objects of the documents have more than once.
    pub(super) fn repeated(&self) -> &RepeatedByNode {
        &self.repeated
    }

    /// Returns the rules that cover one of two nodes at the same path: a rule for the node of one document also covers
    /// the node of the other.
    #[inline]
    pub(super) fn on_either(&self, legacy: Node<'_>, engine: Node<'_>) -> CoveringRules {
        if !self.covers_any {
            return CoveringRules::default();
        }
        match (self.covering(legacy), self.covering(engine)) {
            (None, None) => CoveringRules::default(),
            (Some(rules), None) | (None, Some(rules)) => *rules,
            (Some(of_legacy), Some(of_engine)) => of_legacy.or(*of_engine),
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

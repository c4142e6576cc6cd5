//! Finds the values of a tree that rules cover, for all rules in one walk.
//!
//! The paths of the rules are one nondeterministic finite automaton: each rule has a state before each step of its
//! path, and a final state, in which it covers the value. The set of states at a value follows from the set at its
//! parent and from the value's key. A value with an empty set is not visited.

use std::collections::HashMap;

use foldhash::fast::FixedState;

use super::covering::{CoveringRule, CoveringRules};
use super::json_tree::{JsonTree, TreeNode, TreeValue};
use super::rule_path::{PathStep, RulePath};
use super::rule_texts::RuleId;

/// A set of states.
type States = u128;

/// The paths of all rules for one body.
#[derive(Clone, Debug, Default)]
pub(super) struct PathMatcher {
    /// By state: the step that leads to the next state; `None` for a last state.
    steps: Vec<Option<PathStep>>,
    /// The last states.
    ends: States,
    rules: Vec<MatchedRule>,
    /// Whether there are rules that this matcher cannot match: their paths have other parts than names and wildcards,
    /// or there are more states than a set holds.
    is_partial: bool,
}

#[derive(Clone, Copy, Debug)]
struct MatchedRule {
    rule: RuleId,
    start: States,
    end: States,
    covers: CoveringRule,
}

/// Which rules cover the values of one tree.
#[derive(Debug, Default)]
pub(super) struct CoveredTree {
    /// By value: one more than the index of its class, 0 if no rule covers it; and [`HAS_IDS`].
    marks: Vec<u32>,
    /// What covers the values of each class.
    classes: Vec<CoveringRules>,
}

/// By the last states at a value: the index of its class.
type KnownClasses = HashMap<States, usize, FixedState>;

/// Set for values that are ids, or objects whose keys are ids, and for all values that contain them.
const HAS_IDS: u32 = 1 << 31;

impl PathMatcher {
    /// The rules in the order in which they count.
    pub(super) fn of<'r>(rules: impl IntoIterator<Item = (&'r RulePath, RuleId, CoveringRule)>) -> Self {
        let mut matcher = Self::default();
        for (path, rule, covers) in rules {
            let steps = path.steps().filter(|steps| matcher.steps.len() + steps.len() < States::BITS as usize);
            let Some(steps) = steps else {
                matcher.is_partial = true;
                continue;
            };
            let start = 1 << matcher.steps.len();
            matcher.steps.extend(steps.iter().cloned().map(Some));
            let end = 1 << matcher.steps.len();
            matcher.steps.push(None);
            matcher.ends |= end;
            matcher.rules.push(MatchedRule { rule, start, end, covers });
        }
        matcher
    }

    /// Whether there are rules that this matcher cannot match.
    pub(super) fn is_partial(&self) -> bool {
        self.is_partial
    }

    /// Finds what the rules that apply cover.
    pub(super) fn covered(&self, tree: &JsonTree, applies: impl Fn(RuleId) -> bool) -> CoveredTree {
        let rules = self.rules.iter().filter(|of| applies(of.rule));
        let start = rules.fold(0, |states, of| states | of.start);
        let mut covered = CoveredTree::default();
        if start != 0 {
            covered.marks = vec![0; tree.len()];
            self.mark(tree.root(), start, &mut KnownClasses::default(), &mut covered);
        }
        covered
    }

    /// Marks a value at which these states hold, and the values in it. Returns whether there are ids in it. Recursion
    /// is bounded by the depth of the document.
    fn mark(&self, node: TreeNode<'_>, states: States, known: &mut KnownClasses, covered: &mut CoveredTree) -> bool {
        let (ends, open) = (states & self.ends, states & !self.ends);
        let class = (ends != 0).then(|| {
            *known.entry(ends).or_insert_with(|| {
                let mut class = CoveringRules::default();
                self.rules.iter().filter(|of| of.end & ends != 0).for_each(|of| class.add(of.covers));
                covered.add_class(class)
            })
        });
        let mut has_ids = class.is_some_and(|class| covered.classes[class].has_ids());
        if open != 0 {
            match node.value() {
                TreeValue::Array(items) => {
                    let within = self.next(open, None);
                    if within != 0 {
                        items.iter().for_each(|(_, item)| has_ids |= self.mark(item, within, known, covered));
                    }
                }
                TreeValue::Object(members) => {
                    for (key, value) in members.iter() {
                        let within = self.next(open, Some(key));
                        if within != 0 {
                            has_ids |= self.mark(value, within, known, covered);
                        }
                    }
                }
                TreeValue::Null | TreeValue::Bool(_) | TreeValue::Number(_) | TreeValue::String(_) => {}
            }
        }
        covered.set(node, class, has_ids);
        has_ids
    }

    /// The states at a member with this key, or at an element (`None`), of a value at which these states hold.
    fn next(&self, mut open: States, key: Option<&str>) -> States {
        let mut next = 0;
        while open != 0 {
            let state = open.trailing_zeros();
            open &= open - 1;
            let Some(Some(step)) = self.steps.get(state as usize) else { continue };
            if step.is_deep {
                next |= 1 << state;
            }
            if step.name.as_deref().is_none_or(|name| key == Some(name)) {
                next |= 1 << (state + 1);
            }
        }
        next
    }
}

impl CoveredTree {
    /// A tree of which no value is covered yet.
    pub(super) fn of(tree: &JsonTree) -> Self {
        Self { marks: vec![0; tree.len()], classes: Vec::new() }
    }

    /// Notes what covers a value, and whether there are ids in it. Each value gets a class of its own: searching for an
    /// equal class would cost more than it saves.
    pub(super) fn note(&mut self, node: TreeNode<'_>, rules: Option<&CoveringRules>, has_ids: bool) {
        let class = rules.map(|rules| self.add_class(*rules));
        self.set(node, class, has_ids);
    }

    fn add_class(&mut self, class: CoveringRules) -> usize {
        self.classes.push(class);
        self.classes.len() - 1
    }

    fn set(&mut self, node: TreeNode<'_>, class: Option<usize>, has_ids: bool) {
        let class = class.and_then(|class| u32::try_from(class + 1).ok()).unwrap_or_default();
        let mark = class | if has_ids { HAS_IDS } else { 0 };
        if mark != 0
            && let Some(of_node) = self.marks.get_mut(node.index())
        {
            *of_node = mark;
        }
    }

    /// Whether no rule covers a value.
    pub(super) fn is_empty(&self) -> bool {
        self.classes.is_empty()
    }

    /// Whether the value is an id, or there are ids in it.
    pub(super) fn has_ids(&self, node: TreeNode<'_>) -> bool {
        self.marks.get(node.index()).is_some_and(|mark| mark & HAS_IDS != 0)
    }

    /// What covers a value.
    #[inline]
    pub(super) fn on(&self, node: TreeNode<'_>) -> Option<&CoveringRules> {
        let class = (self.marks.get(node.index())? & !HAS_IDS) as usize;
        self.classes.get(class.checked_sub(1)?)
    }
}

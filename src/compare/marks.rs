//! Which rules cover which nodes of two documents.

use std::collections::HashMap;

use serde_json::Value;

use super::findings::Findings;
use super::rules::{RuleId, Rules};
use super::verdict::TooMuch;

/// What rules say of the nodes of two documents. A node is known by its address: the documents stand still meanwhile.
#[derive(Default)]
pub(super) struct Marks(HashMap<*const Value, Said>);

#[derive(Clone, Copy, Default)]
pub(super) struct Said {
    pub(super) ignore: Option<RuleId>,
    pub(super) id: Option<RuleId>,
    /// Places in the rules' lists.
    pub(super) unordered: Option<usize>,
    pub(super) tolerance: Option<usize>,
}

impl Marks {
    pub(super) fn of(rules: &Rules, legacy: &Value, engine: &Value, found: &Findings<'_>) -> Result<Self, TooMuch> {
        let mut marks = Marks::default();
        for document in [legacy, engine] {
            for (path, rule) in &rules.ignore {
                found.look()?;
                marks.each(path, document, |said| said.ignore = said.ignore.or(Some(*rule)));
            }
            for (path, rule) in &rules.ids {
                found.look()?;
                marks.each(path, document, |said| said.id = said.id.or(Some(*rule)));
            }
            for (n, (path, ..)) in rules.unordered.iter().enumerate() {
                found.look()?;
                marks.each(path, document, |said| said.unordered = said.unordered.or(Some(n)));
            }
            for (n, (path, ..)) in rules.tolerance.iter().enumerate() {
                found.look()?;
                marks.each(path, document, |said| said.tolerance = said.tolerance.or(Some(n)));
            }
        }
        Ok(marks)
    }
    fn each(&mut self, path: &serde_json_path::JsonPath, document: &Value, say: impl Fn(&mut Said)) {
        for node in path.query(document) {
            say(self.0.entry(std::ptr::from_ref(node)).or_default());
        }
    }
    pub(super) fn on(&self, node: &Value) -> Said {
        if self.0.is_empty() {
            Said::default()
        } else {
            self.0.get(&std::ptr::from_ref(node)).copied().unwrap_or_default()
        }
    }
    /// A rule that covers a node in one document covers what stands there in the other.
    pub(super) fn on_either(&self, legacy: &Value, engine: &Value) -> Said {
        let (a, b) = (self.on(legacy), self.on(engine));
        Said {
            ignore: a.ignore.or(b.ignore),
            id: a.id.or(b.id),
            unordered: a.unordered.or(b.unordered),
            tolerance: a.tolerance.or(b.tolerance),
        }
    }
}

impl Said {
    pub(super) fn is_tolerated(self) -> bool {
        self.tolerance.is_some()
    }
    pub(super) fn is_unordered(self) -> bool {
        self.unordered.is_some()
    }
}

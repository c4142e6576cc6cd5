//! The rules of a route by their id, as texts, with the conditions under which they apply.

use crate::expression::Expression;

/// Identifies a rule: its index in [`RuleTexts`]. The uses of each rule are counted by this index.
pub(super) type RuleId = usize;

/// A rule for ids, and what is counted for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct IdRule {
    pub(super) rule: RuleId,
    /// Counted for each id that no other place of a pair confirms.
    pub(super) unproven: RuleId,
    /// Whether an id may be a number on one side and a text on the other.
    pub(super) any_type: bool,
}

/// The texts of all rules of a route, by their id.
#[derive(Clone, Default)]
pub(super) struct RuleTexts(Vec<Entry>);

#[derive(Clone)]
struct Entry {
    text: String,
    when: Option<Expression>,
    /// Not a rule, but what happened to one: counted as a rule is.
    is_note: bool,
}

impl RuleTexts {
    /// Adds a rule, and returns its id.
    pub(super) fn register(&mut self, text: String) -> RuleId {
        self.add(text, None, false)
    }
    /// Adds a rule that applies only where a condition holds.
    pub(super) fn register_when(&mut self, text: String, when: Option<Expression>) -> RuleId {
        match when {
            Some(when) => self.add(format!("{text} when ${{{}}}", when.source()), Some(when), false),
            None => self.register(text),
        }
    }
    /// Adds what is counted beside the uses of a rule.
    pub(super) fn register_note(&mut self, text: String) -> RuleId {
        self.add(text, None, true)
    }
    /// Adds a rule for ids.
    pub(super) fn register_ids(&mut self, text: &str, when: Option<Expression>, any_type: bool) -> IdRule {
        let rule = self.register_when(text.to_owned(), when);
        IdRule {
            rule,
            unproven: self.register_note(format!("{text} (unproven: an id that stands only once)")),
            any_type,
        }
    }
    fn add(&mut self, text: String, when: Option<Expression>, is_note: bool) -> RuleId {
        self.0.push(Entry { text, when, is_note });
        self.0.len() - 1
    }
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
    pub(super) fn iter(&self) -> impl Iterator<Item = &String> {
        self.0.iter().map(|entry| &entry.text)
    }
    /// The rules alone, without what is counted beside them.
    pub(super) fn rules(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter(|entry| !entry.is_note).map(|entry| &*entry.text)
    }
    /// The rules that apply only where a condition holds.
    pub(super) fn conditions(&self) -> impl Iterator<Item = (RuleId, &Expression)> {
        self.0.iter().enumerate().filter_map(|(rule, entry)| Some((rule, entry.when.as_ref()?)))
    }
}

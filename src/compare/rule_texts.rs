//! The rules of a route by their id, as texts, with the conditions under which they apply.

use super::shown_condition::{Mask, masked, shown_call, shown_condition, shown_path};
use crate::expression::Expression;
use crate::secret::RedactRules;

/// Identifies a rule: its index in [`RuleTexts`]. The uses of each rule are counted by this index.
pub(super) type RuleId = usize;

/// A kind of ids that a route declares (`kind: customer`): its index in [`RuleTexts::kinds`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct IdKind(usize);

impl IdKind {
    /// Of ids for which no kind is declared.
    pub(super) const ANY: Self = Self(0);
    pub(super) fn of_index(index: usize) -> Self {
        Self(index)
    }
    /// Its index among the kinds.
    pub(super) fn index(self) -> usize {
        self.0
    }
}

/// A rule for ids, and what is counted for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IdRule {
    pub(super) rule: RuleId,
    /// The kind of the ids: equal ids of different kinds are ids of different things.
    pub(super) kind: IdKind,
    /// Counted for each id that no other place of a pair confirms.
    pub(super) unproven: RuleId,
    /// Whether an id may be a number on one side and a text on the other.
    pub(super) any_type: bool,
}

/// How the texts of notes go on after the text of a rule. A note says what happened to the rule; what it counts made no
/// values equal.
const NOTES: [&str; 4] = [" (unproven: ", " (not evaluated: ", " (unapplied: ", " (condition failed: "];

/// Whether a text that is counted for pairs is a note on a rule, and no rule that made two values equal.
pub fn is_rule_note(text: &str) -> bool {
    text.ends_with(')') && NOTES.iter().any(|note| text.contains(note))
}

/// The texts of all rules of a route, by their id.
#[derive(Clone, Default)]
pub(super) struct RuleTexts {
    entries: Vec<Entry>,
    /// The names of the kinds of ids, after the empty one of [`IdKind::ANY`]; empty if none is declared.
    kinds: Vec<String>,
    /// What the route declares as secret: no text has a literal that is compared with it.
    redact: RedactRules,
    /// Whether something is masked in one of the texts.
    has_masked: bool,
}

#[derive(Clone)]
struct Entry {
    text: String,
    when: Option<Expression>,
    /// Counted for a pair for which the condition cannot be evaluated.
    failed: Option<RuleId>,
    /// Whether this is a note on a rule, which is counted as a rule is.
    is_note: bool,
}

impl RuleTexts {
    /// No texts, of a route that declares this as secret.
    pub(super) fn new(redact: Option<&RedactRules>) -> Self {
        Self { redact: redact.cloned().unwrap_or_default(), ..Self::default() }
    }
    /// What the route declares as secret.
    pub(super) fn redact(&self) -> &RedactRules {
        &self.redact
    }
    /// A text of a rule as it is shown and kept: without what may be secret in it.
    pub(super) fn masked(&mut self, text: &str, mask: Mask) -> String {
        let shown = masked(text, mask, &self.redact);
        self.has_masked |= shown != text;
        shown
    }
    /// Whether something is masked in one of the texts.
    pub(super) fn has_masked(&self) -> bool {
        self.has_masked
    }
    /// Adds a rule, and returns its id.
    pub(super) fn register(&mut self, text: String) -> RuleId {
        let text = self.masked(&text, shown_path);
        self.add(text, None, false)
    }
    /// Adds a rule that applies only where a condition holds.
    pub(super) fn register_when(&mut self, text: String, when: Option<Expression>) -> RuleId {
        match when {
            Some(when) => {
                let with_when = |text: &str, when: &str| format!("{text} when ${{{when}}}");
                let condition = shown_condition(when.source(), &self.redact);
                let shown = with_when(&shown_path(&text, &self.redact), &condition);
                let written = with_when(&text, when.source());
                self.has_masked |= shown != written;
                let text = self.redact.text_hash().append_if_masked(&written, shown);
                let failed = self.register_note(format!("{text} (condition failed: the rule did not apply)"));
                let rule = self.add(text, Some(when), false);
                self.entries[rule].failed = Some(failed);
                rule
            }
            None => self.register(text),
        }
    }
    /// Adds an entry of `ignore_calls`: the calls that this pattern names do not count.
    pub(super) fn register_ignored_calls(&mut self, pattern: &str) -> RuleId {
        let shown = self.masked(pattern, shown_call);
        self.register(format!("ignore_calls {shown}"))
    }
    /// Adds a note on a rule, which is counted beside the uses of the rule.
    pub(super) fn register_note(&mut self, text: String) -> RuleId {
        self.add(text, None, true)
    }
    /// Adds a rule for ids.
    pub(super) fn register_ids(&mut self, text: &str, when: Option<Expression>, any_type: bool) -> IdRule {
        let rule = self.register_when(text.to_owned(), when);
        let shown = self.masked(text, shown_path);
        let unproven = self.register_note(format!("{shown} (unproven: an id that stands only once)"));
        IdRule { rule, kind: IdKind::ANY, unproven, any_type }
    }
    /// Declares a kind of ids.
    pub(super) fn declare_kind(&mut self, name: &str) {
        if self.kinds.is_empty() {
            self.kinds.push(String::new());
        }
        if !self.kinds.iter().any(|kind| kind == name) {
            self.kinds.push(name.to_owned());
        }
    }
    /// The declared kind of this name, if there is one.
    pub(super) fn kind(&self, name: &str) -> IdKind {
        self.kinds.iter().position(|kind| kind == name).map_or(IdKind::ANY, IdKind)
    }
    /// The names of the kinds by their index.
    pub(super) fn kinds(&self) -> &[String] {
        &self.kinds
    }
    fn add(&mut self, text: String, when: Option<Expression>, is_note: bool) -> RuleId {
        self.entries.push(Entry { text, when, failed: None, is_note });
        self.entries.len() - 1
    }
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
    pub(super) fn iter(&self) -> impl Iterator<Item = &String> {
        self.entries.iter().map(|entry| &entry.text)
    }
    /// The rules alone, without notes.
    pub(super) fn rules(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().filter(|entry| !entry.is_note).map(|entry| &*entry.text)
    }
    /// The note that is counted for a pair for which the condition of a rule cannot be evaluated.
    pub(super) fn note_of_failed_condition(&self, rule: RuleId) -> Option<RuleId> {
        self.entries.get(rule)?.failed
    }
    /// The condition of a rule; `None` if it always applies.
    pub(super) fn condition(&self, rule: RuleId) -> Option<&Expression> {
        self.entries.get(rule)?.when.as_ref()
    }
    /// The rules that apply only where a condition holds.
    pub(super) fn conditions(&self) -> impl Iterator<Item = (RuleId, &Expression)> {
        self.entries.iter().enumerate().filter_map(|(rule, entry)| Some((rule, entry.when.as_ref()?)))
    }
}

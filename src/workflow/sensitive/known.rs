//! Values that are known to be sensitive, and the search for them in texts.

use std::collections::BTreeSet;

use serde_json::Value;

use super::path::SensitivePath;
use super::taint::Taint;
use crate::secret::forms_in_texts;
use crate::workflow::{Plan, Run};

/// Shorter values are replaced only where they are the whole text: within longer texts they would match by chance.
pub const WITHIN_CHARS_MIN: usize = 6;
/// Shorter computed values are not searched for at all: common words are among them.
const COMPUTED_CHARS_MIN: usize = 8;
/// Longer computed values are not searched for: only whole bodies are that long.
const COMPUTED_BYTES_MAX: usize = 4_096;
/// At most this many computed values are searched for, because every text is compared with each of them.
const COMPUTED_MAX: usize = 256;

/// A set of values, with the encodings in which they may occur in texts.
#[derive(Clone, Debug, Default)]
pub struct KnownValues {
    whole: BTreeSet<String>,
    computed: usize,
    /// Longest value first, and of each its longest form first.
    forms: Vec<(usize, String)>,
    is_sorted: bool,
}

/// If a value holds sensitive ones at more places than this, all of it counts as sensitive.
const PATHS_MAX: usize = 64;

impl KnownValues {
    /// The declared values of a run, and those that it got or computed from sensitive ones.
    pub(super) fn of_run(plan: &Plan, run: &Run, taint: &Taint) -> Self {
        let mut declared = BTreeSet::new();
        plan.sensitive_values().collect_run(run, &mut declared);
        let mut known = Self::default();
        declared.into_iter().for_each(|value| known.add(value));
        if let Ok(started) = serde_json::to_value(&**run.started()) {
            taint.first_event.iter().for_each(|path| path.texts(&started, &mut |text| known.add_computed(text)));
        }
        for step in taint.steps.keys() {
            taint.output_texts(run, step, &mut |text| known.add_computed(text));
        }
        known.sort();
        known
    }
    /// The paths, below `at`, of the texts and numbers that are or contain one of the values, except those that are
    /// `covered` already.
    pub(super) fn paths_in(&self, value: &Value, at: &SensitivePath, covered: &[SensitivePath]) -> Vec<SensitivePath> {
        let mut found = Vec::new();
        if !self.is_empty() {
            self.add_paths(value, at, covered, &mut found);
        }
        if found.len() > PATHS_MAX { vec![at.clone()] } else { found }
    }
    fn add_paths(&self, value: &Value, at: &SensitivePath, covered: &[SensitivePath], found: &mut Vec<SensitivePath>) {
        let holds = match value {
            Value::String(text) => self.are_in(text),
            Value::Number(number) => self.contains(&number.to_string()),
            Value::Array(items) => {
                let items = items.iter().enumerate();
                return items.for_each(|(index, item)| self.add_paths(item, &at.index(index), covered, found));
            }
            Value::Object(members) => {
                let members = members.iter();
                return members.for_each(|(name, member)| self.add_paths(member, &at.name(name), covered, found));
            }
            Value::Null | Value::Bool(_) => false,
        };
        if holds && !covered.iter().any(|path| path.covers(at)) {
            found.push(at.clone());
        }
    }
    /// Adds a declared value.
    pub fn add(&mut self, value: String) {
        if value.is_empty() || self.whole.contains(&value) {
            return;
        }
        if value.chars().count() >= WITHIN_CHARS_MIN {
            self.forms.extend(forms_in_texts(&value).into_iter().map(|form| (value.len(), form)));
            self.is_sorted = false;
        }
        self.whole.insert(value);
    }
    /// Adds a value that was computed from sensitive ones, or entered by a person. It is searched for only
    /// within the bounds at the top of this file.
    pub fn add_computed(&mut self, value: String) {
        let fits = value.len() <= COMPUTED_BYTES_MAX && value.chars().count() >= COMPUTED_CHARS_MIN;
        if fits && self.computed < COMPUTED_MAX && !self.whole.contains(&value) {
            self.computed += 1;
            self.add(value);
        }
    }
    /// To be called after the last value is added and before the first search.
    pub fn sort(&mut self) {
        if !self.is_sorted {
            // A form may contain a shorter one of the same value.
            self.forms.sort_by_key(|(value, form)| std::cmp::Reverse((*value, form.len())));
            self.is_sorted = true;
        }
    }
    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.whole.is_empty()
    }
    /// Whether this text is one of the values.
    pub fn contains(&self, text: &str) -> bool {
        self.whole.contains(text)
    }
    /// Whether a text contains one of the values.
    pub fn are_in(&self, text: &str) -> bool {
        self.contains(text) || self.forms.iter().any(|(_, form)| text.contains(form.as_str()))
    }
    /// The text with every occurrence of a value replaced; `None` where `replace` fails.
    pub fn hide(&self, text: &str, replace: &dyn Fn(&str) -> Option<String>) -> Option<String> {
        match self.contains(text) {
            true => replace(text),
            false => self.hide_within(text, replace),
        }
    }
    /// As [`KnownValues::hide`], for a piece of a longer text, where short values are not searched for.
    pub fn hide_within(&self, text: &str, replace: &dyn Fn(&str) -> Option<String>) -> Option<String> {
        let mut pieces = vec![(text.to_owned(), false)];
        for (_, form) in self.forms.iter().filter(|(_, form)| text.contains(form.as_str())) {
            let mut next = Vec::with_capacity(pieces.len());
            for (piece, is_done) in pieces {
                if is_done || !piece.contains(form.as_str()) {
                    next.push((piece, is_done));
                    continue;
                }
                for (index, part) in piece.split(form.as_str()).enumerate() {
                    if index > 0 {
                        next.push((replace(form)?, true));
                    }
                    next.push((part.to_owned(), false));
                }
            }
            pieces = next;
        }
        Some(pieces.into_iter().map(|(piece, _)| piece).collect())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_is_found_whole_within_texts_and_encoded() {
        let mut values = KnownValues::default();
        ["tok/en 1\"", "17"].into_iter().for_each(|value| values.add(value.to_owned()));
        values.sort();
        let stars = |text: &str| values.hide(text, &|_| Some("*".to_owned())).unwrap();
        assert_eq!(stars("Bearer tok/en 1\""), "Bearer *");
        assert_eq!(stars(&json!({ "t": "tok/en 1\"" }).to_string()), "{\"t\":\"*\"}");
        assert_eq!(stars("http://x/tok%2Fen%201%22?q=1"), "http://x/*?q=1");
        let nested = json!({ "sent": json!({ "t": "tok/en 1\"" }).to_string() }).to_string();
        assert_eq!(stars(&nested), r#"{"sent":"{\"t\":\"*\"}"}"#);
        assert_eq!(stars(r#"{"t":"tok\/en 1\u0022"}"#), r#"{"t":"*"}"#);
        assert_eq!((stars("17"), stars("2017")), ("*".to_owned(), "2017".to_owned()), "short ones only as a whole");
    }

    #[test]
    fn computed_values_are_looked_for_within_bounds() {
        let mut values = KnownValues::default();
        values.add_computed("short".to_owned());
        (0..COMPUTED_MAX + 5).for_each(|n| values.add_computed(format!("computed {n:05}")));
        values.sort();
        assert!(!values.are_in("short") && values.are_in("x computed 00255 y") && !values.are_in("computed 00256"));
    }
}

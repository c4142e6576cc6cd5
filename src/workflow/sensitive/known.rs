//! A set of values that are known to be sensitive, and the search for them in texts.
//!
//! Always true: the set only grows, and its order does not depend on the order in which values were added.
//! [`super::knowledge`] decides which values a run knows.

use std::collections::BTreeSet;

use serde_json::{Number, Value};

use super::path::SensitivePath;
use crate::secret::{CanonicalNumber, forms_in_shown_texts, is_quoted_in, quotes_and_cut_quotes_in, replaced};

/// Shorter values are replaced only if they are the whole text: within longer texts they would match by chance.
pub const WITHIN_CHARS_MIN: usize = 6;
/// Shorter values that no workflow declares are not searched for at all: common words are among them.
const COMPUTED_CHARS_MIN: usize = 8;
/// Longer values that no workflow declares are not searched for: only whole bodies are that long.
const COMPUTED_BYTES_MAX: usize = 4_096;
/// At most this many computed values are searched for, because every text is compared with each of them.
const COMPUTED_MAX: usize = 256;
/// At most this many values from other runs are searched for. They are counted separately from the computed values,
/// because a long `for_each` may compute many values before a child run returns a token.
const FROM_OTHERS_MAX: usize = 256;

/// A set of values, with the encodings in which they may occur in texts.
#[derive(Clone, Default, PartialEq)]
pub struct KnownValues {
    /// Whether every text counts as sensitive, because it is not known which values are.
    is_everything: bool,
    whole: BTreeSet<String>,
    /// The values that are numbers, even if they were given as text.
    numbers: BTreeSet<CanonicalNumber>,
    computed: usize,
    from_others: usize,
    /// The values in the encodings that are searched for within texts.
    forms: BTreeSet<String>,
}

/// If a JSON value holds sensitive values at more places than this, all of it counts as sensitive.
const PATHS_MAX: usize = 64;

impl std::fmt::Debug for KnownValues {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KnownValues") // without the values, which must not be shown
    }
}

impl KnownValues {
    /// Stands for a set that was never collected: every text counts as sensitive.
    pub(super) fn everything() -> Self {
        Self { is_everything: true, ..Self::default() }
    }
    /// Returns the values that `other` does not hold.
    pub(super) fn without(&self, other: &Self) -> Self {
        let mut left = Self { is_everything: self.is_everything, ..Self::default() };
        self.whole.difference(&other.whole).for_each(|value| left.add(value.clone()));
        left
    }
    /// Returns the paths, below `at`, of the texts and numbers that are or contain one of the values, except those that
    /// `covered` covers already.
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
            Value::Number(number) => self.contains_number(number),
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
            self.forms.extend(forms_in_shown_texts(&value, WITHIN_CHARS_MIN));
        }
        self.numbers.extend(CanonicalNumber::parse(&value));
        self.whole.insert(value);
    }
    /// Adds a value that was computed from sensitive ones, or entered by a person, if it is within the bounds at the
    /// top of this file.
    pub fn add_computed(&mut self, value: String) {
        if self.computed < COMPUTED_MAX && self.add_within_bounds(value) {
            self.computed += 1;
        }
    }
    /// Like [`KnownValues::add_computed`], for a value that another run marked as sensitive.
    pub(super) fn add_from_other(&mut self, value: String) {
        if self.from_others < FROM_OTHERS_MAX && self.add_within_bounds(value) {
            self.from_others += 1;
        }
    }
    fn add_within_bounds(&mut self, value: String) -> bool {
        let fits = value.len() <= COMPUTED_BYTES_MAX && value.chars().count() >= COMPUTED_CHARS_MIN;
        let is_new = fits && !self.whole.contains(&value);
        if is_new {
            self.add(value);
        }
        is_new
    }
    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.whole.is_empty() && !self.is_everything
    }
    /// Whether this text is one of the values.
    pub fn contains(&self, text: &str) -> bool {
        self.is_everything || self.whole.contains(text)
    }
    /// Whether this number is one of the values, in whatever notation.
    pub fn contains_number(&self, number: &Number) -> bool {
        self.is_everything
            || (!self.numbers.is_empty()
                && CanonicalNumber::parse(&number.to_string()).is_some_and(|number| self.numbers.contains(&number)))
    }
    /// Whether a text contains one of the values.
    pub fn are_in(&self, text: &str) -> bool {
        self.contains(text) || is_quoted_in(text, self.forms())
    }
    fn forms(&self) -> impl Iterator<Item = &str> + Clone {
        self.forms.iter().map(String::as_str)
    }
    /// Returns the text with every occurrence of a value replaced; `None` if `replace` fails.
    pub fn hide(&self, text: &str, replace: &dyn Fn(&str) -> Option<String>) -> Option<String> {
        match self.contains(text) {
            true => replace(text),
            false => self.hide_within(text, replace),
        }
    }
    /// Like [`KnownValues::hide`], for a piece of a longer text, in which short values are not searched for.
    pub fn hide_within(&self, text: &str, replace: &dyn Fn(&str) -> Option<String>) -> Option<String> {
        if self.is_everything {
            return replace(text);
        }
        replaced(text, &quotes_and_cut_quotes_in(text, self.forms()), replace)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::secret::redact_line;

    #[test]
    fn a_value_is_found_whole_within_texts_and_encoded() {
        let mut values = KnownValues::default();
        ["tok/en 1\"", "17"].into_iter().for_each(|value| values.add(value.to_owned()));
        let stars = |text: &str| values.hide(text, &|_| Some("*".to_owned())).unwrap();
        assert_eq!(stars("Bearer tok/en 1\""), "Bearer *");
        assert_eq!(stars(&json!({ "t": "tok/en 1\"" }).to_string()), "{\"t\":\"*\"}");
        assert_eq!(stars("http://x/tok%2Fen%201%22?q=1"), "http://x/*?q=1");
        let nested = json!({ "sent": json!({ "t": "tok/en 1\"" }).to_string() }).to_string();
        assert_eq!(stars(&nested), r#"{"sent":"{\"t\":\"*\"}"}"#);
        assert_eq!(stars(r#"{"t":"tok\/en 1\u0022"}"#), r#"{"t":"*"}"#);
        assert_eq!(
            (stars("17"), stars("2017")),
            ("*".to_owned(), "2017".to_owned()),
            "a short value is replaced only if it is the whole text"
        );
    }

    #[test]
    fn a_value_is_found_after_the_credentials_in_it_were_masked() {
        let mut values = KnownValues::default();
        let link = "https://ann:pw@shop.example/login/PRIVATE?token=abc&order=ORDER-99";
        values.add(link.to_owned());
        let masked = redact_line(&format!("see {link} now"));
        assert!(masked.contains("PRIVATE") && masked.contains("ORDER-99"), "{masked}");
        assert_eq!(values.hide(&masked, &|_| Some("*".to_owned())).unwrap(), "see * now");
        values.add("Bearer abcdef".to_owned());
        assert!(!values.are_in("Bearer ***"), "only the mask is left of the value");
    }

    #[test]
    fn a_number_is_found_in_whatever_notation_as_a_whole() {
        let mut values = KnownValues::default();
        ["71234567", "8812", "0.50"].into_iter().for_each(|value| values.add(value.to_owned()));
        let texts = ["71234567.0", "7.1234567e7", "8812", "88.12e2", "5e-1", "71234568", "88120", "0"];
        let found = texts.map(|text| values.contains_number(&serde_json::from_str(text).unwrap()));
        assert_eq!(found, [true, true, true, true, true, false, false, false]);
    }

    #[test]
    fn the_longest_value_is_replaced_first_in_whatever_order_they_come() {
        for order in [["token-1", "token-1-long"], ["token-1-long", "token-1"]] {
            let mut values = KnownValues::default();
            order.into_iter().for_each(|value| values.add(value.to_owned()));
            let stars = values.hide("x token-1-long token-1", &|_| Some("*".to_owned()));
            assert_eq!(stars.unwrap(), "x * *");
        }
        let every = KnownValues::everything();
        assert_eq!(every.hide("anything", &|_| Some("*".to_owned())).unwrap(), "*");
    }

    #[test]
    fn computed_values_are_looked_for_within_bounds() {
        let mut values = KnownValues::default();
        values.add_computed("short".to_owned());
        (0..COMPUTED_MAX + 5).for_each(|n| values.add_computed(format!("computed {n:05}")));
        assert!(!values.are_in("short") && values.are_in("x computed 00255 y") && !values.are_in("computed 00256"));
        values.add_from_other("a token of a child run".to_owned());
        assert!(
            values.are_in("Bearer a token of a child run"),
            "values from other runs are counted separately from computed ones"
        );
    }
}

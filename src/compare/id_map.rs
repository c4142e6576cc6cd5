//! The one-to-one mapping between legacy's ids and the engine's.
//!
//! Always true: no id of one arm is bound to two ids of the other. The first binding stays; a value that contradicts it
//! is a wrong reference.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::redact::ShownAs;
use super::rule_texts::RuleId;

/// The bindings, in both directions.
#[derive(Clone, Debug, Default)]
pub(super) struct IdMap {
    to_engine: HashMap<String, String>,
    to_legacy: HashMap<String, String>,
    /// Where each id of legacy was bound.
    found: HashMap<String, FoundIds>,
    /// The keys under which ids were bound: a parameter of such a name takes an id.
    names: HashSet<String>,
    /// By id of legacy: how often it was found to correspond when the pair was compared, the place where it was bound
    /// included.
    confirmed: RefCell<HashMap<String, u32>>,
}

/// Two ids that were bound, and where they were found.
#[derive(Clone, Debug)]
pub(super) struct FoundIds {
    /// The path, as differences show it.
    pub(super) path: String,
    /// How values at this path are shown.
    pub(super) shown_as: ShownAs,
    pub(super) legacy: Value,
    pub(super) engine: Value,
    /// What is counted if no other place confirms that the ids correspond.
    pub(super) unproven: Option<RuleId>,
}

/// How a text is cut into words, and which words may be ids without a hint in the text before them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WordMatching {
    /// `-` and `.` belong to a word (`2026-11-17` is one word); only a word that cannot be a quantity may be an id.
    Strict,
    /// Only letters, digits and `_` belong to a word (`17` in `2026-11-17` is one); a word that is rarely a quantity
    /// may be an id.
    Lax,
}

impl IdMap {
    /// Binds two ids that were found under this key, unless one of them is bound already. `found` is called only if
    /// this call binds them.
    pub(super) fn bind(&mut self, name: Option<&str>, legacy: &str, engine: &str, found: impl FnOnce() -> FoundIds) {
        if let Some(name) = name.filter(|name| !self.names.contains(*name)) {
            self.names.insert(name.to_owned());
        }
        if !self.to_engine.contains_key(legacy) && !self.to_legacy.contains_key(engine) {
            self.to_engine.insert(legacy.to_owned(), engine.to_owned());
            self.to_legacy.insert(engine.to_owned(), legacy.to_owned());
            self.found.insert(legacy.to_owned(), found());
        }
    }
    /// The bindings that keep two ids from being bound to each other.
    pub(super) fn contradicted(&self, legacy: &str, engine: &str) -> Vec<&FoundIds> {
        let of_engine = self.legacy_of(engine).filter(|bound| *bound != legacy);
        let bound = [Some(legacy), of_engine].into_iter().flatten();
        bound.filter_map(|legacy| self.found.get(legacy)).collect()
    }
    /// If two texts are equal and yet not the same, because ids in them are bound to others: these bindings.
    pub(super) fn contradicted_in_text(&self, legacy: &str, engine: &str) -> Vec<&FoundIds> {
        if legacy != engine {
            return Vec::new();
        }
        let mut ids: Vec<String> = Vec::new();
        self.substitute_noting(legacy, &self.to_engine, WordMatching::Strict, &mut |id, other| {
            ids.extend((id != other).then(|| id.to_owned()));
        });
        self.substitute_noting(engine, &self.to_legacy, WordMatching::Strict, &mut |id, other| {
            ids.extend((id != other).then(|| other.to_owned()));
        });
        ids.sort();
        ids.dedup();
        ids.iter().filter_map(|legacy| self.found.get(legacy)).collect()
    }
    /// Whether two ids are bound to each other.
    pub(super) fn are_bound(&self, legacy: &str, engine: &str) -> bool {
        let are_bound = self.to_engine.get(legacy).is_some_and(|bound| bound == engine);
        if are_bound {
            self.confirm(legacy);
        }
        are_bound
    }
    fn confirm(&self, legacy: &str) {
        let mut confirmed = self.confirmed.borrow_mut();
        match confirmed.get_mut(legacy) {
            Some(times) => *times = times.saturating_add(1),
            None => {
                confirmed.insert(legacy.to_owned(), 1);
            }
        }
    }
    /// What is counted for the ids that differ and stand only where they were bound: nothing else tells whether they
    /// refer to the same thing. To be called when the pair was compared.
    pub(super) fn unproven(&self) -> Vec<RuleId> {
        let confirmed = self.confirmed.borrow();
        let is_unproven = |(legacy, engine): &(&String, &String)| {
            legacy != engine && confirmed.get(*legacy).is_none_or(|times| *times <= 1)
        };
        let ids = self.to_engine.iter().filter(is_unproven);
        ids.filter_map(|(legacy, _)| self.found.get(legacy)?.unproven).collect()
    }
    /// The id of legacy that corresponds to this id of the engine.
    pub(super) fn legacy_of(&self, engine: &str) -> Option<&str> {
        self.to_legacy.get(engine).map(String::as_str)
    }
    /// Whether this id of legacy is bound.
    pub(super) fn has_legacy(&self, legacy: &str) -> bool {
        self.to_engine.contains_key(legacy)
    }
    pub(super) fn is_empty(&self) -> bool {
        self.to_engine.is_empty()
    }

    /// Whether two strings are equal if their ids correspond. If legacy's 17 is bound to the engine's 18, `/orders/17`
    /// and `/orders/18` are equal, but `/orders/17` on both sides is not: the engine refers to an id that it never gave
    /// out.
    pub(super) fn same_text(&self, legacy: &str, engine: &str) -> bool {
        if self.is_empty() {
            return legacy == engine;
        }
        let same = self.is_same_text(legacy, engine);
        if same {
            let mut found = Vec::new();
            let note = &mut |id: &str, _: &str| found.push(id.to_owned());
            self.substitute_noting(legacy, &self.to_engine, WordMatching::Lax, note);
            found.iter().for_each(|id| self.confirm(id));
        }
        same
    }

    fn is_same_text(&self, legacy: &str, engine: &str) -> bool {
        let to_engine = |matching| self.substitute(legacy, &self.to_engine, matching);
        let to_legacy = |matching| self.substitute(engine, &self.to_legacy, matching);
        if legacy == engine {
            return to_engine(WordMatching::Strict) == legacy && to_legacy(WordMatching::Strict) == engine;
        }
        [WordMatching::Strict, WordMatching::Lax]
            .into_iter()
            .any(|matching| to_engine(matching) == engine || to_legacy(matching) == legacy)
    }

    /// Returns the engine's text with its ids replaced by legacy's, unless they may be mistaken for something else.
    pub(super) fn with_legacy_ids(&self, engine: &str) -> String {
        self.substitute(engine, &self.to_legacy, WordMatching::Strict)
    }

    /// Returns the engine's value with its ids replaced by legacy's: whole strings, numbers, and words in strings, if
    /// they are rarely quantities.
    pub(super) fn value_with_legacy_ids(&self, engine: &serde_json::Value) -> serde_json::Value {
        use serde_json::Value;
        match engine {
            Value::String(text) => Value::String(self.substitute(text, &self.to_legacy, WordMatching::Lax)),
            Value::Number(number) => {
                let id = self.legacy_of(number.as_str()).filter(|_| is_rarely_a_quantity(number.as_str()));
                id.and_then(|id| id.parse().ok()).map_or_else(|| engine.clone(), Value::Number)
            }
            Value::Array(items) => Value::Array(items.iter().map(|v| self.value_with_legacy_ids(v)).collect()),
            Value::Object(map) => {
                Value::Object(map.iter().map(|(k, v)| (k.clone(), self.value_with_legacy_ids(v))).collect())
            }
            Value::Null | Value::Bool(_) => engine.clone(),
        }
    }

    /// Returns the text with each word that is an id replaced by the id to which it is bound.
    fn substitute(&self, text: &str, ids: &HashMap<String, String>, matching: WordMatching) -> String {
        self.substitute_noting(text, ids, matching, &mut |_, _| {})
    }

    /// As [`IdMap::substitute`]; `note` is called with each word that is replaced, and the id in its place.
    fn substitute_noting(
        &self,
        text: &str,
        ids: &HashMap<String, String>,
        matching: WordMatching,
        note: &mut dyn FnMut(&str, &str),
    ) -> String {
        let may_refer = |word: &str| match matching {
            WordMatching::Strict => is_distinctive(word),
            WordMatching::Lax => is_rarely_a_quantity(word),
        };
        if let Some(other) = ids.get(text).filter(|_| may_refer(text)) {
            note(text, other);
            return other.clone();
        }
        let is_word_char =
            |c: char| c.is_alphanumeric() || c == '_' || (matching == WordMatching::Strict && matches!(c, '-' | '.'));
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(start) = rest.find(is_word_char) {
            out.push_str(&rest[..start]);
            let run = &rest[start..];
            let end = run.find(|c| !is_word_char(c)).unwrap_or(run.len());
            // A full stop or a dash at the end is punctuation, not part of the word.
            let word = run[..end].trim_end_matches(['.', '-']);
            let word = if word.is_empty() { &run[..end] } else { word };
            let is_reference = may_refer(word) || self.is_reference_behind(&text[..text.len() - run.len()], word);
            match ids.get(word).filter(|_| is_reference) {
                Some(other) => {
                    note(word, other);
                    out.push_str(other);
                }
                None => out.push_str(word),
            }
            rest = &run[word.len()..];
            // The trimmed characters are copied as they are.
            let tail = rest.find(|c| !matches!(c, '.' | '-')).unwrap_or(rest.len());
            out.push_str(&rest[..tail]);
            rest = &rest[tail..];
        }
        out.push_str(rest);
        out
    }

    /// Whether the text before a word makes the word a reference: the text ends with `/`, `#` or `=`. A small number
    /// behind `=` may be a quantity (`amount=2`), so the parameter's name decides.
    fn is_reference_behind(&self, before: &str, id: &str) -> bool {
        match before.strip_suffix('=') {
            Some(before) => is_rarely_a_quantity(id) || self.names_an_id(before),
            None => before.ends_with(['/', '#']),
        }
    }

    /// Whether the text ends with the name of a parameter that takes an id: `order_id`, `orderIds`, `filter[id]`, or
    /// the key under which an id was bound.
    fn names_an_id(&self, text: &str) -> bool {
        // Only the end of a long text is searched, because the name is at the end.
        let end = text.char_indices().rev().nth(NAME_CHARS_MAX).map_or(text, |(at, _)| &text[at..]);
        let end = ["%5B", "%5b", "%5D", "%5d"].iter().fold(end.to_owned(), |end, bracket| end.replace(bracket, "["));
        let text = end.trim_end_matches(['[', ']']);
        let name = text.rsplit(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-'))).next().unwrap_or_default();
        let lower = name.to_ascii_lowercase();
        let is_of_id = ["id", "ids"].iter().any(|end| lower.ends_with(end));
        self.names.contains(name) || (is_of_id && !AMOUNTS.iter().any(|amount| lower.ends_with(amount)))
    }
}

#[cfg(test)]
impl IdMap {
    /// Binds two texts that were found nowhere in particular.
    pub(super) fn bind_texts(&mut self, name: Option<&str>, legacy: &str, engine: &str) {
        let (path, shown_as, unproven) = (String::new(), ShownAs::UnderKey, None);
        let (a, b) = (legacy.into(), engine.into());
        self.bind(name, legacy, engine, || FoundIds { path, shown_as, legacy: a, engine: b, unproven });
    }
}

/// Returns an id as text, whether it is a JSON string or a number; `None` if the value is neither.
pub(super) fn id_text(value: &serde_json::Value) -> Option<&str> {
    match value {
        serde_json::Value::String(text) => Some(text),
        serde_json::Value::Number(number) => Some(number.as_str()),
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Array(_)
        | serde_json::Value::Object(_) => None,
    }
}

/// Endings of names that end in `id` or `ids` but do not name an id.
const AMOUNTS: [&str; 4] = ["paid", "bid", "bids", "kids"];
/// The longest name of a parameter that is recognised.
const NAME_CHARS_MAX: usize = 128;

/// Whether an id cannot be mistaken for a quantity.
fn is_distinctive(id: &str) -> bool {
    id.len() >= 8 || (!id.is_empty() && !id.bytes().all(|b| b.is_ascii_digit() || b == b'.' || b == b'-'))
}

/// Whether an id is rarely mistaken for a quantity. If line numbers are ids (1 to 3 in legacy's reply, 0 to 2 in the
/// engine's), a price of 2 in legacy's reply and of 1 in the engine's would count as the same id in every pair. With
/// numbers of four digits or more this is rare, and a wrong price shows in another pair.
fn is_rarely_a_quantity(id: &str) -> bool {
    is_distinctive(id) || (id.len() >= 4 && id.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(pairs: &[(&str, &str)]) -> IdMap {
        let mut ids = IdMap::default();
        for (legacy, engine) in pairs {
            ids.bind_texts(Some("no"), legacy, engine);
        }
        ids
    }

    #[test]
    fn references_follow_the_ids() {
        let ids = ids(&[("17", "18"), ("ord_abc", "run_0190")]);
        assert!(ids.same_text("/orders/17", "/orders/18"));
        assert!(ids.same_text("/orders/17/lines?order_id=17", "/orders/18/lines?order_id=18"));
        assert!(ids.same_text("see ord_abc.", "see run_0190."));
        assert!(!ids.same_text("/orders/17", "/orders/17"), "the engine gave out no 17");
        assert!(!ids.same_text("see ord_abc", "see ord_abc"));
        assert!(!ids.same_text("/orders/17", "/orders/19"));
    }

    #[test]
    fn quantities_and_dates_are_no_references() {
        let ids = ids(&[("17", "18")]);
        assert!(ids.same_text("2026-11-17", "2026-11-17"));
        assert!(ids.same_text("17", "17"));
        assert!(ids.same_text("17.50 EUR", "17.50 EUR"));
        assert!(!ids.same_text("117", "118"));
    }

    #[test]
    fn short_numbers_are_references_only_behind_a_slash_a_hash_or_an_id_parameter() {
        let ids = ids(&[("1", "0"), ("2", "1"), ("3", "2"), ("1017", "1018")]);
        for (legacy, engine) in [("2.50 EUR", "1.50 EUR"), ("3", "2"), ("Line 3", "Line 2"), ("2 of 3", "1 of 2")] {
            assert!(!ids.same_text(legacy, engine), "{legacy} {engine}");
        }
        assert!(ids.same_text("/lines/2?id=3#1", "/lines/1?id=2#0"));
        assert!(ids.same_text("Order 1017 is paid", "Order 1018 is paid") && ids.same_text("1017", "1018"));
        let engine = serde_json::json!({ "amount": 1, "price": "1.50", "order": 1018, "text": "order 1018, line 1" });
        let expected = serde_json::json!({ "amount": 1, "price": "1.50", "order": 1017, "text": "order 1017, line 1" });
        assert_eq!(ids.value_with_legacy_ids(&engine), expected);
    }

    #[test]
    fn a_short_number_behind_an_equals_sign_is_a_reference_only_if_the_parameter_takes_an_id() {
        let ids = ids(&[("2", "1"), ("1017", "1018")]);
        for name in ["amount", "qty", "paid", "bid", "filter%5Bbid%5D", "amount_paid", "of", ""] {
            let of = |value: &str| format!("/charges?{name}={value}");
            assert!(!ids.same_text(&of("2"), &of("1")), "{name}");
            assert!(ids.same_text(&of("2"), &of("2")), "{name}");
            assert!(ids.same_text(&of("1017"), &of("1018")) && !ids.same_text(&of("1017"), &of("1017")), "{name}");
        }
        // The last name is the key under which the ids were bound.
        for name in ["id", "ID", "orderid", "orderId", "order_id", "order-id", "x?line.id", "filter[id]", "id[]", "no"]
            .into_iter()
            .chain(["filter%5Bid%5D", "order_ids[]", "ids%5b%5d"])
        {
            let of = |value: &str| format!("/lines?{name}={value}");
            assert!(ids.same_text(&of("2"), &of("1")), "{name}");
            assert!(!ids.same_text(&of("2"), &of("2")), "{name}: the engine gave out no 2");
        }
        assert!(ids.same_text("/lines?amount=2&id=2", "/lines?amount=2&id=1"));
        let engine = serde_json::json!("http://bank/charges?amount=1&id=1");
        assert_eq!(ids.value_with_legacy_ids(&engine), "http://bank/charges?amount=1&id=2");
    }

    #[test]
    fn a_binding_is_one_to_one() {
        let ids = ids(&[("1", "9"), ("2", "9"), ("1", "8")]);
        assert!(ids.are_bound("1", "9"));
        assert!(!ids.are_bound("2", "9"));
        assert!(!ids.are_bound("1", "8"));
    }

    #[test]
    fn unusual_ids_do_not_hang_or_panic() {
        let ids = ids(&[("-", "."), ("", "x"), ("ä", "ö"), ("...", "a")]);
        for text in ["-", "--.--", "...", "", "ä-ä.ä", "a.-b", "👍.👍"] {
            ids.same_text(text, "x");
        }
        assert!(ids.same_text("/ä/1", "/ö/1"));
    }
}

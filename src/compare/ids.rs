//! Legacy's ids and the engine's, one to one.
//!
//! Always true: no id of either side is bound to two of the other. The first binding stands; what contradicts it is a
//! wrong reference, wherever it shows.

use std::collections::HashMap;

#[derive(Clone, Debug, Default)]
pub(super) struct Ids {
    to_engine: HashMap<String, String>,
    to_legacy: HashMap<String, String>,
}

/// How far a name reaches: in strict reading `2026-11-17` is one word, in lax reading `17` is a word of it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    Strict,
    Lax,
}

impl Ids {
    /// Binds two ids where both are free.
    pub(super) fn bind(&mut self, legacy: &str, engine: &str) {
        if !self.to_engine.contains_key(legacy) && !self.to_legacy.contains_key(engine) {
            self.to_engine.insert(legacy.to_owned(), engine.to_owned());
            self.to_legacy.insert(engine.to_owned(), legacy.to_owned());
        }
    }
    /// Whether two ids are bound to each other.
    pub(super) fn agree(&self, legacy: &str, engine: &str) -> bool {
        self.to_engine.get(legacy).is_some_and(|bound| bound == engine)
    }
    /// Legacy's id for one of the engine's.
    pub(super) fn legacy_of(&self, engine: &str) -> Option<&str> {
        self.to_legacy.get(engine).map(String::as_str)
    }
    /// Whether legacy's id is bound.
    pub(super) fn knows_legacy(&self, legacy: &str) -> bool {
        self.to_engine.contains_key(legacy)
    }
    pub(super) fn is_empty(&self) -> bool {
        self.to_engine.is_empty()
    }

    /// Whether two strings say the same, each in its own ids. `/orders/17` and `/orders/18` do where 17 and 18 are
    /// bound; `/orders/17` on both sides does not then: the engine refers to something that is not there.
    pub(super) fn same_text(&self, legacy: &str, engine: &str) -> bool {
        if self.is_empty() {
            return legacy == engine;
        }
        let there = |reading| substitute(legacy, &self.to_engine, reading);
        let back = |reading| substitute(engine, &self.to_legacy, reading);
        if legacy == engine {
            return there(Reading::Strict) == legacy && back(Reading::Strict) == engine;
        }
        [Reading::Strict, Reading::Lax].into_iter().any(|reading| there(reading) == engine || back(reading) == legacy)
    }

    /// The engine's text in legacy's ids, where it certainly speaks of them.
    pub(super) fn in_legacy_words(&self, engine: &str) -> String {
        substitute(engine, &self.to_legacy, Reading::Strict)
    }

    /// The engine's value in legacy's ids, whole strings and numbers as well as words in strings.
    pub(super) fn value_in_legacy_words(&self, engine: &serde_json::Value) -> serde_json::Value {
        use serde_json::Value;
        match engine {
            Value::String(text) => Value::String(substitute(text, &self.to_legacy, Reading::Lax)),
            Value::Number(number) => match self.legacy_of(number.as_str()).and_then(|id| id.parse().ok()) {
                Some(number) => Value::Number(number),
                None => engine.clone(),
            },
            Value::Array(items) => Value::Array(items.iter().map(|v| self.value_in_legacy_words(v)).collect()),
            Value::Object(map) => {
                Value::Object(map.iter().map(|(k, v)| (k.clone(), self.value_in_legacy_words(v))).collect())
            }
            Value::Null | Value::Bool(_) => engine.clone(),
        }
    }
}

fn substitute(text: &str, ids: &HashMap<String, String>, reading: Reading) -> String {
    if let Some(other) = ids.get(text).filter(|_| reading == Reading::Lax || is_telling(text)) {
        return other.clone();
    }
    let of_word = |c: char| c.is_alphanumeric() || c == '_' || (reading == Reading::Strict && matches!(c, '-' | '.'));
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(of_word) {
        out.push_str(&rest[..start]);
        let run = &rest[start..];
        let end = run.find(|c| !of_word(c)).unwrap_or(run.len());
        // A full stop behind a word ends a sentence.
        let word = run[..end].trim_end_matches(['.', '-']);
        let word = if word.is_empty() { &run[..end] } else { word };
        let refers = reading == Reading::Lax || is_telling(word) || out.ends_with(['/', '=', '#']);
        match ids.get(word).filter(|_| refers) {
            Some(other) => out.push_str(other),
            None => out.push_str(word),
        }
        rest = &run[word.len()..];
        // What was trimmed is no word of its own.
        let tail = rest.find(|c| !matches!(c, '.' | '-')).unwrap_or(rest.len());
        out.push_str(&rest[..tail]);
        rest = &rest[tail..];
    }
    out.push_str(rest);
    out
}

/// An id that cannot be mistaken for a quantity.
fn is_telling(id: &str) -> bool {
    id.len() >= 8 || (!id.is_empty() && !id.bytes().all(|b| b.is_ascii_digit() || b == b'.' || b == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(pairs: &[(&str, &str)]) -> Ids {
        let mut ids = Ids::default();
        for (legacy, engine) in pairs {
            ids.bind(legacy, engine);
        }
        ids
    }

    #[test]
    fn references_follow_the_ids() {
        let ids = ids(&[("17", "18"), ("ord_abc", "run_0190")]);
        assert!(ids.same_text("/orders/17", "/orders/18"));
        assert!(ids.same_text("/orders/17/lines?of=17", "/orders/18/lines?of=18"));
        assert!(ids.same_text("see ord_abc.", "see run_0190."));
        assert!(!ids.same_text("/orders/17", "/orders/17"), "the engine has no 17");
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
    fn a_binding_is_one_to_one() {
        let ids = ids(&[("1", "9"), ("2", "9"), ("1", "8")]);
        assert!(ids.agree("1", "9"));
        assert!(!ids.agree("2", "9"));
        assert!(!ids.agree("1", "8"));
    }

    #[test]
    fn odd_ids_do_not_hang_or_panic() {
        let ids = ids(&[("-", "."), ("", "x"), ("ä", "ö"), ("...", "a")]);
        for text in ["-", "--.--", "...", "", "ä-ä.ä", "a.-b", "👍.👍"] {
            ids.same_text(text, "x");
        }
        assert!(ids.same_text("/ä/1", "/ö/1"));
    }
}

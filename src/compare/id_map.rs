//! The one-to-one mapping between legacy's ids and the engine's.
//!
//! Always true: within a kind of ids (`kind:`), no id of one arm is bound to two ids of the other. The first binding
//! stays; a value that contradicts it is a wrong reference. An id whose kind is not declared counts as bound if it is
//! bound in any kind.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;

use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::id_form::{is_no_id, is_uuid, may_correspond};
use super::id_words::{
    BoundId, IdNames, IdsOfArm, Substitution, WORD_BYTES_MAX, WordMatching, is_number, is_rarely_a_quantity,
};
use super::quantity::names_an_amount;
use super::redact::ShownAs;
use super::rule_texts::{IdKind, RuleId};

/// A shorter word in an id is not taken for another id: two things often have the same short number.
const WORD_BYTES_MIN: usize = 5;

/// The bindings, in both directions.
#[derive(Clone, Debug, Default)]
pub(super) struct IdMap {
    to_engine: IdsOfArm,
    to_legacy: IdsOfArm,
    /// Where each id of legacy was bound.
    found: HashMap<(IdKind, String), FoundIds>,
    names: IdNames,
    /// By id of legacy: how many times it was found to correspond when the pair was compared, the place where it was
    /// bound included.
    confirmed: RefCell<HashMap<(IdKind, String), u32>>,
    /// Whether two ids could not be bound because one of them was bound to another.
    are_contradicted: bool,
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
    /// The rule that says that they are ids; `None` if no rule does.
    pub(super) rule: Option<RuleId>,
    /// What is counted if no other place confirms that the ids correspond.
    pub(super) unproven: Option<RuleId>,
}

/// Whether a text contains an id, and not only as a part of a longer number.
fn contains_id(text: &str, id: &str) -> bool {
    let is_digit = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_digit);
    let bytes = id.as_bytes();
    text.match_indices(id).any(|(at, _)| {
        let (before, behind) = text.as_bytes().split_at(at);
        let behind = &behind[id.len()..];
        !(is_digit(before.last()) && is_digit(bytes.first()) || is_digit(bytes.last()) && is_digit(behind.first()))
    })
}

impl IdMap {
    /// An empty map. The names of the kinds tell, in texts, which kind of id a word is.
    pub(super) fn of_kinds(kinds: &[String]) -> Self {
        let mut ids = Self::default();
        ids.names.kinds = kinds.iter().map(|kind| kind.to_ascii_lowercase()).collect();
        ids
    }
    /// Binds two ids that were found under this key, unless one of them is bound already, or they cannot be ids of one
    /// thing. `found` is called only if this call binds them.
    pub(super) fn bind(&mut self, name: Option<&str>, legacy: &str, engine: &str, found: impl FnOnce() -> FoundIds) {
        self.bind_as(IdKind::ANY, name, legacy, engine, found);
    }
    /// Ids may be made of others. If a word of legacy's id is an id that is bound, the engine's id has to have the
    /// bound one in it: legacy's `BK-40121` names its order 40121, so the engine's has to name the order that it made.
    /// Returns the bindings for which it does not, each with legacy's word.
    fn bindings_not_followed<'m>(
        &'m self,
        kind: IdKind,
        legacy: &'m str,
        engine: &'m str,
    ) -> impl Iterator<Item = (&'m BoundId, &'m str)> {
        let is_reference = |word: &&str| {
            word.len() >= WORD_BYTES_MIN && word.len() < legacy.len() && word.bytes().any(|b| b.is_ascii_digit())
        };
        let is_too_long = legacy.len() > WORD_BYTES_MAX || engine.len() > WORD_BYTES_MAX;
        let searched = if self.is_empty() || is_uuid(legacy) || is_too_long { "" } else { legacy };
        let words = searched.split(|c: char| !c.is_alphanumeric()).filter(is_reference);
        words.filter_map(move |word| {
            let may_be_meant = |bound: &&BoundId| kind == IdKind::ANY || [kind, IdKind::ANY].contains(&bound.kind);
            let mut bound = self.to_engine.all(word).iter().filter(may_be_meant);
            let first = bound.next()?;
            let is_named = |bound: &BoundId| contains_id(engine, &bound.id);
            (!is_named(first) && !bound.any(is_named)).then_some((first, word))
        })
    }
    /// As [`IdMap::bind`], for ids of a kind.
    pub(super) fn bind_as(
        &mut self,
        kind: IdKind,
        name: Option<&str>,
        legacy: &str,
        engine: &str,
        found: impl FnOnce() -> FoundIds,
    ) {
        if let Some(name) = name {
            self.names.add(name);
        }
        let (to_engine, to_legacy) = (self.to_engine.get(legacy, kind), self.to_legacy.get(engine, kind));
        let is_bound = to_engine.is_some() || to_legacy.is_some();
        self.are_contradicted |= is_bound && to_engine.is_none_or(|bound| bound.id != engine);
        if !is_bound
            && may_correspond(legacy, engine)
            && self.bindings_not_followed(kind, legacy, engine).next().is_none()
        {
            self.to_engine.add(legacy, kind, engine);
            self.to_legacy.add(engine, kind, legacy);
            self.found.insert((kind, legacy.to_owned()), found());
        }
    }
    /// Whether two ids could not be bound because one of them was bound to another.
    pub(super) fn are_contradicted(&self) -> bool {
        self.are_contradicted
    }
    /// The bindings that keep two ids of a kind from being bound to each other.
    pub(super) fn contradicted(&self, kind: IdKind, legacy: &str, engine: &str) -> Vec<&FoundIds> {
        let of_legacy = self.to_engine.get(legacy, kind).map(|bound| (bound.kind, legacy));
        let of_engine = self.to_legacy.get(engine, kind).map(|bound| (bound.kind, bound.id.as_str()));
        let bound = [of_legacy, of_engine.filter(|found| Some(*found) != of_legacy)];
        let named = self.bindings_not_followed(kind, legacy, engine).map(|(bound, word)| (bound.kind, word));
        bound.into_iter().flatten().chain(named).filter_map(|(kind, legacy)| self.found_at(kind, legacy)).collect()
    }
    fn found_at(&self, kind: IdKind, legacy: &str) -> Option<&FoundIds> {
        self.found.get(&(kind, legacy.to_owned()))
    }
    /// The bindings that two identical texts contradict: the text names an id that is bound to another one.
    pub(super) fn contradicted_in_text(&self, legacy: &str, engine: &str) -> Vec<&FoundIds> {
        if legacy != engine {
            return Vec::new();
        }
        let mut ids: Vec<(IdKind, String)> = Vec::new();
        self.substitution(&self.to_engine, WordMatching::Strict).apply(legacy, &mut |id, bound| {
            ids.extend((id != bound.id).then(|| (bound.kind, id.to_owned())));
        });
        self.substitution(&self.to_legacy, WordMatching::Strict).apply(engine, &mut |id, bound| {
            ids.extend((id != bound.id).then(|| (bound.kind, bound.id.clone())));
        });
        ids.sort();
        ids.dedup();
        ids.iter().filter_map(|found| self.found.get(found)).collect()
    }
    /// The ids that were bound by a rule: their kind, legacy's id, and where they were found.
    pub(super) fn found_by_rules(&self) -> impl Iterator<Item = (IdKind, &str, &FoundIds)> {
        let by_rules = self.found.iter().filter(|(_, found)| found.rule.is_some());
        by_rules.map(|((kind, legacy), found)| (*kind, legacy.as_str(), found))
    }
    /// Whether two ids of a kind are bound to each other.
    pub(super) fn are_bound(&self, kind: IdKind, legacy: &str, engine: &str) -> bool {
        let bound = self.to_engine.all(legacy).iter();
        let mut bound = bound.filter(|bound| bound.id == engine && (kind == IdKind::ANY || bound.kind == kind));
        match bound.next() {
            // An id that is a word of this one may have been bound later.
            Some(_) if self.bindings_not_followed(kind, legacy, engine).next().is_some() => false,
            Some(bound) => {
                self.confirm(bound.kind, legacy);
                true
            }
            // A value that cannot be an id (empty, `null`) corresponds only to itself.
            None => legacy == engine && is_no_id(legacy),
        }
    }
    fn confirm(&self, kind: IdKind, legacy: &str) {
        let mut confirmed = self.confirmed.borrow_mut();
        let times = confirmed.entry((kind, legacy.to_owned())).or_default();
        *times = times.saturating_add(1);
    }
    /// What is counted for the ids that differ and stand only where they were bound: nothing else tells whether they
    /// refer to the same thing. To be called after the pair was compared.
    pub(super) fn unproven(&self) -> Vec<RuleId> {
        let confirmed = self.confirmed.borrow();
        let ids = self.to_engine.iter().filter(|(legacy, bound)| **legacy != bound.id);
        let ids = ids.map(|(legacy, bound)| (bound.kind, legacy.clone()));
        let ids = ids.filter(|id| confirmed.get(id).is_none_or(|times| *times <= 1));
        ids.filter_map(|id| self.found.get(&id)?.unproven).collect()
    }
    /// The id of legacy that corresponds to this id of the engine.
    pub(super) fn legacy_of(&self, kind: IdKind, engine: &str) -> Option<&str> {
        self.to_legacy.get(engine, kind).map(|bound| bound.id.as_str())
    }
    /// Whether this id of legacy is bound.
    pub(super) fn has_legacy(&self, kind: IdKind, legacy: &str) -> bool {
        self.to_engine.get(legacy, kind).is_some()
    }
    /// How many ids of legacy are bound.
    pub(super) fn len(&self) -> usize {
        self.found.len()
    }
    pub(super) fn is_empty(&self) -> bool {
        self.to_engine.is_empty()
    }

    /// Whether two strings are equal if their ids correspond. If legacy's 17 is bound to the engine's 18, `/orders/17`
    /// and `/orders/18` are equal, but `/orders/17` on both sides is not: the engine refers to an id that it never gave
    /// out.
    pub(super) fn same_text(&self, legacy: &str, engine: &str) -> bool {
        if !self.may_have_ids(legacy, engine) {
            return legacy == engine;
        }
        let same = self.is_same_text(legacy, engine);
        if same && legacy != engine {
            let mut found = Vec::new();
            let note = &mut |id: &str, bound: &BoundId| found.push((bound.kind, id.to_owned()));
            self.substitution(&self.to_engine, WordMatching::Lax).apply(legacy, note);
            found.iter().for_each(|(kind, id)| self.confirm(*kind, id));
        }
        same
    }

    /// Whether an id that is bound may be in one of two texts, as it is or percent-encoded.
    fn may_have_ids(&self, legacy: &str, engine: &str) -> bool {
        if self.is_empty() {
            return false;
        }
        // A text that both arms have must not name an id of either of them.
        let is_in = |ids: &IdsOfArm| ids.may_be_in(legacy) || legacy != engine && ids.may_be_in(engine);
        is_in(&self.to_engine) || is_in(&self.to_legacy) || legacy.contains('%') || engine.contains('%')
    }

    /// The rules by whose ids a text of legacy equals another one of the engine: `fallback` if its ids are written in a
    /// way in which they are not found here.
    pub(super) fn rules_in(&self, legacy: &str, fallback: Option<RuleId>) -> Vec<RuleId> {
        let (mut rules, mut has_ids) = (Vec::new(), false);
        self.substitution(&self.to_engine, WordMatching::Lax).apply(legacy, &mut |id, bound| {
            has_ids = true;
            rules.extend(self.found_at(bound.kind, id).and_then(|found| found.rule));
        });
        if !has_ids {
            rules.extend(fallback);
        }
        rules.sort_unstable();
        rules.dedup();
        rules
    }

    fn is_same_text(&self, legacy: &str, engine: &str) -> bool {
        if legacy == engine {
            let is_kept =
                |ids: &IdsOfArm| self.substitution(ids, WordMatching::Strict).apply(legacy, &mut |_, _| {}) == legacy;
            return is_kept(&self.to_engine) && is_kept(&self.to_legacy) && !self.names_encoded_ids(legacy);
        }
        match self.without_encoded_ids(legacy, engine) {
            Some((legacy, engine)) => legacy == engine || self.is_same_by_words(&legacy, &engine),
            None => self.is_same_by_words(legacy, engine),
        }
    }

    fn is_same_by_words(&self, legacy: &str, engine: &str) -> bool {
        // Each kind is tried: an id that is bound in several kinds may be of any of them.
        let kinds = 0..self.names.kinds.len().max(1);
        [WordMatching::Strict, WordMatching::Lax].into_iter().any(|matching| {
            kinds.clone().map(IdKind::of_index).any(|preferred| {
                let apply = |ids: &IdsOfArm, text: &str| {
                    Substitution { preferred, ..self.substitution(ids, matching) }.apply(text, &mut |_, _| {})
                };
                apply(&self.to_engine, legacy) == engine || apply(&self.to_legacy, engine) == legacy
            })
        })
    }

    /// If percent-encoded parts of two texts are ids that are bound to each other: the texts without them.
    fn without_encoded_ids(&self, legacy: &str, engine: &str) -> Option<(String, String)> {
        if !legacy.contains('%') && !engine.contains('%') {
            return None;
        }
        let (a, b): (Vec<&str>, Vec<&str>) = (encoded_parts(legacy).collect(), encoded_parts(engine).collect());
        let (mut left, mut right, mut has_ids) = (String::new(), String::new(), false);
        let parts = a.iter().copied().zip(b.iter().copied());
        for (a, b) in parts.filter(|_| a.len() == b.len()) {
            let (id, end) = split_delimiter(a);
            let (other, other_end) = split_delimiter(b);
            let is_bound = (id.contains('%') || other.contains('%'))
                && matches!((decoded(id), decoded(other)), (Some(a), Some(b)) if self.are_bound(IdKind::ANY, &a, &b));
            has_ids |= is_bound;
            left.push_str(if is_bound { end } else { a });
            right.push_str(if is_bound { other_end } else { b });
        }
        has_ids.then_some((left, right))
    }

    /// Whether a text that both arms have names, percent-encoded, an id that is bound to another.
    fn names_encoded_ids(&self, text: &str) -> bool {
        if !text.contains('%') {
            return false;
        }
        let parts = encoded_parts(text).map(|part| split_delimiter(part).0);
        let mut ids = parts.filter(|part| part.contains('%')).filter_map(decoded);
        ids.any(|id| {
            let all = [self.to_engine.all(&id), self.to_legacy.all(&id)];
            let mut bound = all.into_iter().flatten().peekable();
            bound.peek().is_some() && bound.all(|bound| bound.id != id)
        })
    }

    /// Returns the engine's text with its ids replaced by legacy's, unless they may be mistaken for something else.
    pub(super) fn with_legacy_ids<'t>(&self, engine: &'t str) -> Cow<'t, str> {
        if !self.to_legacy.may_be_in(engine) {
            return Cow::Borrowed(engine);
        }
        self.substitution(&self.to_legacy, WordMatching::Strict).apply(engine, &mut |_, _| {}).into()
    }

    /// Returns the engine's value with its ids replaced by legacy's: whole strings, numbers, and words in strings, if
    /// they are rarely quantities.
    pub(super) fn value_with_legacy_ids(&self, engine: &Value) -> Value {
        match engine {
            Value::String(text) => {
                Value::String(self.substitution(&self.to_legacy, WordMatching::Lax).apply(text, &mut |_, _| {}))
            }
            Value::Number(number) => {
                let id = self.legacy_of(IdKind::ANY, number.as_str());
                let id = id.filter(|_| is_rarely_a_quantity(number.as_str()));
                id.and_then(|id| id.parse().ok()).map_or_else(|| engine.clone(), Value::Number)
            }
            Value::Array(items) => Value::Array(items.iter().map(|v| self.value_with_legacy_ids(v)).collect()),
            Value::Object(map) => {
                let value = |key: &str, value: &Value| match id_text(value) {
                    // An amount of money that happens to be an id of either arm is none.
                    Some(text) if names_an_amount(key) && self.may_be_amount(text) => value.clone(),
                    Some(_) | None => self.value_with_legacy_ids(value),
                };
                Value::Object(map.iter().map(|(k, v)| (k.clone(), value(k, v))).collect())
            }
            Value::Null | Value::Bool(_) => engine.clone(),
        }
    }

    /// Whether a text of the engine under the name of an amount is a number, or legacy has a number in its place.
    fn may_be_amount(&self, text: &str) -> bool {
        is_number(text) || self.legacy_of(IdKind::ANY, text).is_some_and(is_number)
    }

    fn substitution<'m>(&'m self, ids: &'m IdsOfArm, matching: WordMatching) -> Substitution<'m> {
        Substitution { ids, names: &self.names, matching, preferred: IdKind::ANY }
    }
}

/// The parts of a text between delimiters of URLs and sentences, each with the delimiter that follows.
fn encoded_parts(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive(['/', '?', '&', '=', '#', ';', ',', ' ', '"'])
}

fn split_delimiter(part: &str) -> (&str, &str) {
    let id = part.trim_end_matches(['/', '?', '&', '=', '#', ';', ',', ' ', '"']);
    (id, &part[id.len()..])
}

fn decoded(part: &str) -> Option<String> {
    Some(percent_decode_str(part).decode_utf8().ok()?.into_owned())
}

#[cfg(test)]
impl IdMap {
    /// As [`IdMap::same_text`], by a search for ids in any text.
    pub(super) fn same_text_by_search(&self, legacy: &str, engine: &str) -> bool {
        if self.is_empty() { legacy == engine } else { self.is_same_text(legacy, engine) }
    }
    /// As [`IdMap::with_legacy_ids`], by a search for ids in any text.
    pub(super) fn with_legacy_ids_by_search(&self, engine: &str) -> String {
        self.substitution(&self.to_legacy, WordMatching::Strict).apply(engine, &mut |_, _| {})
    }
    /// Legacy's ids and the engine's to which they are bound, sorted.
    pub(super) fn bound(&self) -> Vec<(IdKind, String, String)> {
        let mut bound: Vec<_> =
            self.to_engine.iter().map(|(id, bound)| (bound.kind, id.clone(), bound.id.clone())).collect();
        bound.sort();
        bound
    }
    /// Binds two texts that were found nowhere in particular.
    pub(super) fn bind_texts(&mut self, name: Option<&str>, legacy: &str, engine: &str) {
        let (path, shown_as, unproven) = (String::new(), ShownAs::UnderKey, None);
        let (a, b) = (legacy.into(), engine.into());
        self.bind(name, legacy, engine, || FoundIds { path, shown_as, legacy: a, engine: b, rule: None, unproven });
    }
}

/// Returns an id as text, whether it is a JSON string or a number; `None` if the value is neither.
pub(super) fn id_text(value: &Value) -> Option<&str> {
    match value {
        Value::String(text) => Some(text),
        Value::Number(number) => Some(number.as_str()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

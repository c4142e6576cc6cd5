//! Finds the ids of one arm in a text, and puts those of the other arm in their place.
//!
//! Always true: a number is taken for an id, and put in place of one, only where nothing says that it is a quantity
//! (`quantity`), and a number of fewer than four digits only where something says that it is an id; the work on a text
//! grows with its length alone.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;

use super::id_filter::IdFilter;
use super::id_form::is_uuid;
use super::quantity;
use super::rule_texts::IdKind;

/// The ids of one arm.
#[derive(Clone, Debug, Default)]
pub(super) struct IdsOfArm {
    /// By id: what it is bound to, at most once for each kind.
    by_id: HashMap<String, Vec<BoundId>>,
    /// The lengths in bytes of the ids that may stand within a word.
    lengths: BTreeSet<usize>,
    filter: IdFilter,
}

/// The id of the other arm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BoundId {
    pub(super) kind: IdKind,
    pub(super) id: String,
}

/// The names after which a number is an id.
#[derive(Clone, Debug, Default)]
pub(super) struct IdNames {
    /// The keys under which ids were bound: a parameter of such a name takes an id.
    keys: HashSet<String>,
    /// The nouns in these keys, in lower case: `order` of `order_id`.
    nouns: HashSet<String>,
    /// The names of the declared kinds, in lower case, by kind.
    pub(super) kinds: Vec<String>,
}

/// Which words may be ids without a hint in the text around them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WordMatching {
    /// `-` and `.` belong to a word (`2026-11-17` is one word); only a word that cannot be a quantity may be an id.
    Strict,
    /// The parts of a word between such characters may be ids too, and so may words that are rarely a quantity.
    Lax,
}

/// Nouns after which a number is an id and no quantity: `Order 4000`.
const NOUNS: &[&str] = &[
    "booking",
    "customer",
    "id",
    "invoice",
    "no",
    "nr",
    "number",
    "order",
    "ref",
    "reference",
    "reservation",
    "ticket",
];
/// Endings of keys that say that their value is an id.
const ID_ENDINGS: [&str; 6] = ["id", "ids", "no", "nr", "number", "ref"];
/// Endings of names that end in `id` or `ids` but do not name an id.
const NO_ID_ENDINGS: [&str; 4] = ["paid", "bid", "bids", "kids"];
/// The longest name of a parameter that is recognised.
const NAME_CHARS_MAX: usize = 128;
/// Ids of more lengths than this are not searched for within words: each length is tried at each place of a word.
const LENGTHS_MAX: usize = 32;
/// Longer words are not searched.
pub(super) const WORD_BYTES_MAX: usize = 512;

impl IdsOfArm {
    pub(super) fn add(&mut self, id: &str, kind: IdKind, other: &str) {
        if id.len() >= 4 && id.bytes().any(|b| b.is_ascii_digit()) {
            self.lengths.insert(id.len());
        }
        self.filter.add(id);
        self.by_id.entry(id.to_owned()).or_default().push(BoundId { kind, id: other.to_owned() });
    }

    /// What an id of this kind is bound to; of an id without a declared kind, that of any kind.
    pub(super) fn get(&self, id: &str, kind: IdKind) -> Option<&BoundId> {
        let all = self.by_id.get(id)?;
        all.iter().find(|bound| bound.kind == kind).or_else(|| all.first().filter(|_| kind == IdKind::ANY))
    }

    /// Everything that an id is bound to.
    pub(super) fn all(&self, id: &str) -> &[BoundId] {
        self.by_id.get(id).map_or(&[], Vec::as_slice)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Whether a substitution may find an id in a text.
    pub(super) fn may_be_in(&self, text: &str) -> bool {
        self.filter.may_be_in(text)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, &BoundId)> {
        self.by_id.iter().flat_map(|(id, bound)| bound.iter().map(move |bound| (id, bound)))
    }
}

impl IdNames {
    /// Adds the key of an id.
    pub(super) fn add(&mut self, key: &str) {
        if self.keys.contains(key) {
            return;
        }
        self.keys.insert(key.to_owned());
        let lower = key.to_ascii_lowercase();
        let noun = ID_ENDINGS.iter().find_map(|end| lower.strip_suffix(end)).unwrap_or(&lower);
        let noun = noun.trim_end_matches(['_', '-']);
        if noun.len() > 2 && !quantity::names_an_amount(noun) {
            self.nouns.insert(noun.to_owned());
        }
    }

    /// Whether the text ends with the name of a parameter that takes an id: `order_id`, `orderIds`, `filter[id]`, or
    /// the key under which an id was bound.
    fn ends_with_id_parameter(&self, text: &str) -> bool {
        // Only the end of a long text is searched, because the name is at the end.
        let end = text.char_indices().rev().nth(NAME_CHARS_MAX).map_or(text, |(at, _)| &text[at..]);
        let end = ["%5B", "%5b", "%5D", "%5d"].iter().fold(end.to_owned(), |end, bracket| end.replace(bracket, "["));
        let text = end.trim_end_matches(['[', ']']);
        let name = text.rsplit(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-'))).next().unwrap_or_default();
        let lower = name.to_ascii_lowercase();
        let is_of_id = ["id", "ids"].iter().any(|end| lower.ends_with(end));
        self.keys.contains(name) || (is_of_id && !NO_ID_ENDINGS.iter().any(|end| lower.ends_with(end)))
    }

    /// Whether the text ends with one of the nouns.
    fn ends_with_noun(&self, before: &str) -> bool {
        let before = before.strip_suffix(". ").unwrap_or(before);
        let word = quantity::word_before(before);
        NOUNS.iter().any(|noun| word.eq_ignore_ascii_case(noun)) || self.nouns.contains(&word.to_ascii_lowercase())
    }

    /// The declared kinds that the name before an id has: `/customers/`, `customer_id=`.
    fn kinds_before(&self, before: &str) -> Vec<IdKind> {
        let text = before.trim_end_matches(|c: char| !c.is_alphanumeric());
        let end = text.char_indices().rev().nth(NAME_CHARS_MAX).map_or(text, |(at, _)| &text[at..]);
        let name = end.rsplit(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-'))).next().unwrap_or_default();
        let name = name.to_ascii_lowercase();
        let named = self.kinds.iter().enumerate().filter(|(_, kind)| !kind.is_empty() && name.contains(kind.as_str()));
        named.map(|(index, _)| IdKind::of_index(index)).collect()
    }
}

/// One way to replace the ids of a text.
pub(super) struct Substitution<'m> {
    pub(super) ids: &'m IdsOfArm,
    pub(super) names: &'m IdNames,
    pub(super) matching: WordMatching,
    /// The kind that is assumed of an id that is bound in several kinds, where the text does not name one.
    pub(super) preferred: IdKind,
}

impl Substitution<'_> {
    /// Returns the text with each id replaced by the one to which it is bound. `note` is called with each id that is
    /// replaced, as it is bound, and with what it is bound to.
    pub(super) fn apply(&self, text: &str, note: &mut dyn FnMut(&str, &BoundId)) -> String {
        if self.may_refer(text)
            && let Some(other) = self.find(text, "", note)
        {
            return other;
        }
        let is_word_char = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
        let mut out = String::with_capacity(text.len());
        let mut at = 0;
        while let Some(start) = text[at..].find(is_word_char).map(|start| at + start) {
            out.push_str(&text[at..start]);
            let end = text[start..].find(|c| !is_word_char(c)).map_or(text.len(), |end| start + end);
            // A full stop or a dash at the end is punctuation, not part of the word.
            let trimmed = text[start..end].trim_end_matches(['.', '-']).len();
            let word = start..if trimmed == 0 { end } else { start + trimmed };
            match self.whole(text, word.clone(), note) {
                Some(other) => out.push_str(&other),
                None => self.apply_within(text, word.clone(), &mut out, note),
            }
            out.push_str(&text[word.end..end]);
            at = end;
        }
        out.push_str(&text[at..]);
        out
    }

    /// The id in place of a whole word, if the word is an id.
    fn whole(&self, text: &str, word: Range<usize>, note: &mut dyn FnMut(&str, &BoundId)) -> Option<String> {
        let (before, id, after) = (&text[..word.start], &text[word.clone()], &text[word.end..]);
        if self.ids.all(id).is_empty() && !is_uuid(id) {
            return None;
        }
        self.refers(before, id, after).then(|| self.find_beside(id, before, after, note)).flatten()
    }

    /// As [`Self::find`]; `None` if the id of the other arm would be a quantity in this place: then the two must be
    /// equal.
    fn find_beside(&self, id: &str, before: &str, after: &str, note: &mut dyn FnMut(&str, &BoundId)) -> Option<String> {
        let mut found = None;
        let other = self.find(id, before, &mut |id, bound| found = Some((id.to_owned(), bound.clone())))?;
        let is_quantity = || !is_in_path(before, after) && quantity::is_quantity(before, &other, after);
        if is_number(&other) && is_quantity() {
            return None;
        }
        found.iter().for_each(|(id, bound)| note(id, bound));
        Some(other)
    }

    /// Replaces the ids that are parts of a word.
    fn apply_within(&self, text: &str, word: Range<usize>, out: &mut String, note: &mut dyn FnMut(&str, &BoundId)) {
        let mut at = word.start;
        for (part, other) in self.parts(text, word.clone(), note) {
            self.apply_to_gap(text, at..part.start, out, note);
            out.push_str(&other);
            at = part.end;
        }
        self.apply_to_gap(text, at..word.end, out, note);
    }

    /// Finds the ids that are parts of a word: between characters that are neither letters nor digits, and between
    /// letters and digits (`A4000DE`).
    fn parts(
        &self,
        text: &str,
        word: Range<usize>,
        note: &mut dyn FnMut(&str, &BoundId),
    ) -> Vec<(Range<usize>, String)> {
        let mut found = Vec::new();
        let lengths = &self.ids.lengths;
        let is_searched = !lengths.is_empty() && lengths.len() <= LENGTHS_MAX && word.len() <= WORD_BYTES_MAX;
        if !is_searched || !text[word.clone()].bytes().any(|b| b.is_ascii_digit()) {
            return found;
        }
        let least = if self.matching == WordMatching::Strict { 8 } else { 4 };
        let mut at = word.start;
        while at < word.end {
            let mut end = text[at..].chars().next().map_or(word.end, |c| at + c.len_utf8());
            if is_boundary(text, at) {
                let ends = lengths.iter().rev().filter(|length| **length >= least).map(|length| at + length);
                for until in ends.filter(|until| *until <= word.end && is_boundary(text, *until)) {
                    let Some(id) = text.get(at..until) else { continue };
                    let is_amount = is_number(id) && quantity::is_quantity(&text[..at], id, &text[until..]);
                    if !is_amount && let Some(other) = self.find_beside(id, &text[..at], &text[until..], note) {
                        found.push((at..until, other));
                        end = until;
                        break;
                    }
                }
            }
            at = end;
        }
        found
    }

    /// Copies a part of a word in which no id was found; in a lax search, replaces the words in it.
    fn apply_to_gap(&self, text: &str, gap: Range<usize>, out: &mut String, note: &mut dyn FnMut(&str, &BoundId)) {
        if self.matching == WordMatching::Strict {
            out.push_str(&text[gap]);
            return;
        }
        let is_word_char = |c: char| c.is_alphanumeric() || c == '_';
        let mut at = gap.start;
        while let Some(start) = text[at..gap.end].find(is_word_char).map(|start| at + start) {
            out.push_str(&text[at..start]);
            let end = text[start..gap.end].find(|c| !is_word_char(c)).map_or(gap.end, |end| start + end);
            // What is left of a word beside an id is no word.
            let is_whole = !text[..start].ends_with(is_word_char) && !text[end..].starts_with(is_word_char);
            match is_whole.then(|| self.whole(text, start..end, note)).flatten() {
                Some(other) => out.push_str(&other),
                None => out.push_str(&text[start..end]),
            }
            at = end;
        }
        out.push_str(&text[at..gap.end]);
    }

    /// The id of the other arm to which an id is bound; of a UUID also if it is written in the other case.
    fn find(&self, id: &str, before: &str, note: &mut dyn FnMut(&str, &BoundId)) -> Option<String> {
        let exact = self.ids.all(id);
        if !exact.is_empty() {
            let bound = self.choose(exact, before)?;
            note(id, bound);
            return Some(bound.id.clone());
        }
        if !is_uuid(id) {
            return None;
        }
        let is_upper = id.bytes().any(|b| b.is_ascii_uppercase());
        let other_case = if is_upper { id.to_ascii_lowercase() } else { id.to_ascii_uppercase() };
        let bound = self.choose(self.ids.all(&other_case), before)?;
        note(&other_case, bound);
        Some(if is_upper { bound.id.to_ascii_uppercase() } else { bound.id.to_ascii_lowercase() })
    }

    /// What an id is bound to; `None` if the text before it names another kind of ids.
    fn choose<'b>(&self, bound: &'b [BoundId], before: &str) -> Option<&'b BoundId> {
        let of = |kind: IdKind| bound.iter().find(|bound| bound.kind == kind);
        let named = if self.names.kinds.is_empty() { Vec::new() } else { self.names.kinds_before(before) };
        if !named.is_empty() {
            return named.into_iter().find_map(of).or_else(|| of(IdKind::ANY));
        }
        of(self.preferred).or_else(|| bound.first())
    }

    fn may_refer(&self, word: &str) -> bool {
        match self.matching {
            WordMatching::Strict => is_distinctive(word),
            WordMatching::Lax => is_rarely_a_quantity(word),
        }
    }

    /// Whether a word is used as an id, judged by the text before and after it.
    fn refers(&self, before: &str, word: &str, after: &str) -> bool {
        if is_in_path(before, after) {
            return true;
        }
        if is_number(word) && quantity::is_quantity(before, word, after) {
            return false;
        }
        // A small number after `=` may be a quantity (`page=2`), so the parameter's name decides.
        self.may_refer(word)
            || before
                .strip_suffix('=')
                .is_some_and(|name| is_rarely_a_quantity(word) || self.names.ends_with_id_parameter(name))
            || is_rarely_a_quantity(word) && self.names.ends_with_noun(before)
    }
}

/// Whether a word between two texts is an id by what is before it, whatever follows: `/4000`, `#4000`.
fn is_in_path(before: &str, after: &str) -> bool {
    before.ends_with(['/', '#']) && !quantity::has_fraction(after)
}

/// Whether a word may begin or end at this place.
fn is_boundary(text: &str, at: usize) -> bool {
    if !text.is_char_boundary(at) {
        return false;
    }
    match (text[..at].chars().next_back(), text[at..].chars().next()) {
        (Some(a), Some(b)) => !a.is_alphanumeric() || !b.is_alphanumeric() || a.is_ascii_digit() != b.is_ascii_digit(),
        (None, _) | (_, None) => true,
    }
}

/// Whether a text is a whole number.
pub(super) fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// Whether an id cannot be mistaken for a quantity.
fn is_distinctive(id: &str) -> bool {
    id.len() >= 8 || (!id.is_empty() && !id.bytes().all(|b| b.is_ascii_digit() || b == b'.' || b == b'-'))
}

/// Whether an id is rarely mistaken for a quantity. If line numbers are ids (1 to 3 in legacy's reply, 0 to 2 in the
/// engine's), a price of 2 in legacy's reply and of 1 in the engine's would count as the same id in every pair. With
/// numbers of four digits or more this is rare, and a wrong price shows in another pair.
pub(super) fn is_rarely_a_quantity(id: &str) -> bool {
    is_distinctive(id) || (id.len() >= 4 && is_number(id))
}

//! Finds the secrets in a text by their names, through every format that the text consists of or quotes.
//!
//! The question it answers: "which parts of this text stand under the name of a secret?" A text may be JSON, may quote
//! XML or HTML (`markup`), or be a query, a form or lines with names and values (`assignments`); each value in it may
//! be such a text again, escaped or percent-encoded. Also found are credentials without a name: those of a URL, after
//! a scheme such as `Bearer`, and what a detector finds (`detect`).
//!
//! Always true: one walk reads all formats, so a secret is found in whichever order they are nested. It goes at most
//! [`NESTING_MAX`] formats deep and reads at most [`BYTES_MAX`], all levels together. If a text exceeds that, the rest
//! of it may hold anything, so the whole text counts as a secret. What has no secret stays as it was written.

use std::collections::HashMap;
use std::ops::Range;

use serde_json::{Map, Value};

use super::detect::{Detectors, replace_detected};
use super::forms::{
    SecretPart, are_name_value_pairs, has_alternating_names, parse_json_container, secret_name_before_value,
    value_of_pair, values_of_secrets,
};
use super::markup::pieces;
use super::names::{is_field_name, singular};
use super::private_keys::private_key_items;

/// How many formats deep a text is read.
pub const NESTING_MAX: usize = 8;
/// How many bytes are read, those of all nested texts together.
pub const BYTES_MAX: usize = 8 << 20;
/// The name under which the credentials of a URL are found.
pub const USER_INFO: &str = "user-info";

/// What a walk found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundSecret<'a> {
    /// The name; empty if it has none.
    pub name: &'a str,
    /// The value, without its encoding.
    pub value: &'a str,
    /// Whether it reaches to the end of its line, because the text does not tell where it ends.
    pub is_line: bool,
}

/// Returns what is written in place of a secret; `None` if it stays.
pub type ReplaceSecret<'a> = dyn FnMut(FoundSecret<'_>) -> Option<String> + 'a;

/// The text with its secrets replaced; `None` if it has none, or all stay.
pub fn replace_secrets(
    text: &str,
    is_secret: &dyn Fn(&str) -> bool,
    detectors: Detectors,
    replace: &mut ReplaceSecret<'_>,
) -> Option<String> {
    let mut walk = SecretWalk { is_secret, detectors, replace, depth: 0, bytes_left: BYTES_MAX, is_exceeded: false };
    let shown = walk.replace_in_text(text);
    if walk.is_exceeded {
        return walk.replacement("", text, false);
    }
    shown
}

/// An object of these members, in this order. Keys that became equal because secrets in them were replaced get numbers,
/// so that no member is lost.
pub fn with_distinct_keys(members: impl Iterator<Item = (String, Value)>) -> Map<String, Value> {
    let mut apart = Map::new();
    let mut numbers = HashMap::<String, usize>::new();
    for (key, value) in members {
        let mut name = key.clone();
        while apart.contains_key(&name) {
            let number = numbers.entry(key.clone()).or_insert(1);
            *number += 1;
            name = format!("{key} ({number})");
        }
        apart.insert(name, value);
    }
    apart
}

pub(super) struct SecretWalk<'a, 'r> {
    pub is_secret: &'a dyn Fn(&str) -> bool,
    detectors: Detectors,
    replace: &'a mut ReplaceSecret<'r>,
    depth: usize,
    pub bytes_left: usize,
    pub is_exceeded: bool,
}

/// A method that returns a text returns it with its secrets replaced, or `None` if it stays; one that returns a `bool`
/// replaces in place and returns whether anything changed.
impl SecretWalk<'_, '_> {
    pub(super) fn replacement(&mut self, name: &str, value: &str, is_line: bool) -> Option<String> {
        (self.replace)(FoundSecret { name, value, is_line }).filter(|shown| shown != value)
    }

    pub(super) fn replace_in_text(&mut self, text: &str) -> Option<String> {
        if let Some(at) = credentials(text) {
            return self.replacement("", &text[at..], false).map(|shown| format!("{}{shown}", &text[..at]));
        }
        // 0xe2 is the first byte of `→`.
        let may_have_names =
            text.bytes().any(|byte| matches!(byte, b'=' | b':' | b'<' | b'>' | b'{' | b'[' | b'&' | b'%' | 0xe2));
        if !may_have_names && !may_have_columns(text) {
            return self.replace_detected(text);
        }
        if self.depth == NESTING_MAX || text.len() > self.bytes_left {
            self.is_exceeded = true;
        }
        if self.is_exceeded {
            return None;
        }
        self.depth += 1;
        self.bytes_left -= text.len();
        let shown = match parse_json_container(text) {
            Some(mut json) => self.replace_in_json(&mut json).then(|| json.to_string()),
            None => self.replace_in_non_json(text),
        };
        self.depth -= 1;
        shown
    }

    fn replace_detected(&mut self, text: &str) -> Option<String> {
        let (detectors, mut is_changed) = (self.detectors, false);
        let mut replace = |secret: &str| {
            let shown = self.replacement("", secret, false);
            is_changed |= shown.is_some();
            shown.unwrap_or_else(|| secret.to_owned())
        };
        let shown = replace_detected(text, detectors, &mut replace).into_owned();
        is_changed.then_some(shown)
    }

    /// Replaces the secrets in a value; returns whether there are any.
    pub(super) fn replace_in_json(&mut self, value: &mut Value) -> bool {
        match value {
            Value::Object(members) => self.replace_in_members(members),
            Value::Array(items) => {
                let (has_alternating_names, are_name_value_pairs) =
                    (has_alternating_names(items), are_name_value_pairs(items));
                let parts = private_key_items(items).unwrap_or_default();
                let of_keys = items.iter_mut().zip(parts).filter(|(_, is_part)| *is_part);
                let is_changed = of_keys.fold(false, |is_changed, (item, _)| is_changed | self.replace_whole("", item));
                if has_alternating_names {
                    return is_changed | self.replace_in_alternating(items);
                }
                items.iter_mut().fold(is_changed, |is_changed, item| {
                    is_changed
                        | if are_name_value_pairs { self.replace_in_pair(item) } else { self.replace_in_json(item) }
                })
            }
            Value::String(text) => self.replace_in_text(text).map(|shown| *text = shown).is_some(),
            Value::Number(number) => {
                let shown = self.replace_detected(number.as_str());
                shown.map(|shown| *value = shown.into()).is_some()
            }
            Value::Null | Value::Bool(_) => false,
        }
    }

    /// Replaces the secrets in a pair of name and value, which is an element of a list of such pairs.
    fn replace_in_pair(&mut self, pair: &mut Value) -> bool {
        let name = value_of_pair(pair, self.is_secret).map(|(name, _)| name.to_owned());
        match (name, pair.get_mut(1)) {
            (Some(name), Some(value)) => self.replace_whole(&name, value),
            _ => self.replace_in_json(pair),
        }
    }

    /// Replaces the secrets in a list in which names and values alternate.
    fn replace_in_alternating(&mut self, items: &mut [Value]) -> bool {
        items.chunks_exact_mut(2).fold(false, |is_changed, pair| {
            let name = secret_name_before_value(&pair[0], self.is_secret).map(str::to_owned);
            is_changed
                | match name {
                    Some(name) => self.replace_whole(&name, &mut pair[1]),
                    None => pair.iter_mut().fold(false, |is_changed, item| is_changed | self.replace_in_json(item)),
                }
        })
    }

    /// Replaces the keys of a map that are secrets, such as those of `{"sessions": {"…": {"user": 7}}}`, and its secret
    /// values.
    fn replace_secret_keys(&mut self, name: &str, members: &mut Map<String, Value>) -> bool {
        let mut is_changed = false;
        let shown: Vec<(String, Value)> = std::mem::take(members)
            .into_iter()
            .map(|(key, mut value)| {
                is_changed |= match is_text_or_number(&value) {
                    true => self.replace_whole(name, &mut value),
                    false => self.replace_in_json(&mut value),
                };
                let shown = self.replacement(name, &key, false);
                is_changed |= shown.is_some();
                (shown.unwrap_or(key), value)
            })
            .collect();
        *members = with_distinct_keys(shown.into_iter());
        is_changed
    }

    fn replace_in_members(&mut self, members: &mut Map<String, Value>) -> bool {
        let named = values_of_secrets(members, self.is_secret);
        let named: Vec<Option<SecretPart>> = members.keys().map(|key| named.of(key).cloned()).collect();
        let (mut is_changed, mut is_key_changed) = (false, false);
        let mut shown = Vec::with_capacity(members.len());
        for ((key, mut value), named) in std::mem::take(members).into_iter().zip(named) {
            is_changed |= match (&mut value, named) {
                (value, Some(SecretPart::Whole)) => self.replace_whole(&key, value),
                (value, _) if (self.is_secret)(&key) => self.replace_whole(&key, value),
                (Value::Array(items), Some(SecretPart::Items(secrets))) => {
                    items.iter_mut().enumerate().fold(false, |is_changed, (index, item)| {
                        let is_named = secrets.contains(&index);
                        is_changed | if is_named { self.replace_whole(&key, item) } else { self.replace_in_json(item) }
                    })
                }
                (Value::Array(items), _) if singular(&key).is_some_and(self.is_secret) => {
                    items.iter_mut().fold(false, |is_changed, item| {
                        is_changed
                            | if is_text_or_number(item) {
                                self.replace_whole(&key, item)
                            } else {
                                self.replace_in_json(item)
                            }
                    })
                }
                (Value::Object(inner), _) if singular(&key).is_some_and(self.is_secret) => {
                    self.replace_secret_keys(&key, inner)
                }
                (value, _) => self.replace_in_json(value),
            };
            let shown_key = self.replace_in_text(&key);
            is_key_changed |= shown_key.is_some();
            shown.push((shown_key.unwrap_or(key), value));
        }
        let shown = shown.into_iter();
        *members = if is_key_changed { with_distinct_keys(shown) } else { shown.collect() };
        is_changed | is_key_changed
    }

    /// Replaces all of a value under this secret name; lists and maps keep their form.
    fn replace_whole(&mut self, name: &str, value: &mut Value) -> bool {
        match value {
            Value::Object(members) => {
                let mut is_changed = false;
                let shown: Vec<(String, Value)> = std::mem::take(members)
                    .into_iter()
                    .map(|(key, mut value)| {
                        is_changed |= self.replace_whole(name, &mut value);
                        let shown = if is_field_name(&key) { None } else { self.replacement(name, &key, false) };
                        is_changed |= shown.is_some();
                        (shown.unwrap_or(key), value)
                    })
                    .collect();
                *members = with_distinct_keys(shown.into_iter());
                is_changed
            }
            Value::Array(items) => {
                items.iter_mut().fold(false, |is_changed, item| self.replace_whole(name, item) | is_changed)
            }
            Value::Null => false,
            Value::String(text) if text.is_empty() => false,
            Value::String(text) => self.replacement(name, text, false).map(|shown| *text = shown).is_some(),
            Value::Number(_) | Value::Bool(_) => {
                let shown = self.replacement(name, &value.to_string(), false);
                shown.map(|shown| *value = shown.into()).is_some()
            }
        }
    }

    fn replace_in_non_json(&mut self, text: &str) -> Option<String> {
        let detected = self.replace_detected(text);
        let text = detected.as_deref().unwrap_or(text);
        let shown = match pieces(text, self.is_secret) {
            Some(pieces) => self.replace_in_markup(text, &pieces),
            None => self.replace_in_lines(text),
        };
        shown.or(detected)
    }
}

/// A text with some parts replaced.
pub(super) struct Edited<'t> {
    text: &'t str,
    out: String,
    written: usize,
}

impl<'t> Edited<'t> {
    pub(super) fn of(text: &'t str) -> Self {
        Self { text, out: String::new(), written: 0 }
    }
    /// Replaces a part, which comes after those that were replaced before.
    pub(super) fn replace(&mut self, place: Range<usize>, by: &str) {
        self.out.push_str(&self.text[self.written..place.start]);
        self.out.push_str(by);
        self.written = place.end;
    }
    /// The text as it was.
    pub(super) fn text(&self) -> &'t str {
        self.text
    }
    /// The text, if a part was replaced.
    pub(super) fn changed(mut self) -> Option<String> {
        if self.written == 0 {
            return None;
        }
        self.out.push_str(&self.text[self.written..]);
        Some(self.out)
    }
}

/// What may be between two cells of a table.
pub(super) const CELL_DELIMITERS: [char; 4] = [',', ';', '\t', '|'];

/// Whether a text may be, or quote, a table.
pub(super) fn may_have_columns(text: &str) -> bool {
    text.contains('\n') && text.contains(CELL_DELIMITERS)
}

/// Where the credentials begin in a text that is nothing but a scheme with its credentials, or a JSON web token.
fn credentials(text: &str) -> Option<usize> {
    let trimmed = text.trim_start();
    let begins_with =
        |scheme: &str| trimmed.get(..scheme.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(scheme));
    let after = |scheme: &str| begins_with(scheme).then(|| trimmed[scheme.len()..].trim());
    let is_basic = |rest: &str| {
        let looks_encoded = |c: char| c.is_ascii_digit() || c.is_ascii_uppercase() || c == '=';
        !rest.contains(char::is_whitespace) && (rest.chars().skip(1).any(looks_encoded) || rest.len() >= 16)
    };
    let scheme_bytes = if after("bearer ").is_some_and(|rest| !rest.is_empty()) {
        "bearer ".len()
    } else if after("basic ").is_some_and(is_basic) {
        "basic ".len()
    } else if after("digest ").is_some_and(|rest| rest.contains('=')) {
        "digest ".len()
    } else {
        return (text.starts_with("eyJ") && text.split('.').count() == 3).then_some(0);
    };
    Some(text.len() - trimmed.len() + scheme_bytes)
}

fn is_text_or_number(value: &Value) -> bool {
    matches!(value, Value::String(_) | Value::Number(_))
}

//! Finds the secrets in a text by their names, through every format that the text consists of or quotes.
//!
//! The question it answers: "which parts of this text stand under the name of a secret?" A text may be JSON, may quote
//! XML or HTML (`markup`), or be a query, a form or lines with names and values (`assignments`); each value in it may
//! be such a text again, escaped or percent-encoded. Also found are credentials without a name: those of a URL, behind
//! a scheme such as `Bearer`, and what a detector finds (`detect`).
//!
//! Always true: one walk reads all formats, so a secret is found in whichever order they are nested. It goes at most
//! [`NESTING_MAX`] formats deep and reads at most [`BYTES_MAX`], all levels together; what is beyond may hold anything,
//! so the whole text counts as a secret then. What has no secret stays as it was written.

use std::collections::HashMap;
use std::ops::Range;

use serde_json::{Map, Value};

use super::detect::{Detectors, replace_detected};
use super::forms::{SecretPart, alternates, are_pairs, json_of, names_the_next, value_of_pair, values_of_secrets};
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
    let shown = walk.text(text);
    if walk.is_exceeded {
        return walk.found("", text, false);
    }
    shown
}

/// An object of these members, in this order. Keys that became equal by hiding are numbered, so that no member is lost.
pub fn members_apart(members: impl Iterator<Item = (String, Value)>) -> Map<String, Value> {
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
    pub(super) fn found(&mut self, name: &str, value: &str, is_line: bool) -> Option<String> {
        (self.replace)(FoundSecret { name, value, is_line }).filter(|shown| shown != value)
    }

    pub(super) fn text(&mut self, text: &str) -> Option<String> {
        if let Some(at) = credentials(text) {
            return self.found("", &text[at..], false).map(|shown| format!("{}{shown}", &text[..at]));
        }
        let may_have_names =
            text.bytes().any(|byte| matches!(byte, b'=' | b':' | b'<' | b'>' | b'{' | b'[' | b'&' | b'%' | 0xe2));
        if !may_have_names && !may_have_columns(text) {
            return self.detected(text);
        }
        if self.depth == NESTING_MAX || text.len() > self.bytes_left {
            self.is_exceeded = true;
        }
        if self.is_exceeded {
            return None;
        }
        self.depth += 1;
        self.bytes_left -= text.len();
        let shown = match json_of(text) {
            Some(mut json) => self.json(&mut json).then(|| json.to_string()),
            None => self.not_json(text),
        };
        self.depth -= 1;
        shown
    }

    fn detected(&mut self, text: &str) -> Option<String> {
        let (detectors, mut is_changed) = (self.detectors, false);
        let mut replace = |secret: &str| {
            let shown = self.found("", secret, false);
            is_changed |= shown.is_some();
            shown.unwrap_or_else(|| secret.to_owned())
        };
        let shown = replace_detected(text, detectors, &mut replace).into_owned();
        is_changed.then_some(shown)
    }

    /// Replaces the secrets in a value; returns whether there are any.
    pub(super) fn json(&mut self, value: &mut Value) -> bool {
        match value {
            Value::Object(members) => self.members(members),
            Value::Array(items) => {
                let (alternates, are_pairs) = (alternates(items), are_pairs(items));
                let parts = private_key_items(items).unwrap_or_default();
                let of_keys = items.iter_mut().zip(parts).filter(|(_, is_part)| *is_part);
                let is_changed = of_keys.fold(false, |is_changed, (item, _)| is_changed | self.secret("", item));
                if alternates {
                    return is_changed | self.alternating(items);
                }
                items.iter_mut().fold(is_changed, |is_changed, item| {
                    is_changed | if are_pairs { self.pair(item) } else { self.json(item) }
                })
            }
            Value::String(text) => self.text(text).map(|shown| *text = shown).is_some(),
            Value::Number(number) => {
                let shown = self.detected(number.as_str());
                shown.map(|shown| *value = shown.into()).is_some()
            }
            Value::Null | Value::Bool(_) => false,
        }
    }

    /// A pair of name and value in a list of such.
    fn pair(&mut self, pair: &mut Value) -> bool {
        let name = value_of_pair(pair, self.is_secret).map(|(name, _)| name.to_owned());
        match (name, pair.get_mut(1)) {
            (Some(name), Some(value)) => self.secret(&name, value),
            _ => self.json(pair),
        }
    }

    /// A list in which names and values alternate.
    fn alternating(&mut self, items: &mut [Value]) -> bool {
        items.chunks_exact_mut(2).fold(false, |is_changed, pair| {
            let name = names_the_next(&pair[0], self.is_secret).map(str::to_owned);
            is_changed
                | match name {
                    Some(name) => self.secret(&name, &mut pair[1]),
                    None => pair.iter_mut().fold(false, |is_changed, item| is_changed | self.json(item)),
                }
        })
    }

    /// A map by secrets, such as `{"sessions": {"…": {"user": 7}}}`.
    fn keys_of_secrets(&mut self, name: &str, members: &mut Map<String, Value>) -> bool {
        let mut is_changed = false;
        let shown: Vec<(String, Value)> = std::mem::take(members)
            .into_iter()
            .map(|(key, mut value)| {
                is_changed |= match is_scalar(&value) {
                    true => self.secret(name, &mut value),
                    false => self.json(&mut value),
                };
                let shown = self.found(name, &key, false);
                is_changed |= shown.is_some();
                (shown.unwrap_or(key), value)
            })
            .collect();
        *members = members_apart(shown.into_iter());
        is_changed
    }

    fn members(&mut self, members: &mut Map<String, Value>) -> bool {
        let named = values_of_secrets(members, self.is_secret);
        let named: Vec<Option<SecretPart>> = members.keys().map(|key| named.of(key).cloned()).collect();
        let (mut is_changed, mut is_key_changed) = (false, false);
        let mut shown = Vec::with_capacity(members.len());
        for ((key, mut value), named) in std::mem::take(members).into_iter().zip(named) {
            is_changed |= match (&mut value, named) {
                (value, Some(SecretPart::Whole)) => self.secret(&key, value),
                (value, _) if (self.is_secret)(&key) => self.secret(&key, value),
                (Value::Array(items), Some(SecretPart::Items(secrets))) => {
                    items.iter_mut().enumerate().fold(false, |is_changed, (index, item)| {
                        let is_named = secrets.contains(&index);
                        is_changed | if is_named { self.secret(&key, item) } else { self.json(item) }
                    })
                }
                (Value::Array(items), _) if singular(&key).is_some_and(self.is_secret) => {
                    items.iter_mut().fold(false, |is_changed, item| {
                        is_changed | if is_scalar(item) { self.secret(&key, item) } else { self.json(item) }
                    })
                }
                (Value::Object(inner), _) if singular(&key).is_some_and(self.is_secret) => {
                    self.keys_of_secrets(&key, inner)
                }
                (value, _) => self.json(value),
            };
            let shown_key = self.text(&key);
            is_key_changed |= shown_key.is_some();
            shown.push((shown_key.unwrap_or(key), value));
        }
        let shown = shown.into_iter();
        *members = if is_key_changed { members_apart(shown) } else { shown.collect() };
        is_changed | is_key_changed
    }

    /// Replaces all of a value under this secret name; lists and maps keep their form.
    fn secret(&mut self, name: &str, value: &mut Value) -> bool {
        match value {
            Value::Object(members) => {
                let mut is_changed = false;
                let shown: Vec<(String, Value)> = std::mem::take(members)
                    .into_iter()
                    .map(|(key, mut value)| {
                        is_changed |= self.secret(name, &mut value);
                        let shown = if is_field_name(&key) { None } else { self.found(name, &key, false) };
                        is_changed |= shown.is_some();
                        (shown.unwrap_or(key), value)
                    })
                    .collect();
                *members = members_apart(shown.into_iter());
                is_changed
            }
            Value::Array(items) => {
                items.iter_mut().fold(false, |is_changed, item| self.secret(name, item) | is_changed)
            }
            Value::Null => false,
            Value::String(text) if text.is_empty() => false,
            Value::String(text) => self.found(name, text, false).map(|shown| *text = shown).is_some(),
            Value::Number(_) | Value::Bool(_) => {
                let shown = self.found(name, &value.to_string(), false);
                shown.map(|shown| *value = shown.into()).is_some()
            }
        }
    }

    fn not_json(&mut self, text: &str) -> Option<String> {
        let detected = self.detected(text);
        let text = detected.as_deref().unwrap_or(text);
        let shown = match pieces(text, self.is_secret) {
            Some(pieces) => self.markup(text, &pieces),
            None => self.lines(text),
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
    /// Replaces a part, which is behind those that were replaced before.
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
    let behind = |scheme: &str| begins_with(scheme).then(|| trimmed[scheme.len()..].trim());
    let is_basic = |rest: &str| {
        let looks_encoded = |c: char| c.is_ascii_digit() || c.is_ascii_uppercase() || c == '=';
        !rest.contains(char::is_whitespace) && (rest.chars().skip(1).any(looks_encoded) || rest.len() >= 16)
    };
    let scheme = if behind("bearer ").is_some_and(|rest| !rest.is_empty()) {
        "bearer ".len()
    } else if behind("basic ").is_some_and(is_basic) {
        "basic ".len()
    } else if behind("digest ").is_some_and(|rest| rest.contains('=')) {
        "digest ".len()
    } else {
        return (text.starts_with("eyJ") && text.split('.').count() == 3).then_some(0);
    };
    Some(text.len() - trimmed.len() + scheme)
}

fn is_scalar(value: &Value) -> bool {
    matches!(value, Value::String(_) | Value::Number(_))
}

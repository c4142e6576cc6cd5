//! The path to a value within a document, as differences show it.

use crate::secret::{is_secret, singular};

/// One step from a value to a value within it.
#[derive(Clone, Copy, Debug)]
enum Part<'a> {
    Key(&'a str),
    /// Any element of an array. The index is left out, so that the same difference in several elements has one path.
    Element,
}

/// The path to a value.
#[derive(Clone, Debug)]
pub(super) struct ValuePath<'a> {
    root: &'a str,
    parts: Vec<Part<'a>>,
}

/// A longer key is treated as an id, not as a name.
const KEY_CHARS_MAX: usize = 48;
const PATH_CHARS_MAX: usize = 256;
/// The longest name of a field that is shown below the name of a secret.
const FIELD_NAME_CHARS_MAX: usize = 24;

impl<'a> ValuePath<'a> {
    pub(super) fn of(root: &'a str) -> Self {
        Self { root, parts: Vec::new() }
    }
    pub(super) fn enter_key(&mut self, key: &'a str) {
        self.parts.push(Part::Key(key));
    }
    pub(super) fn enter_element(&mut self) {
        self.parts.push(Part::Element);
    }
    pub(super) fn leave(&mut self) {
        self.parts.pop();
    }
    /// The keys of the path, the outermost first.
    pub(super) fn keys(&self) -> impl Iterator<Item = &'a str> {
        self.parts.iter().filter_map(|p| match p {
            Part::Key(key) => Some(*key),
            Part::Element => None,
        })
    }
    /// Whether the last key must not be shown, because it may itself be a secret.
    pub(super) fn hides_last_key(&self) -> bool {
        let last = self.parts.len().saturating_sub(1);
        match self.parts.last() {
            Some(Part::Key(key)) => self.is_hidden(last, key),
            Some(Part::Element) => self.keys().any(|key| is_secret(key) || is_plural_of_secret(key)),
            None => false,
        }
    }
    /// Whether a key of the path stands below the name of a secret and may be a secret: a key of a map by secrets
    /// (`tokens`), or one that is not plainly the name of a field.
    fn is_hidden(&self, at: usize, key: &str) -> bool {
        let above = || {
            self.parts.iter().take(at).filter_map(|part| match part {
                Part::Key(key) => Some(*key),
                Part::Element => None,
            })
        };
        above().next_back().is_some_and(is_plural_of_secret) || !is_field_name(key) && above().any(is_secret)
    }
    /// Returns the path as text: `$.items[*].price`.
    pub(super) fn text(&self) -> String {
        let mut path = self.root.to_owned();
        for (n, part) in self.parts.iter().enumerate() {
            match part {
                Part::Element => path.push_str("[*]"),
                Part::Key(key) if is_id_key(key) || self.is_hidden(n, key) => path.push_str("[*]"),
                Part::Key(key) if is_plain_name(key) => {
                    path.push('.');
                    path.push_str(key);
                }
                Part::Key(key) => {
                    path.push_str("['");
                    path.extend(key.chars().flat_map(char::escape_debug));
                    path.push_str("']");
                }
            }
            if path.chars().count() > PATH_CHARS_MAX {
                return path.chars().take(PATH_CHARS_MAX).chain(['…']).collect();
            }
        }
        path
    }
}

/// Whether a name is the plural of that of a secret.
fn is_plural_of_secret(name: &str) -> bool {
    singular(name).is_some_and(is_secret)
}

/// Whether a key below the name of a secret is plainly the name of a field: `number` in `card`.
fn is_field_name(key: &str) -> bool {
    key.len() <= FIELD_NAME_CHARS_MAX && key.bytes().all(|b| b.is_ascii_alphabetic() || matches!(b, b'_' | b'-'))
}

/// Whether a key is an id: an object whose keys are ids is shown like an array.
fn is_id_key(key: &str) -> bool {
    // `@` before a name is an attribute of XML; within one it is an address.
    let name = key.strip_prefix('@').unwrap_or(key);
    let many_digits = key.bytes().filter(u8::is_ascii_digit).count() * 3 >= key.len();
    key.chars().count() > KEY_CHARS_MAX
        || name.contains('@')
        || (!key.is_empty() && key.bytes().all(|b| b.is_ascii_digit()))
        || (key.len() >= 16 && many_digits && key.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-' || b == b'_'))
}

fn is_plain_name(key: &str) -> bool {
    let mut chars = key.chars();
    chars.next().is_some_and(|c| c.is_alphabetic() || c == '_')
        && chars.all(|c| c.is_alphanumeric() || c == '_' || c == '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_below_the_name_of_a_secret_are_shown_only_if_they_are_names_of_fields() {
        let of = |keys: &[&'static str]| {
            let mut path = ValuePath::of("$");
            keys.iter().for_each(|key| path.enter_key(key));
            (path.text(), path.hides_last_key())
        };
        for (keys, text) in [
            (&["tokens", "hunter2zz"][..], "$.tokens[*]"),
            (&["tokens", "swordfish"], "$.tokens[*]"),
            (&["tokens", "swordfish", "owner"], "$.tokens[*].owner"),
            (&["auth", "hunter2zz"], "$.auth[*]"),
            (&["card", "number"], "$.card.number"),
            (&["orders", "first"], "$.orders.first"),
            (&["invoice", "@printed"], "$.invoice['@printed']"),
            (&["users", "jo@example.org"], "$.users[*]"),
        ] {
            assert_eq!(of(keys).0, text);
        }
        assert!(of(&["tokens", "swordfish"]).1 && !of(&["card", "number"]).1);
    }
}

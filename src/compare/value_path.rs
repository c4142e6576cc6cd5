//! The path to a value within a document, as differences show it.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::differing_elements::{ElementKey, ElementOfLegacy};
use super::node::{Kind, Node};
use crate::secret::{
    has_alternating_names, holds_a_name, is_field_name, is_secret, may_name_next_element, secret_name_before_value,
    singular, value_of_pair, values_of_secrets,
};

/// One step from a value to a value within it.
#[derive(Clone, Copy, Debug)]
enum ValuePathPart<'a> {
    Key(&'a str),
    /// An element of an array, or a member of an object whose keys are ids; `None` if legacy has no such element. The
    /// text leaves out which one it is, so that the same difference in several elements has one path.
    Element(Option<ElementOfLegacy>),
}

/// The path to a value.
#[derive(Clone, Debug)]
pub(super) struct ValuePath<'a> {
    root: &'a str,
    parts: Vec<ValuePathPart<'a>>,
    /// The two values of the root and of each part, as far as they are known: what is in them may name a secret.
    values: Vec<Option<[Node<'a>; 2]>>,
}

/// A longer key is treated as an id, not as a name.
const KEY_CHARS_MAX: usize = 48;
const PATH_CHARS_MAX: usize = 256;
/// In an object with more values, only texts directly in it are taken for names of secrets.
const NAMING_VALUES_MAX: usize = 10_000;

impl<'a> ValuePath<'a> {
    pub(super) fn of(root: &'a str) -> Self {
        Self { root, parts: Vec::new(), values: vec![None] }
    }
    pub(super) fn enter_key(&mut self, key: &'a str) {
        self.parts.push(ValuePathPart::Key(key));
        self.values.push(None);
    }
    pub(super) fn enter_element(&mut self, element: Option<ElementOfLegacy>) {
        self.parts.push(ValuePathPart::Element(element));
        self.values.push(None);
    }
    pub(super) fn leave(&mut self) {
        self.parts.pop();
        self.values.pop();
    }
    /// Tells the values at this path in the two documents.
    pub(super) fn set_values(&mut self, legacy: Node<'a>, engine: Node<'a>) {
        if let Some(values) = self.values.last_mut() {
            *values = Some([legacy, engine]);
        }
    }
    /// Whether a value beside one of the path names it as a secret: in `{"name": "pin", "value": …}`, in a list of
    /// pairs, or as the element before it, also in a list in which names and values alternate.
    pub(super) fn is_named_as_secret(&self) -> bool {
        let of = |document: usize, at: usize| self.values.get(at).copied().flatten().map(|values| values[document]);
        let is_named = |(at, part): (usize, &ValuePathPart<'_>)| {
            (0..2).any(|document| match (part, of(document, at)) {
                (ValuePathPart::Key(key), Some(object)) => is_named_in(object, key),
                (ValuePathPart::Element(_), Some(pair)) => {
                    let list = at.checked_sub(1).and_then(|at| of(document, at));
                    names_a_value(pair)
                        || list.is_some_and(are_name_value_pairs) && value_of_pair(&pair.value(), is_secret).is_some()
                }
                (ValuePathPart::Key(_) | ValuePathPart::Element(_), None) => false,
            })
        };
        self.parts.iter().enumerate().any(is_named)
    }
    /// Whether the path is that of an element in a list with the plural of a secret's name.
    pub(super) fn is_in_list_of_secrets(&self) -> bool {
        matches!(self.parts[..], [.., ValuePathPart::Key(key), ValuePathPart::Element(_)] if is_plural_of_secret(key))
    }
    /// The keys of the path, the outermost first.
    pub(super) fn keys(&self) -> impl Iterator<Item = &'a str> {
        self.parts.iter().filter_map(|p| match p {
            ValuePathPart::Key(key) => Some(*key),
            ValuePathPart::Element(_) => None,
        })
    }
    /// Whether the last key must not be shown, because it may itself be a secret.
    pub(super) fn hides_last_key(&self) -> bool {
        let last = self.parts.len().saturating_sub(1);
        match self.parts.last() {
            Some(ValuePathPart::Key(key)) => self.is_hidden(last, key),
            Some(ValuePathPart::Element(_)) => self.keys().any(|key| is_secret(key) || is_plural_of_secret(key)),
            None => false,
        }
    }
    /// Whether a key of the path stands below the name of a secret and may be a secret: a key of a map by secrets
    /// (`tokens`), or one that is not plainly the name of a field.
    fn is_hidden(&self, at: usize, key: &str) -> bool {
        let above = || {
            self.parts.iter().take(at).filter_map(|part| match part {
                ValuePathPart::Key(key) => Some(*key),
                ValuePathPart::Element(_) => None,
            })
        };
        above().next_back().is_some_and(is_plural_of_secret) || !is_field_name(key) && above().any(is_secret)
    }
    /// Which one it is of the values whose paths have the same text.
    pub(super) fn element(&self) -> ElementKey {
        let mut hasher = DefaultHasher::new();
        let mut is_one = true;
        for (n, part) in self.parts.iter().enumerate() {
            match part {
                ValuePathPart::Element(Some(element)) => element.hash(&mut hasher),
                ValuePathPart::Element(None) => return ElementKey::NotOfLegacy,
                ValuePathPart::Key(key) if is_id_key(key) || self.is_hidden(n, key) => key.hash(&mut hasher),
                ValuePathPart::Key(_) => continue,
            }
            is_one = false;
        }
        if is_one { ElementKey::Only } else { ElementKey::Hash(hasher.finish()) }
    }
    /// Returns the path as text: `$.items[*].price`.
    pub(super) fn text(&self) -> String {
        let mut path = self.root.to_owned();
        for (n, part) in self.parts.iter().enumerate() {
            match part {
                ValuePathPart::Element(_) => path.push_str("[*]"),
                ValuePathPart::Key(key) if is_id_key(key) || self.is_hidden(n, key) => path.push_str("[*]"),
                ValuePathPart::Key(key) if is_plain_name(key) => {
                    path.push('.');
                    path.push_str(key);
                }
                ValuePathPart::Key(key) => {
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

/// Whether the text of a path may be that of values below several names: names that may be secret are hidden, or a path
/// that is too long was cut. (`false` for ids among names: [`is_id_key`].)
pub fn may_stand_for_several_names(text: &str) -> bool {
    let mut is_below_secret = false;
    let mut parts = text.split(['.', '[', ']', '\'', ' ']).filter(|part| !part.is_empty());
    text.ends_with('…')
        || parts.any(|part| {
            is_below_secret |= is_secret(part) || is_plural_of_secret(part);
            part == "*" && is_below_secret
        })
}

/// Whether a name is the plural of that of a secret.
fn is_plural_of_secret(name: &str) -> bool {
    singular(name).is_some_and(is_secret)
}

/// Whether another member of an object names the one with this key as a secret.
fn is_named_in(object: Node<'_>, key: &str) -> bool {
    let Kind::Object(members) = object.kind() else { return false };
    if !members.iter().any(|(key, name)| (holds_a_name(key) || may_name_next_element(key)) && may_name_a_secret(name)) {
        return false;
    }
    if object.len() > NAMING_VALUES_MAX {
        let text_of = |node: Node<'_>| node.as_str().is_some_and(is_secret);
        return members.iter().any(|(key, name)| holds_a_name(key) && text_of(name));
    }
    let value = object.value();
    value.as_object().is_some_and(|members| values_of_secrets(members, is_secret).of(key).is_some())
}

/// Whether a value may be, or hold, the name of a secret. Checked first, because most objects have an `id` or a `type`:
/// they need not be copied to find that this names no secret.
fn may_name_a_secret(name: Node<'_>) -> bool {
    match name.kind() {
        Kind::Array(_) | Kind::Object(_) => true,
        _ => name.as_str().is_some_and(is_secret),
    }
}

/// Whether names and values alternate in a list, and one of the names is that of a secret. Which element a path is
/// about is not known.
fn names_a_value(list: Node<'_>) -> bool {
    let Kind::Array(items) = list.kind() else { return false };
    let mut names = items.iter().step_by(2).map_while(Node::as_str);
    // Most lists of texts name no secret, and are not copied.
    if list.len() > NAMING_VALUES_MAX || !names.any(is_secret) {
        return false;
    }
    let list = list.value();
    let items = list.as_array().filter(|items| has_alternating_names(items));
    items.is_some_and(|items| items.iter().step_by(2).any(|name| secret_name_before_value(name, is_secret).is_some()))
}

/// Whether a list has pairs of names and values, such as headers.
fn are_name_value_pairs(list: Node<'_>) -> bool {
    let is_pair = |item: Node<'_>| match item.kind() {
        Kind::Array(pair) => pair.len() == 2 && pair.iter().next().is_some_and(|name| name.as_str().is_some()),
        _ => false,
    };
    matches!(list.kind(), Kind::Array(items) if items.len() > 0 && items.iter().all(is_pair))
}

/// Whether a key is an id: an object whose keys are ids is shown like an array.
pub(super) fn is_id_key(key: &str) -> bool {
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
    fn a_path_with_a_hidden_name_may_stand_for_several() {
        for (text, several) in [
            ("$.tokens[*]", true),
            ("$.tokens[*].owner", true),
            ("effects.charge.body.auth[*]", true),
            ("$.a['card number'][*]", true),
            ("$.items[*].price", false),
            ("$.card.number", false),
            ("$.items[*].token", false),
        ] {
            assert_eq!(may_stand_for_several_names(text), several, "{text}");
        }
        let long = "k".repeat(40);
        let mut path = ValuePath::of("$");
        (0..10).for_each(|_| path.enter_key(&long));
        assert!(may_stand_for_several_names(&path.text()));
    }

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

//! Paths to sensitive values.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::problem;
use crate::secret::SEALED;
use crate::workflow::bytes::{BytesMark, json_within};

/// A JSONPath of names, indexes and `[*]`: `$.card.number`, `$.tokens[*].value`. A path covers the value
/// that it leads to, and everything within this value.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SensitivePath(Vec<Segment>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Segment {
    Name(String),
    Index(usize),
    All,
}

impl SensitivePath {
    /// Parses `$`, `.name`, `['name']`, `[0]` and `[*]`.
    ///
    /// # Errors
    /// The text is not a path of these forms. The error is a message for people.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut rest =
            text.strip_prefix('$').ok_or_else(|| format!("`{text}` is not a JSONPath: it begins with `$`"))?;
        let wrong =
            || format!("`{text}` is not a JSONPath of this form; write `$.name`, `$.list[*].name` or `$['a name']`");
        let mut segments = Vec::new();
        while !rest.is_empty() {
            if let Some(named) = rest.strip_prefix('.') {
                let end = named.find(['.', '[']).unwrap_or(named.len());
                let (name, after) = named.split_at(end);
                let plain = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-'));
                if !plain {
                    return Err(wrong());
                }
                segments.push(Segment::Name(name.to_owned()));
                rest = after;
                continue;
            }
            let inner = rest.strip_prefix('[').ok_or_else(wrong)?;
            let quote = inner.chars().next().filter(|c| matches!(c, '\'' | '"'));
            let (segment, after) = match quote {
                Some(quote) => {
                    let (name, after) = inner[1..].split_once(quote).ok_or_else(wrong)?;
                    (Segment::Name(name.to_owned()), after.strip_prefix(']').ok_or_else(wrong)?)
                }
                None => {
                    let (index, after) = inner.split_once(']').ok_or_else(wrong)?;
                    match index {
                        "*" => (Segment::All, after),
                        index => (Segment::Index(index.parse().map_err(|_| wrong())?), after),
                    }
                }
            };
            segments.push(segment);
            rest = after;
        }
        Ok(Self(segments))
    }

    /// `$`: the whole value.
    pub fn whole() -> Self {
        Self::default()
    }
    /// The path that consists of these names.
    pub fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        Self(names.into_iter().map(|name| Segment::Name(name.to_owned())).collect())
    }
    /// The path to a place in a template, continued by another path.
    pub(super) fn at(place: &[problem::Segment], rest: Self) -> Self {
        let place = place.iter().map(|segment| match segment {
            problem::Segment::Key(key) => Segment::Name(key.to_string()),
            problem::Segment::Index(index) => Segment::Index(*index),
        });
        Self(place.chain(rest.0).collect())
    }
    /// This path, continued by another.
    pub fn then(&self, rest: &Self) -> Self {
        Self(self.0.iter().chain(&rest.0).cloned().collect())
    }
    /// This path, continued by a name.
    pub(super) fn name(&self, name: &str) -> Self {
        Self(self.0.iter().cloned().chain([Segment::Name(name.to_owned())]).collect())
    }
    /// This path, continued by an index in a list.
    pub(super) fn index(&self, index: usize) -> Self {
        Self(self.0.iter().cloned().chain([Segment::Index(index)]).collect())
    }
    /// This path, continued by every element of a list.
    pub(super) fn each(&self) -> Self {
        Self(self.0.iter().cloned().chain([Segment::All]).collect())
    }
    /// Turns a path in a list into the path in one of its elements.
    pub(super) fn within_element(&self) -> Self {
        match self.0.split_first() {
            Some((Segment::All | Segment::Index(_), rest)) => Self(rest.to_vec()),
            // The path does not lead through a list: the whole element counts as sensitive.
            Some((Segment::Name(_), _)) | None => Self::whole(),
        }
    }
    /// The first name of the path; empty if the path does not begin with a name.
    pub(super) fn root(&self) -> &str {
        match self.0.first() {
            Some(Segment::Name(name)) => name,
            Some(Segment::Index(_) | Segment::All) | None => "",
        }
    }
    /// Returns the rest of this path below the value that `names` lead to: the whole value if `names` lead further than
    /// this path, `None` if neither path leads to the other.
    pub(super) fn under(&self, names: &[&str]) -> Option<Self> {
        let meets = |(segment, name): (&Segment, &&str)| match segment {
            Segment::Name(own) => own.eq_ignore_ascii_case(name),
            Segment::Index(_) | Segment::All => true,
        };
        let met = self.0.iter().zip(names).all(meets);
        met.then(|| Self(self.0.get(names.len()..).unwrap_or_default().to_vec()))
    }
    /// Whether one of the two paths is a prefix of the other, or both are equal.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|(own, other)| match (own, other) {
            (Segment::Name(own), Segment::Name(other)) => own == other,
            (Segment::Index(own), Segment::Index(other)) => own == other,
            (Segment::All, _) | (_, Segment::All) => true,
            (Segment::Name(_), Segment::Index(_)) | (Segment::Index(_), Segment::Name(_)) => false,
        })
    }
    /// Whether `other` leads to the value that this path leads to, or to a part of it.
    pub(super) fn covers(&self, other: &Self) -> bool {
        self.0.len() <= other.0.len() && self.overlaps(other)
    }
    /// Visits every value at the path.
    pub fn visit(&self, value: &Value, visit: &mut dyn FnMut(&Value)) {
        walk(value, &self.0, false, visit);
    }
    /// Visits every value at the path, and every text, number or bytes at which the path cannot go on: they may hold
    /// the value in an unparsed form, such as JSON that was sent as plain text.
    pub fn visit_within(&self, value: &Value, visit: &mut dyn FnMut(&Value)) {
        walk(value, &self.0, true, visit);
    }
    /// Visits every value at the path, mutably.
    pub fn visit_mut(&self, value: &mut Value, visit: &mut dyn FnMut(&mut Value)) {
        walk_mut(value, &self.0, false, visit);
    }
    /// Visits the same values as [`Self::visit_within`], mutably.
    pub fn visit_within_mut(&self, value: &mut Value, visit: &mut dyn FnMut(&mut Value)) {
        walk_mut(value, &self.0, true, visit);
    }
    /// Passes every string and number at or below the path to `add`, as text.
    pub fn texts(&self, value: &Value, add: &mut dyn FnMut(String)) {
        self.visit(value, &mut |found| texts(found, add));
    }
    /// Passes every string and number in the values that [`Self::visit_within`] visits to `add`, as text.
    pub fn texts_within(&self, value: &Value, add: &mut dyn FnMut(String)) {
        self.visit_within(value, &mut |found| texts(found, add));
    }
    /// Like [`Self::texts`], but also looks into JSON if the value is a text or bytes.
    pub fn texts_in_json(&self, value: &Value, add: &mut dyn FnMut(String)) {
        self.texts(value, add);
        if let Some(json) = json_within(value).filter(|_| !self.0.is_empty()) {
            self.texts(&json, add);
        }
    }
}

fn walk(value: &Value, path: &[Segment], within: bool, visit: &mut dyn FnMut(&Value)) {
    let Some((first, rest)) = path.split_first() else { return visit(value) };
    if within && ends_early(value) {
        return visit(value);
    }
    match (first, value) {
        (Segment::Name(name), Value::Object(members)) => {
            members.get(name).into_iter().for_each(|member| walk(member, rest, within, visit));
        }
        (Segment::Index(index), Value::Array(items)) => {
            items.get(*index).into_iter().for_each(|item| walk(item, rest, within, visit));
        }
        (Segment::All, Value::Array(items)) => items.iter().for_each(|item| walk(item, rest, within, visit)),
        (Segment::All, Value::Object(members)) => {
            members.values().for_each(|member| walk(member, rest, within, visit));
        }
        _ => {}
    }
}

fn walk_mut(value: &mut Value, path: &[Segment], within: bool, visit: &mut dyn FnMut(&mut Value)) {
    let Some((first, rest)) = path.split_first() else { return visit(value) };
    if within && ends_early(value) {
        return visit(value);
    }
    match (first, value) {
        (Segment::Name(name), Value::Object(members)) => {
            members.get_mut(name).into_iter().for_each(|member| walk_mut(member, rest, within, visit));
        }
        (Segment::Index(index), Value::Array(items)) => {
            items.get_mut(*index).into_iter().for_each(|item| walk_mut(item, rest, within, visit));
        }
        (Segment::All, Value::Array(items)) => {
            items.iter_mut().for_each(|item| walk_mut(item, rest, within, visit));
        }
        (Segment::All, Value::Object(members)) => {
            members.values_mut().for_each(|member| walk_mut(member, rest, within, visit));
        }
        _ => {}
    }
}

/// Whether a path cannot go on at this value although the value may hold others in another form (JSON as text, bytes).
fn ends_early(value: &Value) -> bool {
    match value {
        Value::String(text) => !text.is_empty(),
        Value::Number(_) => true,
        // The mark of the bytes is not checked, because it is sealed in the store.
        Value::Object(_) => BytesMark::may_be_bytes(value),
        Value::Array(_) | Value::Null | Value::Bool(_) => false,
    }
}

fn texts(value: &Value, add: &mut dyn FnMut(String)) {
    match value {
        Value::String(text) if text.is_empty() => {}
        Value::String(text) => add(text.clone()),
        Value::Number(number) => add(number.to_string()),
        Value::Array(items) => items.iter().for_each(|item| texts(item, add)),
        Value::Object(members) => members.values().for_each(|member| texts(member, add)),
        Value::Null | Value::Bool(_) => {}
    }
}

impl fmt::Display for SensitivePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("$")?;
        let plain =
            |name: &str| !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-'));
        self.0.iter().try_for_each(|segment| match segment {
            Segment::Name(name) if plain(name) => write!(f, ".{name}"),
            // In an event such a name would be taken for a sealed value, so the path covers all members instead.
            Segment::Name(name) if name.contains(SEALED[0]) => f.write_str("[*]"),
            Segment::Name(name) if name.contains('\'') => write!(f, "[\"{name}\"]"),
            Segment::Name(name) => write!(f, "['{name}']"),
            Segment::Index(index) => write!(f, "[{index}]"),
            Segment::All => f.write_str("[*]"),
        })
    }
}

impl From<SensitivePath> for String {
    fn from(path: SensitivePath) -> Self {
        path.to_string()
    }
}

impl TryFrom<String> for SensitivePath {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

/// The names of a path that an expression reads.
pub(super) fn names(read: &[Arc<str>]) -> Vec<&str> {
    read.iter().map(|name| &**name).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_lead_to_strings_and_numbers() {
        let value = json!({"a": {"b": "x", "n": 17}, "list": [{"t": "y"}, {"t": ""}], "a name": true});
        let found = |path: &str| {
            let path = SensitivePath::parse(path).unwrap();
            assert_eq!(SensitivePath::parse(&path.to_string()).unwrap(), path);
            let mut found = Vec::new();
            path.texts(&value, &mut |text| found.push(text));
            found.sort();
            found
        };
        assert_eq!(found("$.a.b"), ["x"]);
        assert_eq!(found("$.a"), ["17", "x"]);
        assert_eq!(found("$.list[*].t"), ["y"]);
        assert_eq!(found("$['list'][0]['t']"), ["y"]);
        assert_eq!(found("$['a name']"), Vec::<String>::new());
        assert_eq!(found("$.nothing.there"), Vec::<String>::new());
        for bad in ["a.b", "$a", "$.", "$..a", "$.a[?(@.b)]", "$.a[", "$['a"] {
            assert!(SensitivePath::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_text_may_hold_what_a_path_leads_to() {
        let path = SensitivePath::parse("$.body.card.number").unwrap();
        let found = |body: Value| {
            let mut found = Vec::new();
            path.texts_within(&json!({ "body": body, "other": "x" }), &mut |text| found.push(text));
            found
        };
        assert_eq!(found(json!("{\"card\":1}")), ["{\"card\":1}"]);
        assert_eq!(found(json!({ "card": "4111", "a": "b" })), ["4111"]);
        assert_eq!(found(json!({ "card": { "number": 7 }, "a": "b" })), ["7"]);
        assert_eq!(found(json!({ "$bytes": "AQ==", "content_type": "x/y" })), ["AQ==", "x/y"]);
        assert_eq!(found(json!({ "a": "b" })), Vec::<String>::new());
        let mut in_json = Vec::new();
        let path = SensitivePath::parse("$.card").unwrap();
        path.texts_in_json(&json!("{\"card\":\"4111\",\"a\":1}"), &mut |text| in_json.push(text));
        assert_eq!(in_json, ["4111"]);
    }

    #[test]
    fn a_name_that_looks_sealed_is_written_as_all_members() {
        let path = SensitivePath::of(["body", "\u{ab}sealed:eA==\u{bb}", "t"]);
        assert_eq!(path.to_string(), "$.body[*].t");
    }

    #[test]
    fn a_path_meets_names_that_are_read_if_one_leads_to_the_other() {
        let path = SensitivePath::parse("$.request.body.cards[*].number").unwrap();
        let rest = |names: &[&str]| path.under(names).map(|rest| rest.to_string());
        assert_eq!(rest(&["request", "body"]).as_deref(), Some("$.cards[*].number"));
        assert_eq!(rest(&["request", "body", "cards"]).as_deref(), Some("$[*].number"));
        assert_eq!(rest(&["request", "body", "cards", "x", "number", "deeper"]).as_deref(), Some("$"));
        assert_eq!(rest(&["request", "body", "total"]), None);
        assert_eq!(rest(&["steps"]), None);
    }
}

//! Checks a tree against the JSON Schema of its draft.
//!
//! The question it answers: "which keys are unknown, and which values have the wrong type?" It walks the schema that
//! `schemars` generates from a draft, so that the same types decide what `check` refuses and what an editor completes.
//! Always true: if it finds nothing, the draft can be deserialized. Only keys, types, words and the bounds in the
//! schema are checked here; `flag`, `workflow` and `compare` check the meaning (a percentage of 150, a service that
//! does not exist).

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::messages::{
    allowed_types, describe_expected, describe_found, description_of, form_hint, join_quoted, join_with_or,
    quotes_hint, shorten, unit_hint,
};
use super::schema::EARLIER_NAME;
use super::tree::{Node, NodeKind};
use crate::problem::{Problem, Problems, Segment, Site, nearest};

/// The result of checking a tree.
#[derive(Default)]
pub(crate) struct SchemaCheck {
    /// Everything that the schema does not allow.
    pub problems: Problems,
    /// The paths of keys and values that the schema refuses; what is left without them can still be checked for
    /// meaning. Missing keys are not listed.
    pub refused: Vec<Vec<Segment>>,
}

impl SchemaCheck {
    fn error(&mut self, site: &Site, message: impl Into<String>) -> &mut Problem {
        self.refused.push(site.path.clone());
        self.problems.error(site, message)
    }
}

/// Finds everything in `node` that the schema does not allow.
pub(crate) fn check(node: &Node, schema: &Value, site: &Site) -> SchemaCheck {
    let mut result = SchemaCheck::default();
    SchemaWalk { root: schema }.value(node, schema, site, &mut result, 0);
    result
}

struct SchemaWalk<'a> {
    root: &'a Value,
}

/// Bounds the recursion, because a schema may refer to itself (a list of lists). No file is nested deeper than this,
/// even if each level passes through several references.
const DEPTH_MAX: usize = 512;
/// How many keys a hint lists at most; a longer list would not help.
const NAMED_MAX: usize = 24;

impl SchemaWalk<'_> {
    fn value(&self, node: &Node, schema: &Value, site: &Site, result: &mut SchemaCheck, depth: usize) {
        let schema = self.resolve(schema);
        let Some(schema) = schema.as_object().filter(|_| depth < DEPTH_MAX) else { return };
        for key in ["anyOf", "oneOf"] {
            if let Some(branches) = schema.get(key).and_then(Value::as_array) {
                return self.one_of(node, branches, site, result, depth);
            }
        }
        if let Some(all) = schema.get("allOf").and_then(Value::as_array) {
            for part in all {
                self.value(node, part, site, result, depth + 1);
            }
        }
        if let Some(words) = words(schema) {
            self.word(node, &words, site, result);
            return;
        }
        if !accepts(schema, node) {
            let expected = describe_expected(schema);
            let problem = result.error(site, format!("expected {expected}, found {}", describe_found(node)));
            let hint = unit_hint(node, schema, site).or_else(|| quotes_hint(node, &expected));
            if let Some(hint) = hint.or_else(|| form_hint(site)) {
                problem.hint(hint);
            }
            return;
        }
        match &node.kind {
            NodeKind::Map(_) => self.map(node, schema, site, result, depth),
            NodeKind::List(items) => {
                if let Some(of) = schema.get("items") {
                    for (index, item) in items.iter().enumerate() {
                        self.value(item, of, &site.index(index), result, depth + 1);
                    }
                }
                if let Some(least) = schema.get("minItems").and_then(Value::as_u64)
                    && (items.len() as u64) < least
                {
                    result.error(site, format!("expected at least {least} in this list, found {}", items.len()));
                }
            }
            NodeKind::Number(number) => {
                let number = number.as_f64().unwrap_or(0.0);
                let bound = |key| schema.get(key).and_then(Value::as_f64);
                if let Some(least) = bound("minimum").filter(|least| number < *least) {
                    result.error(site, format!("expected a number from {least} on, found {number}"));
                }
                if let Some(most) = bound("maximum").filter(|most| number > *most) {
                    result.error(site, format!("expected a number up to {most}, found {number}"));
                }
            }
            NodeKind::Null | NodeKind::Bool(_) | NodeKind::Text(_) => {}
        }
    }

    fn map(&self, node: &Node, schema: &Map<String, Value>, site: &Site, result: &mut SchemaCheck, depth: usize) {
        let none = Map::new();
        let known = schema.get("properties").and_then(Value::as_object).unwrap_or(&none);
        let others = schema.get("additionalProperties");
        let absent: Vec<&str> = schema
            .get("required")
            .and_then(Value::as_array)
            .map(|keys| keys.iter().filter_map(Value::as_str).filter(|key| node.get(key).is_none()).collect())
            .unwrap_or_default();
        for entry in node.entries() {
            let inner = site.key(entry.key.clone());
            let is_earlier = |of: &&Value| of.get(EARLIER_NAME).and_then(Value::as_str) == Some(&*entry.key);
            if let Some(of) = known.get(&*entry.key) {
                self.value(&entry.value, of, &inner, result, depth + 1);
                continue;
            }
            if let Some((name, of)) = known.iter().find(|(_, of)| is_earlier(of)) {
                if node.get(name).is_some() {
                    let message = format!("`{}` is the earlier name of `{name}`, which is set here too", entry.key);
                    result.error(&inner.clone().at_key(), message).hint(format!("keep `{name}` and remove this one"));
                }
                self.value(&entry.value, of, &inner, result, depth + 1);
                continue;
            }
            match others {
                Some(Value::Bool(false)) => {
                    let free: Vec<&str> = known.keys().map(String::as_str).filter(|k| node.get(k).is_none()).collect();
                    let problem = result.error(&inner.at_key(), format!("unknown key `{}`", entry.key));
                    match nearest(&entry.key, free.iter().copied()) {
                        Some(near) => problem.hint(format!("did you mean `{near}`?")),
                        None if known.is_empty() => problem.hint("this map takes no keys"),
                        None if known.len() > NAMED_MAX => {
                            problem.hint(format!("{} keys are known here: `pointsman schema` says which", known.len()))
                        }
                        None => problem.hint(format!("known here: {}", join_quoted(known.keys().map(String::as_str)))),
                    };
                }
                Some(of) => self.value(&entry.value, of, &inner, result, depth + 1),
                None => {}
            }
        }
        for key in absent {
            let problem = result.problems.error(&site.clone().at_key(), format!("the key `{key}` is missing"));
            if let Some(what) = known.get(key).and_then(description_of) {
                problem.hint(format!("`{key}`: {what}"));
            }
        }
    }

    /// Checks a value against alternatives. Reports the errors of the alternative that accepts this type of value; if
    /// several accept it, of the one with the fewest errors.
    fn one_of(&self, node: &Node, branches: &[Value], site: &Site, result: &mut SchemaCheck, depth: usize) {
        let branches: Vec<&Value> = branches.iter().map(|branch| self.resolve(branch)).collect();
        let mut all_words = BTreeSet::new();
        let mut fitting = Vec::new();
        for branch in &branches {
            let Some(object) = branch.as_object() else { return };
            if let Some(words) = words(object) {
                all_words.extend(words);
                continue;
            }
            if self.may_accept(branch, node, depth) {
                fitting.push(*branch);
            }
        }
        if node.text().is_some_and(|text| all_words.contains(text)) {
            return;
        }
        if fitting.is_empty() {
            if !all_words.is_empty() && (node.text().is_some() || branches.len() == 1) {
                let words: Vec<String> = all_words.into_iter().collect();
                return self.word(node, &words, site, result);
            }
            let mut names: Vec<String> = Vec::new();
            for branch in &branches {
                for name in self.names(branch, depth) {
                    if name != "nothing" && !names.contains(&name) {
                        names.push(name);
                    }
                }
            }
            let expected = join_with_or(&names);
            let problem = result.error(site, format!("expected {expected}, found {}", describe_found(node)));
            if let Some(hint) = quotes_hint(node, &expected).or_else(|| form_hint(site)) {
                problem.hint(hint);
            }
            return;
        }
        let mut best: Option<SchemaCheck> = None;
        for branch in fitting {
            let mut tried = SchemaCheck::default();
            self.value(node, branch, site, &mut tried, depth + 1);
            if best.as_ref().is_none_or(|best| tried.problems.len() < best.problems.len()) {
                best = Some(tried);
            }
        }
        let SchemaCheck { problems: found, refused } = best.unwrap_or_default();
        result.problems.extend(found);
        result.refused.extend(refused);
    }

    /// Whether an alternative accepts this type of value.
    fn may_accept(&self, schema: &Value, node: &Node, depth: usize) -> bool {
        let schema = self.resolve(schema);
        let Some(object) = schema.as_object().filter(|_| depth < DEPTH_MAX) else { return true };
        for key in ["anyOf", "oneOf"] {
            if let Some(branches) = object.get(key).and_then(Value::as_array) {
                return branches.iter().any(|branch| self.may_accept(branch, node, depth + 1));
            }
        }
        match words(object) {
            Some(words) => node.text().is_some_and(|text| words.iter().any(|word| word == text)),
            None => accepts(object, node),
        }
    }

    /// The names of the values that an alternative accepts, for messages.
    fn names(&self, schema: &Value, depth: usize) -> Vec<String> {
        let schema = self.resolve(schema);
        let Some(object) = schema.as_object().filter(|_| depth < DEPTH_MAX) else { return Vec::new() };
        for key in ["anyOf", "oneOf"] {
            if let Some(branches) = object.get(key).and_then(Value::as_array) {
                return branches.iter().flat_map(|branch| self.names(branch, depth + 1)).collect();
            }
        }
        match words(object) {
            Some(words) => words.iter().map(|word| format!("`{word}`")).collect(),
            None => vec![describe_expected(object)],
        }
    }

    /// Checks a value against the words of an enumeration.
    fn word(&self, node: &Node, words: &[String], site: &Site, result: &mut SchemaCheck) {
        let Some(text) = node.text() else {
            let list = join_quoted(words.iter().map(String::as_str));
            result.error(site, format!("expected one of {list}, found {}", describe_found(node)));
            return;
        };
        if words.iter().any(|word| word == text) {
            return;
        }
        let problem = result.error(site, format!("unknown value `{}`", shorten(text)));
        match nearest(text, words.iter().map(String::as_str)) {
            Some(near) => problem.hint(format!("did you mean `{near}`?")),
            None => problem.hint(format!("one of {}", join_quoted(words.iter().map(String::as_str)))),
        };
    }

    fn resolve<'b>(&'b self, mut schema: &'b Value) -> &'b Value {
        for _ in 0..32 {
            let Some(pointer) = schema.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix('#')) else {
                break;
            };
            match self.root.pointer(pointer) {
                Some(found) => schema = found,
                None => break,
            }
        }
        schema
    }
}

/// The words of an enumeration.
fn words(schema: &Map<String, Value>) -> Option<Vec<String>> {
    if let Some(word) = schema.get("const").and_then(Value::as_str) {
        return Some(vec![word.to_owned()]);
    }
    let words = schema.get("enum")?.as_array()?;
    Some(words.iter().filter_map(Value::as_str).map(str::to_owned).collect())
}

fn accepts(schema: &Map<String, Value>, node: &Node) -> bool {
    let types = allowed_types(schema);
    types.is_empty()
        || types.iter().any(|name| match (*name, &node.kind) {
            ("null", NodeKind::Null)
            | ("boolean", NodeKind::Bool(_))
            | ("number", NodeKind::Number(_))
            | ("string", NodeKind::Text(_))
            | ("array", NodeKind::List(_))
            | ("object", NodeKind::Map(_)) => true,
            ("integer", NodeKind::Number(number)) => number.is_i64() || number.is_u64(),
            _ => false,
        })
}

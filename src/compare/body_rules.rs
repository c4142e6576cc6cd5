//! The rules for one kind of body: that of the replies, or that of the calls of one step.

use std::collections::BTreeMap;

use http::HeaderName;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use serde_json::Value;
use serde_json_path::JsonPath;

use super::number::{Decimal, NumberForm};
use super::times;
use super::tolerance_draft::ToleranceDraft;
use crate::expression::{JsonPathError, parse_json_path};
use crate::problem::{Problems, Site};

/// Identifies a rule: its index in [`RuleTexts`]. The uses of each rule are counted by this index.
pub(super) type RuleId = usize;

/// The checked rules for one body.
#[derive(Clone, Default)]
pub(super) struct BodyRules {
    pub(super) ignore: Vec<(JsonPath, RuleId)>,
    pub(super) ids: Vec<(JsonPath, RuleId)>,
    pub(super) unordered: Vec<(JsonPath, RuleId, Unordered)>,
    pub(super) tolerance: Vec<(JsonPath, RuleId, Tolerance)>,
    /// The rule whose use is counted when texts are equal only because their ids correspond.
    pub(super) renaming: Option<RuleId>,
    pub(super) number_form: NumberForm,
}

/// How the elements of an array whose order does not matter are paired.
#[derive(Clone, Debug)]
pub(super) enum Unordered {
    Set,
    Key(String),
}

/// By how much two values may differ.
#[derive(Clone, Debug)]
pub(super) enum Tolerance {
    Number(Decimal),
    /// In nanoseconds.
    Time(i128),
}

/// The part of a draft that holds the rules for one body.
pub(super) struct BodyRulesDraft<'a> {
    pub(super) ignore: &'a [String],
    pub(super) ids: &'a [String],
    pub(super) unordered: &'a BTreeMap<String, String>,
    pub(super) tolerance: &'a BTreeMap<String, ToleranceDraft>,
}

/// The texts of all rules of a route, by their id.
#[derive(Clone, Default)]
pub(super) struct RuleTexts(Vec<String>);

impl RuleTexts {
    /// Adds a rule, and returns its id.
    pub(super) fn register(&mut self, text: String) -> RuleId {
        self.0.push(text);
        self.0.len() - 1
    }
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
    pub(super) fn iter(&self) -> impl Iterator<Item = &String> {
        self.0.iter()
    }
}

/// Checks the rules of one body. Each rule is registered under its text, preceded by `prefix`. `is_name` handles the
/// entries of `ignore` that name something other than a part of the body.
pub(super) fn check(
    draft: &BodyRulesDraft<'_>,
    prefix: &str,
    site: &Site,
    texts: &mut RuleTexts,
    problems: &mut Problems,
    mut is_name: impl FnMut(&str, &Site, &mut RuleTexts, &mut Problems) -> bool,
) -> BodyRules {
    let mut rules = BodyRules::default();
    for (n, text) in draft.ignore.iter().enumerate() {
        let site = site.key("ignore").index(n);
        if is_name(text, &site, texts, problems) {
            continue;
        }
        if let Some(path) = path(text, &site, problems) {
            rules.ignore.push((path, texts.register(format!("{prefix}ignore {text}"))));
        }
    }
    for (n, text) in draft.ids.iter().enumerate() {
        if let Some(path) = path(text, &site.key("ids").index(n), problems) {
            rules.ids.push((path, texts.register(format!("{prefix}ids {text}"))));
        }
    }
    for (text, how) in draft.unordered {
        let site = site.key("unordered").key(text.as_str());
        let path = path(text, &site.clone().at_key(), problems);
        let how = match how.as_str() {
            "" => {
                problems.error(&site, "an empty key").hint("`set`, or the name of the field that is the key");
                continue;
            }
            "set" => Unordered::Set,
            key => Unordered::Key(key.into()),
        };
        if let Some(path) = path {
            rules.unordered.push((path, texts.register(format!("{prefix}unordered {text}")), how));
        }
    }
    for (text, by) in draft.tolerance {
        let site = site.key("tolerance").key(text.as_str());
        let path = path(text, &site.clone().at_key(), problems);
        let by = tolerance(&by.0, &site, problems);
        if let (Some(path), Some(by)) = (path, by) {
            rules.tolerance.push((path, texts.register(format!("{prefix}tolerance {text}")), by));
        }
    }
    rules.renaming = rules.ids.first().map(|(_, rule)| *rule);
    rules
}

/// Parses the name of a header.
pub(super) fn header(name: &str, site: &Site, problems: &mut Problems) -> Option<HeaderName> {
    let parsed = name.parse().ok();
    if parsed.is_none() {
        problems.error(site, format!("`{name}` is no header name"));
    }
    parsed
}

/// Parses the name of a header that is to be compared. Refuses those that say how a body is transferred: the engine's
/// answer gets them only when it is sent, after the comparison, and legacy's depend on the encoding and the spacing of
/// the body, which is compared by its content.
pub(super) fn compared_header(name: &str, site: &Site, problems: &mut Problems) -> Option<HeaderName> {
    let name = header(name, site, problems)?;
    if name == CONTENT_LENGTH || name == TRANSFER_ENCODING {
        let message = format!("`{name}` cannot be compared: the engine's side has none until its answer is sent");
        problems.error(site, message).hint(
            "remove it: bodies are compared by their content, whatever their length. A length that matters can be \
             compared by an `assert`, such as `${size(engine.body) == size(legacy.body)}` for a text",
        );
        return None;
    }
    Some(name)
}

fn path(text: &str, site: &Site, problems: &mut Problems) -> Option<JsonPath> {
    match parse_json_path(text) {
        Ok(path) => Some(path),
        Err(JsonPathError { message, offset }) => {
            let problem = problems.error(site, format!("`{text}` is no JSONPath: {message}"));
            problem.offset(offset);
            if !text.starts_with('$') {
                problem.hint(format!("a path starts at the body: `$.{text}`"));
            }
            None
        }
    }
}

fn tolerance(value: &Value, site: &Site, problems: &mut Problems) -> Option<Tolerance> {
    let parsed = match value {
        Value::Number(number) => {
            Decimal::parse(&number.to_string()).filter(|d| !d.is_negative()).map(Tolerance::Number)
        }
        Value::String(text) => times::duration(text).map(Tolerance::Time),
        _ => None,
    };
    if parsed.is_none() {
        problems
            .error(site, format!("{value} is no tolerance"))
            .hint("a number from 0 up (absolute), or a duration such as `2s` or `500ms` for times");
    }
    parsed
}

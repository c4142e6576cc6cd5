//! The rules for one kind of body: that of the replies, or that of the calls of one step.

use std::collections::BTreeMap;

use serde_json::Value;

use super::condition;
use super::covering::CoveringRule;
use super::header_ids::HeaderIds;
use super::number::{Decimal, NumberForm};
use super::path_matcher::PathMatcher;
use super::rule_drafts::{IdDraft, IgnoreDraft, ToleranceDraft, UnorderedDraft, Written};
use super::rule_path::RulePath;
use super::times;
use super::times_in_text::TimesInText;
use crate::expression::{JsonPathError, is_id_name};
use crate::problem::{Problems, Site};

pub(super) use super::header_names::{compared_header, header};
pub(super) use super::rule_texts::{IdKind, IdRule, RuleId, RuleTexts};

/// The checked rules for one body.
#[derive(Clone, Default)]
pub(super) struct BodyRules {
    pub(super) ignore: Vec<(RulePath, RuleId)>,
    pub(super) ids: Vec<(RulePath, IdRule)>,
    /// Objects whose keys are ids.
    pub(super) keys: Vec<(RulePath, IdRule)>,
    /// Ids in headers; none in the rules for calls.
    pub(super) header_ids: Vec<HeaderIds>,
    pub(super) unordered: Vec<(RulePath, RuleId, Unordered)>,
    pub(super) tolerance: Vec<(RulePath, RuleId, Tolerance)>,
    /// The rule whose use is counted when texts are equal only because their ids correspond.
    pub(super) renaming: Option<RuleId>,
    pub(super) number_form: NumberForm,
    /// All paths of these rules.
    pub(super) matcher: PathMatcher,
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
    /// Of the times within a text.
    TimesInText(TimesInText),
}

/// The part of a draft that holds the rules for one body.
pub(super) struct BodyRulesDraft<'a> {
    pub(super) ignore: &'a [IgnoreDraft],
    pub(super) ids: &'a [IdDraft],
    pub(super) unordered: &'a BTreeMap<String, UnorderedDraft>,
    pub(super) tolerance: &'a BTreeMap<String, ToleranceDraft>,
}

impl BodyRules {
    /// Whether there are rules for ids in the body.
    pub(super) fn have_ids(&self) -> bool {
        !(self.ids.is_empty() && self.keys.is_empty())
    }

    /// What each rule covers. Of several of one sort that cover a value, the first counts.
    pub(super) fn covering(&self) -> impl Iterator<Item = (&RulePath, RuleId, CoveringRule)> {
        let ignore = self.ignore.iter().map(|(path, rule)| (path, *rule, CoveringRule::Ignore(*rule)));
        let ids = self.ids.iter().map(|(path, ids)| (path, ids.rule, CoveringRule::Id(*ids)));
        let keys = self.keys.iter().map(|(path, ids)| (path, ids.rule, CoveringRule::Keys(*ids)));
        let unordered = self.unordered.iter().enumerate();
        let unordered = unordered.map(|(n, (path, rule, _))| (path, *rule, CoveringRule::Unordered(n)));
        let tolerance = self.tolerance.iter().enumerate();
        let tolerance = tolerance.map(|(n, (path, rule, _))| (path, *rule, CoveringRule::Tolerance(n)));
        ignore.chain(ids).chain(keys).chain(unordered).chain(tolerance)
    }
}

/// An entry of `ignore`: a part of the body, or the name of something else.
pub(super) struct IgnoredName<'a> {
    pub(super) text: &'a str,
    pub(super) site: &'a Site,
    /// Whether the rule has a condition.
    pub(super) is_conditional: bool,
}

/// Checks the rules of one body. Each rule is registered under its text, preceded by `prefix`. `is_name` is called for
/// each entry of `ignore`. If the entry names something other than a part of the body, `is_name` registers the rule, by
/// the function that it is given, and returns true.
pub(super) fn check(
    draft: &BodyRulesDraft<'_>,
    prefix: &str,
    site: &Site,
    texts: &mut RuleTexts,
    problems: &mut Problems,
    mut is_name: impl FnMut(&IgnoredName<'_>, &mut dyn FnMut() -> RuleId, &mut Problems) -> bool,
) -> BodyRules {
    let mut rules = BodyRules::default();
    for (n, draft) in draft.ignore.iter().enumerate() {
        let Some(written) = Written::of(&draft.0, "path", &site.key("ignore").index(n)) else { continue };
        let (text, when) = (written.text(), condition::when(written.when.as_ref(), problems));
        let mut register = || texts.register_when(format!("{prefix}ignore {text}"), when.clone());
        let name = IgnoredName { text, site: &written.site, is_conditional: written.when.is_some() };
        if is_name(&name, &mut register, problems) {
            continue;
        }
        if let Some(path) = path(text, &written.site, problems) {
            rules.ignore.push((path, register()));
        }
    }
    for (n, draft) in draft.ids.iter().enumerate() {
        check_ids(&draft.0, prefix, &site.key("ids").index(n), &mut rules, texts, problems);
    }
    for (text, how) in draft.unordered {
        let site = site.key("unordered").key(text.as_str());
        let path = path(text, &site.clone().at_key(), problems);
        let Some(written) = Written::of(&how.0, "by", &site) else { continue };
        let when = condition::when(written.when.as_ref(), problems);
        let how = match written.text() {
            "" => {
                problems.error(&written.site, "an empty key").hint("`set`, or the name of the field that is the key");
                continue;
            }
            "set" => Unordered::Set,
            key => Unordered::Key(key.into()),
        };
        if let Some(path) = path {
            rules.unordered.push((path, texts.register_when(format!("{prefix}unordered {text}"), when), how));
        }
    }
    for (text, by) in draft.tolerance {
        let site = site.key("tolerance").key(text.as_str());
        let path = path(text, &site.clone().at_key(), problems);
        let Some(key) = key_of_tolerance(&by.0, &site, problems) else { continue };
        let Some(written) = Written::of(&by.0, key, &site) else { continue };
        let when = condition::when(written.when.as_ref(), problems);
        let by = match key {
            TIMES_IN_TEXT => TimesInText::check(written.value, &written.site, problems).map(Tolerance::TimesInText),
            _ => tolerance(written.value, &written.site, problems),
        };
        if let (Some(path), Some(by)) = (path, by) {
            rules.tolerance.push((path, texts.register_when(format!("{prefix}tolerance {text}"), when), by));
        }
    }
    let first = rules.ids.first().or(rules.keys.first()).map(|(_, ids)| ids.rule);
    rules.renaming = first.or_else(|| rules.header_ids.first().map(HeaderIds::rule));
    rules.matcher = PathMatcher::of(rules.covering());
    rules
}

/// Checks one entry of `ids`.
fn check_ids(
    draft: &Value,
    prefix: &str,
    site: &Site,
    rules: &mut BodyRules,
    texts: &mut RuleTexts,
    problems: &mut Problems,
) {
    let Value::Object(map) = draft else {
        let text = draft.as_str().unwrap_or_default();
        if let Some(path) = path(text, site, problems) {
            rules.ids.push((path, texts.register_ids(&format!("{prefix}ids {text}"), None, false)));
        }
        return;
    };
    let when = condition::when(Written::when(map, site).as_ref(), problems);
    let any_type = map.get("any_type").and_then(Value::as_bool).unwrap_or_default();
    let kind_name = map.get("kind").and_then(Value::as_str);
    let mut subjects = map.iter().filter(|(key, _)| !matches!(key.as_str(), "when" | "any_type" | "kind"));
    let (Some((key, value)), None) = (subjects.next(), subjects.next()) else {
        problems.error(site, "an entry of `ids` names one kind of ids").hint("`path`, `keys` or `header.NAME`");
        return;
    };
    let (text, place) = (value.as_str().unwrap_or_default(), site.key(key.as_str()));
    if any_type && key != "path" {
        problems.error(&site.key("any_type"), "only ids in a body have a type").hint("leave `any_type` out");
    }
    if let Some(name) = kind_name.filter(|name| !is_id_name(name)) {
        problems.error(&site.key("kind"), format!("`{name}` is no name of a kind of ids")).hint("such as `customer`");
        return;
    }
    let kind = kind_name.map_or(IdKind::ANY, |name| texts.kind(name));
    match (key.as_str(), key.strip_prefix("header.")) {
        ("path", _) => {
            if let Some(path) = path(text, &place, problems) {
                let rule = texts.register_ids(&format!("{prefix}ids {text}"), when, any_type);
                rules.ids.push((path, IdRule { kind, ..rule }));
            }
        }
        ("keys", _) => {
            if let Some(path) = path(text, &place, problems) {
                let rule = texts.register_ids(&format!("{prefix}ids keys {text}"), when, true);
                rules.keys.push((path, IdRule { kind, ..rule }));
            }
        }
        (_, Some(_)) if prefix.is_empty() && kind_name.is_some() => {
            problems
                .error(&site.key("kind"), "the kinds of the ids in a header are their names in braces")
                .hint("leave `kind` out, and write the kind in the braces: `/customers/{customer}`");
        }
        (_, Some(name)) if prefix.is_empty() => {
            let register = || texts.register_ids(&format!("ids {key}: {text}"), when, true);
            let header = HeaderIds::check(name, text, &place, register, problems);
            rules.header_ids.extend(header.map(|header| header.with_kinds(texts)));
        }
        (_, Some(_)) => {
            let problem = problems.error(&place.at_key(), "the ids in headers of a call cannot be named here");
            problem.hint("list the header under `headers`: its ids are found if the body or the reply has them");
        }
        (other, None) => {
            let problem = problems.error(&place.at_key(), format!("unknown key `{other}`"));
            problem.hint("an entry of `ids` has `path`, `keys` or `header.NAME`, and may have `kind` and `when`");
        }
    }
}

fn path(text: &str, site: &Site, problems: &mut Problems) -> Option<RulePath> {
    match RulePath::parse(text) {
        Ok(path) => Some(path),
        Err(JsonPathError { message, offset }) => {
            let problem = problems.error(site, format!("`{text}` is no JSONPath: {message}"));
            problem.offset(offset);
            if !text.starts_with('$') {
                problem.hint(hint_of_path(text));
            }
            None
        }
    }
}

/// What to write in place of a path that does not start with `$`. Such a path may be one that a difference shows.
fn hint_of_path(text: &str) -> String {
    let call = text.strip_prefix("effects.").and_then(|rest| rest.split_once('.'));
    match (text.split_once('.'), call) {
        (_, Some((step, part))) => {
            let part = match part.split_once('.') {
                Some(("body", path)) => format!("$.{path}"),
                Some(("headers", name)) => format!("header.{name}"),
                None if part == "body" => "$".to_owned(),
                Some(_) | None => part.to_owned(),
            };
            format!(
                "the rules for the calls of a step stand under `effects`: `effects: {{ {step}: {{ ignore: [{part}] }} }}`"
            )
        }
        (Some(("header" | "headers", name)), None) => {
            format!("a header is no part of the body: `header.{name}` under `ignore`, or leave it out of `headers:`")
        }
        (_, None) => format!("a path starts at the body: `$.{text}`"),
    }
}

/// The key of a tolerance that is for the times within a text.
const TIMES_IN_TEXT: &str = "times";

/// The key under which a tolerance has its value, if it is written as a map.
fn key_of_tolerance(draft: &Value, site: &Site, problems: &mut Problems) -> Option<&'static str> {
    let Value::Object(map) = draft else { return Some("by") };
    match (map.contains_key("by"), map.contains_key(TIMES_IN_TEXT)) {
        (true, false) => Some("by"),
        (false, true) => Some(TIMES_IN_TEXT),
        (true, true) | (false, false) => {
            problems
                .error(site, "a tolerance has either `by` or `times`")
                .hint("`by: 2s` for a value that is a number or a time, `times: 2s` for the times within a text");
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

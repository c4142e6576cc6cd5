//! Warns of rules that are valid, and that cannot do what they are written for.

use std::collections::BTreeMap;

use http::HeaderName;
use serde_json::Value;

use super::body_rules::{BodyRules, BodyRulesDraft, RuleId};
use super::rule_path::RulePath;
use crate::problem::{Problems, Site};

/// Paths that name every value of a body.
const EVERY_VALUE: [&str; 4] = ["$.*", "$[*]", "$..*", "$..[*]"];
/// Endings of names of times, in lower case.
const TIMES: [&str; 5] = ["_at", "_time", "timestamp", "datetime", "_on"];

/// Warns of the rules of one body.
pub(super) fn warn(draft: &BodyRulesDraft<'_>, site: &Site, problems: &mut Problems) {
    let mut ignored: BTreeMap<&str, Site> = BTreeMap::new();
    for (n, rule) in draft.ignore.iter().enumerate() {
        let site = site.key("ignore").index(n);
        let Some(path) = unconditional(&rule.0, "path") else { continue };
        if EVERY_VALUE.contains(&path) {
            problems
                .warn(&site, format!("`{path}` ignores every value of the body"))
                .hint("name the values that may differ; `$` says plainly that the body is not compared");
        }
        if let Some(first) = ignored.insert(path, site.clone()) {
            problems.warn(&site, format!("`{path}` is ignored twice")).hint(format!("remove it: {first} has it"));
        }
    }
    let mut ids: BTreeMap<&str, Site> = BTreeMap::new();
    for (n, rule) in draft.ids.iter().enumerate() {
        let site = site.key("ids").index(n);
        let Some(path) = unconditional(&rule.0, "path") else { continue };
        if path == "$" || path == "$.*" || path.starts_with("$..*") {
            problems
                .warn(
                    &site,
                    format!("under `{path}` amounts and names are ids too, and differences in them are not seen"),
                )
                .hint("name the ids alone: `$.id`, `$.lines[*].order_id`");
        }
        if let Some(first) = ids.insert(path, site.clone()) {
            problems.warn(&site, format!("`{path}` is under `ids` twice")).hint(format!("remove it: {first} has it"));
        }
    }
    warn_of_rules_in_ignored_parts(draft, &ignored, site, problems);
    for (path, by) in draft.tolerance {
        let by = by.0.get("by").unwrap_or(&by.0);
        let name = path.rsplit(['.', '\'', '"']).find(|part| !matches!(*part, "" | "]")).unwrap_or_default();
        let lower = name.to_ascii_lowercase();
        let is_time = name.ends_with("At") || TIMES.iter().any(|end| lower.ends_with(end));
        if by.is_number() && is_time {
            problems
                .warn(
                    &site.key("tolerance").key(path.as_str()),
                    format!("`{by}` is a tolerance of numbers, not of times"),
                )
                .hint(format!("a time that is written as text may differ by a duration: `{by}s`"));
        }
    }
}

/// Warns of rules for parts that are ignored in all pairs: nothing of these parts is compared, so the rules never act.
fn warn_of_rules_in_ignored_parts(
    draft: &BodyRulesDraft<'_>,
    ignored: &BTreeMap<&str, Site>,
    site: &Site,
    problems: &mut Problems,
) {
    let parsed = |path: &str| RulePath::parse(path).ok();
    let wholes: Vec<(&str, RulePath)> = ignored.keys().filter_map(|path| Some((*path, parsed(path)?))).collect();
    if wholes.is_empty() {
        return;
    }
    let mut warn_of_part = |path: &str, never: &str, site: &Site| {
        let rule = parsed(path);
        let holds =
            |(whole, of): &&(&str, RulePath)| *whole != path && rule.as_ref().is_some_and(|rule| of.holds(rule));
        if let Some((whole, _)) = wholes.iter().find(holds) {
            problems
                .warn(site, format!("`{path}` is a part of `{whole}`, which is ignored, so {never}"))
                .hint("remove it, or ignore less");
        }
    };
    for (n, rule) in draft.ignore.iter().enumerate() {
        if let Some(path) = path_of(&rule.0, "path") {
            warn_of_part(path, "ignoring it does nothing more", &site.key("ignore").index(n));
        }
    }
    let mut same = Vec::new();
    let ids = draft.ids.iter().enumerate().filter_map(|(n, rule)| {
        let path = path_of(&rule.0, "path").or_else(|| path_of(&rule.0, "keys"))?;
        Some((path, "its ids are never compared", site.key("ids").index(n)))
    });
    let of_key = |kind: &'static str, path: &str| site.key(kind).key(path).at_key();
    let unordered = draft.unordered.keys();
    let unordered = unordered.map(|path| (path.trim(), "its order is never compared", of_key("unordered", path)));
    let tolerance = draft.tolerance.keys();
    let tolerance = tolerance.map(|path| (path.trim(), "its tolerance is never needed", of_key("tolerance", path)));
    for (path, never, site) in ids.chain(unordered).chain(tolerance) {
        match ignored.contains_key(path) {
            true => same.push((format!("`{path}` is under `ignore` too, so {never}"), site)),
            false => warn_of_part(path, never, &site),
        }
    }
    for (message, site) in same {
        problems.warn(&site, message).hint("remove it from one of the two");
    }
}

/// Warns of headers under `ignore` and `ids` that are not compared.
pub(super) fn warn_of_headers(
    compared: &[HeaderName],
    ignored: &[(HeaderName, RuleId)],
    rules: &BodyRules,
    site: &Site,
    problems: &mut Problems,
) {
    for (name, _) in ignored.iter().filter(|(name, _)| !compared.contains(name)) {
        problems
            .warn(&site.key("ignore"), format!("the header `{name}` is ignored, and not compared anyway"))
            .hint("remove it: only the headers under `headers:` are compared");
    }
    for name in rules.header_ids.iter().map(|ids| ids.header()).filter(|name| !compared.contains(name)) {
        problems
            .warn(&site.key("ids"), format!("ids are found in the header `{name}`, which is not compared"))
            .hint(format!("list `{name}` under `headers:`, so that a wrong id in it is a difference"));
    }
}

/// The path of a rule without a condition.
fn unconditional<'v>(rule: &'v Value, key: &str) -> Option<&'v str> {
    let has_condition = rule.as_object().is_some_and(|map| map.contains_key("when"));
    if has_condition { None } else { path_of(rule, key) }
}

fn path_of<'v>(rule: &'v Value, key: &str) -> Option<&'v str> {
    match rule {
        Value::Object(map) => map.get(key)?.as_str(),
        value => value.as_str(),
    }
    .map(str::trim)
}

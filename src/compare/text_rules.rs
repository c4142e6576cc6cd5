//! The rules for bodies that are compared line by line: lines that do not count, times and ids within lines.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use regex::{Regex, RegexBuilder};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::bounds::BoundExceeded;
use super::rule_texts::{IdRule, RuleId, RuleTexts};
use super::shown_condition::shown_pattern;
use super::times;
use crate::problem::{Problems, Site};

/// The largest compiled pattern, in bytes.
const PATTERN_COMPILED_BYTES_MAX: usize = 1 << 18;
/// The most patterns of one route: each is tried on each line.
pub(super) const PATTERNS_MAX: usize = 64;
/// The longest line that patterns are applied to: a search for all matches may take a time that grows with the square
/// of the line's length. A longer line is compared as it is.
pub(super) const PATTERN_LINE_BYTES_MAX: usize = 16 << 10;
/// Times as RFC 3339 and HTTP write them.
pub(super) const TIMES: [&str; 2] = [
    "[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:[.][0-9]{1,9})?(?:[Zz]|[+-][0-9]{2}:?[0-9]{2})?",
    "[A-Z][a-z]{2}, [0-9]{1,2} [A-Z][a-z]{2} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} (?:GMT|UTC|[+-][0-9]{4})",
];
/// A pattern that matches both this line and an empty one is taken to match every line, and is warned of.
const UNLIKELY_LINE: &str = "\u{1} ~Q7#";

/// How bodies that have no structure are compared, line by line.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TextRulesDraft {
    /// Lines that match one of these patterns (regular expressions) do not count.
    pub ignore: Vec<String>,
    /// Times within lines, and by how much they may differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub times: Option<TimesDraft>,
    /// Ids within lines: the group of each pattern, or what it matches, is an id.
    pub ids: Vec<String>,
}

/// A duration for all times, or patterns with durations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TimesDraft(pub Value);

impl JsonSchema for TimesDraft {
    fn schema_name() -> Cow<'static, str> {
        "TextTimes".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let duration = "A duration such as `2s` or `500ms`.";
        json_schema!({
            "description": "A duration for all times in lines (as RFC 3339 or HTTP write them), or patterns, each \
                            with a duration: the group of the pattern, or what it matches, is a time.",
            "anyOf": [
                { "type": "string", "description": duration },
                { "type": "object", "additionalProperties": { "type": "string", "description": duration } },
            ],
        })
    }
}

/// The checked rules for texts.
#[derive(Clone, Default)]
pub(super) struct TextRules {
    ignore: Vec<(Regex, RuleId)>,
    /// Times before ids: a time is never cut by an id in it.
    captures: Vec<(Regex, CaptureGroup)>,
    /// Counted for a pair with a line that is too long for the patterns; `None` if there are no patterns.
    too_long: Option<RuleId>,
}

/// What a captured part of a line is.
#[derive(Clone, Copy, Debug)]
pub(super) enum CaptureGroup {
    /// A time, and by how many nanoseconds it may differ.
    Time { rule: RuleId, by: i128 },
    /// An id.
    Id { ids: IdRule },
}

impl TextRules {
    /// Checks a draft. `site` is the position of the `text:` value; `prefix` begins the name of each rule.
    pub(super) fn check(
        draft: &TextRulesDraft,
        prefix: &str,
        site: &Site,
        texts: &mut RuleTexts,
        problems: &mut Problems,
    ) -> Self {
        let mut rules = Self::default();
        for (n, text) in draft.ignore.iter().enumerate() {
            let site = site.key("ignore").index(n);
            let Some(pattern) = pattern(text, &site, problems) else { continue };
            if pattern.is_match("") && pattern.is_match(UNLIKELY_LINE) {
                problems
                    .warn(&site, format!("`{text}` matches every line, so no line would be compared"))
                    .hint("a pattern such as `^generated .*` names the lines that do not count");
            }
            let shown = texts.masked(text, shown_pattern);
            rules.ignore.push((pattern, texts.register(format!("{prefix}text.ignore {shown}"))));
        }
        if let Some(TimesDraft(times)) = &draft.times {
            for TimePatterns { text, patterns, by } in time_patterns(times, &site.key("times"), problems) {
                let text = text.map_or_else(String::new, |text| format!(" {}", texts.masked(text, shown_pattern)));
                let rule = texts.register(format!("{prefix}text.times{text}"));
                rules.captures.extend(patterns.into_iter().map(|pattern| (pattern, CaptureGroup::Time { rule, by })));
            }
        }
        for (n, text) in draft.ids.iter().enumerate() {
            if let Some(pattern) = capturing(text, &site.key("ids").index(n), problems) {
                let text = format!("{prefix}text.ids {}", texts.masked(text, shown_pattern));
                let ids = texts.register_ids(&text, None, true);
                rules.captures.push((pattern, CaptureGroup::Id { ids }));
            }
        }
        if !(rules.ignore.is_empty() && rules.captures.is_empty()) {
            let note = format!("{prefix}text (unapplied: a line longer than {PATTERN_LINE_BYTES_MAX} bytes)");
            rules.too_long = Some(texts.register_note(note));
        }
        let patterns = draft.ignore.len() + draft.ids.len();
        let patterns = patterns + draft.times.as_ref().and_then(|t| t.0.as_object()).map_or(0, serde_json::Map::len);
        if patterns > PATTERNS_MAX {
            problems
                .error(site, format!("{patterns} patterns are more than {PATTERNS_MAX}"))
                .hint("join patterns with `|`: each is tried on each line");
        }
        rules
    }

    /// The first rule by which a line does not count.
    pub(super) fn ignoring(&self, line: &str) -> Option<RuleId> {
        self.ignore.iter().find(|(pattern, _)| pattern.is_match(line)).map(|(_, rule)| *rule)
    }

    /// The rules under `ignore`.
    pub(super) fn ignore_rules(&self) -> impl Iterator<Item = RuleId> {
        self.ignore.iter().map(|(_, rule)| *rule)
    }

    /// The first rule under `ids`.
    pub(super) fn first_id_rule(&self) -> Option<RuleId> {
        self.captures.iter().find_map(|(_, capture)| match capture {
            CaptureGroup::Id { ids } => Some(ids.rule),
            CaptureGroup::Time { .. } => None,
        })
    }

    /// The note that is counted if a line is too long for the patterns; `None` if the line is not.
    pub(super) fn too_long(&self, line: &str) -> Option<RuleId> {
        self.too_long.filter(|_| line.len() > PATTERN_LINE_BYTES_MAX)
    }

    /// The times and ids in a line, in their order, as byte ranges that do not overlap. The first rule that finds a
    /// part of a line has it. `count_work` is called with the bytes that a search may have read, and may end it.
    pub(super) fn captures(
        &self,
        line: &str,
        count_work: &mut dyn FnMut(usize) -> Result<(), BoundExceeded>,
    ) -> Result<Vec<(Range<usize>, CaptureGroup)>, BoundExceeded> {
        parts_of(&self.captures, line, count_work)
    }
}

/// What the patterns find in a text, in its order, as byte ranges that do not overlap. The first pattern that finds a
/// part has it. `count_work` is called with the bytes that a search may have read, and may end it.
pub(super) fn parts_of<T: Copy>(
    patterns: &[(Regex, T)],
    text: &str,
    count_work: &mut dyn FnMut(usize) -> Result<(), BoundExceeded>,
) -> Result<Vec<(Range<usize>, T)>, BoundExceeded> {
    let mut found: BTreeMap<usize, (usize, T)> = BTreeMap::new();
    for (pattern, what) in patterns {
        count_work(text.len())?;
        for captures in pattern.captures_iter(text) {
            // Each match may have been searched for up to the end of the text.
            count_work(text.len())?;
            let Some(part) = captures.get(1).or_else(|| captures.get(0)).filter(|part| !part.is_empty()) else {
                continue;
            };
            let range = part.range();
            let before = found.range(..range.end).next_back();
            if before.is_none_or(|(_, (end, _))| *end <= range.start) {
                found.insert(range.start, (range.end, *what));
            }
        }
    }
    Ok(found.into_iter().map(|(start, (end, what))| (start..end, what)).collect())
}

/// Patterns of times that may differ by the same duration.
pub(super) struct TimePatterns<'a> {
    /// The pattern that the files declare; `None` for the times that are always known.
    pub(super) text: Option<&'a str>,
    pub(super) patterns: Vec<Regex>,
    /// By how many nanoseconds they may differ.
    pub(super) by: i128,
}

/// Checks a draft of times: a duration for all that are always known, or patterns with durations.
pub(super) fn time_patterns<'a>(draft: &'a Value, site: &Site, problems: &mut Problems) -> Vec<TimePatterns<'a>> {
    let Value::Object(patterns) = draft else {
        let known = || TIMES.iter().filter_map(|text| compiled(text).ok()).collect();
        let by = duration(draft, site, problems);
        return by.map(|by| TimePatterns { text: None, patterns: known(), by }).into_iter().collect();
    };
    let declared = patterns.iter().filter_map(|(text, by)| {
        let site = site.key(text.as_str());
        let pattern = capturing(text, &site.clone().at_key(), problems);
        let by = duration(by, &site, problems)?;
        Some(TimePatterns { text: Some(text), patterns: vec![pattern?], by })
    });
    declared.collect()
}

/// Compiles a pattern within the bound on its size.
pub(super) fn compiled(text: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(text).size_limit(PATTERN_COMPILED_BYTES_MAX).build()
}

fn pattern(text: &str, site: &Site, problems: &mut Problems) -> Option<Regex> {
    match compiled(text) {
        Ok(pattern) => Some(pattern),
        Err(regex::Error::CompiledTooBig(_)) => {
            problems.error(site, format!("`{text}` is too large a pattern")).hint("repeat less: `{1,1000}` is large");
            None
        }
        Err(error) => {
            let reason = error.to_string();
            let reason = reason.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
            problems
                .error(site, format!("`{text}` is no pattern: {}", reason.trim_start_matches("error: ")))
                .hint("a regular expression; `\\` before a character takes it as it is");
            None
        }
    }
}

/// A pattern of which one group, or the whole match, is captured.
fn capturing(text: &str, site: &Site, problems: &mut Problems) -> Option<Regex> {
    let pattern = pattern(text, site, problems)?;
    if pattern.captures_len() > 2 {
        problems
            .error(
                site,
                format!("`{text}` has {} groups, so which one is meant is not clear", pattern.captures_len() - 1),
            )
            .hint("one group, or none for the whole match; `(?:…)` groups without capturing");
        return None;
    }
    // All printable characters: a pattern that finds nothing in them, and matches an empty text, finds nothing.
    let sample: String = (' '..='~').collect();
    let part =
        |captures: regex::Captures<'_>| captures.get(1).or_else(|| captures.get(0)).is_some_and(|p| !p.is_empty());
    if pattern.is_match("") && !pattern.captures_iter(&sample).any(part) {
        problems
            .warn(site, format!("`{text}` finds only empty texts, so nothing in a line is one"))
            .hint("a pattern such as `Order ([A-Z0-9-]+)`, whose group is what is meant");
    }
    Some(pattern)
}

fn duration(by: &Value, site: &Site, problems: &mut Problems) -> Option<i128> {
    let parsed = by.as_str().and_then(times::duration);
    if parsed.is_none() {
        problems.error(site, format!("{by} is no duration")).hint("a duration such as `2s` or `500ms`");
    }
    parsed
}

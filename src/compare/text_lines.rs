//! The lines of a text that count, with the times and ids in them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use super::body_rules::{IdRule, RuleId};
use super::bounds::BoundExceeded;
use super::findings::ComparisonFindings;
use super::id_map::IdMap;
use super::redact;
use super::secret_lines::SecretLines;
use super::text_rules::{CaptureGroup, TextRules};
use super::times::texts_are_within;
use crate::secret::{STARS, is_secret};

/// The lines of one text.
pub(super) struct Lines<'t> {
    pub(super) counted: Vec<Line<'t>>,
    /// By rule: the lines that do not count.
    pub(super) ignored: BTreeMap<RuleId, Vec<&'t str>>,
    /// The note that is counted because a line is too long for the patterns.
    pub(super) too_long: Option<RuleId>,
}

/// A line that counts.
pub(super) struct Line<'t> {
    /// Its number in the text, from 1 on.
    pub(super) number: usize,
    /// The line with its line break.
    pub(super) text: &'t str,
    /// Whether the lines before say that this one is secret.
    is_secret: bool,
    /// `None` if no rule captures a part of the line. Boxed, so that lines stay small: a text may have very many.
    captured: Option<Box<Captured<'t>>>,
}

/// What the rules capture of a line.
struct Captured<'t> {
    captures: Vec<(&'t str, CaptureGroup)>,
    /// The line without what is captured: one more part than there are captures.
    rest: Vec<&'t str>,
}

/// Stands in a line's key for what is captured.
const CAPTURED: char = '\u{0}';

/// How two lines compare.
pub(super) enum LineEquality {
    Same,
    /// Equal by these rules.
    By(Vec<RuleId>),
    Different,
}

impl<'t> Lines<'t> {
    /// Splits a text.
    pub(super) fn of(
        text: &'t str,
        rules: Option<&TextRules>,
        findings: &mut ComparisonFindings<'_>,
    ) -> Result<Self, BoundExceeded> {
        let mut lines = Self { counted: Vec::new(), ignored: BTreeMap::new(), too_long: None };
        let (mut secret, shows_lines) = (SecretLines::of(&is_secret), rules.is_some());
        for (n, text) in text.split_inclusive('\n').enumerate() {
            let content = text.trim_end_matches(['\n', '\r']);
            let is_secret = shows_lines && secret.next(content).is_some();
            let too_long = rules.and_then(|rules| rules.too_long(content));
            lines.too_long = lines.too_long.or(too_long);
            let rules = rules.filter(|_| too_long.is_none());
            findings.count_work_on(if rules.is_some() { content.len() } else { 0 })?;
            if let Some(rule) = rules.and_then(|rules| rules.ignoring(content)) {
                lines.ignored.entry(rule).or_default().push(content);
                continue;
            }
            let found =
                rules.map(|rules| rules.captures(content, &mut |bytes| findings.count_work_on(bytes))).transpose()?;
            let captured = found.filter(|found| !found.is_empty()).map(|found| Box::new(Captured::of(text, found)));
            lines.counted.push(Line { number: n + 1, text, is_secret, captured });
        }
        Ok(lines)
    }
}

impl<'t> Captured<'t> {
    fn of(text: &'t str, found: Vec<(Range<usize>, CaptureGroup)>) -> Self {
        let (mut captures, mut rest, mut from) = (Vec::new(), Vec::new(), 0);
        for (range, capture) in found {
            rest.push(text.get(from..range.start).unwrap_or_default());
            captures.push((text.get(range.clone()).unwrap_or_default(), capture));
            from = range.end;
        }
        rest.push(text.get(from..).unwrap_or_default());
        Self { captures, rest }
    }
}

impl<'t> Line<'t> {
    fn captures(&self) -> &[(&'t str, CaptureGroup)] {
        self.captured.as_ref().map_or(&[], |captured| &captured.captures)
    }

    /// The line without what is captured.
    fn rest(&self) -> &[&'t str] {
        self.captured.as_ref().map_or(std::slice::from_ref(&self.text), |captured| &captured.rest)
    }

    /// A text that is equal for lines that may be equal by the rules; of a line of the engine, with legacy's ids.
    pub(super) fn key(&self, engine_ids: Option<&IdMap>) -> Cow<'t, str> {
        let ids = engine_ids.filter(|ids| !ids.is_empty());
        if self.captured.is_none() && ids.is_none() {
            return Cow::Borrowed(self.text);
        }
        let mut key = String::with_capacity(self.text.len());
        for (n, rest) in self.rest().iter().enumerate() {
            if n > 0 {
                key.push(CAPTURED);
            }
            match ids {
                Some(ids) => key.push_str(&ids.with_legacy_ids(rest)),
                None => key.push_str(rest),
            }
        }
        Cow::Owned(key)
    }

    /// The line as a difference shows it.
    pub(super) fn shown(&self, findings: &ComparisonFindings<'_>) -> String {
        if self.is_secret {
            return STARS.to_owned();
        }
        redact::line(&findings.shown_text(self.text.trim_end_matches(['\n', '\r'])))
    }

    /// The ids that correspond in two lines, with the rule by which they are ids.
    pub(super) fn ids_with<'o>(&self, other: &Line<'o>) -> impl Iterator<Item = (&'t str, &'o str, IdRule)> {
        self.captures().iter().zip(other.captures()).filter_map(|((legacy, a), (engine, b))| match (a, b) {
            (CaptureGroup::Id { ids }, CaptureGroup::Id { .. }) => Some((*legacy, *engine, *ids)),
            (CaptureGroup::Time { .. } | CaptureGroup::Id { .. }, _) => None,
        })
    }

    /// Whether this line of legacy equals one of the engine.
    pub(super) fn equality(&self, engine: &Line<'_>, ids: &IdMap, renaming: Option<RuleId>) -> LineEquality {
        if self.captures().len() != engine.captures().len() || self.rest().len() != engine.rest().len() {
            return LineEquality::Different;
        }
        let mut by = Vec::new();
        for (a, b) in self.rest().iter().zip(engine.rest()) {
            if !ids.same_text(a, b) {
                return LineEquality::Different;
            }
            if a != b {
                by.extend(ids.rules_in(a, renaming));
            }
        }
        for ((a, of_legacy), (b, of_engine)) in self.captures().iter().zip(engine.captures()) {
            let (holds, rule) = match (of_legacy, of_engine) {
                (CaptureGroup::Time { rule, by }, CaptureGroup::Time { rule: other, .. }) if rule == other => {
                    (a == b || texts_are_within(a, b, *by), *rule)
                }
                (CaptureGroup::Id { ids: by }, CaptureGroup::Id { .. }) => (ids.are_bound(by.kind, a, b), by.rule),
                (CaptureGroup::Time { .. } | CaptureGroup::Id { .. }, _) => return LineEquality::Different,
            };
            if !holds {
                return LineEquality::Different;
            }
            if a != b {
                by.push(rule);
            }
        }
        if by.is_empty() { LineEquality::Same } else { LineEquality::By(by) }
    }
}

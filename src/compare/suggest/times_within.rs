//! Times within texts: which of them differ, and the narrowest rule under which they may.

use regex::Regex;
use serde_json::{Map, Value, json};

use super::noise::Values;
use super::values::{clock_tolerance, wider_tolerance};
use crate::compare::text_rules::{PATTERN_LINE_BYTES_MAX, TIMES, compiled, parts_of};
use crate::compare::times::value_of_text;

/// Seconds or milliseconds since 1970.
const EPOCH: &str = r"\b[0-9]{10}(?:[0-9]{3})?\b";
/// The most characters before a time by which it is known.
const LABEL_CHARS_MAX: usize = 40;
/// The most patterns that are proposed for one text.
const PATTERNS_MAX: usize = 4;

/// Finds times in texts: by the patterns that the rules in force declare, then in the known forms.
pub(super) struct TimeFinder<'a> {
    patterns: Vec<(Regex, usize)>,
    forms: Vec<Form<'a>>,
    /// The times of the rules in force: a duration, or patterns.
    in_force: Option<&'a Value>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Form<'a> {
    /// A pattern of the rules in force.
    Declared(&'a str),
    /// As RFC 3339 and HTTP write it.
    Known(&'static str),
    Epoch,
}

/// By what a time is found: its form, and the text before it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct TimeMark<'a> {
    form: Form<'a>,
    label: String,
    /// Whether the text begins with the label.
    is_first: bool,
    /// Whether nothing follows the time.
    is_last: bool,
}

/// A time that both sides have at the same place of a text.
pub(super) struct FoundTime<'a> {
    pub(super) mark: TimeMark<'a>,
    pub(super) legacy: Value,
    pub(super) engine: Value,
}

impl FoundTime<'_> {
    pub(super) fn differs(&self) -> bool {
        self.legacy != self.engine
    }
}

impl<'a> TimeFinder<'a> {
    /// `in_force` are the times of the rules in force for these texts.
    pub(super) fn new(in_force: Option<&'a Value>) -> Self {
        let declared = in_force.and_then(Value::as_object).into_iter().flat_map(Map::keys);
        let declared = declared.map(|text| (text.as_str(), Form::Declared(text)));
        let known = TIMES.iter().map(|text| (*text, Form::Known(text)));
        let all = declared.chain(known).chain([(EPOCH, Form::Epoch)]);
        let (mut patterns, mut forms) = (Vec::new(), Vec::new());
        for (text, form) in all {
            if let Ok(pattern) = compiled(text) {
                patterns.push((pattern, forms.len()));
                forms.push(form);
            }
        }
        Self { patterns, forms, in_force }
    }

    /// The times in two texts; `None` if the texts have different numbers of times, or times of different forms.
    pub(super) fn find(&self, legacy: &str, engine: &str) -> Option<Vec<FoundTime<'a>>> {
        if legacy.len().max(engine.len()) > PATTERN_LINE_BYTES_MAX {
            return None;
        }
        let parts = |text: &str| parts_of(&self.patterns, text, &mut |_| Ok(())).ok();
        let (of_legacy, of_engine) = (parts(legacy)?, parts(engine)?);
        if of_legacy.len() != of_engine.len() {
            return None;
        }
        let (mut ends, mut found) = ((0, 0), Vec::new());
        for ((a, form), (b, other)) in of_legacy.into_iter().zip(of_engine) {
            if form != other {
                return None;
            }
            let (label, is_whole) = label(&legacy[ends.0..a.start], &engine[ends.1..b.start]);
            let mark = TimeMark {
                form: *self.forms.get(form)?,
                label: label.to_owned(),
                is_first: ends == (0, 0) && is_whole,
                is_last: a.end == legacy.len() && b.end == engine.len(),
            };
            ends = (a.end, b.end);
            found.push(FoundTime { mark, legacy: value_of_text(&legacy[a]), engine: value_of_text(&engine[b]) });
        }
        Some(found)
    }

    /// A text without its times, so that the rest of two can be compared.
    pub(super) fn without_times(&self, text: &str) -> String {
        let Ok(parts) = parts_of(&self.patterns, text, &mut |_| Ok(())) else { return text.to_owned() };
        let (mut rest, mut end) = (String::new(), 0);
        for (part, _) in parts {
            rest.push_str(&text[end..part.start]);
            rest.push('\u{1}');
            end = part.end;
        }
        rest + &text[end..]
    }

    /// Whether a pattern cannot be added, because a duration for all times is in force.
    pub(super) fn all_have_one_tolerance(&self) -> bool {
        self.in_force.is_some_and(Value::is_string)
    }

    /// What `times:` of a tolerance for texts has to be so that the times in them are equal: a duration if all of
    /// them differ, else patterns for those that do. `None` if something else differs than clock readings.
    pub(super) fn times(&self, values: &[Values<'_>]) -> Option<Value> {
        let mut groups: Vec<(TimeMark<'a>, Vec<(FoundTime<'a>, i128)>)> = Vec::new();
        for Values { legacy, engine, sample } in values {
            let found = self.find(legacy.as_str()?, engine.as_str()?)?;
            if !found.iter().any(FoundTime::differs) {
                return None;
            }
            for time in found {
                let compared = sample.compared_ns;
                match groups.iter_mut().find(|(mark, _)| *mark == time.mark) {
                    Some((_, times)) => times.push((time, compared)),
                    None => groups.push((time.mark.clone(), vec![(time, compared)])),
                }
            }
        }
        let mut patterns: Vec<(String, &'static str)> = Vec::new();
        // Whether one duration for all times is enough: all of them differ, and all have a known form.
        let mut one_duration_fits = true;
        for (mark, times) in groups {
            let differing: Vec<_> = times.into_iter().filter(|(time, _)| time.differs()).collect();
            if differing.is_empty() {
                one_duration_fits = false;
                continue;
            }
            one_duration_fits &= matches!(mark.form, Form::Known(_));
            let by = clock_tolerance(differing.iter().map(|(time, at)| (&time.legacy, &time.engine, *at)))?;
            patterns.push((mark.pattern()?, by));
        }
        let widest = patterns.iter().map(|(_, by)| *by).reduce(wider_tolerance)?;
        if one_duration_fits && !self.in_force.is_some_and(Value::is_object) || self.all_have_one_tolerance() {
            return Some(json!(widest));
        }
        let mut times = Map::new();
        for (pattern, _) in &patterns {
            let all = patterns.iter().filter(|(other, _)| other == pattern);
            let widest = all.map(|(_, by)| *by).reduce(wider_tolerance)?;
            times.insert(pattern.clone(), widest.into());
        }
        (times.len() <= PATTERNS_MAX).then_some(Value::Object(times))
    }
}

impl TimeMark<'_> {
    /// The pattern of a rule; `None` if a number would be found by its length alone.
    pub(super) fn pattern(&self) -> Option<String> {
        let label = format!("{}{}", if self.is_first { "^" } else { "" }, regex::escape(&self.label));
        let time = match self.form {
            Form::Declared(text) => return Some(text.to_owned()),
            Form::Epoch if label.trim().is_empty() => return None,
            Form::Known(_) if self.is_first && self.is_last => ".*",
            Form::Known(text) => text,
            Form::Epoch => EPOCH,
        };
        Some(format!("{label}({time}){}", if self.is_first && self.is_last { "$" } else { "" }))
    }
}

/// The text directly before a time that both sides have in common, without digits and from the start of a word on, and
/// whether it is all that stands before the time.
fn label<'t>(legacy: &'t str, engine: &str) -> (&'t str, bool) {
    let pairs = legacy.char_indices().rev().zip(engine.chars().rev());
    let is_common = |((_, a), b): &((usize, char), char)| a == b && !a.is_ascii_digit();
    let start = pairs.take_while(is_common).take(LABEL_CHARS_MAX).last().map_or(legacy.len(), |((at, _), _)| at);
    if start == 0 && legacy == engine {
        return (legacy, true);
    }
    let label = &legacy[start..];
    // The first word may have been cut.
    let word = label.find(char::is_whitespace).map_or(label.len(), |at| at + 1);
    let word = if legacy[..start].ends_with(char::is_whitespace) { 0 } else { word };
    (label.get(word..).unwrap_or_default(), false)
}

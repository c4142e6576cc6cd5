//! Rules for texts that are compared line by line.

use serde_json::Value;

use super::judged::{JudgedSample, JudgedSamples, Place};
use super::noise::{Values, enough, legacy_differs_from_itself};
use super::rule::Proposed;
use super::times_within::{FoundTime, TimeFinder, TimeMark};
use super::values::{IdForm, clock_tolerance, id_text_form, may_be_clock_readings};
use crate::compare::kept::is_masked;
use crate::compare::observation::Body;
use crate::compare::text_rules::TimesDraft;

/// The path of a difference between texts.
pub(super) const PATH: &str = "text";
/// The fewest characters of a label, which tells lines of one kind from others.
const LABEL_CHARS_MIN: usize = 3;
/// The most lines of a text that are looked at.
const LINES_MAX: usize = 500;

/// Differing lines that begin with the same label: the text before the place at which they differ.
struct Line<'a> {
    label: String,
    values: Vec<Values<'a>>,
}

/// Differing times in lines that have the same mark: their form, and the text before them.
struct Times<'a> {
    mark: TimeMark<'a>,
    values: Vec<Values<'a>>,
}

/// The rules that may explain the differences of texts.
///
/// # Errors
/// Why there is none.
pub(super) fn propose(place: &Place, judged: &JudgedSamples<'_>) -> Result<Vec<Proposed>, String> {
    let Some(rules) = &judged.context.in_force.draft().text else {
        return Err("samples hold only digests of texts; add `text: {}` to the rules to keep their lines".into());
    };
    enough(place)?;
    let finder = TimeFinder::new(rules.times.as_ref().map(|TimesDraft(times)| times));
    let (mut lines, mut times): (Vec<Line<'_>>, Vec<Times<'_>>) = (Vec::new(), Vec::new());
    for occurrence in &place.occurrences {
        let Some(sample) = judged.samples.get(occurrence.sample) else { continue };
        let (Some(legacy), Some(engine)) = (text(sample, true), text(sample, false)) else { continue };
        let (a, b): (Vec<&str>, Vec<&str>) = (legacy.lines().collect(), engine.lines().collect());
        if a.len() != b.len() || a.len() > LINES_MAX {
            continue;
        }
        for (a, b) in a.into_iter().zip(b).filter(|(a, b)| a != b && !is_masked(a) && !is_masked(b)) {
            let found = differing_times(&finder, a, b, sample.compared_ns);
            let rest = if found.is_empty() {
                (a.to_owned(), b.to_owned())
            } else {
                (finder.without_times(a), finder.without_times(b))
            };
            for FoundTime { mark, legacy, engine } in found {
                let value = Values { legacy, engine, sample };
                match times.iter_mut().find(|times| times.mark == mark) {
                    Some(times) => times.values.push(value),
                    None => times.push(Times { mark, values: vec![value] }),
                }
            }
            let (a, b) = (rest.0.as_str(), rest.1.as_str());
            let Some(label) = (a != b).then(|| label(a, b)).flatten() else { continue };
            let (legacy, engine) = differing_part(&a[label.len()..], &b[label.len()..]);
            let values = Values { legacy: legacy.into(), engine: engine.into(), sample };
            match lines.iter_mut().find(|line| line.label == label) {
                Some(line) => line.values.push(values),
                None => lines.push(Line { label: label.to_owned(), values: vec![values] }),
            }
        }
    }
    let of_times = times.iter().filter_map(|times| of_times(times, finder.all_have_one_tolerance()));
    let found: Vec<Proposed> = of_times.chain(lines.iter().filter_map(of_line)).collect();
    if found.is_empty() { Err("no line looks like an id, a time or a random value".into()) } else { Ok(found) }
}

/// The times that differ in a line; none if one of them is no clock reading.
fn differing_times<'a>(finder: &TimeFinder<'a>, a: &str, b: &str, compared_ns: i128) -> Vec<FoundTime<'a>> {
    let mut found = finder.find(a, b).unwrap_or_default();
    found.retain(FoundTime::differs);
    let is_reading = |time: &FoundTime<'_>| may_be_clock_readings(&time.legacy, &time.engine, compared_ns);
    if found.iter().all(is_reading) { found } else { Vec::new() }
}

fn of_times(Times { mark, values }: &Times<'_>, all_have_one_tolerance: bool) -> Option<Proposed> {
    let by = clock_tolerance(values.iter().map(|v| (&v.legacy, &v.engine, v.sample.compared_ns)))?;
    let pattern = if all_have_one_tolerance { None } else { Some(mark.pattern()?) };
    Some(Proposed::TextTimes { pattern, by: by.to_owned() })
}

/// A rule for ids if the differing parts look like ids: all clearly, or all possibly and none of legacy's is a plain
/// number, which may be a quantity. Otherwise a rule that ignores the lines, if legacy differs from itself in them.
fn of_line(Line { label, values }: &Line<'_>) -> Option<Proposed> {
    let escaped = regex::escape(label);
    let rest = |value: &Value| {
        value.as_str().map(|text| text.trim_end_matches(['.', ',', ';']).to_owned()).unwrap_or_default()
    };
    let form = values.iter().map(|v| id_text_form(&rest(&v.legacy)).min(id_text_form(&rest(&v.engine)))).min();
    if form == Some(IdForm::Opaque)
        || form == Some(IdForm::Possible) && values.iter().all(|v| !is_number(&rest(&v.legacy)))
    {
        return Some(Proposed::TextIds { pattern: format!("^{escaped}([A-Za-z0-9._:/-]*[A-Za-z0-9])") });
    }
    legacy_differs_from_itself(values).then(|| Proposed::IgnoredLines { pattern: format!("^{escaped}.*") })
}

/// What differs of two texts: their first words, if the rest of both is equal; otherwise the whole texts.
fn differing_part<'t>(a: &'t str, b: &'t str) -> (&'t str, &'t str) {
    let split = |text: &'t str| text.split_at(text.find(' ').unwrap_or(text.len()));
    let ((first_a, rest_a), (first_b, rest_b)) = (split(a), split(b));
    if rest_a == rest_b { (first_a, first_b) } else { (a, b) }
}

fn is_number(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit())
}

/// The beginning that two lines have in common, at most up to the first digit, and ending with a word; `None` if it is
/// too short for a label.
fn label<'a>(a: &'a str, b: &str) -> Option<&'a str> {
    let is_common = |((_, a), b): &((usize, char), char)| a == b && !a.is_ascii_digit();
    let common = a.char_indices().zip(b.chars()).take_while(is_common).last();
    let common = common.map_or(0, |((at, c), _)| at + c.len_utf8());
    let end = a[..common].rfind([' ', ':', '=', '\t']).map(|at| at + 1)?;
    Some(&a[..end]).filter(|label| label.trim().chars().count() >= LABEL_CHARS_MIN)
}

/// The text of a reply.
fn text(sample: &JudgedSample<'_>, of_legacy: bool) -> Option<String> {
    let reply = if of_legacy { &sample.read.legacy } else { &sample.read.engine };
    match reply.body() {
        Body::Whole(bytes) => std::str::from_utf8(bytes).ok().map(str::to_owned),
        Body::TooLarge => None,
    }
}

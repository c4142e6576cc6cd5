//! Rules for texts that are compared line by line.

use serde_json::Value;

use super::judged::{JudgedSample, JudgedSamples, Place};
use super::noise::{Values, enough, legacy_differs_from_itself};
use super::rule::Proposed;
use super::values::{IdForm, clock_tolerance, id_text_form};
use crate::compare::kept::is_masked;
use crate::compare::observation::Body;

/// The path of a difference between texts.
pub(super) const PATH: &str = "text";
/// The fewest characters by which a line is known.
const LABEL_CHARS_MIN: usize = 3;
/// The most lines of a text that are looked at.
const LINES_MAX: usize = 500;

/// Lines that differ, by the text before the place at which they do.
struct Line<'a> {
    label: String,
    values: Vec<Values<'a>>,
}

/// The rules that may explain the differences of texts.
///
/// # Errors
/// Why there is none.
pub(super) fn propose(place: &Place, judged: &JudgedSamples<'_>) -> Result<Vec<Proposed>, String> {
    if judged.context.in_force.text.is_none() {
        return Err("samples hold only digests of texts; add `text: {}` to the rules to keep their lines".into());
    }
    enough(place)?;
    let mut lines: Vec<Line<'_>> = Vec::new();
    for occurrence in &place.occurrences {
        let Some(sample) = judged.samples.get(occurrence.sample) else { continue };
        let (Some(legacy), Some(engine)) = (text(sample, true), text(sample, false)) else { continue };
        let (a, b): (Vec<&str>, Vec<&str>) = (legacy.lines().collect(), engine.lines().collect());
        if a.len() != b.len() || a.len() > LINES_MAX {
            continue;
        }
        for (a, b) in a.into_iter().zip(b).filter(|(a, b)| a != b && !is_masked(a) && !is_masked(b)) {
            let Some(label) = label(a, b) else { continue };
            let part = |line: &str| Value::from(&line[label.len()..]);
            let values = Values { legacy: part(a), engine: part(b), sample };
            match lines.iter_mut().find(|line| line.label == label) {
                Some(line) => line.values.push(values),
                None => lines.push(Line { label: label.to_owned(), values: vec![values] }),
            }
        }
    }
    let found: Vec<Proposed> = lines.iter().filter_map(|line| of_line(line)).collect();
    if found.is_empty() { Err("no line looks like an id, a time or a random value".into()) } else { Ok(found) }
}

fn of_line(Line { label, values }: &Line<'_>) -> Option<Proposed> {
    let escaped = regex::escape(label);
    if let Some(by) = clock_tolerance(values.iter().map(|v| (&v.legacy, &v.engine, v.sample.compared_ns))) {
        return Some(Proposed::TextTimes { pattern: format!("^{escaped}(.*)$"), by: by.to_owned() });
    }
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

fn is_number(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit())
}

/// The beginning that two lines have in common, up to the first digit, to the end of a word; `None` if it is too short
/// to know the line by.
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

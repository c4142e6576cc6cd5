//! Names the rules that may explain one place at which samples differ, or says why there is none.

use std::collections::{BTreeSet, HashMap};

use serde_json::{Value, json};

use super::judged::{JudgedSample, JudgedSamples, Occurrence, Place};
use super::noise::{Values, enough, legacy_differs_from_itself};
use super::references::lost_reference;
use super::rule::{Proposed, RuleTarget};
use super::times_within::TimeFinder;
use super::values::{
    IdForm, clock_tolerance, differ_by_rounding, id_form, id_text_form, names_an_id, rounding_tolerance, words,
};
use super::{arrays, lines};
use crate::compare::kept::is_masked;
use crate::compare::observation::Observation;
use crate::compare::verdict::DifferenceKind;
use crate::expression::{parse_json, parse_json_path};

/// Words of keys whose values are computed, however they look.
const COMPUTED: [&str; 22] = [
    "amount", "total", "price", "sum", "subtotal", "qty", "quantity", "count", "balance", "fee", "tax", "vat", "rate",
    "discount", "cost", "currency", "status", "state", "hash", "checksum", "digest", "version",
];

/// The rules that may explain a place, the best first.
///
/// # Errors
/// Why no rule is proposed, as the rest of a sentence that begins with the place.
pub(super) fn propose(place: &Place, judged: &JudgedSamples<'_>) -> Result<Vec<Proposed>, String> {
    match place.kind {
        DifferenceKind::Status => Err("no rule makes different statuses equal".into()),
        DifferenceKind::Assert => Err("a condition of the route does not hold".into()),
        DifferenceKind::Type => {
            Err("the value has another type; if it is an id, write `ids: [{ path: …, any_type: true }]`".into())
        }
        DifferenceKind::DuplicateKey => Err("one side repeats a key".into()),
        DifferenceKind::Intent => Err("the calls of two runs differ".into()),
        DifferenceKind::StaleRead => Err("the engine read after legacy had acted".into()),
        DifferenceKind::EffectMissing | DifferenceKind::EffectExtra | DifferenceKind::EffectDoubled => {
            Err("no rule hides a call that only one side makes".into())
        }
        DifferenceKind::EffectOrder => {
            Err("legacy calls in an order: write `needs:` at the later step in the workflow, or \
                                            `any_order: true` at the step in `compare.effects` if it has no meaning"
                .into())
        }
        DifferenceKind::Missing | DifferenceKind::Extra if place.path != lines::PATH => {
            let found = arrays::propose(place, judged);
            if found.is_empty() { Err("only one side has it".into()) } else { Ok(found) }
        }
        DifferenceKind::Order => {
            let found = arrays::propose(place, judged);
            if found.is_empty() {
                Err("legacy's order seems to have a meaning, or there are too few samples to tell".into())
            } else {
                Ok(found)
            }
        }
        DifferenceKind::Header => of_header(place, judged),
        DifferenceKind::Missing | DifferenceKind::Extra | DifferenceKind::Value | DifferenceKind::EffectDiffers => {
            match place.path.as_str() {
                lines::PATH => lines::propose(place, judged),
                "body" => Err("no rule hides a whole body".into()),
                _ => of_value(place, judged),
            }
        }
    }
}

/// Splits the path of a difference into what a rule is for, and the path in a rule.
fn target(path: &str) -> Option<(RuleTarget, String)> {
    if path.starts_with('$') {
        return Some((RuleTarget::Reply, path.to_owned()));
    }
    let (step, rest) = path.strip_prefix("effects.")?.split_once(".body")?;
    Some((RuleTarget::Calls { step: step.to_owned() }, format!("${rest}"))).filter(|(_, path)| path != "$")
}

fn of_value(place: &Place, judged: &JudgedSamples<'_>) -> Result<Vec<Proposed>, String> {
    let mut found = arrays::propose(place, judged);
    match of_scalar(place, judged) {
        Ok(others) => found.extend(others),
        Err(why) if found.is_empty() => return Err(why),
        Err(_) => {}
    }
    Ok(found)
}

fn of_scalar(place: &Place, judged: &JudgedSamples<'_>) -> Result<Vec<Proposed>, String> {
    let Some((of, path)) = target(&place.path).filter(|(_, path)| parse_json_path(path).is_ok()) else {
        return Err("no rule names this place".into());
    };
    let values = values(place, judged, |text| parse_json(text.as_bytes()).ok());
    let Some(values) = values else { return Err("only one side has it".into()) };
    if values.iter().any(|v| is_masked(&v.legacy.to_string()) || is_masked(&v.engine.to_string())) {
        return Err("the values are redacted".into());
    }
    let compared = values.iter().map(|v| (&v.legacy, &v.engine, v.sample.compared_ns));
    if let Some(by) = clock_tolerance(compared) {
        return Ok(vec![Proposed::Tolerance { of, path, by: by.into() }]);
    }
    let within = times_in_force(&of, &path, judged);
    if let Some(times) = TimeFinder::new(within).times(&values) {
        return Ok(vec![Proposed::Tolerance { of, path, by: json!({ "times": times }) }]);
    }
    // Only of those that differ by rounding: a wrong amount at the same place stays a difference.
    let rounded = values.iter().map(|v| (&v.legacy, &v.engine)).filter(|(a, b)| differ_by_rounding(a, b));
    if let Some(by) = rounding_tolerance(rounded) {
        return Ok(vec![Proposed::Tolerance { of, path, by }]);
    }
    enough(place)?;
    match may_be_ids(&path, &values) {
        Ok(()) => Ok(vec![Proposed::Ids { of, path }]),
        Err(_)
            if of == RuleTarget::Reply && path != "$" && legacy_differs_from_itself(&values) && !is_computed(&path) =>
        {
            Ok(vec![Proposed::Ignored { path }])
        }
        Err(why) => Err(why),
    }
}

/// The times within texts that the rules in force tolerate at this path.
fn times_in_force<'a>(of: &RuleTarget, path: &str, judged: &JudgedSamples<'a>) -> Option<&'a Value> {
    let draft = judged.context.in_force.draft();
    let tolerance = match of {
        RuleTarget::Reply => &draft.tolerance,
        RuleTarget::Calls { step } => &draft.effects.get(step)?.tolerance,
    };
    tolerance.get(path)?.0.get("times")
}

/// The values of both sides in all samples; `None` if a side lacks the value in one of them.
fn values<'a>(
    place: &Place,
    judged: &'a JudgedSamples<'a>,
    read: impl Fn(&str) -> Option<Value>,
) -> Option<Vec<Values<'a>>> {
    let of = |occurrence: &Occurrence| {
        let (legacy, engine) = (read(occurrence.legacy.as_deref()?)?, read(occurrence.engine.as_deref()?)?);
        Some(Values { legacy, engine, sample: judged.samples.get(occurrence.sample)? })
    };
    place.occurrences.iter().map(of).collect()
}

/// The last key of a path.
fn last_key(path: &str) -> &str {
    let path = path.trim_end_matches("[*]");
    let key = path.rsplit(['.', '[']).next().unwrap_or_default();
    key.trim_end_matches(']').trim_matches('\'')
}

fn is_computed(path: &str) -> bool {
    words(last_key(path)).iter().any(|word| COMPUTED.contains(&word.as_str()))
}

/// Whether values are ids that each arm drew.
///
/// # Errors
/// Why not.
fn may_be_ids(path: &str, values: &[Values<'_>]) -> Result<(), String> {
    let form = values.iter().map(|v| id_form(&v.legacy, &v.engine)).min().unwrap_or(IdForm::None);
    if form == IdForm::None {
        return Err("the values do not look like ids, times or rounded numbers".into());
    }
    if is_computed(path) {
        return Err("its name says that the value is computed".into());
    }
    if !are_one_to_one(values) {
        return Err("the values of both sides do not correspond one to one".into());
    }
    if values.iter().any(|v| is_given(&v.legacy, &v.sample.read.request)) {
        return Err("the caller gave legacy's value".into());
    }
    if let Some(id) = lost_reference(values) {
        return Err(format!("legacy's value names the id at `{id}`, and the engine's names another one"));
    }
    let distinct: BTreeSet<String> = values.iter().map(|v| v.legacy.to_string()).collect();
    let asked: BTreeSet<Option<&str>> = values.iter().map(|v| v.sample.asked.as_deref()).collect();
    if distinct.len() == 1 && (asked.len() > 1 || asked.contains(&None)) {
        return Err("legacy has the same value in different requests".into());
    }
    let is_named = names_an_id(last_key(path));
    let are_confirmed = || values.iter().all(|v| is_confirmed(&v.legacy, &v.engine, v.sample));
    match form == IdForm::Opaque || is_named || are_confirmed() {
        true => Ok(()),
        false => Err("nothing tells whether the values are ids or quantities".into()),
    }
}

fn are_one_to_one(values: &[Values<'_>]) -> bool {
    let (mut to_engine, mut to_legacy) = (HashMap::new(), HashMap::new());
    values.iter().all(|v| {
        let (a, b) = (v.legacy.to_string(), v.engine.to_string());
        *to_engine.entry(a.clone()).or_insert_with(|| b.clone()) == b
            && *to_legacy.entry(b).or_insert_with(|| a.clone()) == a
    })
}

/// Whether the caller gave a value: in the query or the body. An id in the path names what legacy made before.
fn is_given(value: &Value, request: &Value) -> bool {
    fn holds(within: &Value, text: &str) -> bool {
        match within {
            Value::Array(items) => items.iter().any(|item| holds(item, text)),
            Value::Object(members) => members.values().any(|member| holds(member, text)),
            Value::String(other) => other == text,
            Value::Number(other) => other.as_str() == text,
            Value::Null | Value::Bool(_) => false,
        }
    }
    let text = plain(value);
    ["query", "body"].iter().filter_map(|part| request.get(part)).any(|part| holds(part, &text))
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Whether two values correspond in a path elsewhere in the replies: there they are references, not quantities.
fn is_confirmed(legacy: &Value, engine: &Value, sample: &JudgedSample<'_>) -> bool {
    let (a, b) = (format!("/{}", plain(legacy)), format!("/{}", plain(engine)));
    let in_headers = |reply: &Observation, text: &str| {
        reply.headers().values().filter_map(|value| value.to_str().ok()).any(|value| ends_segment(value, text))
    };
    let in_documents = sample
        .documents
        .as_ref()
        .is_some_and(|[of_legacy, of_engine]| holds_segment(of_legacy, &a) && holds_segment(of_engine, &b));
    in_documents || in_headers(&sample.read.legacy, &a) && in_headers(&sample.read.engine, &b)
}

fn ends_segment(text: &str, segment: &str) -> bool {
    let ends = |at: usize| text[at + segment.len()..].chars().next().is_none_or(|c| matches!(c, '/' | '?' | '#'));
    text.match_indices(segment).any(|(at, _)| ends(at))
}

fn holds_segment(value: &Value, segment: &str) -> bool {
    match value {
        Value::String(text) => ends_segment(text, segment),
        Value::Array(items) => items.iter().any(|item| holds_segment(item, segment)),
        Value::Object(members) => members.values().any(|member| holds_segment(member, segment)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fn of_header(place: &Place, judged: &JudgedSamples<'_>) -> Result<Vec<Proposed>, String> {
    let name = place.path.trim_start_matches("headers.").to_owned();
    let values = values(place, judged, |text| Some(Value::from(text)));
    let Some(values) = values else { return Err("only one side has the header".into()) };
    enough(place)?;
    let texts =
        || values.iter().map(|v| (v.legacy.as_str().unwrap_or_default(), v.engine.as_str().unwrap_or_default()));
    let mut patterns = texts().map(|(a, b)| path_pattern(a, b));
    if let Some(Some(pattern)) = patterns.next()
        && patterns.all(|other| other.as_ref() == Some(&pattern))
    {
        return Ok(vec![Proposed::HeaderIds { name, pattern }]);
    }
    if ["content-type", "location"].contains(&name.as_str()) {
        return Err("clients depend on this header".into());
    }
    let are_times = clock_tolerance(values.iter().map(|v| (&v.legacy, &v.engine, v.sample.compared_ns))).is_some();
    let are_ids = texts().all(|(a, b)| {
        let trimmed = |text: &str| id_text_form(text.trim_start_matches("W/").trim_matches('"'));
        trimmed(a).min(trimmed(b)) == IdForm::Opaque
    });
    let is_drawn = are_times || are_ids && are_one_to_one(&values) || legacy_differs_from_itself(&values);
    match is_drawn {
        true => Ok(vec![Proposed::IgnoredHeader { name }]),
        false => Err("nothing tells that its values are drawn anew".into()),
    }
}

/// The pattern of a path in which only ids differ: `/orders/{id}`.
fn path_pattern(legacy: &str, engine: &str) -> Option<String> {
    fn path(text: &str) -> Option<&str> {
        let rest = text.split_once("://").map_or(text, |(_, rest)| &rest[rest.find('/').unwrap_or(rest.len())..]);
        Some(rest.split(['?', '#']).next().unwrap_or_default()).filter(|path| path.starts_with('/'))
    }
    let (a, b) = (path(legacy)?, path(engine)?);
    let (a, b): (Vec<&str>, Vec<&str>) = (a.split('/').collect(), b.split('/').collect());
    let mut names = 0;
    let mut segments = Vec::new();
    for (a, b) in a.iter().zip(&b) {
        let is_id = |text: &str| {
            id_text_form(text) != IdForm::None || !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
        };
        if a == b {
            segments.push((*a).to_owned());
        } else if is_id(a) && is_id(b) {
            names += 1;
            segments.push(if names == 1 { "{id}".to_owned() } else { format!("{{id{names}}}") });
        } else {
            return None;
        }
    }
    (a.len() == b.len() && names > 0).then(|| segments.join("/"))
}

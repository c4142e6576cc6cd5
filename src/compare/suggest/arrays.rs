//! Rules for arrays whose order does not matter, and for objects whose keys are ids.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use serde_json::Value;

use super::judged::{JudgedSample, JudgedSamples, Occurrence, Place};
use super::noise::enough;
use super::rule::Proposed;
use super::values::{IdForm, id_text_form};
use crate::compare::number::Decimal;
use crate::compare::verdict::DifferenceKind;
use crate::expression::parse_json_path;

/// An array's order is taken for noise only if it differs in at least this share of the pairs.
const ORDER_SHARE_MIN: f64 = 0.2;
/// From so many elements on, an order is seldom a coincidence.
const ELEMENTS_MIN: usize = 3;

/// Legacy's array and the engine's at one path of one sample.
struct Arrays<'a> {
    legacy: &'a [Value],
    engine: &'a [Value],
    sample: &'a JudgedSample<'a>,
}

/// The rules that may explain a place below an array, or below an object whose keys are ids.
pub(super) fn propose(place: &Place, judged: &JudgedSamples<'_>) -> Vec<Proposed> {
    if !place.path.starts_with('$') {
        return Vec::new();
    }
    let mut found: Vec<Proposed> = keys(place, judged).into_iter().collect();
    if place.share < ORDER_SHARE_MIN {
        return found;
    }
    let ends = place.path.match_indices("[*]").map(|(at, _)| at);
    // The order of the whole array is a difference at the array's own path.
    let whole = (place.kind == DifferenceKind::Order).then_some(place.path.len());
    for end in ends.chain(whole) {
        let path = &place.path[..end];
        let arrays = arrays(path, place, judged);
        if let Some(by) = unordered_by(&arrays)
            && !has_meaning(&by, &arrays)
        {
            found.push(Proposed::Unordered { path: path.to_owned(), by });
        }
    }
    found
}

/// The arrays at this path in the samples that differ at the place.
fn arrays<'a>(path: &str, place: &Place, judged: &'a JudgedSamples<'a>) -> Vec<Arrays<'a>> {
    let Ok(path) = parse_json_path(path) else { return Vec::new() };
    let samples = place.occurrences.iter().filter_map(|occurrence| judged.samples.get(occurrence.sample));
    let mut found = Vec::new();
    for sample in samples {
        let Some([legacy, engine]) = &sample.documents else { continue };
        let (a, b) = (path.query(legacy).all(), path.query(engine).all());
        if a.len() != b.len() {
            continue;
        }
        for (a, b) in a.into_iter().zip(b) {
            if let (Value::Array(legacy), Value::Array(engine)) = (a, b) {
                found.push(Arrays { legacy, engine, sample });
            }
        }
    }
    found
}

/// How the elements of both sides correspond if their order does not matter: by a key, or as a set. `None` if they do
/// not, or if their order is the same anyway.
fn unordered_by(arrays: &[Arrays<'_>]) -> Option<String> {
    let names = arrays.iter().flat_map(|of| of.legacy.first()).filter_map(Value::as_object).flat_map(|map| map.keys());
    let mut seen = BTreeSet::new();
    let is_key = |name: &&String| {
        let keys =
            |of: &[Value]| of.iter().map(|element| scalar(element.get(name.as_str())?)).collect::<Option<Vec<_>>>();
        let mut is_moved = false;
        let all = arrays.iter().all(|of| {
            let (Some(a), Some(b)) = (keys(of.legacy), keys(of.engine)) else { return false };
            is_moved |= a != b;
            let (unique_a, unique_b): (BTreeSet<_>, BTreeSet<_>) = (a.iter().collect(), b.iter().collect());
            unique_a.len() == a.len() && unique_b.len() == b.len() && unique_a == unique_b
        });
        all && is_moved
    };
    let key = names.filter(|name| seen.insert((*name).clone())).find(is_key);
    key.filter(|key| key.as_str() != "set").cloned().or_else(|| is_set(arrays).then(|| "set".to_owned()))
}

/// Whether both sides have the same elements, in another order somewhere.
fn is_set(arrays: &[Arrays<'_>]) -> bool {
    let sorted = |of: &[Value]| {
        let mut texts: Vec<String> = of.iter().map(Value::to_string).collect();
        texts.sort();
        texts
    };
    arrays.iter().all(|of| sorted(of.legacy) == sorted(of.engine)) && arrays.iter().any(|of| of.legacy != of.engine)
}

fn scalar(value: &Value) -> Option<String> {
    (!value.is_array() && !value.is_object() && !value.is_null()).then(|| value.to_string())
}

/// Whether legacy's order means something: it sorts the elements by one of their values in every sample, or has the
/// order in which the caller named them.
fn has_meaning(by: &str, arrays: &[Arrays<'_>]) -> bool {
    let long: Vec<&Arrays<'_>> = arrays.iter().filter(|of| of.legacy.len() >= ELEMENTS_MIN).collect();
    let names = || long.iter().flat_map(|of| of.legacy.first()).filter_map(Value::as_object).flat_map(|map| map.keys());
    let names: BTreeSet<Option<&String>> = names().map(Some).chain([None]).collect();
    let is_sorted = |name: Option<&String>| {
        let value = |element: &'_ Value| match name {
            Some(name) => element.get(name.as_str()).cloned(),
            None => Some(element.clone()),
        };
        let in_direction = |direction: Ordering| {
            long.iter().all(|of| {
                let values: Option<Vec<Value>> = of.legacy.iter().map(value).collect();
                let Some(values) = values else { return false };
                let mut orders = values.windows(2).map(|pair| order(&pair[0], &pair[1]));
                let mut differs = false;
                let fits = orders.all(|order| {
                    differs |= order == Some(direction);
                    order == Some(direction) || order == Some(Ordering::Equal)
                });
                fits && differs
            })
        };
        in_direction(Ordering::Less) || in_direction(Ordering::Greater)
    };
    // One array alone may be sorted by chance.
    (long.len() >= 2 && names.into_iter().any(is_sorted)) || follows_the_request(by, arrays)
}

fn order(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => match Decimal::parse(a.as_str()) == Decimal::parse(b.as_str()) {
            true => Some(Ordering::Equal),
            false => a.as_f64()?.partial_cmp(&b.as_f64()?),
        },
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

/// Whether the caller named the elements in legacy's order in every sample.
fn follows_the_request(by: &str, arrays: &[Arrays<'_>]) -> bool {
    let mut is_known = false;
    let follows = arrays.iter().filter(|of| of.legacy.len() >= 2).all(|of| {
        let request = of.sample.read.request.get("body").map(Value::to_string).unwrap_or_default();
        let key = |element: &Value| if by == "set" { scalar(element) } else { scalar(element.get(by)?) };
        let places: Option<Vec<usize>> = of.legacy.iter().map(|element| request.find(&key(element)?)).collect();
        let Some(places) = places else { return false };
        is_known = true;
        places.is_sorted()
    });
    is_known && follows
}

/// The object whose members are missing on one side and extra on the other, if all its keys are ids.
fn keys(place: &Place, judged: &JudgedSamples<'_>) -> Option<Proposed> {
    if !matches!(place.kind, DifferenceKind::Missing | DifferenceKind::Extra) {
        return None;
    }
    let parent = match place.path.strip_suffix(']') {
        Some(path) => &path[..path.rfind('[')?],
        None => &place.path[..place.path.rfind('.')?],
    };
    let path = parse_json_path(parent).ok()?;
    // The path of a difference ends in the key, so each sample differs elsewhere: they are counted at the object.
    let mut at_parent = Place { path: parent.to_owned(), occurrences: Vec::new(), pairs: 0.0, ..place.clone() };
    let mut classes = BTreeSet::new();
    for (n, sample) in judged.samples.iter().enumerate() {
        let Some([legacy, engine]) = &sample.documents else { continue };
        let objects = path.query(legacy).all().into_iter().zip(path.query(engine).all());
        let mut differs = false;
        for (a, b) in objects {
            let (a, b) = (a.as_object()?, b.as_object()?);
            let is_id = |key: &String| id_text_form(key) != IdForm::None;
            let are_ids = a.len() == b.len() && a.keys().chain(b.keys()).all(is_id);
            if !are_ids || a.keys().any(|key| b.contains_key(key)) {
                return None;
            }
            differs |= !a.is_empty();
        }
        if differs {
            classes.insert(sample.class());
            at_parent.occurrences.push(Occurrence { sample: n, legacy: None, engine: None });
            at_parent.pairs += sample.pairs;
        }
    }
    let compared: u64 = classes.into_iter().map(|class| (judged.context.compared)(class)).sum();
    at_parent.share = at_parent.pairs / (compared as f64).max(at_parent.pairs).max(1.0);
    enough(&at_parent).ok()?;
    Some(Proposed::Keys { path: parent.to_owned() })
}

//! What of a run is not written down in clear: `sensitive:` of its plan, and the values that it leads to.
//!
//! Always true: a value counts once it is known, wherever it turns up afterwards: a token in the header of another
//! step's call, in a body or in a URL is the same token. Values that a step computes of it (a hash, a part of it) are
//! not known here. How they are sealed is the business of `engine`.

use std::collections::BTreeSet;
use std::sync::Arc;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::{CallRecord, ChildEvent, ConflictEvent, Event, Outcome, Payload, Plan, Run, STARS, StepEvent, WaitEvent};
use crate::names::StepId;

/// Shorter values are replaced only where they are the whole text: within a longer one they would be everywhere.
pub const WITHIN_CHARS_MIN: usize = 6;

/// A JSONPath of names, places and `[*]`: `$.card.number`, `$.tokens[*].value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SensitivePath(Vec<Segment>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Name(String),
    Place(usize),
    All,
}

impl SensitivePath {
    /// Parses `$`, `.name`, `['name']`, `[0]` and `[*]`.
    ///
    /// # Errors
    /// It is none of these, in a sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut rest =
            text.strip_prefix('$').ok_or_else(|| format!("`{text}` is not a JSONPath: it begins with `$`"))?;
        let wrong = || format!("`{text}` is not such a JSONPath; write `$.name`, `$.list[*].name` or `$['a name']`");
        let mut segments = Vec::new();
        while !rest.is_empty() {
            if let Some(named) = rest.strip_prefix('.') {
                let end = named.find(['.', '[']).unwrap_or(named.len());
                let (name, after) = named.split_at(end);
                let plain = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-'));
                if !plain {
                    return Err(wrong());
                }
                segments.push(Segment::Name(name.to_owned()));
                rest = after;
                continue;
            }
            let inner = rest.strip_prefix('[').ok_or_else(wrong)?;
            let quote = inner.chars().next().filter(|c| matches!(c, '\'' | '"'));
            let (segment, after) = match quote {
                Some(quote) => {
                    let (name, after) = inner[1..].split_once(quote).ok_or_else(wrong)?;
                    (Segment::Name(name.to_owned()), after.strip_prefix(']').ok_or_else(wrong)?)
                }
                None => {
                    let (place, after) = inner.split_once(']').ok_or_else(wrong)?;
                    match place {
                        "*" => (Segment::All, after),
                        place => (Segment::Place(place.parse().map_err(|_| wrong())?), after),
                    }
                }
            };
            segments.push(segment);
            rest = after;
        }
        Ok(Self(segments))
    }

    /// Adds every string and number at or below the path.
    fn collect(&self, value: &Value, into: &mut BTreeSet<String>) {
        fn walk(value: &Value, path: &[Segment], into: &mut BTreeSet<String>) {
            match (path.split_first(), value) {
                (None, Value::String(text)) if !text.is_empty() => into.extend([text.clone()]),
                (None, Value::Number(number)) => into.extend([number.to_string()]),
                (None, Value::Array(items)) => items.iter().for_each(|item| walk(item, path, into)),
                (None, Value::Object(members)) => members.values().for_each(|member| walk(member, path, into)),
                (None, Value::Null | Value::Bool(_) | Value::String(_)) => {}
                (Some((Segment::Name(name), rest)), Value::Object(members)) => {
                    members.get(name).into_iter().for_each(|member| walk(member, rest, into));
                }
                (Some((Segment::Place(place), rest)), Value::Array(items)) => {
                    items.get(*place).into_iter().for_each(|item| walk(item, rest, into));
                }
                (Some((Segment::All, rest)), Value::Array(items)) => {
                    items.iter().for_each(|item| walk(item, rest, into))
                }
                (Some((Segment::All, rest)), Value::Object(members)) => {
                    members.values().for_each(|member| walk(member, rest, into));
                }
                (Some(_), _) => {}
            }
        }
        walk(value, &self.0, into);
    }
}

/// All that a plan declares.
#[derive(Clone, Debug, Default)]
pub struct Sensitive {
    /// In the request's body.
    pub body: Vec<SensitivePath>,
    /// Headers of the request and of replies, in lower case.
    pub headers: Vec<String>,
    /// In outputs.
    pub steps: Vec<(StepId, Vec<SensitivePath>)>,
}

impl Sensitive {
    /// Whether anything is declared.
    pub fn is_empty(&self) -> bool {
        self.body.is_empty() && self.headers.is_empty() && self.steps.is_empty()
    }
    fn output(&self, step: &StepId, output: &Value, into: &mut BTreeSet<String>) {
        let of_step = self.steps.iter().filter(|(of, _)| of == step);
        of_step.flat_map(|(_, paths)| paths).for_each(|path| path.collect(output, into));
    }
    fn header<'a>(&self, headers: impl Iterator<Item = (&'a str, &'a str)>, into: &mut BTreeSet<String>) {
        let known = headers.filter(|(name, value)| {
            !value.is_empty() && self.headers.iter().any(|header| header.eq_ignore_ascii_case(name))
        });
        into.extend(known.map(|(_, value)| value.to_owned()));
    }
    fn outcome(&self, step: &StepId, outcome: &Outcome, into: &mut BTreeSet<String>) {
        match outcome {
            Outcome::Done { headers, output, .. } | Outcome::Unfit { headers, output, .. } => {
                self.output(step, output, into);
                self.header(headers.iter().map(|(name, value)| (name.as_str(), value.as_str())), into);
            }
            Outcome::Rehearsed { output: Some(output), .. } => self.output(step, output, into),
            Outcome::Rehearsed { output: None, .. }
            | Outcome::NotDone { .. }
            | Outcome::Unknown { .. }
            | Outcome::Failed { .. } => {}
        }
    }
    /// Adds the values that a run knows.
    pub fn collect_run(&self, run: &Run, into: &mut BTreeSet<String>) {
        self.collect(&Event::RunStarted(run.started().clone()), into);
        for (step, _) in &self.steps {
            match run.output_of(step.as_str()) {
                Some(Value::Array(items)) => items.iter().for_each(|item| self.output(step, item, into)),
                Some(output) => self.output(step, output, into),
                None => {}
            }
        }
    }
    /// Adds the values that an event makes known.
    pub fn collect(&self, event: &Event, into: &mut BTreeSet<String>) {
        match event {
            Event::RunStarted(started) => {
                let request = &started.request;
                request
                    .get("body")
                    .into_iter()
                    .for_each(|body| self.body.iter().for_each(|path| path.collect(body, into)));
                let headers = request.get("headers").and_then(Value::as_object).into_iter().flatten();
                self.header(headers.filter_map(|(name, value)| Some((name.as_str(), value.as_str()?))), into);
            }
            Event::StepFinished(finished) => self.outcome(&finished.step, &finished.outcome, into),
            Event::Conflict(ConflictEvent::Paused { conflict, gave: Some(gave) }) => {
                self.outcome(&conflict.step, gave, into)
            }
            Event::Step(StepEvent::Probed { step, output, .. }) => self.output(step, output, into),
            Event::Conflict(ConflictEvent::Resolved { step, choice: super::Choice::Take { output }, .. }) => {
                self.output(step, output, into)
            }
            Event::Step(StepEvent::Computed { step, output }) | Event::Wait(WaitEvent::Ended { step, output, .. }) => {
                self.output(step, output, into)
            }
            Event::Child(ChildEvent::Ended { step, output, .. }) => self.output(step, output, into),
            Event::Step(StepEvent::ResultTaken(taken)) => {
                let fields: &Arc<Value> = &taken.fields;
                match fields.get("output") {
                    // Of a `for_each` the outputs of its items.
                    Some(Value::Array(items)) => items.iter().for_each(|item| self.output(&taken.step, item, into)),
                    Some(output) => self.output(&taken.step, output, into),
                    None => {}
                }
                taken.done.iter().for_each(|done| self.output(&taken.step, &done.output, into));
            }
            _ => {}
        }
    }
}

impl Plan {
    /// What of its runs is not written down in clear.
    pub fn sensitive_values(&self) -> &Sensitive {
        &self.sensitive
    }
}

/// A request of a run for people: stars in the place of what is sensitive.
pub fn shown(plan: &Plan, run: &Run, record: &CallRecord) -> CallRecord {
    let mut values = BTreeSet::new();
    plan.sensitive_values().collect_run(run, &mut values);
    let mut values: Vec<String> = values.into_iter().collect();
    values.sort_by_key(|value| std::cmp::Reverse(value.len()));
    let stars = |text: &str| hidden(&values, text, &|_| Some(STARS.to_owned())).unwrap_or_else(|| STARS.to_owned());
    let body = match &record.body {
        Payload::Text(text) => Payload::Text(stars(text)),
        body => body.clone(),
    };
    let headers = record.headers.iter().map(|(name, value)| (name.clone(), stars(value))).collect();
    CallRecord { method: record.method.clone(), url: stars(&record.url), headers, body }
}

/// A text with every place replaced where one of the values stands; `None` where that fails.
pub fn hidden(values: &[String], text: &str, replace: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    if let Some(whole) = values.iter().find(|value| *value == text) {
        return replace(whole);
    }
    let mut pieces = vec![(text.to_owned(), false)];
    for value in values.iter().filter(|value| value.chars().count() >= WITHIN_CHARS_MIN) {
        for form in forms(value) {
            let mut next = Vec::with_capacity(pieces.len());
            for (piece, is_done) in pieces {
                if is_done || !piece.contains(&form) {
                    next.push((piece, is_done));
                    continue;
                }
                for (place, part) in piece.split(form.as_str()).enumerate() {
                    if place > 0 {
                        next.push((replace(&form)?, true));
                    }
                    next.push((part.to_owned(), false));
                }
            }
            pieces = next;
        }
    }
    Some(pieces.into_iter().map(|(piece, _)| piece).collect())
}

/// A value as it stands in texts, JSON and URLs.
fn forms(value: &str) -> BTreeSet<String> {
    let json = Value::from(value).to_string();
    let quoted = json.get(1..json.len().saturating_sub(1)).unwrap_or(value).to_owned();
    let encoded = utf8_percent_encode(value, NON_ALPHANUMERIC).to_string();
    let form = encoded.replace("%20", "+").replace("%2D", "-").replace("%5F", "_").replace("%2E", ".");
    let component = form.replace('+', "%20").replace("%7E", "~");
    BTreeSet::from([value.to_owned(), quoted, encoded, form, component])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_lead_to_strings_and_numbers() {
        let value = json!({"a": {"b": "x", "n": 17}, "list": [{"t": "y"}, {"t": ""}], "a name": true});
        let found = |path: &str| {
            let mut found = BTreeSet::new();
            SensitivePath::parse(path).unwrap().collect(&value, &mut found);
            found.into_iter().collect::<Vec<_>>()
        };
        assert_eq!(found("$.a.b"), ["x"]);
        assert_eq!(found("$.a"), ["17", "x"]);
        assert_eq!(found("$.list[*].t"), ["y"]);
        assert_eq!(found("$['list'][0]['t']"), ["y"]);
        assert_eq!(found("$['a name']"), Vec::<String>::new());
        assert_eq!(found("$.nothing.there"), Vec::<String>::new());
        for bad in ["a.b", "$a", "$.", "$..a", "$.a[?(@.b)]", "$.a[", "$['a"] {
            assert!(SensitivePath::parse(bad).is_err(), "{bad}");
        }
    }
}

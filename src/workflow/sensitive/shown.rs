//! Replaces the sensitive values of a run by asterisks in everything that people are shown.

use std::fmt;
use std::sync::Arc;

use http::HeaderMap;
use serde_json::Value;

use super::known::KnownValues;
use super::parts::{Form, of_request};
use super::path::SensitivePath;
use super::taint::Taint;
use crate::names::StepId;
use crate::workflow::{CallRecord, CheckpointAnswer, Part, Payload, Plan, Run, STARS};

/// Replaces the sensitive values of one run by asterisks.
pub struct Redaction {
    taint: Arc<Taint>,
    known: Arc<KnownValues>,
    /// The sensitive parts of the answer: `$.headers.location`, `$.body.token`.
    answer: Vec<SensitivePath>,
}

impl fmt::Debug for Redaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Redaction") // without its fields, which hold what must not be shown
    }
}

impl Redaction {
    /// The redaction for a run; `None` where it has no sensitive values.
    pub fn of(plan: &Plan, run: &Run) -> Option<Self> {
        let taint = Arc::new(Taint::of(plan, run)?);
        let answer = run.answer().map(|answer| answer.sensitive.clone()).unwrap_or_default();
        let known = run.known_values();
        Some(Self { taint, known, answer })
    }
    /// The redaction for a sample with this request, of which the run keeps only what it reads: what its plan declares
    /// in the rest is redacted, too.
    pub fn with_request(&self, headers: &HeaderMap, body: &Value) -> Self {
        let Self { taint, known, answer } = self;
        let mut known = KnownValues::clone(known);
        taint.request_body().iter().for_each(|path| path.texts(body, &mut |text| known.add(text)));
        let of_headers = taint.headers.iter().flat_map(|name| headers.get_all(name));
        of_headers.filter_map(|value| value.to_str().ok()).for_each(|value| known.add(value.to_owned()));
        Self { taint: taint.clone(), known: Arc::new(known), answer: answer.clone() }
    }
    /// Redacts a text.
    pub fn text(&self, text: &str) -> String {
        self.known.hide(text, &|_| Some(STARS.to_owned())).unwrap_or_else(|| STARS.to_owned())
    }
    /// Redacts any value.
    pub fn value(&self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.text(text),
            Value::Number(number) => {
                let text = number.to_string();
                if text.len() >= super::known::WITHIN_CHARS_MIN && self.known.contains(&text) {
                    *value = Value::from(STARS);
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.value(item)),
            Value::Object(members) => members.values_mut().for_each(|member| self.value(member)),
            Value::Null | Value::Bool(_) => {}
        }
    }
    /// Redacts the body of the request.
    pub fn request_body(&self, body: &mut Value) {
        self.taint.request_body().iter().for_each(|path| path.visit_mut(body, &mut stars));
        self.value(body);
    }
    /// Redacts the body of an answer, of either arm.
    pub fn answer_body(&self, body: &mut Value) {
        let answer = self.answer.iter().filter_map(|path| path.under(&["body"]));
        answer.for_each(|path| path.visit_mut(body, &mut stars));
        self.value(body);
    }
    /// Whether a difference at this path (`$.token`, `headers.x-session`) shows something sensitive.
    pub fn hides_answer_at(&self, path: &str) -> bool {
        let of_answer = |at: &SensitivePath| self.answer.iter().any(|hidden| hidden.meets(at));
        match (SensitivePath::parse(path), path.strip_prefix("headers.")) {
            (Ok(path), _) => of_answer(&SensitivePath::of(["body"]).then(&path)),
            (Err(_), Some(name)) => {
                let is_declared = self.taint.headers.iter().any(|header| header.eq_ignore_ascii_case(name));
                is_declared || of_answer(&SensitivePath::of(["headers", name]))
            }
            // A path of another kind (of an intent) is judged only by the value at it.
            (Err(_), None) => false,
        }
    }
    /// Redacts a recorded request.
    pub fn request(&self, step: &StepId, part: Part, record: &CallRecord) -> CallRecord {
        let mut shown = record.clone();
        let taint = self.taint.steps.get(step).map(|step| step.of_part(part).clone()).unwrap_or_default();
        for found in of_request(&SensitivePath::whole(), &taint, record) {
            let Form::Json(paths) = &found.form else { continue };
            let mut body = shown.body.value();
            paths.iter().for_each(|path| path.visit_mut(&mut body, &mut stars));
            shown.body = match body {
                Value::String(text) => Payload::Text(text),
                body => Payload::Text(body.to_string()),
            };
        }
        let hidden = |name: &str| taint.headers.iter().any(|header| header.eq_ignore_ascii_case(name));
        for (name, value) in &mut shown.headers {
            *value = if hidden(name) { STARS.to_owned() } else { self.text(value) };
        }
        shown.url = if taint.url { STARS.to_owned() } else { self.text(&shown.url) };
        if let Payload::Text(text) = &mut shown.body {
            *text = self.text(text);
        }
        shown
    }
}

fn stars(value: &mut Value) {
    match value {
        Value::Null | Value::Bool(_) => {}
        value => *value = Value::from(STARS),
    }
}

/// The answer to a question about this step, as it is shown to somebody other than its author.
pub(in crate::workflow) fn answer_for_others(
    plan: &Plan,
    run: &Run,
    step: &StepId,
    said: &CheckpointAnswer,
) -> CheckpointAnswer {
    let Some(redaction) = Redaction::of(plan, run) else { return said.clone() };
    let step = redaction.taint.steps.get(step);
    let is_hidden = step.is_some_and(super::taint::StepTaint::hides_entered_values);
    let mut said = said.clone();
    if let Some(values) = &mut said.values {
        match is_hidden {
            true => *values = Arc::new(Value::from(STARS)),
            false => redaction.value(Arc::make_mut(values)),
        }
    }
    said.note = said.note.map(|note| if is_hidden { STARS.to_owned() } else { redaction.text(&note) });
    said
}

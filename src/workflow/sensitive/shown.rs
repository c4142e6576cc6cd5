//! Replaces the sensitive values of a run by asterisks in everything that people are shown.

use std::fmt;

use serde_json::Value;

use super::known::KnownValues;
use super::parts::{Form, of_request};
use super::path::SensitivePath;
use super::quotes::{conflict_quotes, failure_quotes, question_quotes};
use super::taint::Taint;
use crate::names::StepId;
use crate::workflow::{CallRecord, CheckpointAnswer, Part, Payload, Plan, Run, STARS};

/// Replaces the sensitive values of one run by asterisks.
pub struct Redaction {
    taint: Taint,
    known: KnownValues,
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
        let taint = Taint::of(plan, run)?;
        let mut known = KnownValues::of_run(plan, run, &taint);
        taint.sensitive_lock_names(run).for_each(|name| known.add_computed(name.to_owned()));
        let answer = run.answer().map(|answer| answer.sensitive_body()).unwrap_or_default();
        if let Some(record) = run.answer() {
            let body = record.body.value();
            answer.iter().for_each(|path| path.texts(&body, &mut |text| known.add_computed(text)));
        }
        let messages = run.conflicts().iter().filter(|conflict| conflict_quotes(&taint, conflict));
        messages.for_each(|conflict| known.add_computed(conflict.message.clone()));
        if let Some(failure) = run.failure().filter(|failure| failure_quotes(&taint, failure)) {
            known.add_computed(failure.message.clone());
        }
        for asked in run.open_checkpoints() {
            if taint.steps.get(&asked.step).is_some_and(|step| question_quotes(step, asked)) {
                known.add_computed(asked.question.clone());
            }
        }
        known.sort();
        Some(Self { taint, known, answer })
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
        self.answer.iter().for_each(|path| path.visit_mut(body, &mut stars));
        self.value(body);
    }
    /// Whether a difference at this path (`$.token`) shows something sensitive.
    pub fn hides_answer_at(&self, path: &str) -> bool {
        match SensitivePath::parse(path) {
            Ok(path) => self.answer.iter().any(|hidden| hidden.meets(&path)),
            // A path of another kind (of an intent or a header) is judged only by the value at it.
            Err(_) => false,
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
    let hides_entered_values = Taint::of(plan, run)
        .is_some_and(|taint| taint.steps.get(step).is_some_and(super::taint::StepTaint::hides_entered_values));
    let mut said = said.clone();
    if hides_entered_values {
        said.values = said.values.map(|_| std::sync::Arc::new(Value::from(STARS)));
        said.note = said.note.map(|_| STARS.to_owned());
    }
    said
}

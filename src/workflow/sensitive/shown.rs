//! Replaces the sensitive values of a run by asterisks in everything that people are shown.

use std::fmt;
use std::sync::Arc;

use http::HeaderMap;
use serde_json::Value;

use super::known::KnownValues;
use super::path::SensitivePath;
use super::sources::SensitiveSources;
use super::taint::Taint;
use crate::names::StepId;
use crate::workflow::{AnswerRecord, CheckpointAnswer, Plan, Run, STARS};

/// Replaces the sensitive values of one run by asterisks.
#[derive(Clone)]
pub struct Redaction {
    taint: Arc<Taint>,
    known: Arc<KnownValues>,
    /// Declared parts of the request's body.
    declared: Vec<SensitivePath>,
    /// Sensitive parts of the answer: `$.body.token`, `$.headers.x-token`.
    answer: Vec<SensitivePath>,
    /// Whether all texts are replaced, because the request's body cannot be parsed: it is not known which texts quote
    /// the declared parts of the body.
    replaces_all: bool,
}

impl fmt::Debug for Redaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Redaction") // without its fields, which hold what must not be shown
    }
}

impl Redaction {
    /// The redaction for a run; `None` where it has no sensitive values.
    pub fn of(plan: &Plan, run: &Run) -> Option<Self> {
        Self::with_answer(plan, run, run.answer().map(|answer| &**answer))
    }
    /// The redaction for a request that the workflow refuses, and for the answer to the request. `run` was never begun;
    /// if it is `None`, only what the plan declares is known.
    pub fn of_refused(plan: &Plan, run: Option<&Run>, answer: Option<&AnswerRecord>) -> Option<Self> {
        match run {
            Some(run) => Self::with_answer(plan, run, answer),
            None if plan.sensitive_values().is_empty() => None,
            None => {
                Some(Self::new(plan, Taint::new(plan, &SensitiveSources::default()), KnownValues::default(), answer))
            }
        }
    }
    fn with_answer(plan: &Plan, run: &Run, answer: Option<&AnswerRecord>) -> Option<Self> {
        let taint = Taint::of(plan, run)?;
        Some(Self::new(plan, taint, KnownValues::clone(&run.known_values()), answer))
    }
    fn new(plan: &Plan, taint: Taint, mut known: KnownValues, answer: Option<&AnswerRecord>) -> Self {
        if let Some(record) = answer {
            let body = record.body.value();
            record.sensitive_body().iter().for_each(|path| path.texts(&body, &mut |text| known.add_computed(text)));
            let headers = record.headers.iter().filter(|(name, _)| is_header_in(&record.sensitive, name));
            headers.for_each(|(_, value)| known.add_computed(value.clone()));
        }
        // Until an answer is recorded, the caller can get only that of `respond.pending`.
        let answer = answer.map_or_else(|| taint.pending.clone(), |answer| answer.sensitive.clone());
        Self {
            taint: Arc::new(taint),
            known: Arc::new(known),
            declared: plan.sensitive_values().body.clone(),
            answer,
            replaces_all: false,
        }
    }
    /// Returns a redaction that also replaces what the plan declares in this request: the run itself keeps only those
    /// parts of the request that its plan reads. A `body` that cannot be parsed is passed as a text.
    #[must_use]
    pub fn with_request(&self, headers: &HeaderMap, body: &Value) -> Self {
        let mut known = KnownValues::clone(&self.known);
        let replaces_all = body.is_string() && self.declared.iter().any(|path| *path != SensitivePath::whole());
        let declared = self.declared.iter().chain(self.taint.request_body().iter()).cloned().collect::<Vec<_>>();
        declared.iter().for_each(|path| path.texts(body, &mut |text| known.add(text)));
        header_texts(headers, &self.taint.headers).for_each(|text| known.add(text));
        Self { known: Arc::new(known), replaces_all, ..self.clone() }
    }
    /// Returns a redaction that also replaces the declared headers of this reply: the run itself keeps only those parts
    /// of the reply that its plan reads.
    #[must_use]
    pub fn with_reply(&self, headers: &HeaderMap) -> Self {
        let mut known = KnownValues::clone(&self.known);
        header_texts(headers, &self.taint.headers).for_each(|text| known.add(text));
        Self { known: Arc::new(known), ..self.clone() }
    }
    /// Redacts a text.
    pub fn text(&self, text: &str) -> String {
        if self.replaces_all {
            return STARS.to_owned();
        }
        self.known.hide(text, &|_| Some(STARS.to_owned())).unwrap_or_else(|| STARS.to_owned())
    }
    /// Redacts any value.
    pub fn value(&self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.text(text),
            Value::Number(_) if self.replaces_all => stars(value),
            Value::Number(number) if self.known.contains_number(number) => *value = Value::from(STARS),
            Value::Number(_) => {}
            Value::Array(items) => items.iter_mut().for_each(|item| self.value(item)),
            Value::Object(members) => members.values_mut().for_each(|member| self.value(member)),
            Value::Null | Value::Bool(_) => {}
        }
    }
    /// Redacts the body of the request.
    pub fn request_body(&self, body: &mut Value) {
        self.taint.request_body().iter().for_each(|path| path.visit_within_mut(body, &mut stars));
        self.value(body);
    }
    /// Redacts the body of an answer, of either arm.
    pub fn answer_body(&self, body: &mut Value) {
        self.answer_paths().for_each(|path| path.visit_within_mut(body, &mut stars));
        self.value(body);
    }
    /// Whether a difference at this path shows something sensitive: `$.token`, `text`, `headers.x-token`,
    /// `intents.charge.url`, `effects.charge.body.card`.
    pub fn hides_difference_at(&self, path: &str) -> bool {
        if let Some(name) = path.strip_prefix("headers.") {
            let is_declared = self.taint.headers.iter().any(|declared| declared.eq_ignore_ascii_case(name));
            return is_declared || is_header_in(&self.answer, name);
        }
        if ["intents.", "intents[", "effects."].iter().any(|start| path.starts_with(start)) {
            // Not every path tells which step the difference is about.
            return self.taint.steps.values().any(|step| !(step.call.is_empty() && step.undo.is_empty()));
        }
        match SensitivePath::parse(path) {
            Ok(path) => self.answer_paths().any(|hidden| hidden.overlaps(&path)),
            // The path of a difference may be cut short; `body` and `text` stand for the whole body.
            Err(_) if path.starts_with('$') || matches!(path, "body" | "text") => self.answer_paths().next().is_some(),
            Err(_) => false,
        }
    }
    fn answer_paths(&self) -> impl Iterator<Item = SensitivePath> {
        self.answer.iter().filter_map(|path| path.under(&["body"]))
    }
}

/// The values of these headers, in every form in which they may be quoted: alone, and joined as expressions see them. A
/// value that is not UTF-8 is given in two forms: with replacement characters, and read as Latin-1.
pub(super) fn header_texts<'a>(headers: &'a HeaderMap, names: &'a [String]) -> impl Iterator<Item = String> + 'a {
    names.iter().flat_map(move |name| {
        let values: Vec<&[u8]> = headers.get_all(name).iter().map(http::HeaderValue::as_bytes).collect();
        let joined = (values.len() > 1).then(|| values.join(&b", "[..]));
        let all = values.into_iter().map(<[u8]>::to_vec).chain(joined);
        all.flat_map(|value| match String::from_utf8(value) {
            Ok(text) => vec![text],
            Err(other) => {
                let bytes = other.as_bytes();
                vec![String::from_utf8_lossy(bytes).into_owned(), bytes.iter().copied().map(char::from).collect()]
            }
        })
    })
}

/// Whether these parts of an answer contain this header.
fn is_header_in(answer: &[SensitivePath], name: &str) -> bool {
    answer.iter().any(|path| path.under(&["headers", name]).is_some())
}

fn stars(value: &mut Value) {
    match value {
        Value::Null | Value::Bool(_) => {}
        value => *value = Value::from(STARS),
    }
}

/// Returns the answer to a question about this step as it is shown to people other than the one who gave it.
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

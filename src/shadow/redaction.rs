//! Hides what must not be stored of one pair: the sensitive values of the run, and what the files declare (`redact:`).

use std::cell::OnceCell;
use std::sync::Arc;

use serde_json::Value;

use super::declared_body::declared_body;
use crate::compare::{
    Body, CompareBounds, HidesSensitive, NamedParts, Observation, SensitiveParts, decoded_body, named_secrets,
};
use crate::exchange::{Answered, RunReport, body_value};
use crate::secret::{RedactRules, STARS, replace_detected};
use crate::workflow::Redaction;

/// A declared secret that is shorter is hidden only where it stands, and not wherever a text quotes it.
const QUOTED_BYTES_MIN: usize = 4;

/// Hides the secrets of one pair, those that their names tell included, wherever a text quotes them. They are looked
/// for when the first text may be shown.
pub(super) struct PairRedaction<'a> {
    answered: &'a Answered,
    engine: &'a Observation,
    of_run: Option<&'a Redaction>,
    /// Those of the runs below it.
    below: &'a [Arc<Redaction>],
    bounds: CompareBounds,
    made: OnceCell<Option<Redaction>>,
    /// The secrets that are hidden wherever they are quoted, the longest first.
    quoted: OnceCell<Vec<String>>,
}

impl<'a> PairRedaction<'a> {
    /// What hides the secrets of a pair.
    pub(super) fn of(
        answered: &'a Answered,
        engine: &'a Observation,
        report: &'a RunReport,
        bounds: CompareBounds,
    ) -> Self {
        let of_run = report.redaction.as_deref();
        let below = report.redactions_below.as_slice();
        Self { answered, engine, of_run, below, bounds, made: OnceCell::new(), quoted: OnceCell::new() }
    }

    fn redaction(&self) -> Option<&Redaction> {
        let made = self.made.get_or_init(|| {
            // The run keeps only those parts of the request and of legacy's reply that its plan reads; a sample shows
            // all of both.
            let request = &self.answered.request;
            let redaction = self.of_run?.with_request(&request.headers, &declared_body(request, &self.bounds));
            Some(redaction.with_reply(self.answered.legacy.headers()).with_reply(self.engine.headers()))
        });
        made.as_ref()
    }

    fn rules(&self) -> &RedactRules {
        &self.answered.flag.route.redact
    }

    fn quoted(&self) -> &[String] {
        self.quoted.get_or_init(|| {
            let request = &self.answered.request;
            let mut bodies = vec![declared_body(request, &self.bounds)];
            for seen in [&self.answered.legacy, self.engine] as [&Observation; 2] {
                if let Body::Whole(bytes) = seen.body() {
                    let plain = decoded_body(seen.headers(), bytes, self.bounds.bytes);
                    bodies.push(body_value(seen.headers(), plain.as_ref().unwrap_or(bytes)));
                }
            }
            let of_calls = self.engine.intents().iter().map(|intent| &intent.body);
            let mut quoted = named_secrets(
                self.rules(),
                &NamedParts {
                    bodies: bodies.iter().chain(of_calls).collect(),
                    headers: vec![&request.headers, self.answered.legacy.headers(), self.engine.headers()],
                    query: request.query.as_deref().unwrap_or_default(),
                    params: request.params.iter().map(|(name, value)| (&**name, value.as_str())).collect(),
                },
            );
            bodies.iter().for_each(|body| self.rules().collect(body, &mut quoted));
            for (name, value) in &request.params {
                if self.rules().has_name(name) {
                    quoted.push(value.clone());
                }
            }
            for (name, value) in request.headers.iter().chain(self.answered.legacy.headers()) {
                if let (true, Ok(value)) = (self.rules().has_name(name.as_str()), value.to_str()) {
                    quoted.push(value.to_owned());
                }
            }
            longest_first(quoted)
        })
    }

    /// Whether the files or the workflows declare something as secret.
    pub(super) fn declares_secrets(&self) -> bool {
        self.has_declared() || self.of_run.is_some() || !self.below.is_empty()
    }

    /// Whether the files declare something as secret.
    pub(super) fn has_declared(&self) -> bool {
        !self.rules().is_empty()
    }

    /// Hides what the files declare in a value.
    fn hide_declared(&self, value: &mut Value) {
        self.rules().hide(value);
        hide_in_texts(value, self.quoted(), &|text| self.without_declared(text));
    }

    /// The values that the files declare as secret in these documents and in any part of them: an event holds replies
    /// and requests, each of which is a document of its own.
    pub(super) fn declared_within<'v>(&self, documents: impl Iterator<Item = &'v Value>) -> Vec<String> {
        let mut found = Vec::new();
        documents.for_each(|document| self.collect_within(document, &mut found));
        longest_first(found)
    }

    fn collect_within(&self, document: &Value, found: &mut Vec<String>) {
        match document {
            Value::Object(members) => {
                self.rules().collect(document, found);
                members.values().for_each(|member| self.collect_within(member, found));
            }
            Value::Array(items) => {
                self.rules().collect(document, found);
                items.iter().for_each(|item| self.collect_within(item, found));
            }
            // The body of a request is a text of its own.
            Value::String(text) if text.starts_with(['{', '[']) => {
                let parsed: Option<Value> = serde_json::from_str(text).ok();
                parsed.iter().for_each(|parsed| self.collect_within(parsed, found));
            }
            Value::String(_) | Value::Number(_) | Value::Null | Value::Bool(_) => {}
        }
    }

    fn without_declared(&self, text: &str) -> String {
        let shown = replace_detected(text, self.rules().detectors(), &mut |_| STARS.to_owned());
        without_quoted(&shown, self.quoted())
    }
}

/// The secrets that are hidden wherever a text quotes them, the longest first.
fn longest_first(mut secrets: Vec<String>) -> Vec<String> {
    secrets.retain(|secret| secret.len() >= QUOTED_BYTES_MIN);
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets.dedup();
    secrets
}

/// Puts stars in place of these values wherever a text quotes them, the longest first.
pub(super) fn hide_quoted(value: &mut Value, secrets: &[String]) {
    hide_in_texts(value, secrets, &|text| without_quoted(text, secrets));
}

/// Replaces each text in a value by what `hide` returns for it, and each number that is one of the secrets by stars.
fn hide_in_texts(value: &mut Value, secrets: &[String], hide: &dyn Fn(&str) -> String) {
    match value {
        Value::Object(members) => members.values_mut().for_each(|value| hide_in_texts(value, secrets, hide)),
        Value::Array(items) => items.iter_mut().for_each(|item| hide_in_texts(item, secrets, hide)),
        Value::String(text) => *text = hide(text),
        Value::Number(number) if secrets.iter().any(|secret| secret == number.as_str()) => *value = STARS.into(),
        Value::Number(_) | Value::Null | Value::Bool(_) => {}
    }
}

fn without_quoted(text: &str, secrets: &[String]) -> String {
    let mut shown = text.to_owned();
    for secret in secrets {
        if shown.contains(secret.as_str()) {
            shown = shown.replace(secret.as_str(), STARS);
        }
    }
    shown
}

/// Hides what the workflows of one pair declare as sensitive, and not what the files declare beside (`redact:`): for
/// whoever looks for that himself.
pub(super) struct OfWorkflows<'p, 'a>(&'p PairRedaction<'a>);

impl<'a> PairRedaction<'a> {
    /// This, without what `redact:` declares.
    pub(super) fn of_workflows(&self) -> OfWorkflows<'_, 'a> {
        OfWorkflows(self)
    }
}

impl HidesSensitive for OfWorkflows<'_, '_> {
    fn hide_in_value(&self, value: &mut Value) {
        self.0.redaction().into_iter().for_each(|redaction| redaction.value(value));
        self.0.below.iter().for_each(|redaction| redaction.value(value));
    }
    fn hide_in_text(&self, text: &str) -> String {
        let shown = self.0.redaction().map_or_else(|| text.to_owned(), |redaction| redaction.text(text));
        self.0.below.iter().fold(shown, |shown, redaction| redaction.text(&shown))
    }
}

impl SensitiveParts for OfWorkflows<'_, '_> {
    fn hide_in_request_body(&self, body: &mut Value) {
        self.0.redaction().into_iter().for_each(|redaction| redaction.request_body(body));
        self.0.below.iter().for_each(|redaction| redaction.value(body));
    }
    fn hide_in_reply_body(&self, body: &mut Value) {
        self.0.redaction().into_iter().for_each(|redaction| redaction.answer_body(body));
        self.0.below.iter().for_each(|redaction| redaction.value(body));
    }
    fn hides_at(&self, path: &str) -> bool {
        let is_of_calls = ["intents", "effects"].iter().any(|root| path.starts_with(root));
        self.0.redaction().is_some_and(|redaction| redaction.hides_difference_at(path))
            || is_of_calls && self.0.below.iter().any(|redaction| redaction.hides_difference_at(path))
    }
}

impl HidesSensitive for PairRedaction<'_> {
    fn hide_in_value(&self, value: &mut Value) {
        self.of_workflows().hide_in_value(value);
        self.hide_declared(value);
    }
    fn hide_in_text(&self, text: &str) -> String {
        self.without_declared(&self.of_workflows().hide_in_text(text))
    }
}

impl SensitiveParts for PairRedaction<'_> {
    fn hide_in_request_body(&self, body: &mut Value) {
        self.of_workflows().hide_in_request_body(body);
        self.hide_declared(body);
    }
    fn hide_in_reply_body(&self, body: &mut Value) {
        self.of_workflows().hide_in_reply_body(body);
        self.hide_declared(body);
    }
    fn hides_at(&self, path: &str) -> bool {
        let mut names = path.split(['.', '[', ']', '\'', '"']).filter(|name| !name.is_empty());
        self.of_workflows().hides_at(path) || names.any(|name| self.rules().has_name(name))
    }
}

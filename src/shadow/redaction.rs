//! Hides what must not be stored of one pair: the sensitive values of the run, and what the files declare (`redact:`).

use std::borrow::Cow;
use std::cell::{Cell, OnceCell};
use std::sync::Arc;

use serde_json::Value;

use super::declared_body::declared_body;
use super::event_messages::messages_in;
use super::run_facts::creator;
use crate::compare::{
    Body, CompareBounds, Effect, HidesSensitive, Observation, PairParts, SensitiveParts, quoted_secrets,
};
use crate::exchange::{Answered, RecordedReads, RunReport};
use crate::secret::{QuotedSecrets, RedactRules, STARS, replace_detected, with_distinct_keys};
use crate::workflow::{Mode, Redaction};

/// What is known of a pair whose secrets are hidden.
pub(super) struct PairToRedact<'a> {
    pub answered: &'a Answered,
    pub engine: &'a Observation,
    pub report: &'a RunReport,
    /// The calls that legacy made, if all are known.
    pub effects: Option<&'a [Arc<Effect>]>,
    /// The reads of the run, where they were recorded; those of a dark run always are.
    pub recorded: Option<&'a RecordedReads>,
    pub bounds: CompareBounds,
    /// Whether the time for the pair is over. Then each text is hidden whole.
    pub expired: &'a dyn Fn() -> bool,
}

/// Hides the secrets of one pair wherever a text quotes them, also values recognised only by the name of their
/// field. The secrets are collected when the first text is to be shown.
pub(super) struct PairRedaction<'a> {
    pair: PairToRedact<'a>,
    /// The rules of the route, and of the route that created the request's instance: what is known of the instance
    /// comes from bodies of that route.
    rules: Cow<'a, RedactRules>,
    /// What the run's workflow declares as sensitive in the request and both replies; `None` if it declares nothing.
    of_messages: OnceCell<Option<Redaction>>,
    /// The secrets that are hidden wherever they are quoted.
    quoted: OnceCell<QuotedSecrets>,
    /// Whether the time was found to be over.
    was_over: Cell<bool>,
}

impl<'a> PairRedaction<'a> {
    /// What hides the secrets of a pair.
    pub(super) fn of(pair: PairToRedact<'a>) -> Self {
        let of_route = &pair.answered.flag.route.redact;
        let rules = match creator(pair.answered).map(|creator| &creator.route.redact) {
            Some(of_creator) if !of_creator.is_empty() => Cow::Owned(of_route.and(of_creator)),
            Some(_) | None => Cow::Borrowed(of_route),
        };
        Self { pair, rules, of_messages: OnceCell::new(), quoted: OnceCell::new(), was_over: Cell::new(false) }
    }

    /// Whether the time for the pair is over, so that texts are hidden whole.
    pub(super) fn is_over(&self) -> bool {
        if !self.was_over.get() && (self.pair.expired)() {
            self.was_over.set(true);
        }
        self.was_over.get()
    }

    /// Whether something was hidden, or left out, because the time was over.
    pub(super) fn was_over(&self) -> bool {
        self.was_over.get()
    }

    fn redaction(&self) -> Option<&Redaction> {
        let of_messages = self.of_messages.get_or_init(|| {
            // The run keeps only those parts of the request and of legacy's reply that its plan reads; a sample shows
            // all of both.
            let PairToRedact { answered, engine, bounds, .. } = &self.pair;
            let request = &answered.request;
            let redaction = self.of_run()?.with_request(&request.headers, &declared_body(request, bounds));
            Some(redaction.with_reply(answered.legacy.headers()).with_reply(engine.headers()))
        });
        of_messages.as_ref()
    }

    fn of_run(&self) -> Option<&Redaction> {
        self.pair.report.redaction.as_deref()
    }

    /// The redactions of the runs below this one.
    fn below(&self) -> &[Arc<Redaction>] {
        &self.pair.report.redactions_below
    }

    /// What the files declare as secret in the pair.
    pub(super) fn rules(&self) -> &RedactRules {
        &self.rules
    }

    fn quoted(&self) -> &QuotedSecrets {
        self.quoted.get_or_init(|| {
            let PairToRedact { answered, engine, report, effects, recorded, bounds, expired } = &self.pair;
            let (request, events) = (&answered.request, &report.events);
            let all_events = events.children.iter().map(|child| &child.events);
            let all_events = [&events.own].into_iter().chain(all_events).flat_map(|events| &events.first);
            let instance = recorded.and_then(RecordedReads::known_instance);
            let reads = match recorded.map(RecordedReads::all) {
                Some(Some(reads)) => reads,
                // The reads were too large to be recorded as a whole, and a dark run, unlike a rehearsal, has no events
                // that tell the rest.
                Some(None) if answered.mode == Mode::Dark => return QuotedSecrets::of_unknown(),
                Some(None) | None => Vec::new(),
            };
            let parts = PairParts {
                params: &request.params,
                query: request.query.as_deref(),
                headers: &request.headers,
                body: &Body::Whole(request.body.clone()),
                legacy: &answered.legacy,
                engine: Some(*engine),
                instance: instance.as_ref().map(|known| &*known.value),
                reads: &reads,
                intents: engine.intents(),
                effects: effects.unwrap_or_default(),
                recorded: all_events.flat_map(|(_, event)| messages_in(event)).collect(),
            };
            quoted_secrets(&self.rules, parts, bounds, *expired)
        })
    }

    /// Whether the files or the workflows declare something as secret.
    pub(super) fn declares_secrets(&self) -> bool {
        !self.rules.is_empty() || self.of_run().is_some() || !self.below().is_empty()
    }

    /// Hides what the files declare in a value, and the secrets of the pair wherever it quotes them.
    fn hide_declared(&self, value: &mut Value) {
        if !self.is_over() {
            self.rules.hide(value);
        }
        self.hide_in_texts(value);
    }

    fn hide_in_texts(&self, value: &mut Value) {
        if self.is_over() {
            *value = STARS.into();
            return;
        }
        match value {
            Value::Object(members) => {
                members.values_mut().for_each(|value| self.hide_in_texts(value));
                if members.keys().any(|key| self.hide_in_name(key) != *key) {
                    let shown = std::mem::take(members).into_iter();
                    *members = with_distinct_keys(shown.map(|(key, value)| (self.hide_in_name(&key), value)));
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.hide_in_texts(item)),
            Value::String(text) => *text = self.without_declared(text),
            Value::Number(number) if self.quoted().contains(number.as_str()) => *value = STARS.into(),
            Value::Number(_) | Value::Null | Value::Bool(_) => {}
        }
    }

    /// Hides secrets in a key or a path. If there are too many secrets to hold them all, it stays as it is: the names
    /// in a body are shown then, but no values.
    pub(super) fn hide_in_name(&self, name: &str) -> String {
        if self.quoted().is_full() { name.to_owned() } else { self.without_declared(name) }
    }

    fn without_declared(&self, text: &str) -> String {
        let shown = replace_detected(text, self.rules.detectors(), &mut |_| STARS.to_owned());
        self.quoted().hide(&shown, &|_| STARS.to_owned())
    }
}

/// Hides what the workflows of one pair declare as sensitive, but not what the files declare (`redact:`), which the
/// caller replaces itself.
pub(super) struct OfWorkflows<'p, 'a>(&'p PairRedaction<'a>);

impl<'a> PairRedaction<'a> {
    /// This redaction without what `redact:` declares.
    pub(super) fn of_workflows(&self) -> OfWorkflows<'_, 'a> {
        OfWorkflows(self)
    }
}

impl HidesSensitive for OfWorkflows<'_, '_> {
    fn hide_in_value(&self, value: &mut Value) {
        self.0.redaction().into_iter().for_each(|redaction| redaction.value(value));
        self.0.below().iter().for_each(|redaction| redaction.value(value));
    }
    fn hide_in_text(&self, text: &str) -> String {
        let shown = self.0.redaction().map_or_else(|| text.to_owned(), |redaction| redaction.text(text));
        self.0.below().iter().fold(shown, |shown, redaction| redaction.text(&shown))
    }
}

impl SensitiveParts for OfWorkflows<'_, '_> {
    fn hide_in_request_body(&self, body: &mut Value) {
        self.0.redaction().into_iter().for_each(|redaction| redaction.request_body(body));
        self.0.below().iter().for_each(|redaction| redaction.value(body));
    }
    fn hide_in_reply_body(&self, body: &mut Value) {
        self.0.redaction().into_iter().for_each(|redaction| redaction.answer_body(body));
        self.0.below().iter().for_each(|redaction| redaction.value(body));
    }
    fn hides_at(&self, path: &str) -> bool {
        let is_of_calls = ["intents", "effects"].iter().any(|root| path.starts_with(root));
        self.0.redaction().is_some_and(|redaction| redaction.hides_difference_at(path))
            || is_of_calls && self.0.below().iter().any(|redaction| redaction.hides_difference_at(path))
    }
}

impl HidesSensitive for PairRedaction<'_> {
    fn hide_in_value(&self, value: &mut Value) {
        if !self.is_over() {
            self.of_workflows().hide_in_value(value);
        }
        self.hide_declared(value);
    }
    fn hide_in_text(&self, text: &str) -> String {
        if self.is_over() {
            return STARS.to_owned();
        }
        self.without_declared(&self.of_workflows().hide_in_text(text))
    }
}

impl SensitiveParts for PairRedaction<'_> {
    fn hide_in_request_body(&self, body: &mut Value) {
        if !self.is_over() {
            self.of_workflows().hide_in_request_body(body);
        }
        self.hide_declared(body);
    }
    fn hide_in_reply_body(&self, body: &mut Value) {
        if !self.is_over() {
            self.of_workflows().hide_in_reply_body(body);
        }
        self.hide_declared(body);
    }
    fn hides_at(&self, path: &str) -> bool {
        let mut names = path.split(['.', '[', ']', '\'', '"']).filter(|name| !name.is_empty());
        self.of_workflows().hides_at(path) || names.any(|name| self.rules.has_name(name))
    }
}

//! Seals the sensitive values in a run's events when they are stored, and opens them when they are read.
//!
//! Always true: a run's events hold clear values in memory and sealed ones in the store. `workflow` says which parts of
//! an event are sensitive by their origin, and which sensitive values the run knows by now ([`Knowledge`]). All texts
//! and numbers in such parts are replaced by `«sealed:…»`, and so is every occurrence of a known value, as a whole or
//! within a longer text. The replacement holds ciphertext under a key derived from `store_key`, bound to the run. Parts
//! may overlap, because paths may overlap; nevertheless each value is sealed only once. The ciphertext is deleted
//! together with the run's events.
//!
//! A text from outside may contain a sealed value: the API shows sealed values, and whoever may deliver a signal could
//! copy one into the signal, to have it opened when a step sends it to a service. So every text in an event that has
//! the form of a sealed value is first sealed as a whole, whatever member it stands in, and opening gives it back as it
//! came.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Number, Value};

use crate::engine::ports::seal::Sealer;
use crate::engine::ports::sealed_values::{Piece, open_text, pieces, seal_number, seal_text, text_has_sealed_form};
use crate::expression::parse_json;
use crate::names::{RunId, StepId};
use crate::secret::STARS;
use crate::store::{Append, LockChange, StoredEvent};
use crate::workflow::{
    ChildEvent, ControlEvent, Event, Knowledge, KnownValues, Run, SensitiveForm, SensitivePart, SensitivePath,
    StepEvent, Taint, WaitEvent, event_content,
};

/// Enclose the placeholder that stands for a value while JSON is sealed; from Unicode's private use area.
const PLACEHOLDER_MARKS: [char; 2] = ['\u{f8f0}', '\u{f8f1}'];

/// The members of events that may hold any value or any text.
const FREE_MEMBERS: [&str; 21] = [
    "output", "headers", "request", "intent", "answer", "input", "fields", "payload", "legacy", "instance", "value",
    "values", "response", "message", "why", "expected", "question", "note", "url", "what", "default",
];

/// Seals the events of one run, and knows which of its values are sensitive.
#[derive(Clone)]
pub(in crate::engine) struct EventSealer {
    run: RunId,
    sealer: Arc<Sealer>,
    knowledge: Knowledge,
    /// Steps (items) whose rows in lock queues were written by an earlier version, with the lock's name in clear.
    steps_with_clear_lock_name: BTreeSet<(StepId, Option<u32>)>,
}

impl EventSealer {
    /// The sealer of a run in its present state; `knowledge` is what the run knows by now.
    pub fn new(sealer: &Arc<Sealer>, run: RunId, knowledge: Knowledge) -> Self {
        Self { run, sealer: sealer.clone(), knowledge, steps_with_clear_lock_name: BTreeSet::new() }
    }
    /// Whether the run has sensitive values.
    pub fn is_active(&self) -> bool {
        self.knowledge.taint().is_some()
    }
    /// The locks with a sensitive name that the run holds or queues for, each with the step (the item).
    pub fn sensitive_locks<'a>(&'a self, run: &'a Run) -> impl Iterator<Item = (&'a StepId, Option<u32>, &'a str)> {
        let taint = self.knowledge.taint();
        run.queued_locks().filter(move |(step, ..)| taint.is_some_and(|taint| taint.has_sensitive_lock(step)))
    }
    /// Records that the row of this step (item) in a lock's queue has the name in clear.
    pub fn note_clear_lock(&mut self, step: StepId, item: Option<u32>) {
        self.steps_with_clear_lock_name.insert((step, item));
    }
    /// Replaces lock names by their hashes if they are sensitive by their origin or contain a known value; `None` if
    /// that fails. A step leaves the queue both under its name and under the hash where its row may have either: an
    /// earlier version wrote the name in clear, and the known values may have changed since the step queued.
    fn hash_locks(&self, taint: &Taint, changes: &mut Vec<LockChange>) -> Option<()> {
        let mut others = Vec::new();
        for change in changes.iter_mut() {
            let before = change.clone();
            let leaves = matches!(change, LockChange::Leave { .. });
            let (LockChange::Queue { name, step, item, .. } | LockChange::Leave { name, step, item, .. }) = change;
            let is_by_origin = taint.has_sensitive_lock(step);
            if is_by_origin || leaves || self.known().are_in(name) {
                *name = self.sealer.lock_hash(name)?;
            }
            let may_be_clear = !is_by_origin || self.steps_with_clear_lock_name.contains(&(step.clone(), *item));
            if leaves && may_be_clear {
                others.push(before);
            }
        }
        changes.extend(others);
        Some(())
    }
    fn known(&self) -> &KnownValues {
        self.knowledge.known()
    }
    /// Whether a sensitive part of these events, in their stored form, has the form of a sealed value. If it has, it
    /// was sealed: a caller's text that only looks sealed was sealed too before it was stored in such a part.
    pub fn has_sealed_parts<'a>(&self, events: impl IntoIterator<Item = &'a Event>) -> bool {
        events.into_iter().any(|event| {
            let written = serde_json::to_value(event).ok();
            let Some(content) = written.as_ref().and_then(event_content) else { return false };
            let mut found = false;
            for part in self.knowledge.parts(event) {
                let mut add = |text: String| {
                    found |= match (&part.form, parse_json(text.as_bytes())) {
                        (SensitiveForm::Json(paths), Ok(body)) => {
                            let mut within = false;
                            paths.iter().for_each(|path| {
                                path.texts_within(&body, &mut |text| within |= text_has_sealed_form(&text));
                            });
                            within
                        }
                        // A sealed number has no quotation marks around it, so that the text is not JSON any more.
                        (
                            SensitiveForm::Json(_) | SensitiveForm::Value | SensitiveForm::Within | SensitiveForm::Text,
                            _,
                        ) => text_has_sealed_form(&text),
                    }
                };
                match part.form {
                    SensitiveForm::Within => part.at.texts_within(content, &mut add),
                    SensitiveForm::Value | SensitiveForm::Text | SensitiveForm::Json(_) => {
                        part.at.texts(content, &mut add)
                    }
                }
            }
            found
        })
    }
    /// The append as it is stored; `None` if a sensitive value cannot be sealed.
    pub fn seal(&mut self, append: Arc<Append>) -> Option<Arc<Append>> {
        append.events.iter().for_each(|(_, event)| self.knowledge.learn(event));
        let Some(taint) = self.knowledge.taint().cloned() else { return Some(append) };
        let mut sealed = Append::clone(&append);
        for (_, event) in &mut sealed.events {
            *event = self.sealed(event)?;
        }
        self.hash_locks(&taint, &mut sealed.locks)?;
        let stars = |_: FoundValue<'_>| Some(STARS.to_owned());
        for message in &mut sealed.webhook_messages {
            self.hide(&mut message.body, &stars)?;
        }
        for (_, answer) in &mut sealed.answered_commands {
            self.hide(answer, &stars)?;
        }
        if let Some(note) = &mut sealed.summary.note {
            *note = self.known().hide(note, &|_| Some(STARS.to_owned()))?;
        }
        Some(Arc::new(sealed))
    }
    /// Seals a text, unless it is sealed already as a whole. In an event [`Self::seal_copies`] comes first, so a sealed
    /// piece within the text did not come from outside: this event's sealing made it, for an overlapping part.
    fn seal_text(&self, text: &str) -> Option<String> {
        match pieces(&self.sealer, self.run, text).as_slice() {
            [Piece::Sealed(..)] => Some(text.to_owned()),
            [] | [Piece::Clear(_)] => seal_text(&self.sealer, self.run, text),
            _ => seal_text(&self.sealer, self.run, &open_text(&self.sealer, self.run, text)),
        }
    }
    /// Seals every text and number in a value that is not sealed already.
    fn seal_value(&self, value: &mut Value) -> Option<()> {
        match value {
            Value::String(text) if text.is_empty() => {}
            Value::String(text) => *text = self.seal_text(text)?,
            Value::Number(number) => *value = Value::String(seal_number(&self.sealer, self.run, number)?),
            Value::Array(items) => items.iter_mut().try_for_each(|item| self.seal_value(item))?,
            Value::Object(members) => members.values_mut().try_for_each(|member| self.seal_value(member))?,
            Value::Null | Value::Bool(_) => {}
        }
        Some(())
    }
    /// Seals every text in an event that has the form of a sealed value although nothing in the event is sealed yet.
    fn seal_copies(&self, content: &mut Value) -> Option<()> {
        match content {
            Value::String(text) if text_has_sealed_form(text) => {
                *text = seal_text(&self.sealer, self.run, text)?;
            }
            Value::Array(items) => items.iter_mut().try_for_each(|item| self.seal_copies(item))?,
            Value::Object(members) => members.values_mut().try_for_each(|member| self.seal_copies(member))?,
            Value::String(_) | Value::Number(_) | Value::Null | Value::Bool(_) => {}
        }
        Some(())
    }
    fn seal_found(&self, found: FoundValue<'_>) -> Option<String> {
        match found {
            FoundValue::Text(text) => self.seal_text(text),
            FoundValue::Number(number) => seal_number(&self.sealer, self.run, number),
        }
    }
    fn sealed(&self, event: &Event) -> Option<Event> {
        let mut written = serde_json::to_value(event).ok()?;
        let content = written.as_object_mut()?.values_mut().next()?;
        self.seal_copies(content)?;
        self.seal_parts(content, &self.knowledge.parts(event))?;
        self.hide_in_free_members(event.kind(), content, &|found| self.seal_found(found))?;
        serde_json::from_value(written).ok()
    }
    /// Seals the sensitive parts of an event's content. They may overlap.
    fn seal_parts(&self, content: &mut Value, parts: &[SensitivePart]) -> Option<()> {
        for part in parts {
            let mut is_sealed = true;
            let mut seal = |value: &mut Value| {
                is_sealed &= match (&part.form, &mut *value) {
                    (SensitiveForm::Json(paths), Value::String(text)) => {
                        self.seal_in_json(text, paths).map(|sealed| *text = sealed).is_some()
                    }
                    _ => self.seal_value(value).is_some(),
                };
            };
            match part.form {
                SensitiveForm::Within => part.at.visit_within_mut(content, &mut seal),
                SensitiveForm::Value | SensitiveForm::Text | SensitiveForm::Json(_) => {
                    part.at.visit_mut(content, &mut seal)
                }
            }
            if !is_sealed {
                return None;
            }
        }
        Some(())
    }
    /// Seals the values at these paths in a text that holds JSON, so that opening it gives the same bytes; seals the
    /// whole text if that is not possible.
    fn seal_in_json(&self, text: &str, paths: &[SensitivePath]) -> Option<String> {
        let whole = || self.seal_text(text);
        let Ok(mut body) = parse_json(text.as_bytes()) else {
            return if self.is_sealed_in_json(text, paths) { Some(text.to_owned()) } else { whole() };
        };
        let written = body.to_string();
        if text.contains(PLACEHOLDER_MARKS) || written != text {
            return whole();
        }
        let mut values = Vec::new();
        paths.iter().for_each(|path| path.visit_within_mut(&mut body, &mut |value| take_values(value, &mut values)));
        let mut sealed = body.to_string();
        for (index, value) in values.iter().enumerate() {
            let placeholder = format!("\"{}{index}{}\"", PLACEHOLDER_MARKS[0], PLACEHOLDER_MARKS[1]);
            let written = value.to_string();
            let quoted = written.strip_prefix('"').and_then(|inner| inner.strip_suffix('"'));
            let sealed_value = match quoted {
                Some(inner) => format!("\"{}\"", self.seal_text(inner)?),
                None => self.seal_text(&written)?,
            };
            sealed = sealed.replacen(&placeholder, &sealed_value, 1);
        }
        let open = |text: &str| open_text(&self.sealer, self.run, text);
        match open(&sealed) == open(text) {
            true => Some(sealed),
            false => whole(),
        }
    }
    /// Whether the values at these paths are sealed already in a text that held JSON. A sealed number has no quotation
    /// marks around it, so that the text is not JSON any more.
    fn is_sealed_in_json(&self, text: &str, paths: &[SensitivePath]) -> bool {
        let (mut json, mut is_string, mut is_escaped) = (String::with_capacity(text.len()), false, false);
        for piece in pieces(&self.sealer, self.run, text) {
            match piece {
                Piece::Clear(clear) => {
                    for character in clear.chars() {
                        is_string ^= character == '"' && !is_escaped;
                        is_escaped = character == '\\' && !is_escaped;
                    }
                    json.push_str(clear);
                }
                Piece::Sealed(..) if is_string => json.push(PLACEHOLDER_MARKS[0]),
                Piece::Sealed(..) => json.extend(['"', PLACEHOLDER_MARKS[0], '"']),
            }
        }
        if text.contains(PLACEHOLDER_MARKS) {
            return false;
        }
        let Ok(mut body) = parse_json(json.as_bytes()) else { return false };
        let mut clear = Vec::new();
        paths.iter().for_each(|path| path.visit_within_mut(&mut body, &mut |value| take_values(value, &mut clear)));
        clear.is_empty()
    }
    /// Replaces every occurrence of a known value in those parts of an event that may hold any value. Names of steps
    /// and kinds are not among these parts. `event` is the kind of the event.
    fn hide_in_free_members(&self, event: &str, content: &mut Value, replace: &Replace<'_>) -> Option<()> {
        match content {
            Value::Object(members) => members.iter_mut().try_for_each(|(name, member)| {
                // In an answer only headers and body are free: the paths to its sensitive parts must stay readable.
                if let ("answer", Value::Object(answer)) = (name.as_str(), &mut *member) {
                    let free = answer.iter_mut().filter(|(name, _)| matches!(name.as_str(), "headers" | "body"));
                    return free.into_iter().try_for_each(|(_, member)| self.hide(member, replace));
                }
                // The reason why a step was skipped is one of a few labels; all other reasons were written by people.
                let is_free = FREE_MEMBERS.contains(&name.as_str())
                    || (name == "items" && event == "fan_out_opened")
                    || (name == "name" && matches!(event, "lock_queued" | "lock_taken" | "lock_left"))
                    || (name == "reason" && event != "step_skipped");
                match is_free {
                    true => self.hide(member, replace),
                    false => self.hide_in_free_members(event, member, replace),
                }
            }),
            Value::Array(items) => {
                items.iter_mut().try_for_each(|item| self.hide_in_free_members(event, item, replace))
            }
            Value::String(_) | Value::Number(_) | Value::Null | Value::Bool(_) => Some(()),
        }
    }
    /// Replaces every occurrence of a known value in a value; `None` if that fails.
    fn hide(&self, value: &mut Value, replace: &Replace<'_>) -> Option<()> {
        match value {
            Value::String(text) => *text = self.hide_text(text, replace)?,
            Value::Array(items) => items.iter_mut().try_for_each(|item| self.hide(item, replace))?,
            Value::Object(members) => members.values_mut().try_for_each(|member| self.hide(member, replace))?,
            Value::Number(number) => {
                // A sealed number becomes text. That does no harm, because sensitive values are in outputs and bodies,
                // where any type may be.
                if self.known().contains_number(number) {
                    *value = Value::String(replace(FoundValue::Number(number))?);
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
        Some(())
    }
    /// Replaces every occurrence of a known value in a text, except in parts that are sealed already.
    fn hide_text(&self, text: &str, replace: &Replace<'_>) -> Option<String> {
        let replace = |text: &str| replace(FoundValue::Text(text));
        let pieces = pieces(&self.sealer, self.run, text);
        if let [Piece::Clear(text)] = pieces.as_slice() {
            return self.known().hide(text, &replace);
        }
        let hidden = pieces.into_iter().map(|piece| match piece {
            Piece::Sealed(sealed, _) => Some(sealed.to_owned()),
            Piece::Clear(text) => self.known().hide_within(text, &replace),
        });
        hidden.collect()
    }
}

/// A known value that was found in an event.
enum FoundValue<'a> {
    Text(&'a str),
    Number(&'a Number),
}

/// Gives the text that replaces a known value; `None` if that fails.
type Replace<'a> = dyn Fn(FoundValue<'_>) -> Option<String> + 'a;

/// Takes every text and number out of a value and leaves placeholders.
fn take_values(value: &mut Value, values: &mut Vec<Value>) {
    match value {
        Value::String(text) if text.is_empty() || text.starts_with(PLACEHOLDER_MARKS[0]) => {}
        Value::String(_) | Value::Number(_) => {
            let placeholder = format!("{}{}{}", PLACEHOLDER_MARKS[0], values.len(), PLACEHOLDER_MARKS[1]);
            values.push(std::mem::replace(value, Value::String(placeholder)));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| take_values(item, values)),
        Value::Object(members) => members.values_mut().for_each(|member| take_values(member, values)),
        Value::Null | Value::Bool(_) => {}
    }
}

/// Whether events of this run, these or later ones, may hold sealed values.
pub(in crate::engine) fn may_be_sealed(events: &[StoredEvent]) -> bool {
    events.iter().any(|stored| declares_sensitive(&stored.event))
}

/// Whether this event says that the run has sensitive values, so that it or later events may hold sealed ones.
fn declares_sensitive(event: &Event) -> bool {
    match event {
        Event::RunStarted(started) => started.sensitive,
        Event::Child(ChildEvent::Ended { sensitive, .. }) => !sensitive.is_empty(),
        Event::Step(StepEvent::ResultTaken(taken)) => !taken.sensitive.is_empty(),
        Event::Control(ControlEvent::InputAdjusted { sensitive, .. })
        | Event::Wait(WaitEvent::SignalReceived { sensitive, .. }) => *sensitive,
        _ => false,
    }
}

#[cfg(test)]
mod tests;

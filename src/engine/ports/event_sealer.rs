//! Sensitive values of one run on their way to the store and back.
//!
//! Always true: a run's events hold clear values in memory and sealed ones in the store. Each place where a sensitive
//! value stands, as a whole or within a longer text, is replaced by `«sealed:…»`: ciphertext under a key derived from
//! `store_key`, bound to the run. What was sealed for another run, or never, is left as it is. The ciphertext goes with
//! the run's events.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use crate::engine::ports::seal::Sealer;
use crate::names::RunId;
use crate::secret::STARS;
use crate::store::{Append, StoredEvent};
use crate::workflow::{Event, Plan, WITHIN_CHARS_MIN, hidden};

const OPENS: &str = "«sealed:";
const CLOSES: &str = "»";
/// Stands in front of a sealed number, so that it becomes one again.
const NUMBER: char = '\u{0}';

/// Members of events that may hold any value or any text.
const FREE: [&str; 19] = [
    "output", "headers", "request", "intent", "answer", "input", "fields", "payload", "legacy", "instance", "value",
    "values", "response", "message", "why", "expected", "question", "note", "url",
];

/// The sensitive values that a run knows.
#[derive(Clone)]
pub(in crate::engine) struct EventSealer {
    run: RunId,
    plan: Arc<Plan>,
    sealer: Arc<Sealer>,
    /// Longest first.
    values: Vec<String>,
}

impl EventSealer {
    /// Of a run with what its events so far make known; `None` where its plan declares nothing.
    pub fn of<'a>(
        sealer: &Arc<Sealer>,
        plan: &Arc<Plan>,
        run: RunId,
        events: impl IntoIterator<Item = &'a Event>,
    ) -> Option<Self> {
        if plan.sensitive_values().is_empty() {
            return None;
        }
        let mut sealer = Self { run, plan: plan.clone(), sealer: sealer.clone(), values: Vec::new() };
        sealer.learn(events);
        Some(sealer)
    }
    /// More events.
    pub fn learn<'a>(&mut self, events: impl IntoIterator<Item = &'a Event>) {
        let mut values: BTreeSet<String> = std::mem::take(&mut self.values).into_iter().collect();
        for event in events {
            self.plan.sensitive_values().collect(event, &mut values);
        }
        self.values = values.into_iter().collect();
        self.values.sort_by_key(|value| std::cmp::Reverse(value.len()));
    }
    /// The append as it goes to the store; `None` where something sensitive cannot be sealed.
    pub fn seal(&mut self, append: &Append) -> Option<Append> {
        self.learn(append.events.iter().map(|(_, event)| event));
        let mut sealed = append.clone();
        let seal = |text: &str| self.sealer.seal_text(self.run, text).map(|text| format!("{OPENS}{text}{CLOSES}"));
        for (_, event) in &mut sealed.events {
            let mut value = serde_json::to_value(&*event).ok()?;
            let kind = event.kind();
            value.as_object_mut()?.values_mut().try_for_each(|fact| self.free_parts(kind, fact, &seal))?;
            *event = serde_json::from_value(value).ok()?;
        }
        let stars = |_: &str| Some(STARS.to_owned());
        for notice in &mut sealed.webhook_messages {
            self.hide(&mut notice.body, &stars)?;
        }
        if let Some(note) = &mut sealed.summary.note {
            *note = hidden(&self.values, note, &stars)?;
        }
        Some(sealed)
    }
    /// Replaces every place in those parts of an event that may hold any value: what names a step or a kind is none.
    fn free_parts(&self, kind: &str, fact: &mut Value, replace: &dyn Fn(&str) -> Option<String>) -> Option<()> {
        match fact {
            Value::Object(members) => members.iter_mut().try_for_each(|(name, member)| {
                match FREE.contains(&name.as_str()) || (name == "items" && kind == "fan_out_opened") {
                    true => self.hide(member, replace),
                    false => self.free_parts(kind, member, replace),
                }
            }),
            Value::Array(items) => items.iter_mut().try_for_each(|item| self.free_parts(kind, item, replace)),
            Value::String(_) | Value::Number(_) | Value::Null | Value::Bool(_) => Some(()),
        }
    }
    /// Replaces every place in a value; `None` where that fails.
    fn hide(&self, value: &mut Value, replace: &dyn Fn(&str) -> Option<String>) -> Option<()> {
        match value {
            Value::String(text) => *text = hidden(&self.values, text, replace)?,
            Value::Array(items) => items.iter_mut().try_for_each(|item| self.hide(item, replace))?,
            Value::Object(members) => members.values_mut().try_for_each(|member| self.hide(member, replace))?,
            Value::Number(number) => {
                // A number that becomes text would not fit where a number belongs; a value that is sensitive stands in
                // an output or a body, where any type does.
                let text = number.to_string();
                if text.len() >= WITHIN_CHARS_MIN && self.values.contains(&text) {
                    *value = Value::String(replace(&format!("{NUMBER}{text}"))?);
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
        Some(())
    }
}

/// Events as they were before they were sealed, as far as this process has the key.
pub(in crate::engine) fn open(sealer: &Sealer, run: RunId, events: Vec<StoredEvent>) -> Vec<StoredEvent> {
    let is_sealed = matches!(events.first(), Some(StoredEvent { event: Event::RunStarted(s), .. }) if s.sensitive);
    if !is_sealed || !sealer.has_key() {
        return events;
    }
    events.into_iter().map(|stored| opened(sealer, run, stored)).collect()
}

fn opened(sealer: &Sealer, run: RunId, stored: StoredEvent) -> StoredEvent {
    let Ok(mut value) = serde_json::to_value(&stored.event) else { return stored };
    if !unseal(sealer, run, &mut value) {
        return stored;
    }
    match serde_json::from_value(value) {
        Ok(event) => StoredEvent { event, ..stored },
        Err(_) => stored,
    }
}

/// Whether anything was opened.
fn unseal(sealer: &Sealer, run: RunId, value: &mut Value) -> bool {
    match value {
        Value::Array(items) => items.iter_mut().fold(false, |any, item| unseal(sealer, run, item) | any),
        Value::Object(members) => members.values_mut().fold(false, |any, member| unseal(sealer, run, member) | any),
        Value::String(text) if text.contains(OPENS) => {
            let clear = clear(sealer, run, text);
            if clear == *text {
                return false;
            }
            let whole = text.starts_with(OPENS) && text.matches(OPENS).count() == 1 && text.ends_with(CLOSES);
            let number = clear.strip_prefix(NUMBER).filter(|_| whole).and_then(|text| text.parse().ok());
            *value = number.map_or(Value::String(clear), Value::Number);
            true
        }
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fn clear(sealer: &Sealer, run: RunId, text: &str) -> String {
    let mut clear = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(OPENS) {
        clear.push_str(before);
        let Some((sealed, behind)) = after.split_once(CLOSES) else {
            clear.push_str(OPENS);
            rest = after;
            continue;
        };
        match sealer.open_text(run, sealed) {
            Some(value) => clear.push_str(&value),
            None => clear.extend([OPENS, sealed, CLOSES]),
        }
        rest = behind;
    }
    clear.push_str(rest);
    clear
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_is_found_whole_within_texts_and_encoded() {
        let values = ["tok/en 1\"".to_owned(), "17".to_owned()];
        let stars = |text: &str| hidden(&values, text, &|_| Some("*".to_owned())).unwrap();
        assert_eq!(stars("Bearer tok/en 1\""), "Bearer *");
        assert_eq!(stars(&json!({ "t": "tok/en 1\"" }).to_string()), "{\"t\":\"*\"}");
        assert_eq!(stars("http://x/tok%2Fen%201%22?q=1"), "http://x/*?q=1");
        assert_eq!((stars("17"), stars("2017")), ("*".to_owned(), "2017".to_owned()), "short ones only as a whole");
    }

    #[test]
    fn what_was_sealed_is_opened_and_what_looks_like_it_is_left() {
        let sealer = Sealer::new(Some(&crate::secret::Secret::new("k")));
        let (run, other) = (RunId(uuid::Uuid::from_u128(1)), RunId(uuid::Uuid::from_u128(2)));
        let seal = |run, text: &str| format!("{OPENS}{}{CLOSES}", sealer.seal_text(run, text).unwrap());
        let text = format!("a {} b {} c {OPENS}x{CLOSES} {OPENS}", seal(run, "one"), seal(run, "two"));
        assert_eq!(clear(&sealer, run, &text), format!("a one b two c {OPENS}x{CLOSES} {OPENS}"));
        let strange = seal(other, "one");
        assert_eq!(clear(&sealer, run, &strange), strange);
        let mut number = json!({ "n": seal(run, "\u{0}1234567"), "text": seal(run, "#1a") });
        assert!(unseal(&sealer, run, &mut number));
        assert_eq!(number, json!({ "n": 1234567, "text": "#1a" }));
    }
}

//! Values that a rehearsal takes from legacy in place of those that it would draw itself (`inject:`): the time, ids,
//! random numbers. So a reply with values that each arm draws for itself can be compared without rules that ignore
//! them.
//!
//! Always true: only a run in `shadow` has them. They are in no event: such a run is never stored.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::fmt::rfc2822::DateTimeParser;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::Mode;
use crate::expression::{InjectedDraws, Scope, Template};

/// The expressions of `inject:`. They read `request` and `legacy`.
#[derive(Default)]
pub struct Inject {
    /// What `now` is.
    pub now: Option<Template>,
    /// What `uuid("NAME")` is, by name.
    pub uuids: BTreeMap<String, Template>,
    /// What `random("NAME")` is, by name.
    pub randoms: BTreeMap<String, Template>,
}

/// The values of one run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Injected {
    /// When `now` begins; it goes on from there.
    pub now: Option<Timestamp>,
    /// The value of `run.started`, if the run repeats an earlier one: when that one began.
    pub started: Option<Timestamp>,
    /// The values of `uuid()` and `random()`.
    pub draws: Arc<InjectedDraws>,
}

impl Injected {
    /// These values in a run that repeats one that began at this time.
    #[must_use]
    pub fn begun_at(self, started: Timestamp) -> Self {
        Self { now: self.now.or(Some(started)), started: Some(started), ..self }
    }

    /// When a run that began at `begun` reaches a time of its clock. If it repeats an earlier run: as long after its
    /// own start as that time is after the earlier run's start. The distance is rounded up to whole seconds, because
    /// `now` is rounded down: so `now` has reached the time by then.
    pub(super) fn on_clock(&self, begun: Timestamp, time: Timestamp) -> Timestamp {
        let Some(past) = self.started else { return time };
        let after = time.duration_since(past);
        let seconds = after.as_secs() + i64::from(after.subsec_nanos() > 0);
        begun.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(time)
    }
}

impl Inject {
    /// The values of a run that begins; `None` where it draws its own. What legacy's reply does not have, or what is no
    /// time, id or number, is drawn: a reply that refuses the request has none of these values.
    pub fn values(&self, mode: Mode, request: &Arc<Value>, legacy: Option<&Arc<Value>>) -> Option<Arc<Injected>> {
        let legacy = legacy.filter(|_| mode == Mode::Rehearse)?;
        let mut scope = Scope::new();
        scope.set("request", request.clone()).set("legacy", legacy.clone());
        let all = |templates: &BTreeMap<String, Template>, usable: fn(Value) -> Option<Value>| {
            let value =
                |(name, template): (&String, &Template)| Some((name.clone(), usable(template.evaluate(&scope).ok()?)?));
            templates.iter().filter_map(value).collect::<BTreeMap<_, _>>()
        };
        let now = self.now.as_ref().and_then(|now| time(now.evaluate(&scope).ok()?.as_str()?));
        let draws = InjectedDraws { uuids: all(&self.uuids, id), randoms: all(&self.randoms, number) };
        Some(Arc::new(Injected { now, started: None, draws: Arc::new(draws) }))
    }
}

/// A time as RFC 3339 or HTTP write it.
fn time(text: &str) -> Option<Timestamp> {
    text.parse().ok().or_else(|| DateTimeParser::new().parse_timestamp(text).ok())
}

/// An id is a text in expressions, also where legacy's is a number.
fn id(value: Value) -> Option<Value> {
    match value {
        Value::String(text) if !text.is_empty() => Some(Value::String(text)),
        Value::Number(number) => Some(Value::String(number.to_string())),
        _ => None,
    }
}

fn number(value: Value) -> Option<Value> {
    value.is_number().then_some(value)
}

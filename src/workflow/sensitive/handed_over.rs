//! Finds what a rerun takes over and the new run must seal, although its own plan and events do not mark it sensitive.

use serde_json::Value;

use super::known::KnownValues;
use super::path::SensitivePath;
use super::taint::{StepTaint, Taint};
use crate::names::StepId;
use crate::workflow::{Event, Plan, ResultTaken, Run, StepEvent};

/// What was sensitive in a run that is run again.
pub(in crate::workflow) struct HandedOver<'a> {
    run: &'a Run,
    /// `None` where the run has no sensitive values.
    taint: Option<Taint>,
    /// The sensitive values that the run knows and the new run does not.
    lost: KnownValues,
}

impl<'a> HandedOver<'a> {
    /// What was sensitive in `run`, whose successor takes over these results.
    pub fn of(run: &'a Run, plan: &Plan, results: &[ResultTaken]) -> Self {
        let taint = Taint::of(plan, run);
        let lost = match (&taint, &run.collector.0) {
            (None, _) => KnownValues::default(),
            (Some(_), None) => KnownValues::everything(),
            (Some(_), Some(collector)) => {
                let results = results.iter().map(|taken| StepEvent::ResultTaken(Box::new(taken.clone())));
                let first = Event::RunStarted(run.started().clone());
                let events: Vec<_> = std::iter::once(first).chain(results.map(Event::Step)).collect();
                collector.known().without(&collector.known_after(&events))
            }
        };
        Self { run, taint, lost }
    }
    /// Whether a value holds a sensitive value that the new run does not know.
    pub fn holds_sensitive(&self, value: &Value) -> bool {
        !self.lost.paths_in(value, &SensitivePath::whole(), &[]).is_empty()
    }
    /// Marks a result as sensitive as a whole if it quotes a sensitive value that the new run does not know.
    pub fn marked(&self, mut taken: ResultTaken) -> ResultTaken {
        let quotes = |name: &str| taken.fields.get(name).is_some_and(|value| self.holds_sensitive(value));
        if ["output", "headers", "errors"].into_iter().any(quotes) {
            taken.sensitive.push(SensitivePath::whole());
        }
        taken
    }
    /// Whether an input that somebody gave is to be sealed.
    pub fn is_input_sensitive(&self, step: &StepId, input: &Value) -> bool {
        let taint = self.taint.as_ref().and_then(|taint| taint.steps.get(step));
        taint.is_some_and(StepTaint::hides_entered_values) || self.holds_sensitive(input)
    }
    /// Whether the payload of a signal is to be sealed as a whole.
    pub fn is_signal_sensitive(&self, name: &str, payload: &Value) -> bool {
        self.run.sensitive.signals.contains(name) || self.holds_sensitive(payload)
    }
}

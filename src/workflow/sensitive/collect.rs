//! Collects the sensitive values from a run's events, at the paths that its plan declares.

use std::collections::BTreeSet;

use serde_json::Value;

use super::declared::Sensitive;
use super::path::SensitivePath;
use crate::names::StepId;
use crate::workflow::{ChildEvent, Choice, ConflictEvent, Event, Outcome, StepEvent, WaitEvent};

impl Sensitive {
    fn add_output(&self, step: &StepId, output: &Value, into: &mut BTreeSet<String>) {
        let of_step = self.steps.iter().filter(|(of, _)| of == step);
        of_step.flat_map(|(_, paths)| paths).for_each(|path| path.texts(output, &mut |text| into.extend([text])));
    }
    fn add_headers<'a>(&self, headers: impl Iterator<Item = (&'a str, &'a str)>, into: &mut BTreeSet<String>) {
        let declared = headers.filter(|(name, value)| {
            !value.is_empty() && self.headers.iter().any(|header| header.eq_ignore_ascii_case(name))
        });
        into.extend(declared.map(|(_, value)| value.to_owned()));
    }
    fn add_outcome(&self, step: &StepId, outcome: &Outcome, into: &mut BTreeSet<String>) {
        match outcome {
            Outcome::Done { headers, output, .. } | Outcome::Unfit { headers, output, .. } => {
                self.add_output(step, output, into);
                self.add_headers(headers.iter().map(|(name, value)| (name.as_str(), value.as_str())), into);
            }
            Outcome::Rehearsed { output: Some(output), .. } => self.add_output(step, output, into),
            Outcome::Rehearsed { output: None, .. }
            | Outcome::NotDone { .. }
            | Outcome::Unknown { .. }
            | Outcome::Failed { .. } => {}
        }
    }
    /// Adds the declared values in the fields that expressions see of a step.
    fn collect_result(&self, step: &StepId, fields: &Value, into: &mut BTreeSet<String>) {
        match fields.get("output") {
            // Of a `for_each` this is the list of its items' outputs.
            Some(Value::Array(items)) => items.iter().for_each(|item| self.add_output(step, item, into)),
            Some(output) => self.add_output(step, output, into),
            None => {}
        }
        let headers = match fields.get("headers") {
            Some(Value::Array(items)) => items.as_slice(),
            Some(headers) => std::slice::from_ref(headers),
            None => &[],
        };
        let headers = headers.iter().filter_map(Value::as_object).flatten();
        self.add_headers(headers.filter_map(|(name, value)| Some((name.as_str(), value.as_str()?))), into);
    }
    /// Adds the declared values in an event.
    pub fn collect(&self, event: &Event, into: &mut BTreeSet<String>) {
        match event {
            Event::RunStarted(started) => {
                let request = &started.request;
                let mut body = |path: &SensitivePath, body| path.texts(body, &mut |text| into.extend([text]));
                request.get("body").into_iter().for_each(|value| self.body.iter().for_each(|path| body(path, value)));
                let headers = request.get("headers").and_then(Value::as_object).into_iter().flatten();
                self.add_headers(headers.filter_map(|(name, value)| Some((name.as_str(), value.as_str()?))), into);
            }
            Event::StepFinished(finished) => self.add_outcome(&finished.step, &finished.outcome, into),
            Event::Conflict(ConflictEvent::Paused { conflict, gave: Some(gave) }) => {
                self.add_outcome(&conflict.step, gave, into)
            }
            Event::Step(StepEvent::Probed { step, output, .. }) => self.add_output(step, output, into),
            Event::Conflict(ConflictEvent::Resolved { step, choice: Choice::Take { output }, .. }) => {
                self.add_output(step, output, into)
            }
            Event::Step(StepEvent::Computed { step, output }) => self.add_output(step, output, into),
            Event::Wait(WaitEvent::Ended { step, output, .. }) => self.add_output(step, output, into),
            Event::Child(ChildEvent::Ended { step, output, .. }) => self.add_output(step, output, into),
            Event::Step(StepEvent::ResultTaken(taken)) => {
                self.collect_result(&taken.step, &taken.fields, into);
                taken.done.iter().for_each(|done| self.add_output(&taken.step, &done.output, into));
            }
            _ => {}
        }
    }
}

//! Collects the sensitive values from a run's events, at the paths that its plan declares.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::declared::Sensitive;
use super::path::SensitivePath;
use crate::names::{CheckpointId, StepId};
use crate::workflow::{CheckpointEvent, ChildEvent, Choice, ConflictEvent, Event, Outcome, StepEvent, WaitEvent};

impl Sensitive {
    fn add_output(&self, step: &StepId, output: &Value, into: &mut BTreeSet<String>) {
        let of_step = self.steps.iter().filter(|(of, _)| of == step);
        let paths = of_step.flat_map(|(_, paths)| paths);
        paths.for_each(|path| path.texts_in_json(output, &mut |text| into.extend([text])));
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
            Outcome::Rehearsed { output, taken, .. } => {
                output.iter().for_each(|output| self.add_output(step, output, into));
                let headers = taken.iter().flat_map(|taken| &taken.headers);
                self.add_headers(headers.map(|(name, value)| (name.as_str(), value.as_str())), into);
            }
            Outcome::NotDone { .. } | Outcome::Unknown { .. } | Outcome::Failed { .. } => {}
        }
    }
    /// Adds the declared values in the fields under which expressions read a step.
    fn collect_result(&self, step: &StepId, fields: &Value, into: &mut BTreeSet<String>) {
        // The `output` of a `for_each` is the list of its items' outputs.
        if let Some(output) = fields.get("output") {
            self.add_outputs(step, output, into);
        }
        let headers = match fields.get("headers") {
            Some(Value::Array(items)) => items.as_slice(),
            Some(headers) => std::slice::from_ref(headers),
            None => &[],
        };
        let headers = headers.iter().filter_map(Value::as_object).flatten();
        self.add_headers(headers.filter_map(|(name, value)| Some((name.as_str(), value.as_str()?))), into);
    }
    /// Adds the declared values in a step's output, and, if the output is a list, in each of its elements.
    fn add_outputs(&self, step: &StepId, output: &Value, into: &mut BTreeSet<String>) {
        self.add_output(step, output, into);
        let items = output.as_array().into_iter().flatten();
        items.for_each(|item| self.add_output(step, item, into));
    }
    /// Adds the declared values in the payload of a signal that these steps wait for.
    pub fn collect_payload<'a>(
        &self,
        steps: impl Iterator<Item = &'a StepId>,
        payload: &Value,
        into: &mut BTreeSet<String>,
    ) {
        steps.for_each(|step| self.add_output(step, payload, into));
    }
    /// Adds the declared values in an event. `asked` maps each checkpoint to its step.
    pub fn collect(&self, event: &Event, asked: &BTreeMap<CheckpointId, StepId>, into: &mut BTreeSet<String>) {
        match event {
            Event::RunStarted(started) => {
                let request = &started.request;
                let mut body = |path: &SensitivePath, body| path.texts_in_json(body, &mut |text| into.extend([text]));
                for value in ["body", "raw"].into_iter().filter_map(|part| request.get(part)) {
                    self.body.iter().for_each(|path| body(path, value));
                }
                for part in [Some(request), started.legacy.as_ref()].into_iter().flatten() {
                    let headers = part.get("headers").and_then(Value::as_object).into_iter().flatten();
                    self.add_headers(headers.filter_map(|(name, value)| Some((name.as_str(), value.as_str()?))), into);
                }
            }
            Event::StepFinished(finished) => self.add_outcome(&finished.step, &finished.outcome, into),
            Event::Conflict(ConflictEvent::Paused { conflict, unfit_outcome: Some(gave) }) => {
                self.add_outcome(&conflict.step, gave, into)
            }
            Event::Step(StepEvent::Probed { step, output, .. }) => self.add_output(step, output, into),
            Event::Conflict(ConflictEvent::Resolved { step, choice: Choice::Take { output }, .. }) => {
                self.add_output(step, output, into)
            }
            Event::Step(StepEvent::Computed { step, output }) => self.add_outputs(step, output, into),
            Event::Checkpoint(CheckpointEvent::Opened(asked)) => {
                asked.default.iter().for_each(|default| self.add_output(&asked.step, default, into));
            }
            Event::Checkpoint(CheckpointEvent::Answered { checkpoint, answer, .. }) => {
                if let (Some(step), Some(values)) = (asked.get(checkpoint), &answer.values) {
                    self.add_output(step, values, into);
                }
            }
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

//! What a run's events say about sensitive values, in addition to what its plan declares.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::path::SensitivePath;
use crate::names::StepId;
use crate::workflow::{
    ChildEvent, Choice, ConflictEvent, ControlEvent, Event, RunStarted, StepEvent, StepPart, WaitEvent,
};

/// The sensitive values that a run got from others, and the steps for which people entered values.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SensitiveSources {
    /// Sensitive parts of the run's first event: `$.request.body.token`, `$.instance.output`.
    #[serde(rename = "born")]
    pub(super) first_event: BTreeSet<SensitivePath>,
    /// Sensitive parts of the outputs of steps (of each item), as child runs declared them with their answers, or as
    /// an earlier run of the job named them with a result that was taken over.
    pub(super) outputs: BTreeMap<StepId, BTreeSet<SensitivePath>>,
    /// Steps for which somebody gave another input.
    #[serde(rename = "given")]
    pub(super) entered_inputs: BTreeSet<StepId>,
    /// Steps whose output somebody gave.
    #[serde(rename = "taken")]
    pub(super) entered_outputs: BTreeSet<StepId>,
    /// Steps whose input was taken over from an earlier run, and was sensitive there.
    pub(super) sensitive_inputs: BTreeSet<StepId>,
    /// Names of signals whose payload was taken over from an earlier run, and holds what was sensitive there.
    pub(super) signals: BTreeSet<String>,
}

impl SensitiveSources {
    /// The sources in the first event of a run.
    pub(in crate::workflow) fn of_start(started: &RunStarted) -> Self {
        Self { first_event: started.sensitive_paths.iter().cloned().collect(), ..Self::default() }
    }
    /// Whether the run got anything sensitive from others.
    pub fn is_active(&self) -> bool {
        let Self { first_event, outputs, entered_inputs: _, entered_outputs: _, sensitive_inputs, signals } = self;
        !(first_event.is_empty() && outputs.is_empty() && sensitive_inputs.is_empty() && signals.is_empty())
    }
    /// Adds what an event says about sensitive values. Returns whether any of it was new.
    pub fn learn(&mut self, event: &Event) -> bool {
        match event {
            Event::RunStarted(started) => {
                let before = self.first_event.len();
                self.first_event.extend(started.sensitive_paths.iter().cloned());
                self.first_event.len() != before
            }
            Event::Child(ChildEvent::Ended { step, sensitive, .. }) => self.output(step, sensitive),
            Event::Step(StepEvent::ResultTaken(taken)) => self.output(&taken.step, &taken.sensitive),
            Event::Control(ControlEvent::InputAdjusted { step, sensitive: true, .. }) => {
                self.entered_inputs.insert(step.clone()) | self.sensitive_inputs.insert(step.clone())
            }
            Event::Wait(WaitEvent::SignalReceived { name, sensitive: true, .. }) => self.signals.insert(name.clone()),
            Event::Control(ControlEvent::InputAdjusted { step, .. })
            | Event::Conflict(ConflictEvent::Resolved { step, choice: Choice::RetryWith { .. }, .. }) => {
                self.entered_inputs.insert(step.clone())
            }
            Event::Conflict(ConflictEvent::Resolved {
                step,
                part: StepPart::Do | StepPart::Probe,
                choice: Choice::Take { .. },
                ..
            }) => self.entered_outputs.insert(step.clone()),
            _ => false,
        }
    }
    fn output(&mut self, step: &StepId, paths: &[SensitivePath]) -> bool {
        if paths.is_empty() {
            return false;
        }
        let known = self.outputs.entry(step.clone()).or_default();
        let before = known.len();
        known.extend(paths.iter().cloned());
        known.len() != before
    }
    /// Whether somebody gave the input or the output of a step.
    pub(super) fn has_entered_value(&self, step: &StepId) -> bool {
        self.entered_inputs.contains(step) || self.entered_outputs.contains(step)
    }
    /// The sensitive parts of a step's output, as declared by its child runs or named with a result that was taken
    /// over.
    pub fn of_output(&self, step: &StepId) -> Vec<SensitivePath> {
        self.outputs.get(step).into_iter().flatten().cloned().collect()
    }
}

//! What a rerun takes over and has to be sealed in the new run, although that run's plan and events do not say so.

use std::collections::BTreeSet;

use serde_json::Value;

use super::known::KnownValues;
use super::path::SensitivePath;
use super::taint::{StepTaint, Taint};
use crate::names::StepId;
use crate::workflow::{Plan, Run};

/// What was sensitive in a run that is run again.
pub(in crate::workflow) struct HandedOver<'a> {
    run: &'a Run,
    /// `None` where the run has no sensitive values.
    taint: Option<Taint>,
    /// The sensitive values in the results of steps that run again: the new run does not know them.
    lost: KnownValues,
}

impl<'a> HandedOver<'a> {
    /// What was sensitive in `run`, of which the steps `run_again` run again.
    pub fn of<'s>(run: &'a Run, plan: &Plan, run_again: impl Iterator<Item = &'s StepId>) -> Self {
        let (taint, mut lost) = (Taint::of(plan, run), KnownValues::default());
        if let Some(taint) = &taint {
            for step in run_again {
                let mut declared = BTreeSet::new();
                if let Some(fields) = run.outputs.get(step.as_str()) {
                    plan.sensitive_values().collect_result(step, fields.whole(), &mut declared);
                }
                declared.into_iter().for_each(|value| lost.add(value));
                taint.output_texts(run, step, &mut |text| lost.add_computed(text));
            }
            lost.sort();
        }
        Self { run, taint, lost }
    }
    /// Whether a value holds something sensitive that the new run does not know.
    pub fn holds_sensitive(&self, value: &Value) -> bool {
        let mut found = false;
        SensitivePath::whole().texts(value, &mut |text| found |= self.lost.are_in(&text));
        found
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

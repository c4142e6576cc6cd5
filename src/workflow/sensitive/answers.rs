//! Which parts of an answer, and of the input of a child run, are sensitive.

use std::collections::BTreeSet;

use serde_json::Value;

use super::known::KnownValues;
use super::path::SensitivePath;
use super::sources::SensitiveSources;
use super::taint::Taint;
use crate::names::StepId;
use crate::workflow::{AnswerRecord, Payload, Plan, Run};

/// Where a plan declares an answer.
#[derive(Clone, Copy)]
pub(in crate::workflow) enum AnswerPlace<'a> {
    /// An entry of `respond`.
    Respond(usize),
    /// `respond.pending`.
    Pending,
    /// A `fail` step.
    Fail(&'a StepId),
}

/// The answer, with the list of its sensitive parts filled in.
pub(in crate::workflow) fn with_sensitive_parts(
    plan: &Plan,
    run: &Run,
    place: AnswerPlace<'_>,
    mut record: AnswerRecord,
) -> AnswerRecord {
    let Some(taint) = Taint::of(plan, run) else { return record };
    record.sensitive = match place {
        AnswerPlace::Respond(entry) => taint.respond.get(entry).cloned().unwrap_or_default(),
        AnswerPlace::Pending => taint.pending,
        AnswerPlace::Fail(step) => taint.steps.get(step).map(|step| step.answer.clone()).unwrap_or_default(),
    };
    add_known_values(plan, run, &mut record);
    record
}

/// As [`with_sensitive_parts`], for an answer that a person gave.
pub(in crate::workflow) fn persons_answer_with_sensitive_parts(
    plan: &Plan,
    run: &Run,
    mut record: AnswerRecord,
) -> AnswerRecord {
    let Some(taint) = Taint::of(plan, run) else { return record };
    if taint.answer {
        record.sensitive = vec![SensitivePath::of(["body"])];
    }
    add_known_values(plan, run, &mut record);
    record
}

/// Adds the body where it holds a known sensitive value: a service may have returned one at a place that is not
/// declared.
fn add_known_values(plan: &Plan, run: &Run, record: &mut AnswerRecord) {
    let mut declared = BTreeSet::new();
    plan.sensitive_values().collect_run(run, &mut declared);
    let mut values = KnownValues::default();
    declared.into_iter().for_each(|value| values.add(value));
    values.sort();
    let body = match &record.body {
        Payload::Text(text) => values.are_in(text),
        Payload::Empty | Payload::Base64(_) => false,
    };
    let is_covered = record.sensitive.iter().any(|path| path.under(&["body"]).is_some());
    if body && !is_covered {
        record.sensitive.push(SensitivePath::of(["body"]));
    }
}

/// The parts of a run's first event that quote what the plan declares as sensitive in the request. `kept` is what the
/// run keeps of the request: a declared part that nothing reads is not in there, so later only the quotes are known.
pub fn quotes_in_first_event(plan: &Plan, body: &Value, kept: &Value, legacy: Option<&Value>) -> Vec<SensitivePath> {
    let mut known = KnownValues::default();
    plan.sensitive_values().body.iter().for_each(|path| path.texts(body, &mut |text| known.add(text)));
    known.sort();
    let body = SensitivePath::of(["request", "body"]);
    let declared: Vec<_> = plan.sensitive_values().body.iter().map(|path| body.then(path)).collect();
    let mut paths = known.paths_in(kept, &SensitivePath::of(["request"]), &declared);
    paths.extend(legacy.into_iter().flat_map(|legacy| known.paths_in(legacy, &SensitivePath::of(["legacy"]), &[])));
    paths
}

/// The sensitive parts of the first event of a child run that this step begins with this input: those that are
/// sensitive by their origin, and the texts and numbers that hold a known sensitive value, because a service may have
/// returned one at a place that is not declared.
pub fn child_paths(plan: &Plan, run: &Run, step: &StepId, input: &Value) -> Vec<SensitivePath> {
    let Some(taint) = Taint::of(plan, run) else { return Vec::new() };
    let body = SensitivePath::of(["request", "body"]);
    let inputs = taint.steps.get(step).into_iter().flat_map(|step| &step.input).map(|path| body.then(path));
    // The child run gets legacy's reply, too.
    let of_legacy = taint.first_event.iter().filter(|path| path.root() == "legacy").cloned();
    let mut paths: Vec<_> = inputs.chain(of_legacy).collect();
    let known = KnownValues::of_run(plan, run, &taint);
    let mut quotes = known.paths_in(input, &body, &paths);
    if let Some(legacy) = &run.started().legacy {
        quotes.extend(known.paths_in(legacy, &SensitivePath::of(["legacy"]), &paths));
    }
    paths.extend(quotes);
    paths
}

/// The parts of legacy's reply from which runs of this plan rehearse outputs that it declares as sensitive.
pub fn legacy_paths(plan: &Plan) -> Vec<SensitivePath> {
    if plan.sensitive_values().is_empty() {
        return Vec::new();
    }
    let taint = Taint::new(plan, &SensitiveSources::default());
    taint.first_event.into_iter().filter(|path| path.root() == "legacy").collect()
}

/// The sensitive parts of a step's output that a rerun, which takes the output over, cannot derive from the plan: those
/// that child runs declared, and what people entered.
pub(in crate::workflow) fn result_paths(plan: &Plan, run: &Run, step: &StepId) -> Vec<SensitivePath> {
    let mut paths = run.sensitive.of_output(step);
    if run.sensitive.has_entered_value(step)
        && let Some(taint) = Taint::of(plan, run)
    {
        paths.extend(taint.steps.get(step).into_iter().flat_map(|step| step.output.iter().cloned()));
    }
    paths
}

impl Run {
    /// Whether anything of it is sealed in the store.
    pub fn holds_sensitive(&self) -> bool {
        self.started.sensitive || self.sensitive.is_active()
    }
    /// Whether it has values that must not be stored or shown in clear.
    pub fn is_sensitive(&self, plan: &Plan) -> bool {
        !plan.sensitive_values().is_empty() || self.sensitive.is_active()
    }
}

impl Plan {
    /// The sensitive values that it declares.
    pub fn sensitive_values(&self) -> &super::Sensitive {
        &self.sensitive
    }
}

impl AnswerRecord {
    /// The sensitive parts of its body.
    pub fn sensitive_body(&self) -> Vec<SensitivePath> {
        self.sensitive.iter().filter_map(|path| path.under(&["body"])).collect()
    }
}

//! Determines which parts of an answer, and of the input of a child run, are sensitive.

use http::HeaderMap;
use serde_json::Value;

use super::known::KnownValues;
use super::path::{SensitivePath, names};
use super::shown::header_texts;
use super::sources::SensitiveSources;
use super::taint::Taint;
use crate::names::StepId;
use crate::workflow::{AnswerRecord, Payload, Plan, Run};

/// Where a plan declares an answer.
#[derive(Clone, Copy)]
pub(in crate::workflow) enum AnswerPlace<'a> {
    /// An entry of `respond`, by its index.
    Respond(usize),
    /// `respond.pending`.
    Pending,
    /// A `fail` step.
    Fail(&'a StepId),
}

/// Returns the answer with the list of its sensitive parts filled in.
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
    add_quotes(run, &mut record);
    record
}

/// Like [`with_sensitive_parts`], for an answer that a person gave.
pub(in crate::workflow) fn persons_answer_with_sensitive_parts(
    plan: &Plan,
    run: &Run,
    mut record: AnswerRecord,
) -> AnswerRecord {
    let Some(taint) = Taint::of(plan, run) else { return record };
    if taint.answer {
        record.sensitive = vec![SensitivePath::of(["body"])];
    }
    add_quotes(run, &mut record);
    record
}

/// Adds the parts that hold a sensitive value that the run knows: a service may have returned one in a part that is not
/// declared as sensitive.
fn add_quotes(run: &Run, record: &mut AnswerRecord) {
    let (known, body) = (run.known_values(), SensitivePath::of(["body"]));
    let quotes = match &record.body {
        // A parent run reads bytes as one value.
        Payload::Text(text) if record.bytes_as_text => match known.are_in(text) {
            true => vec![body],
            false => Vec::new(),
        },
        Payload::Text(_) => known.paths_in(&record.value(), &body, &record.sensitive),
        Payload::Empty | Payload::Base64(_) => Vec::new(),
    };
    record.sensitive.extend(quotes);
    for (name, value) in &record.headers {
        let at = SensitivePath::of(["headers", name]);
        if known.are_in(value) && !record.sensitive.iter().any(|path| path.covers(&at)) {
            record.sensitive.push(at);
        }
    }
}

/// The values from which the first event of a run is made.
pub struct FirstValues<'a> {
    /// The body of the request.
    pub body: &'a Value,
    /// The headers of the request.
    pub headers: &'a HeaderMap,
    /// What the run keeps of the request.
    pub kept: &'a Value,
    /// What the run keeps of legacy's reply.
    pub legacy: Option<&'a Value>,
    /// The headers of legacy's reply.
    pub legacy_headers: Option<&'a HeaderMap>,
    /// What is known of the instance that the run follows up.
    pub instance: Option<&'a Value>,
}

/// Returns the parts of a run's first event that quote what the plan declares as sensitive in the request or in the
/// headers of legacy's reply. A declared part that nothing reads is not kept, so these quotes could not be found later.
pub fn quotes_in_first_event(plan: &Plan, first: &FirstValues<'_>) -> Vec<SensitivePath> {
    let declared = plan.sensitive_values();
    let mut known = KnownValues::default();
    declared.body.iter().for_each(|path| path.texts_in_json(first.body, &mut |text| known.add(text)));
    for headers in std::iter::once(first.headers).chain(first.legacy_headers) {
        header_texts(headers, &declared.headers).for_each(|text| known.add(text));
    }
    // A child run is given only those of legacy's headers that it reads, within `legacy`.
    let of_legacy = declared.headers.iter().map(|name| SensitivePath::of(["headers", name]));
    of_legacy
        .for_each(|path| first.legacy.into_iter().for_each(|legacy| path.texts(legacy, &mut |text| known.add(text))));
    let body = SensitivePath::of(["request", "body"]);
    let header = |name: &String| ["request", "legacy"].map(|root| SensitivePath::of([root, "headers", name]));
    let headers = declared.headers.iter().flat_map(header);
    let covered: Vec<_> = declared.body.iter().map(|path| body.then(path)).chain(headers).collect();
    let places = [("request", Some(first.kept)), ("legacy", first.legacy), ("instance", first.instance)];
    let found = places.into_iter().filter_map(|(root, value)| Some((SensitivePath::of([root]), value?)));
    found.flat_map(|(at, value)| known.paths_in(value, &at, &covered)).collect()
}

/// Returns the sensitive parts of the first event of the child run that `step` begins with `input`: those that are
/// sensitive by their origin, and the texts and numbers that hold a sensitive value that the run knows, because a
/// service may have returned one in a part that is not declared as sensitive.
pub fn child_paths(plan: &Plan, run: &Run, step: &StepId, input: &Value) -> Vec<SensitivePath> {
    let Some(taint) = Taint::of(plan, run) else { return Vec::new() };
    let body = SensitivePath::of(["request", "body"]);
    let inputs = taint.steps.get(step).into_iter().flat_map(|step| &step.input).map(|path| body.then(path));
    // The child run is given legacy's reply, too.
    let of_legacy = taint.first_event.iter().filter(|path| path.root() == "legacy").cloned();
    let mut paths: Vec<_> = inputs.chain(of_legacy).collect();
    let known = run.known_values();
    let mut quotes = known.paths_in(input, &body, &paths);
    if let Some(legacy) = &run.started().legacy {
        quotes.extend(known.paths_in(legacy, &SensitivePath::of(["legacy"]), &paths));
    }
    paths.extend(quotes);
    paths
}

/// Returns the sensitive parts of legacy's reply that runs of this plan read: declared headers, and what `rehearse:`
/// reads for outputs that the plan declares as sensitive.
pub fn legacy_paths(plan: &Plan) -> Vec<SensitivePath> {
    if plan.sensitive_values().is_empty() {
        return Vec::new();
    }
    let taint = Taint::new(plan, &SensitiveSources::default());
    let is_read = |path: &SensitivePath| plan.reads.iter().any(|read| path.under(&names(&read.0)).is_some());
    taint.first_event.into_iter().filter(|path| path.root() == "legacy" && is_read(path)).collect()
}

/// Returns the sensitive parts of a step's output that a rerun, which takes the output over, cannot derive from the
/// plan: those that child runs declared, and those that people entered.
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
    /// Whether any value of the run is sealed in the store.
    pub fn holds_sensitive(&self) -> bool {
        self.started.sensitive || self.sensitive.is_active()
    }
    /// Whether the run has values that must not be stored or shown in clear.
    pub fn is_sensitive(&self, plan: &Plan) -> bool {
        !plan.sensitive_values().is_empty() || self.sensitive.is_active()
    }
}

impl Plan {
    /// What the plan declares as sensitive.
    pub fn sensitive_values(&self) -> &super::Sensitive {
        &self.sensitive
    }
}

impl Run {
    /// Returns the paths, below `at`, of the parts of `value` that hold a sensitive value that the run knows; those
    /// that `covered` covers are left out.
    pub fn quotes_in(&self, value: &Value, at: &SensitivePath, covered: &[SensitivePath]) -> Vec<SensitivePath> {
        self.known_values().paths_in(value, at, covered)
    }
}

impl AnswerRecord {
    /// The sensitive parts of the body.
    pub fn sensitive_body(&self) -> Vec<SensitivePath> {
        self.sensitive.iter().filter_map(|path| path.under(&["body"])).collect()
    }
}

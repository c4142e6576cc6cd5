//! Follows sensitive values through a plan: from the declarations, through every expression that reads them.
//!
//! Always true: the result of an expression that reads something sensitive is sensitive as a whole. An expression that
//! is only a path is an exception: only the sensitive parts of the value at the path are. A service's answer is not
//! computed by the plan, and is sensitive only where that is declared.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use super::path::{SensitivePath, names};
use super::sources::SensitiveSources;
use crate::expression::{Expression, ReadPath, Template};
use crate::names::StepId;
use crate::workflow::{CallBody, Plan, Rehearsal, ResponseTemplate, RiskSource, Step, StepKind, Until};

/// The root of the paths to a step's own output as its `undo` and `probe` read it: in a `for_each`, the output of one
/// item instead of the list.
const OWN: &str = "own output";
/// What a call with the body `raw: ${request.raw}` reads.
static RAW_BODY: LazyLock<[ReadPath; 1]> = LazyLock::new(|| [ReadPath(vec!["request".into(), "raw".into()])]);

/// Sensitive values of a plan's runs, as paths from the roots of its expressions (`$.steps.token.output.access_token`).
pub(super) struct Propagation<'a> {
    plan: &'a Plan,
    pub known: BTreeSet<SensitivePath>,
    /// Sensitive parts of each step's output; for a `for_each`, of each item's output.
    pub outputs: BTreeMap<StepId, BTreeSet<SensitivePath>>,
    /// Sensitive parts of the items of a `for_each`.
    pub items: BTreeMap<StepId, BTreeSet<SensitivePath>>,
}

impl<'a> Propagation<'a> {
    pub fn new(plan: &'a Plan, sources: &SensitiveSources) -> Self {
        let mut propagation = Self { plan, known: BTreeSet::new(), outputs: BTreeMap::new(), items: BTreeMap::new() };
        propagation.add_declared();
        propagation.add_sources(sources);
        loop {
            let before = propagation.size();
            plan.steps.iter().for_each(|step| propagation.add_step(step, sources));
            if propagation.size() == before {
                return propagation;
            }
        }
    }

    fn size(&self) -> usize {
        let count = |all: &BTreeMap<StepId, BTreeSet<SensitivePath>>| all.values().map(BTreeSet::len).sum::<usize>();
        self.known.len() + count(&self.outputs) + count(&self.items)
    }

    fn add_declared(&mut self) {
        let declared = self.plan.sensitive_values();
        let body = SensitivePath::of(["request", "body"]);
        self.known.extend(declared.body.iter().map(|path| body.then(path)));
        for header in &declared.headers {
            self.known.insert(SensitivePath::of(["request", "headers", header]));
            self.known.insert(SensitivePath::of(["legacy", "headers", header]));
            let of_step = |step: &Step| SensitivePath::of(["steps", step.id.as_str(), "headers", header]);
            self.known.extend(self.plan.steps.iter().map(of_step));
        }
        for (step, paths) in &declared.steps {
            paths.iter().for_each(|path| self.add_output(step, path.clone()));
            if let Some((_, step)) = self.plan.step(step) {
                self.known.extend(self.read_from_legacy(step, paths));
            }
        }
        self.add_raw_body();
    }

    fn add_sources(&mut self, sources: &SensitiveSources) {
        self.known.extend(sources.first_event.iter().cloned());
        for (step, paths) in &sources.outputs {
            paths.iter().for_each(|path| self.add_output(step, path.clone()));
        }
        for step in &self.plan.steps {
            if let StepKind::Wait(wait) = &step.kind
                && let Until::Signal { name, .. } = &wait.until
                && sources.signals.contains(name)
            {
                self.add_output(&step.id, SensitivePath::whole());
            }
        }
        self.add_raw_body();
    }

    /// Adds the raw body of the request if the body has sensitive parts.
    fn add_raw_body(&mut self) {
        if self.known.iter().any(|path| path.under(&["request", "body"]).is_some()) {
            self.known.insert(SensitivePath::of(["request", "raw"]));
        }
    }

    /// Returns the parts of legacy's reply from which a rehearsed output takes these sensitive values.
    fn read_from_legacy(&self, step: &Step, paths: &[SensitivePath]) -> Vec<SensitivePath> {
        let mut found = Vec::new();
        for template in rehearsals(step) {
            for (at, expression, _) in template.expressions() {
                let part = SensitivePath::at(&at, SensitivePath::whole());
                let meets = paths.iter().any(|path| path.overlaps(&part));
                let legacy = expression.reads().iter().filter(|read| meets && read.root() == "legacy");
                found.extend(legacy.map(|read| SensitivePath::of(names(&read.0))));
            }
        }
        found
    }

    fn add_output(&mut self, step: &StepId, path: SensitivePath) {
        let output = SensitivePath::of(["steps", step.as_str(), "output"]);
        // The output of a `for_each` is the list of its items' outputs.
        let has_items = self.plan.step(step).is_some_and(|(_, step)| self.has_items(step));
        self.known.insert(if has_items { output.each() } else { output }.then(&path));
        self.known.insert(SensitivePath::of([OWN, step.as_str(), "output"]).then(&path));
        self.outputs.entry(step.clone()).or_default().insert(path);
    }

    fn add_step(&mut self, step: &Step, sources: &SensitiveSources) {
        if let Some(for_each) = &step.for_each {
            for path in self.template(None, &for_each.items) {
                let path = path.within_element();
                self.known.insert(SensitivePath::of(["item", step.id.as_str()]).then(&path));
                self.items.entry(step.id.clone()).or_default().insert(path);
            }
        }
        for path in
            outputs(step).into_iter().flat_map(|template| self.template(Some(step), template)).collect::<Vec<_>>()
        {
            self.add_output(&step.id, path);
        }
        let reads_sensitive = self.is_read_by(step);
        if reads_sensitive {
            // The reason why a step failed may quote what it read.
            self.known.insert(SensitivePath::of(["steps", step.id.as_str(), "errors"]));
            self.known.insert(SensitivePath::of(["failed"]));
        }
        // People may enter values in place of a computed sensitive value, or in answer to a question that shows one.
        let may_be_entered = match &step.kind {
            StepKind::Set(_) => sources.entered_inputs.contains(&step.id),
            StepKind::Checkpoint(_) => true,
            StepKind::Call(_) | StepKind::Wait(_) | StepKind::Run(_) | StepKind::Fail(_) => false,
        };
        let is_entered = may_be_entered && (reads_sensitive || sources.sensitive_inputs.contains(&step.id));
        // An output that a person gives may have any form, so the declared paths need not lead to the sensitive values
        // in it.
        let is_taken =
            sources.entered_outputs.contains(&step.id) && (reads_sensitive || self.outputs.contains_key(&step.id));
        if is_entered || is_taken {
            self.add_output(&step.id, SensitivePath::whole());
        }
        // An expression that reads a step may get the output of its fallback.
        if let Some(by) = step.failure_handling.fallback.and_then(|by| self.plan.steps.get(by.0)) {
            for path in self.outputs.get(&by.id).cloned().unwrap_or_default() {
                self.add_output(&step.id, path);
            }
        }
    }

    /// The step whose items a step sees as `item`: the step itself, or the one that it replaces.
    pub fn item_owner<'s>(&'s self, step: &'s Step) -> &'s Step {
        let mut owner = step;
        for _ in &self.plan.steps {
            match owner
                .replaces
                .filter(|_| owner.for_each.is_none())
                .and_then(|original| self.plan.steps.get(original.0))
            {
                Some(original) => owner = original,
                None => break,
            }
        }
        owner
    }

    /// Whether the step's output is a list of its items' outputs.
    pub fn has_items(&self, step: &Step) -> bool {
        self.item_owner(step).for_each.is_some()
    }

    /// Returns the sensitive parts of the value that an expression of `step` reads at this path.
    fn parts_of(&self, step: Option<&Step>, read: &ReadPath) -> Vec<SensitivePath> {
        let all = names(&read.0);
        let rest = all.get(1..).unwrap_or_default();
        let path = match (read.root(), step) {
            ("item", Some(step)) => [&["item", self.item_owner(step).id.as_str()], rest].concat(),
            // The output that an undo or a probe reads.
            ("output", Some(step)) => [&[OWN, step.id.as_str()], &all[..]].concat(),
            ("headers", Some(step)) => [&["steps", step.id.as_str()], &all[..]].concat(),
            _ => all,
        };
        self.known.iter().filter_map(|known| known.under(&path)).collect()
    }

    /// Whether any of these paths leads to something sensitive.
    pub fn reads_sensitive(&self, step: Option<&Step>, reads: &[ReadPath]) -> bool {
        reads.iter().any(|read| !self.parts_of(step, read).is_empty())
    }

    /// Whether any expression of a step reads something sensitive.
    pub fn is_read_by(&self, step: &Step) -> bool {
        reads(step).into_iter().any(|reads| self.reads_sensitive(Some(step), reads))
    }

    /// The sensitive parts of a template's value.
    pub fn template(&self, step: Option<&Step>, template: &Template) -> Vec<SensitivePath> {
        let mut found = Vec::new();
        for (at, expression, alone) in template.expressions() {
            let parts = match expression.as_path().filter(|_| alone) {
                Some(read) => self.parts_of(step, read),
                None if self.reads_sensitive(step, expression.reads()) => vec![SensitivePath::whole()],
                None => Vec::new(),
            };
            found.extend(parts.into_iter().map(|part| SensitivePath::at(&at, part)));
        }
        found
    }

    /// The sensitive parts of an answer: `$.headers.location`, `$.body.token`.
    pub fn answer(&self, step: Option<&Step>, answer: &ResponseTemplate) -> Vec<SensitivePath> {
        let header = |(name, template): &(http::HeaderName, Template)| {
            let reads_sensitive = self.reads_sensitive(step, template.reads());
            reads_sensitive.then(|| SensitivePath::of(["headers", name.as_str()]))
        };
        let body = answer.body.iter().flat_map(|body| self.template(step, body));
        let body = body.map(|path| SensitivePath::of(["body"]).then(&path));
        answer.headers.iter().filter_map(header).chain(body).collect()
    }
}

/// The templates that compute a step's output if no service gives the output.
fn outputs(step: &Step) -> Vec<&Template> {
    let mut all = rehearsals(step);
    match &step.kind {
        StepKind::Set(template) => all.push(template),
        StepKind::Checkpoint(question) => all.extend(&question.default),
        StepKind::Call(_) | StepKind::Wait(_) | StepKind::Run(_) | StepKind::Fail(_) => {}
    }
    all.extend(step.probe.as_ref().and_then(|probe| probe.output.as_ref()));
    all
}

fn rehearsals(step: &Step) -> Vec<&Template> {
    let rehearse = match &step.kind {
        StepKind::Call(call) => call.rehearse.as_ref().and_then(Rehearsal::template),
        StepKind::Checkpoint(question) => question.rehearse.as_ref(),
        StepKind::Wait(wait) => wait.rehearse.as_ref(),
        StepKind::Run(child) => child.rehearse.as_ref(),
        StepKind::Set(_) | StepKind::Fail(_) => None,
    };
    rehearse.into_iter().collect()
}

/// The paths that each expression of a step reads.
fn reads(step: &Step) -> Vec<&[ReadPath]> {
    let mut all: Vec<&[ReadPath]> = Vec::new();
    all.extend(step.condition.as_ref().map(Expression::reads));
    all.extend(step.for_each.as_ref().map(|for_each| for_each.items.reads()));
    all.extend(outputs(step).into_iter().map(Template::reads));
    match &step.kind {
        StepKind::Set(_) => {}
        StepKind::Call(call) => all.extend(call_reads(call)),
        StepKind::Checkpoint(question) => all.extend(question.asking.question.as_ref().map(Template::reads)),
        StepKind::Wait(wait) => match &wait.until {
            Until::For(template) | Until::At(template) => all.push(template.reads()),
            Until::Signal { filter, .. } => all.extend(filter.as_ref().map(Expression::reads)),
        },
        StepKind::Run(child) => all.extend(child.input.as_ref().map(Template::reads)),
        StepKind::Fail(answer) => {
            all.push(answer.status.reads());
            all.extend(answer.headers.iter().map(|(_, template)| template.reads()));
            all.extend(answer.body.as_ref().map(Template::reads));
        }
    }
    if let Some(RiskSource::Computed(template)) = &step.safeguards.risk {
        all.push(template.reads());
    }
    all.extend(step.safeguards.asking.question.as_ref().map(Template::reads));
    all.extend(step.safeguards.lock.as_ref().and_then(|lock| lock.key.as_ref()).map(Template::reads));
    all.extend(step.undo.iter().flat_map(|undo| call_reads(undo)));
    if let Some(probe) = &step.probe {
        all.extend(call_reads(&probe.call));
        all.push(probe.done.reads());
    }
    all
}

fn call_reads(call: &crate::workflow::Call) -> Vec<&[ReadPath]> {
    let mut all = vec![call.url.reads()];
    all.extend(call.headers.iter().map(|(_, template)| template.reads()));
    match &call.body {
        CallBody::Empty => {}
        CallBody::Raw => all.push(&*RAW_BODY),
        CallBody::Json(template) | CallBody::Text(template) => all.push(template.reads()),
        CallBody::Form(fields) => all.extend(fields.iter().map(|(_, template)| template.reads())),
    }
    all
}

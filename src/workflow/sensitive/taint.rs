//! Which parts of a run's events are sensitive by their origin.

use std::collections::{BTreeMap, BTreeSet};

use super::path::SensitivePath;
use super::propagation::Propagation;
use super::sources::SensitiveSources;
use crate::expression::Template;
use crate::names::StepId;
use crate::workflow::{Call, CallBody, Plan, Run, Step, StepKind, StepPart, Until};

/// The sensitive parts of a run's events, by step.
pub struct Taint {
    /// Sensitive parts of the run's first event: `$.request.body.card`.
    pub(super) first_event: Vec<SensitivePath>,
    pub(super) steps: BTreeMap<StepId, StepTaint>,
    /// Sensitive parts of the payloads of signals, by the signals' names.
    pub(super) signals: BTreeMap<String, BTreeSet<SensitivePath>>,
    /// Headers of requests and replies, in lower case.
    pub(super) headers: Vec<String>,
    /// Whether an answer reads anything sensitive.
    pub(super) answer: bool,
    /// The sensitive parts of the answers of `respond`, and of `respond.pending`.
    pub(super) respond: Vec<Vec<SensitivePath>>,
    pub(super) pending: Vec<SensitivePath>,
}

/// The sensitive parts of one step.
#[derive(Clone, Debug, Default)]
pub(super) struct StepTaint {
    /// Whether an expression of the step reads something sensitive, which the reason of a failure may then quote.
    pub reads_sensitive: bool,
    /// Sensitive parts of each item. A fallback of items has those of the step that it replaces.
    pub items: Vec<SensitivePath>,
    /// Sensitive parts of the output (of each item's output).
    pub output: Vec<SensitivePath>,
    pub has_items: bool,
    /// Whether a review shows the items themselves, because no JSON body is made from them.
    pub reviews_items: bool,
    /// Whether what people are asked about the step is sensitive.
    pub question: bool,
    /// Whether the name of the lock is sensitive.
    pub lock: bool,
    /// Whether the input was given in an earlier run of the job, and was sensitive there.
    pub takes_over_sensitive_input: bool,
    /// Whether the step runs another workflow.
    pub runs_child: bool,
    /// Sensitive parts of the input of the child run.
    pub input: Vec<SensitivePath>,
    pub call: CallTaint,
    pub probe: CallTaint,
    pub undo: CallTaint,
    /// Sensitive parts of the answer with which a `fail` step ends the run.
    pub answer: Vec<SensitivePath>,
}

/// The sensitive parts of a call's request.
#[derive(Clone, Debug, Default)]
pub(super) struct CallTaint {
    pub url: bool,
    /// The names of the request's sensitive headers.
    pub headers: Vec<String>,
    pub body: Vec<SensitivePath>,
}

impl CallTaint {
    pub fn is_empty(&self) -> bool {
        !self.url && self.headers.is_empty() && self.body.is_empty()
    }
}

impl StepTaint {
    /// Whether values that people enter for the step (an input, an output, a reason) are sensitive.
    pub fn hides_entered_values(&self) -> bool {
        self.reads_sensitive || self.takes_over_sensitive_input || !self.output.is_empty()
    }
    pub fn of_part(&self, part: StepPart) -> &CallTaint {
        match part {
            StepPart::Do => &self.call,
            StepPart::Probe => &self.probe,
            StepPart::Undo => &self.undo,
        }
    }
}

impl Taint {
    /// Computes the taint of a run of this plan with these sources.
    pub fn new(plan: &Plan, sources: &SensitiveSources) -> Self {
        let propagation = Propagation::new(plan, sources);
        let is_of_first_event = |path: &&SensitivePath| matches!(path.root(), "request" | "legacy" | "instance");
        let mut steps: BTreeMap<StepId, StepTaint> =
            plan.steps.iter().map(|step| (step.id.clone(), of_step(&propagation, step))).collect();
        for (id, step) in &mut steps {
            step.takes_over_sensitive_input = sources.sensitive_inputs.contains(id);
            if sources.entered_inputs.contains(id) && step.hides_entered_values() {
                step.input = vec![SensitivePath::whole()];
                step.call.body = vec![SensitivePath::whole()];
            }
        }
        let mut signals: BTreeMap<String, BTreeSet<SensitivePath>> = BTreeMap::new();
        for step in &plan.steps {
            if let StepKind::Wait(wait) = &step.kind
                && let Until::Signal { name, .. } = &wait.until
                && let Some(taint) = steps.get(&step.id)
            {
                signals.entry(name.clone()).or_default().extend(taint.output.iter().cloned());
            }
        }
        let respond: Vec<_> = plan.respond.iter().map(|entry| propagation.answer(None, &entry.answer)).collect();
        let pending = plan.pending.as_ref().map(|answer| propagation.answer(None, answer)).unwrap_or_default();
        Self {
            first_event: propagation.known.iter().filter(is_of_first_event).cloned().collect(),
            signals,
            headers: plan.sensitive_values().headers.clone(),
            answer: !pending.is_empty() || respond.iter().any(|entry| !entry.is_empty()),
            respond,
            pending,
            steps,
        }
    }
    /// Computes the taint of a run; `None` if the run has no sensitive values.
    pub fn of(plan: &Plan, run: &Run) -> Option<Self> {
        run.is_sensitive(plan).then(|| Self::new(plan, run.sensitive_sources()))
    }
    /// Whether an expression of the step reads something sensitive.
    pub fn is_read_by(&self, step: &StepId) -> bool {
        self.steps.get(step).is_some_and(|step| step.reads_sensitive)
    }
    /// Whether an answer reads something sensitive.
    pub fn is_read_by_answer(&self) -> bool {
        self.answer
    }
    /// Whether the name of the step's lock is sensitive.
    pub fn has_sensitive_lock(&self, step: &StepId) -> bool {
        self.steps.get(step).is_some_and(|step| step.lock)
    }
    /// The sensitive ones among the names of the locks that the run holds or queues for.
    pub fn sensitive_lock_names<'a>(&'a self, run: &'a Run) -> impl Iterator<Item = &'a str> {
        run.queued_locks().filter(|(step, ..)| self.has_sensitive_lock(step)).map(|(_, _, name)| name)
    }
    /// The sensitive parts of the request's body.
    pub fn request_body(&self) -> Vec<SensitivePath> {
        self.first_event.iter().filter_map(|path| path.under(&["request", "body"])).collect()
    }
}

fn of_step(propagation: &Propagation<'_>, step: &Step) -> StepTaint {
    let reads_sensitive = |template: &Option<Template>| {
        template.as_ref().is_some_and(|template| propagation.reads_sensitive(Some(step), template.reads()))
    };
    let all = |paths: Option<&BTreeSet<SensitivePath>>| paths.into_iter().flatten().cloned().collect::<Vec<_>>();
    let mut taint = StepTaint {
        reads_sensitive: propagation.is_read_by(step),
        items: all(propagation.items.get(&propagation.item_owner(step).id)),
        output: all(propagation.outputs.get(&step.id)),
        has_items: propagation.has_items(step),
        question: reads_sensitive(&step.safeguards.asking.question),
        lock: step.safeguards.lock.as_ref().is_some_and(|lock| reads_sensitive(&lock.key)),
        ..StepTaint::default()
    };
    match &step.kind {
        StepKind::Call(call) => {
            taint.call = of_call(propagation, step, call);
            taint.reviews_items = !matches!(call.body, CallBody::Json(_));
        }
        StepKind::Checkpoint(question) => taint.question |= reads_sensitive(&question.asking.question),
        StepKind::Run(child) => {
            taint.runs_child = true;
            taint.input = child.input.as_ref().map(|input| propagation.template(Some(step), input)).unwrap_or_default();
        }
        StepKind::Fail(answer) => taint.answer = propagation.answer(Some(step), answer),
        StepKind::Set(_) | StepKind::Wait(_) => {}
    }
    taint.probe = step.probe.as_ref().map(|probe| of_call(propagation, step, &probe.call)).unwrap_or_default();
    taint.undo = step.undo.as_ref().map(|undo| of_call(propagation, step, undo)).unwrap_or_default();
    taint
}

fn of_call(propagation: &Propagation<'_>, step: &Step, call: &Call) -> CallTaint {
    let reads_sensitive = |template: &Template| propagation.reads_sensitive(Some(step), template.reads());
    let whole = |yes: bool| if yes { vec![SensitivePath::whole()] } else { Vec::new() };
    let headers = call.headers.iter().filter(|(_, template)| reads_sensitive(template));
    CallTaint {
        url: propagation.reads_sensitive(Some(step), call.url.reads()),
        headers: headers.map(|(name, _)| name.as_str().to_owned()).collect(),
        body: match &call.body {
            CallBody::Empty => Vec::new(),
            CallBody::Json(template) => propagation.template(Some(step), template),
            CallBody::Text(template) => whole(reads_sensitive(template)),
            CallBody::Form(fields) => whole(fields.iter().any(|(_, template)| reads_sensitive(template))),
            CallBody::Raw => whole(propagation.known.contains(&SensitivePath::of(["request", "raw"]))),
        },
    }
}

//! Services, secrets and workflows that a plan refers to and that are not in the files in force.
//!
//! Always true: a run keeps its plan, so a reload may remove something that it needs. Then nothing is sent and nothing
//! fails: the run pauses with a conflict that names what is missing. It goes on by itself once a reload brings it back;
//! a person may choose otherwise before that.

use std::collections::BTreeSet;

use super::calls::{RunningStep, StepState, UnknownReply};
use super::conflict::conflict;
use super::rules::{CheckpointStep, RiskSource, Safeguards, Until};
use super::{
    Call, CallBody, Conflict, ConflictEvent, ConflictKind, DecisionInputs, Event, Failure, FailureKind, Missing, Plan,
    Probe, ResponseTemplate, Run, Step, StepKind, StepPart,
};
use crate::expression::{ExpressionError, ReadPath};
use crate::names::{ServiceName, StepId};

/// The name under which a reload resolves such a conflict.
pub(super) const RELOAD: &str = "the files in force";

/// The phrase in a run's note by which such a conflict is recognised.
const NOTE_PHRASE: &str = "which is not in the files in force";

/// Whether a run's note says that it waits for something that the files do not have.
pub fn is_noted(note: &str) -> bool {
    note.contains(NOTE_PHRASE)
}

/// Whether the files in force lack it.
fn is_absent(missing: &Missing, inputs: &DecisionInputs) -> bool {
    match missing {
        Missing::Service(name) => inputs.base(name).is_none(),
        Missing::Secret(name) => inputs.masked_secrets.get(name).is_none(),
        Missing::Workflow(name) => inputs.workflows.as_ref().is_some_and(|workflows| !workflows.contains(name)),
    }
}

/// What a path that is read leads to, where files may lack it.
fn of_read(path: &ReadPath) -> Option<Missing> {
    let name = path.part(0)?;
    match path.root() {
        "services" => Some(Missing::Service(ServiceName::new(name))),
        "secrets" => Some(Missing::Secret(name.to_owned())),
        _ => None,
    }
}

/// The first thing that these paths lead to and the files do not have.
pub(super) fn of_reads(reads: &[ReadPath], inputs: &DecisionInputs) -> Option<Missing> {
    reads.iter().filter_map(of_read).find(|missing| is_absent(missing, inputs))
}

/// What the files lack, where that is why an expression that reads these paths has no value. The path that the error
/// names comes first: the expression may read others in a branch that is not taken.
pub(super) fn of_error(reads: &[ReadPath], error: &ExpressionError, inputs: &DecisionInputs) -> Option<Missing> {
    let absent = |path: &&ReadPath| error.absent.as_ref().is_some_and(|absent| *absent == path.to_string());
    let named = reads.iter().filter(absent).filter_map(of_read).find(|missing| is_absent(missing, inputs));
    named.or_else(|| of_reads(reads, inputs))
}

/// The first thing that a call needs and the files do not have.
pub fn of_call(call: &Call, inputs: &DecisionInputs) -> Option<Missing> {
    needed_by_call(call).find(|missing| is_absent(missing, inputs))
}

/// What a call needs of the files: its service, and what its URL, headers and body read.
fn needed_by_call(call: &Call) -> impl Iterator<Item = Missing> {
    let body: Vec<&[ReadPath]> = match &call.body {
        CallBody::Empty | CallBody::Raw => Vec::new(),
        CallBody::Json(template) | CallBody::Text(template) => vec![template.reads()],
        CallBody::Form(fields) => fields.iter().map(|(_, template)| template.reads()).collect(),
    };
    let headers = call.headers.iter().map(|(_, template)| template.reads());
    let reads = headers.chain([call.url.reads()]).chain(body).flatten();
    std::iter::once(Missing::Service(call.service.clone())).chain(reads.filter_map(of_read))
}

/// The first thing that one of a step's calls, or the run that it begins, needs and the files do not have. The values
/// that a step reads otherwise are found missing when they are evaluated ([`of_error`]), except those of a probe: it is
/// not sent if its reply could not be judged.
pub(super) fn of_part(step: &Step, part: StepPart, inputs: &DecisionInputs) -> Option<Missing> {
    let needed: Box<dyn Iterator<Item = Missing>> = match (&step.kind, part, &step.probe) {
        (StepKind::Run(child), StepPart::Do, _) => Box::new(std::iter::once(Missing::Workflow(child.workflow.clone()))),
        (_, StepPart::Probe, Some(probe)) => Box::new(needed_by_probe(probe)),
        _ => Box::new(needed_by_call(step.call(part)?)),
    };
    needed.into_iter().find(|missing| is_absent(missing, inputs))
}

fn needed_by_probe(probe: &Probe) -> impl Iterator<Item = Missing> {
    let output = probe.output.as_ref().map_or(&[][..], |output| output.reads());
    let judged = probe.done.reads().iter().chain(output);
    needed_by_call(&probe.call).chain(judged.filter_map(of_read))
}

/// What of a step's work may still be evaluated or sent.
#[derive(Clone, Copy, Default)]
struct WorkToCome {
    /// Its `if` and its `for_each`.
    entry: bool,
    /// Its risk, the question about it, and its lock.
    safeguards: bool,
    /// What it does.
    action: bool,
}

impl WorkToCome {
    const ALL: Self = Self { entry: true, safeguards: true, action: true };
    const NONE: Self = Self { entry: false, safeguards: false, action: false };

    fn of(run: &Run, step: &Step) -> Self {
        if run.is_ending() {
            return Self::NONE;
        }
        match run.steps.get(&step.id) {
            Some(StepState::Done { .. } | StepState::Skipped | StepState::Failed | StepState::Replaced { .. }) => {
                Self::NONE
            }
            Some(StepState::Open(open)) => Self::of_open(open),
            None => match (run.interactions.waits.get(&step.id), &step.kind) {
                // Its filter is evaluated for each signal that comes.
                (Some(wait), _) => Self { action: wait.signal.is_some(), ..Self::NONE },
                (None, StepKind::Checkpoint(_)) if run.interactions.is_asked_about(&step.id, None) => Self::NONE,
                (None, _) => Self::ALL,
            },
        }
    }

    fn of_open(open: &RunningStep) -> Self {
        let begins = match (&open.items, &open.replaced_items) {
            (None, _) => open.nothing_begun(),
            (Some(_), Some(_)) => true,
            (Some(_), None) => !open.queued.is_empty() || (open.next as usize) < open.all(),
        };
        Self {
            // Of the fallback of items, `if` is evaluated for each item.
            entry: open.replaced_items.is_some(),
            safeguards: begins || open.calls.values().any(|call| call.renew),
            // A call may be sent again; a child run that has begun needs nothing of the files here.
            action: begins || !open.calls.is_empty(),
        }
    }
}

/// What the work of a step that is to come needs of the files; its probe and its undo are not part of it.
fn needed_by_work(step: &Step, to_come: WorkToCome) -> Vec<Missing> {
    let Step { condition, for_each, kind, safeguards, .. } = step;
    let Safeguards { risk, asking, lock, .. } = safeguards;
    let mut reads: Vec<&[ReadPath]> = Vec::new();
    if to_come.entry {
        reads.extend(condition.as_ref().map(|condition| condition.reads()));
        reads.extend(for_each.as_ref().map(|for_each| for_each.items.reads()));
    }
    if to_come.safeguards {
        reads.extend(match risk {
            Some(RiskSource::Computed(risk)) => Some(risk.reads()),
            Some(RiskSource::Fixed(_)) | None => None,
        });
        reads.extend(asking.question.as_ref().map(|question| question.reads()));
        reads.extend(lock.as_ref().and_then(|lock| lock.key.as_ref()).map(|key| key.reads()));
    }
    let mut needed = Vec::new();
    match kind {
        _ if !to_come.action => {}
        StepKind::Call(call) => needed.extend(needed_by_call(call)),
        StepKind::Set(value) => reads.push(value.reads()),
        StepKind::Checkpoint(question) => {
            let CheckpointStep { asking, default, .. } = &**question;
            reads.extend([&asking.question, default].into_iter().flatten().map(|template| template.reads()));
        }
        StepKind::Wait(wait) => reads.extend(match &wait.until {
            Until::For(template) | Until::At(template) => Some(template.reads()),
            Until::Signal { filter, .. } => filter.as_ref().map(|filter| filter.reads()),
        }),
        StepKind::Run(child) => {
            needed.push(Missing::Workflow(child.workflow.clone()));
            reads.extend(child.input.as_ref().map(|input| input.reads()));
        }
        StepKind::Fail(ResponseTemplate { status, headers, body }) => {
            reads.push(status.reads());
            reads.extend(headers.iter().map(|(_, header)| header.reads()));
            reads.extend(body.as_ref().map(|body| body.reads()));
        }
    }
    needed.extend(reads.into_iter().flatten().filter_map(of_read));
    needed
}

/// All that a plan refers to and the files do not have, by step; of a run only what may still be needed.
pub fn all(plan: &Plan, run: Option<&Run>, inputs: &DecisionInputs) -> BTreeSet<(StepId, Missing)> {
    let mut all = BTreeSet::new();
    for step in &plan.steps {
        let to_come = run.map_or(WorkToCome::ALL, |run| WorkToCome::of(run, step));
        let may_be_probed = run.is_none_or(|run| !run.has_ended(&step.id) && !run.is_ending());
        let may_be_undone = run.is_none_or(|run| !run.was_skipped(&step.id));
        let mut needed = needed_by_work(step, to_come);
        if may_be_probed {
            needed.extend(step.probe.iter().flat_map(|probe| needed_by_probe(probe)));
        }
        if may_be_undone {
            needed.extend(step.undo.iter().flat_map(|undo| needed_by_call(undo)));
        }
        let missing = needed.into_iter().filter(|missing| is_absent(missing, inputs));
        all.extend(missing.map(|missing| (step.id.clone(), missing)));
    }
    all
}

/// Pauses the run until the files have what is missing, or a person decides.
pub(super) fn pause(run: &Run, step: &Step, item: Option<u32>, part: StepPart, missing: &Missing) -> Event {
    let what = match part {
        StepPart::Undo => format!("what `{}` did cannot be undone", step.id),
        StepPart::Probe => format!("it is unknown whether `{}` was done, and its probe cannot ask", step.id),
        StepPart::Do => format!("`{}`", step.id),
    };
    let message = format!("{what}: it needs {missing}, {NOTE_PHRASE}");
    let mut failure = Failure::of_step(FailureKind::Unavailable, &step.id, item, message);
    let reply = run.call_state(&step.id, item, part.decided_part()).and_then(|call| call.unknown_reply.clone());
    let UnknownReply { status, response } = reply.filter(|_| part == StepPart::Probe).unwrap_or_default();
    failure.status = status;
    let mut conflict = conflict(run, step, item, part.decided_part(), ConflictKind::Missing, &failure);
    (conflict.part, conflict.response, conflict.missing) = (part, response, Some(missing.clone()));
    conflict.expected =
        Some(format!("files that have {missing}: the run goes on by itself as soon as they are in force"));
    Event::Conflict(ConflictEvent::Paused { conflict: Box::new(conflict), unfit_outcome: None })
}

/// The conflicts over something that was missing and that the files have again.
pub(super) fn found_again<'a>(
    run: &'a Run,
    plan: &'a Plan,
    inputs: &'a DecisionInputs,
) -> impl Iterator<Item = &'a Conflict> {
    let is_found = |conflict: &Conflict| match &conflict.missing {
        Some(missing) => !is_absent(missing, inputs),
        // A conflict of an earlier version, which only calls and child runs had.
        None => plan.step(&conflict.step).is_some_and(|(_, step)| of_part(step, conflict.part, inputs).is_none()),
    };
    run.conflicts().iter().filter(move |conflict| conflict.kind == ConflictKind::Missing && is_found(conflict))
}

impl Run {
    /// Whether the run waits for something that the files do not have.
    pub fn misses_something(&self) -> bool {
        self.conflicts().iter().any(|conflict| conflict.kind == ConflictKind::Missing)
    }
}

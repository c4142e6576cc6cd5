//! Services, secrets and workflows that a plan refers to and that are not in the files in force.
//!
//! Always true: a run keeps its plan, so a reload may remove something that it needs. Then nothing is sent and nothing
//! fails: the run pauses with a conflict that names what is missing. It goes on by itself once a reload brings it back;
//! a person may choose otherwise before that.

use std::collections::BTreeSet;
use std::fmt;

use super::calls::UnknownReply;
use super::conflict::conflict;
use super::{
    Call, CallBody, Conflict, ConflictEvent, ConflictKind, DecisionInputs, Event, Failure, FailureKind, Plan, Run,
    Step, StepKind, StepPart,
};
use crate::expression::ReadPath;
use crate::names::{ServiceName, StepId, WorkflowName};

/// The name under which a reload resolves such a conflict.
pub(super) const RELOAD: &str = "the files in force";

/// The phrase in a run's note by which such a conflict is recognised.
const NOTE_PHRASE: &str = "which is not in the files in force";

/// Something that the files in force do not have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Missing {
    /// A service.
    Service(ServiceName),
    /// A secret.
    Secret(String),
    /// A workflow.
    Workflow(WorkflowName),
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Missing::Service(name) => write!(f, "the service `{name}`"),
            Missing::Secret(name) => write!(f, "the secret `{name}`"),
            Missing::Workflow(name) => write!(f, "the workflow `{name}`"),
        }
    }
}

/// Whether a run's note says that it waits for something that the files do not have.
pub fn is_noted(note: &str) -> bool {
    note.contains(NOTE_PHRASE)
}

/// The first thing that a call needs and the files do not have.
pub fn of_call(call: &Call, inputs: &DecisionInputs) -> Option<Missing> {
    let service = inputs.base(&call.service).is_none().then(|| Missing::Service(call.service.clone()));
    service.or_else(|| reads(call).find_map(|path| of_read(path, inputs)))
}

/// Every path that a call reads.
fn reads(call: &Call) -> impl Iterator<Item = &ReadPath> {
    let body: Vec<&[ReadPath]> = match &call.body {
        CallBody::Empty | CallBody::Raw => Vec::new(),
        CallBody::Json(template) | CallBody::Text(template) => vec![template.reads()],
        CallBody::Form(fields) => fields.iter().map(|(_, template)| template.reads()).collect(),
    };
    let headers = call.headers.iter().map(|(_, template)| template.reads());
    headers.chain([call.url.reads()]).chain(body).flatten()
}

fn of_read(path: &ReadPath, inputs: &DecisionInputs) -> Option<Missing> {
    let name = path.part(0)?;
    match path.root() {
        "services" if inputs.services.get(name).is_none() => Some(Missing::Service(ServiceName::new(name))),
        "secrets" if inputs.masked_secrets.get(name).is_none() => Some(Missing::Secret(name.to_owned())),
        _ => None,
    }
}

/// The first thing that one of a step's calls, or the run that it begins, needs and the files do not have.
pub(super) fn of_part(step: &Step, part: StepPart, inputs: &DecisionInputs) -> Option<Missing> {
    match (&step.kind, part) {
        (StepKind::Run(child), StepPart::Do) => {
            let known = inputs.workflows.as_ref().is_none_or(|workflows| workflows.contains(&child.workflow));
            (!known).then(|| Missing::Workflow(child.workflow.clone()))
        }
        _ => of_call(step.call(part)?, inputs),
    }
}

/// All that a plan refers to and the files do not have, by step; of a run only what may still be needed.
pub fn all(plan: &Plan, run: Option<&Run>, inputs: &DecisionInputs) -> BTreeSet<(StepId, Missing)> {
    let mut all = BTreeSet::new();
    for step in &plan.steps {
        let to_come = run.is_none_or(|run| !run.has_ended(&step.id) && !run.is_ending());
        let may_be_undone = run.is_none_or(|run| !run.was_skipped(&step.id));
        let parts = [(StepPart::Do, to_come), (StepPart::Probe, to_come), (StepPart::Undo, may_be_undone)];
        for (part, _) in parts.into_iter().filter(|(_, needed)| *needed) {
            all.extend(of_part(step, part, inputs).map(|missing| (step.id.clone(), missing)));
        }
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
    (conflict.part, conflict.response) = (part, response);
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
    let missing = |conflict: &&Conflict| {
        let step = plan.step(&conflict.step).map(|(_, step)| step);
        conflict.kind == ConflictKind::Missing
            && step.is_some_and(|step| of_part(step, conflict.part, inputs).is_none())
    };
    run.conflicts().iter().filter(missing)
}

impl Run {
    /// Whether the run waits for something that the files do not have.
    pub fn misses_something(&self) -> bool {
        self.conflicts().iter().any(|conflict| conflict.kind == ConflictKind::Missing)
    }
}

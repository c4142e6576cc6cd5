//! Steps that run another workflow: child runs.
//!
//! Always true: the id of a child run is stored before the child is created; each step (item) has at most one child
//! that has not ended; a run ends after all its children. Commands to the children (pause, resume, cancel) are repeated
//! until the children have ended; repeating one changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use super::child_input::child_input;
use super::conflict::{conflict, pauses, shorten_value};
use super::decision_inputs::{call_scope, deeper_than};
use super::may_begin::{enter, may_begin, may_begin_item, skipped_by_needs};
use super::risk::{BeforeFirstAttempt, as_asked};
use super::step_events::{fail_or_pause, failed, finished, kept_output, schema_failure, skipped};
use super::{
    ChildEvent, CommandRefusal, ConflictEvent, ConflictKind, DecisionInputs, Event, Failure, FailureKind, Missing,
    Mode, Outcome, PauseOrFail, Plan, Run, RunStatus, SensitivePath, Skipped, Step, StepKind, StepPart, TreeEffects,
    fallback, lock, missing, risk,
};
use crate::expression::SharedJson;
use crate::names::{RunId, StepId, WorkflowName};

/// A child run whose end the parent has not recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenChild {
    /// The step.
    pub step: StepId,
    /// The item of a `for_each`.
    pub item: Option<u32>,
    /// The run.
    pub run: RunId,
    /// Its workflow.
    pub workflow: WorkflowName,
    /// The body of its request.
    pub input: Arc<Value>,
}

impl Run {
    /// Child runs whose end is not recorded.
    pub fn children(&self) -> impl Iterator<Item = OpenChild> + '_ {
        self.interactions.children.iter().map(|((step, item), child)| OpenChild {
            step: step.clone(),
            item: *item,
            run: child.run,
            workflow: child.workflow.clone(),
            input: child.input.clone(),
        })
    }
}

/// Begins a child run with this id, or returns the events that have to happen before.
pub(super) fn begin(
    run: &Run,
    plan: &Plan,
    inputs: &DecisionInputs,
    step: &Step,
    item: Option<u32>,
    id: RunId,
    now: Timestamp,
) -> Result<Vec<Event>, CommandRefusal> {
    may_begin(run, plan, step)?;
    let StepKind::Run(child) = &step.kind else { return Err(CommandRefusal::NotDue("the step runs no workflow")) };
    match (run.open_step(&step.id), item) {
        (None, None) if step.for_each.is_none() && !run.steps.contains_key(&step.id) => {
            if skipped_by_needs(run, plan, step) {
                return Ok(skipped(run, step, Skipped::Needs));
            }
            if let Err(events) = enter(run, inputs, &inputs.plain(run), step) {
                return Ok(events);
            }
        }
        (Some(open), item) if open.items.is_some() == item.is_some() => {
            if !may_begin_item(open, item.unwrap_or(0)) {
                return Err(CommandRefusal::NotDue("it has begun, or there is no such item"));
            }
            if let Some(events) = fallback::not_run(run, plan, inputs, step, item) {
                return Ok(events);
            }
        }
        _ => return Err(CommandRefusal::NotDue("it has ended, or its items are not known yet")),
    }
    let rehearse = match risk::before_first_attempt(run, plan, inputs, step, item, now) {
        BeforeFirstAttempt::Ready => run.mode() != Mode::Real,
        BeforeFirstAttempt::Rehearse => true,
        BeforeFirstAttempt::AwaitsAnswer => return Err(CommandRefusal::NotDue("a person is asked")),
        BeforeFirstAttempt::Needs(events) => return Ok(events),
    };
    let inputs = &as_asked(run, inputs, step, item);
    let scope = call_scope(&inputs.plain(run), run, &step.id, item, StepPart::Do);
    if let Some(rehearse) = child.rehearse.as_ref().filter(|_| rehearse) {
        return Ok(vec![match rehearse.evaluate(&scope) {
            Ok(output) => finished(step, item, 0, done_without_call(output)),
            Err(error) => failed(run, inputs, step, item, rehearse.reads(), &error),
        }]);
    }
    if let Some(missing) = missing::of_part(step, StepPart::Do, inputs) {
        return Ok(vec![missing::pause(run, step, item, StepPart::Do, &missing)]);
    }
    if let Some(before) = lock::before_first_attempt(run, inputs, step, item) {
        return before;
    }
    let input = match child_input(run, step, child, item, &scope) {
        Ok(input) => input,
        Err((reads, error)) => return Ok(vec![failed(run, inputs, step, item, &reads, &error)]),
    };
    if deeper_than(&input, inputs.output_depth_max) {
        let message =
            format!("`{}`: its input is nested deeper than output_depth_max ({})", step.id, inputs.output_depth_max);
        let failure = Failure::of_step(FailureKind::Bound, &step.id, item, message);
        return Ok(vec![finished(step, item, 0, Outcome::Failed { failure })]);
    }
    Ok(vec![Event::Child(ChildEvent::Started {
        step: step.id.clone(),
        item,
        child: id,
        workflow: child.workflow.clone(),
        input: Arc::new(input),
    })])
}

/// The outcome of a step that is done although no child run was begun.
fn done_without_call(output: Value) -> Outcome {
    Outcome::Done { status: 200, headers: Default::default(), output: output.into() }
}

/// Handles a child run that could not be started because the files in force do not have its workflow: this run pauses
/// until they do.
pub(super) fn workflow_missing(
    run: &Run,
    plan: &Plan,
    inputs: &DecisionInputs,
    child: RunId,
) -> Result<Vec<Event>, CommandRefusal> {
    let known = begun(run, child)?;
    let missing = Missing::Workflow(known.workflow.clone());
    let note = format!("it was not started: it needs {missing}");
    if run.is_ending() {
        return ended(run, plan, inputs, not_started(child, note));
    }
    let (_, step) = plan.step(&known.step).ok_or(CommandRefusal::NoSuchStep)?;
    let pause = missing::pause(run, step, known.item, StepPart::Do, &missing);
    Ok(vec![not_started_event(&known, note), pause])
}

/// Handles a child run that could not be started because its workflow refuses its input: the step fails, or a person
/// decides, who can give the step another input.
pub(super) fn input_refused(
    run: &Run,
    plan: &Plan,
    inputs: &DecisionInputs,
    child: RunId,
    why: &str,
) -> Result<Vec<Event>, CommandRefusal> {
    let known = begun(run, child)?;
    let note = format!("it was not started: `{}` does not take this input: {why}", known.workflow);
    if run.is_ending() {
        return ended(run, plan, inputs, not_started(child, note));
    }
    let (_, step) = plan.step(&known.step).ok_or(CommandRefusal::NoSuchStep)?;
    let message = format!("`{}`: `{}` does not take this input: {why}", known.step, known.workflow);
    let failure = Failure::of_step(FailureKind::ChildFailed, &known.step, known.item, message);
    // With `failures: collect` nobody is asked about a failed item.
    let next = match run.open_step(&known.step).is_some_and(|open| open.collect) {
        true => finished(step, known.item, 0, Outcome::Failed { failure }),
        false => fail_or_pause(run, step, known.item, ConflictKind::Expression, failure),
    };
    Ok(vec![not_started_event(&known, note), next])
}

/// A child that the run has begun and whose end it has not recorded.
fn begun(run: &Run, child: RunId) -> Result<OpenChild, CommandRefusal> {
    run.children()
        .find(|known| known.run == child)
        .ok_or(CommandRefusal::NotDue("no such run was begun, or it has ended"))
}

/// The outcome of a child run that was never started.
fn not_started(child: RunId, note: String) -> ChildResult {
    ChildResult {
        child,
        status: RunStatus::Cancelled,
        output: Arc::default(),
        note: Some(note),
        failure: None,
        tree: Some(TreeEffects::default()),
        sensitive: Vec::new(),
    }
}

/// The event that ends a child which was never started; the next event says how its step goes on.
fn not_started_event(known: &OpenChild, note: String) -> Event {
    Event::Child(ChildEvent::Ended {
        step: known.step.clone(),
        item: known.item,
        child: known.run,
        status: RunStatus::Cancelled,
        output: SharedJson::default(),
        note: Some(note),
        effects: false,
        tree: Some(TreeEffects::default()),
        unfit: false,
        sensitive: Vec::new(),
    })
}

/// What the engine reports about a child run that ended; input of [`ended`].
pub(super) struct ChildResult {
    pub child: RunId,
    pub status: RunStatus,
    pub output: Arc<Value>,
    pub note: Option<String>,
    pub failure: Option<FailureKind>,
    pub tree: Option<TreeEffects>,
    pub sensitive: Vec<SensitivePath>,
}

/// Records the end of a child run.
pub(super) fn ended(
    run: &Run,
    plan: &Plan,
    inputs: &DecisionInputs,
    end: ChildResult,
) -> Result<Vec<Event>, CommandRefusal> {
    let ChildResult { child, status, output, note, failure: cause, tree, sensitive } = end;
    let known = run.interactions.children.iter().find(|(_, known)| known.run == child);
    let ((id, item), known) = known.ok_or(CommandRefusal::NotDue("no such run was begun, or it has ended"))?;
    if !status.is_final() {
        return Err(CommandRefusal::NotDue("it has not ended"));
    }
    let (_, step) = plan.step(id).ok_or(CommandRefusal::NoSuchStep)?;
    let (step_id, item) = (id.clone(), *item);
    let unfit = match status {
        RunStatus::Completed => schema_failure(step, item, &output, inputs.bytes_mark(run)),
        _ => None,
    };
    let mut events = vec![Event::Child(ChildEvent::Ended {
        step: step_id,
        item,
        child,
        status,
        output: kept_output(item, output.clone()),
        note: note.clone(),
        effects: tree.as_ref().is_none_or(TreeEffects::any),
        tree,
        unfit: unfit.is_some(),
        sensitive,
    })];
    let (kind, expected, asks_person, failure) = match (status, unfit) {
        (RunStatus::Completed, None) => return Ok(events),
        // The child completed, so retrying with another child would repeat its effects.
        (RunStatus::Completed, Some(failure)) => {
            let expected = "an output as its schema says".to_owned();
            (ConflictKind::Schema, expected, pauses(run, step.failure_handling.on_failure), failure)
        }
        (status, _) => {
            let note = note.map_or_else(String::new, |note| format!(": {note}"));
            let message = format!("`{id}`: the run {child} of `{}` ended as {}{note}", known.workflow, status.as_str());
            let below = cause.filter(|_| run.mode() == Mode::Real);
            // In a run that is not real: where the child could not be rehearsed for lack of an output, a person or a
            // signal, or a service failed, this run fails with the same kind of failure, so that it is not compared.
            let cause = cause.filter(|_| run.mode() != Mode::Real);
            let lacks = cause.filter(|cause| cause.missing_for_rehearsal().is_some());
            let incomparable = lacks.or(cause.filter(|cause| cause.is_of_service()));
            let failure = Failure::of_step(incomparable.unwrap_or(FailureKind::ChildFailed), id, item, message);
            let failure = Failure { below, ..failure };
            let expected = format!("a run of `{}` that completes", known.workflow);
            let asks_person = lacks.is_none() && step.failure_handling.on_failure == Some(PauseOrFail::Pause);
            (ConflictKind::ChildFailed, expected, asks_person, failure)
        }
    };
    // Where a conflict ends the run, it stays the reason: usually this run cancelled the child because of that
    // conflict.
    let is_ended_with_run = status == RunStatus::Cancelled && run.undecidable_conflict().is_some();
    events.push(match is_ended_with_run || (asks_person && !run.is_ending()) {
        true => {
            let mut conflict = conflict(run, step, item, StepPart::Do, kind, &failure);
            conflict.response = shorten_value(&output);
            conflict.expected = Some(expected);
            Event::Conflict(ConflictEvent::Paused { conflict: Box::new(conflict), unfit_outcome: None })
        }
        false => finished(step, item, 0, Outcome::Failed { failure }),
    });
    Ok(events)
}

/// By step: the child runs that have not ended, in a sentence.
pub(super) fn describe_running(run: &Run) -> BTreeMap<StepId, String> {
    let mut open: BTreeMap<StepId, (String, usize)> = BTreeMap::new();
    for child in run.children() {
        let first = || (format!("{} runs `{}`", child.run, child.workflow), 0);
        open.entry(child.step.clone()).or_insert_with(first).1 += 1;
    }
    let sentence = |(first, count): (String, usize)| match count {
        1 => first,
        count => format!("{first}, and {} more run", count - 1),
    };
    open.into_iter().map(|(step, open)| (step, sentence(open))).collect()
}

//! Events that end a step, or pause the run over it, before or without a call of its own.
//!
//! Always true: where an expression has no value, or a value is out of bounds, there is an event that says so: the step
//! fails, or a person decides.

use std::sync::Arc;

use serde_json::Value;

use super::calls::{Phase, StepState};
use super::conflict::{conflict, pauses};
use super::decision_inputs::deeper_than;
use super::{
    BytesMark, CallBody, CommandRefusal, ConflictEvent, ConflictKind, DecisionInputs, Event, Failure, FailureKind,
    Outcome, Run, Skipped, Step, StepEvent, StepFinished, StepKind, StepPart, missing,
};
use crate::expression::{ExpressionError, ReadPath, SharedJson};
use crate::names::StepId;

/// The events that skip a step. If a fallback does not run, because its `if` is false or something that it needs was
/// skipped, the step that it would have replaced fails. If a person or a lock skips a fallback, the same event skips
/// the step that the fallback replaces.
pub(super) fn skipped(run: &Run, step: &Step, reason: Skipped) -> Vec<Event> {
    let mut events = vec![Event::Step(StepEvent::Skipped { step: step.id.clone(), item: None, reason })];
    if !reason.skips_replaced_step()
        && let Some(original) = run.replaced.get(&step.id)
        && let Some(StepState::Replaced { failure, .. }) = run.steps.get(original)
    {
        let outcome = Outcome::NotDone { failure: (**failure).clone() };
        let finished = StepFinished { step: original.clone(), item: None, part: StepPart::Do, attempt: 0, outcome };
        events.push(Event::StepFinished(finished));
    }
    events
}

/// The form in which the run keeps an output: that of a step as a value, because it is likely to be read soon; that of
/// an item, of which there may be thousands, as text, because the outputs of items are read as one list when all have
/// ended.
pub(super) fn kept_output(item: Option<u32>, output: Arc<Value>) -> SharedJson {
    match item {
        None => output.into(),
        Some(_) => SharedJson::as_text(&output),
    }
}

pub(super) fn too_deep(step: &Step, item: Option<u32>, inputs: &DecisionInputs) -> Event {
    let message = format!(
        "`{}` gives a value that is nested deeper than output_depth_max ({})",
        step.id, inputs.output_depth_max
    );
    let failure = Failure::of_step(FailureKind::Bound, &step.id, item, message);
    finished(step, item, 0, Outcome::Failed { failure })
}

/// Handles an expression without a value. If it reads something that the files in force lack, the run waits for it;
/// else the step fails, or a person decides.
pub(super) fn failed(
    run: &Run,
    inputs: &DecisionInputs,
    step: &Step,
    item: Option<u32>,
    reads: &[ReadPath],
    error: &ExpressionError,
) -> Event {
    match missing::of_error(reads, error, inputs) {
        Some(missing) => missing::pause(run, step, item, StepPart::Do, &missing),
        None => {
            fail_or_pause(run, step, item, ConflictKind::Expression, failure(run, Some(&step.id), item, reads, error))
        }
    }
}

/// Handles an expression of an item without a value, where no person is asked and all items are concerned. If it reads
/// something that the files in force lack, the run waits for it; else the step fails as a whole.
pub(super) fn failed_for_good(
    run: &Run,
    inputs: &DecisionInputs,
    step: &Step,
    item: Option<u32>,
    reads: &[ReadPath],
    error: &ExpressionError,
) -> Event {
    match missing::of_error(reads, error, inputs) {
        Some(missing) => missing::pause(run, step, None, StepPart::Do, &missing),
        None => finished(step, None, 0, Outcome::Failed { failure: failure(run, Some(&step.id), item, reads, error) }),
    }
}

/// Handles an error that is not the result of an attempt: the step fails, or a person decides.
pub(super) fn fail_or_pause(run: &Run, step: &Step, item: Option<u32>, kind: ConflictKind, failure: Failure) -> Event {
    let state = run.call_state(&step.id, item, StepPart::Do);
    // The requested attempt cannot be made, and none is under way that could end the step: the run pauses again.
    let waits = state.is_some_and(|state| matches!(state.phase, Phase::Waiting(_)));
    let fails = state.is_some()
        || run.is_ending()
        || failure.kind == FailureKind::Unresolved
        || !pauses(run, step.failure_handling.on_failure);
    if fails && !waits {
        let attempt = state.map_or(0, |state| state.attempt);
        return finished(step, item, attempt, Outcome::Failed { failure });
    }
    let conflict = conflict(run, step, item, StepPart::Do, kind, &failure);
    Event::Conflict(ConflictEvent::Paused { conflict: Box::new(conflict), unfit_outcome: None })
}

/// Handles a failure before a call, or before another attempt that a person asked for. In the first case the step
/// fails. In the second a person decides again, because no attempt is under way that could end the step.
pub(super) fn fail_before_call(
    run: &Run,
    step: &Step,
    item: Option<u32>,
    kind: ConflictKind,
    failure: Failure,
) -> Event {
    match run.call_state(&step.id, item, StepPart::Do).is_some() {
        true => fail_or_pause(run, step, item, kind, failure),
        false => finished(step, item, 0, Outcome::Failed { failure }),
    }
}

/// The failure of an expression without a value. Its kind tells whether the reason is that a rehearsed step that the
/// expression reads has no output.
pub(super) fn failure(
    run: &Run,
    step: Option<&StepId>,
    item: Option<u32>,
    reads: &[ReadPath],
    error: &ExpressionError,
) -> Failure {
    let why_no_output = reads.iter().filter(|path| path.root() == "steps").find_map(|path| {
        let read = path.part(0)?;
        run.why_no_output(read)
            .map(|why| format!("the output of rehearsed step `{read}` is not known ({why}): {error}"))
    });
    let (kind, message) = match why_no_output {
        Some(message) => (FailureKind::Unresolved, message),
        None => (FailureKind::Expression, error.to_string()),
    };
    let name = step.map_or_else(|| "`respond`".to_owned(), |step| format!("`{step}`"));
    Failure {
        kind,
        step: step.cloned(),
        item,
        status: None,
        message: format!("{name}: {message}"),
        retry_after_ms: None,
        below: None,
    }
}

pub(super) fn finished(step: &Step, item: Option<u32>, attempt: u32, outcome: Outcome) -> Event {
    Event::StepFinished(StepFinished { step: step.id.clone(), item, part: StepPart::Do, attempt, outcome })
}

/// The failure of an output that does not fit the schema that the step declares; `None` where it fits. Bytes fit no
/// schema, because the map that stands for them in events is not their content.
pub(super) fn schema_failure(step: &Step, item: Option<u32>, output: &Value, bytes_mark: BytesMark) -> Option<Failure> {
    let schema = step.output.as_ref()?;
    let message = match bytes_mark.is_bytes(output) {
        true => format!("`{}` gives bytes, which no schema describes", step.id),
        false => {
            let wrong = schema.check(output).err()?;
            format!("`{}` gives a value that its schema refuses: {}", step.id, wrong.join("; "))
        }
    };
    Some(Failure::of_step(FailureKind::Schema, &step.id, item, message))
}

/// Checks the nesting of a value that a person gives: the same bound holds as for replies of services.
pub(super) fn check_given_depth(step: &StepId, value: &Value, inputs: &DecisionInputs) -> Result<(), CommandRefusal> {
    match deeper_than(value, inputs.output_depth_max) {
        true => Err(CommandRefusal::BadValues(vec![format!(
            "what is given for `{step}` is nested deeper than output_depth_max ({})",
            inputs.output_depth_max
        )])),
        false => Ok(()),
    }
}

/// Checks that a call can send the input that a person gives in the form that its service takes.
pub(super) fn check_given_form(step: &Step, input: &Value) -> Result<(), CommandRefusal> {
    let StepKind::Call(call) = &step.kind else { return Ok(()) };
    match &call.body {
        CallBody::Form(_) if !input.is_object() => Err(CommandRefusal::BadValues(vec![format!(
            "`{}` sends a form: its input is a map of the fields",
            step.id
        )])),
        CallBody::Raw => Err(CommandRefusal::NotApplicable(format!(
            "`{}` sends the body of the request as it came, and takes no other input",
            step.id
        ))),
        CallBody::Empty | CallBody::Json(_) | CallBody::Form(_) | CallBody::Text(_) => Ok(()),
    }
}

//! Rehearses a call: records the request that would be sent, and gives the step an output without sending it.
//!
//! Always true: a call by legacy gives its reply to one rehearsed call of the run at most, and the event of the
//! rehearsal says which call that was. If legacy made no call that corresponds, or several that fit equally, the step
//! has no output, and the note says why; a step that reads the output then ends the comparison.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::attempt_result::{Class, classify, describe, is_conflict, status_of};
use super::conflict::pauses;
use super::decision_inputs::{call_scope, deeper_than};
use super::step_events::{finished, schema_failure, too_deep};
use super::{
    AttemptResult, Call, CallRecord, DecisionInputs, Event, Failure, FailureKind, LegacyReply, LegacyResult, Outcome,
    PauseOrFail, Rehearsal, RehearsedCall, Run, Step, StepPart, TakenReply, missing,
};
use crate::expression::SharedJson;

/// The event of a call that is rehearsed. `siblings` returns what the other items of the step would send that have not
/// begun.
pub(super) fn rehearsed(
    run: &Run,
    step: &Step,
    call: &Call,
    inputs: &DecisionInputs,
    (item, intent): (Option<u32>, Arc<CallRecord>),
    siblings: &dyn Fn() -> Vec<(u32, CallRecord)>,
) -> Event {
    let (output, note) = match &call.rehearse {
        None => (None, None),
        Some(Rehearsal::FromLegacy) => return from_legacy(run, step, call, inputs, (item, intent), siblings),
        Some(Rehearsal::Declared(template)) => {
            match template.evaluate(&call_scope(&inputs.plain(run), run, &step.id, item, StepPart::Do)) {
                Ok(output) if deeper_than(&output, inputs.output_depth_max) => return too_deep(step, item, inputs),
                Ok(output) => (Some(SharedJson::from(output)), None),
                Err(error) => match missing::of_error(template.reads(), &error, inputs) {
                    Some(missing) => return missing::pause(run, step, item, StepPart::Do, &missing),
                    None => (None, Some(format!("`rehearse:` has no value: {error}"))),
                },
            }
        }
    };
    if let Some(failure) = output.as_ref().and_then(|output| schema_failure(step, item, output, inputs.bytes_mark(run)))
    {
        return finished(step, item, 0, Outcome::Failed { failure });
    }
    finished(step, item, 1, Outcome::Rehearsed { intent, output, note, taken: None })
}

/// The event of a call whose reply is that to the corresponding call by legacy.
fn from_legacy(
    run: &Run,
    step: &Step,
    call: &Call,
    inputs: &DecisionInputs,
    (item, intent): (Option<u32>, Arc<CallRecord>),
    siblings: &dyn Fn() -> Vec<(u32, CallRecord)>,
) -> Event {
    let found = match &inputs.legacy_replies {
        Some(replies) => {
            let call = RehearsedCall { step: &step.id, item, intent: &intent, siblings };
            replies.reply_to(&call, &run.assigned.values().copied().collect())
        }
        None => Err("legacy's calls for this request are not known (any more)".to_owned()),
    };
    let without_output = |intent, why: String| {
        finished(step, item, 1, Outcome::Rehearsed { intent, output: None, note: Some(why), taken: None })
    };
    let LegacyReply { call: number, result } = match found {
        Ok(found) => found,
        Err(why) => return without_output(intent, why),
    };
    let taken = |status, headers, refused| Some(TakenReply { call: number, status, headers, refused });
    let result = match result {
        LegacyResult::Reply { status, headers, output } => {
            AttemptResult::Reply { status, headers, output, retry_after_ms: None }
        }
        LegacyResult::Unreadable { status, why } => {
            AttemptResult::Unreadable { status, why, body_start: String::new() }
        }
        LegacyResult::None { why } => AttemptResult::CutOff(why),
    };
    let class = classify(call, &result);
    match (class, result) {
        (Class::Done, AttemptResult::Reply { status, headers, output, .. }) => {
            let misfit = schema_failure(step, item, &output, inputs.bytes_mark(run));
            let taken = taken(status, headers, misfit);
            finished(step, item, 1, Outcome::Rehearsed { intent, output: Some(output.into()), note: None, taken })
        }
        (Class::Refused, result) if fails_for_good(run, step, status_of(&result)) => {
            let message = format!("`{}`: {}, when legacy made this call", step.id, describe(&result));
            let status = status_of(&result);
            let failure = Failure { status, ..Failure::of_step(FailureKind::Refused, &step.id, item, message) };
            let taken = taken(status.unwrap_or_default(), BTreeMap::new(), Some(failure));
            finished(step, item, 1, Outcome::Rehearsed { intent, output: None, note: None, taken })
        }
        // What a run does then (another attempt, a fallback, a question to a person) is not rehearsed.
        (_, result) => without_output(intent, format!("legacy's call had no result: {}", describe(&result))),
    }
}

/// Whether a step whose call is refused with this status fails, so that nobody is asked and nothing is tried again.
fn fails_for_good(run: &Run, step: &Step, status: Option<u16>) -> bool {
    let handling = &step.failure_handling;
    let asks = is_conflict(status) && pauses(run, handling.on_conflict);
    let is_busy = status.is_some_and(|status| step.safeguards.busy(status).is_some());
    !asks && !is_busy && handling.on_failure != Some(PauseOrFail::Pause)
}

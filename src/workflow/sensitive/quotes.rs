//! Tells which texts about a run (questions, failures, conflicts) may quote something sensitive.

use super::taint::{StepTaint, Taint};
use crate::names::StepId;
use crate::workflow::respond::ANSWER;
use crate::workflow::{CheckpointKind, Conflict, ConflictKind, Failure, FailureKind, OpenCheckpoint};

/// Whether the text of a question may quote something sensitive.
pub(super) fn question_quotes(step: &StepTaint, asked: &OpenCheckpoint) -> bool {
    // A question that the workflow does not declare is made from the step and shows the call's URL.
    step.question || (asked.kind == CheckpointKind::Approval && step.call.url)
}

/// Whether the message of a failure may quote something sensitive: the error of an expression may quote what it read, a
/// person's rejection what that person entered, and the message about a child run's end what the child was given. If
/// the run is not real, a failure with such a message may have the kind of the child's failure, such as `NeedsPerson`
/// or `Unavailable`.
pub(super) fn failure_quotes(taint: &Taint, failure: &Failure) -> bool {
    let step = failure.step.as_ref().and_then(|step| taint.steps.get(step));
    let quotes = match failure.kind {
        FailureKind::Expression
        | FailureKind::Unresolved
        | FailureKind::ChildFailed
        | FailureKind::NeedsPerson
        | FailureKind::NeedsSignal
        | FailureKind::WouldPause
        | FailureKind::Rejected
        | FailureKind::NoAnswer => true,
        FailureKind::Cancelled => return cancelled_over_sensitive_lock(taint, &failure.message).is_some(),
        FailureKind::Unavailable | FailureKind::TimedOut | FailureKind::Broken | FailureKind::Schema => {
            step.is_some_and(|step| step.runs_child)
        }
        FailureKind::Refused | FailureKind::Bound | FailureKind::Declared => false,
    };
    let reads_sensitive = match &failure.step {
        Some(_) => step.is_some_and(StepTaint::hides_entered_values),
        None => taint.answer,
    };
    quotes && reads_sensitive
}

/// Whether `by` names a step (as `` `charge` ``) whose lock has a sensitive name.
pub(super) fn has_sensitive_lock(taint: &Taint, by: &str) -> bool {
    taint.steps.iter().any(|(id, step)| step.lock && *by == format!("`{id}`"))
}

/// Returns the step that cancelled the run because of its lock according to this text, if the lock's name is sensitive.
pub(super) fn cancelled_over_sensitive_lock<'a>(taint: &'a Taint, why: &str) -> Option<&'a StepId> {
    let (by, _) = why.split_once(" cancelled it: ")?;
    let locked = taint.steps.iter().filter(|(_, step)| step.lock);
    locked.map(|(id, _)| id).find(|id| by == format!("`{id}`"))
}

/// Whether a conflict's message may quote something sensitive.
pub(super) fn conflict_quotes(taint: &Taint, conflict: &Conflict) -> bool {
    let quotes = matches!(
        conflict.kind,
        ConflictKind::Expression
            | ConflictKind::ChildFailed
            | ConflictKind::Answer
            | ConflictKind::Refused
            | ConflictKind::Busy
            | ConflictKind::Deadlock
            | ConflictKind::OutcomeUnknown
            | ConflictKind::UndoFailed
            | ConflictKind::UndoUnknown
    );
    let reads_sensitive = match conflict.step.as_str() == ANSWER {
        true => taint.answer,
        false => taint.steps.get(&conflict.step).is_some_and(|step| match conflict.kind {
            // The message of a refusal by a service shows only the status.
            ConflictKind::Refused => conflict.status.is_none() && step.hides_entered_values(),
            // These messages name the lock.
            ConflictKind::Busy | ConflictKind::Deadlock => step.lock,
            // These messages name the URL of the earlier attempt if the service's base URL has changed.
            ConflictKind::OutcomeUnknown => step.call.url && conflict.names_earlier_url(),
            ConflictKind::UndoFailed | ConflictKind::UndoUnknown => step.undo.url && conflict.names_earlier_url(),
            _ => step.hides_entered_values(),
        }),
    };
    quotes && reads_sensitive
}

//! The choices that a conflict offers to a person: one table by the kind of the conflict and the kind of its step.
//!
//! Always true: no choice repeats an effect unless the person asks for exactly that, and none replaces an approval: a
//! step that needs one is asked about again or skipped, never given a value.
//!
//! What each choice keeps:
//!
//! - *retry*: the bytes and the key of the last attempt, even if a person has given another input since and people
//!   rejected it
//! - *retry_with*: neither; an earlier attempt with unknown effect stays listed, and no fallback is taken any more
//! - *skip*: the list of calls to undo and the list of calls with unknown effect
//! - *take*: the same two lists; only the output is replaced
//! - *fallback*: nothing, because certainly nothing was done
//! - *wait*: the place in the lock's queue, or the bytes and the key of the attempt that a service refused as busy
//!
//! *cancel* ends the run with undo or without, as the person says. A run that is already being undone, or that somebody
//! has cancelled with undo, offers *cancel_without_undo* in its place: a second cancel with undo is refused.

use super::calls::CallState;
use super::{CallBody, Choice, ConflictKind, EffectClass, Run, Step, StepKind, StepPart};

/// What a conflict is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ConflictSubject {
    /// A call that changes nothing.
    Read,
    /// Any other call, or a child run.
    Effect,
    /// A `for_each` whose items are not known.
    Items,
    /// A `set` step.
    Value,
    /// A `checkpoint` step.
    Question,
    /// A `wait` step.
    Wait,
    /// A `fail` step.
    End,
    /// The answer to the caller.
    Answer,
}

fn subject(step: Option<&Step>, item: Option<u32>) -> ConflictSubject {
    let Some(step) = step else { return ConflictSubject::Answer };
    let is_whole_fan_out = step.for_each.is_some() && item.is_none();
    match &step.kind {
        StepKind::Call(_) | StepKind::Run(_) if is_whole_fan_out => ConflictSubject::Items,
        StepKind::Call(call) if call.effect == EffectClass::Read => ConflictSubject::Read,
        StepKind::Call(_) | StepKind::Run(_) => ConflictSubject::Effect,
        StepKind::Set(_) => ConflictSubject::Value,
        StepKind::Checkpoint(_) => ConflictSubject::Question,
        StepKind::Wait(_) => ConflictSubject::Wait,
        StepKind::Fail(_) => ConflictSubject::End,
    }
}

/// The choices by the kind and the subject of a conflict; not all of them may be possible in the run's state.
fn table(kind: ConflictKind, subject: ConflictSubject) -> &'static [&'static str] {
    match (kind, subject) {
        (ConflictKind::Answer, _) | (_, ConflictSubject::Answer) => &["take"],
        (_, ConflictSubject::Question | ConflictSubject::End) => &["retry", "skip"],
        (ConflictKind::UndoFailed | ConflictKind::UndoUnknown, _) => &["retry", "skip", "take"],
        (ConflictKind::OutcomeUnknown, _) => &["retry", "retry_with", "skip", "take"],
        (ConflictKind::Refused | ConflictKind::AttemptsUsedUp, _) => {
            &["retry", "retry_with", "skip", "take", "fallback"]
        }
        (ConflictKind::Expression, ConflictSubject::Wait) => &["retry", "skip", "take"],
        (ConflictKind::Expression, ConflictSubject::Items) => &["retry", "skip", "take"],
        (ConflictKind::Expression, ConflictSubject::Read | ConflictSubject::Effect | ConflictSubject::Value) => {
            &["retry", "retry_with", "skip", "take", "fallback"]
        }
        (ConflictKind::Schema, ConflictSubject::Read) => &["retry", "skip", "take"],
        // The call was done, so another attempt would repeat it.
        (
            ConflictKind::Schema,
            ConflictSubject::Effect | ConflictSubject::Items | ConflictSubject::Value | ConflictSubject::Wait,
        ) => &["skip", "take"],
        (ConflictKind::Busy | ConflictKind::Deadlock, _) => &["wait", "skip"],
        (ConflictKind::ChildFailed, _) => &["retry", "skip", "take"],
        // Nothing was sent, so even the fallback may be taken.
        (ConflictKind::Missing, _) => &["retry", "skip", "take", "fallback"],
    }
}

/// The names of the choices offered now; without a step, those of the conflict over the caller's answer.
pub(super) fn choices(run: &Run, step: Option<&Step>, item: Option<u32>, kind: ConflictKind) -> Vec<&'static str> {
    let ending = run.is_ending();
    let mut choices = table(kind, subject(step, item)).to_vec();
    choices.retain(|choice| match *choice {
        "fallback" => {
            // The fallback of a `for_each` replaces items, and the items are not known yet.
            let declared = step.is_some_and(|step| step.failure_handling.fallback.is_some())
                && subject(step, item) != ConflictSubject::Items;
            let unknown = |step: &Step| {
                let call = run.call_state(&step.id, item, StepPart::Do);
                call.is_some_and(CallState::unknown_effect) || run.may_have_happened(&step.id, item)
            };
            declared && !ending && !step.is_some_and(unknown)
        }
        "retry_with" => !ending && !step.is_some_and(sends_raw),
        _ => true,
    });
    choices.extend(cancel_choice(run));
    choices
}

/// The choice that cancels without undoing.
const CANCEL_WITHOUT_UNDO: &str = "cancel_without_undo";

/// The choice that cancels the run, as [`super::ending::cancel`] accepts it.
fn cancel_choice(run: &Run) -> Option<&'static str> {
    match &run.cancel {
        // A run that was cancelled without compensation cannot be cancelled any further.
        Some(cancel) if !cancel.compensate => None,
        Some(cancel) if !cancel.automatic => Some(CANCEL_WITHOUT_UNDO),
        Some(_) | None if run.undoing.is_some() => Some(CANCEL_WITHOUT_UNDO),
        Some(_) | None => Some("cancel"),
    }
}

/// Whether a choice is among those that were recorded with the conflict (`recorded`) and is still possible (`offered`).
/// A cancel counts as recorded under either of its names; without undo it is possible wherever any cancel is.
pub(super) fn is_offered(recorded: &[String], offered: &[&'static str], choice: &Choice) -> bool {
    let is_named = |name: &str| offered.contains(&name);
    let is_recorded = |name: &str| recorded.iter().any(|recorded| recorded == name);
    match choice {
        // Earlier versions recorded `cancel` in both cases.
        Choice::Cancel { compensate } => {
            (is_recorded("cancel") || is_recorded(CANCEL_WITHOUT_UNDO))
                && (is_named("cancel") || (!compensate && is_named(CANCEL_WITHOUT_UNDO)))
        }
        choice => is_named(choice.name()) && is_recorded(choice.name()),
    }
}

/// Whether the step's call sends the body of the request as it came (`raw:`): it takes no other input.
fn sends_raw(step: &Step) -> bool {
    step.call(StepPart::Do).is_some_and(|call| matches!(call.body, CallBody::Raw))
}

/// Why a choice is not offered.
pub(super) fn why_not(
    run: &Run,
    step: Option<&Step>,
    item: Option<u32>,
    kind: ConflictKind,
    choice: &Choice,
) -> &'static str {
    match (choice, subject(step, item), kind) {
        (Choice::Cancel { compensate: true }, ..) if run.undoing.is_some() => {
            "what was done is being undone already; `cancel_without_undo` would leave the rest as it is"
        }
        (Choice::Cancel { .. }, ..) => "the run was cancelled already",
        (_, ConflictSubject::Answer, _) => "every step has ended, and only the answer is missing",
        (Choice::Take { .. } | Choice::RetryWith { .. }, ConflictSubject::Question, _) => {
            "the step asks people, and a value would replace their answer"
        }
        (Choice::Fallback, ..) if step.is_none_or(|step| step.failure_handling.fallback.is_none()) => {
            "the step declares no `fallback`"
        }
        (Choice::Fallback, ConflictSubject::Items, _) => {
            "its fallback takes the place of items, and they are not known yet"
        }
        (Choice::Fallback, _, ConflictKind::OutcomeUnknown) => {
            "it may have been done, and a fallback would do it a second time"
        }
        (Choice::Fallback, ..) if step.is_some_and(|step| run.may_have_happened(&step.id, item)) => {
            "an earlier attempt may have been done, and a fallback would do it a second time"
        }
        (Choice::Retry | Choice::RetryWith { .. }, _, ConflictKind::Schema) => {
            "it was done, and another attempt would do it a second time"
        }
        (Choice::RetryWith { .. }, ..) if step.is_some_and(sends_raw) => {
            "it sends the body of the request as it came, and takes no other input"
        }
        (Choice::Wait, ..) => "nothing is waited for",
        (Choice::RetryWith { .. } | Choice::Fallback, _, ConflictKind::UndoFailed | ConflictKind::UndoUnknown) => {
            "what an undo sends is determined by what was done, so it takes neither another input nor a fallback"
        }
        _ => "it does not fit this conflict, or the run is ending",
    }
}

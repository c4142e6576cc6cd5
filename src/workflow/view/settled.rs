//! Corrects the status of steps from the state of the whole run, where the events of the step do not tell it.
//!
//! Always true: no step of a run that has ended is shown as under way, and a step with an open conflict is shown as
//! such.

use super::step::StepView;
use crate::workflow::calls::StepState;
use crate::workflow::{ConflictKind, Run, StepPart, StepStatus, child};

/// Sets the status of steps that ended without an event of their own, and of steps with an open conflict.
pub(super) fn correct_statuses(steps: &mut [StepView], run: &Run) {
    let open = |view: &&mut StepView| match view.status {
        StepStatus::Running
        | StepStatus::Retrying
        | StepStatus::WaitingCheckpoint
        | StepStatus::WaitingSignal
        | StepStatus::WaitingTime
        | StepStatus::WaitingLock
        | StepStatus::WaitingChild => true,
        StepStatus::Done
        | StepStatus::Rehearsed
        | StepStatus::Skipped
        | StepStatus::Failed
        | StepStatus::Unknown
        | StepStatus::Conflict
        | StepStatus::Replaced
        | StepStatus::Undoing
        | StepStatus::Undone => false,
    };
    for view in steps.iter_mut().filter(open) {
        let waited =
            matches!(view.status, StepStatus::WaitingLock | StepStatus::WaitingTime | StepStatus::WaitingSignal);
        match run.steps.get(&view.step) {
            Some(StepState::Done { .. }) => view.status = StepStatus::Done,
            Some(StepState::Skipped) => view.status = StepStatus::Skipped,
            Some(StepState::Failed) => view.status = StepStatus::Failed,
            None if run.is_final() => {
                view.status = StepStatus::Skipped;
                view.note = Some("the run ended before the step began".into());
            }
            // The step has no last event of its own: a cancellation or the end of a dark run closed the conflict over
            // it.
            Some(StepState::Open(_) | StepState::Replaced { .. }) if run.is_final() => {
                let unknown = run.unknown.iter().any(|call| call.step == view.step);
                view.status = if unknown { StepStatus::Unknown } else { StepStatus::Failed };
            }
            Some(StepState::Open(_) | StepState::Replaced { .. }) | None => continue,
        }
        if waited && run.steps.contains_key(&view.step) {
            view.note = None; // the note says what the step, or an item of it, waited for: that wait is over
        }
    }
    let running = child::describe_running(run);
    for view in steps.iter_mut().filter(|view| view.status == StepStatus::WaitingChild) {
        view.note = running.get(&view.step).cloned().or(view.note.take());
    }
    // This comes last, because it replaces a note that may be about another item of a fan-out.
    for view in steps {
        let mut conflicts = run.conflicts().iter().filter(|open| open.step == view.step && open.part != StepPart::Undo);
        let Some(open) = conflicts.next() else { continue };
        view.status = match open.kind {
            ConflictKind::OutcomeUnknown => StepStatus::Unknown,
            _ => StepStatus::Conflict,
        };
        let more = conflicts.count();
        view.note = Some(match (open.item, more) {
            (None, _) => open.message.clone(),
            (Some(item), 0) => format!("item {item}: {}", open.message),
            (Some(item), more) => format!("item {item}: {} (and {more} more)", open.message),
        });
    }
}

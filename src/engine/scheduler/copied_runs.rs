//! Runs that were open in a store when it was copied, for example into a backup that was restored.
//!
//! Always true: if the store is a copy, a real run whose events are all older than the first start on the copy is
//! paused when it is loaded, before it sends anything. The effects that it performed after the copy was made are not in
//! its events, so it would perform them again. The same is true of its undos, so that a run that is ending is paused
//! too. The run continues when a person resumes it; a child also when its parent is resumed. A run that only reads is
//! not paused. A successor that was decided on before that start and has no events is paused in its first append.

use jiff::Timestamp;

use crate::engine::context::Core;
use crate::engine::machine::RecoveryPause;
use crate::workflow::{Mode, Plan, Run, RunStatus, RunSummary};

/// The name under which the events of these runs record who paused them.
const PAUSED_BY: &str = "pointsman";

/// The pause that a run gets when it is loaded; `None` if it may continue.
pub(in crate::engine) fn pause_of(
    core: &Core,
    run: &Run,
    plan: &Plan,
    last_event_at: Timestamp,
) -> Option<RecoveryPause> {
    // A pause under the parent's name ends when the parent is resumed.
    let by = run.started().parent.as_ref().map_or_else(|| PAUSED_BY.to_owned(), |parent| parent.run.to_string());
    if !run.is_ending() {
        return pause(core, run.mode(), plan, last_event_at, by, "check its steps, then resume or cancel it");
    }
    let next = "it is ending, and its undos are held: check what was undone, then resume it, or end it without undoing \
                (`cancel --no-undo`)";
    let pause = pause(core, run.mode(), plan, last_event_at, by, next)?;
    tracing::warn!(run = %run.id(), "the run was ending when the store was copied: its undos are held until a person resumes it");
    Some(pause)
}

/// The pause that a successor gets in its first append; `None` if it may continue. `predecessor` has decided on the
/// successor with its last event.
pub(in crate::engine) fn pause_of_successor(
    core: &Core,
    predecessor: &Run,
    plan: &Plan,
    last_event_at: Timestamp,
) -> Option<RecoveryPause> {
    let next = "check its steps, then resume or cancel it";
    pause(core, predecessor.mode(), plan, last_event_at, PAUSED_BY.to_owned(), next)
}

/// The pause of a run that may repeat effects, because its last event is older than the first start on the copy. `next`
/// says what a person should do.
fn pause(
    core: &Core,
    mode: Mode,
    plan: &Plan,
    last_event_at: Timestamp,
    by: String,
    next: &str,
) -> Option<RecoveryPause> {
    let started = core.process.copy_started.filter(|started| last_event_at <= *started)?;
    if mode != Mode::Real || plan.reason_to_keep().is_none() {
        return None;
    }
    let reason = format!(
        "the store is a copy, such as a restored backup, that was first started at {started:.0}: what this run did after \
         the copy was made is not in it, and it would do that again; {next}"
    );
    Some(RecoveryPause { by, reason })
}

/// Whether a run that has not ended has to be loaded now, so that it is paused.
pub(in crate::engine) fn is_to_be_paused(core: &Core, run: &RunSummary) -> bool {
    let is_old = core.process.copy_started.is_some_and(|started| run.updated <= started);
    is_old && run.mode == Mode::Real && run.status != RunStatus::Paused
}

//! Runs that were open in a store when it was copied, for example into a backup that was restored.
//!
//! Always true: where the store is a copy, a real run whose events are all from before the copy's first start is paused
//! when it is loaded, before it sends anything: what it did after the copy was made is not in its events, and it would
//! do that again. It goes on when a person resumes it; a child also when its parent is resumed. A run that only reads is
//! not paused, nor one that is ending.

use jiff::Timestamp;

use crate::engine::context::Core;
use crate::engine::machine::RecoveryPause;
use crate::workflow::{Mode, Plan, Run, RunStatus, RunSummary};

/// Who pauses the runs, as their events name it.
const BY: &str = "pointsman";

/// The pause with which a run has to begin whose last event has this time; `None` if it may go on.
pub(in crate::engine) fn pause_of(core: &Core, run: &Run, plan: &Plan, last: Timestamp) -> Option<RecoveryPause> {
    let started = core.process.copy_started.filter(|started| last <= *started)?;
    if run.mode() != Mode::Real || plan.reason_to_keep().is_none() {
        return None;
    }
    let reason = format!(
        "the store is a copy, such as a restored backup, that was first started at {started:.0}: what this run did after \
         the copy was made is not in it, and it would do that again; look through its steps, then resume or cancel it"
    );
    // With its parent's name the child is resumed when the parent is.
    let by = run.started().parent.as_ref().map_or_else(|| BY.to_owned(), |parent| parent.run.to_string());
    Some(RecoveryPause { by, reason })
}

/// Whether a run that has not ended has to be loaded now, to be paused.
pub(in crate::engine) fn is_to_be_paused(core: &Core, run: &RunSummary) -> bool {
    let is_old = core.process.copy_started.is_some_and(|started| run.updated <= started);
    is_old && run.mode == Mode::Real && run.status != RunStatus::Paused
}

//! Gives runs to the other processes on the same store while this one is still draining: it serves callers, and waits
//! for calls of other runs.
//!
//! Always true: a run that has a task here is not given away. If a command starts a task right after that check, the
//! task is fenced. Runs that cannot be given away here are released with the others when the drain ends.

use std::sync::Arc;

use crate::engine::context::Core;
use crate::names::{Fence, RunId};
use crate::store::StoreError;

/// How many runs one query reads.
const PAGE: usize = 256;

/// Gives away one run, whose task ends, in the background.
pub(in crate::engine) fn begin(core: &Arc<Core>, run: RunId, fence: Fence) {
    let (store, worker) = (core.ports.store.clone(), core.schedule.worker);
    core.spawn_background(async move {
        if let Err(error) = store.release_run(worker, run, fence).await {
            tracing::debug!(%run, %error, "the run was not given up: it is released with the others when the drain ends");
        }
    });
}

/// Gives away, in the background, the suspended runs that this process owns because they wait for locks, children or
/// the end of a freeze: there may be thousands. Called once this process no longer wakes suspended runs. A run for
/// which a command starts a task nevertheless is given away when the task ends.
pub(super) fn begin_with_suspended(core: &Arc<Core>) {
    let of_task = core.clone();
    core.spawn_background(async move {
        if let Err(error) = hand_over_suspended(&of_task).await {
            tracing::debug!(%error, "the suspended runs were not given up: they are released with the others when the drain ends");
        }
    });
}

async fn hand_over_suspended(core: &Arc<Core>) -> Result<(), StoreError> {
    let (store, worker) = (&core.ports.store, core.schedule.worker);
    let mut after = None;
    loop {
        let owned = store.owned_runs(worker, after, PAGE).await?;
        // A new run has its task before it is in the store, so no new run is given away.
        for (run, fence) in owned.iter().filter(|(run, _)| !core.schedule.mailboxes.has_task(*run)) {
            store.release_run(worker, *run, *fence).await?;
        }
        match owned.last() {
            Some((run, _)) if owned.len() == PAGE => after = Some(*run),
            _ => return Ok(()),
        }
    }
}

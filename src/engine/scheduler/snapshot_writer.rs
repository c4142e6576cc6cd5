//! Writes snapshots of long runs, in the background.
//!
//! Always true: a snapshot is folded from the store (the run's last snapshot and the events after it), not from the
//! state in memory. So it is never ahead of the stored run, whichever process executes the run meanwhile. One snapshot
//! is made at a time, on a thread of its own with a lower priority. A run with sealed sensitive values gets none: the
//! snapshot would contain them in plain text.
//!
//! When the store is slow, the queued runs wait; when it refuses a snapshot, the run is queued again after more events.

use std::sync::Arc;

use tokio::runtime::RuntimeFlavor;
use tokio::sync::oneshot;

use crate::engine::bounds::usize_of;
use crate::engine::context::Core;
use crate::engine::scheduler::run_snapshots::SnapshotOutcome;
use crate::engine::scheduler::stored_run::{self, ReadFrom};
use crate::names::RunId;
use crate::priority;
use crate::store::RunSnapshot;
use crate::workflow::FOLD;

/// Starts writing; it ends with the process's background tasks.
pub(in crate::engine) fn start(core: &Arc<Core>) {
    let runtime = core.process.runtime.clone();
    let (cancelled, core_of_task) = (core.process.cancelled.clone(), core.clone());
    let work = async move {
        cancelled.run_until_cancelled(write(&core_of_task)).await;
    };
    // A runtime of one thread (in tests) gets no second thread.
    if runtime.runtime_flavor() == RuntimeFlavor::CurrentThread {
        core.process.background_tasks.spawn_on(work, &runtime);
        return;
    }
    let (done, ended) = oneshot::channel::<()>();
    let run = {
        let runtime = runtime.clone();
        move || {
            priority::lower();
            runtime.block_on(work);
            drop(done);
        }
    };
    match std::thread::Builder::new().name("run-snapshots".into()).spawn(run) {
        // This task ends with the thread, so that a drain of the background tasks waits for the thread too.
        Ok(_) => drop(core.process.background_tasks.spawn_on(async move { drop(ended.await) }, &runtime)),
        Err(error) => {
            tracing::warn!(%error, "the thread that writes snapshots of runs could not be started: long runs are read from their first event")
        }
    }
}

async fn write(core: &Core) {
    loop {
        let run = core.schedule.run_snapshots.next().await;
        match make(core, run).await {
            Ok(Some(outcome)) => outcome.count(),
            Ok(None) => {}
            Err(why) => {
                tracing::warn!(%run, why, "no snapshot of the run was written: it is loaded from an older one, or from all of its events");
                SnapshotOutcome::NotWritten.count();
            }
        }
    }
}

/// Makes and stores a snapshot of a run. `None` where the run has ended, has sensitive values, or has too few new
/// events.
pub(in crate::engine) async fn make(core: &Core, id: RunId) -> Result<Option<SnapshotOutcome>, String> {
    let stored = stored_run::read(core, id, ReadFrom::Snapshot).await.map_err(|error| error.to_string())?;
    let (run, new_events) = (&stored.run, stored.events.len() as u64);
    if run.is_final() || run.holds_sensitive() || new_events < core.schedule.run_snapshots.every() {
        return Ok(None);
    }
    let body = run.to_snapshot()?;
    if body.len() > usize_of(core.files.limits.run_snapshot_bytes_max) {
        tracing::debug!(run = %id, bytes = body.len(), "the snapshot is larger than run_snapshot_bytes_max");
        return Ok(Some(SnapshotOutcome::TooLarge));
    }
    let snapshot = RunSnapshot { run: id, seq: run.seq(), at: stored.last_event_at, fold: FOLD.to_owned(), body };
    core.ports.store.put_run_snapshot(snapshot).await.map_err(|error| error.to_string())?;
    Ok(Some(SnapshotOutcome::Written))
}

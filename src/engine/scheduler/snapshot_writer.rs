//! Writes snapshots of long runs in the background.
//!
//! Always true: a snapshot is made from what the store has, not from the memory of a task: the run's last snapshot and the
//! events after it, folded. So it is never ahead of the stored events, whichever process moves the run meanwhile. One is
//! made at a time, on a thread of its own with a lower priority. A run with sealed values gets none: it would hold them in
//! clear.
//!
//! When the store is slow, the other snapshots wait; when it refuses one, the run has none until it has more events.

use std::sync::Arc;

use tokio::runtime::RuntimeFlavor;
use tokio::sync::oneshot;

use crate::engine::bounds::usize_of;
use crate::engine::context::Core;
use crate::engine::scheduler::run_snapshots::SnapshotOutcome;
use crate::engine::scheduler::stored_run::{self, Beginning};
use crate::names::RunId;
use crate::store::RunSnapshot;
use crate::workflow::FOLD;

/// Added to the niceness of the thread.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;

/// Starts the writer; it ends with the process's background tasks.
pub(in crate::engine) fn start(core: &Arc<Core>) {
    let threads = core.process.runtime.clone();
    let (cancelled, writing) = (core.process.cancelled.clone(), core.clone());
    let work = async move {
        cancelled.run_until_cancelled(write(&writing)).await;
    };
    // On a runtime of one thread there is no other thread to be kept free.
    if threads.runtime_flavor() == RuntimeFlavor::CurrentThread {
        core.process.background_tasks.spawn_on(work, &threads);
        return;
    }
    let (done, ended) = oneshot::channel::<()>();
    let run = {
        let threads = threads.clone();
        move || {
            lower_priority();
            threads.block_on(work);
            drop(done);
        }
    };
    match std::thread::Builder::new().name("run-snapshots".into()).spawn(run) {
        // So that waiting for the background tasks waits for the thread too.
        Ok(_) => drop(core.process.background_tasks.spawn_on(async move { drop(ended.await) }, &threads)),
        Err(error) => {
            tracing::warn!(%error, "no thread for snapshots of runs: long runs are read from their first event")
        }
    }
}

/// Lowers the priority of the thread that calls it. Elsewhere than on Linux it would be that of the whole process.
fn lower_priority() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(NICENESS) {
        tracing::debug!(%error, "the thread that writes snapshots of runs keeps its priority");
    }
}

async fn write(core: &Core) {
    loop {
        let run = core.schedule.run_snapshots.next().await;
        match make(core, run).await {
            Ok(Some(outcome)) => outcome.count(),
            Ok(None) => {}
            Err(why) => {
                tracing::warn!(%run, why, "no snapshot of the run was written: its events are read from the one before");
                SnapshotOutcome::NotWritten.count();
            }
        }
    }
}

/// Makes and stores a snapshot; `None` where the run needs none, or may have none.
pub(in crate::engine) async fn make(core: &Core, id: RunId) -> Result<Option<SnapshotOutcome>, String> {
    let stored = stored_run::read(core, id, Beginning::Snapshot).await.map_err(|error| error.to_string())?;
    let (run, folded) = (&stored.run, stored.events.len() as u64);
    if run.is_final() || run.holds_sensitive() || folded < core.schedule.run_snapshots.every() {
        return Ok(None);
    }
    let body = run.to_snapshot()?;
    if body.len() > usize_of(core.files.limits.run_snapshot_bytes_max) {
        tracing::debug!(run = %id, bytes = body.len(), "the snapshot is larger than run_snapshot_bytes_max");
        return Ok(Some(SnapshotOutcome::TooLarge));
    }
    let snapshot = RunSnapshot { run: id, seq: run.seq(), at: stored.last, fold: FOLD.to_owned(), body };
    core.ports.store.put_run_snapshot(snapshot).await.map_err(|error| error.to_string())?;
    Ok(Some(SnapshotOutcome::Written))
}

//! Writes snapshots of long runs, behind all that somebody waits for.
//!
//! Always true: a snapshot is made of what the store has, and not of what a task of this process believes: the run's last
//! snapshot and the events after it, folded. So it is never ahead of the run, whoever moves it meanwhile. One is made at
//! a time, on a thread of its own with a lower priority. A run whose sensitive values are sealed gets none: it would hold
//! them in clear.
//!
//! When the store is slow the others wait; when it refuses, the run goes without until it has more events.

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

/// Starts writing; it ends with the process's background tasks.
pub(in crate::engine) fn start(core: &Arc<Core>) {
    let threads = core.process.runtime.clone();
    let (cut, writing) = (core.process.cancelled.clone(), core.clone());
    let work = async move {
        cut.run_until_cancelled(write(&writing)).await;
    };
    // One thread has nobody else to keep waiting.
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
        // Whoever waits for the background tasks waits for the thread too.
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

/// `None`: the run needs none, or may have none.
pub(in crate::engine) async fn make(core: &Core, id: RunId) -> Result<Option<SnapshotOutcome>, String> {
    let stored = stored_run::read(core, id, Beginning::Snapshot).await.map_err(|error| error.to_string())?;
    let (run, folded) = (&stored.run, stored.events.len() as u64);
    if run.is_final() || run.started().sensitive || folded < core.schedule.run_snapshots.every() {
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

//! A run as the store has it, folded.
//!
//! Always true: a snapshot spares reading and folding and changes nothing: one that is missing, damaged, of a binary that
//! folds otherwise, or that the events after it do not follow is left aside, counted and logged, and all events are
//! folded. Only where the store does not give the events, or they do not follow from each other, is there no run.

use jiff::Timestamp;

use crate::engine::context::Core;
use crate::engine::scheduler::run_snapshots::SnapshotOutcome;
use crate::names::RunId;
use crate::store::{StoreError, StoredEvent};
use crate::workflow::{FOLD, Misfit, Run, fold};

/// Where reading begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Beginning {
    /// At the run's snapshot, where it has one. Only of a run that cannot be purged meanwhile: one that has not ended.
    Snapshot,
    /// At its first event.
    FirstEvent,
}

/// Why there is no run.
#[derive(Debug, thiserror::Error)]
pub(in crate::engine) enum Unread {
    /// The store did not give the events.
    #[error("{0}")]
    Store(StoreError),
    /// They do not follow from each other.
    #[error("its events cannot be read: {0}")]
    Misfit(Misfit),
}

/// See the module.
pub(in crate::engine) struct StoredRun {
    pub run: Run,
    /// When its last event happened.
    pub last: Timestamp,
    /// What was folded: the events after the snapshot, or all.
    pub events: Vec<StoredEvent>,
    /// It began with a snapshot.
    pub from_snapshot: bool,
}

/// Reads and folds a run.
pub(in crate::engine) async fn read(core: &Core, id: RunId, beginning: Beginning) -> Result<StoredRun, Unread> {
    if beginning == Beginning::Snapshot
        && let Some((run, at)) = snapshot(core, id).await
    {
        let events = core.ports.store.events(id, run.seq().next()).await.map_err(Unread::Store)?;
        match after(run, &events) {
            Ok(run) => {
                SnapshotOutcome::Read.count();
                let last = events.last().map_or(at, |stored| stored.at);
                return Ok(StoredRun { run, last, events, from_snapshot: true });
            }
            Err(misfit) => broken(id, &misfit.to_string()),
        }
    }
    let events = core.events(id).await.map_err(Unread::Store)?;
    let run = fold(events.iter().map(|stored| &stored.event)).map_err(Unread::Misfit)?;
    let last = events.last().map_or(run.started().started, |stored| stored.at);
    Ok(StoredRun { run, last, events, from_snapshot: false })
}

fn after(mut run: Run, events: &[StoredEvent]) -> Result<Run, Misfit> {
    events.iter().try_for_each(|stored| run.take_in(&stored.event))?;
    Ok(run)
}

/// The run as its snapshot has it, with when its last event happened.
async fn snapshot(core: &Core, id: RunId) -> Option<(Run, Timestamp)> {
    let kept = match core.ports.store.run_snapshot(id).await {
        Ok(kept) => kept?,
        Err(error) => {
            broken(id, &error.to_string());
            return None;
        }
    };
    if kept.fold != FOLD {
        SnapshotOutcome::OtherFold.count();
        return None;
    }
    match Run::from_snapshot(&kept.body) {
        Ok(run) if run.id() == id && run.seq() == kept.seq => Some((run, kept.at)),
        Ok(run) => {
            broken(id, &format!("it holds event {} of {}", run.seq(), run.id()));
            None
        }
        Err(why) => {
            broken(id, &why);
            None
        }
    }
}

fn broken(run: RunId, why: &str) {
    tracing::warn!(%run, why, "the snapshot of the run cannot be used: all of its events are read");
    SnapshotOutcome::Broken.count();
}

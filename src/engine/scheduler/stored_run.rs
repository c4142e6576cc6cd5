//! Reads a run from the store and folds its events.
//!
//! Always true: a snapshot only saves work. A snapshot that is missing, damaged, written by a version with another fold
//! function, or not consistent with the events after it is ignored and counted, and all events are folded. Reading
//! fails only where the store does not return the events, or where they contradict each other.

use jiff::Timestamp;

use crate::engine::context::Core;
use crate::engine::ports::opened_events::{self, OpenedEvents};
use crate::engine::scheduler::run_snapshots::SnapshotOutcome;
use crate::names::{RunId, Seq};
use crate::store::{StoreError, StoredEvent};
use crate::workflow::{EventMisfit, FOLD, Run, fold};

/// Where reading begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum ReadFrom {
    /// At the run's snapshot, if it has one. Only for runs that have not ended: an ended one may be purged meanwhile.
    Snapshot,
    /// At its first event.
    FirstEvent,
}

/// Why a run could not be read.
#[derive(Debug, thiserror::Error)]
pub(in crate::engine) enum ReadError {
    /// The store did not return the events.
    #[error("{0}")]
    Store(StoreError),
    /// The events contradict each other.
    #[error("its events cannot be read: {0}")]
    Misfit(EventMisfit),
}

/// A run folded from the store.
pub(in crate::engine) struct StoredRun {
    pub run: Run,
    pub last_event_at: Timestamp,
    /// The events that were read: those after the snapshot, or all.
    pub events: Vec<StoredEvent>,
    /// Whether the run was read from its snapshot.
    pub from_run_snapshot: bool,
    /// See [`OpenedEvents::no_sealed_value_opens`]. If true, the values that look sealed are left sealed in the run.
    pub no_sealed_value_opens: bool,
}

/// Reads and folds a run.
pub(in crate::engine) async fn read(core: &Core, id: RunId, from: ReadFrom) -> Result<StoredRun, ReadError> {
    if from == ReadFrom::Snapshot
        && let Some((run, at)) = read_snapshot(core, id).await
    {
        let events = core.ports.store.events(id, run.seq().next()).await.map_err(ReadError::Store)?;
        let OpenedEvents { events, no_sealed_value_opens } = opened_events::open(&core.ports.sealer, id, events);
        match fold_onto(run, &events) {
            Ok(run) => {
                SnapshotOutcome::Read.count();
                let last_event_at = events.last().map_or(at, |stored| stored.at);
                return Ok(StoredRun { run, last_event_at, events, from_run_snapshot: true, no_sealed_value_opens });
            }
            Err(misfit) => report_unusable_snapshot(id, &misfit.to_string()),
        }
    }
    let events = core.ports.store.events(id, Seq::FIRST).await.map_err(ReadError::Store)?;
    let OpenedEvents { events, no_sealed_value_opens } = opened_events::open(&core.ports.sealer, id, events);
    let run = fold(events.iter().map(|stored| &stored.event)).map_err(ReadError::Misfit)?;
    let last_event_at = events.last().map_or(run.started().started, |stored| stored.at);
    Ok(StoredRun { run, last_event_at, events, from_run_snapshot: false, no_sealed_value_opens })
}

/// Folds further events onto a run.
fn fold_onto(mut run: Run, events: &[StoredEvent]) -> Result<Run, EventMisfit> {
    events.iter().try_for_each(|stored| run.evolve_in_place(&stored.event))?;
    Ok(run)
}

/// Reads a run from its snapshot; returns it with the time of its last event. `None` if there is no usable snapshot.
async fn read_snapshot(core: &Core, id: RunId) -> Option<(Run, Timestamp)> {
    let snapshot = match core.ports.store.run_snapshot(id).await {
        Ok(snapshot) => snapshot?,
        Err(error) => {
            report_unusable_snapshot(id, &error.to_string());
            return None;
        }
    };
    if snapshot.fold != FOLD {
        SnapshotOutcome::OtherFold.count();
        return None;
    }
    match Run::from_snapshot(&snapshot.body) {
        Ok(run) if run.id() == id && run.seq() == snapshot.seq => Some((run, snapshot.at)),
        Ok(run) => {
            report_unusable_snapshot(
                id,
                &format!("it contains {} at event {}, and its row says otherwise", run.id(), run.seq()),
            );
            None
        }
        Err(why) => {
            report_unusable_snapshot(id, &why);
            None
        }
    }
}

fn report_unusable_snapshot(run: RunId, why: &str) {
    tracing::warn!(%run, why, "the snapshot of the run cannot be used: all of its events are read");
    SnapshotOutcome::Broken.count();
}

//! When is a run's summary written?
//!
//! Always true: a summary is written when something of it changes that listings show, the place and the time of the last
//! event apart; those stand in columns of their own, which every append writes, and are put in when it is read. What is
//! remembered of a stored summary is never trusted alone: the statement that leaves it as it is compares the row.

use std::hash::{DefaultHasher, Hash, Hasher};

use jiff::Timestamp;

use super::StoreError;
use crate::names::{CheckpointId, Seq};
use crate::workflow::{Risk, RunStatus, RunSummary};

/// What listings show of a run, but for the place and the time of its last event.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ListedFields {
    status: RunStatus,
    note: Option<String>,
    wake: Option<Timestamp>,
    checkpoint: Option<(CheckpointId, Risk)>,
    /// A hash of what a run has from its beginning to its end.
    fixed: u64,
}

impl From<&RunSummary> for ListedFields {
    fn from(summary: &RunSummary) -> Self {
        let RunSummary { run_id, workflow, plan_id, route, mode, status, seq: _, started, .. } = summary;
        let RunSummary { updated: _, note, job, parent, wake, checkpoint, .. } = summary;
        let mut fixed = DefaultHasher::new();
        (run_id, workflow, plan_id, route, mode, started, job, parent).hash(&mut fixed);
        let (note, checkpoint) = (note.clone(), checkpoint.clone());
        Self { status: *status, note, wake: *wake, checkpoint, fixed: fixed.finish() }
    }
}

/// The summary as it was written, at the place and the time that the row says.
pub(super) fn decode_summary(written: &[u8], seq: i64, updated: Option<i64>) -> Result<RunSummary, StoreError> {
    let unread = |error: &dyn std::fmt::Display| StoreError(format!("a stored record cannot be read: {error}"));
    let mut summary: RunSummary = serde_json::from_slice(written).map_err(|error| unread(&error))?;
    summary.seq = Seq(seq.cast_unsigned());
    if let Some(updated) = updated {
        summary.updated = Timestamp::from_nanosecond(i128::from(updated)).map_err(|error| unread(&error))?;
    }
    Ok(summary)
}

//! Decides when a run's summary is written.
//!
//! Always true: a summary is written when a field changes that listings show, except the seq and the time of the last
//! event: every append writes those to columns of their own, and they are filled in when the summary is read. A cached
//! summary is never trusted alone: the statement that skips the write compares the run's row.

use std::hash::{DefaultHasher, Hash, Hasher};

use jiff::Timestamp;

use super::StoreError;
use crate::names::{CheckpointId, Seq};
use crate::workflow::{Risk, RunStatus, RunSummary};

/// What listings show of a run, except the seq and the time of its last event.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ListedFields {
    status: RunStatus,
    note: Option<String>,
    wake: Option<Timestamp>,
    checkpoint: Option<(CheckpointId, Risk)>,
    /// A hash of the fields that never change.
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

/// Decodes a stored summary and fills in the seq and the time of the last event.
pub(super) fn decode_summary(written: &[u8], seq: i64, updated: Option<i64>) -> Result<RunSummary, StoreError> {
    let unread = |error: &dyn std::fmt::Display| StoreError(format!("a stored record cannot be read: {error}"));
    let mut summary: RunSummary = serde_json::from_slice(written).map_err(|error| unread(&error))?;
    summary.seq = Seq(seq.cast_unsigned());
    if let Some(updated) = updated {
        summary.updated = Timestamp::from_nanosecond(i128::from(updated)).map_err(|error| unread(&error))?;
    }
    Ok(summary)
}

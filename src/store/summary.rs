//! Decides when a run's summary is written, and what becomes of one that cannot be read.
//!
//! Always true: a summary is written when a field changes that listings show, except the seq and the time of the last
//! event: every append writes those to columns of their own, and they are filled in when the summary is read. A cached
//! summary is never trusted alone: the statement that skips the write compares the run's row. A row whose summary
//! cannot be read hides no other run: lists, and the look-ups of runs that are due, leave it out; that is counted, and
//! logged with its id.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use metrics::counter;
use uuid::Uuid;

use super::{RunFilter, StoreError};
use crate::names::{CheckpointId, RunId, Seq};
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
pub(super) fn decode_summary(json: &[u8], seq: i64, updated: Option<i64>) -> Result<RunSummary, StoreError> {
    let failed = |error: &dyn std::fmt::Display| StoreError(format!("a stored record cannot be read: {error}"));
    let mut summary: RunSummary = serde_json::from_slice(json).map_err(|error| failed(&error))?;
    summary.seq = Seq(seq.cast_unsigned());
    if let Some(updated) = updated {
        summary.updated = Timestamp::from_nanosecond(i128::from(updated)).map_err(|error| failed(&error))?;
    }
    Ok(summary)
}

/// At most this many runs whose summaries cannot be read are logged, each once.
const LOGGED_MAX: usize = 1_000;

/// The runs that were logged.
static LOGGED: Mutex<BTreeSet<Vec<u8>>> = Mutex::new(BTreeSet::new());

/// What was decoded from a row. If the summary cannot be read, counts and logs that, and returns `None`.
pub(super) fn decoded_or_logged<T>(run_id: &[u8], decoded: Result<T, StoreError>) -> Option<T> {
    let error = match decoded {
        Ok(decoded) => return Some(decoded),
        Err(error) => error,
    };
    counter!("pointsman_summaries_unreadable_total").increment(1);
    let mut logged = LOGGED.lock().unwrap_or_else(PoisonError::into_inner);
    if logged.len() < LOGGED_MAX && logged.insert(run_id.to_vec()) {
        let run = Uuid::from_slice(run_id).map_or_else(|_| format!("{run_id:02x?}"), |id| RunId(id).to_string());
        tracing::error!(
            run, %error,
            "the summary of a run cannot be read: lists leave the run out and it is not resumed, until the store is \
             repaired (`pointsman store check`)"
        );
    }
    None
}

/// Adds the readable rows of a page; returns the filter for the rest of the page where rows were left out and there may
/// be further ones.
pub(super) fn add_readable(
    rows: Vec<(Vec<u8>, Result<RunSummary, StoreError>)>,
    filter: RunFilter,
    page: &mut Vec<RunSummary>,
) -> Option<RunFilter> {
    let before = rows.last().and_then(|(run_id, _)| Uuid::from_slice(run_id).ok()).map(RunId);
    let is_full = rows.len() == filter.limit;
    let count = rows.len();
    let readable: Vec<_> =
        rows.into_iter().filter_map(|(run_id, summary)| decoded_or_logged(&run_id, summary)).collect();
    let left_out = count - readable.len();
    page.extend(readable);
    (is_full && left_out > 0 && before.is_some()).then_some(RunFilter { before, limit: left_out, ..filter })
}

//! A run's state as bytes, so that loading a run need not fold all of its events.
//!
//! Always true: a run that is read back equals the one that was written, and behaves the same under further events.
//! That holds only for a binary with the same fold, which [`FOLD`] identifies. Invalid bytes give an error value. The
//! engine decides when snapshots are written and read, and handles those that cannot be read.

use serde::{Deserialize, Serialize};

use super::Run;
use super::done_rows::DoneRows;

/// A hash of the sources that determine the fold: those of `workflow`, and the types of other modules that a run
/// consists of. Two binaries with the same hash can read each other's snapshots.
pub const FOLD: &str = env!("POINTSMAN_FOLD");

#[derive(Serialize)]
struct Written<'a> {
    run: &'a Run,
    done: DoneRows,
}

#[derive(Deserialize)]
struct ReadBack {
    run: Run,
    done: DoneRows,
}

impl Run {
    /// The run as bytes.
    ///
    /// # Errors
    /// It holds a value that JSON cannot represent.
    pub fn to_snapshot(&self) -> Result<Vec<u8>, String> {
        let written = Written { run: self, done: DoneRows::of(self) };
        serde_json::to_vec(&written).map_err(|error| format!("the run cannot be written as JSON: {error}"))
    }

    /// Reads a run back from bytes that [`Run::to_snapshot`] of a binary with the same [`FOLD`] returned.
    ///
    /// # Errors
    /// The bytes hold no run.
    pub fn from_snapshot(bytes: &[u8]) -> Result<Run, String> {
        let unread = |why: &dyn std::fmt::Display| format!("a snapshot cannot be read: {why}");
        let ReadBack { mut run, done } = serde_json::from_slice(bytes).map_err(|error| unread(&error))?;
        run.done = done.read(&run).map_err(|why| unread(&why))?;
        Ok(run)
    }
}

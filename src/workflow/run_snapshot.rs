//! A run as bytes, so that whoever moves it next need not fold all of its events.
//!
//! Always true: what is read back equals the run that was written, and so does what further events make of it. That
//! holds for a binary that folds as the one that wrote it: [`FOLD`] tells whether it does. Bytes that are no run are an
//! error value. When they are written and read, and what becomes of those that cannot be read, is `engine`'s business.

use super::Run;

/// A hash of the sources that determine what events come to: all of `workflow`, and names. Two binaries with the same one
/// read each other's snapshots.
pub const FOLD: &str = env!("POINTSMAN_FOLD");

impl Run {
    /// The run as bytes.
    ///
    /// # Errors
    /// It holds what JSON cannot.
    pub fn to_snapshot(&self) -> Result<Vec<u8>, String> {
        serde_json::to_vec(self).map_err(|error| format!("the run cannot be written as JSON: {error}"))
    }

    /// The run that [`Run::to_snapshot`] of the same [`FOLD`] was given.
    ///
    /// # Errors
    /// The bytes are no run.
    pub fn from_snapshot(bytes: &[u8]) -> Result<Run, String> {
        serde_json::from_slice(bytes).map_err(|error| format!("a snapshot cannot be read: {error}"))
    }
}

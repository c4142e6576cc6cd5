//! Notes which requests legacy took first.

use jiff::Timestamp;

use super::tables::Tables;
use crate::flag::{Arm, RetryKey};
use crate::store::StoredFirstTry;

impl Tables {
    /// Returns the keys that runs have taken before.
    pub(super) fn note_legacy(&mut self, tries: Vec<(RetryKey, Timestamp)>, now: Timestamp) -> Vec<RetryKey> {
        let mut of_runs = Vec::new();
        for (key, at) in tries {
            match self.first_try(&key, now).map(|first| first.run) {
                Some(None) => {}
                Some(Some(run)) if !self.is_abandoned(&run) => of_runs.push(key),
                Some(Some(_)) | None => {
                    self.retry_keys.insert(key, StoredFirstTry { arm: Arm::Legacy, run: None, request: None, at });
                }
            }
        }
        of_runs
    }
}

//! What keeps the runs of the last process from being resumed, for the process's health and its metric.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Why the runs that the last process left are not resumed yet; `None` where they are, or where nobody asked for it.
#[derive(Default)]
pub(in crate::engine) struct RecoveryTrouble(Mutex<Option<String>>);

impl RecoveryTrouble {
    fn state(&self) -> MutexGuard<'_, Option<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    pub fn get(&self) -> Option<String> {
        self.state().clone()
    }
    pub fn set(&self, why: Option<String>) {
        metrics::gauge!("pointsman_recovery_pending").set(if why.is_some() { 1.0 } else { 0.0 });
        *self.state() = why;
    }
}

//! How many runs are under way.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts one run as under way until it is dropped.
pub(super) struct RunInFlight<'a>(&'a AtomicU64);

impl<'a> RunInFlight<'a> {
    pub(super) fn begin(count: &'a AtomicU64) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count)
    }
}

impl Drop for RunInFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

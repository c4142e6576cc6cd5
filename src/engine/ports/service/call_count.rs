//! How many calls of a service are in flight.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// How many calls are in flight.
#[derive(Default)]
pub(super) struct CallCount(AtomicUsize);

impl CallCount {
    pub(super) fn get(&self) -> usize {
        self.0.load(Relaxed)
    }
}

/// Counts one call until it is dropped.
pub(super) struct CountedCall(Arc<CallCount>);

impl CountedCall {
    pub(super) fn new(count: &Arc<CallCount>) -> Self {
        count.0.fetch_add(1, Relaxed);
        Self(count.clone())
    }
}

impl Drop for CountedCall {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Relaxed);
    }
}

//! Requests that are not watched because there is no room.
//!
//! Always true: as long as one of them could still cause a call, which is until the window after its exchange has
//! passed, [`UnwatchedRequests::any`] says so. For all of them together only two numbers are kept. No method waits:
//! threads that serve clients call them.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};

/// Requests that are not watched because there is no room.
#[derive(Default)]
pub(super) struct UnwatchedRequests {
    /// How many of them are in flight.
    in_flight: AtomicUsize,
    /// When the windows of those whose exchanges have ended are over, in microseconds.
    until_us: AtomicU64,
}

impl UnwatchedRequests {
    /// Adds a request that is not watched, or is watched no longer, while its exchange goes on.
    pub(super) fn begin(&self) {
        self.in_flight.fetch_add(1, SeqCst);
    }

    /// Notes that the exchange of one of them ended at `now_us`.
    pub(super) fn end(&self, now_us: u64, window_us: u64) {
        // Before the subtraction, so that `any` finds the request by one of the two numbers at every moment.
        self.until_us.fetch_max(now_us.saturating_add(window_us), SeqCst);
        self.in_flight.fetch_sub(1, SeqCst);
    }

    /// Whether one of them can still cause a call.
    pub(super) fn any(&self, now_us: u64) -> bool {
        self.in_flight.load(SeqCst) > 0 || self.until_us.load(SeqCst) > now_us
    }
}

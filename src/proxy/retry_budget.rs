//! How many requests may be sent to a second address because the first one gave no answer.
//!
//! Without a budget, retries would double the load of a service that fails because of its load. One retry is allowed
//! for every five requests; unused retries accumulate, up to a burst.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The number of requests for which one retry is allowed.
const REQUESTS_FOR_ONE: u64 = 5;
/// The most retries that accumulate.
const BURST: u64 = 20;

/// The budget of one service.
pub(super) struct RetryBudget(AtomicU64);

impl Default for RetryBudget {
    fn default() -> Self {
        Self(AtomicU64::new(BURST * REQUESTS_FOR_ONE))
    }
}

impl RetryBudget {
    /// Counts a request.
    pub(super) fn count_request(&self) {
        if self.0.load(Relaxed) < BURST * REQUESTS_FOR_ONE {
            self.0.fetch_add(1, Relaxed);
        }
    }
    /// Takes a retry from the budget; `false` if there is none left.
    pub(super) fn take(&self) -> bool {
        self.0.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(REQUESTS_FOR_ONE)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_retry_for_five_requests_and_a_burst() {
        let budget = RetryBudget::default();
        let taken = |budget: &RetryBudget| (0..100).filter(|_| budget.take()).count() as u64;
        assert_eq!(taken(&budget), BURST);
        (0..15).for_each(|_| budget.count_request());
        assert_eq!(taken(&budget), 3);
        (0..10_000).for_each(|_| budget.count_request());
        assert_eq!(taken(&budget), BURST);
    }
}

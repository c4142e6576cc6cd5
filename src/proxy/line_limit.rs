//! Limits log lines that clients or a failing service can cause at any rate.
//!
//! At most [`LINES_PER_SECOND_MAX`] lines are written in a second (a few more if several threads log at the moment when
//! a second begins); the next line says how many were left out since the last one.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The most lines that are written in a second.
const LINES_PER_SECOND_MAX: u64 = 20;

/// Counts the lines of one kind, for all threads.
pub(super) struct LineLimit {
    second: AtomicU64,
    written: AtomicU64,
    left_out: AtomicU64,
}

impl LineLimit {
    pub(super) const fn new() -> Self {
        Self { second: AtomicU64::new(0), written: AtomicU64::new(0), left_out: AtomicU64::new(0) }
    }

    /// Returns how many lines were left out since the last one, if a line may be written in this second; `None` if not.
    /// Threads that call this when a second begins may write a few lines more.
    pub(super) fn next_line(&self, second: u64) -> Option<u64> {
        if self.second.swap(second, Relaxed) != second {
            self.written.store(0, Relaxed);
        }
        if self.written.fetch_add(1, Relaxed) < LINES_PER_SECOND_MAX {
            return Some(self.left_out.swap(0, Relaxed));
        }
        self.left_out.fetch_add(1, Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_above_the_limit_are_counted_in_the_next_line() {
        let limit = LineLimit::new();
        for _ in 0..LINES_PER_SECOND_MAX {
            assert_eq!(limit.next_line(7), Some(0));
        }
        assert_eq!((limit.next_line(7), limit.next_line(7)), (None, None));
        assert_eq!(limit.next_line(8), Some(2));
        assert_eq!(limit.next_line(8), Some(0));
    }
}

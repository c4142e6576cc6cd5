//! The log line about spans that found no room in the queue.
//!
//! Always true: there is at most one line in [`LINE_EVERY`], which says how many spans were dropped since the last one;
//! a span that is dropped without a line costs two atomic operations.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// The shortest time between two lines.
const LINE_EVERY: Duration = Duration::from_secs(60);

/// The origin of the times below.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Counts dropped spans for the log.
#[derive(Debug, Default)]
pub(super) struct DropLog {
    /// Since the last line.
    dropped: AtomicU64,
    /// When the next line may be written, in milliseconds since [`START`].
    next_line: AtomicU64,
}

impl DropLog {
    /// A span was dropped.
    pub(super) fn note(&self) {
        if let Some(dropped) = self.count_at(START.elapsed()) {
            tracing::warn!(
                dropped,
                "spans are dropped: too many wait for the collector (limits: spans_waiting_max); requests are not affected"
            );
        }
    }

    /// Counts a span; returns how many were dropped, if a line is due.
    fn count_at(&self, now: Duration) -> Option<u64> {
        self.dropped.fetch_add(1, Relaxed);
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let due = self.next_line.load(Relaxed);
        let next = millis(now + LINE_EVERY);
        let is_due = due <= millis(now) && self.next_line.compare_exchange(due, next, Relaxed, Relaxed).is_ok();
        is_due.then(|| self.dropped.swap(0, Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_line_for_the_first_span_and_then_one_a_minute() {
        let log = DropLog::default();
        let lines = [0, 1, 59, 60, 61, 130].map(|second| log.count_at(Duration::from_secs(second)));
        assert_eq!(lines, [Some(1), None, None, Some(3), None, Some(2)]);
    }
}

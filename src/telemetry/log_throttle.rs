//! Limits how often a log line about something that may happen thousands of times a second is written. Where each line
//! names another client or service, `proxy::line_limit` is used; where failures differ by their text,
//! `store::RepeatedFailures`.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// The shortest time between two lines.
const LINE_EVERY: Duration = Duration::from_secs(60);

/// The origin of the times below.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Counts occurrences between two lines. Always true: there is at most one line in [`LINE_EVERY`], which can say how
/// many occurrences there were since the last one; an occurrence without a line costs two atomic operations.
#[derive(Debug, Default)]
pub struct LogThrottle {
    /// Occurrences since the last line.
    count: AtomicU64,
    /// When the next line may be written, in milliseconds since [`START`].
    next_line: AtomicU64,
}

impl LogThrottle {
    /// A throttle before the first occurrence.
    pub const fn new() -> Self {
        Self { count: AtomicU64::new(0), next_line: AtomicU64::new(0) }
    }

    /// Counts one occurrence. If a line is due, returns how many there were since the last line, this one included: the
    /// caller writes the line.
    pub fn count(&self) -> Option<u64> {
        self.count_at(START.elapsed())
    }

    fn count_at(&self, now: Duration) -> Option<u64> {
        self.count.fetch_add(1, Relaxed);
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let due = self.next_line.load(Relaxed);
        let next = millis(now + LINE_EVERY);
        let is_due = due <= millis(now) && self.next_line.compare_exchange(due, next, Relaxed, Relaxed).is_ok();
        is_due.then(|| self.count.swap(0, Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_line_for_the_first_occurrence_and_then_one_a_minute() {
        let throttle = LogThrottle::new();
        let lines = [0, 1, 59, 60, 61, 130].map(|second| throttle.count_at(Duration::from_secs(second)));
        assert_eq!(lines, [Some(1), None, None, Some(3), None, Some(2)]);
    }
}

//! Which of many equal failures are logged.
//!
//! Always true: a text is logged when it occurs for the first time or after [`QUIET`] without it. While it keeps
//! occurring, it is logged once per [`INTERVAL`]. Each line has the number of times that the text occurred since the
//! last line. A success between two failures does not matter: on a disk that is almost full, small writes succeed while
//! larger ones fail.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The interval of lines with one text while the failure goes on.
const INTERVAL: Duration = Duration::from_secs(60);
/// After this time without the failure, the next one is logged at once.
const QUIET: Duration = Duration::from_secs(10);
/// How many texts are remembered. The one that has not occurred for the longest time is forgotten first.
const TEXTS_MAX: usize = 8;

/// The failures of one kind of work.
#[derive(Default)]
pub struct RepeatedFailures(Mutex<Vec<RepeatedFailure>>);

struct RepeatedFailure {
    text: String,
    logged: Instant,
    last: Instant,
    unlogged: u64,
}

impl RepeatedFailures {
    /// Counts a failure with this text. Returns `None` if it is not to be logged, else how many failures with this text
    /// came since the last line and were not logged.
    pub fn count(&self, text: &str) -> Option<u64> {
        self.count_at(text, Instant::now())
    }

    fn count_at(&self, text: &str, now: Instant) -> Option<u64> {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(index) = failures.iter().position(|failure| failure.text == text) else {
            if failures.len() >= TEXTS_MAX {
                failures.remove(0);
            }
            failures.push(RepeatedFailure { text: text.to_owned(), logged: now, last: now, unlogged: 0 });
            return Some(0);
        };
        // At the end of the list, so that the first one is the one to forget.
        let mut failure = failures.remove(index);
        let is_logged = now - failure.last >= QUIET || now - failure.logged >= INTERVAL;
        let unlogged = failure.unlogged;
        failure.last = now;
        (failure.logged, failure.unlogged) = if is_logged { (now, 0) } else { (failure.logged, unlogged + 1) };
        failures.push(failure);
        is_logged.then_some(unlogged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_that_goes_on_is_logged_once_a_minute_with_a_count() {
        let (failures, began) = (RepeatedFailures::default(), Instant::now());
        let at = |ms: u64| began + Duration::from_millis(ms);
        // Two failures a second, for 150 s.
        let logged: Vec<_> = (0..300).filter_map(|n| Some((n, failures.count_at("full", at(n * 500))?))).collect();
        assert_eq!(logged, [(0, 0), (120, 119), (240, 119)]);
        assert_eq!(failures.count_at("gone", at(150_000)), Some(0), "another text is another failure");
        assert_eq!(failures.count_at("full", at(150_500)), None);
        assert_eq!(failures.count_at("full", at(160_500)), Some(60), "it has ended, and comes again");
        assert_eq!(failures.count_at("full", at(161_000)), None);
    }

    #[test]
    fn a_bounded_number_of_texts_is_remembered() {
        let (failures, now) = (RepeatedFailures::default(), Instant::now());
        assert!((0..TEXTS_MAX).all(|n| failures.count_at(&n.to_string(), now) == Some(0)));
        assert_eq!(failures.count_at("0", now), None);
        assert_eq!(failures.count_at("one more", now), Some(0));
        assert_eq!((failures.count_at("0", now), failures.count_at("1", now)), (None, Some(0)));
    }
}

//! PURE. Counts calls and failures in a sliding window.
//!
//! Always true: a call counts for at least `over` minus the width of one bucket after it ended, and for at most `over`;
//! memory is ten buckets, however many calls there are.

use std::time::Duration;

const BUCKETS: usize = 10;

/// A sliding window of buckets.
#[derive(Clone, Debug)]
pub(super) struct Window {
    width_ns: u128,
    buckets: [Bucket; BUCKETS],
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    /// The number of the time interval that it counts. A bucket whose interval has left the window counts as empty.
    interval: u128,
    counts: Counts,
}

/// Calls that ended within the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// All calls.
    pub calls: u64,
    /// Failed calls.
    pub failed: u64,
}

impl Window {
    pub fn new(over: Duration) -> Self {
        let width_ns = (over.as_nanos() / BUCKETS as u128).max(1);
        Self { width_ns, buckets: [Bucket::default(); BUCKETS] }
    }
    /// Counts a call that has ended.
    pub fn count(&mut self, failed: bool, now: Duration) {
        let interval = self.interval(now);
        let index = usize::try_from(interval % BUCKETS as u128).unwrap_or_default();
        let bucket = &mut self.buckets[index];
        if bucket.interval != interval {
            *bucket = Bucket { interval, counts: Counts::default() };
        }
        bucket.counts.calls += 1;
        bucket.counts.failed += u64::from(failed);
    }
    /// The counts of the window now.
    pub fn counts(&self, now: Duration) -> Counts {
        let newest = self.interval(now);
        let within = |bucket: &&Bucket| bucket.interval <= newest && newest - bucket.interval < BUCKETS as u128;
        self.buckets.iter().filter(within).fold(Counts::default(), |sum, bucket| Counts {
            calls: sum.calls + bucket.counts.calls,
            failed: sum.failed + bucket.counts.failed,
        })
    }
    /// Empties the window.
    pub fn clear(&mut self) {
        self.buckets = [Bucket::default(); BUCKETS];
    }
    fn interval(&self, now: Duration) -> u128 {
        now.as_nanos() / self.width_ns
    }
}

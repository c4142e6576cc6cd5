//! PURE. How many calls of the last while failed.
//!
//! Always true: a call is forgotten no earlier than `over` less one bucket after it ended, and no later than `over`
//! after; memory is ten pairs of numbers, however many calls there are.

use std::time::Duration;

const BUCKETS: usize = 10;

/// Counts of a sliding time.
#[derive(Clone, Debug)]
pub(super) struct Window {
    width_ns: u128,
    buckets: [Bucket; BUCKETS],
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    /// Which stretch of time it counts; one that has passed out of the window counts as empty.
    stretch: u128,
    counts: Counts,
}

/// Calls that ended within the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// All that count.
    pub calls: u64,
    /// Those of them that failed.
    pub failed: u64,
}

impl Window {
    pub fn new(over: Duration) -> Self {
        let width_ns = (over.as_nanos() / BUCKETS as u128).max(1);
        Self { width_ns, buckets: [Bucket::default(); BUCKETS] }
    }
    /// One more call ended.
    pub fn count(&mut self, failed: bool, now: Duration) {
        let stretch = self.stretch(now);
        let place = usize::try_from(stretch % BUCKETS as u128).unwrap_or_default();
        let bucket = &mut self.buckets[place];
        if bucket.stretch != stretch {
            *bucket = Bucket { stretch, counts: Counts::default() };
        }
        bucket.counts.calls += 1;
        bucket.counts.failed += u64::from(failed);
    }
    /// What is in the window now.
    pub fn counts(&self, now: Duration) -> Counts {
        let newest = self.stretch(now);
        let within = |bucket: &&Bucket| bucket.stretch <= newest && newest - bucket.stretch < BUCKETS as u128;
        self.buckets.iter().filter(within).fold(Counts::default(), |sum, bucket| Counts {
            calls: sum.calls + bucket.counts.calls,
            failed: sum.failed + bucket.counts.failed,
        })
    }
    /// Forgets everything.
    pub fn clear(&mut self) {
        self.buckets = [Bucket::default(); BUCKETS];
    }
    fn stretch(&self, now: Duration) -> u128 {
        now.as_nanos() / self.width_ns
    }
}

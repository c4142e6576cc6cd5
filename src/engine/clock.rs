//! The time of a run.
//!
//! Always true: it never goes back and never jumps, even where the process's time does because the clock of a shared store
//! was set. It is the process's time when the run was loaded, and what has passed since. A rehearsal's may be put forward:
//! durations elapse at once.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::clock::Moment;

pub(super) struct Clock {
    wall: Timestamp,
    since: Moment,
    ahead: SignedDuration,
}

impl Clock {
    /// Starts now; not before `earliest`, the last event of a run that another process left.
    pub fn starting(now: Timestamp, earliest: Timestamp) -> Self {
        Self { wall: now.max(earliest), since: Moment::now(), ahead: SignedDuration::ZERO }
    }
    /// Its time.
    pub fn now(&self) -> Timestamp {
        let elapsed = SignedDuration::try_from(self.since.elapsed()).unwrap_or_default();
        self.wall.checked_add(elapsed).and_then(|now| now.checked_add(self.ahead)).unwrap_or(self.wall)
    }
    /// How long until a time; none if it has passed.
    pub fn until(&self, at: Timestamp) -> Duration {
        // One millisecond more: the timer may not wake a hair too early.
        Duration::try_from(at.duration_since(self.now())).map_or(Duration::ZERO, |left| left + Duration::from_millis(1))
    }
    /// Lets the time until then elapse at once.
    pub fn put_forward(&mut self, to: Timestamp) {
        let ahead = to.duration_since(self.now());
        if ahead.is_positive() {
            self.ahead = self.ahead.checked_add(ahead).unwrap_or(self.ahead);
        }
    }
}

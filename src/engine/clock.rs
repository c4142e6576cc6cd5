//! The time of a run.
//!
//! Always true: it never goes back and never jumps, even where the process's time does because the clock of a shared store
//! was set. It is the process's time when the run was loaded, and what has passed since.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use crate::clock::Moment;

pub(super) struct Clock {
    loaded: Timestamp,
    since: Moment,
}

impl Clock {
    /// Starts now; not before `earliest`, the last event of a run that another process left.
    pub fn starting(now: Timestamp, earliest: Timestamp) -> Self {
        Self { loaded: now.max(earliest), since: Moment::now() }
    }
    /// Its time.
    pub fn now(&self) -> Timestamp {
        let elapsed = SignedDuration::try_from(self.since.elapsed()).unwrap_or_default();
        self.loaded.checked_add(elapsed).unwrap_or(self.loaded)
    }
    /// Its time at an instant of the runtime's clock, now or later.
    pub fn at(&self, instant: Instant) -> Timestamp {
        let (now, left) = (self.now(), instant.saturating_duration_since(Instant::now()));
        now.checked_add(SignedDuration::try_from(left).unwrap_or_default()).unwrap_or(now)
    }
    /// How long until a time; none if it has passed.
    pub fn until(&self, at: Timestamp) -> Duration {
        // One millisecond more: the timer may not wake a hair too early.
        Duration::try_from(at.duration_since(self.now())).map_or(Duration::ZERO, |left| left + Duration::from_millis(1))
    }
}

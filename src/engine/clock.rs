//! The clock of one run.
//!
//! Always true: the clock never goes back and never jumps, even if the process's time jumps because the clock of a
//! shared store was set. When the run is loaded it starts at the process's time or at the time of the run's last event,
//! whichever is later; from then on it advances with the elapsed time.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use crate::clock::Moment;

pub(super) struct Clock {
    started_at: Timestamp,
    started: Moment,
}

impl Clock {
    /// Starts at the process's time, but not before `earliest`, the time of the run's last event.
    pub fn starting(now: Timestamp, earliest: Timestamp) -> Self {
        Self { started_at: now.max(earliest), started: Moment::now() }
    }
    pub fn now(&self) -> Timestamp {
        let elapsed = SignedDuration::try_from(self.started.elapsed()).unwrap_or_default();
        self.started_at.checked_add(elapsed).unwrap_or(self.started_at)
    }
    /// The time of this clock at an instant of the runtime's clock; the present time if the instant has passed.
    pub fn at(&self, instant: Instant) -> Timestamp {
        let (now, left) = (self.now(), instant.saturating_duration_since(Instant::now()));
        now.checked_add(SignedDuration::try_from(left).unwrap_or_default()).unwrap_or(now)
    }
    /// How long until a time; zero if it has passed.
    pub fn until(&self, at: Timestamp) -> Duration {
        // One millisecond more, because a timer that fires early would only be armed again.
        Duration::try_from(at.duration_since(self.now())).map_or(Duration::ZERO, |left| left + Duration::from_millis(1))
    }
}

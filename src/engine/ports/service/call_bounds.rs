//! How long a call may wait for its permit, and how long it may take then.

use std::time::Duration;

use tokio::time::Instant;

/// How long a call may wait for its permit, and how long it may take once it has the permit.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) struct CallBounds {
    /// The longest time for the wait, and again for the call.
    pub timeout: Duration,
    /// The step's deadline: wait and call together end by then.
    pub until: Option<Instant>,
    /// How much time before `until` has to remain for the call when it stops waiting for its permit: with less, a
    /// service that answers within the timeout may still answer too late.
    pub reserved: Duration,
}

impl CallBounds {
    /// Until when a call that requests its permit now may wait; not at all if less than the reserved time is left.
    pub(super) fn wait_until(&self, now: Instant) -> Instant {
        let latest = self.until.and_then(|until| until.checked_sub(self.reserved));
        (now + self.timeout).min(latest.unwrap_or(now + self.timeout)).max(now)
    }
    /// How long a call that gets its permit now may take.
    pub(super) fn time_allowed(&self, now: Instant) -> Duration {
        let left = self.until.map(|until| until.saturating_duration_since(now));
        left.map_or(self.timeout, |left| left.min(self.timeout))
    }
}

//! Microseconds since the clock was first read in this process, for waits and latencies. These times are cheap to store
//! in atomics.
//!
//! Reading the clock costs about as much as parsing a header field, and an exchange needs the time at a dozen places,
//! most of which only restart a limit of seconds. Those places use the last reading in the same poll of their
//! connection.

use std::cell::Cell;
use std::sync::LazyLock;
use std::time::Duration;

use tokio::time::Instant;

static BASE: LazyLock<Instant> = LazyLock::new(Instant::now);

/// No connection is being polled on this thread.
const NO_POLL: u64 = u64::MAX;

thread_local! {
    /// The last reading in the current poll; 0 if there was none.
    static LAST: Cell<u64> = const { Cell::new(NO_POLL) };
}

/// Microseconds since the first call in this process.
pub(super) fn now() -> u64 {
    let now = BASE.elapsed().as_micros() as u64;
    if LAST.get() != NO_POLL {
        LAST.set(now);
    }
    now
}

/// Returns the last time that was read in the current poll of a connection, or else the current time. Too early by at
/// most the duration of the poll.
pub(super) fn recent() -> u64 {
    match LAST.get() {
        0 | NO_POLL => now(),
        last => last,
    }
}

/// One poll of a connection. While this value exists, [`recent`] returns the last time that was read in the poll.
pub(super) struct ConnectionPoll(());

impl ConnectionPoll {
    pub(super) fn begin() -> Self {
        LAST.set(0);
        Self(())
    }
}

impl Drop for ConnectionPoll {
    fn drop(&mut self) {
        LAST.set(NO_POLL);
    }
}

/// Returns the point in time at `micros`, for a timer.
pub(super) fn instant(micros: u64) -> Instant {
    *BASE + Duration::from_micros(micros)
}

/// A time that never comes.
pub(super) const NEVER: u64 = u64::MAX;

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_within_a_poll_the_last_reading_is_used_again() {
        let step = Duration::from_millis(5);
        advance(step).await;
        let before = recent();
        advance(step).await;
        assert_eq!(recent(), before + 5_000, "outside of a poll the clock is read");
        let poll = ConnectionPoll::begin();
        let first = recent();
        advance(step).await;
        assert_eq!(recent(), first);
        assert_eq!((now(), recent()), (first + 5_000, first + 5_000), "a reading replaces the one before");
        advance(step).await;
        drop(poll);
        assert_eq!(recent(), first + 10_000);
        let _next = ConnectionPoll::begin();
        advance(step).await;
        assert_eq!(recent(), first + 15_000, "a poll begins without a reading");
    }
}

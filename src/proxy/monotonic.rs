//! Microseconds since the start of the process, for waits and latencies. They are cheap to store in atomics.

use std::sync::LazyLock;
use std::time::Duration;

use tokio::time::Instant;

static BASE: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Microseconds since the first call in this process.
pub(super) fn now() -> u64 {
    BASE.elapsed().as_micros() as u64
}

/// The point in time after so many microseconds, for a timer.
pub(super) fn instant(micros: u64) -> Instant {
    *BASE + Duration::from_micros(micros)
}

/// A time that never comes.
pub(super) const NEVER: u64 = u64::MAX;

//! The machine's two clocks: the wall clock, which people and NTP set, and the steady (monotonic) one.

use std::time::Duration;

use jiff::Timestamp;

/// Both of the machine's clocks, read at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    /// The wall clock: may be set to anything at any time.
    pub wall: Timestamp,
    /// The time since the machine was started, including sleep; it cannot be set.
    pub boot: Duration,
}

/// Both clocks now; in a simulation, the simulation's.
pub(super) fn read() -> Reading {
    Reading { wall: wall(), boot: boot_time() }
}

fn wall() -> Timestamp {
    #[cfg(test)]
    if let Some(now) = simulated::wall() {
        return now;
    }
    Timestamp::now()
}

/// The steady clock.
pub(super) fn boot_time() -> Duration {
    #[cfg(test)]
    if let Some(now) = simulated::boot_time() {
        return now;
    }
    let now = rustix::time::clock_gettime(STEADY);
    let (seconds, nanos) = (u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0));
    Duration::new(seconds, nanos)
}

#[cfg(any(target_os = "linux", target_os = "android"))]
const STEADY: rustix::time::ClockId = rustix::time::ClockId::Boottime;
/// Other systems do not count the machine's sleep; after a sleep of up to a minute the time is slewed to the wall
/// clock.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const STEADY: rustix::time::ClockId = rustix::time::ClockId::Monotonic;

/// A simulated time, for a thread on which tokio's time is paused, and the deviation of the simulated machines' clocks
/// from it.
#[cfg(test)]
pub(crate) mod simulated {
    use std::cell::Cell;
    use std::time::Duration;

    use jiff::{SignedDuration, Timestamp};
    use tokio::time::Instant;

    thread_local! {
        static BEGUN: Cell<Option<(Timestamp, Instant)>> = const { Cell::new(None) };
        static SKEW: Cell<SignedDuration> = const { Cell::new(SignedDuration::ZERO) };
        static SLEPT: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    }

    /// Starts the simulated time, which then advances with tokio's.
    pub fn begin(at: Timestamp) {
        BEGUN.set(Some((at, Instant::now())));
        SLEPT.set(Duration::ZERO);
        skew(SignedDuration::ZERO);
    }
    /// Ends the simulation: the machine's own clocks are read again.
    pub fn end() {
        BEGUN.set(None);
    }
    /// Sets how far the machines' clocks deviate from the simulated time.
    pub fn skew(by: SignedDuration) {
        SKEW.set(by);
    }
    /// Lets the machine sleep: its clocks go on, and tokio's does not.
    pub fn suspend_machine(by: Duration) {
        SLEPT.set(SLEPT.get() + by);
    }
    /// The simulated time, without the deviation.
    pub fn time() -> Option<Timestamp> {
        BEGUN.get()?.0.checked_add(SignedDuration::try_from(boot_time()?).ok()?).ok()
    }
    pub(super) fn wall() -> Option<Timestamp> {
        time()?.checked_add(SKEW.get()).ok()
    }
    pub(super) fn boot_time() -> Option<Duration> {
        Some(BEGUN.get()?.1.elapsed() + SLEPT.get())
    }
}

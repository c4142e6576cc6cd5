//! The machine's two clocks: the wall's, which people and NTP set, and the steady one.

use std::time::Duration;

use jiff::Timestamp;

/// What the machine's clocks say at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    /// The date, as the machine has it: may be set to anything at any time.
    pub wall: Timestamp,
    /// Since the machine was started, asleep or awake: nobody can set it.
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
/// Elsewhere a machine's sleep is not counted; the time catches up with the wall's clock where that is under a minute.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const STEADY: rustix::time::ClockId = rustix::time::ClockId::Monotonic;

/// The time of a thread on which tokio's time is paused, and what its machines' clocks make of it.
#[cfg(test)]
pub(crate) mod simulated {
    use std::cell::Cell;
    use std::time::Duration;

    use jiff::{SignedDuration, Timestamp};
    use tokio::time::Instant;

    thread_local! {
        static BEGUN: Cell<Option<(Timestamp, Instant)>> = const { Cell::new(None) };
        static SKEW: Cell<SignedDuration> = const { Cell::new(SignedDuration::ZERO) };
    }

    /// It is this time now, and goes on as tokio's does.
    pub fn begin(at: Timestamp) {
        BEGUN.set(Some((at, Instant::now())));
        skew(SignedDuration::ZERO);
    }
    /// The machine's time again.
    pub fn end() {
        BEGUN.set(None);
    }
    /// The machines' clocks are wrong by so much from now on.
    pub fn skew(by: SignedDuration) {
        SKEW.set(by);
    }
    /// What time it really is.
    pub fn time() -> Option<Timestamp> {
        let (at, since) = BEGUN.get()?;
        at.checked_add(SignedDuration::try_from(since.elapsed()).ok()?).ok()
    }
    pub(super) fn wall() -> Option<Timestamp> {
        time()?.checked_add(SKEW.get()).ok()
    }
    pub(super) fn boot_time() -> Option<Duration> {
        Some(BEGUN.get()?.1.elapsed())
    }
}

//! The process's time.
//!
//! The question it answers: "what time is it?", for everything that is recorded, waited for, expired or purged. Always
//! true: setting the machine's clock while the process runs neither moves the time back nor makes it jump. The time is
//! the machine's clock at the start plus the time that CLOCK_BOOTTIME has counted since (it includes sleep), slewed
//! towards the machine's clock by at most 500 ppm; it is never before the store's newest event. While the machine's
//! clock is more than a minute away from the time, it is not followed. [`ProcessClock::check`] reports this once for
//! each jump; after a restart the time starts from the machine's clock again.
//!
//! Where several processes share a store, all use the store's time ([`ProcessClock::follow`]), so that a process on a
//! machine with a wrong clock ends no wait early. While the store does not answer, the time advances by this machine's
//! steady clock; if the store's own clock is set, the time follows it. Timers sleep by the runtime's clock, and check
//! the process's time when they wake.

mod arithmetic;
mod machine;
mod running;

use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use self::arithmetic::Timekeeper;

pub use self::arithmetic::{ClockChange, Disagreement};
#[cfg(test)]
pub(crate) use self::machine::simulated;
pub use self::running::RunningTimes;

/// The time of this process. Its first use is the process's start.
pub fn process() -> &'static Arc<ProcessClock> {
    #[cfg(test)]
    if let Some(of_simulation) = simulated::process() {
        return of_simulation;
    }
    static PROCESS: LazyLock<Arc<ProcessClock>> = LazyLock::new(|| Arc::new(ProcessClock::starting()));
    &PROCESS
}

/// The process's time now.
pub fn now() -> Timestamp {
    #[cfg(test)]
    if let Some(now) = simulated::time() {
        return now;
    }
    process().now()
}

/// What the machine's wall clock shows now, whatever the process's time is.
pub fn machine_now() -> Timestamp {
    machine::read().wall
}

/// The start of a window whose end is `ahead` from now. [`RunningTimes`] says which time counts towards a window.
pub fn window_start(ahead: Duration, window: Duration) -> Timestamp {
    window_start_until(now().checked_add(ahead).unwrap_or(Timestamp::MAX), window)
}

/// The start of a window that ends at this time.
pub fn window_start_until(end: Timestamp, window: Duration) -> Timestamp {
    process().running().window_start(end, window)
}

/// The end of a window that began at this time.
pub fn window_end(at: Timestamp, window: Duration) -> Timestamp {
    process().running().window_end(at, window)
}

/// How much of a window that began at this time has passed.
pub fn passed(at: Timestamp) -> Duration {
    process().running().passed(at, now())
}

/// A moment on the machine's steady clock, to measure how much time has passed since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(Duration);

impl Moment {
    /// The present moment.
    pub fn now() -> Self {
        Self(machine::boot_time())
    }
    /// How much time has passed since this moment.
    pub fn elapsed(self) -> Duration {
        machine::boot_time().saturating_sub(self.0)
    }
    /// How much time is left until this moment.
    pub fn left(self) -> Duration {
        self.0.saturating_sub(machine::boot_time())
    }
    /// The moment this much later.
    #[must_use]
    pub fn later(self, by: Duration) -> Self {
        Self(self.0.saturating_add(by))
    }
}

/// The time of a process.
pub struct ProcessClock {
    keeper: Mutex<Timekeeper>,
    running: Mutex<RunningTimes>,
}

impl ProcessClock {
    /// Starts the time of a process: it begins at the machine's wall clock.
    pub fn starting() -> Self {
        Self { keeper: Mutex::new(Timekeeper::starting(machine::read())), running: Mutex::default() }
    }
    fn keeper(&self) -> MutexGuard<'_, Timekeeper> {
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// When processes of the store ran; empty where the store keeps no such record.
    pub fn running(&self) -> MutexGuard<'_, RunningTimes> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// The time now.
    pub fn now(&self) -> Timestamp {
        // The clocks are read under the lock, so that concurrent callers get times in the order of their readings.
        let mut keeper = self.keeper();
        keeper.now(machine::read())
    }
    /// Raises the time to at least that of the store's newest event. Returns how far the store is ahead of the
    /// machine's clock, where that is more than a minute.
    pub fn raise_to_at_least(&self, newest_event: Timestamp) -> Option<SignedDuration> {
        let mut keeper = self.keeper();
        keeper.raise_to_at_least(newest_event, machine::read())
    }
    /// Follows the time of a shared store. The store was asked at `asked` and has just answered that its time is
    /// `store`. Its time now is between `store` and `store` plus the time since `asked`.
    pub fn follow(&self, store: Timestamp, asked: Moment) {
        let mut keeper = self.keeper();
        keeper.follow(store, asked.0, machine::read());
    }
    /// Compares the machine's clock with the time. Returns the change since the last check, and how far the machine's
    /// clock is ahead of the time.
    pub fn check(&self) -> (Option<ClockChange>, SignedDuration) {
        let mut keeper = self.keeper();
        keeper.check(machine::read())
    }
    /// How the machine's clock and the time disagree, where they are more than a minute apart.
    pub fn disagreement(&self) -> Option<Disagreement> {
        let keeper = self.keeper();
        keeper.disagreement(machine::read())
    }
}

//! What time it is, for this process.
//!
//! The question it answers: "what time is it?", for everything that is recorded, waited for, remembered for a while or
//! purged. Always true: the time never goes back and never jumps, whatever is done to the machine's clock while the
//! process runs. It is what the machine's clock said at the start and what CLOCK_BOOTTIME says has passed since (which
//! counts while the machine sleeps), led towards the machine's clock by at most 500 ppm; it is never before the store's
//! newest event. A machine's clock that is more than a minute away is not followed: [`ProcessClock::check`] says so,
//! once for each jump, and what it shows counts after a restart.
//!
//! Where several processes share a store, the time is the store's, one for all of them ([`ProcessClock::follow`]): a
//! process whose machine has another idea of time ends no wait early. While the store is silent the time goes on by this
//! machine's steady clock; where the store's own clock was set, the time follows it. Timers sleep by the runtime's own
//! clock, and ask this one when they wake.

mod arithmetic;
mod machine;

use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use self::arithmetic::Timekeeper;

pub use self::arithmetic::{ClockChange, Disagreement};
#[cfg(test)]
pub(crate) use self::machine::simulated;

/// The time of this process. Its first use is the process's start.
pub fn process() -> &'static Arc<ProcessClock> {
    static PROCESS: LazyLock<Arc<ProcessClock>> = LazyLock::new(|| Arc::new(ProcessClock::starting()));
    &PROCESS
}

/// What time it is in this process.
pub fn now() -> Timestamp {
    #[cfg(test)]
    if let Some(now) = simulated::time() {
        return now;
    }
    process().now()
}

/// A moment on the machine's steady clock, to measure how much time has passed since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(Duration);

impl Moment {
    /// This moment.
    pub fn now() -> Self {
        Self(machine::boot_time())
    }
    /// How much time has passed since.
    pub fn elapsed(self) -> Duration {
        machine::boot_time().saturating_sub(self.0)
    }
}

/// The time of a process.
pub struct ProcessClock(Mutex<Timekeeper>);

impl ProcessClock {
    /// Of a process that starts now.
    pub fn starting() -> Self {
        Self(Mutex::new(Timekeeper::starting(machine::read())))
    }
    fn keeper(&self) -> MutexGuard<'_, Timekeeper> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// What time it is.
    pub fn now(&self) -> Timestamp {
        // Read under the lock: two callers read in the order in which they are answered.
        let mut keeper = self.keeper();
        keeper.now(machine::read())
    }
    /// The store has an event of this time: it is at least that now. By how much the store is ahead of the machine's
    /// clock, where that is more than a minute.
    pub fn not_before(&self, newest_event: Timestamp) -> Option<SignedDuration> {
        let mut keeper = self.keeper();
        keeper.not_before(newest_event, machine::read())
    }
    /// The shared store was asked at one moment, and has just answered what time it is there: it is that now, or later
    /// by no more than the answer took.
    pub fn follow(&self, store: Timestamp, asked: Moment) {
        let mut keeper = self.keeper();
        keeper.follow(store, asked.0, machine::read());
    }
    /// Compares the machine's clock with the time: what is new about that, and how far they are apart.
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

//! The counters of one route, and those of its guard, each behind a lock of its own.
//!
//! Always true: the lock of the counters is not taken while that of the guard is held. Threads that serve clients wait
//! for neither lock when they count, except for errors, which are marked first (`marks`).

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::combining_mutex::{CombiningGuard, CombiningMutex};
use super::counters::Counters;
use super::guard::RouteGuard;

/// See the module.
#[derive(Default)]
pub(super) struct RouteCounters {
    counters: CombiningMutex<Counters>,
    guard: CombiningMutex<Option<Box<RouteGuard>>>,
    /// The time after which a client has waited long for an answer, in nanoseconds; 0 if it is not known.
    long_wait: AtomicU64,
}

impl RouteCounters {
    pub(super) fn of(counters: Counters) -> Self {
        Self { counters: CombiningMutex::new(counters), guard: CombiningMutex::default(), long_wait: AtomicU64::new(0) }
    }

    /// The time after which a client has waited long for an answer; `None` if it is not known.
    pub(super) fn long_wait(&self) -> Option<Duration> {
        Some(self.long_wait.load(Relaxed)).filter(|nanoseconds| *nanoseconds > 0).map(Duration::from_nanos)
    }

    pub(super) fn set_long_wait(&self, after: Option<Duration>) {
        let nanoseconds = after.map_or(0, |after| u64::try_from(after.as_nanos()).unwrap_or(u64::MAX));
        self.long_wait.store(nanoseconds, Relaxed);
    }

    pub(super) fn lock(&self) -> CombiningGuard<'_, Counters> {
        self.counters.lock()
    }

    /// What the route's guard counts; `None` if it has no guard.
    pub(super) fn lock_guard(&self) -> CombiningGuard<'_, Option<Box<RouteGuard>>> {
        self.guard.lock()
    }

    /// Counts something without waiting for the lock. `count` may count for the guard too.
    pub(super) fn count(&self, count: impl FnOnce(&mut Counters) + Send + 'static) {
        match self.counters.try_lock() {
            Some(mut counters) => count(&mut counters),
            None => self.counters.enqueue(count),
        }
    }

    /// Counts something for the guard without waiting for its lock.
    pub(super) fn count_for_guard(&self, count: impl FnOnce(&mut RouteGuard) + Send + 'static) {
        let count = move |guard: &mut Option<Box<RouteGuard>>| {
            if let Some(guard) = guard {
                count(guard);
            }
        };
        match self.guard.try_lock() {
            Some(mut guard) => count(&mut guard),
            None => self.guard.enqueue(count),
        }
    }
}

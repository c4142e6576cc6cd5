//! The counters of one route, and those of its guard, each behind a lock of its own.
//!
//! Always true: the lock of the counters is not taken while that of the guard is held. What the threads that serve
//! clients count waits for neither, except for errors, which are marked first (`marks`).

use super::combining_mutex::{CombiningGuard, CombiningMutex};
use super::counters::Counters;
use super::guard::RouteGuard;

/// See the module.
#[derive(Default)]
pub(super) struct RouteCounters {
    counters: CombiningMutex<Counters>,
    guard: CombiningMutex<Option<Box<RouteGuard>>>,
}

impl RouteCounters {
    pub(super) fn of(counters: Counters) -> Self {
        Self { counters: CombiningMutex::new(counters), guard: CombiningMutex::default() }
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
            None => self.counters.leave(count),
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
            None => self.guard.leave(count),
        }
    }
}

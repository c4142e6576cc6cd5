//! How long the writer's present commit has been under way.
//!
//! Always true: between [`CommitAge::begin`] and [`CommitAge::end`] the age grows, whatever the disk or the database
//! does. An error of the disk ends a commit; a sync that hangs does not, and only its age shows it. A commit that has
//! been under way for longer than `store_stall_ms` counts as stalled. What is done then is left to the callers of
//! [`super::Store::stalled_for`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::limits::Limits;

/// No commit is under way.
const IDLE: u64 = 0;

/// When the present commit began. Written by the writer, read by everybody.
pub struct CommitAge {
    opened: Instant,
    /// When the present commit began, in microseconds since `opened` plus one; [`IDLE`] without one.
    began: AtomicU64,
    stalled_after: Duration,
}

impl CommitAge {
    pub(super) fn new(limits: &Limits) -> Self {
        Self { opened: Instant::now(), began: AtomicU64::new(IDLE), stalled_after: Limits::ms(limits.store_stall_ms) }
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Records that the writer begins a commit, or another access to the disk for which appends have to wait, and that
    /// the one before has ended.
    pub(super) fn begin(&self) {
        self.began.store(self.now_us().saturating_add(1), Ordering::Release);
    }

    /// Records that the writer's commit has ended, whatever its outcome.
    pub(super) fn end(&self) {
        self.began.store(IDLE, Ordering::Release);
    }

    /// How long the present commit has been under way; `None` without one.
    pub fn get(&self) -> Option<Duration> {
        match self.began.load(Ordering::Acquire) {
            IDLE => None,
            began => Some(Duration::from_micros(self.now_us().saturating_sub(began - 1))),
        }
    }

    /// How long the present commit has been under way, if it counts as stalled.
    pub fn stalled_for(&self) -> Option<Duration> {
        self.get().filter(|age| *age > self.stalled_after)
    }
}

/// A sentence that says that a commit has stalled.
pub fn stall_text(age: Duration) -> String {
    format!("a commit has been under way for {} s and has not ended (store_stall_ms)", age.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_commit_under_way_has_an_age() {
        let age = CommitAge::new(&Limits { store_stall_ms: 0, ..Limits::default() });
        assert_eq!((age.get(), age.stalled_for()), (None, None));
        age.begin();
        while age.get().is_some_and(|age| age.is_zero()) {
            std::thread::yield_now();
        }
        assert!(age.stalled_for().is_some_and(|age| !age.is_zero()));
        age.end();
        assert_eq!((age.get(), age.stalled_for()), (None, None));
    }

    #[test]
    fn a_commit_within_the_bound_is_not_stalled() {
        let age = CommitAge::new(&Limits { store_stall_ms: 3_600_000, ..Limits::default() });
        age.begin();
        assert!(age.get().is_some());
        assert_eq!(age.stalled_for(), None);
    }
}

//! Counts how many calls are looked at, in tests only: they hold that an event of a run with thousands of calls does not
//! look at all of them.

#[cfg(test)]
thread_local! {
    static WORK: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// A call of a run is looked at, in a loop over several.
#[inline]
pub(super) fn count_work() {
    #[cfg(test)]
    WORK.set(WORK.get() + 1);
}

/// How many were looked at on this thread since the last time.
#[cfg(test)]
pub(super) fn take_work() -> usize {
    WORK.take()
}

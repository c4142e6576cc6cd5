//! Counts how many calls of a run are visited, and how often a run is copied, in tests only. Tests assert that an event
//! of a run with thousands of calls does not visit all of them.

#[cfg(test)]
thread_local! {
    static WORK: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Counts one visit, or one copy of a run; loops over the calls of a run call this for each call.
#[inline]
pub(super) fn count_work() {
    #[cfg(test)]
    WORK.set(WORK.get() + 1);
}

/// Returns the number of visits counted on this thread, and resets it to zero.
#[cfg(test)]
pub(super) fn take_work() -> usize {
    WORK.take()
}

//! Counts how many calls of a run are visited, in tests only. Tests assert that one event of a run with thousands of
//! calls does not visit all of them.

#[cfg(test)]
thread_local! {
    static WORK: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// To be called where a loop visits a call of a run.
#[inline]
pub(super) fn count_work() {
    #[cfg(test)]
    WORK.set(WORK.get() + 1);
}

/// How many were visited on this thread since the last call of this function.
#[cfg(test)]
pub(super) fn take_work() -> usize {
    WORK.take()
}

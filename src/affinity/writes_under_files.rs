//! Counts the requests that may change something, from before the files are looked at until their replies are complete.
//!
//! New files may say for the first time that instances of a family move to the engine, or find the instances of
//! requests in another way. Requests that were decided by the earlier files are not counted by instance then, and
//! legacy may have them for long: a slow upload, a request that waits for its turn.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::exchange::{OpenWriteCounter, OpenWriteGuard};

/// The requests that began while certain files were in force.
#[derive(Debug, Default)]
pub struct WritesUnderFiles {
    open: AtomicUsize,
    /// Whether other files are in force by now, so that no more requests are added. (One that was just being counted
    /// may still be added; the newer files decide it.)
    are_replaced: AtomicBool,
    /// When the last request ended after the files were replaced.
    ended: Mutex<Option<Instant>>,
}

impl WritesUnderFiles {
    /// Counts a request. Called before the files are looked at.
    pub(super) fn begin(self: Arc<Self>) -> OpenWriteGuard {
        self.open.fetch_add(1, SeqCst);
        OpenWriteGuard::new(self)
    }
    /// To be called once other files are in force: from then on the end of the last request is noted.
    pub(super) fn replaced(&self) {
        self.are_replaced.store(true, SeqCst);
        if self.open.load(SeqCst) == 0 {
            self.note_end();
        }
    }
    /// When the last request ended, after [`WritesUnderFiles::replaced`]; `None` if one has not.
    pub fn ended(&self) -> Option<Instant> {
        // In this order: the last request notes its end before it is subtracted.
        let is_none_open = self.open.load(SeqCst) == 0;
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).filter(|_| is_none_open)
    }
    fn note_end(&self) {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }
}

impl OpenWriteCounter for WritesUnderFiles {
    fn end_one(&self) {
        // Noted before it is subtracted, so that whoever sees no request open sees when the last one ended.
        if self.are_replaced.load(SeqCst) {
            self.note_end();
        }
        if self.open.fetch_sub(1, SeqCst) == 1 && self.are_replaced.load(SeqCst) {
            self.note_end();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_of_earlier_files_have_ended_once_the_last_of_them_is_dropped() {
        let writes = Arc::new(WritesUnderFiles::default());
        let (first, second) = (writes.clone().begin(), writes.clone().begin());
        drop(first);
        assert_eq!(writes.ended(), None, "the files are in force");
        writes.replaced();
        assert_eq!(writes.ended(), None, "one is under way");
        let before = Instant::now();
        drop(second);
        assert!(writes.ended().is_some_and(|ended| ended >= before));
        let none = WritesUnderFiles::default();
        none.replaced();
        assert!(none.ended().is_some(), "there was none");
    }
}

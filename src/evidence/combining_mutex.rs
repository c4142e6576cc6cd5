//! A mutex for which a thread that serves clients does not wait: a change that finds it locked is left to the thread
//! that has locked it, which makes it before it lets others go on. Otherwise a reply could wait for a thread of lower
//! priority that was suspended while it held the lock.
//!
//! The method is known as flat combining (Hendler, Incze, Shavit, Tzafrir: "Flat Combining and the
//! Synchronization-Parallelism Tradeoff", SPAA 2010). Always true: whoever locks the mutex finds all changes made that
//! were left before, those of one thread in their order; a thread that finds [`CHANGES_MAX`] changes left waits for the
//! lock, so at most one more for each thread is left.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicUsize, fence};
use std::sync::mpsc::{Receiver, SendError, Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

/// The most changes that are left at a time.
const CHANGES_MAX: usize = 1_024;

/// A change that is left. It must not lock the same mutex.
type Change<T> = Box<dyn FnOnce(&mut T) + Send>;

/// See the module.
pub(super) struct CombiningMutex<T> {
    locked: Mutex<Combined<T>>,
    changes: Sender<Change<T>>,
    /// Set after a change is sent, and cleared by the thread that has locked the mutex before it receives all.
    has_changes: AtomicBool,
    /// How many changes are left: increased before a change is sent.
    left: AtomicUsize,
}

struct Combined<T> {
    value: T,
    changes: Receiver<Change<T>>,
}

/// The locked value.
pub(super) struct CombiningGuard<'m, T> {
    locked: MutexGuard<'m, Combined<T>>,
    /// Dropped after the lock.
    _unlocked: Unlocked<'m, T>,
}

/// Makes the changes that were left when it is dropped.
struct Unlocked<'m, T>(&'m CombiningMutex<T>);

impl<T> CombiningMutex<T> {
    pub(super) fn new(value: T) -> Self {
        let (changes, received) = channel();
        let locked = Mutex::new(Combined { value, changes: received });
        Self { locked, changes, has_changes: AtomicBool::new(false), left: AtomicUsize::new(0) }
    }

    /// Waits for the lock.
    pub(super) fn lock(&self) -> CombiningGuard<'_, T> {
        // A poisoned lock is safe to use: a change is a few additions that cannot panic half-way.
        self.guard(self.locked.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// `None` if another thread has locked it.
    pub(super) fn try_lock(&self) -> Option<CombiningGuard<'_, T>> {
        match self.locked.try_lock() {
            Ok(locked) => Some(self.guard(locked)),
            Err(TryLockError::Poisoned(poisoned)) => Some(self.guard(poisoned.into_inner())),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Leaves a change to the thread that has locked the mutex; makes it here if that one lets go of it meanwhile. Does
    /// not wait for the lock unless too many changes are left.
    pub(super) fn leave(&self, change: impl FnOnce(&mut T) + Send + 'static) {
        if self.left.load(SeqCst) >= CHANGES_MAX {
            return change(&mut self.lock());
        }
        self.left.fetch_add(1, SeqCst);
        match self.changes.send(Box::new(change)) {
            Ok(()) => {
                self.has_changes.store(true, SeqCst);
                self.make_left_changes();
            }
            // Cannot happen: the receiver is dropped together with the sender.
            Err(SendError(change)) => change(&mut self.lock()),
        }
    }

    fn guard<'m>(&'m self, mut locked: MutexGuard<'m, Combined<T>>) -> CombiningGuard<'m, T> {
        self.make(&mut locked);
        CombiningGuard { locked, _unlocked: Unlocked(self) }
    }

    fn make(&self, locked: &mut Combined<T>) {
        // If it is not set, all changes were received that `leave` had left when it returned.
        if !self.has_changes.load(SeqCst) {
            return;
        }
        self.has_changes.store(false, SeqCst);
        // Also those of threads that have not set it yet: they may stand before changes of threads that have.
        while let Ok(change) = locked.changes.try_recv() {
            self.left.fetch_sub(1, SeqCst);
            change(&mut locked.value);
        }
    }

    /// Makes the changes that are left, unless another thread has locked the mutex: that one makes them when it lets go
    /// of it. Of a thread that leaves a change while another unlocks, at least one sees what the other has done: both
    /// do so before the fence, and look after it.
    fn make_left_changes(&self) {
        loop {
            fence(SeqCst);
            if !self.has_changes.load(SeqCst) {
                return;
            }
            match self.locked.try_lock() {
                Ok(mut locked) => self.make(&mut locked),
                Err(TryLockError::Poisoned(poisoned)) => self.make(&mut poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => return,
            }
        }
    }
}

impl<T: Default> Default for CombiningMutex<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> Deref for CombiningGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.locked.value
    }
}

impl<T> DerefMut for CombiningGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.locked.value
    }
}

impl<T> Drop for Unlocked<'_, T> {
    fn drop(&mut self) {
        self.0.make_left_changes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_change_that_finds_the_mutex_locked_is_left_and_made_when_it_is_unlocked() {
        let numbers = Arc::new(CombiningMutex::new(Vec::new()));
        let guard = numbers.lock();
        let leaves = numbers.clone();
        let leaving = std::thread::spawn(move || {
            assert!(leaves.try_lock().is_none());
            (1..=3).for_each(|number| leaves.leave(move |numbers| numbers.push(number)));
        });
        leaving.join().expect("it does not wait for the lock");
        assert!(guard.is_empty());
        drop(guard);
        assert_eq!(numbers.left.load(SeqCst), 0, "made by the thread that let go of it");
        numbers.leave(|numbers| numbers.push(4));
        assert_eq!(*numbers.lock(), [1, 2, 3, 4]);
    }

    /// The first of two threads is suspended after it has sent its change, before it says so.
    #[test]
    fn whoever_locks_finds_what_was_left_before_also_behind_a_thread_that_is_suspended() {
        let numbers = Arc::new(CombiningMutex::new(Vec::new()));
        numbers.left.fetch_add(1, SeqCst);
        assert!(numbers.changes.send(Box::new(|numbers: &mut Vec<u8>| numbers.push(1))).is_ok());
        let guard = numbers.lock();
        let leaves = numbers.clone();
        std::thread::spawn(move || leaves.leave(|numbers| numbers.push(2))).join().unwrap();
        drop(guard);
        assert_eq!(*numbers.try_lock().expect("nobody has locked it"), [1, 2]);
        assert_eq!(numbers.left.load(SeqCst), 0);
    }

    #[test]
    fn no_more_changes_than_the_bound_are_left() {
        let sum = Arc::new(CombiningMutex::new(0));
        let guard = sum.lock();
        let leaves = sum.clone();
        let leaving = std::thread::spawn(move || (0..=CHANGES_MAX).for_each(|_| leaves.leave(|sum| *sum += 1)));
        while sum.left.load(SeqCst) < CHANGES_MAX {
            std::thread::yield_now();
        }
        drop(guard);
        leaving.join().unwrap();
        assert_eq!((*sum.lock(), sum.left.load(SeqCst)), (CHANGES_MAX + 1, 0));
    }

    #[test]
    fn every_change_of_many_threads_is_made_once_and_in_the_order_of_its_thread() {
        const CHANGES: usize = 20_000;
        let last = Arc::new(CombiningMutex::new([0; 4]));
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let last = last.clone();
                std::thread::spawn(move || {
                    for number in 1..=CHANGES {
                        let change = move |last: &mut [usize; 4]| {
                            assert_eq!(last[thread] + 1, number);
                            last[thread] = number;
                        };
                        match last.try_lock() {
                            Some(mut last) => change(&mut last),
                            None => last.leave(change),
                        }
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(last.locked.lock().unwrap().value, [CHANGES; 4], "also without another lock");
    }
}

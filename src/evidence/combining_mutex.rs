//! A mutex for which a thread that serves clients does not wait: if the mutex is locked, the thread queues its change,
//! and the thread that holds the lock applies the change when it unlocks. Otherwise a reply could wait for a thread of
//! lower priority that was suspended while it held the lock.
//!
//! The method is known as flat combining (Hendler, Incze, Shavit, Tzafrir: "Flat Combining and the
//! Synchronization-Parallelism Tradeoff", SPAA 2010). Always true: whoever locks the mutex sees all changes that were
//! queued before, those of one thread in their order; a thread that finds [`QUEUED_MAX`] changes queued waits for the
//! lock, so at most one more for each thread is queued.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicUsize, fence};
use std::sync::mpsc::{Receiver, SendError, Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

/// The most changes that are queued at a time.
const QUEUED_MAX: usize = 1_024;

/// A queued change. It must not lock the same mutex.
type Change<T> = Box<dyn FnOnce(&mut T) + Send>;

/// See the module.
pub(super) struct CombiningMutex<T> {
    locked: Mutex<Combined<T>>,
    queue: Sender<Change<T>>,
    /// Set after a change is sent, and cleared by the thread that has locked the mutex before it receives all.
    has_queued: AtomicBool,
    /// How many changes are queued: increased before a change is sent.
    queued_count: AtomicUsize,
}

struct Combined<T> {
    value: T,
    queue: Receiver<Change<T>>,
}

/// The locked value.
pub(super) struct CombiningGuard<'m, T> {
    locked: MutexGuard<'m, Combined<T>>,
    /// Dropped after the lock.
    _apply_after_unlock: ApplyAfterUnlock<'m, T>,
}

/// When this is dropped, the changes that were queued while the mutex was locked are applied.
struct ApplyAfterUnlock<'m, T>(&'m CombiningMutex<T>);

impl<T> CombiningMutex<T> {
    pub(super) fn new(value: T) -> Self {
        let (queue, received) = channel();
        let locked = Mutex::new(Combined { value, queue: received });
        Self { locked, queue, has_queued: AtomicBool::new(false), queued_count: AtomicUsize::new(0) }
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

    /// Queues a change for the thread that has locked the mutex; applies it here if the mutex is unlocked by now. Does
    /// not wait for the lock unless too many changes are queued.
    pub(super) fn enqueue(&self, change: impl FnOnce(&mut T) + Send + 'static) {
        if self.queued_count.load(SeqCst) >= QUEUED_MAX {
            return change(&mut self.lock());
        }
        self.queued_count.fetch_add(1, SeqCst);
        match self.queue.send(Box::new(change)) {
            Ok(()) => {
                self.has_queued.store(true, SeqCst);
                self.apply_queued_if_unlocked();
            }
            // Cannot happen: the receiver is dropped together with the sender.
            Err(SendError(change)) => change(&mut self.lock()),
        }
    }

    fn guard<'m>(&'m self, mut locked: MutexGuard<'m, Combined<T>>) -> CombiningGuard<'m, T> {
        self.apply_queued(&mut locked);
        CombiningGuard { locked, _apply_after_unlock: ApplyAfterUnlock(self) }
    }

    fn apply_queued(&self, locked: &mut Combined<T>) {
        // If it is not set, the changes of all calls of `enqueue` that have returned were received.
        if !self.has_queued.load(SeqCst) {
            return;
        }
        self.has_queued.store(false, SeqCst);
        // Also those of threads that have not set it yet: they may be queued before changes of threads that have.
        while let Ok(change) = locked.queue.try_recv() {
            self.queued_count.fetch_sub(1, SeqCst);
            change(&mut locked.value);
        }
    }

    /// Applies the queued changes, unless another thread has locked the mutex: that one applies them when it unlocks.
    /// If one thread queues a change while another unlocks, at least one of the two sees what the other has done: each
    /// acts before the fence, and looks after it.
    fn apply_queued_if_unlocked(&self) {
        loop {
            fence(SeqCst);
            if !self.has_queued.load(SeqCst) {
                return;
            }
            match self.locked.try_lock() {
                Ok(mut locked) => self.apply_queued(&mut locked),
                Err(TryLockError::Poisoned(poisoned)) => self.apply_queued(&mut poisoned.into_inner()),
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

impl<T> Drop for ApplyAfterUnlock<'_, T> {
    fn drop(&mut self) {
        self.0.apply_queued_if_unlocked();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_change_that_finds_the_mutex_locked_is_queued_and_applied_when_it_is_unlocked() {
        let numbers = Arc::new(CombiningMutex::new(Vec::new()));
        let guard = numbers.lock();
        let shared = numbers.clone();
        let changing = std::thread::spawn(move || {
            assert!(shared.try_lock().is_none());
            (1..=3).for_each(|number| shared.enqueue(move |numbers| numbers.push(number)));
        });
        changing.join().expect("it does not wait for the lock");
        assert!(guard.is_empty());
        drop(guard);
        assert_eq!(numbers.queued_count.load(SeqCst), 0, "applied by the thread that unlocked it");
        numbers.enqueue(|numbers| numbers.push(4));
        assert_eq!(*numbers.lock(), [1, 2, 3, 4]);
    }

    /// The first of two threads is suspended after it has sent its change, before it says so.
    #[test]
    fn whoever_locks_sees_what_was_queued_before_also_behind_a_thread_that_is_suspended() {
        let numbers = Arc::new(CombiningMutex::new(Vec::new()));
        numbers.queued_count.fetch_add(1, SeqCst);
        assert!(numbers.queue.send(Box::new(|numbers: &mut Vec<u8>| numbers.push(1))).is_ok());
        let guard = numbers.lock();
        let shared = numbers.clone();
        std::thread::spawn(move || shared.enqueue(|numbers| numbers.push(2))).join().unwrap();
        drop(guard);
        assert_eq!(*numbers.try_lock().expect("nobody has locked it"), [1, 2]);
        assert_eq!(numbers.queued_count.load(SeqCst), 0);
    }

    #[test]
    fn no_more_changes_than_the_bound_are_queued() {
        let sum = Arc::new(CombiningMutex::new(0));
        let guard = sum.lock();
        let shared = sum.clone();
        let changing = std::thread::spawn(move || (0..=QUEUED_MAX).for_each(|_| shared.enqueue(|sum| *sum += 1)));
        while sum.queued_count.load(SeqCst) < QUEUED_MAX {
            std::thread::yield_now();
        }
        drop(guard);
        changing.join().unwrap();
        assert_eq!((*sum.lock(), sum.queued_count.load(SeqCst)), (QUEUED_MAX + 1, 0));
    }

    #[test]
    fn every_change_of_many_threads_is_applied_once_and_in_the_order_of_its_thread() {
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
                            None => last.enqueue(change),
                        }
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(last.locked.lock().unwrap().value, [CHANGES; 4], "also without another lock");
    }
}

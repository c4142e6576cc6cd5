//! Locks under which the keys of a request are taken, so that of two requests that share a key the later finds the
//! earlier one's.
//!
//! A request of an unverified caller has two keys: for legacy the key for any caller, and for the engine that key
//! combined with the digest of the body. Each arm looks up the other arm's key before it takes its own; both happen under
//! the lock of the key for any caller. Nothing is awaited under it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::flag::RetryKey;

/// The number of locks: at most so many requests are taken at the same time.
const LOCKS: usize = 64;

/// See the module.
pub(super) struct RequestLocks([Mutex<()>; LOCKS]);

impl Default for RequestLocks {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Mutex::default()))
    }
}

impl RequestLocks {
    /// Waits until nobody else takes a request with this key for any caller.
    pub(super) fn of(&self, any_caller: &RetryKey) -> MutexGuard<'_, ()> {
        // Keys are hashes: any of their bytes spreads them.
        self.0[usize::from(any_caller.0[1]) % LOCKS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

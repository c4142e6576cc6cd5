//! Locks under which the keys of one request are taken, so that of two requests that share a key one finds the other's.
//!
//! A request of a caller whom nobody verified is taken for legacy under its key for any caller, and for the engine under
//! that key and the digest of its body. Those are two keys, and each arm looks up the other's before it takes its own:
//! both happens under the lock of the key for any caller. Nothing is awaited under it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::flag::RetryKey;

/// So many requests are taken at the same time, at most.
const LOCKS: usize = 64;

/// See the module.
pub(super) struct Turns([Mutex<()>; LOCKS]);

impl Default for Turns {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Mutex::default()))
    }
}

impl Turns {
    /// Waits until nobody else takes a request with this key for any caller.
    pub(super) fn of(&self, any_caller: &RetryKey) -> MutexGuard<'_, ()> {
        // Keys are hashes: any of their bytes spreads them.
        self.0[usize::from(any_caller.0[1]) % LOCKS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

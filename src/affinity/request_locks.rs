//! Locks that a try holds while its keys are looked up and taken, so that of two simultaneous tries the later one finds
//! the keys of the earlier one.
//!
//! Example: two tries of one order arrive together, with the same `Idempotency-Key` and different tokens that nobody
//! verifies. One is decided for legacy, the other for the engine. Both have the key `any_caller` and the key
//! `of_request` (`any_caller` combined with the digest of the request). Legacy's try looks for `of_request` and takes
//! `any_caller`; the engine's try looks for `any_caller` and takes `of_request`. If each looked before the other took,
//! both arms would perform the order. Therefore each try looks and takes while it holds the lock of `any_caller`: if
//! the engine's try is first, `of_request` is in `tries` as taken by the engine before legacy's try looks for it, and
//! legacy does not get the order.
//!
//! Nothing is awaited under a lock.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::flag::RetryKey;

/// The number of locks: at most this many requests are taken at the same time.
const LOCKS: usize = 64;

/// The locks; the key for any caller selects one.
pub(super) struct RequestLocks([Mutex<()>; LOCKS]);

impl Default for RequestLocks {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Mutex::default()))
    }
}

impl RequestLocks {
    /// Locks the requests that have this key for any caller; waits while another try holds that lock.
    pub(super) fn of(&self, any_caller: &RetryKey) -> MutexGuard<'_, ()> {
        // Keys are hashes: any of their bytes spreads them.
        self.0[usize::from(any_caller.0[1]) % LOCKS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! Which connections are open?
//!
//! Kept only so that a drain can wake them. Always true: a connection is entered once and leaves when its task ends;
//! requests touch nothing here.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use super::clock::Clock;

const SHARDS: usize = 16;

/// The open client connections.
#[derive(Default)]
pub(super) struct Open {
    shards: [Mutex<HashMap<u64, Arc<Clock>>>; SHARDS],
    next: AtomicU64,
}

/// One of them, until it is dropped.
pub(super) struct Entered<'a> {
    open: &'a Open,
    id: u64,
}

impl Open {
    pub(super) fn enter(&self, clock: Arc<Clock>) -> Entered<'_> {
        let id = self.next.fetch_add(1, Relaxed);
        self.shard(id).lock().unwrap_or_else(PoisonError::into_inner).insert(id, clock);
        Entered { open: self, id }
    }
    fn shard(&self, id: u64) -> &Mutex<HashMap<u64, Arc<Clock>>> {
        &self.shards[(id % SHARDS as u64) as usize]
    }
    /// Has each look at the state of the drain.
    pub(super) fn wake(&self) {
        for shard in &self.shards {
            for clock in shard.lock().unwrap_or_else(PoisonError::into_inner).values() {
                clock.waker.wake();
            }
        }
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.open.shard(self.id).lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

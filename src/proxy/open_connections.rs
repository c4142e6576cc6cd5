//! The open client connections.
//!
//! Registered only so that a drain can wake them. Always true: a connection is registered once and removed when its
//! task ends; requests do not touch the registry.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use super::wait::ConnectionWait;

const SHARDS: usize = 16;

/// The open client connections.
#[derive(Default)]
pub(super) struct OpenConnections {
    shards: [Mutex<HashMap<u64, Arc<ConnectionWait>>>; SHARDS],
    next: AtomicU64,
}

/// The registration of one connection; dropping it removes it.
pub(super) struct OpenConnection<'a> {
    open: &'a OpenConnections,
    id: u64,
}

impl OpenConnections {
    pub(super) fn register(&self, wait: Arc<ConnectionWait>) -> OpenConnection<'_> {
        let id = self.next.fetch_add(1, Relaxed);
        self.shard(id).lock().unwrap_or_else(PoisonError::into_inner).insert(id, wait);
        OpenConnection { open: self, id }
    }
    fn shard(&self, id: u64) -> &Mutex<HashMap<u64, Arc<ConnectionWait>>> {
        &self.shards[(id % SHARDS as u64) as usize]
    }
    /// Wakes each connection, so that it reads the state of the drain.
    pub(super) fn wake(&self) {
        for shard in &self.shards {
            for wait in shard.lock().unwrap_or_else(PoisonError::into_inner).values() {
                wait.waker.wake();
            }
        }
    }
}

impl Drop for OpenConnection<'_> {
    fn drop(&mut self) {
        self.open.shard(self.id).lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

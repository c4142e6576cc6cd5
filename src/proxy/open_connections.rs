//! The open client connections.
//!
//! Registered so that a drain can wake them, and so that the connections that have been idle longest can be closed when
//! a new connection finds no room. Always true: a connection is registered while it has a task, and counts as open
//! until it is closed, also while it is parked; requests do not touch the registry.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use metrics::{Counter, Gauge, counter, gauge};

use super::wait::{ConnectionWait, Phase};

const SHARDS: usize = 16;

/// The open client connections.
pub(super) struct OpenConnections {
    shards: [Mutex<HashMap<u64, Arc<ConnectionWait>>>; SHARDS],
    next: AtomicU64,
    open: Arc<Gauge>,
    idle_closed: Counter,
}

/// One open connection in the metric's count, until it is dropped.
pub(super) struct OpenCount(Arc<Gauge>);

/// The registration of one connection; dropping it removes it.
pub(super) struct OpenConnection<'a> {
    open: &'a OpenConnections,
    id: u64,
}

impl OpenConnections {
    /// Creates the registry of a proxy that may have this many open connections; `is_egress`: the connections are
    /// legacy's.
    pub(super) fn new(connections_max: u64, is_egress: bool) -> Self {
        let (max, open) = match is_egress {
            true => (gauge!("pointsman_egress_connections_max"), gauge!("pointsman_egress_connections")),
            false => (gauge!("pointsman_client_connections_max"), gauge!("pointsman_client_connections")),
        };
        max.set(connections_max as f64);
        Self {
            shards: Default::default(),
            next: AtomicU64::new(0),
            open: Arc::new(open),
            idle_closed: counter!("pointsman_idle_connections_closed_total"),
        }
    }
    /// Counts a connection as open until the result is dropped.
    pub(super) fn count(&self) -> OpenCount {
        self.open.increment(1.0);
        OpenCount(self.open.clone())
    }
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
    /// Returns the connections that have been idle since before a time, each with the time since which it is idle.
    pub(super) fn idle_since(&self, before: u64) -> Vec<(u64, Arc<ConnectionWait>)> {
        let mut idle = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let idle_since = |wait: &Arc<ConnectionWait>| wait.idle_since().filter(|since| *since <= before);
            idle.extend(shard.values().filter_map(|wait| Some((idle_since(wait)?, wait.clone()))));
        }
        idle
    }
    /// Whether an open connection is idle, or has received only a part of a head.
    pub(super) fn is_any_before_request(&self) -> bool {
        let is_before = |wait: &Arc<ConnectionWait>| wait.phase() == Phase::Idle || wait.has_part_of_head();
        self.shards.iter().any(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).values().any(is_before))
    }
    /// Asks the connections that have been idle since before a time to be parked.
    pub(super) fn request_parking(&self, before: u64) {
        for shard in &self.shards {
            for wait in shard.lock().unwrap_or_else(PoisonError::into_inner).values() {
                wait.request_parking(before);
            }
        }
    }
    /// Counts an idle connection that is closed to make room.
    pub(super) fn count_idle_closed(&self) {
        self.idle_closed.increment(1);
    }
}

impl Drop for OpenConnection<'_> {
    fn drop(&mut self) {
        self.open.shard(self.id).lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

impl Drop for OpenCount {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

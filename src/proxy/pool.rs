//! The idle HTTP/1.1 connections to one address of a service.
//!
//! Always true: a connection that was taken belongs to one exchange and returns only after its request and reply ended
//! completely; a service's idle connections are bounded in number and age, and each connection is replaced by a new one
//! after a time. There are several lists, and each thread is assigned one, so that up to [`SHARDS`] threads seldom wait
//! for each other's lock. Other lists are tried only when the thread's own list is empty; a thread with a runtime of
//! its own tries them only if connections are scarce, because another thread's connection is driven by that thread. A
//! connection that the other side closed is noticed by its task and not handed out; `legacy` handles a connection that
//! closes just after it was taken.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::Duration;

use hyper::client::conn::http1::SendRequest;
use tokio::time::timeout;

use super::monotonic::{now, recent};
use super::request_body::RequestBody;
use crate::flag::Service;
use crate::limits::Limits;
use crate::transport::{Http2Stream, Received};

/// The number of lists of idle connections to one address.
const SHARDS: usize = 32;
/// How long a request waits until another thread has noticed that an idle connection's last reply has ended.
const READY_WAIT_MAX: Duration = Duration::from_millis(20);

static THREADS: AtomicUsize = AtomicUsize::new(0);
thread_local! {
    static SHARD: Cell<usize> = Cell::new(THREADS.fetch_add(1, Relaxed) % SHARDS);
    static PREFERS_OWN_CONNECTIONS: Cell<bool> = const { Cell::new(false) };
}

/// Declares that this thread has a runtime of its own, which drives the connections that it opens: the thread then
/// leaves the idle connections of other threads alone while there is room for its own.
pub(super) fn keep_connections_on_this_thread() {
    PREFERS_OWN_CONNECTIONS.set(true);
}

/// A connection to a service, for one request.
pub(super) enum Connection {
    /// An HTTP/1.1 connection that no other request uses.
    Http1(Http1Connection),
    /// A stream of a shared HTTP/2 connection.
    Http2(Http2Stream<RequestBody>),
}

impl Connection {
    /// Returns the counter of the bytes that come over the connection.
    pub(super) fn received(&self) -> &Received {
        match self {
            Self::Http1(connection) => &connection.received,
            Self::Http2(stream) => stream.received(),
        }
    }
}

/// An HTTP/1.1 connection to a service.
pub(super) struct Http1Connection {
    pub sender: SendRequest<RequestBody>,
    /// Counts the bytes that come over it.
    pub received: Received,
    /// When the connection may no longer be given to an exchange, in microseconds of `monotonic::now`.
    pub retires: u64,
}

struct Idle {
    connection: Http1Connection,
    since: u64,
}

/// The bounds on the idle connections of one service, and their number.
pub(super) struct IdleBounds {
    count: AtomicUsize,
    count_max: usize,
    micros_max: u64,
    /// Whether the number of requests that the service gets at the same time is bounded.
    has_requests_max: bool,
}

impl IdleBounds {
    pub(super) fn new(service: &Service, limits: &Limits) -> Self {
        Self {
            count: AtomicUsize::new(0),
            count_max: usize::try_from(limits.service_idle_connections_max).unwrap_or(usize::MAX),
            micros_max: limits.service_idle_ms.saturating_mul(1_000),
            has_requests_max: service.requests_max.is_some(),
        }
    }
    /// Returns how long a connection may be idle.
    pub(super) fn time_max(&self) -> Duration {
        Duration::from_micros(self.micros_max)
    }
}

/// The idle connections of some threads. Aligned, so that no two lists share a cache line.
#[derive(Default)]
#[repr(align(64))]
struct List(Mutex<Vec<Idle>>);

/// The idle connections to one address.
pub(super) struct IdleConnections {
    lists: [List; SHARDS],
    bounds: Arc<IdleBounds>,
}

impl IdleConnections {
    pub(super) fn new(bounds: Arc<IdleBounds>) -> Self {
        Self { lists: Default::default(), bounds }
    }

    /// Takes a connection that is not known to be closed.
    pub(super) async fn take(&self) -> Option<Http1Connection> {
        let home = SHARD.with(Cell::get);
        for step in 0..self.lists_to_try() {
            while let Some(Idle { mut connection, since }) = self.pop((home + step) % SHARDS) {
                let at = recent();
                let is_fresh = at.saturating_sub(since) < self.bounds.micros_max && at < connection.retires;
                let sender = &mut connection.sender;
                // A connection returns to the pool when its reply ends, possibly before its own task has noticed that
                // end: `ready` waits for the task.
                if is_fresh && !sender.is_closed() && (sender.is_ready() || will_be_ready(sender, step == 0).await) {
                    return Some(connection);
                }
            }
        }
        None
    }

    /// Returns how many lists are tried: only the thread's own, or all.
    fn lists_to_try(&self) -> usize {
        let bounds = &self.bounds;
        // A service with `requests_max` may dedicate a worker to each connection, idle ones too. And if no more
        // connections may be idle, those of other threads must be used, because a new one could not be kept.
        let may_take_others =
            !PREFERS_OWN_CONNECTIONS.get() || bounds.has_requests_max || bounds.count.load(Relaxed) >= bounds.count_max;
        if may_take_others { SHARDS } else { 1 }
    }

    fn pop(&self, shard: usize) -> Option<Idle> {
        let mut list = match self.lists[shard].0.try_lock() {
            Ok(list) => list,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        let idle = list.pop();
        if idle.is_some() {
            self.bounds.count.fetch_sub(1, Relaxed);
        }
        idle
    }

    /// Keeps a connection for the next request, unless too many are kept or this one has been used for long enough.
    pub(super) fn put(&self, connection: Http1Connection) {
        let since = recent();
        let is_full = self.bounds.count.load(Relaxed) >= self.bounds.count_max;
        if is_full || connection.sender.is_closed() || connection.retires <= since {
            return;
        }
        let shard = SHARD.with(Cell::get);
        let mut list = self.lists[shard].0.lock().unwrap_or_else(PoisonError::into_inner);
        list.push(Idle { connection, since });
        self.bounds.count.fetch_add(1, Relaxed);
    }

    /// Closes all idle connections.
    pub(super) fn close_all(&self) {
        for List(list) in &self.lists {
            let closed = std::mem::take(&mut *list.lock().unwrap_or_else(PoisonError::into_inner));
            self.bounds.count.fetch_sub(closed.len(), Relaxed);
        }
    }

    /// Closes the connections that have been idle for too long.
    pub(super) fn sweep(&self) {
        let now = now();
        for List(list) in &self.lists {
            let mut list = list.lock().unwrap_or_else(PoisonError::into_inner);
            let before = list.len();
            list.retain(|Idle { connection, since }| {
                let is_fresh = now.saturating_sub(*since) < self.bounds.micros_max && now < connection.retires;
                is_fresh && !connection.sender.is_closed()
            });
            self.bounds.count.fetch_sub(before - list.len(), Relaxed);
        }
    }
}

/// Waits until a connection can take a request; `false` if it never can, or not soon because another thread is busy.
async fn will_be_ready(sender: &mut SendRequest<RequestBody>, is_of_this_thread: bool) -> bool {
    if is_of_this_thread {
        return sender.ready().await.is_ok();
    }
    matches!(timeout(READY_WAIT_MAX, sender.ready()).await, Ok(Ok(())))
}

impl Drop for IdleConnections {
    fn drop(&mut self) {
        let left = self.lists.iter_mut().map(|list| list.0.get_mut().unwrap_or_else(PoisonError::into_inner).len());
        self.bounds.count.fetch_sub(left.sum(), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_keeps_its_connections_takes_others_only_where_they_are_scarce() {
        let lists = |requests_max, count| {
            let service = Service { requests_max, ..Service::at("shop", ["http://127.0.0.1:1".parse().unwrap()]) };
            let limits = Limits { service_idle_connections_max: 2, ..Limits::default() };
            let idle = IdleConnections::new(Arc::new(IdleBounds::new(&service, &limits)));
            idle.bounds.count.store(count, Relaxed);
            let lists = idle.lists_to_try();
            idle.bounds.count.store(0, Relaxed);
            lists
        };
        assert_eq!(lists(None, 1), SHARDS, "other threads share theirs");
        keep_connections_on_this_thread();
        assert_eq!(lists(None, 1), 1);
        assert_eq!(lists(None, 2), SHARDS, "no more may be idle");
        assert_eq!(lists(Some(50), 1), SHARDS, "each may hold a worker of the service");
    }
}

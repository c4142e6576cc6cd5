//! Bounds the number of open connections, so that idle and slow ones do not keep others out.
//!
//! Always true: at most `max` connections are open. When all are taken and another client connects, the oldest
//! connection without a complete request is closed: the one that has been idle, or has been sending the body of its
//! request, for longest. A connection whose request has arrived as a whole is never closed for another one, so that no
//! request is cut off after it took effect.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::counter;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// The open connections.
pub(super) struct Connections {
    max: usize,
    state: Mutex<ConnectionCounts>,
    /// Notified when a connection was closed, or has become one that may be closed.
    changed: Notify,
}

/// The next number for a connection without a complete request, counted over all listeners of the process: of two such
/// connections the one with the smaller number is older.
static NEXT: AtomicU64 = AtomicU64::new(0);

#[derive(Default)]
struct ConnectionCounts {
    open: usize,
    /// The tokens that close the connections without a complete request, in the order in which these connections
    /// became idle or began to send a body.
    incomplete: BTreeMap<u64, CancellationToken>,
}

impl ConnectionCounts {
    fn add_incomplete(&mut self, close: CancellationToken) -> u64 {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        self.incomplete.insert(number, close);
        number
    }

    fn close_oldest(&mut self) -> bool {
        let oldest = self.incomplete.pop_first();
        oldest.inspect(|(_, close)| close.cancel()).is_some()
    }
}

impl Connections {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, state: Mutex::default(), changed: Notify::new() })
    }

    fn state(&self) -> MutexGuard<'_, ConnectionCounts> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the oldest connection without a complete request on any of these listeners, to make room.
    pub(super) fn close_oldest_of(listeners: &[Arc<Self>]) {
        let oldest = |open: &Self| open.state().incomplete.keys().next().copied();
        let first = listeners.iter().filter_map(|open| Some((oldest(open)?, open))).min_by_key(|(number, _)| *number);
        if let Some((_, open)) = first {
            open.state().close_oldest();
        }
    }

    /// Adds a connection, which is idle at first; waits until there is room. Only one task may wait.
    pub(super) async fn add(self: &Arc<Self>) -> Arc<OpenConnection> {
        let (mut is_one_closing, mut is_counted) = (false, false);
        loop {
            {
                let mut state = self.state();
                if state.open < self.max {
                    state.open += 1;
                    let close = CancellationToken::new();
                    let position = AtomicU64::new(state.add_incomplete(close.clone()));
                    return Arc::new(OpenConnection { all: self.clone(), close, position });
                }
                is_one_closing = is_one_closing || state.close_oldest();
                if !std::mem::replace(&mut is_counted, true) {
                    count_full(if is_one_closing { "closed" } else { "waited" });
                }
            }
            self.changed.notified().await;
        }
    }
}

/// Counts a new connection that found no room: another one is closed for it, or it waits because complete requests are
/// in progress on all.
fn count_full(outcome: &'static str) {
    counter!("pointsman_api_connections_full_total", "outcome" => outcome).increment(1);
}

/// One of the open connections; dropping it frees its place.
pub(super) struct OpenConnection {
    all: Arc<Connections>,
    close: CancellationToken,
    /// The connection's key in `incomplete`, or the last one that it had there.
    position: AtomicU64,
}

impl OpenConnection {
    /// Resolves when this connection has to be closed for another one.
    pub(super) async fn must_close(&self) {
        self.close.cancelled().await;
    }

    /// Notes that the head of a request has arrived. `None` if the connection is being closed for another one.
    pub(super) fn begin_request(self: &Arc<Self>) -> Option<RequestInProgress> {
        let mut state = self.all.state();
        let close = state.incomplete.remove(&self.position.load(Ordering::Acquire))?;
        let position = state.add_incomplete(close);
        self.position.store(position, Ordering::Release);
        drop(state);
        Some(RequestInProgress(self.clone()))
    }

    /// Notes that the request has arrived as a whole. `false` if the connection is being closed for another one: the
    /// request must not take effect.
    pub(super) fn complete_request(&self) -> bool {
        self.all.state().incomplete.remove(&self.position.load(Ordering::Acquire)).is_some()
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        let mut state = self.all.state();
        state.incomplete.remove(&self.position.load(Ordering::Acquire));
        state.open -= 1;
        drop(state);
        self.all.changed.notify_one();
    }
}

/// A request in progress, until its response is sent. HTTP/1 has one at a time on a connection.
pub(super) struct RequestInProgress(Arc<OpenConnection>);

impl Drop for RequestInProgress {
    fn drop(&mut self) {
        let connection = &self.0;
        let mut state = connection.all.state();
        // The position is still listed if the response was sent before the whole body had arrived.
        state.incomplete.remove(&connection.position.load(Ordering::Acquire));
        let position = state.add_incomplete(connection.close.clone());
        connection.position.store(position, Ordering::Release);
        drop(state);
        connection.all.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn the_connection_that_is_idle_for_longest_is_closed_for_a_new_one() {
        let all = Connections::new(3);
        let (first, second, third) = (all.add().await, all.add().await, all.add().await);
        let request = first.begin_request().unwrap();
        assert!(first.complete_request());
        drop(second.begin_request());
        // The third has been idle for longest: the first has a request in progress, and the second became idle later.
        let mut next = Box::pin(all.add());
        assert!(next.as_mut().now_or_never().is_none(), "the third is still open");
        assert!(third.must_close().now_or_never().is_some() && third.begin_request().is_none());
        assert!(second.must_close().now_or_never().is_none() && first.must_close().now_or_never().is_none());
        drop(third);
        let fourth = next.await;
        drop((second, fourth));
        drop(request);
        assert!(first.begin_request().is_some(), "the first was not closed");
    }

    #[tokio::test]
    async fn the_oldest_connection_of_all_listeners_is_closed() {
        let listeners = [Connections::new(2), Connections::new(2)];
        let [second, first] = &listeners;
        let (oldest, newer) = (first.add().await, second.add().await);
        Connections::close_oldest_of(&listeners);
        assert!(oldest.must_close().now_or_never().is_some() && newer.must_close().now_or_never().is_none());
        Connections::close_oldest_of(&listeners);
        assert!(newer.must_close().now_or_never().is_some());
        Connections::close_oldest_of(&listeners);
    }

    #[tokio::test]
    async fn a_request_whose_body_has_not_arrived_makes_room_and_does_not_take_effect() {
        let all = Connections::new(2);
        let (slow, whole) = (all.add().await, all.add().await);
        let _slow_request = slow.begin_request().unwrap();
        let _whole_request = whole.begin_request().unwrap();
        assert!(whole.complete_request());
        let mut next = Box::pin(all.add());
        assert!(next.as_mut().now_or_never().is_none());
        assert!(slow.must_close().now_or_never().is_some() && whole.must_close().now_or_never().is_none());
        assert!(!slow.complete_request(), "the body arrives too late");
    }

    #[tokio::test]
    async fn a_new_connection_waits_while_requests_are_in_progress_on_all() {
        let all = Connections::new(1);
        let first = all.add().await;
        let request = first.begin_request().unwrap();
        assert!(first.complete_request());
        let mut next = Box::pin(all.add());
        assert!(next.as_mut().now_or_never().is_none());
        assert!(first.must_close().now_or_never().is_none());
        drop(request);
        assert!(next.as_mut().now_or_never().is_none());
        assert!(first.must_close().now_or_never().is_some(), "the first is idle now");
        drop(first);
        next.await;
    }
}

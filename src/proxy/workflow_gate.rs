//! Whether requests of routes with a workflow are served, and which of them are in progress.
//!
//! The question it answers: "may this request use the store and the records kept beside it, through the engine or the
//! record of which arm took which first try?" Always true: while another process has the store, no request does.
//! A process that takes over from another one lets these requests wait, bounded in number and time
//! (`succession_waiting_max`, `succession_wait_ms`), until it has the store; a process that hands over closes the gate
//! and waits until no such request is in progress. Requests of other routes do not pass the gate.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::SeqCst, fence};
use std::time::{Duration, Instant};

use metrics::{Counter, Gauge, counter, gauge};
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::limits::Limits;

/// Requests are served.
const OPEN: u8 = 0;
/// Requests wait: this process takes over from another one.
const PENDING: u8 = 1;
/// Requests are refused: the store belongs to a successor, or the process ends before it had the store.
const CLOSED: u8 = 2;

/// Admits requests of routes with a workflow; see the module.
pub(super) struct WorkflowGate {
    state: AtomicU8,
    changed: Notify,
    in_progress: TaskTracker,
    waiting: AtomicU64,
    waiting_max: u64,
    wait_max: Duration,
    waiting_gauge: Gauge,
    waited: Counter,
    refused: Counter,
}

/// Why a request cannot use the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoStore {
    /// This process takes over from another one. It did not get the store in time, or too many requests wait for it.
    NotTakenOver,
    /// This process has given its store to its successor, or ends before it had the store.
    HandedOver,
}

/// A request of a route with a workflow that is in progress, until it is dropped.
pub(super) struct InProgress {
    _token: TaskTrackerToken,
}

/// Counts a request as waiting until it is dropped.
struct Waiting<'a>(&'a WorkflowGate);

impl WorkflowGate {
    /// Creates a gate that is open, or pending.
    pub(super) fn new(is_pending: bool, limits: &Limits) -> Self {
        let waiting_gauge = gauge!("pointsman_succession_requests_waiting");
        waiting_gauge.set(0.0);
        Self {
            state: AtomicU8::new(if is_pending { PENDING } else { OPEN }),
            changed: Notify::new(),
            in_progress: TaskTracker::new(),
            waiting: AtomicU64::new(0),
            waiting_max: limits.succession_waiting_max,
            wait_max: Limits::ms(limits.succession_wait_ms),
            waiting_gauge,
            waited: counter!("pointsman_succession_requests_total", "outcome" => "served"),
            refused: counter!("pointsman_succession_requests_total", "outcome" => "refused"),
        }
    }

    /// Whether requests have to wait. A process that did not take over from another one is never in this state.
    pub(super) fn is_pending(&self) -> bool {
        self.state.load(Acquire) == PENDING
    }

    /// Waits until the gate is no longer pending. Returns how long that took, in microseconds.
    ///
    /// # Errors
    /// The wait took too long, or too many requests wait.
    pub(super) async fn wait_while_pending(&self) -> Result<u64, NoStore> {
        let began = Instant::now();
        let Some(_waiting) = self.begin_waiting() else {
            self.refused.increment(1);
            return Err(NoStore::NotTakenOver);
        };
        let opened = async {
            loop {
                let mut changed = std::pin::pin!(self.changed.notified());
                changed.as_mut().enable();
                if !self.is_pending() {
                    return;
                }
                changed.await;
            }
        };
        if timeout(self.wait_max, opened).await.is_err() || self.state.load(Acquire) == CLOSED {
            self.refused.increment(1);
            return Err(NoStore::NotTakenOver);
        }
        self.waited.increment(1);
        Ok(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    fn begin_waiting(&self) -> Option<Waiting<'_>> {
        let add = |waiting: u64| (waiting < self.waiting_max).then_some(waiting + 1);
        self.waiting.fetch_update(Relaxed, Relaxed, add).ok()?;
        self.waiting_gauge.increment(1.0);
        Some(Waiting(self))
    }

    /// Counts a request as in progress.
    ///
    /// # Errors
    /// The gate is not open.
    pub(super) fn enter(&self) -> Result<InProgress, NoStore> {
        let in_progress = self.hold();
        // Orders the count before the read of the state; `close` changes the state before it reads the count.
        fence(SeqCst);
        match self.state.load(Acquire) {
            OPEN => Ok(in_progress),
            PENDING => Err(NoStore::NotTakenOver),
            _ => Err(NoStore::HandedOver),
        }
    }

    /// Keeps the store in use for what a request in progress leaves behind.
    pub(super) fn hold(&self) -> InProgress {
        InProgress { _token: self.in_progress.token() }
    }

    /// Opens the gate; the requests that wait are served.
    pub(super) fn open(&self) {
        self.in_progress.reopen();
        self.state.store(OPEN, SeqCst);
        self.changed.notify_waiters();
    }

    /// Closes the gate; the requests that wait are refused.
    pub(super) fn close(&self) {
        self.state.store(CLOSED, SeqCst);
        fence(SeqCst);
        self.in_progress.close();
        self.changed.notify_waiters();
    }

    /// After [`WorkflowGate::close`]: waits until no request is in progress. Returns whether that happened within
    /// `within`.
    pub(super) async fn idle(&self, within: Duration) -> bool {
        timeout(within, self.in_progress.wait()).await.is_ok()
    }

    /// Returns the number of requests in progress.
    pub(super) fn in_progress(&self) -> usize {
        self.in_progress.len()
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
        self.0.waiting_gauge.decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn pending(limits: Limits) -> Arc<WorkflowGate> {
        Arc::new(WorkflowGate::new(true, &limits))
    }

    #[tokio::test]
    async fn requests_wait_until_the_gate_opens_and_more_than_may_wait_are_refused() {
        let gate = pending(Limits { succession_waiting_max: 1, ..Limits::default() });
        let waiting = tokio::spawn({
            let gate = gate.clone();
            async move { gate.wait_while_pending().await }
        });
        while gate.waiting.load(Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        assert!(matches!(gate.wait_while_pending().await, Err(NoStore::NotTakenOver)), "one waits already");
        assert!(matches!(gate.enter(), Err(NoStore::NotTakenOver)));
        gate.open();
        assert!(waiting.await.unwrap().is_ok());
        assert!(gate.enter().is_ok());
        assert_eq!(gate.waiting.load(Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn requests_wait_for_a_bounded_time() {
        let gate = pending(Limits { succession_wait_ms: 50, ..Limits::default() });
        assert!(matches!(gate.wait_while_pending().await, Err(NoStore::NotTakenOver)));
        let gate = pending(Limits::default());
        let waiting = tokio::spawn({
            let gate = gate.clone();
            async move { gate.wait_while_pending().await }
        });
        while gate.waiting.load(Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        gate.close();
        assert!(matches!(waiting.await.unwrap(), Err(NoStore::NotTakenOver)), "the process ends");
    }

    #[tokio::test]
    async fn the_gate_is_idle_when_what_was_begun_before_it_closed_has_ended() {
        let gate = Arc::new(WorkflowGate::new(false, &Limits::default()));
        let request = gate.enter().unwrap();
        gate.close();
        assert!(matches!(gate.enter(), Err(NoStore::HandedOver)));
        assert!(!gate.idle(Duration::from_millis(1)).await);
        drop(request);
        assert!(gate.idle(Duration::from_secs(5)).await);
        gate.open();
        assert!(gate.enter().is_ok(), "the successor was lost");
    }
}

//! The queue of runs that are to get a snapshot. A run with a snapshot is loaded from it and the events after it.
//!
//! Always true: requesting a snapshot costs the run's task one comparison per append, and never waits. The queue is
//! bounded, and a run gets at most one snapshot every `run_snapshot_pause_ms`; if it has enough new events after that,
//! it gets another. A run for which the queue had no room requests a snapshot again with later events, or when it is
//! loaded. [`super::snapshot_writer`] writes the snapshots.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::counter;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::engine::bounds::usize_of;
use crate::limits::Limits;
use crate::names::RunId;
use crate::store::Append;

/// Outcomes of writing or reading a snapshot: the label `outcome` of `pointsman_run_snapshots_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum SnapshotOutcome {
    Written,
    /// The snapshot is larger than `run_snapshot_bytes_max`, and was not written.
    TooLarge,
    /// The run could not be read, or the store refused the snapshot.
    NotWritten,
    /// The queue was full.
    LeftOut,
    /// A run was loaded from its snapshot.
    Read,
    /// The snapshot was written by a version with another fold function: all events are read instead.
    OtherFold,
    /// The snapshot cannot be read, or the events after it do not fit it: all events are read instead.
    Broken,
}

impl SnapshotOutcome {
    pub fn count(self) {
        let outcome = match self {
            Self::Written => "written",
            Self::TooLarge => "too_large",
            Self::NotWritten => "not_written",
            Self::LeftOut => "left_out",
            Self::Read => "read",
            Self::OtherFold => "other_fold",
            Self::Broken => "broken",
        };
        counter!("pointsman_run_snapshots_total", "outcome" => outcome).increment(1);
    }
}

/// The queue of runs that are to get a snapshot.
pub(in crate::engine) struct RunSnapshots {
    every: u64,
    waiting_max: usize,
    pause: Duration,
    state: Mutex<SnapshotQueueState>,
    changed: Notify,
}

#[derive(Default)]
struct SnapshotQueueState {
    /// The queued runs, and the time before which each gets no snapshot.
    waiting: HashMap<RunId, Instant>,
    /// Runs that got a snapshot recently, and the time from which each may get another.
    recent: HashMap<RunId, Instant>,
}

impl RunSnapshots {
    pub fn new(limits: &Limits) -> Self {
        let keeps_any = limits.run_snapshot_bytes_max > 0;
        Self {
            every: if keeps_any { limits.run_snapshot_every_events.max(1) } else { u64::MAX },
            waiting_max: usize_of(limits.run_snapshots_waiting_max),
            pause: Limits::ms(limits.run_snapshot_pause_ms),
            state: Mutex::default(),
            changed: Notify::new(),
        }
    }
    fn state(&self) -> MutexGuard<'_, SnapshotQueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// The number of events after which a run gets another snapshot.
    pub fn every(&self) -> u64 {
        self.every
    }
    /// Called after each append of a run without sensitive values: queues the run where its sequence number has passed
    /// a multiple of `every`.
    pub fn request_if_due(&self, append: &Append) {
        let before = append.first.0.saturating_sub(1);
        let last = before.saturating_add(append.events.len() as u64);
        if last / self.every > before / self.every && !append.summary.status.is_final() {
            self.request(append.run_id);
        }
    }
    /// Queues a run.
    pub fn request(&self, run: RunId) {
        let mut state = self.state();
        if state.waiting.contains_key(&run) {
            return;
        }
        if state.waiting.len() >= self.waiting_max {
            return SnapshotOutcome::LeftOut.count();
        }
        let not_before = state.recent.get(&run).copied().unwrap_or_else(Instant::now);
        state.waiting.insert(run, not_before);
        drop(state);
        self.changed.notify_one();
    }
    /// Waits for the next run that is to get a snapshot, and removes it from the queue.
    pub async fn next(&self) -> RunId {
        loop {
            let first = {
                let (mut state, now) = (self.state(), Instant::now());
                state.recent.retain(|_, until| *until > now);
                let first = state.waiting.iter().min_by_key(|(run, at)| (**at, **run)).map(|(run, at)| (*run, *at));
                if let Some((run, at)) = first
                    && at <= now
                {
                    state.waiting.remove(&run);
                    state.recent.insert(run, now + self.pause);
                    return run;
                }
                first
            };
            tokio::select! {
                () = self.changed.notified() => {}
                () = until(first.map(|(_, at)| at)) => {}
            }
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn run(n: u128) -> RunId {
        RunId(Uuid::from_u128(n))
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_gets_at_most_one_snapshot_per_pause_and_the_queue_is_bounded() {
        let limits = Limits { run_snapshot_pause_ms: 1_000, run_snapshots_waiting_max: 2, ..Limits::default() };
        let (queue, began) = (RunSnapshots::new(&limits), Instant::now());
        for _ in 0..3 {
            queue.request(run(1));
        }
        assert_eq!(queue.next().await, run(1));
        queue.request(run(1));
        queue.request(run(2));
        queue.request(run(3)); // left out: the queue is full
        assert_eq!(queue.next().await, run(2), "the first has just got one");
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert_eq!(queue.next().await, run(1));
        assert_eq!(began.elapsed(), Duration::from_secs(1));
        let nothing = tokio::time::timeout(Duration::from_secs(60), queue.next()).await;
        assert!(nothing.is_err(), "{nothing:?}");
        queue.request(run(1));
        assert_eq!(queue.next().await, run(1));
        assert!(queue.state().recent.len() == 1, "runs whose pause is over are removed");
    }
}

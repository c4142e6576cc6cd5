//! Which runs are to get a snapshot, so that whoever takes them reads only the events after it.
//!
//! Always true: asking for one costs the task that moves the run a comparison for each append, and nothing waits for it.
//! How many runs wait for one is bounded, and so is how often a run gets one: a run that moves fast gets one at most
//! every `run_snapshot_pause_ms`, and one more when it has moved on since. Whoever is left out asks again with its next
//! events, or when it is taken. Making them is [`super::snapshot_writer`]'s business.

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

/// What became of a snapshot, as the metric says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum SnapshotOutcome {
    Written,
    /// It has more bytes than are kept.
    TooLarge,
    /// The run could not be read, or the store did not take it.
    NotWritten,
    /// Too many runs wait for one.
    LeftOut,
    /// A run was taken with it.
    Read,
    /// A binary wrote it that folds otherwise: all events are read instead.
    OtherFold,
    /// It cannot be read: all events are read instead.
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

/// See the module.
pub(in crate::engine) struct RunSnapshots {
    every: u64,
    waiting_max: usize,
    pause: Duration,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// Runs that are to get one, each not before a time.
    waiting: HashMap<RunId, Instant>,
    /// Runs that have just got one, and may get another from then on.
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
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// A run with so many events since its snapshot is to get another.
    pub fn every(&self) -> u64 {
        self.every
    }
    /// An append is in the store: its run is to get a snapshot where it has come by a thousand (`every`) more events.
    pub fn stored(&self, append: &Append) {
        let before = append.first.0.saturating_sub(1);
        let last = before.saturating_add(append.events.len() as u64);
        if last / self.every > before / self.every && !append.summary.status.is_final() {
            self.want(append.run_id);
        }
    }
    /// The run is to get one.
    pub fn want(&self, run: RunId) {
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
    /// The next run that gets one, waited for. It gets no other for a while.
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
    async fn a_run_that_moves_fast_gets_one_at_a_time_and_one_more() {
        let limits = Limits { run_snapshot_pause_ms: 1_000, run_snapshots_waiting_max: 2, ..Limits::default() };
        let (wanted, began) = (RunSnapshots::new(&limits), Instant::now());
        for _ in 0..3 {
            wanted.want(run(1));
        }
        assert_eq!(wanted.next().await, run(1));
        wanted.want(run(1));
        wanted.want(run(2));
        wanted.want(run(3)); // there is no room for it
        assert_eq!(wanted.next().await, run(2), "the first has just got one");
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert_eq!(wanted.next().await, run(1));
        assert_eq!(began.elapsed(), Duration::from_secs(1));
        let nothing = tokio::time::timeout(Duration::from_secs(60), wanted.next()).await;
        assert!(nothing.is_err(), "{nothing:?}");
        wanted.want(run(1));
        assert_eq!(wanted.next().await, run(1));
        assert!(wanted.state().recent.len() == 1, "what is over is forgotten");
    }
}

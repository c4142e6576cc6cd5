//! Tells those who wait for a run what of it is on disk.
//!
//! Always true: an entry goes with the last that waits for its run; a run that nobody waits for takes no lock.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::names::{RunId, Seq};
use crate::workflow::RunSummary;

/// A run as it stands on disk; the summary only where its task knows no more than that.
#[derive(Clone, Debug, Default)]
pub(in crate::engine) struct OnDisk {
    pub seq: Option<Seq>,
    pub summary: Option<Arc<RunSummary>>,
    /// It ended in another process.
    pub ended: bool,
    /// Counts up: a run below it began to wait for somebody.
    pub below: u64,
}

/// Who waits for which run.
#[derive(Default)]
pub(in crate::engine) struct Watchers {
    all: Mutex<HashMap<RunId, (usize, watch::Sender<OnDisk>)>>,
    /// How many: runs that nobody waits for take no lock.
    waiting: AtomicUsize,
}

impl Watchers {
    fn all(&self) -> MutexGuard<'_, HashMap<RunId, (usize, watch::Sender<OnDisk>)>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// What is kept of a run from now on.
    pub fn subscribe(&self, run: RunId) -> watch::Receiver<OnDisk> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let mut all = self.all();
        let (count, sender) = all.entry(run).or_insert_with(|| (0, watch::Sender::new(OnDisk::default())));
        *count += 1;
        sender.subscribe()
    }
    /// More of a run is on disk.
    pub fn kept(&self, run: RunId, seq: Seq, summary: impl FnOnce() -> Option<RunSummary>) {
        if self.waiting.load(Ordering::SeqCst) == 0 {
            return;
        }
        if let Some((_, sender)) = self.all().get(&run) {
            let summary = summary().map(Arc::new);
            sender.send_modify(|seen| *seen = OnDisk { seq: Some(seq), summary, ended: false, below: seen.below });
        }
    }
    /// A run that it began, or one below that, waits for somebody.
    pub fn below(&self, run: RunId) {
        if let Some((_, sender)) = self.all().get(&run) {
            sender.send_modify(|seen| seen.below += 1);
        }
    }
    /// A run ended, here or elsewhere.
    pub fn ended(&self, run: RunId) {
        if self.waiting.load(Ordering::SeqCst) > 0
            && let Some((_, sender)) = self.all().get(&run)
        {
            sender.send_modify(|seen| seen.ended = true);
        }
    }
    /// One of those who wait for a run is gone.
    pub fn unsubscribe(&self, run: RunId) {
        let mut all = self.all();
        if let Some((count, _)) = all.get_mut(&run) {
            *count -= 1;
            if *count == 0 {
                all.remove(&run);
            }
        }
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

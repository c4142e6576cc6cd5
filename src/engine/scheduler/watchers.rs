//! Tells those who wait for a run what of it is on disk.
//!
//! Always true: an entry goes with the last that waits for its run; a run that nobody waits for takes no lock. Whoever
//! starts a run and waits for it may have its events collected: then the answer is made from them, and the store is not
//! read. They are all the events from the first, or none: what has a gap or is more than the bound is dropped.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::names::{RunId, Seq};
use crate::store::{Append, StoredEvent};
use crate::workflow::RunSummary;

/// Events that are collected of one run for whoever started it. A longer run is read from the store.
const COLLECTED_EVENTS_MAX: usize = 1_000;

/// A run as it stands on disk; the summary only where its task knows no more than that.
#[derive(Clone, Debug, Default)]
pub(in crate::engine) struct OnDisk {
    pub seq: Option<Seq>,
    last: Option<Arc<Append>>,
    /// It ended in another process.
    pub ended: bool,
    /// Counts up: a run below it began to wait for somebody.
    pub below: u64,
}

impl OnDisk {
    /// The run after its last append.
    pub fn summary(&self) -> Option<&RunSummary> {
        self.last.as_deref().map(|append| &append.summary)
    }
}

/// All appends of a run from its first event on.
#[derive(Default)]
struct Collected {
    appends: Vec<Arc<Append>>,
    count: usize,
}

impl Collected {
    /// With one more append; `None` where something is missing before it, or it is too much.
    fn and(mut self, append: Arc<Append>) -> Option<Self> {
        let next = self.appends.last().map_or(Seq::FIRST, |last| last.summary.seq.next());
        self.count += append.events.len();
        let fits = append.first == next && self.count <= COLLECTED_EVENTS_MAX;
        self.appends.push(append);
        fits.then_some(self)
    }
}

struct Entry {
    count: usize,
    sender: watch::Sender<OnDisk>,
    collected: Option<Collected>,
}

/// Who waits for which run.
#[derive(Default)]
pub(in crate::engine) struct Watchers {
    all: Mutex<HashMap<RunId, Entry>>,
    /// How many: runs that nobody waits for take no lock.
    waiting: AtomicUsize,
}

impl Watchers {
    fn all(&self) -> MutexGuard<'_, HashMap<RunId, Entry>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// What is kept of a run from now on.
    pub fn subscribe(&self, run: RunId) -> watch::Receiver<OnDisk> {
        self.entry(run, None)
    }
    /// The same of a run that has not begun, whose events are collected.
    pub fn subscribe_from_the_first(&self, run: RunId) -> watch::Receiver<OnDisk> {
        self.entry(run, Some(Collected::default()))
    }
    fn entry(&self, run: RunId, collected: Option<Collected>) -> watch::Receiver<OnDisk> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let mut all = self.all();
        let entry = all.entry(run).or_insert_with(|| Entry {
            count: 0,
            sender: watch::Sender::new(OnDisk::default()),
            collected,
        });
        entry.count += 1;
        entry.sender.subscribe()
    }
    /// More of a run is on disk, by this append; whether that is all that its task knows of.
    pub fn stored(&self, run: RunId, seq: Seq, append: Option<Arc<Append>>, is_all: bool) {
        if self.waiting.load(Ordering::SeqCst) == 0 {
            return;
        }
        if let Some(Entry { sender, collected, .. }) = self.all().get_mut(&run) {
            *collected = collected.take().zip(append.clone()).and_then(|(collected, append)| collected.and(append));
            let last = append.filter(|_| is_all);
            sender.send_modify(|seen| *seen = OnDisk { seq: Some(seq), last, ended: false, below: seen.below });
        }
    }
    /// All events of a run up to a place, where they were collected.
    pub fn events(&self, run: RunId, up_to: Seq) -> Option<Vec<StoredEvent>> {
        let appends = {
            let all = self.all();
            let collected = all.get(&run)?.collected.as_ref()?;
            collected.appends.last().filter(|last| last.summary.seq == up_to)?;
            collected.appends.clone()
        };
        let events = appends.iter().flat_map(|append| &append.events);
        let numbered = std::iter::successors(Some(Seq::FIRST), |seq| Some(seq.next())).zip(events);
        Some(numbered.map(|(seq, (at, event))| StoredEvent { seq, at: *at, event: event.clone() }).collect())
    }
    /// A run that it began, or one below that, waits for somebody.
    pub fn below(&self, run: RunId) {
        if let Some(Entry { sender, .. }) = self.all().get(&run) {
            sender.send_modify(|seen| seen.below += 1);
        }
    }
    /// A run ended, here or elsewhere.
    pub fn ended(&self, run: RunId) {
        if self.waiting.load(Ordering::SeqCst) > 0
            && let Some(Entry { sender, .. }) = self.all().get(&run)
        {
            sender.send_modify(|seen| seen.ended = true);
        }
    }
    /// One of those who wait for a run is gone.
    pub fn unsubscribe(&self, run: RunId) {
        let mut all = self.all();
        if let Some(entry) = all.get_mut(&run) {
            entry.count -= 1;
            if entry.count == 0 {
                all.remove(&run);
            }
        }
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

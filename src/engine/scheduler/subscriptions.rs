//! Subscriptions to runs: tells requests that wait for a run which of its events are durable.
//!
//! Always true: a run's entry is removed with its last subscriber; while there are no subscribers, an append takes no
//! lock; a subscriber that waits for the end or for input is not woken earlier, unless the run also has a subscriber
//! that is woken by every append. A request that starts a run and waits for it can have its events collected in memory,
//! so that its response is built without reading the store. Collected events are complete from the first on: where one
//! is missing or the bound is exceeded, all of them are dropped.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::names::{RunId, Seq};
use crate::store::{Append, StoredEvent};
use crate::workflow::RunSummary;

/// The part of a run's durable state that subscribers see.
#[derive(Clone, Debug, Default)]
pub(in crate::engine) struct DurableState {
    pub seq: Option<Seq>,
    /// The last append, if its summary is current: the run's task has no newer events.
    last: Option<Arc<Append>>,
    /// Whether the run's end was reported without its last append, so that the summary has to be read from the store.
    pub ended: bool,
    /// How many times a descendant has begun to wait for a person or a signal.
    pub descendant_wait_count: u64,
}

impl DurableState {
    /// The run after its last append.
    pub fn summary(&self) -> Option<&RunSummary> {
        self.last.as_deref().map(|append| &append.summary)
    }
}

/// All appends of a run from its first event on.
#[derive(Default)]
struct Collected {
    appends: Vec<Arc<Append>>,
    bytes: usize,
}

impl Collected {
    /// Adds an append; `None` if events before it are missing, or if all together exceed `bytes_max`.
    fn with(mut self, append: Arc<Append>, bytes_max: usize) -> Option<Self> {
        let next = self.appends.last().map_or(Seq::FIRST, |last| last.summary.seq.next());
        self.bytes = self.bytes.saturating_add(append.events_bytes());
        let fits = append.first == next && self.bytes <= bytes_max;
        self.appends.push(append);
        fits.then_some(self)
    }
}

struct SubscribedRun {
    /// The number of subscribers.
    count: usize,
    /// How many subscribers are woken by every append.
    woken_by_append: usize,
    sender: watch::Sender<DurableState>,
    collected: Option<Collected>,
}

/// What wakes a subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum WokenBy {
    /// Every append.
    Append,
    /// The append after which the run has ended or waits for a person or a signal, its end in another process, or a
    /// descendant that waits.
    EndedOrAwaitsInput,
}

#[derive(Default)]
struct Entries {
    by_run: HashMap<RunId, SubscribedRun>,
    /// The size of the collected events of all runs together.
    bytes: usize,
}

/// The subscribers of all runs.
pub(in crate::engine) struct RunSubscriptions {
    entries: Mutex<Entries>,
    /// The number of subscribers. Read before the lock is taken, so that appends take none while there are no
    /// subscribers.
    waiting: AtomicUsize,
    /// The bound on the collected events of all runs together.
    bytes_max: usize,
}

impl RunSubscriptions {
    /// No subscribers yet. The collected events of all runs together are bounded by `bytes_max`.
    pub fn new(bytes_max: usize) -> Self {
        Self { entries: Mutex::default(), waiting: AtomicUsize::new(0), bytes_max }
    }
    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Subscribes to a run.
    pub fn subscribe(&self, run: RunId, woken_by: WokenBy) -> watch::Receiver<DurableState> {
        self.register(run, woken_by, None)
    }
    /// Subscribes to a run that has not begun, and collects its events.
    pub fn subscribe_from_the_first(&self, run: RunId) -> watch::Receiver<DurableState> {
        self.register(run, WokenBy::EndedOrAwaitsInput, Some(Collected::default()))
    }
    fn register(&self, run: RunId, woken_by: WokenBy, collected: Option<Collected>) -> watch::Receiver<DurableState> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let mut entries = self.entries();
        let entry = entries.by_run.entry(run).or_insert_with(|| SubscribedRun {
            count: 0,
            woken_by_append: 0,
            sender: watch::Sender::new(DurableState::default()),
            collected,
        });
        entry.count += 1;
        entry.woken_by_append += usize::from(woken_by == WokenBy::Append);
        entry.sender.subscribe()
    }
    /// Reports that a run is durable up to `seq`, by this append. `is_current`: whether the run's task has no newer
    /// events.
    pub fn stored(&self, run: RunId, seq: Seq, append: Option<Arc<Append>>, is_current: bool) {
        if self.waiting.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut entries = self.entries();
        let Entries { by_run, bytes } = &mut *entries;
        if let Some(SubscribedRun { sender, collected, woken_by_append, .. }) = by_run.get_mut(&run) {
            if let Some(before) = collected.take() {
                *bytes -= before.bytes;
                let room = self.bytes_max.saturating_sub(*bytes);
                *collected = append.clone().and_then(|append| before.with(append, room));
                *bytes += collected.as_ref().map_or(0, |collected| collected.bytes);
            }
            let last = append.filter(|_| is_current);
            let wakes = *woken_by_append > 0
                || last.as_ref().is_some_and(|last| last.summary.status.has_ended_or_awaits_input());
            sender.send_if_modified(|seen| {
                let descendant_wait_count = seen.descendant_wait_count;
                *seen = DurableState { seq: Some(seq), last, ended: false, descendant_wait_count };
                wakes
            });
        }
    }
    /// All events of a run up to a sequence number; `None` where they were not collected.
    pub fn events(&self, run: RunId, up_to: Seq) -> Option<Vec<StoredEvent>> {
        let appends = {
            let entries = self.entries();
            let collected = entries.by_run.get(&run)?.collected.as_ref()?;
            collected.appends.last().filter(|last| last.summary.seq == up_to)?;
            collected.appends.clone()
        };
        let events = appends.iter().flat_map(|append| &append.events);
        let numbered = std::iter::successors(Some(Seq::FIRST), |seq| Some(seq.next())).zip(events);
        Some(numbered.map(|(seq, (at, event))| StoredEvent { seq, at: *at, event: event.clone() }).collect())
    }
    /// Reports that a descendant of the run waits for a person or a signal.
    pub fn descendant_waits(&self, run: RunId) {
        if let Some(SubscribedRun { sender, .. }) = self.entries().by_run.get(&run) {
            sender.send_modify(|seen| seen.descendant_wait_count += 1);
        }
    }
    /// Reports that a run has ended, without the append that ended it: for example because another process
    /// executed it. Does nothing if that append was reported: the summary need not be read.
    pub fn ended(&self, run: RunId) {
        if self.waiting.load(Ordering::SeqCst) > 0
            && let Some(SubscribedRun { sender, .. }) = self.entries().by_run.get(&run)
        {
            sender.send_if_modified(|seen| {
                let is_known = seen.summary().is_some_and(|summary| summary.status.is_final());
                seen.ended |= !is_known;
                !is_known
            });
        }
    }
    /// Removes a subscriber.
    pub fn unsubscribe(&self, run: RunId, woken_by: WokenBy) {
        let mut entries = self.entries();
        let Entries { by_run, bytes } = &mut *entries;
        if let Some(entry) = by_run.get_mut(&run) {
            entry.count -= 1;
            entry.woken_by_append -= usize::from(woken_by == WokenBy::Append);
            if entry.count == 0 {
                *bytes -= entry.collected.as_ref().map_or(0, |collected| collected.bytes);
                by_run.remove(&run);
            }
        }
        drop(entries);
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::{append, run_id};
    use crate::workflow::RunStatus;

    fn stored(subscriptions: &RunSubscriptions, run: u64, first: u64, status: RunStatus) -> Arc<Append> {
        let mut append = append(run_id(run), first, 1);
        append.summary.status = status;
        let append = Arc::new(append);
        subscriptions.stored(run_id(run), append.summary.seq, Some(append.clone()), true);
        append
    }

    #[test]
    fn a_subscriber_that_waits_for_the_end_or_for_input_is_not_woken_by_every_append() {
        let subscriptions = RunSubscriptions::new(1 << 20);
        let end = subscriptions.subscribe(run_id(1), WokenBy::EndedOrAwaitsInput);
        stored(&subscriptions, 1, 1, RunStatus::Running);
        assert!(!end.has_changed().unwrap());
        let each = subscriptions.subscribe(run_id(1), WokenBy::Append);
        stored(&subscriptions, 1, 2, RunStatus::Running);
        assert!(each.has_changed().unwrap());
        subscriptions.unsubscribe(run_id(1), WokenBy::Append);
        drop(end);
        let end = subscriptions.subscribe(run_id(1), WokenBy::EndedOrAwaitsInput);
        stored(&subscriptions, 1, 3, RunStatus::Running);
        assert!(!end.has_changed().unwrap());
        stored(&subscriptions, 1, 4, RunStatus::Paused);
        assert!(end.has_changed().unwrap());
        assert_eq!(end.borrow().summary().map(|summary| summary.status), Some(RunStatus::Paused));
    }

    #[test]
    fn an_end_that_was_reported_with_its_append_is_not_read_from_the_store() {
        let subscriptions = RunSubscriptions::new(1 << 20);
        let mut end = subscriptions.subscribe_from_the_first(run_id(1));
        subscriptions.ended(run_id(1));
        assert!(end.has_changed().unwrap() && end.borrow_and_update().ended);
        let last = stored(&subscriptions, 1, 1, RunStatus::Completed);
        end.mark_unchanged();
        subscriptions.ended(run_id(1));
        assert!(!end.has_changed().unwrap() && !end.borrow().ended);
        assert_eq!(end.borrow().summary(), Some(&last.summary));
    }

    #[test]
    fn the_collected_events_of_all_runs_together_are_bounded() {
        let one = append(run_id(1), 1, 1).events_bytes();
        let subscriptions = RunSubscriptions::new(one * 5 / 2);
        let seen =
            |run: u64, last: &Arc<Append>| subscriptions.events(run_id(run), last.summary.seq).map(|all| all.len());
        let _watched: Vec<_> = (1..=3).map(|run| subscriptions.subscribe_from_the_first(run_id(run))).collect();
        let first = stored(&subscriptions, 1, 1, RunStatus::Running);
        let second = stored(&subscriptions, 2, 1, RunStatus::Running);
        let third = stored(&subscriptions, 3, 1, RunStatus::Running);
        assert_eq!((seen(1, &first), seen(2, &second), seen(3, &third)), (Some(1), Some(1), None));
        // The events of a run that no longer fit are dropped, which makes room for other runs.
        let more = stored(&subscriptions, 1, 2, RunStatus::Running);
        assert_eq!(seen(1, &more), None);
        let more = stored(&subscriptions, 2, 2, RunStatus::Running);
        assert_eq!(seen(2, &more), Some(2));
        (1..=3).for_each(|run| subscriptions.unsubscribe(run_id(run), WokenBy::EndedOrAwaitsInput));
        let left = subscriptions.entries();
        assert_eq!((left.bytes, left.by_run.len()), (0, 0));
    }
}

//! What wakes each suspended run of this process: a time, a lock, a child or the end of the freeze.
//!
//! Always true: a run has at most one timer, for its next wake time. Memory holds neither the events nor the state of a
//! suspended run; its entries here wake it. A timer never fires before its time.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::Notify;

use crate::names::RunId;

/// The wake-up causes of this process's suspended runs.
#[derive(Default)]
pub(in crate::engine) struct Timers {
    state: Mutex<TimerState>,
    changed: Notify,
}

#[derive(Default)]
struct TimerState {
    by_time: BTreeSet<(Timestamp, RunId)>,
    time_of: HashMap<RunId, Timestamp>,
    /// Runs that are due now, first in, first out.
    ready: VecDeque<RunId>,
    ready_set: HashSet<RunId>,
    /// The store's wake times after this one are not loaded yet.
    loaded_until: Option<Timestamp>,
    /// Runs that wait for the end of the freeze.
    frozen: HashSet<RunId>,
    /// The runs that wait for each lock.
    lock_waiters: HashMap<String, HashSet<RunId>>,
    /// The parent that waits for each child.
    parents: HashMap<RunId, RunId>,
    /// The reverse index: the locks and children that each run waits for.
    watches: HashMap<RunId, (Vec<String>, Vec<RunId>)>,
}

/// What is due now, or when to look again.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::engine) enum Due {
    Run(RunId),
    /// The next timers have to be loaded from the store.
    Refill,
    /// Nothing is due before this time.
    At(Timestamp),
    /// Nothing is due until something changes.
    Never,
}

impl TimerState {
    /// Sets a run's timer; returns whether it is the earliest of all now.
    fn set(&mut self, run: RunId, at: Timestamp) -> bool {
        if let Some(before) = self.time_of.insert(run, at) {
            self.by_time.remove(&(before, run));
        }
        let first = self.by_time.first().is_none_or(|(first, _)| at < *first);
        self.by_time.insert((at, run));
        first
    }
}

impl Timers {
    fn state(&self) -> MutexGuard<'_, TimerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Sets a run's timer, which replaces the one before.
    pub fn set(&self, run: RunId, at: Timestamp) {
        if self.state().set(run, at) {
            self.changed.notify_one();
        }
    }
    /// Makes a run due now.
    pub fn wake_now(&self, run: RunId) {
        let mut state = self.state();
        if state.ready_set.insert(run) {
            state.ready.push_back(run);
            self.changed.notify_one();
        }
    }
    /// Removes a run that has a task or has ended: nothing here has to wake it.
    pub fn remove(&self, run: RunId) {
        let mut state = self.state();
        if let Some(at) = state.time_of.remove(&run) {
            state.by_time.remove(&(at, run));
        }
        state.frozen.remove(&run);
        let Some((locks, children)) = state.watches.remove(&run) else { return };
        for lock in locks {
            if let Some(runs) = state.lock_waiters.get_mut(&lock) {
                runs.remove(&run);
                if runs.is_empty() {
                    state.lock_waiters.remove(&lock);
                }
            }
        }
        for child in children {
            state.parents.remove(&child);
        }
    }
    /// Adds the next timers from the store; with `has_more`, the store has later ones.
    pub fn load(&self, wakes: &[(Timestamp, RunId)], has_more: bool) {
        let mut state = self.state();
        state.loaded_until = wakes.last().filter(|_| has_more).map(|(at, _)| *at);
        let mut is_earliest = false;
        for (at, run) in wakes {
            // The run's task may have set its timer after the store was read: the earlier of both counts, because
            // waking a run too early only costs a check.
            if state.time_of.get(run).is_none_or(|known| at < known) {
                is_earliest |= state.set(*run, *at);
            }
        }
        drop(state);
        if is_earliest {
            self.changed.notify_one();
        }
    }
    /// What is due now; a run that is returned is removed.
    pub fn pop_due(&self, now: Timestamp) -> Due {
        let mut state = self.state();
        if let Some(run) = state.ready.pop_front() {
            state.ready_set.remove(&run);
            return Due::Run(run);
        }
        match state.by_time.first().copied() {
            // Before a refill: as long as these are not acquired, the store lists them first, and a refill that finds
            // nothing else would be due again at once.
            Some((at, run)) if at <= now => {
                state.by_time.remove(&(at, run));
                state.time_of.remove(&run);
                Due::Run(run)
            }
            _ if state.loaded_until.is_some_and(|loaded_until| loaded_until <= now) => {
                state.loaded_until = None;
                Due::Refill
            }
            Some((at, _)) => Due::At(state.loaded_until.map_or(at, |loaded_until| at.min(loaded_until))),
            None => state.loaded_until.map_or(Due::Never, Due::At),
        }
    }
    /// Waits until something may be due earlier than before.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Registers a run to be woken at the end of the freeze.
    pub fn watch_freeze(&self, run: RunId) {
        self.state().frozen.insert(run);
    }
    /// Removes and returns the runs that wait for the end of the freeze.
    pub fn take_frozen(&self) -> HashSet<RunId> {
        std::mem::take(&mut self.state().frozen)
    }
    /// Registers a run to be woken when a step leaves this lock's queue.
    pub fn watch_lock(&self, run: RunId, name: &str) {
        let mut state = self.state();
        if state.lock_waiters.entry(name.to_owned()).or_default().insert(run) {
            state.watches.entry(run).or_default().0.push(name.to_owned());
        }
    }
    /// Registers a run to be woken when its child ends.
    pub fn watch_child(&self, run: RunId, child: RunId) {
        let mut state = self.state();
        if state.parents.insert(child, run).is_none() {
            state.watches.entry(run).or_default().1.push(child);
        }
    }
    /// Whether any run here waits for a lock.
    pub fn watches_lock(&self, name: &str) -> bool {
        self.state().lock_waiters.contains_key(name)
    }
    /// Whether this run waits for that lock.
    pub fn waits_for(&self, run: RunId, name: &str) -> bool {
        self.state().lock_waiters.get(name).is_some_and(|runs| runs.contains(&run))
    }
    /// The runs here that wait for a lock.
    pub fn waiters(&self, name: &str) -> Vec<RunId> {
        self.state().lock_waiters.get(name).map(|runs| runs.iter().copied().collect()).unwrap_or_default()
    }
    /// The runs that wait for a lock or a child.
    pub fn watching(&self) -> Vec<RunId> {
        self.state().watches.keys().copied().collect()
    }
    /// The run here that waits for this child.
    pub fn parent_of(&self, child: RunId) -> Option<RunId> {
        self.state().parents.get(&child).copied()
    }
    /// The runs that wait for a child that is not among the unfinished runs.
    pub fn parents_of_missing(&self, unfinished: &HashSet<RunId>) -> HashSet<RunId> {
        let state = self.state();
        state.parents.iter().filter(|(child, _)| !unfinished.contains(child)).map(|(_, parent)| *parent).collect()
    }
    /// Whether anything here will wake the run.
    pub fn will_wake(&self, run: RunId) -> bool {
        let state = self.state();
        state.time_of.contains_key(&run)
            || state.ready_set.contains(&run)
            || state.frozen.contains(&run)
            || state.watches.contains_key(&run)
    }
    /// How many runs have a timer.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.state().time_of.len()
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use uuid::Uuid;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_secs(second)
    }
    fn run(n: u128) -> RunId {
        RunId(Uuid::from_u128(n))
    }

    #[test]
    fn runs_are_due_in_the_order_of_their_last_set_times() {
        let timers = Timers::default();
        timers.set(run(1), at(30));
        timers.set(run(2), at(20));
        timers.set(run(1), at(10));
        assert_eq!(timers.pop_due(at(5)), Due::At(at(10)));
        assert_eq!(timers.pop_due(at(25)), Due::Run(run(1)));
        assert_eq!(timers.pop_due(at(25)), Due::Run(run(2)));
        assert_eq!(timers.pop_due(at(25)), Due::Never);
    }

    #[test]
    fn removing_a_run_removes_its_timer_and_everything_that_it_waits_for() {
        let timers = Timers::default();
        timers.set(run(1), at(30));
        timers.watch_lock(run(1), "a");
        timers.watch_child(run(1), run(2));
        timers.watch_freeze(run(1));
        assert!(timers.watches_lock("a") && timers.parent_of(run(2)) == Some(run(1)) && timers.will_wake(run(1)));
        timers.remove(run(1));
        assert!(!timers.watches_lock("a") && timers.parent_of(run(2)).is_none() && !timers.will_wake(run(1)));
        assert!(timers.take_frozen().is_empty());
        assert_eq!(timers.pop_due(at(99)), Due::Never);
    }

    /// The store was read before the run's task set an earlier time.
    #[test]
    fn loading_from_the_store_postpones_no_timer() {
        let timers = Timers::default();
        timers.set(run(1), at(10));
        timers.set(run(2), at(50));
        timers.load(&[(at(40), run(1)), (at(40), run(2))], false);
        assert_eq!(timers.pop_due(at(10)), Due::Run(run(1)));
        assert_eq!(timers.pop_due(at(10)), Due::At(at(40)));
    }

    #[test]
    fn a_woken_run_is_returned_once_and_a_refill_is_due_when_the_loaded_timers_have_passed() {
        let timers = Timers::default();
        timers.wake_now(run(1));
        timers.wake_now(run(1));
        timers.load(&[(at(10), run(2))], true);
        assert_eq!(timers.pop_due(at(0)), Due::Run(run(1)));
        assert_eq!(timers.pop_due(at(0)), Due::At(at(10)));
        assert_eq!(timers.pop_due(at(11)), Due::Run(run(2)));
        assert_eq!(timers.pop_due(at(11)), Due::Refill);
        assert_eq!(timers.pop_due(at(11)), Due::Never);
    }

    /// All runs of a page are due, and the store has more of them: none is woken if the page is only loaded again.
    #[test]
    fn a_page_of_runs_that_are_due_is_woken_before_the_next_one_is_loaded() {
        let timers = Timers::default();
        let page = [(at(10), run(1)), (at(10), run(2))];
        timers.load(&page, true);
        assert_eq!(timers.pop_due(at(10)), Due::Run(run(1)));
        assert_eq!(timers.pop_due(at(10)), Due::Run(run(2)));
        assert_eq!(timers.pop_due(at(10)), Due::Refill);
        // Neither has been acquired yet.
        timers.load(&page, true);
        assert_eq!(timers.pop_due(at(10)), Due::Run(run(1)));
    }
}

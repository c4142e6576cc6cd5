//! When each resting run is due, and what else would wake it.
//!
//! Always true: a run has at most one time, its next; that entry is all that is kept of a resting run. A run that waits
//! for a lock, a child or the end of a freeze is indexed by what it waits for. No run is woken before its time.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::Notify;

use crate::names::RunId;

/// The resting runs of this process.
#[derive(Default)]
pub(in crate::engine) struct Timers {
    times: Mutex<Times>,
    changed: Notify,
}

#[derive(Default)]
struct Times {
    by_time: BTreeSet<(Timestamp, RunId)>,
    of: HashMap<RunId, Timestamp>,
    /// Due now, in this order.
    now: VecDeque<RunId>,
    queued: HashSet<RunId>,
    /// Later times than this are in the store only.
    beyond: Option<Timestamp>,
    /// Runs that wait for the end of the freeze.
    held: HashSet<RunId>,
    locks: HashMap<String, HashSet<RunId>>,
    children: HashMap<RunId, RunId>,
    /// By run: the locks and children that it is indexed by above.
    watched: HashMap<RunId, (Vec<String>, Vec<RunId>)>,
}

/// What is due.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::engine) enum Due {
    /// This run is due.
    Run(RunId),
    /// The store has more times.
    Refill,
    /// Nothing before this time.
    At(Timestamp),
    /// Nothing at all.
    Never,
}

impl Times {
    /// Sets a run's time; whether it is the earliest of all now.
    fn put(&mut self, run: RunId, at: Timestamp) -> bool {
        if let Some(before) = self.of.insert(run, at) {
            self.by_time.remove(&(before, run));
        }
        let first = self.by_time.first().is_none_or(|(first, _)| at < *first);
        self.by_time.insert((at, run));
        first
    }
}

impl Timers {
    fn times(&self) -> MutexGuard<'_, Times> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Sets the time at which a run is woken; it takes the place of the one before.
    pub fn at(&self, run: RunId, at: Timestamp) {
        if self.times().put(run, at) {
            self.changed.notify_one();
        }
    }
    /// Wakes a run now.
    pub fn now(&self, run: RunId) {
        let mut times = self.times();
        if times.queued.insert(run) {
            times.now.push_back(run);
            self.changed.notify_one();
        }
    }
    /// The run has a task: nothing here has to wake it.
    pub fn forget(&self, run: RunId) {
        let mut times = self.times();
        if let Some(at) = times.of.remove(&run) {
            times.by_time.remove(&(at, run));
        }
        times.held.remove(&run);
        let Some((locks, children)) = times.watched.remove(&run) else { return };
        for lock in locks {
            if let Some(runs) = times.locks.get_mut(&lock) {
                runs.remove(&run);
                if runs.is_empty() {
                    times.locks.remove(&lock);
                }
            }
        }
        for child in children {
            times.children.remove(&child);
        }
    }
    /// Takes in the next times from the store; with `more`, there are later ones in the store.
    pub fn fill(&self, wakes: &[(Timestamp, RunId)], more: bool) {
        let mut times = self.times();
        times.beyond = wakes.last().filter(|_| more).map(|(at, _)| *at);
        let mut first = false;
        for (at, run) in wakes {
            // What was read may be older than what the run's task has set since; waking too early costs a look.
            if times.of.get(run).is_none_or(|known| at < known) {
                first |= times.put(*run, *at);
            }
        }
        drop(times);
        if first {
            self.changed.notify_one();
        }
    }
    /// What is due now; a run that is returned is removed.
    pub fn due(&self, now: Timestamp) -> Due {
        let mut times = self.times();
        if let Some(run) = times.now.pop_front() {
            times.queued.remove(&run);
            return Due::Run(run);
        }
        if times.beyond.is_some_and(|beyond| beyond <= now) {
            times.beyond = None;
            return Due::Refill;
        }
        match times.by_time.first().copied() {
            Some((at, run)) if at <= now => {
                times.by_time.remove(&(at, run));
                times.of.remove(&run);
                Due::Run(run)
            }
            Some((at, _)) => Due::At(times.beyond.map_or(at, |beyond| at.min(beyond))),
            None => times.beyond.map_or(Due::Never, Due::At),
        }
    }
    /// Waits until something was set that may be due earlier.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The run is held by the freeze.
    pub fn hold(&self, run: RunId) {
        self.times().held.insert(run);
    }
    /// Removes and returns all that are held by the freeze.
    pub fn released(&self) -> HashSet<RunId> {
        std::mem::take(&mut self.times().held)
    }
    /// The run is to be woken when a step leaves this lock's queue.
    pub fn watch_lock(&self, run: RunId, name: &str) {
        let mut times = self.times();
        if times.locks.entry(name.to_owned()).or_default().insert(run) {
            times.watched.entry(run).or_default().0.push(name.to_owned());
        }
    }
    /// The run is to be woken when its child ends.
    pub fn watch_child(&self, run: RunId, child: RunId) {
        let mut times = self.times();
        if times.children.insert(child, run).is_none() {
            times.watched.entry(run).or_default().1.push(child);
        }
    }
    /// Whether somebody here waits for a lock.
    pub fn watches_lock(&self, name: &str) -> bool {
        self.times().locks.contains_key(name)
    }
    /// Whether this run waits for that lock.
    pub fn waits_for(&self, run: RunId, name: &str) -> bool {
        self.times().locks.get(name).is_some_and(|runs| runs.contains(&run))
    }
    /// Who here waits for a lock.
    pub fn waiters(&self, name: &str) -> Vec<RunId> {
        self.times().locks.get(name).map(|runs| runs.iter().copied().collect()).unwrap_or_default()
    }
    /// Every run that minds something.
    pub fn watching(&self) -> Vec<RunId> {
        self.times().watched.keys().copied().collect()
    }
    /// Who began this run and waits for it here.
    pub fn parent_of(&self, child: RunId) -> Option<RunId> {
        self.times().children.get(&child).copied()
    }
    /// The runs above that wait for a run that they began and that is none of these.
    pub fn parents_of_others(&self, open: &HashSet<RunId>) -> HashSet<RunId> {
        let times = self.times();
        times.children.iter().filter(|(child, _)| !open.contains(child)).map(|(_, parent)| *parent).collect()
    }
    /// Whether anything here would move the run.
    pub fn knows(&self, run: RunId) -> bool {
        let times = self.times();
        times.of.contains_key(&run)
            || times.queued.contains(&run)
            || times.held.contains(&run)
            || times.watched.contains_key(&run)
    }
    /// How many runs have a time.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.times().of.len()
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
    fn times_come_in_order_and_the_last_word_counts() {
        let timers = Timers::default();
        timers.at(run(1), at(30));
        timers.at(run(2), at(20));
        timers.at(run(1), at(10));
        assert_eq!(timers.due(at(5)), Due::At(at(10)));
        assert_eq!(timers.due(at(25)), Due::Run(run(1)));
        assert_eq!(timers.due(at(25)), Due::Run(run(2)));
        assert_eq!(timers.due(at(25)), Due::Never);
    }

    #[test]
    fn a_run_that_moves_has_no_time_and_minds_nothing() {
        let timers = Timers::default();
        timers.at(run(1), at(30));
        timers.watch_lock(run(1), "a");
        timers.watch_child(run(1), run(2));
        timers.hold(run(1));
        assert!(timers.watches_lock("a") && timers.parent_of(run(2)) == Some(run(1)) && timers.knows(run(1)));
        timers.forget(run(1));
        assert!(!timers.watches_lock("a") && timers.parent_of(run(2)).is_none() && !timers.knows(run(1)));
        assert!(timers.released().is_empty());
        assert_eq!(timers.due(at(99)), Due::Never);
    }

    /// The store was read before the run's task put it down for an earlier time.
    #[test]
    fn what_was_read_of_the_store_puts_nothing_off() {
        let timers = Timers::default();
        timers.at(run(1), at(10));
        timers.at(run(2), at(50));
        timers.fill(&[(at(40), run(1)), (at(40), run(2))], false);
        assert_eq!(timers.due(at(10)), Due::Run(run(1)));
        assert_eq!(timers.due(at(10)), Due::At(at(40)));
    }

    #[test]
    fn now_is_given_once_and_what_is_beyond_is_asked_for() {
        let timers = Timers::default();
        timers.now(run(1));
        timers.now(run(1));
        timers.fill(&[(at(10), run(2))], true);
        assert_eq!(timers.due(at(0)), Due::Run(run(1)));
        assert_eq!(timers.due(at(0)), Due::At(at(10)));
        assert_eq!(timers.due(at(11)), Due::Refill);
        assert_eq!(timers.due(at(11)), Due::Run(run(2)));
        assert_eq!(timers.due(at(11)), Due::Never);
    }
}

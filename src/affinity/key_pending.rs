//! Retry keys that wait to be written to the file, or are being written.
//!
//! Always true: keys are written in the order in which they were added; a key is removed once its write has ended.
//! Legacy may have served the request of a pending key, because nobody waits for a disk that hangs. Such a request
//! counts as served unnoted only until its key is written or the store has it; if the write fails, `key_unnoted` keeps
//! its time.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::oneshot;

use crate::flag::RetryKey;
use crate::slot_file::SlotRoute;

/// The keys that wait to be written, and those that are being written.
#[derive(Default)]
pub(super) struct PendingKeys {
    /// By number, in order.
    queue: BTreeMap<u64, Pending>,
    /// The number of each pending key, counted over all keys that were ever pending.
    numbers: HashMap<RetryKey, u64>,
    next: u64,
    /// How many keys at the front of the queue are being written. They stay until their write has ended.
    being_written: usize,
    /// How many of the keys that are being written the store has already.
    stored: usize,
    /// For each route: how many requests it served whose keys are pending and not in the store, and when it served the
    /// last of them.
    served: HashMap<SlotRoute, (u64, Timestamp)>,
}

struct Pending {
    key: RetryKey,
    /// When legacy took the key.
    at: Timestamp,
    /// Since when it is pending.
    since: Instant,
    /// Whether the store has the key.
    is_stored: bool,
    /// The requests that wait until the key is noted (it is written, or the store has it) or its write has failed.
    waiting: Vec<oneshot::Sender<bool>>,
    /// The routes that served the request of this key meanwhile, and when.
    served: Vec<(SlotRoute, Timestamp)>,
}

impl PendingKeys {
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    pub fn contains(&self, key: &RetryKey) -> bool {
        self.numbers.contains_key(key)
    }

    fn get(&self, key: &RetryKey) -> Option<&Pending> {
        self.queue.get(self.numbers.get(key)?)
    }

    fn get_mut(&mut self, key: &RetryKey) -> Option<&mut Pending> {
        self.queue.get_mut(self.numbers.get(key)?)
    }

    /// How many pending keys the store does not have.
    pub fn unstored_count(&self) -> usize {
        self.queue.len() - self.stored
    }

    /// When legacy took this key.
    pub fn taken_at(&self, key: &RetryKey) -> Option<Timestamp> {
        self.get(key).map(|pending| pending.at)
    }

    /// For how long the oldest key has been pending.
    pub fn oldest_for(&self) -> Duration {
        self.queue.first_key_value().map_or(Duration::ZERO, |(_, pending)| pending.since.elapsed())
    }

    /// Whether the store has this key, although it is not written yet.
    pub fn is_stored(&self, key: &RetryKey) -> bool {
        self.get(key).is_some_and(|pending| pending.is_stored)
    }

    /// Adds a key that is to be written, unless it is pending already.
    pub fn add(&mut self, key: RetryKey, at: Timestamp) {
        if !self.contains(&key) {
            self.numbers.insert(key, self.next);
            let (since, waiting, served) = (Instant::now(), Vec::new(), Vec::new());
            let pending = Pending { key, at, since, is_stored: false, waiting, served };
            self.queue.insert(self.next, pending);
            self.next += 1;
        }
    }

    /// Returns a receiver that gets `true` once a pending key is written or the store has it, and `false` if its write
    /// fails.
    pub fn wait_for(&mut self, key: &RetryKey) -> Option<oneshot::Receiver<bool>> {
        let (written, is_written) = oneshot::channel();
        self.get_mut(key)?.waiting.push(written);
        Some(is_written)
    }

    /// The first keys in order, at most `count`, each with the time at which legacy took it. They are being written
    /// from now on: [`PendingKeys::end_first`] must follow for each.
    pub fn begin_to_write(&mut self, count: usize) -> Vec<(RetryKey, Timestamp)> {
        let first: Vec<_> = self.queue.values().take(count).map(|pending| (pending.key, pending.at)).collect();
        self.being_written = first.len();
        first
    }

    /// The first keys that the store does not have, at most `count`.
    pub fn first_unstored(&self, count: usize) -> Vec<(RetryKey, Timestamp)> {
        let unstored = self.queue.values().filter(|pending| !pending.is_stored);
        unstored.take(count).map(|pending| (pending.key, pending.at)).collect()
    }

    /// Records that the store has these keys: they count as noted, and need not be written.
    pub fn set_stored(&mut self, keys: &[(RetryKey, Timestamp)]) {
        for (key, _) in keys {
            let Some(pending) = self.get_mut(key).filter(|pending| !pending.is_stored) else { continue };
            pending.is_stored = true;
            let waiting = std::mem::take(&mut pending.waiting);
            let served = std::mem::take(&mut pending.served);
            notify(waiting, true);
            self.remove_served(&served);
            self.stored += 1;
        }
        // Keys that are being written stay until their write has ended.
        let later: Vec<u64> = self.queue.keys().copied().skip(self.being_written).take(keys.len()).collect();
        for number in later {
            if let Some(pending) = self.queue.get(&number).filter(|pending| pending.is_stored) {
                self.numbers.remove(&pending.key);
                self.queue.remove(&number);
                self.stored -= 1;
            }
        }
    }

    /// Records that a route serves the request of a pending key.
    pub fn add_served(&mut self, key: &RetryKey, route: SlotRoute, at: Timestamp) {
        let Some(pending) = self.get_mut(key).filter(|pending| !pending.is_stored) else { return };
        // Retries of one request are one entry.
        let is_new = match pending.served.iter_mut().find(|(of, _)| *of == route) {
            Some((_, last)) => {
                *last = (*last).max(at);
                false
            }
            None => {
                pending.served.push((route, at));
                true
            }
        };
        let (count, last) = self.served.entry(route).or_insert((0, at));
        *count += u64::from(is_new);
        *last = (*last).max(at);
    }

    fn remove_served(&mut self, served: &[(SlotRoute, Timestamp)]) {
        for (route, _) in served {
            if let Some((count, _)) = self.served.get_mut(route) {
                *count -= 1;
                if *count == 0 {
                    self.served.remove(route);
                }
            }
        }
    }

    /// When the route last served a request whose key is pending and not in the store.
    pub fn last_served(&self, route: &SlotRoute) -> Option<Timestamp> {
        self.served.get(route).map(|(_, last)| *last)
    }

    /// Removes the first key, whose write has ended. If neither the file nor the store has it, returns the routes that
    /// served its request.
    pub fn end_first(&mut self, is_written: bool) -> Vec<(SlotRoute, Timestamp)> {
        let Some((_, Pending { key, is_stored, waiting, served, .. })) = self.queue.pop_first() else {
            return Vec::new();
        };
        self.being_written = self.being_written.saturating_sub(1);
        self.stored -= usize::from(is_stored);
        self.numbers.remove(&key);
        notify(waiting, is_written);
        self.remove_served(&served);
        match is_written || is_stored {
            true => Vec::new(),
            false => served,
        }
    }
}

fn notify(waiting: Vec<oneshot::Sender<bool>>, is_noted: bool) {
    for waiting in waiting {
        let _went_away = waiting.send(is_noted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::names::RouteId;

    #[test]
    fn what_a_route_served_meanwhile_is_known_until_the_key_is_written_or_stored() {
        let (mut pending, now) = (PendingKeys::default(), clock::now());
        let [written, stored, failed] = [1, 2, 3].map(|n| RetryKey([n; 32]));
        let route = SlotRoute::of(&RouteId::new("orders.create"));
        for key in [written, stored, failed] {
            pending.add(key, now);
            pending.add_served(&key, route, now);
        }
        pending.add_served(&failed, route, now); // its retry
        pending.begin_to_write(2);
        assert_eq!(pending.end_first(true), []);
        assert_eq!(pending.last_served(&route), Some(now));
        let mut notified = pending.wait_for(&stored).unwrap();
        pending.set_stored(&[(stored, now)]);
        assert_eq!(notified.try_recv(), Ok(true));
        assert_eq!((pending.first_unstored(9), pending.unstored_count()), (vec![(failed, now)], 1));
        assert_eq!(pending.end_first(false), [], "the store has it");
        assert_eq!(pending.last_served(&route), Some(now));
        assert_eq!(pending.end_first(false), [(route, now)], "nobody has it");
        assert_eq!((pending.last_served(&route), pending.len()), (None, 0));
    }

    /// A long hang does not fill the ring with keys that the store has.
    #[test]
    fn a_key_that_the_store_has_is_pending_only_while_it_is_being_written() {
        let (mut pending, now) = (PendingKeys::default(), clock::now());
        let keys: Vec<_> = (0..100).map(|n| (RetryKey([n; 32]), now)).collect();
        keys.iter().for_each(|(key, at)| pending.add(*key, *at));
        assert_eq!(pending.begin_to_write(10).len(), 10);
        pending.set_stored(&keys[..50]);
        pending.set_stored(&keys[50..]);
        assert_eq!((pending.len(), pending.unstored_count()), (10, 0));
        assert!(pending.contains(&keys[9].0) && !pending.contains(&keys[10].0));
        pending.add(keys[10].0, now);
        (0..10).for_each(|_| drop(pending.end_first(true)));
        assert_eq!((pending.begin_to_write(9), pending.unstored_count()), (vec![keys[10]], 1));
    }
}

//! Retry keys that are being written to the file.
//!
//! Always true: they are written in the order in which they came; a key is removed once its write has ended. Legacy may
//! have served the request of a pending key, because nobody waits for a disk that hangs: that is known here for as long
//! as the key is pending, and no longer if it is written in the end.

use std::collections::{HashMap, VecDeque};

use jiff::Timestamp;
use tokio::sync::oneshot;

use crate::flag::RetryKey;
use crate::slot_file::SlotRoute;

/// See the module.
#[derive(Default)]
pub(super) struct PendingKeys {
    /// In order; the first of them may be in the middle of being written.
    queue: VecDeque<Pending>,
    /// The place of each key in the order of all keys that were ever pending.
    places: HashMap<RetryKey, u64>,
    /// How many keys were pending and are not any more: the place of the first pending one.
    done: u64,
    /// The routes that served requests of pending keys: how many, and when the last one.
    served: HashMap<SlotRoute, (u64, Timestamp)>,
}

struct Pending {
    key: RetryKey,
    at: Timestamp,
    /// Whether the store has it.
    is_stored: bool,
    /// Who waits until it is written, or the write has failed.
    waiting: Vec<oneshot::Sender<bool>>,
    /// The routes that served its request meanwhile, and when.
    served: Vec<(SlotRoute, Timestamp)>,
}

impl PendingKeys {
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    pub fn contains(&self, key: &RetryKey) -> bool {
        self.places.contains_key(key)
    }

    fn index(&self, key: &RetryKey) -> Option<usize> {
        usize::try_from(self.places.get(key)? - self.done).ok()
    }

    fn get(&self, key: &RetryKey) -> Option<&Pending> {
        self.queue.get(self.index(key)?)
    }

    fn get_mut(&mut self, key: &RetryKey) -> Option<&mut Pending> {
        let index = self.index(key)?;
        self.queue.get_mut(index)
    }

    /// How many of them the store does not have.
    pub fn unstored_count(&self) -> usize {
        self.queue.iter().filter(|pending| !pending.is_stored).count()
    }

    /// When legacy took this key.
    pub fn taken_at(&self, key: &RetryKey) -> Option<Timestamp> {
        self.get(key).map(|pending| pending.at)
    }

    /// Whether the store has this key, although it is not written yet.
    pub fn is_stored(&self, key: &RetryKey) -> bool {
        self.get(key).is_some_and(|pending| pending.is_stored)
    }

    /// Adds a key that is to be written, unless it is pending already.
    pub fn add(&mut self, key: RetryKey, at: Timestamp) {
        if !self.contains(&key) {
            self.places.insert(key, self.done + self.queue.len() as u64);
            self.queue.push_back(Pending { key, at, is_stored: false, waiting: Vec::new(), served: Vec::new() });
        }
    }

    /// What tells when a pending key is written, and whether that succeeded.
    pub fn wait_for(&mut self, key: &RetryKey) -> Option<oneshot::Receiver<bool>> {
        let (written, is_written) = oneshot::channel();
        self.get_mut(key)?.waiting.push(written);
        Some(is_written)
    }

    /// The first of them.
    pub fn first(&self, count: usize) -> Vec<(RetryKey, Timestamp)> {
        self.queue.iter().take(count).map(|pending| (pending.key, pending.at)).collect()
    }

    /// The first of those that the store does not have.
    pub fn first_unstored(&self, count: usize) -> Vec<(RetryKey, Timestamp)> {
        let unstored = self.queue.iter().filter(|pending| !pending.is_stored);
        unstored.take(count).map(|pending| (pending.key, pending.at)).collect()
    }

    /// Records that the store has these keys: they count as noted.
    pub fn set_stored(&mut self, keys: &[(RetryKey, Timestamp)]) {
        for (key, _) in keys {
            let Some(pending) = self.get_mut(key) else { continue };
            pending.is_stored = true;
            let waiting = std::mem::take(&mut pending.waiting);
            let served = std::mem::take(&mut pending.served);
            tell(waiting, true);
            self.forget_served(&served);
        }
    }

    /// Records that a route serves the request of a pending key.
    pub fn add_served(&mut self, key: &RetryKey, route: SlotRoute, at: Timestamp) {
        let Some(pending) = self.get_mut(key).filter(|pending| !pending.is_stored) else { return };
        pending.served.push((route, at));
        let (count, last) = self.served.entry(route).or_insert((0, at));
        *count += 1;
        *last = (*last).max(at);
    }

    fn forget_served(&mut self, served: &[(SlotRoute, Timestamp)]) {
        for (route, _) in served {
            if let Some((count, _)) = self.served.get_mut(route) {
                *count -= 1;
                if *count == 0 {
                    self.served.remove(route);
                }
            }
        }
    }

    /// When the route last served a request whose key is pending.
    pub fn last_served(&self, route: &SlotRoute) -> Option<Timestamp> {
        self.served.get(route).map(|(_, last)| *last)
    }

    /// Removes the first key, whose write has ended. Returns the routes that served its request if it is not known now.
    pub fn end_first(&mut self, is_written: bool) -> Vec<(SlotRoute, Timestamp)> {
        let Some(Pending { key, is_stored, waiting, served, .. }) = self.queue.pop_front() else { return Vec::new() };
        self.done += 1;
        self.places.remove(&key);
        tell(waiting, is_written);
        self.forget_served(&served);
        match is_written || is_stored {
            true => Vec::new(),
            false => served,
        }
    }
}

fn tell(waiting: Vec<oneshot::Sender<bool>>, is_noted: bool) {
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
        assert_eq!(pending.end_first(true), []);
        assert_eq!(pending.last_served(&route), Some(now));
        let mut told = pending.wait_for(&stored).unwrap();
        pending.set_stored(&[(stored, now)]);
        assert_eq!(told.try_recv(), Ok(true));
        assert_eq!(pending.first_unstored(9), [(failed, now)]);
        assert_eq!(pending.end_first(false), [], "the store has it");
        assert_eq!(pending.last_served(&route), Some(now));
        assert_eq!(pending.end_first(false), [(route, now)], "nobody has it");
        assert_eq!((pending.last_served(&route), pending.len()), (None, 0));
    }
}

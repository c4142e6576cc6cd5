//! The first tries of retry keys, also in the order of their times.

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;

use jiff::Timestamp;

use crate::flag::RetryKey;
use crate::store::{RetryKeyPosition, StoredFirstTry};

#[derive(Default)]
pub(super) struct RetryKeyTable {
    first_tries: HashMap<RetryKey, StoredFirstTry>,
    by_age: BTreeSet<RetryKeyPosition>,
}

impl RetryKeyTable {
    pub(super) fn get(&self, key: &RetryKey) -> Option<&StoredFirstTry> {
        self.first_tries.get(key)
    }

    /// Replaces the first try of this key.
    pub(super) fn insert(&mut self, key: RetryKey, first: StoredFirstTry) {
        self.remove(&key);
        self.by_age.insert(RetryKeyPosition { at: first.at, key });
        self.first_tries.insert(key, first);
    }

    pub(super) fn remove(&mut self, key: &RetryKey) {
        if let Some(first) = self.first_tries.remove(key) {
            self.by_age.remove(&RetryKeyPosition { at: first.at, key: *key });
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&RetryKey, &StoredFirstTry)> {
        self.first_tries.iter()
    }

    /// At most `limit` keys after a position, of those whose first try was at `until` or earlier.
    pub(super) fn old(
        &self,
        until: Timestamp,
        after: Option<RetryKeyPosition>,
        limit: usize,
    ) -> impl Iterator<Item = (RetryKeyPosition, &StoredFirstTry)> {
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let old = self.by_age.range((after, Bound::Unbounded)).take_while(move |position| position.at <= until);
        old.take(limit).filter_map(|position| Some((*position, self.first_tries.get(&position.key)?)))
    }

    /// The positions after `after` of keys that runs claimed at `since` or later, oldest first.
    pub(super) fn claimed_since(
        &self,
        since: Timestamp,
        after: Option<RetryKeyPosition>,
    ) -> impl Iterator<Item = RetryKeyPosition> {
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let is_claimed = |key| self.first_tries.get(key).is_some_and(|first: &StoredFirstTry| first.run.is_some());
        let later = self.by_age.range((after, Bound::Unbounded)).filter(move |position| position.at >= since);
        later.filter(move |position| is_claimed(&position.key)).copied()
    }
}

//! Adds up what several processes count.
//!
//! Each process counts on top of what the store last had. Always true: `store.add_change(before, after)` adds to what
//! the store has now what one process has counted between `before` and `after`, so that it does not matter in which
//! order processes add what they counted. A value that is not a sum is combined by one of the functions of this module,
//! such as [`newest`] or [`union`].

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

/// A value that several processes change at the same time.
pub(super) trait AddChange {
    /// Adds what changed from `before` to `after`.
    fn add_change(&mut self, before: &Self, after: &Self);
}

/// Implements [`AddChange`] for a struct. Before each field stands the function of this module that combines it:
/// `add_change!(StrataBy { kept key, union values })`.
macro_rules! add_change {
    ($name:ident { $($how:ident $field:ident),+ $(,)? }) => {
        impl $crate::evidence::add_change::AddChange for $name {
            fn add_change(&mut self, before: &Self, after: &Self) {
                let Self { $($field),+ } = self;
                $($crate::evidence::add_change::$how($field, &before.$field, &after.$field);)+
            }
        }
    };
}
pub(super) use add_change;

/// For a sum, or a value that consists of sums: adds what changed.
pub(super) fn sum<T: AddChange>(own: &mut T, before: &T, after: &T) {
    own.add_change(before, after);
}

/// For a value that changes only together with the files (see [`super::shared_counters`]): does nothing.
pub(super) fn kept<T>(_own: &mut T, _before: &T, _after: &T) {}

/// Keeps the last change.
pub(super) fn replaced<T: Clone + PartialEq>(own: &mut T, before: &T, after: &T) {
    if before != after {
        own.clone_from(after);
    }
}

/// Keeps the newest value of all processes.
pub(super) fn newest<T: Clone + Ord>(own: &mut T, before: &T, after: &T) {
    if before != after {
        *own = after.clone().max(own.clone());
    }
}

/// Keeps the oldest time of all processes. A time that this process did not change is not looked at: another process
/// may have started from zero since.
pub(super) fn oldest(own: &mut Option<Timestamp>, before: &Option<Timestamp>, after: &Option<Timestamp>) {
    if before != after {
        *own = own.iter().chain(after).min().copied();
    }
}

/// As [`newest`], for each key.
pub(super) fn newest_by_key<K: Clone + Ord, V: Clone + Ord>(
    own: &mut BTreeMap<K, V>,
    before: &BTreeMap<K, V>,
    after: &BTreeMap<K, V>,
) {
    for (key, value) in after.iter().filter(|(key, value)| before.get(*key) != Some(*value)) {
        let own = own.entry(key.clone()).or_insert_with(|| value.clone());
        *own = value.clone().max(own.clone());
    }
}

/// Keeps each element that any process has.
pub(super) fn union<T: Clone + Ord>(own: &mut BTreeSet<T>, _before: &BTreeSet<T>, after: &BTreeSet<T>) {
    own.extend(after.iter().cloned());
}

/// Keeps the first value that a process has found.
pub(super) fn first<T: Clone>(own: &mut Option<T>, _before: &Option<T>, after: &Option<T>) {
    if own.is_none() {
        own.clone_from(after);
    }
}

impl AddChange for u64 {
    fn add_change(&mut self, before: &Self, after: &Self) {
        *self = self.saturating_add(*after).saturating_sub(*before);
    }
}

impl AddChange for u32 {
    fn add_change(&mut self, before: &Self, after: &Self) {
        *self = self.saturating_add(*after).saturating_sub(*before);
    }
}

/// Buckets of a histogram.
impl AddChange for Vec<u64> {
    fn add_change(&mut self, before: &Self, after: &Self) {
        let len = self.len().max(before.len()).max(after.len());
        self.resize(len, 0);
        for (n, own) in self.iter_mut().enumerate() {
            let bucket_of = |counts: &Self| counts.get(n).copied().unwrap_or(0);
            own.add_change(&bucket_of(before), &bucket_of(after));
        }
        // A stored histogram ends with its last bucket that is not empty.
        let used = self.iter().rposition(|count| *count > 0).map_or(0, |last| last + 1);
        self.truncate(used);
    }
}

impl<K: Clone + Ord, V: AddChange + Clone + Default + PartialEq> AddChange for BTreeMap<K, V> {
    fn add_change(&mut self, before: &Self, after: &Self) {
        let none = V::default();
        for (key, value) in after {
            match before.get(key) {
                Some(before) if before == value => {}
                before => self.entry(key.clone()).or_default().add_change(before.unwrap_or(&none), value),
            }
        }
        for (key, value) in before.iter().filter(|(key, _)| !after.contains_key(*key)) {
            let Some(own) = self.get_mut(key) else { continue };
            own.add_change(value, &none);
            if *own == none {
                self.remove(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_processes_count_adds_up_in_either_order() {
        let map = |counts: &[(&str, u64)]| -> BTreeMap<String, u64> {
            counts.iter().map(|(key, count)| ((*key).to_owned(), *count)).collect()
        };
        let before = map(&[("a", 5), ("gone", 2), ("b", 1)]);
        let (one, two) = (map(&[("a", 7), ("b", 1), ("one", 4)]), map(&[("a", 5), ("b", 4), ("gone", 3)]));
        for (first, second) in [(&one, &two), (&two, &one)] {
            let mut store = before.clone();
            store.add_change(&before, first);
            store.add_change(&before, second);
            assert_eq!(store, map(&[("a", 7), ("b", 4), ("gone", 1), ("one", 4)]));
        }
    }

    #[test]
    fn histograms_add_up_and_end_with_their_last_count() {
        let mut store = vec![1, 0, 3];
        store.add_change(&vec![1], &vec![1, 2, 0, 0, 5]);
        assert_eq!(store, [1, 2, 3, 0, 5]);
        store.add_change(&vec![0, 0, 3, 0, 5], &vec![]);
        assert_eq!(store, [1, 2]);
    }
}

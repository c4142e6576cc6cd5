//! Compact sets without false negatives: their answer is "certainly not in the set" or "perhaps".
//!
//! Always true: an inserted entry is found for as long as its slice is kept. Each table also finds about one in several
//! thousand entries that were not inserted (a false positive), so a set of many tables has more of them. An entry takes
//! about two bytes. A set never grows beyond its bound: where an entry has no room, the set is *saturated*, answers
//! "perhaps" for everything, and `insert` says so.
//!
//! Each table is a cuckoo filter (Fan et al., 2014): 16 bits of an entry's hash, its fingerprint, are stored in one of
//! two buckets of four slots, and are moved to the other bucket to make room.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Slots of a bucket.
const BUCKET_SLOTS: usize = 4;
/// Slots of the first table, of the second, and of all further ones.
const TABLE_SLOTS: [usize; 3] = [1 << 12, 1 << 16, 1 << 19];
/// A table counts as full when this share of its slots is taken.
const LOAD_PERCENT: usize = 92;
/// A table also counts as full when an insertion has moved this many fingerprints and found no free slot.
const MOVES_MAX: usize = 500;
/// Slices of a window.
const SLICES: u32 = 24;

/// One cuckoo filter.
struct Table {
    buckets: Vec<[u16; BUCKET_SLOTS]>,
    entries: usize,
    /// A fingerprint for which the last insertion found no free slot, with one of its buckets. The table is full then.
    without_slot: Option<(usize, u16)>,
}

impl Table {
    fn new(slots: usize) -> Self {
        Self { buckets: vec![[0; BUCKET_SLOTS]; slots / BUCKET_SLOTS], entries: 0, without_slot: None }
    }

    /// The fingerprint of an entry, and its first bucket. A fingerprint is never 0, because 0 marks an empty slot.
    fn fingerprint_and_bucket(&self, hash: u64) -> (u16, usize) {
        let fingerprint = u16::try_from(hash >> 48).unwrap_or(0).max(1);
        (fingerprint, (hash as usize) & (self.buckets.len() - 1))
    }

    /// Computes either bucket of a fingerprint from the other one.
    fn other_bucket(&self, fingerprint: u16, bucket: usize) -> usize {
        // An odd multiplier spreads similar fingerprints; the number of buckets is a power of two.
        (bucket ^ (usize::from(fingerprint).wrapping_mul(0x5bd1_e995))) & (self.buckets.len() - 1)
    }

    fn contains(&self, hash: u64) -> bool {
        let (fingerprint, first) = self.fingerprint_and_bucket(hash);
        let second = self.other_bucket(fingerprint, first);
        self.buckets[first].contains(&fingerprint)
            || self.buckets[second].contains(&fingerprint)
            || self
                .without_slot
                .is_some_and(|(bucket, held)| held == fingerprint && (bucket == first || bucket == second))
    }

    fn is_full(&self) -> bool {
        self.without_slot.is_some() || self.entries >= self.buckets.len() * BUCKET_SLOTS * LOAD_PERCENT / 100
    }

    /// Inserts into a table that is not full.
    fn insert(&mut self, hash: u64) {
        let (mut fingerprint, first) = self.fingerprint_and_bucket(hash);
        self.entries += 1;
        let mut bucket = self.other_bucket(fingerprint, first);
        if self.put(first, fingerprint) || self.put(bucket, fingerprint) {
            return;
        }
        let mut random = hash | 1;
        for _ in 0..MOVES_MAX {
            // Takes a random slot of the bucket. The fingerprint that was in it moves to its other bucket.
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            std::mem::swap(&mut self.buckets[bucket][random as usize % BUCKET_SLOTS], &mut fingerprint);
            bucket = self.other_bucket(fingerprint, bucket);
            if self.put(bucket, fingerprint) {
                return;
            }
        }
        self.without_slot = Some((bucket, fingerprint));
    }

    /// Puts a fingerprint into a free slot of a bucket; `false` if there is none.
    fn put(&mut self, bucket: usize, fingerprint: u16) -> bool {
        let free = self.buckets[bucket].iter_mut().find(|slot| **slot == 0);
        free.map(|slot| *slot = fingerprint).is_some()
    }

    fn bytes(&self) -> usize {
        self.buckets.len() * size_of::<[u16; BUCKET_SLOTS]>()
    }
}

/// A set that grows by further tables.
#[derive(Default)]
pub(super) struct Filter {
    tables: Vec<Table>,
}

impl Filter {
    pub(super) fn contains(&self, hash: u64) -> bool {
        self.tables.iter().any(|table| table.contains(hash))
    }

    /// The bytes of the table that the next insertion adds; 0 if the last table has room.
    fn next_table_bytes(&self) -> usize {
        match self.tables.last() {
            Some(last) if !last.is_full() => 0,
            _ => TABLE_SLOTS[self.tables.len().min(TABLE_SLOTS.len() - 1)] * size_of::<u16>(),
        }
    }

    /// Inserts, unless the set would grow by more than `more_bytes_max`. Returns whether the entry is in the set now.
    fn insert(&mut self, hash: u64, more_bytes_max: usize) -> bool {
        if self.contains(hash) {
            return true;
        }
        let table_bytes = self.next_table_bytes();
        if table_bytes > more_bytes_max {
            return false;
        }
        if table_bytes > 0 {
            self.tables.push(Table::new(table_bytes / size_of::<u16>()));
        }
        if let Some(last) = self.tables.last_mut() {
            last.insert(hash);
        }
        true
    }

    fn bytes(&self) -> usize {
        self.tables.iter().map(Table::bytes).sum()
    }

    fn entries(&self) -> usize {
        self.tables.iter().map(|table| table.entries).sum()
    }
}

/// How large a set is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Size {
    pub bytes: usize,
    pub entries: usize,
}

/// A set whose entries stay for ever, within a bound.
pub(super) struct LastingSet {
    filter: Filter,
    bytes_max: usize,
    saturated: bool,
}

impl LastingSet {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { filter: Filter::default(), bytes_max, saturated: false }
    }

    pub(super) fn may_contain(&self, hash: u64) -> bool {
        self.saturated || self.filter.contains(hash)
    }

    /// Returns `false` if the entry had no room: the set is saturated then.
    pub(super) fn insert(&mut self, hash: u64) -> bool {
        if !self.saturated {
            self.saturated = !self.filter.insert(hash, self.bytes_max.saturating_sub(self.filter.bytes()));
        }
        !self.saturated
    }

    pub(super) fn size(&self) -> Size {
        Size { bytes: self.filter.bytes(), entries: self.filter.entries() }
    }
}

/// A set whose entries are kept for a window. They are in slices by time; a slice is removed as a whole when its last
/// entry has expired.
pub(super) struct WindowSet {
    /// The slices with their numbers, the oldest first.
    slices: VecDeque<(u64, Filter)>,
    bytes: usize,
    bytes_max: usize,
    slice: Duration,
    created: Instant,
    /// The age of slice 0 when this set was created: more than the window, because the first entries may be that old.
    slice_0_age: Duration,
    /// The newest slice that had no room for an entry. Until it has expired the answer is always "perhaps".
    saturated: Option<u64>,
}

impl WindowSet {
    pub(super) fn new(window: Duration, bytes_max: usize, now: Instant) -> Self {
        let slice = (window / SLICES).max(Duration::from_secs(1));
        let slices_kept = window.as_nanos().div_ceil(slice.as_nanos());
        let slice_0_age = slice.saturating_mul(u32::try_from(slices_kept).unwrap_or(u32::MAX).saturating_add(1));
        Self { slices: VecDeque::new(), bytes: 0, bytes_max, slice, created: now, slice_0_age, saturated: None }
    }

    /// The number of the slice for an entry whose window began `ago`.
    fn number(&self, now: Instant, ago: Duration) -> u64 {
        let age_of_slice_0 = self.slice_0_age.saturating_add(now.saturating_duration_since(self.created));
        u64::try_from(age_of_slice_0.saturating_sub(ago).as_nanos() / self.slice.as_nanos()).unwrap_or(u64::MAX)
    }

    /// The number of the oldest slice that may have an entry whose window was not over at `kept_from`.
    fn oldest(&self, kept_from: Instant) -> u64 {
        self.number(kept_from, Duration::ZERO).saturating_sub(u64::from(SLICES) + 1)
    }

    /// Whether an entry may be in the set. An entry whose window was over at `kept_from` counts as removed.
    pub(super) fn may_contain(&self, hash: u64, kept_from: Instant) -> bool {
        let oldest = self.oldest(kept_from);
        if self.saturated.is_some_and(|slice| slice >= oldest) {
            return true;
        }
        // The newest first, because most retries come soon.
        self.slices.iter().rev().take_while(|(number, _)| *number >= oldest).any(|(_, filter)| filter.contains(hash))
    }

    /// Inserts an entry whose window began `ago`. Removes slices of which every window was over at `kept_from`.
    /// Returns `false` if the entry had no room: the set is saturated then until the entry's slice has expired.
    pub(super) fn insert(&mut self, hash: u64, now: Instant, ago: Duration, kept_from: Instant) -> bool {
        let oldest = self.oldest(kept_from);
        while self.slices.front().is_some_and(|(number, _)| *number < oldest) {
            let removed = self.slices.pop_front();
            self.bytes -= removed.map_or(0, |(_, filter)| filter.bytes());
        }
        let number = self.number(now, ago);
        if number < oldest {
            return true; // it has expired already
        }
        let at = match self.slices.binary_search_by_key(&number, |(number, _)| *number) {
            Ok(at) => at,
            Err(at) => {
                self.slices.insert(at, (number, Filter::default()));
                at
            }
        };
        let filter = &mut self.slices[at].1;
        let before = filter.bytes();
        let fits = filter.insert(hash, self.bytes_max.saturating_sub(self.bytes));
        self.bytes += filter.bytes() - before;
        if !fits {
            self.saturated = self.saturated.max(Some(number));
        }
        fits
    }

    pub(super) fn size(&self) -> Size {
        Size { bytes: self.bytes, entries: self.slices.iter().map(|(_, filter)| filter.entries()).sum() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hash(n: u64) -> u64 {
        let hash = blake3::hash(&n.to_le_bytes());
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&hash.as_bytes()[..8]);
        u64::from_le_bytes(bytes)
    }

    const HOUR: Duration = Duration::from_secs(3_600);

    proptest! {
        /// Some of the hashes are similar to each other.
        #[test]
        fn an_entry_is_found_until_its_window_is_over(
            entries in prop::collection::vec((any::<u16>(), 0_u64..40, 0_u64..30, any::<bool>()), 1..3_000),
            bytes_max in prop::sample::select(vec![8_192_usize, 200_000, 1 << 30]),
        ) {
            let (window, begin) = (24 * HOUR, Instant::now());
            let mut set = WindowSet::new(window, bytes_max, begin);
            let mut lasting = LastingSet::new(bytes_max);
            let mut clock = begin;
            let mut inserted: Vec<(u64, Instant)> = Vec::new();
            for (n, minutes, hours_ago, is_even) in entries {
                clock += Duration::from_secs(minutes * 60);
                let hash = if is_even { hash(n.into()) } else { u64::from(n) << 40 };
                let ago = u32::try_from(hours_ago).unwrap() * HOUR;
                set.insert(hash, clock, ago, clock);
                lasting.insert(hash);
                inserted.push((hash, clock + window.saturating_sub(ago)));
                prop_assert!(set.size().bytes <= bytes_max && lasting.size().bytes <= bytes_max);
            }
            for (hash, until) in inserted {
                prop_assert!(until <= clock || set.may_contain(hash, clock));
                prop_assert!(lasting.may_contain(hash));
            }
        }
    }

    #[test]
    fn ten_million_keys_take_less_than_forty_megabytes() {
        // Each request is of an unverified caller and is inserted under two keys that share the first half.
        let (window, begin) = (24 * HOUR, Instant::now());
        const KEYS: u64 = 10_000_000;
        // The keys are spread over a day: in some hours twice as many as in others.
        let mut set = WindowSet::new(window, 64 << 20, begin);
        let mut state = 7_u64;
        let mut draw = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state ^ (state >> 29)
        };
        for n in 0..KEYS {
            let at = begin + Duration::from_secs(n * 86_400 / KEYS);
            let ago = if n % 3 < 2 || (n / 400_000) % 2 == 0 { Duration::ZERO } else { HOUR };
            let first_half = draw();
            assert!(set.insert(first_half, at, ago, at));
            // The second key, for every eighth request only, because this takes long.
            assert!(n % 8 > 0 || set.insert(first_half, at, ago, at));
        }
        let size = set.size();
        assert!((KEYS * 99 / 100..=KEYS).contains(&(size.entries as u64)), "{size:?}");
        assert!(size.bytes < 40_000_000, "{size:?}");
        let now = begin + 24 * HOUR;
        let false_positives = (0..100_000).filter(|_| set.may_contain(draw(), now)).count();
        assert!(false_positives < 3_000, "{false_positives} of 100,000 others are found");
        let mut lasting = LastingSet::new(64 << 20);
        for _ in 0..1_000_000 {
            assert!(lasting.insert(draw()));
        }
        assert!(lasting.size().bytes < 4_000_000, "{:?}", lasting.size());
        let false_positives = (0..100_000).filter(|_| lasting.may_contain(draw())).count();
        assert!(false_positives < 200, "{false_positives} of 100,000 others are found");
    }

    #[test]
    fn a_slice_is_removed_when_its_window_is_over() {
        let begin = Instant::now();
        let mut set = WindowSet::new(24 * HOUR, 1 << 20, begin);
        for n in 0..1_000 {
            set.insert(hash(n), begin, Duration::ZERO, begin);
        }
        let later = begin + 27 * HOUR;
        assert!((0..1_000).filter(|n| set.may_contain(hash(*n), later)).count() < 3);
        set.insert(hash(5_000), later, Duration::ZERO, later);
        assert_eq!(set.size().entries, 1, "the memory of the expired slice is free");
    }

    #[test]
    fn a_saturated_set_finds_everything_until_the_slice_has_expired() {
        let begin = Instant::now();
        let mut set = WindowSet::new(24 * HOUR, 8_192, begin);
        let fit = (0..10_000).filter(|n| set.insert(hash(*n), begin, Duration::ZERO, begin)).count();
        assert!((3_000..4_096).contains(&fit), "{fit}");
        assert!(set.may_contain(hash(77_777), begin + 23 * HOUR));
        assert!(!set.may_contain(hash(77_777), begin + 27 * HOUR));
        let mut lasting = LastingSet::new(1_000);
        assert!(!lasting.insert(hash(1)) && lasting.may_contain(hash(2)));
    }
}

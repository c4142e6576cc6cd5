//! Compact sets without false negatives: "certainly not in it, or perhaps".
//!
//! Always true: what was inserted is found, for as long as its slice is kept; what was not inserted is found once in
//! several thousand looks. An entry takes about two bytes. A set never grows beyond its bound: one that would is
//! *saturated*, finds everything, and says so.
//!
//! Each table is a cuckoo filter (Fan et al., 2014): 16 bits of an entry's hash stand in one of two buckets of four, and
//! move to the other one where there is no room.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

const BUCKET: usize = 4;
/// Entries of the first table, of the second, and of all further ones.
const TABLE_SLOTS: [usize; 3] = [1 << 12, 1 << 16, 1 << 19];
/// A table takes so many percent of its slots.
const LOAD_PERCENT: usize = 92;
/// Moves until a table counts as full.
const MOVES_MAX: usize = 500;
/// Slices of a window.
const SLICES: u32 = 24;

/// One cuckoo filter.
struct Table {
    buckets: Vec<[u16; BUCKET]>,
    entries: usize,
    /// The entry that found no room in the last insertion: the table is full then.
    homeless: Option<(usize, u16)>,
}

impl Table {
    fn new(slots: usize) -> Self {
        Self { buckets: vec![[0; BUCKET]; slots / BUCKET], entries: 0, homeless: None }
    }

    /// The mark of an entry, and its first bucket. No mark is 0, which is an empty slot.
    fn places(&self, hash: u64) -> (u16, usize) {
        let mark = u16::try_from(hash >> 48).unwrap_or(0).max(1);
        (mark, (hash as usize) & (self.buckets.len() - 1))
    }

    /// The other bucket of a mark, from either of the two.
    fn other(&self, mark: u16, bucket: usize) -> usize {
        // An odd multiplier spreads neighbouring marks; the number of buckets is a power of two.
        (bucket ^ (usize::from(mark).wrapping_mul(0x5bd1_e995))) & (self.buckets.len() - 1)
    }

    fn contains(&self, hash: u64) -> bool {
        let (mark, first) = self.places(hash);
        let second = self.other(mark, first);
        self.buckets[first].contains(&mark)
            || self.buckets[second].contains(&mark)
            || self.homeless.is_some_and(|(bucket, held)| held == mark && (bucket == first || bucket == second))
    }

    fn is_full(&self) -> bool {
        self.homeless.is_some() || self.entries >= self.buckets.len() * BUCKET * LOAD_PERCENT / 100
    }

    /// Inserts into a table that is not full.
    fn insert(&mut self, hash: u64) {
        let (mut mark, first) = self.places(hash);
        self.entries += 1;
        let mut bucket = self.other(mark, first);
        if self.put(first, mark) || self.put(bucket, mark) {
            return;
        }
        let mut lot = hash | 1;
        for _ in 0..MOVES_MAX {
            // Somebody makes room and goes to its other bucket.
            lot ^= lot << 13;
            lot ^= lot >> 7;
            lot ^= lot << 17;
            std::mem::swap(&mut self.buckets[bucket][lot as usize % BUCKET], &mut mark);
            bucket = self.other(mark, bucket);
            if self.put(bucket, mark) {
                return;
            }
        }
        self.homeless = Some((bucket, mark));
    }

    /// Puts a mark into a bucket, where it has room.
    fn put(&mut self, bucket: usize, mark: u16) -> bool {
        let free = self.buckets[bucket].iter_mut().find(|slot| **slot == 0);
        free.map(|slot| *slot = mark).is_some()
    }

    fn bytes(&self) -> usize {
        self.buckets.len() * size_of::<[u16; BUCKET]>()
    }
}

/// A set that grows.
#[derive(Default)]
pub(super) struct Filter {
    tables: Vec<Table>,
}

impl Filter {
    pub(super) fn contains(&self, hash: u64) -> bool {
        self.tables.iter().any(|table| table.contains(hash))
    }

    /// The bytes that another table would take, where an insertion needs one.
    fn wants(&self) -> usize {
        match self.tables.last() {
            Some(last) if !last.is_full() => 0,
            _ => TABLE_SLOTS[self.tables.len().min(TABLE_SLOTS.len() - 1)] * size_of::<u16>(),
        }
    }

    /// Inserts, unless that would take more than so many bytes more. Whether it is in the set now.
    fn insert(&mut self, hash: u64, more_bytes_max: usize) -> bool {
        if self.contains(hash) {
            return true;
        }
        let wants = self.wants();
        if wants > more_bytes_max {
            return false;
        }
        if wants > 0 {
            self.tables.push(Table::new(wants / size_of::<u16>()));
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

    /// Whether it had room, or has it already.
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

/// A set whose entries stay for a window: in slices, of which each goes as a whole when its last entry has run out.
pub(super) struct WindowSet {
    /// Each with the number of its slice, the oldest first.
    slices: VecDeque<(u64, Filter)>,
    bytes: usize,
    bytes_max: usize,
    slice: Duration,
    /// The instant at which slice 0 began: a window before this set was made.
    origin_to_now: (Instant, Duration),
    /// Up to this slice everything is found, since something of it had no room.
    saturated: Option<u64>,
}

impl WindowSet {
    pub(super) fn new(window: Duration, bytes_max: usize, now: Instant) -> Self {
        let slice = (window / SLICES).max(Duration::from_secs(1));
        let slices_kept = window.as_nanos().div_ceil(slice.as_nanos());
        let before = slice.saturating_mul(u32::try_from(slices_kept).unwrap_or(u32::MAX).saturating_add(1));
        Self { slices: VecDeque::new(), bytes: 0, bytes_max, slice, origin_to_now: (now, before), saturated: None }
    }

    /// The slice of what was inserted so long ago.
    fn number(&self, now: Instant, ago: Duration) -> u64 {
        let (made, before) = self.origin_to_now;
        let since_origin = before.saturating_add(now.saturating_duration_since(made)).saturating_sub(ago);
        u64::try_from(since_origin.as_nanos() / self.slice.as_nanos()).unwrap_or(u64::MAX)
    }

    /// The oldest slice in which something may not have run out.
    fn oldest(&self, now: Instant) -> u64 {
        self.number(now, Duration::ZERO).saturating_sub(u64::from(SLICES) + 1)
    }

    pub(super) fn may_contain(&self, hash: u64, now: Instant) -> bool {
        let oldest = self.oldest(now);
        if self.saturated.is_some_and(|until| until >= oldest) {
            return true;
        }
        // The newest first: most retries come soon.
        self.slices.iter().rev().take_while(|(number, _)| *number >= oldest).any(|(_, filter)| filter.contains(hash))
    }

    /// Whether it had room, or has it already.
    pub(super) fn insert(&mut self, hash: u64, now: Instant, ago: Duration) -> bool {
        let oldest = self.oldest(now);
        while self.slices.front().is_some_and(|(number, _)| *number < oldest) {
            let gone = self.slices.pop_front();
            self.bytes -= gone.map_or(0, |(_, filter)| filter.bytes());
        }
        let number = self.number(now, ago);
        if number < oldest {
            return true; // it has run out already
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
        /// Whatever is inserted whenever is found until its window is over, also where hashes are far from even.
        #[test]
        fn nothing_inserted_is_missed(
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
                set.insert(hash, clock, ago);
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
        // Each is that of a request of an unverified caller, which is inserted under two keys that share the first half.
        let (window, begin) = (24 * HOUR, Instant::now());
        const KEYS: u64 = 10_000_000;
        // As they come over a day, and twice as many in some hours as in others.
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
            assert!(set.insert(first_half, at, ago));
            // For some of them, since this takes its time.
            assert!(n % 8 > 0 || set.insert(first_half, at, ago));
        }
        let size = set.size();
        assert!((KEYS * 99 / 100..=KEYS).contains(&(size.entries as u64)), "{size:?}");
        assert!(size.bytes < 40_000_000, "{size:?}");
        let now = begin + 24 * HOUR;
        let wrong = (0..100_000).filter(|_| set.may_contain(draw(), now)).count();
        assert!(wrong < 3_000, "{wrong} of 100,000 others are found");
        let mut lasting = LastingSet::new(64 << 20);
        for _ in 0..1_000_000 {
            assert!(lasting.insert(draw()));
        }
        assert!(lasting.size().bytes < 4_000_000, "{:?}", lasting.size());
        let wrong = (0..100_000).filter(|_| lasting.may_contain(draw())).count();
        assert!(wrong < 200, "{wrong} of 100,000 others are found");
    }

    #[test]
    fn slices_go_when_their_window_is_over() {
        let begin = Instant::now();
        let mut set = WindowSet::new(24 * HOUR, 1 << 20, begin);
        for n in 0..1_000 {
            set.insert(hash(n), begin, Duration::ZERO);
        }
        let later = begin + 27 * HOUR;
        assert!((0..1_000).filter(|n| set.may_contain(hash(*n), later)).count() < 3);
        set.insert(hash(5_000), later, Duration::ZERO);
        assert_eq!(set.size().entries, 1, "and their memory too");
    }

    #[test]
    fn a_set_that_is_too_small_finds_everything_until_that_has_run_out() {
        let begin = Instant::now();
        let mut set = WindowSet::new(24 * HOUR, 8_192, begin);
        let fit = (0..10_000).filter(|n| set.insert(hash(*n), begin, Duration::ZERO)).count();
        assert!((3_000..4_096).contains(&fit), "{fit}");
        assert!(set.may_contain(hash(77_777), begin + 23 * HOUR));
        assert!(!set.may_contain(hash(77_777), begin + 27 * HOUR));
        let mut lasting = LastingSet::new(1_000);
        assert!(!lasting.insert(hash(1)) && lasting.may_contain(hash(2)));
    }
}

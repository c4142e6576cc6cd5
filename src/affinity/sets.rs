//! The retry keys that the engine took and the instances that were pinned, as sets in memory whose answer is "certainly
//! not" or "perhaps: ask the store".
//!
//! Example: the engine takes a first try with the key K, and its run creates the order 17. Then `keys` has a
//! fingerprint of K for the retry window (as long as the run is open it is inserted again), and `owned` has one of
//! (`orders.create`, 17) for ever. A request with the key K, or for `/orders/17`, now gets "perhaps", and the store is
//! asked. A request with another key, or for `/orders/18`, gets "certainly not" (but for a few false positives), and
//! legacy answers without the store. If legacy creates the order 18 and a dark run follows, `twins` has a fingerprint
//! of (`orders.create`, 18).
//!
//! Always true: until the sets are built from the store the answer is "perhaps"; from then on they have all that the
//! store has, because a new entry is inserted before any client can know of it. In a store that several processes share
//! this holds for the keys of a route only while no other process can take any (`claims`), and not for pins: otherwise
//! the store is asked.
//!
//! While the store does not answer at the start, its rows are requested again until they come; until then every
//! question goes to the store. While it does not answer later, no retry key expires: which of them belong to runs that
//! are still open is not known then.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use super::claims::Claims;
use super::filter::{LastingSet, Size, WindowSet};
use super::tries::Tries;
use crate::clock;
use crate::flag::{Arm, PinKey, RetryKey};
use crate::limits::Limits;
use crate::store::{RetryKeyPosition, StoreError, StoreHandle};

/// Rows that one query reads.
const PAGE: usize = 5_000;
/// The pause before a query that failed is repeated.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// The keys of runs that stay open are inserted again at an interval: the retry window divided by this number, within
/// the bounds below.
const RENEWALS_PER_WINDOW: u32 = 24;
const RENEWAL_MIN: Duration = Duration::from_millis(100);
const RENEWAL_MAX: Duration = Duration::from_secs(3_600);
/// When the keys of other engines are read again, reading begins this long before the newest key that is known: a
/// transaction may have ended later than one with a newer time, and the clock of a standby that became primary may be
/// slow.
const READ_OVERLAP: SignedDuration = SignedDuration::from_mins(10);

/// The retry keys that the engine took, and the instances that were pinned.
pub(super) struct Sets {
    keys: RwLock<EngineKeys>,
    renewal_interval: Duration,
    /// Instances that the engine owns.
    owned: RwLock<LastingSet>,
    /// Instances that legacy owns and that have a twin.
    twins: RwLock<LastingSet>,
    pins_built: AtomicBool,
    /// When the newest of the keys in the store was taken, as far as they were read.
    newest_key_at: Mutex<Option<Timestamp>>,
    gauges: [Gauges; 3],
}

struct EngineKeys {
    set: WindowSet,
    /// Until this time, keys may expire and the set is still complete: it has every key whose retries go to the engine.
    /// After this time the key of an open run might expire, so no key expires until the keys of open runs are inserted
    /// again. `None` before the set is built.
    complete_until: Option<Instant>,
}

impl EngineKeys {
    /// Keys whose window was over at this time are not kept.
    fn kept_from(&self, now: Instant) -> Instant {
        self.complete_until.map_or(now, |until| until.min(now))
    }
}

/// The metrics of one set.
struct Gauges {
    bytes: metrics::Gauge,
    entries: metrics::Gauge,
    was_full: AtomicBool,
    name: &'static str,
}

impl Sets {
    pub(super) fn new(limits: &Limits, now: Instant) -> Self {
        let bytes = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX);
        let (keys, pins) = (bytes(limits.engine_keys_set_bytes_max), bytes(limits.pins_set_bytes_max));
        let window = Duration::from_secs(limits.retry_window_s);
        Self {
            keys: RwLock::new(EngineKeys { set: WindowSet::new(window, keys, now), complete_until: None }),
            renewal_interval: (window / RENEWALS_PER_WINDOW).clamp(RENEWAL_MIN, RENEWAL_MAX),
            owned: RwLock::new(LastingSet::new(pins)),
            twins: RwLock::new(LastingSet::new(pins)),
            pins_built: AtomicBool::new(false),
            newest_key_at: Mutex::default(),
            gauges: [Gauges::new("engine_keys", keys), Gauges::new("engine_pins", pins), Gauges::new("twins", pins)],
        }
    }

    /// Whether the engine may have taken a first try with this key, so that a retry has to go to the engine.
    pub(super) fn engine_may_have_taken(&self, key: &RetryKey, now: Instant) -> bool {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.complete_until.is_none() || keys.set.may_contain(key_hash(key), keys.kept_from(now))
    }

    /// Inserts a key whose first try the engine took `ago` before `now`.
    pub(super) fn insert_engine_key(&self, key: &RetryKey, now: Instant, ago: Duration) {
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        let kept_from = keys.kept_from(now);
        let had_room = keys.set.insert(key_hash(key), now, ago, kept_from);
        self.gauges[0].show(keys.set.size(), had_room);
    }

    /// Whether the engine may own this instance.
    pub(super) fn engine_may_own(&self, key: &PinKey) -> bool {
        self.may_be_in(&self.owned, key)
    }

    /// Whether the engine may have a twin of this instance, which legacy owns.
    pub(super) fn may_have_twin(&self, key: &PinKey) -> bool {
        self.may_be_in(&self.twins, key)
    }

    fn may_be_in(&self, set: &RwLock<LastingSet>, key: &PinKey) -> bool {
        let set = set.read().unwrap_or_else(PoisonError::into_inner);
        !self.pins_built.load(Ordering::Acquire) || set.may_contain(pin_hash(key))
    }

    /// Inserts a pinned instance: one that the engine owns, or one that legacy owns and that has a twin.
    pub(super) fn add_pin(&self, key: &PinKey, arm: Arm) {
        let (set, gauges) = match arm {
            Arm::Engine => (&self.owned, &self.gauges[1]),
            Arm::Legacy => (&self.twins, &self.gauges[2]),
        };
        let mut set = set.write().unwrap_or_else(PoisonError::into_inner);
        let had_room = set.insert(pin_hash(key));
        gauges.show(set.size(), had_room);
    }

    /// Inserts the keys again that would expire soon, or have expired, although their run is still open: `pending`, and
    /// those of runs in the store. `began` is when this renewal began.
    async fn renew_keys(&self, store: &StoreHandle, pending: Vec<RetryKey>, began: Instant) -> Result<(), StoreError> {
        for key in &pending {
            self.insert_engine_key(key, began, Duration::ZERO);
        }
        let interval = self.renewal_interval;
        let mut after = None;
        loop {
            // A key that this query does not return stays in the set for three intervals, less the time that passed
            // between its first try and its record in the store. One interval is reserved for that time, so the set
            // counts as complete for the other two.
            let page = store.long_bound_keys(interval.saturating_mul(3), after, PAGE).await?;
            for key in &page.result {
                self.insert_engine_key(key, began, Duration::ZERO);
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        keys.complete_until = Some(began + interval.saturating_mul(2));
        Ok(())
    }

    /// Builds the sets, then renews keys at intervals, and reads those that the engines of other processes took,
    /// whenever these may be unknown; never returns. `tries` has the keys of runs that are not stored yet.
    pub(super) async fn maintain(self: Arc<Self>, store: StoreHandle, tries: Arc<Tries>, claims: Arc<Claims>) {
        self.build(&store).await;
        let mut renewal =
            tokio::time::interval_at(tokio::time::Instant::now() + self.renewal_interval, self.renewal_interval);
        renewal.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let outdated = async {
                match store.is_shared() {
                    true => claims.outdated().await,
                    false => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = renewal.tick() => {
                    while let Err(error) = self.renew_keys(&store, tries.pending(), Instant::now()).await {
                        tracing::warn!(%error, "the keys of open runs were not inserted again into the set of retry keys, because the store did not answer");
                        tokio::time::sleep(RETRY_PAUSE).await;
                    }
                }
                version = outdated => match self.read_keys_of_others(&store).await {
                    Ok(()) => claims.set_known(version),
                    Err(error) => {
                        tracing::warn!(%error, "the retry keys that other processes took are not known, because the store did not answer: requests ask the store");
                        tokio::time::sleep(RETRY_PAUSE).await;
                    }
                },
            }
        }
    }

    /// Inserts the keys that the engines of other processes took up to now.
    async fn read_keys_of_others(&self, store: &StoreHandle) -> Result<(), StoreError> {
        store.wait_for_ended_leases().await?;
        let known = *self.newest_key_at.lock().unwrap_or_else(PoisonError::into_inner);
        let since = known.map_or(Timestamp::MIN, |at| at.saturating_sub(READ_OVERLAP).unwrap_or(Timestamp::MIN));
        let mut after = None;
        loop {
            let page = store.engine_tries_since(since, after, PAGE).await?;
            for RetryKeyPosition { key, at } in &page.result {
                self.insert_stored_key(key, *at);
            }
            after = page.next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    /// Inserts a key that the store has, since this time.
    fn insert_stored_key(&self, key: &RetryKey, at: Timestamp) {
        self.insert_engine_key(key, Instant::now(), clock::passed(at));
        let mut newest = self.newest_key_at.lock().unwrap_or_else(PoisonError::into_inner);
        *newest = (*newest).max(Some(at));
    }

    /// Builds the sets from all that the store has.
    async fn build(&self, store: &StoreHandle) {
        let (began, began_at) = (Instant::now(), clock::now());
        let (mut keys, mut pins) = (0_u64, 0_u64);
        let mut after = None;
        loop {
            let Some(page) = page_or_pause(store.engine_tries(after, PAGE).await).await else { continue };
            for (key, at) in &page {
                self.insert_stored_key(key, *at);
            }
            keys += page.len() as u64;
            match page.last() {
                Some((last, _)) if page.len() == PAGE => after = Some(*last),
                _ => break,
            }
        }
        // The pages come in the order of the keys: others may have taken keys meanwhile that belong to an earlier page
        // than one that has a newer key.
        if let Some(newest) = &mut *self.newest_key_at.lock().unwrap_or_else(PoisonError::into_inner) {
            *newest = (*newest).min(began_at);
        }
        while page_or_pause(self.renew_keys(store, Vec::new(), Instant::now()).await).await.is_none() {}
        let mut after = 0;
        loop {
            let Some(page) = page_or_pause(store.pinned(after, PAGE).await).await else { continue };
            for (_, key, arm) in &page {
                self.add_pin(key, *arm);
            }
            pins += page.len() as u64;
            match page.last() {
                Some((last, ..)) if page.len() == PAGE => after = *last,
                _ => break,
            }
        }
        self.pins_built.store(true, Ordering::Release);
        tracing::info!(keys, pins, took = ?began.elapsed(), "the sets of retry keys and pins are built: most requests need not ask the store");
    }

    /// Whether all sets are built.
    #[cfg(test)]
    pub(super) fn are_built(&self) -> bool {
        self.pins_built.load(Ordering::Acquire)
    }
}

/// The page; after an error pauses and returns `None`.
async fn page_or_pause<T>(page: Result<T, StoreError>) -> Option<T> {
    match page {
        Ok(page) => Some(page),
        Err(error) => {
            tracing::warn!(%error, "the sets of retry keys and pins are not built yet, because the store did not answer: requests ask the store");
            tokio::time::sleep(RETRY_PAUSE).await;
            None
        }
    }
}

impl Gauges {
    fn new(name: &'static str, bytes_max: usize) -> Self {
        metrics::gauge!("pointsman_affinity_set_bytes_max", "set" => name).set(bytes_max as f64);
        let bytes = metrics::gauge!("pointsman_affinity_set_bytes", "set" => name);
        let entries = metrics::gauge!("pointsman_affinity_set_entries", "set" => name);
        Self { bytes, entries, was_full: AtomicBool::new(false), name }
    }

    fn show(&self, Size { bytes, entries }: Size, had_room: bool) {
        self.bytes.set(bytes as f64);
        self.entries.set(entries as f64);
        if !had_room && !self.was_full.swap(true, Ordering::AcqRel) {
            tracing::warn!(
                set = self.name,
                bytes,
                entries,
                "this set of retry keys or pins is full: requests ask the store (limits: engine_keys_set_bytes_max, pins_set_bytes_max)"
            );
        }
    }
}

/// The first eight bytes of the key, which is itself a hash. All keys of one request of an unverified caller share the
/// first half of the key, so such a request takes one entry and not one for each key.
fn key_hash(key: &RetryKey) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&key.0[..8]);
    u64::from_le_bytes(first)
}

fn pin_hash(key: &PinKey) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(key.family.as_str().as_bytes()).update(&[0]).update(key.id.as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::{append, run_id};
    use crate::store::{Append, Claim, MemoryStore, Store as _};

    const HOUR: Duration = Duration::from_secs(3_600);

    #[tokio::test]
    async fn the_key_of_an_open_run_stays_in_the_set_after_the_window() {
        let (limits, begin) = (Limits::default(), Instant::now());
        // In this store the window after a first try is over at once, as in the set after a day.
        let store = Arc::new(MemoryStore::with_limits(&Limits { retry_window_s: 0, ..Limits::default() }));
        let (key, other) = (RetryKey([1; 32]), RetryKey([2; 32]));
        let claim = Some(Claim::new(key, [0; 32]));
        store.append(Append { claim, ..append(run_id(1), 1, 1) }.into()).await.unwrap();
        let (store, sets): (StoreHandle, _) = (store, Sets::new(&limits, begin));
        sets.build(&store).await;
        assert!(sets.engine_may_have_taken(&key, begin + HOUR));
        assert!(!sets.engine_may_have_taken(&other, begin + HOUR));
        let later = begin + 30 * HOUR;
        // Not renewed for a day, because the store does not answer: no key has expired, and nobody else asks the store.
        assert!(sets.engine_may_have_taken(&key, later) && !sets.engine_may_have_taken(&other, later));
        let taken_meanwhile = RetryKey([4; 32]);
        sets.insert_engine_key(&taken_meanwhile, later, Duration::ZERO);
        assert!(sets.engine_may_have_taken(&key, later) && sets.engine_may_have_taken(&taken_meanwhile, later));
        let pending = RetryKey([3; 32]);
        sets.renew_keys(&store, vec![pending], later).await.unwrap();
        assert!(sets.engine_may_have_taken(&key, later + HOUR));
        assert!(sets.engine_may_have_taken(&pending, later + HOUR));
        assert!(!sets.engine_may_have_taken(&other, later + HOUR));
        assert!(!sets.engine_may_have_taken(&other, later + 200 * HOUR));
        assert!(sets.engine_may_have_taken(&key, later + 200 * HOUR));
    }
}

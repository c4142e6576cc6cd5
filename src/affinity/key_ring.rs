//! The ring buffer, in memory, of the records that wait for the store, and what of it is still to be written to the
//! file.
//!
//! Always true: records are numbered and in order. A record is overwritten only when the store has it or its retry
//! window is over. A key is *pending* until its record was written to the file, and only then among the records.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::oneshot;

use super::key_file::Record;
use super::key_just_stored::JustStored;
use super::key_pending::PendingKeys;
use super::key_unnoted::UnnotedTimes;
use crate::clock;
use crate::flag::RetryKey;
use crate::slot_file::SlotRoute;

/// What is to be written to the file next.
pub(super) struct Outstanding {
    /// The first of the pending keys, in order.
    pub keys: Vec<(RetryKey, Timestamp)>,
    /// The number of the first record of `keys`.
    pub first_seq: u64,
    /// The store has all records up to this number, or their retry window is over.
    pub stored: u64,
    /// The times of routes that were served unnoted.
    pub unnoted: Vec<(SlotRoute, Timestamp)>,
    /// The generation of the store, if the file does not have it yet.
    pub generation: Option<u64>,
    /// Notified once all of this is written, or its writes have failed.
    notify_when_written: Vec<oneshot::Sender<()>>,
}

#[cfg(test)]
impl Outstanding {
    pub fn of_keys(keys: Vec<(RetryKey, Timestamp)>, first_seq: u64, stored: u64) -> Self {
        Self { keys, first_seq, stored, unnoted: Vec::new(), generation: None, notify_when_written: Vec::new() }
    }
}

/// The result of writing an [`Outstanding`].
#[derive(Default)]
pub(super) struct Written {
    /// For each of the keys, the number of its record; or why it was not written.
    pub keys: Vec<Result<u64, std::io::Error>>,
    /// The routes whose times were not written.
    pub unnoted_failed: Vec<SlotRoute>,
    /// Whether a record or a time was written.
    pub any: bool,
}

/// Whether writes to the file hang.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stall {
    None,
    /// A write takes longer than anybody waits for it, and it is not known that the store takes pending keys.
    Stalled,
    /// A write takes longer than anybody waits for it, but the store takes pending keys: waiting for that is
    /// worthwhile.
    StoreTakesPending,
}

/// The most keys that are written in one go, before the first of their requests goes on.
const WRITE_BATCH_MAX: usize = 256;

/// The records that wait for the store, and what of them is to be written to the file.
pub(super) struct Ring {
    /// The file; `None` if records are kept in memory only.
    pub path: Option<PathBuf>,
    /// The size of the ring.
    pub records: u64,
    /// The store has all records up to this number, or their retry window is over.
    pub stored: u64,
    /// The records with higher numbers, in order.
    pub waiting: VecDeque<Record>,
    /// The keys of the waiting records, each with the number of its newest record.
    pub waiting_keys: HashMap<RetryKey, u64>,
    pub pending: PendingKeys,
    /// Keys that the store took lately. Used only while writes to the file hang, or hung until a short time ago.
    just_stored: JustStored,
    pub unnoted: UnnotedTimes,
    /// The signs, found when a file was opened, that records were missing in it: this process's file, or one whose keys
    /// it took over.
    pub damage: Option<String>,
    /// The highest generation of the store (a number that grows at each start and every ten minutes) that was found in
    /// one of its files when the file was opened.
    pub generation: u64,
    /// The generation that the file is to have.
    pub generation_to_write: Option<u64>,
    /// Whether the numbers in the file's progress slot are out of date.
    pub progress_to_write: bool,
    /// Notified once what is outstanding now is written, or its writes have failed.
    pub notify_when_written: Vec<oneshot::Sender<()>>,
    pub stall: Stall,
    pub written_since_sync: bool,
    /// Whether the last attempt to note a key failed.
    pub is_failing: bool,
    /// Whether [`super::key_log::KeyLog::move_to_store`] ends once no key waits or the store refuses one.
    pub mover_may_end: bool,
    /// Set when the log is dropped or its file is released: the threads end once everything outstanding is written.
    pub threads_may_end: bool,
    /// Whether further keys are refused: the store has all records and its list of files is about to say so, or the
    /// file is being released.
    pub refuses_keys: bool,
    pub gauge: metrics::Gauge,
}

impl Ring {
    /// A ring that keeps this many records, in memory only.
    pub(super) fn in_memory(records: u64, gauge: metrics::Gauge) -> Self {
        Self {
            path: None,
            records,
            stored: 0,
            waiting: VecDeque::new(),
            waiting_keys: HashMap::new(),
            pending: PendingKeys::default(),
            just_stored: JustStored::default(),
            unnoted: UnnotedTimes::default(),
            damage: None,
            generation: 0,
            generation_to_write: None,
            progress_to_write: false,
            notify_when_written: Vec::new(),
            stall: Stall::None,
            written_since_sync: false,
            is_failing: false,
            mover_may_end: false,
            threads_may_end: false,
            refuses_keys: false,
            gauge,
        }
    }

    /// The number of the last record.
    pub fn last(&self) -> u64 {
        self.waiting.back().map_or(self.stored, |record| record.seq)
    }

    /// Whether there is room for one more key.
    pub fn has_room(&self) -> bool {
        self.last() - self.stored + (self.pending.len() as u64) < self.records
    }

    /// Whether the store has all keys.
    pub fn all_stored(&self) -> bool {
        self.waiting.is_empty() && self.pending.unstored_count() == 0
    }

    /// Whether legacy took this key and the store may not have it yet.
    pub fn has_unstored(&self, key: &RetryKey) -> bool {
        self.waiting_keys.contains_key(key) || self.pending.contains(key)
    }

    /// When legacy took this key, if the store may not have it yet.
    pub fn taken_at(&self, key: &RetryKey) -> Option<Timestamp> {
        let Some(seq) = self.waiting_keys.get(key) else { return self.pending.taken_at(key) };
        let index = self.waiting.binary_search_by_key(seq, |record| record.seq).ok()?;
        self.waiting.get(index).map(|record| record.at)
    }

    /// Adds a key that is to be written, unless it is pending already.
    pub fn add_pending(&mut self, key: RetryKey, at: Timestamp) {
        self.pending.add(key, at);
        self.set_gauge();
    }

    /// Whether the store has taken this key while writes to the file hang.
    pub fn has_just_stored(&self, key: &RetryKey, window: Duration) -> bool {
        self.is_stalled() && self.just_stored.has(key, window)
    }

    /// Records that a route serves a request although not all of these keys are noted. Returns whether that is to be
    /// written to the file: not if each key is in the file, has just been stored, or is pending, because pending keys
    /// may still be written.
    pub fn add_served_unnoted(&mut self, keys: &[RetryKey], route: SlotRoute, at: Timestamp, window: Duration) -> bool {
        if keys.iter().all(|key| self.has_unstored(key) || self.just_stored.has(key, window)) {
            keys.iter().for_each(|key| self.pending.add_served(key, route, at));
            return false;
        }
        self.unnoted.set(route, at)
    }

    fn set_gauge(&self) {
        self.gauge.set((self.waiting.len() + self.pending.len()) as f64);
    }

    /// Adds a record that is written, or that needs no file.
    pub fn add(&mut self, record: Record) {
        self.waiting_keys.insert(record.key, record.seq);
        self.waiting.push_back(record);
        self.set_gauge();
    }

    /// What is to be written next; `None` if there is nothing. [`Ring::set_written`] must follow.
    pub fn take_outstanding(&mut self) -> Option<Outstanding> {
        let is_none = self.pending.len() == 0
            && !self.unnoted.is_to_write()
            && self.generation_to_write.is_none()
            && self.notify_when_written.is_empty()
            && !self.progress_to_write;
        if is_none {
            return None;
        }
        self.progress_to_write = false;
        Some(Outstanding {
            keys: self.pending.begin_to_write(WRITE_BATCH_MAX),
            first_seq: self.last() + 1,
            stored: self.stored,
            unnoted: self.unnoted.take_to_write(),
            generation: self.generation_to_write.take(),
            notify_when_written: std::mem::take(&mut self.notify_when_written),
        })
    }

    /// Records the results of outstanding writes, and notifies those who wait for them.
    pub fn set_written(&mut self, Outstanding { keys, notify_when_written, .. }: Outstanding, written: Written) {
        self.written_since_sync |= written.any;
        self.unnoted.end_write(written.unnoted_failed);
        let (mut is_one_noted, mut is_one_refused) = (false, false);
        for ((key, at), result) in keys.into_iter().zip(written.keys) {
            match &result {
                Ok(seq) => {
                    self.add(Record { seq: *seq, at, key });
                    is_one_noted = true;
                }
                Err(error) => {
                    self.log_failure("it cannot be written", Some(error));
                    is_one_refused = true;
                }
            }
            for (route, at) in self.pending.end_first(result.is_ok()) {
                self.unnoted.set(route, at);
            }
        }
        let was_stalled = self.is_stalled();
        if was_stalled {
            self.just_stored.record_stall();
        }
        // The stall lasts while keys that came during it are still to be written: later keys would wait behind them.
        if self.pending.len() == 0 {
            self.stall = Stall::None;
        }
        // The failure does not end during a stall: each key that is refused meanwhile would log it as a new one.
        if (is_one_noted || was_stalled) && !is_one_refused && !self.is_stalled() {
            self.end_failure();
        }
        self.set_gauge();
        for waiting in notify_when_written {
            let _went_away = waiting.send(());
        }
    }

    /// Removes the records up to a number, because the store has them now.
    pub fn set_stored(&mut self, seq: u64) {
        for record in self.waiting.iter().take_while(|record| record.seq <= seq) {
            self.just_stored.add(record.key, record.at);
        }
        self.remove(seq);
    }

    /// Removes the records up to a number.
    fn remove(&mut self, seq: u64) {
        while let Some(record) = self.waiting.pop_front_if(|record| record.seq <= seq) {
            if self.waiting_keys.get(&record.key) == Some(&record.seq) {
                self.waiting_keys.remove(&record.key);
            }
        }
        self.stored = self.stored.max(seq);
        self.set_gauge();
        // If the new number is not written, the next process moves these records to the store once more, which changes
        // nothing.
        self.progress_to_write = self.path.is_some();
    }

    /// Drops the records whose window is over: a retry with such a key is a new request.
    pub fn remove_expired(&mut self, window: Duration) {
        let is_over = |record: &Record| clock::passed(record.at) >= window;
        let expired = self.waiting.iter().take_while(|record| is_over(record)).last().map(|record| record.seq);
        if let Some(seq) = expired {
            self.remove(seq);
        }
    }

    /// Logs that a key cannot be noted, unless that was logged since the last success.
    pub fn log_failure(&mut self, why: &str, error: Option<&std::io::Error>) {
        if !std::mem::replace(&mut self.is_failing, true) {
            let path = self.path.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
            let error = error.map(ToString::to_string);
            tracing::error!(
                %path, waiting = self.waiting.len(), error,
                "retry keys cannot be noted in their file: {why}; requests with a retry key, of routes that are in `live` or would return there without a gate, get 503 and are not sent to legacy"
            );
        }
    }

    /// Records that keys can be noted, and logs it if that is new.
    pub fn end_failure(&mut self) {
        if std::mem::take(&mut self.is_failing) {
            tracing::info!("retry keys can be noted in their file again");
        }
    }

    /// Records that a request waited too long for this key to be written.
    pub fn record_stall(&mut self, key: &RetryKey) {
        if self.pending.contains(key) {
            self.set_stalled();
        }
    }

    /// Records that writes hang if the oldest pending key has waited longer than `wait_max`. Not every stall is
    /// reported by a request that waited that long, because clients may go away earlier. Returns whether the stall is
    /// new.
    pub fn find_stall(&mut self, wait_max: Duration) -> bool {
        let is_new = !self.is_stalled() && self.pending.oldest_for() > wait_max;
        if is_new {
            self.set_stalled();
        }
        is_new
    }

    /// Records that the store did not take keys.
    pub fn set_store_refuses(&mut self) {
        if self.is_stalled() {
            self.stall = Stall::Stalled;
        }
    }

    /// Whether writes to the file hang.
    pub fn is_stalled(&self) -> bool {
        self.stall != Stall::None
    }

    fn set_stalled(&mut self) {
        self.stall = Stall::Stalled;
        self.just_stored.record_stall();
        self.log_failure("a write takes longer than a second, the disk may hang", None);
    }

    /// Records that the store has these keys, which are pending. `is_quick`: the store took them in much less time than
    /// a request waits for its key.
    pub fn set_pending_stored(&mut self, keys: &[(RetryKey, Timestamp)], is_quick: bool) {
        self.pending.set_stored(keys);
        if self.is_stalled() {
            self.just_stored.record_stall();
            self.stall = if is_quick { Stall::StoreTakesPending } else { Stall::Stalled };
        }
        keys.iter().for_each(|(key, at)| self.just_stored.add(*key, *at));
        self.set_gauge();
    }

    /// Logs that records were missing in a file whose keys this process has, and remembers the signs.
    pub fn record_damage(&mut self, path: &Path, damage: Option<String>) {
        let Some(damage) = damage else { return };
        tracing::error!(
            path = %path.display(), damage,
            "the file of retry keys is damaged, and retry keys of requests that legacy served may be lost: for the retry \
             window no route goes up to `live` unless forced"
        );
        self.damage = Some(format!("the file of retry keys {} is damaged ({damage})", path.display()));
    }
}

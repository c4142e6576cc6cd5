//! A ring buffer of the records that wait for the store, in memory, and what is to be written of it to the file.
//!
//! Always true: records are numbered and in order; a record is overwritten only when the store has it; a key is among
//! the records only after its record was written to the file. Until then it is *pending*.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::oneshot;

use super::key_file::Record;
use crate::clock;
use crate::flag::RetryKey;
use crate::slot_file::SlotRoute;

/// When legacy serves a request whose key could not be noted, the time in the file for its route is set this far in the
/// future, so that it is written at most once per interval and not for each request.
const UNNOTED_WRITE_INTERVAL: Duration = Duration::from_secs(60);

/// When legacy last served a request of a route with a key that could not be noted.
#[derive(Clone, Copy)]
pub(super) struct ServedUnnoted {
    pub at: Timestamp,
    /// The time in the file, or to be written there: at most [`UNNOTED_WRITE_INTERVAL`] later.
    pub in_file: Timestamp,
}

impl ServedUnnoted {
    /// From the time that an earlier process wrote: it served no request after this moment.
    pub fn by_earlier_process(in_file: Timestamp) -> Self {
        Self { at: in_file.min(clock::now()), in_file }
    }
}

/// A key that is to be written to the file.
struct Pending {
    key: RetryKey,
    at: Timestamp,
    /// Who waits until it is written, or the write has failed.
    waiting: Vec<oneshot::Sender<bool>>,
}

/// What is to be written to the file next.
pub(super) struct Outstanding {
    /// The first of the pending keys, in order.
    pub keys: Vec<(RetryKey, Timestamp)>,
    /// The number of the first record of `keys`.
    pub first_seq: u64,
    /// The times of routes that were served unnoted.
    pub unnoted: Vec<(SlotRoute, Timestamp)>,
    /// The generation of the store, if the file does not have it yet.
    pub generation: Option<u64>,
    /// Told once all of this is written, or its writes have failed.
    waiting: Vec<oneshot::Sender<()>>,
}

/// What became of it.
#[derive(Default)]
pub(super) struct Written {
    /// For each of the keys, the number of its record; or why it was not written.
    pub keys: Vec<Result<u64, std::io::Error>>,
    /// The routes whose times were not written.
    pub unnoted_failed: Vec<SlotRoute>,
    /// Whether a record or a time was written.
    pub any: bool,
}

/// The most keys that are written in one go, before the first of their requests goes on.
const WRITE_TOGETHER_MAX: usize = 256;

/// See the module.
pub(super) struct Ring {
    /// The file; `None` if records are kept in memory only.
    pub path: Option<PathBuf>,
    /// The size of the ring.
    pub records: u64,
    /// All records up to this number are in the store.
    pub stored: u64,
    /// The records after it, in order.
    pub waiting: VecDeque<Record>,
    /// The keys of the waiting records, each with the number of its newest record.
    pub waiting_keys: HashMap<RetryKey, u64>,
    /// In order; the first of them may be in the middle of being written.
    pending: VecDeque<Pending>,
    /// Their keys, each with its place in the order of all keys that were ever pending.
    pending_keys: HashMap<RetryKey, u64>,
    /// How many keys were pending and are not any more: the place of the first pending one.
    pending_done: u64,
    /// For each route, when legacy last served a request with a key that could not be noted.
    pub unnoted: HashMap<SlotRoute, ServedUnnoted>,
    /// The signs, found when a file was opened, that records were missing in it: this process's file, or one whose keys
    /// it took over.
    pub damage: Option<String>,
    /// The routes in `unnoted` whose time is not in the file.
    pub unnoted_to_write: Vec<SlotRoute>,
    /// The routes whose times could not be written; tried again with the next [`Ring::settle_unnoted`].
    unnoted_failed: Vec<SlotRoute>,
    /// The highest generation of the store that a file of it had when it was opened.
    pub generation: u64,
    /// The generation that the file is to have.
    pub generation_to_write: Option<u64>,
    /// Whether the file does not have the present numbers.
    pub progress_to_write: bool,
    /// Told once what is outstanding now is written, or its writes have failed.
    pub told_when_written: Vec<oneshot::Sender<()>>,
    /// Whether a write to the file takes longer than anybody waits for it.
    pub is_stalled: bool,
    pub written_since_sync: bool,
    /// Whether the last attempt to note a key failed.
    pub failing: bool,
    pub closed: bool,
    /// Nobody adds anything any more: the threads end.
    pub ended: bool,
    /// The store has all records, and its list says so.
    pub finished: bool,
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
            pending: VecDeque::new(),
            pending_keys: HashMap::new(),
            pending_done: 0,
            unnoted: HashMap::new(),
            damage: None,
            unnoted_to_write: Vec::new(),
            unnoted_failed: Vec::new(),
            generation: 0,
            generation_to_write: None,
            progress_to_write: false,
            told_when_written: Vec::new(),
            is_stalled: false,
            written_since_sync: false,
            failing: false,
            closed: false,
            ended: false,
            finished: false,
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
    pub fn is_stored(&self) -> bool {
        self.waiting.is_empty() && self.pending.is_empty()
    }

    /// Whether legacy took this key and the store may not have it yet.
    pub fn has(&self, key: &RetryKey) -> bool {
        self.waiting_keys.contains_key(key) || self.pending_keys.contains_key(key)
    }

    fn pending(&mut self, key: &RetryKey) -> Option<&mut Pending> {
        let place = self.pending_keys.get(key)? - self.pending_done;
        self.pending.get_mut(usize::try_from(place).ok()?)
    }

    /// When legacy took this key, if the store may not have it yet.
    pub fn noted_at(&self, key: &RetryKey) -> Option<Timestamp> {
        let seq = self.waiting_keys.get(key)?;
        let index = self.waiting.binary_search_by_key(seq, |record| record.seq).ok()?;
        self.waiting.get(index).map(|record| record.at)
    }

    /// Adds a key that is to be written, unless it is pending already. Returns what tells when it is written.
    pub fn add_pending(&mut self, key: RetryKey, at: Timestamp) -> oneshot::Receiver<bool> {
        let (written, is_written) = oneshot::channel();
        match self.pending(&key) {
            Some(pending) => pending.waiting.push(written),
            None => {
                self.pending_keys.insert(key, self.pending_done + self.pending.len() as u64);
                self.pending.push_back(Pending { key, at, waiting: vec![written] });
            }
        }
        is_written
    }

    /// Adds a record that is written, or that needs no file.
    pub fn add(&mut self, record: Record) {
        self.waiting_keys.insert(record.key, record.seq);
        self.waiting.push_back(record);
        self.gauge.set(self.waiting.len() as f64);
    }

    /// What is to be written next; `None` if there is nothing. [`Ring::set_written`] must follow.
    pub fn take_outstanding(&mut self) -> Option<Outstanding> {
        let is_none = self.pending.is_empty()
            && self.unnoted_to_write.is_empty()
            && self.generation_to_write.is_none()
            && self.told_when_written.is_empty()
            && !self.progress_to_write;
        if is_none {
            return None;
        }
        self.progress_to_write = false;
        let in_file = |route: SlotRoute| self.unnoted.get(&route).map(|served| (route, served.in_file));
        let unnoted = std::mem::take(&mut self.unnoted_to_write).into_iter().filter_map(in_file).collect();
        Some(Outstanding {
            keys: self.pending.iter().take(WRITE_TOGETHER_MAX).map(|pending| (pending.key, pending.at)).collect(),
            first_seq: self.last() + 1,
            unnoted,
            generation: self.generation_to_write.take(),
            waiting: std::mem::take(&mut self.told_when_written),
        })
    }

    /// Records what became of outstanding writes, and tells those who wait.
    pub fn set_written(&mut self, Outstanding { keys, waiting, .. }: Outstanding, written: Written) {
        self.is_stalled = false;
        self.written_since_sync |= written.any;
        self.unnoted_failed.extend(written.unnoted_failed);
        for ((key, at), result) in keys.into_iter().zip(written.keys) {
            let Some(pending) = self.pending.pop_front() else { break };
            self.pending_done += 1;
            self.pending_keys.remove(&key);
            match &result {
                Ok(seq) => {
                    self.add(Record { seq: *seq, at, key });
                    if std::mem::take(&mut self.failing) {
                        tracing::info!("retry keys can be noted in their file again");
                    }
                }
                Err(error) => self.log_failure("it cannot be written", Some(error)),
            }
            for waiting in pending.waiting {
                let _receiver_dropped = waiting.send(result.is_ok());
            }
        }
        for waiting in waiting {
            let _receiver_dropped = waiting.send(());
        }
    }

    /// Removes the records up to a number, because the store has them now.
    pub fn set_stored(&mut self, seq: u64) {
        while let Some(record) = self.waiting.pop_front_if(|record| record.seq <= seq) {
            if self.waiting_keys.get(&record.key) == Some(&record.seq) {
                self.waiting_keys.remove(&record.key);
            }
        }
        self.stored = self.stored.max(seq);
        self.gauge.set(self.waiting.len() as f64);
        // If it is not written, the next process moves these records to the store once more, which changes nothing.
        self.progress_to_write = self.path.is_some();
    }

    /// Drops the records whose window is over: a retry with such a key is a new request.
    pub fn forget_expired(&mut self, window: Duration) {
        let is_over = |record: &Record| clock::passed(record.at) >= window;
        let expired = self.waiting.iter().take_while(|record| is_over(record)).last().map(|record| record.seq);
        if let Some(seq) = expired {
            self.set_stored(seq);
        }
    }

    /// Logs that a key cannot be noted, unless that was logged since the last success.
    pub fn log_failure(&mut self, why: &str, error: Option<&std::io::Error>) {
        if !std::mem::replace(&mut self.failing, true) {
            let path = self.path.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
            let error = error.map(ToString::to_string);
            tracing::error!(
                %path, waiting = self.waiting.len(), error,
                "retry keys cannot be noted in their file: {why}; requests with a retry key, of routes that are in `live` or would return there without a gate, get 503 and are not sent to legacy"
            );
        }
    }

    /// Records that somebody waited too long for this key to be written.
    pub fn note_stall(&mut self, key: &RetryKey) {
        if self.pending_keys.contains_key(key) {
            self.is_stalled = true;
            self.log_failure("a write takes longer than a second, the disk may hang", None);
        }
    }

    /// Logs that records were missing in a file whose keys this process has, and remembers the signs.
    pub fn note_damage(&mut self, path: &Path, damage: Option<String>) {
        let Some(damage) = damage else { return };
        tracing::error!(
            path = %path.display(), damage,
            "the file of retry keys is damaged, and retry keys of requests that legacy served may be lost: for the retry \
             window no route goes up to `live` unless forced"
        );
        self.damage = Some(format!("the file of retry keys {} is damaged ({damage})", path.display()));
    }

    /// Records that legacy served a request of a route unnoted. Returns whether that is to be written.
    pub fn set_unnoted(&mut self, route: SlotRoute, at: Timestamp) -> bool {
        if let Some(served) = self.unnoted.get_mut(&route) {
            served.at = served.at.max(at);
            if served.in_file >= at {
                return false;
            }
        }
        let in_file = at.checked_add(UNNOTED_WRITE_INTERVAL).unwrap_or(at);
        self.unnoted.insert(route, ServedUnnoted { at, in_file });
        self.write_unnoted(route);
        true
    }

    fn write_unnoted(&mut self, route: SlotRoute) {
        if self.path.is_some() && !self.unnoted_to_write.contains(&route) {
            self.unnoted_to_write.push(route);
        }
    }

    /// Has the exact time of the last such request written to the file for each route without one since the time that
    /// is there, or for all routes: a flip by force after that request accepts it, also for later processes.
    pub fn settle_unnoted(&mut self, all: bool) {
        let now = clock::now();
        let mut to_write = std::mem::take(&mut self.unnoted_failed);
        for (route, served) in &mut self.unnoted {
            // The file has milliseconds, and the time there must not be before the request.
            let exact = Timestamp::from_millisecond(served.at.as_millisecond() + 1).unwrap_or(served.at);
            if served.in_file > exact && (all || served.in_file <= now) {
                served.in_file = exact;
                to_write.push(*route);
            }
        }
        to_write.into_iter().for_each(|route| self.write_unnoted(route));
    }

    /// Whether a retry may still come of a request that legacy served although its key could not be noted.
    pub fn has_unnoted(&self, window: Duration) -> bool {
        let now = clock::now();
        self.unnoted.values().any(|served| clock::window_end(served.at, window) > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::RouteId;

    fn ring() -> Ring {
        Ring::in_memory(8, metrics::Gauge::noop())
    }

    /// Not before, because until then a request of that route writes nothing.
    #[test]
    fn the_exact_time_is_written_once_the_time_in_the_file_has_come() {
        let (mut ring, now) = (Ring { path: Some("s.keys".into()), ..ring() }, clock::now());
        let [over, served] = ["over", "served"].map(|id| SlotRoute::of(&RouteId::new(id)));
        let seconds = Duration::from_secs;
        ring.unnoted.insert(over, ServedUnnoted { at: now - seconds(30), in_file: now - seconds(1) });
        ring.unnoted.insert(served, ServedUnnoted { at: now - seconds(30), in_file: now + seconds(30) });
        ring.settle_unnoted(false);
        assert_eq!(ring.unnoted_to_write, [over]);
        let exact = ring.unnoted[&over];
        assert!(exact.in_file >= exact.at && exact.in_file <= exact.at + Duration::from_millis(1));
        ring.settle_unnoted(true);
        assert_eq!(ring.unnoted_to_write, [over, served], "at the end of the process");
        ring.unnoted_to_write.clear();
        ring.settle_unnoted(true);
        assert!(ring.unnoted_to_write.is_empty(), "both are exact");
    }
}

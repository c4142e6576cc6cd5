//! Keeps the first tries that legacy took until the store has them.
//!
//! The question it answers: "would the next process know that legacy took this?" Always true: [`KeyLog::note`] returns
//! `Ok` only after the record is written to the file (kill -9 and a full disk do not lose it); a record that the store
//! does not have yet is never overwritten, so that a full ring buffer refuses further records; the records that wait
//! for the store are also in memory.
//!
//! Example: legacy is to take a first try with the key K. [`KeyLog::note`] writes record 1 (K, and the time) to the
//! ring buffer in the file, then "stored: 0, last: 1" to slot 1 of the file; in memory K waits. Now legacy is called. A
//! moment later [`KeyLog::move_to_store`] writes K to the store, then "stored: 1, last: 1" to the file; in memory
//! nothing waits, and record 1 may be overwritten. If the process is killed in between, the next one finds record 1
//! above "stored: 0" and moves K to the store.
//!
//! When the store is slow or gone, keys wait in the ring buffer, which is as large as the file. When the file cannot be
//! written, noting fails, and the caller decides.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::Thread;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Notify, watch};

use super::key_file::{KeyFile, Opened, Record};
use super::key_list::KeyFileList;
use super::key_ring::{Ring, ServedUnnoted};
use crate::clock;
use crate::flag::RetryKey;
use crate::limits::Limits;
use crate::names::RouteId;
use crate::slot_file::SlotRoute;
use crate::store::{RepeatedFailures, StoreHandle};

/// Keys written to the store together: few enough that no append waits for long.
const BATCH_MAX: usize = 512;
/// The pause after a write that the store did not take.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// The interval at which the file is synced.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);
/// The size of the ring buffer of a process that keeps no file.
const RECORDS_IN_MEMORY: u64 = 1 << 18;

/// A key could not be noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotNoted;

/// Requests that legacy served and whose retry keys are not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownKeys {
    /// None was served later.
    pub served: Timestamp,
    /// When no retry of them may come any more.
    pub until: Timestamp,
}

impl UnknownKeys {
    /// `None` if no retry may come any more.
    pub(super) fn since(served: Timestamp, window: Duration) -> Option<Self> {
        let until = clock::window_end(served, window);
        (until > clock::now()).then_some(Self { served, until })
    }
}

/// See the module.
pub struct KeyLog {
    ring: Mutex<Ring>,
    /// Wakes [`KeyLog::move_to_store`].
    key_added: Notify,
    progress: watch::Sender<Progress>,
    window: Duration,
    /// The store's list of files, with the changes that it has not taken yet.
    pub(super) list: KeyFileList,
    /// The thread that syncs the file.
    sync_thread: OnceLock<Thread>,
}

#[derive(Clone, Copy, Default)]
struct Progress {
    stored: u64,
    /// Counts batches that the store did not take.
    refused: u64,
}

impl KeyLog {
    /// Keeps keys in memory only: for a store that is in memory too.
    pub fn in_memory(limits: &Limits) -> Arc<Self> {
        Self::new(None, limits)
    }

    /// Like [`KeyLog::new`], with a file that no store lists.
    #[cfg(test)]
    pub(super) fn open(path: &std::path::Path, limits: &Limits) -> Result<Arc<Self>, super::KeyFileError> {
        let opened = KeyFile::open(path, limits.retry_keys_file_bytes_max, true)?;
        Ok(Self::new(Some(opened), limits))
    }

    /// A log that begins with the records that wait in the opened file; without a file it keeps keys in memory only.
    pub(super) fn new(opened: Option<Opened>, limits: &Limits) -> Arc<Self> {
        let window = Duration::from_secs(limits.retry_window_s);
        let gauge = metrics::gauge!("pointsman_retry_keys_waiting");
        let mut ring = Ring::in_memory(RECORDS_IN_MEMORY, gauge);
        if let Some(Opened { file, tag: _, stored, waiting, last, unnoted, skipped, damage }) = opened {
            metrics::counter!("pointsman_retry_keys_skipped_total").increment(skipped);
            if skipped > 0 {
                let path = file.path().display();
                tracing::warn!(%path, skipped, "records of retry keys were torn and are skipped: a power cut may lose the last second");
            }
            if !waiting.is_empty() {
                tracing::info!(keys = waiting.len(), "retry keys of requests that legacy took are moved to the store");
            }
            ring.records = file.records();
            // Numbers that are missing between the records belong to torn ones, whose content is lost already.
            ring.stored = waiting.first().map_or(last, |first| first.seq - 1).max(stored);
            ring.waiting_keys = waiting.iter().map(|record| (record.key, record.seq)).collect();
            ring.waiting = waiting.into();
            ring.unnoted =
                unnoted.into_iter().map(|(route, at)| (route, ServedUnnoted::by_earlier_process(at))).collect();
            ring.note_damage(file.path(), damage);
            ring.generation = file.generation();
            ring.file = Some(file);
        }
        metrics::gauge!("pointsman_retry_keys_room").set(ring.records as f64);
        ring.gauge.set(ring.waiting.len() as f64);
        let progress = watch::Sender::new(Progress { stored: ring.stored, refused: 0 });
        let log = Arc::new(Self {
            ring: Mutex::new(ring),
            key_added: Notify::new(),
            progress,
            window,
            list: KeyFileList::default(),
            sync_thread: OnceLock::new(),
        });
        log.sync_every_second();
        log
    }

    /// Copies the waiting records of an ended process to this process's file, and marks them in the other file as
    /// stored. Returns whether all were copied; otherwise the other file is unchanged.
    pub(super) fn take_over(&self, opened: &Opened) -> bool {
        let path = opened.file.path().display();
        self.raise_generation(opened.file.generation());
        if opened.waiting.iter().any(|record| self.note_at(record.key, record.at).is_err()) {
            tracing::error!(%path, "retry keys that an earlier process left stay in its file, because this process's file is full");
            return false;
        }
        let mut ring = self.ring();
        ring.note_damage(opened.file.path(), opened.damage.clone());
        for (route, at) in &opened.unnoted {
            ring.set_unnoted(*route, ServedUnnoted::by_earlier_process(*at).at, self.window);
        }
        ring.settle_unnoted(true);
        ring.write_unnoted(self.window);
        // Synced here first: once the old file says that they are stored, only this file has them.
        let synced = ring.file.as_ref().map_or(Ok(()), KeyFile::sync);
        drop(ring);
        if let Err(error) = synced.and_then(|()| opened.file.write_progress(opened.last, opened.last)) {
            tracing::warn!(%error, %path, "the copies of an earlier process's retry keys could not be synced, or its file could not be updated: they are taken over again at the next start");
            return false;
        }
        if !opened.waiting.is_empty() {
            tracing::info!(%path, keys = opened.waiting.len(), "retry keys that an earlier process left are taken over");
        }
        true
    }

    pub(super) fn ring(&self) -> MutexGuard<'_, Ring> {
        // A poisoned lock is usable: at worst a record is in the file and not in memory, and is overwritten.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that legacy takes this first try: it is in the file when this returns.
    pub(super) fn note(&self, key: RetryKey) -> Result<(), NotNoted> {
        self.note_at(key, clock::now())
    }

    fn note_at(&self, key: RetryKey, at: Timestamp) -> Result<(), NotNoted> {
        let mut ring = self.ring();
        if ring.waiting_keys.contains_key(&key) {
            return Ok(());
        }
        if ring.finished {
            return Err(NotNoted); // the process ends, and no other one would read the file
        }
        let seq = ring.last() + 1;
        if seq - ring.stored > ring.records {
            ring.log_failure("it is full: the store takes nothing", None);
            return Err(NotNoted);
        }
        let record = Record { seq, at, key };
        if let Some(file) = &ring.file
            && let Err(error) = file.write(&record)
        {
            ring.log_failure("it cannot be written", Some(&error));
            return Err(NotNoted);
        }
        if let Some(file) = &ring.file
            && let Err(error) = file.write_progress(ring.stored, seq)
        {
            // The record is in the file. If it is lost later (by a power cut), nothing shows that it was there.
            tracing::debug!(%error, "the number of the last record was not written to the file of retry keys");
        }
        if std::mem::take(&mut ring.failing) {
            tracing::info!("retry keys can be noted in their file again");
        }
        ring.waiting_keys.insert(key, seq);
        ring.waiting.push_back(record);
        ring.written_since_sync = true;
        ring.gauge.set(ring.waiting.len() as f64);
        drop(ring);
        self.key_added.notify_one();
        Ok(())
    }

    /// Whether legacy took a first try with this key and the store may not have it yet.
    pub(super) fn is_waiting(&self, key: &RetryKey) -> bool {
        self.ring().waiting_keys.contains_key(key)
    }

    /// The time of the first try with this key, if legacy took it and the store may not have it yet.
    pub(super) fn first_noted_at(&self, key: &RetryKey) -> Option<Timestamp> {
        let ring = self.ring();
        let seq = ring.waiting_keys.get(key)?;
        let index = ring.waiting.binary_search_by_key(seq, |record| record.seq).ok()?;
        ring.waiting.get(index).map(|record| record.at)
    }

    /// The keys that wait for the store, each with the time of its first try.
    pub(super) fn waiting(&self) -> Vec<(RetryKey, Timestamp)> {
        self.ring().waiting.iter().map(|record| (record.key, record.at)).collect()
    }

    /// Records the time at which legacy serves a request of a route although the request's key could not be noted.
    pub(super) fn record_served_unnoted(&self, route: &RouteId) {
        let now = clock::now();
        self.ring().set_unnoted(SlotRoute::of(route), now, self.window);
    }

    /// How long after a first try the client may repeat it.
    pub(super) fn window(&self) -> Duration {
        self.window
    }

    /// The requests of this route that legacy served although their keys could not be noted; `None` if no retry of one
    /// may come.
    pub(super) fn unnoted(&self, route: &RouteId) -> Option<UnknownKeys> {
        let ring = self.ring();
        let served = [SlotRoute::of(route), SlotRoute::Any].into_iter().filter_map(|route| ring.unnoted.get(&route));
        UnknownKeys::since(served.map(|served| served.at).max()?, self.window)
    }

    /// If keys that legacy took are lost and their routes are not known: why they are lost, and which requests had them.
    pub(super) fn lost_keys_of_unknown_routes(&self) -> Option<(String, UnknownKeys)> {
        let ring = self.ring();
        let unknown = UnknownKeys::since(ring.unnoted.get(&SlotRoute::Any)?.at, self.window);
        let lacks = "the file of retry keys lacks keys of requests that legacy served: it was damaged, or they could not be \
                     noted";
        let why = || ring.damage.clone().unwrap_or_else(|| lacks.to_owned());
        unknown.map(|unknown| (why(), unknown))
    }

    /// Waits until the store has all keys that are noted now, or a write to the store fails.
    pub(super) async fn flush(&self) {
        let last = self.ring().last();
        let mut progress = self.progress.subscribe();
        let refused = progress.borrow().refused;
        let _closed = progress.wait_for(|now| now.stored >= last || now.refused > refused).await;
    }

    /// Notes in the store's list that the store has all records of the file, if it has. Nothing can be noted after that.
    pub(super) async fn finish(&self, store: &StoreHandle) {
        {
            let mut ring = self.ring();
            // The times of routes that were served unnoted are only in the file.
            ring.settle_unnoted(true);
            ring.write_unnoted(self.window);
            if !ring.waiting.is_empty() || ring.has_unnoted(self.window) {
                return;
            }
            ring.finished = true;
        }
        self.list.note_own_stored(store.is_shared());
        self.list.write(store).await;
    }

    /// Lets [`KeyLog::move_to_store`] end: it moves the waiting keys until none is left or a write to the store fails.
    pub(super) fn close(&self) {
        {
            let mut ring = self.ring();
            ring.closed = true;
            ring.settle_unnoted(true);
            ring.write_unnoted(self.window);
        }
        self.key_added.notify_one();
    }

    /// Moves waiting keys to the store until [`KeyLog::close`] is called.
    pub(super) async fn move_to_store(self: Arc<Self>, store: StoreHandle) {
        let failures = RepeatedFailures::default();
        loop {
            let listed = self.list.write(&store).await;
            let (batch, last, closed) = {
                let mut ring = self.ring();
                ring.forget_expired(self.window);
                let batch: Vec<_> = ring.waiting.iter().take(BATCH_MAX).map(|r| (r.key, r.at)).collect();
                (batch, ring.waiting.iter().take(BATCH_MAX).next_back().map(|record| record.seq), ring.closed)
            };
            let Some(last) = last else {
                self.advance(None);
                if closed {
                    return;
                }
                match listed {
                    true => self.key_added.notified().await,
                    // Writes the list again after a pause, even if no key comes.
                    false => drop(tokio::time::timeout(RETRY_PAUSE, self.key_added.notified()).await),
                }
                continue;
            };
            match store.note_legacy_tries(batch).await {
                Ok(()) => self.advance(Some(last)),
                Err(error) => {
                    if let Some(unlogged) = failures.count(&error.0) {
                        let waiting = self.ring().waiting.len();
                        tracing::warn!(%error, waiting, unlogged, "the store did not take retry keys of legacy; they wait in their file and are tried again");
                    }
                    self.progress.send_modify(|progress| progress.refused += 1);
                    if closed {
                        return;
                    }
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            }
        }
    }

    /// Removes the records up to `stored`, if given, because the store has them now; then announces the number up to
    /// which the store has all records.
    fn advance(&self, stored: Option<u64>) {
        let mut ring = self.ring();
        if let Some(stored) = stored {
            ring.set_stored(stored);
        }
        let stored = ring.stored;
        drop(ring);
        self.progress.send_modify(|progress| progress.stored = stored);
    }

    /// Syncs the file from a thread of its own while it has something that the store does not have.
    fn sync_every_second(self: &Arc<Self>) {
        let handle = match self.ring().file.as_ref().map(KeyFile::handle) {
            None => return,
            Some(Ok(handle)) => handle,
            Some(Err(error)) => return tracing::warn!(%error, "the file of retry keys is not synced"),
        };
        let log: Weak<Self> = Arc::downgrade(self);
        let sync_until_dropped = move || {
            loop {
                std::thread::park_timeout(SYNC_INTERVAL);
                let Some(log) = log.upgrade() else { return };
                let mut ring = log.ring();
                ring.settle_unnoted(false);
                ring.write_unnoted(log.window);
                let has_more_than_store = !ring.waiting.is_empty() || !ring.unnoted.is_empty();
                let is_wanted = std::mem::take(&mut ring.written_since_sync) && has_more_than_store;
                drop(ring);
                drop(log);
                if is_wanted && let Err(error) = handle.sync_data() {
                    tracing::warn!(%error, "the file of retry keys cannot be synced: a power cut may lose them");
                }
            }
        };
        match std::thread::Builder::new().name("retry-keys".into()).spawn(sync_until_dropped) {
            Ok(thread) => drop(self.sync_thread.set(thread.thread().clone())),
            Err(error) => tracing::warn!(%error, "the file of retry keys is not synced"),
        }
    }
}

impl Drop for KeyLog {
    fn drop(&mut self) {
        // Ends the thread, which holds the file and with it the lock.
        if let Some(thread) = self.sync_thread.get() {
            thread.unpark();
        }
    }
}

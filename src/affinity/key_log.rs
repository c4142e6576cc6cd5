//! Keeps the first tries that legacy took until the store has them.
//!
//! The question it answers: "would the next process know that legacy took this try?" Always true: a key counts as noted
//! ([`KeyLog::wait_until_noted`]) only after its record is written to the file (kill -9 and a full disk do not lose
//! it), or the store has it. A record that the store does not have yet is not overwritten before its retry window is
//! over; so a full ring buffer refuses further records. The records that wait for the store are also in memory.
//!
//! Example: legacy is to take a first try with the key K. [`KeyLog::note`] has the thread of `key_writer` write record
//! 1 (K, and the time) to the ring buffer in the file, then "stored: 0, last: 1" to slot 1 of the file; in memory K
//! waits. Now legacy is called. A moment later [`KeyLog::move_to_store`] writes K to the store, and the thread writes
//! "stored: 1, last: 1" to the file; in memory nothing waits, and record 1 may be overwritten. If the process is killed
//! in between, the next one finds record 1 above "stored: 0" and moves K to the store.
//!
//! When the store is slow or gone, keys wait in the ring buffer, which is as large as the file. When the file cannot be
//! written, or the disk hangs, noting fails, and the caller decides what follows. While the disk hangs, the keys also
//! go directly to the store; a key that the store has counts as noted.

use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::watch;

use super::key_file::{KeyFileError, Opened, Record};
use super::key_list::KeyFileList;
use super::key_ring::{Ring, Stall};
use super::key_unnoted::{ServedUnnoted, UnnotedTimes};
use super::key_writer::{KeyWriter, NOTE_WAIT_MAX, NoteStatus};
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
/// While the disk of the file hangs, requests wait for the store to take their keys only if its last write of keys took
/// less than this.
const STORE_QUICK_MAX: Duration = Duration::from_millis(250);
/// The size of the ring buffer of a process that keeps no file.
const RECORDS_IN_MEMORY: u64 = 1 << 18;

/// The first tries that legacy took and the store may not have yet: in memory, and in this process's file.
pub struct KeyLog {
    writer: Arc<KeyWriter>,
    progress: watch::Sender<Progress>,
    window: Duration,
    /// The store's list of files, with the changes that it has not taken yet.
    pub(super) list: KeyFileList,
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
        let ring = Ring::in_memory(RECORDS_IN_MEMORY, metrics::gauge!("pointsman_retry_keys_waiting"));
        Self::with_writer(KeyWriter::without_file(ring), limits)
    }

    /// Like [`KeyLog::new`], with a file that no store lists.
    #[cfg(test)]
    pub(super) fn open(path: &std::path::Path, limits: &Limits) -> Result<Arc<Self>, KeyFileError> {
        Self::new(super::key_file::KeyFile::open(path, limits.retry_keys_file_bytes_max, true)?, limits)
    }

    /// Simulates a write to the file that hangs until the result is dropped.
    #[cfg(test)]
    pub(super) fn hold_file(&self) -> (MutexGuard<'_, Option<super::key_writer::OwnFile>>,) {
        (self.writer.file(),)
    }

    /// See [`KeyWriter::kill`].
    #[cfg(test)]
    pub(super) fn kill(&self) {
        self.writer.kill();
    }

    /// A log that begins with the records that wait in the opened file.
    pub(super) fn new(opened: Opened, limits: &Limits) -> Result<Arc<Self>, KeyFileError> {
        let Opened { file, tag: _, stored, waiting, last, unnoted, skipped, damage } = opened;
        metrics::counter!("pointsman_retry_keys_skipped_total").increment(skipped);
        if skipped > 0 {
            let path = file.path().display();
            tracing::warn!(%path, skipped, "records of retry keys were torn and are skipped: a power cut may lose the last second");
        }
        if !waiting.is_empty() {
            tracing::info!(keys = waiting.len(), "retry keys of requests that legacy took are moved to the store");
        }
        let mut ring = Ring::in_memory(file.records(), metrics::gauge!("pointsman_retry_keys_waiting"));
        // Numbers that are missing between the records belong to torn ones, whose content is lost already.
        ring.stored = waiting.first().map_or(last, |first| first.seq - 1).max(stored);
        ring.waiting_keys = waiting.iter().map(|record| (record.key, record.seq)).collect();
        ring.waiting = waiting.into();
        ring.unnoted = UnnotedTimes::read(unnoted);
        ring.record_damage(file.path(), damage);
        ring.generation = file.generation();
        ring.path = Some(file.path().to_owned());
        Ok(Self::with_writer(KeyWriter::start(ring, file, Duration::from_secs(limits.retry_window_s))?, limits))
    }

    fn with_writer(writer: Arc<KeyWriter>, limits: &Limits) -> Arc<Self> {
        let window = Duration::from_secs(limits.retry_window_s);
        let stored = {
            let ring = writer.ring();
            metrics::gauge!("pointsman_retry_keys_room").set(ring.records as f64);
            ring.gauge.set(ring.waiting.len() as f64);
            ring.stored
        };
        let progress = watch::Sender::new(Progress { stored, refused: 0 });
        Arc::new(Self { writer, progress, window, list: KeyFileList::default() })
    }

    /// Copies the waiting records of an ended process to this process's file, and marks them in the other file as
    /// stored. Returns whether all were copied and marked; otherwise the other file is unchanged.
    pub(super) fn take_over(&self, opened: &Opened) -> bool {
        let path = opened.file.path().display();
        self.raise_generation(opened.file.generation());
        // Written on this thread: the process has not started yet.
        for record in &opened.waiting {
            let _written_below = self.note_at(record.key, record.at);
        }
        // Synced here first: once the old file says that they are stored, only this file has them.
        let mut synced = self.writer.write_all_and_sync();
        if opened.waiting.iter().any(|record| !self.ring().waiting_keys.contains_key(&record.key)) {
            tracing::error!(
                %path,
                "retry keys that an earlier process left stay in its file, because this process's file is full or \
                 cannot be written"
            );
            return false;
        }
        {
            let mut ring = self.ring();
            ring.record_damage(opened.file.path(), opened.damage.clone());
            for (route, at) in &opened.unnoted {
                ring.unnoted.set(*route, ServedUnnoted::by_earlier_process(*at).at);
            }
            ring.unnoted.write_exact_times(true);
        }
        if !opened.unnoted.is_empty() {
            synced = synced.and_then(|()| self.writer.write_all_and_sync());
        }
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
        self.writer.ring()
    }

    /// Begins to note that legacy takes this first try: it is noted once [`KeyLog::wait_until_noted`] says so.
    pub(super) fn note(&self, key: RetryKey) -> NoteStatus {
        self.note_at(key, clock::now())
    }

    /// See [`KeyWriter::wait_until_noted`].
    pub(super) async fn wait_until_noted(&self, note: NoteStatus) -> bool {
        self.writer.wait_until_noted(note).await
    }

    fn note_at(&self, key: RetryKey, at: Timestamp) -> NoteStatus {
        let mut ring = self.ring();
        if ring.waiting_keys.contains_key(&key) {
            return NoteStatus::Noted;
        }
        if ring.refuses_keys {
            return NoteStatus::Refused; // no later process would find the key in the file
        }
        ring.find_stall(NOTE_WAIT_MAX);
        if ring.pending.is_stored(&key) || ring.has_just_stored(&key, self.window) {
            return NoteStatus::Noted;
        }
        if !ring.has_unstored(&key) && !ring.has_room() {
            ring.log_failure("it is full: the store takes nothing", None);
            if ring.is_stalled() {
                self.writer.key_added.notify_one(); // the store may take pending keys
            }
            return NoteStatus::Refused;
        }
        if ring.path.is_none() {
            let seq = ring.last() + 1;
            ring.add(Record { seq, at, key });
            ring.end_failure();
            drop(ring);
            self.writer.key_added.notify_one();
            return NoteStatus::Noted;
        }
        ring.add_pending(key, at);
        // Nobody waits for a write that hangs; if it ends, the key is written after all.
        let note = match ring.stall {
            Stall::Stalled => NoteStatus::Refused,
            Stall::None | Stall::StoreTakesPending => {
                ring.pending.wait_for(&key).map_or(NoteStatus::Refused, |written| NoteStatus::Pending(key, written))
            }
        };
        let is_stalled = ring.is_stalled();
        drop(ring);
        self.writer.wake();
        if is_stalled {
            self.writer.key_added.notify_one(); // the store may take it
        }
        note
    }

    /// Whether legacy took, or is taking, a first try with this key and the store may not have it yet.
    pub(super) fn is_unstored(&self, key: &RetryKey) -> bool {
        self.ring().has_unstored(key)
    }

    /// The time of the first try with this key, if legacy took it and the store may not have it yet.
    pub(super) fn first_noted_at(&self, key: &RetryKey) -> Option<Timestamp> {
        self.ring().taken_at(key)
    }

    /// The keys that wait for the store, each with the time of its first try.
    pub(super) fn waiting(&self) -> Vec<(RetryKey, Timestamp)> {
        self.ring().waiting.iter().map(|record| (record.key, record.at)).collect()
    }

    /// Records that legacy serves a request of a route now although these keys of the request are not noted. Returns
    /// whether that is to be written to the file ([`KeyLog::wait_until_written`]): not if all of these keys are still
    /// being written (they are noted when those writes end), or if the store has taken them meanwhile.
    pub(super) fn record_served_unnoted(&self, keys: &[RetryKey], route: &RouteId) -> bool {
        let is_to_write = self.ring().add_served_unnoted(keys, SlotRoute::of(route), clock::now(), self.window);
        if is_to_write {
            self.writer.wake();
        }
        is_to_write
    }

    /// See [`KeyWriter::wait_until_written`].
    pub(super) async fn wait_until_written(&self) {
        self.writer.wait_until_written().await;
    }

    /// Has this generation of the store written to the file.
    pub(super) fn write_generation(&self, generation: u64) {
        {
            let mut ring = self.ring();
            ring.generation_to_write = ring.path.is_some().then_some(generation);
        }
        self.writer.wake();
    }

    /// How long after a first try the client may repeat it.
    pub(super) fn window(&self) -> Duration {
        self.window
    }

    /// Waits until the store has all keys that are noted now, or a write to the store fails. Keys that are being
    /// written are waited for, also if the disk hangs, until they are written or the store has them. Returns whether
    /// the store has them.
    pub(super) async fn flush(&self) -> bool {
        self.writer.wait_for_pending().await;
        let last = self.ring().last();
        let mut progress = self.progress.subscribe();
        let refused = progress.borrow().refused;
        let ended = progress.wait_for(|now| now.stored >= last || now.refused > refused).await;
        ended.is_ok_and(|now| now.stored >= last)
    }

    /// How many keys neither the file nor the store has: if the process ends now, they are lost.
    pub(super) fn unwritten(&self) -> usize {
        self.ring().pending.unstored_count()
    }

    /// Records in the store's list that the store has all records, if no request that was served unnoted may be
    /// retried; then no key can be noted afterwards. Returns whether the list says so. Waits while the disk hangs.
    pub(super) async fn finish(&self, store: &StoreHandle) -> bool {
        // The times of routes that were served unnoted are kept nowhere but in the file.
        let is_to_write = {
            let mut ring = self.ring();
            ring.unnoted.write_exact_times(true);
            ring.unnoted.is_to_write()
        };
        if is_to_write {
            self.writer.wait_for_all().await;
        }
        {
            let mut ring = self.ring();
            if !ring.all_stored() || ring.unnoted.may_be_retried(self.window) {
                return false;
            }
            ring.refuses_keys = true;
        }
        self.list.record_own_stored(store.is_shared());
        self.list.write(store).await
    }

    /// Refuses further keys, and unlocks the file once what is outstanding is written. Returns whether that was done
    /// `within` this time.
    pub(super) async fn release(&self, within: Duration) -> bool {
        self.ring().refuses_keys = true;
        self.end_move_to_store();
        self.writer.end();
        self.writer.wait_until_released(within).await
    }

    /// Lets [`KeyLog::move_to_store`] end: it moves the waiting keys until none is left or a write to the store fails.
    pub(super) fn end_move_to_store(&self) {
        {
            let mut ring = self.ring();
            ring.mover_may_end = true;
            ring.unnoted.write_exact_times(true);
        }
        self.writer.wake();
        self.writer.key_added.notify_one();
    }

    /// Moves waiting keys to the store until [`KeyLog::end_move_to_store`] is called. `taken_by_runs` gets the keys
    /// that runs of other processes have taken in the store.
    pub(super) async fn move_to_store(self: Arc<Self>, store: StoreHandle, taken_by_runs: impl Fn(Vec<RetryKey>)) {
        let failures = RepeatedFailures::default();
        loop {
            let listed = self.list.write(&store).await;
            let (mut batch, last, pending, may_end) = {
                let mut ring = self.ring();
                ring.remove_expired(self.window);
                let batch: Vec<_> = ring.waiting.iter().take(BATCH_MAX).map(|r| (r.key, r.at)).collect();
                // While the disk hangs, pending keys go to the store directly: a key that the store has counts as
                // noted.
                let pending = if ring.is_stalled() { ring.pending.first_unstored(BATCH_MAX) } else { Vec::new() };
                (
                    batch,
                    ring.waiting.iter().take(BATCH_MAX).next_back().map(|record| record.seq),
                    pending,
                    ring.mover_may_end,
                )
            };
            if batch.is_empty() && pending.is_empty() {
                self.advance(None);
                if may_end {
                    return;
                }
                match listed {
                    true => self.writer.key_added.notified().await,
                    // Writes the list again after a pause, even if no key comes.
                    false => drop(tokio::time::timeout(RETRY_PAUSE, self.writer.key_added.notified()).await),
                }
                continue;
            }
            batch.extend_from_slice(&pending);
            let began = Instant::now();
            match store.note_legacy_tries(batch).await {
                Ok(of_runs) => {
                    self.ring().set_pending_stored(&pending, began.elapsed() < STORE_QUICK_MAX);
                    self.writer.pending_changed.notify_waiters();
                    self.advance(last);
                    taken_by_runs(of_runs); // from now on they do not wait here either
                }
                Err(error) => {
                    if let Some(unlogged) = failures.count(&error.0) {
                        let waiting = self.ring().waiting.len();
                        tracing::warn!(%error, waiting, unlogged, "the store did not take retry keys of legacy; they wait in their file and are tried again");
                    }
                    self.ring().set_store_refuses();
                    self.progress.send_modify(|progress| progress.refused += 1);
                    if may_end {
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
        self.writer.wake();
        self.progress.send_modify(|progress| progress.stored = stored);
    }
}

impl Drop for KeyLog {
    fn drop(&mut self) {
        self.writer.end();
    }
}

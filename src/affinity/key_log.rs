//! First tries that legacy took, until the store has them.
//!
//! The question it answers: "would the next process know that legacy took this?" Always true: [`KeyLog::note`] returns
//! `Ok` only after the record is written to the file (kill -9 and a full disk do not lose it); a record that the store
//! does not have yet is never written over, so a full ring refuses; what waits for the store is also known in memory.
//!
//! When the store is slow or gone, keys wait in the ring, which is as large as the file. When the file cannot be
//! written, noting fails, and the caller decides.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::Thread;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Notify, watch};

use super::key_file::{KeyFile, KeyFileError, Opened, Record, UnnotedRoute};
use crate::clock;
use crate::flag::RetryKey;
use crate::limits::Limits;
use crate::names::RouteId;
use crate::store::SharedStore;

/// Keys written to the store together: few enough that no append waits for long.
const BATCH_MAX: usize = 512;
/// While the store takes nothing it is asked this often, and the file is synced this often.
const AGAIN: Duration = Duration::from_secs(1);
/// A route that was served unnoted is written down this often at most, and as served so much later.
const UNNOTED_EVERY: Duration = Duration::from_secs(60);
/// Files of processes on the same store in one directory.
const FILES_MAX: usize = 64;
/// The ring of a process that keeps no file.
const RECORDS_IN_MEMORY: u64 = 1 << 18;

/// A key could not be noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotNoted;

/// See the module.
pub struct KeyLog {
    ring: Mutex<Ring>,
    more: Notify,
    progress: watch::Sender<Progress>,
    window: Duration,
    /// Who syncs the file.
    syncs: OnceLock<Thread>,
}

struct Ring {
    file: Option<KeyFile>,
    records: u64,
    /// All records up to this number are in the store.
    stored: u64,
    /// Those after it, in order.
    waiting: VecDeque<Record>,
    known: HashMap<RetryKey, u64>,
    unnoted: HashMap<UnnotedRoute, Timestamp>,
    /// Those of them that the file does not have.
    unnoted_unwritten: Vec<UnnotedRoute>,
    written_since_sync: bool,
    failing: bool,
    closed: bool,
    gauge: metrics::Gauge,
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

    /// Opens the file of this process, and makes it where it is not there.
    ///
    /// # Errors
    /// Another process uses it, or it cannot be made at its full size.
    pub fn open(path: &Path, limits: &Limits) -> Result<Arc<Self>, KeyFileError> {
        let opened = KeyFile::open(path, limits.retry_keys_file_bytes_max, true)?;
        Ok(Self::new(Some(opened), limits))
    }

    /// The same in a directory that several processes on one store may share: takes the first file that nobody has,
    /// and takes over what other processes that are gone have left in theirs.
    ///
    /// # Errors
    /// As [`KeyLog::open`], or too many processes have files there.
    pub fn open_in(dir: &Path, store_secret: &[u8; 32], limits: &Limits) -> Result<Arc<Self>, KeyFileError> {
        let id = blake3::derive_key("pointsman 2026 name of the file of retry keys", store_secret);
        let id = u64::from_le_bytes([id[0], id[1], id[2], id[3], id[4], id[5], id[6], id[7]]);
        let path = |n: usize| dir.join(format!("pointsman-{id:016x}-{n}.keys"));
        let bytes_max = limits.retry_keys_file_bytes_max;
        let mut own: Option<Arc<Self>> = None;
        for n in 0..FILES_MAX {
            match (KeyFile::open(&path(n), bytes_max, own.is_none()), &own) {
                (Ok(opened), None) => own = Some(Self::new(Some(opened), limits)),
                (Ok(opened), Some(own)) => own.take_over(opened),
                (Err(KeyFileError::Locked(_)), _) => {}
                (Err(error), None) => return Err(error),
                // Not there, or not readable: then it stays for a process that can read it.
                (Err(KeyFileError::Io { source, .. }), Some(_)) if source.kind() == std::io::ErrorKind::NotFound => {}
                (Err(error), Some(_)) => tracing::warn!(%error, "retry keys of another process stay where they are"),
            }
        }
        own.ok_or_else(|| KeyFileError::Locked(path(FILES_MAX - 1)))
    }

    fn new(opened: Option<Opened>, limits: &Limits) -> Arc<Self> {
        let window = Duration::from_secs(limits.retry_window_s);
        let gauge = metrics::gauge!("pointsman_retry_keys_waiting");
        let mut ring = Ring {
            file: None,
            records: RECORDS_IN_MEMORY,
            stored: 0,
            waiting: VecDeque::new(),
            known: HashMap::new(),
            unnoted: HashMap::new(),
            unnoted_unwritten: Vec::new(),
            written_since_sync: false,
            failing: false,
            closed: false,
            gauge,
        };
        if let Some(Opened { file, stored, waiting, last, unnoted, skipped }) = opened {
            metrics::counter!("pointsman_retry_keys_skipped_total").increment(skipped);
            if skipped > 0 {
                let path = file.path().display();
                tracing::warn!(%path, skipped, "records of retry keys were torn and are skipped: a power cut may lose the last second");
            }
            if !waiting.is_empty() {
                tracing::info!(keys = waiting.len(), "retry keys that legacy took are moved to the store");
            }
            ring.records = file.records();
            // Numbers between records that were read belong to torn ones: nothing stands there that could be lost.
            ring.stored = waiting.first().map_or(last, |first| first.seq - 1).max(stored);
            ring.known = waiting.iter().map(|record| (record.key, record.seq)).collect();
            ring.waiting = waiting.into();
            ring.unnoted = unnoted.into_iter().collect();
            ring.file = Some(file);
        }
        metrics::gauge!("pointsman_retry_keys_room").set(ring.records as f64);
        ring.gauge.set(ring.waiting.len() as f64);
        let progress = watch::Sender::new(Progress { stored: ring.stored, refused: 0 });
        let log =
            Arc::new(Self { ring: Mutex::new(ring), more: Notify::new(), progress, window, syncs: OnceLock::new() });
        log.sync_every_second();
        log
    }

    /// Notes what a process that is gone has left, and says in its file that it is not needed there.
    fn take_over(&self, opened: Opened) {
        for record in &opened.waiting {
            if self.note_at(record.key, record.at).is_err() {
                return; // they stay there
            }
        }
        let mut ring = self.ring();
        for (route, at) in opened.unnoted {
            ring.set_unnoted(route, at);
        }
        drop(ring);
        if let Err(error) = opened.file.write_stored(opened.last) {
            tracing::warn!(%error, path = %opened.file.path().display(), "retry keys are taken over again at the next start");
        }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        // A panic of another holder leaves a record in the file and not in memory at worst: it is written over.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that legacy takes this first try: it is in the file when this returns.
    pub(super) fn note(&self, key: RetryKey) -> Result<(), NotNoted> {
        self.note_at(key, clock::now())
    }

    fn note_at(&self, key: RetryKey, at: Timestamp) -> Result<(), NotNoted> {
        let mut ring = self.ring();
        if ring.known.contains_key(&key) {
            return Ok(());
        }
        let seq = ring.last() + 1;
        if seq - ring.stored > ring.records {
            ring.fails("it is full: the store takes nothing", None);
            return Err(NotNoted);
        }
        let record = Record { seq, at, key };
        if let Some(file) = &ring.file
            && let Err(error) = file.write(&record)
        {
            ring.fails("it cannot be written", Some(&error));
            return Err(NotNoted);
        }
        if std::mem::take(&mut ring.failing) {
            tracing::info!("retry keys that legacy takes are noted again");
        }
        ring.known.insert(key, seq);
        ring.waiting.push_back(record);
        ring.written_since_sync = true;
        ring.gauge.set(ring.waiting.len() as f64);
        drop(ring);
        self.more.notify_one();
        Ok(())
    }

    /// Whether legacy took this first try and the store may not have it yet.
    pub(super) fn is_waiting(&self, key: &RetryKey) -> bool {
        self.ring().known.contains_key(key)
    }

    /// All that waits, with the time of each.
    pub(super) fn waiting(&self) -> Vec<(RetryKey, Timestamp)> {
        self.ring().waiting.iter().map(|record| (record.key, record.at)).collect()
    }

    /// Legacy serves a request of a route though its key could not be noted.
    pub(super) fn serve_unnoted(&self, route: &RouteId) {
        let now = clock::now();
        self.ring().set_unnoted(UnnotedRoute::of(route), now);
    }

    /// Until when a retry may come of a request of a route that legacy served though its key could not be noted.
    pub(super) fn unnoted_until(&self, route: &RouteId) -> Option<Timestamp> {
        let ring = self.ring();
        let served = [UnnotedRoute::of(route), UnnotedRoute::Any].iter().filter_map(|r| ring.unnoted.get(r)).max()?;
        served.checked_add(self.window).ok().filter(|until| *until > clock::now())
    }

    /// Waits until the store has all that was noted until now, or has refused some of it.
    pub(super) async fn flush(&self) {
        let wanted = self.ring().last();
        let mut progress = self.progress.subscribe();
        let refused = progress.borrow().refused;
        let _closed = progress.wait_for(|now| now.stored >= wanted || now.refused > refused).await;
    }

    /// Nothing more is noted: what waits is tried once more.
    pub(super) fn close(&self) {
        self.ring().closed = true;
        self.more.notify_one();
    }

    /// Moves what waits to the store, for as long as the log is open.
    pub(super) async fn move_to_store(self: Arc<Self>, store: SharedStore) {
        loop {
            let (batch, last, closed) = {
                let mut ring = self.ring();
                ring.forget_expired(self.window);
                let batch: Vec<RetryKey> = ring.waiting.iter().take(BATCH_MAX).map(|record| record.key).collect();
                (batch, ring.waiting.iter().take(BATCH_MAX).next_back().map(|record| record.seq), ring.closed)
            };
            let Some(last) = last else {
                self.advance(None);
                if closed {
                    return;
                }
                self.more.notified().await;
                continue;
            };
            match store.note_legacy_tries(batch).await {
                Ok(()) => self.advance(Some(last)),
                Err(error) => {
                    let waiting = self.ring().waiting.len();
                    tracing::warn!(%error, waiting, "retry keys of legacy are not in the store yet; they wait in their file");
                    self.progress.send_modify(|progress| progress.refused += 1);
                    if closed {
                        return;
                    }
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }

    /// The store has all records up to a number.
    fn advance(&self, stored: Option<u64>) {
        let mut ring = self.ring();
        if let Some(stored) = stored {
            ring.stored_through(stored);
        }
        let stored = ring.stored;
        drop(ring);
        self.progress.send_modify(|progress| progress.stored = stored);
    }

    /// Syncs the file from a thread of its own while something in it waits for the store.
    fn sync_every_second(self: &Arc<Self>) {
        let handle = match self.ring().file.as_ref().map(KeyFile::handle) {
            None => return,
            Some(Ok(handle)) => handle,
            Some(Err(error)) => return tracing::warn!(%error, "the file of retry keys is not synced"),
        };
        let log: Weak<Self> = Arc::downgrade(self);
        let syncs = move || {
            loop {
                std::thread::park_timeout(AGAIN);
                let Some(log) = log.upgrade() else { return };
                let mut ring = log.ring();
                ring.write_unnoted();
                let is_wanted = std::mem::take(&mut ring.written_since_sync) && !ring.waiting.is_empty();
                drop(ring);
                drop(log);
                if is_wanted && let Err(error) = handle.sync_data() {
                    tracing::warn!(%error, "the file of retry keys cannot be synced: a power cut may lose them");
                }
            }
        };
        match std::thread::Builder::new().name("retry-keys".into()).spawn(syncs) {
            Ok(thread) => drop(self.syncs.set(thread.thread().clone())),
            Err(error) => tracing::warn!(%error, "the file of retry keys is not synced"),
        }
    }
}

impl Drop for KeyLog {
    fn drop(&mut self) {
        // It holds the file, and with it the lock.
        if let Some(syncs) = self.syncs.get() {
            syncs.unpark();
        }
    }
}

impl Ring {
    fn last(&self) -> u64 {
        self.waiting.back().map_or(self.stored, |record| record.seq)
    }

    fn stored_through(&mut self, seq: u64) {
        while let Some(record) = self.waiting.pop_front_if(|record| record.seq <= seq) {
            if self.known.get(&record.key) == Some(&record.seq) {
                self.known.remove(&record.key);
            }
        }
        self.stored = self.stored.max(seq);
        self.gauge.set(self.waiting.len() as f64);
        // Not said, they are moved to the store once more by the next process, which changes nothing.
        if let Some(file) = &self.file
            && let Err(error) = file.write_stored(self.stored)
        {
            tracing::debug!(%error, "the file of retry keys does not know what is in the store");
        }
    }

    /// Lets go of those whose window is over: their retry would be a new request.
    fn forget_expired(&mut self, window: Duration) {
        let now = clock::now();
        let is_over = |record: &Record| record.at.checked_add(window).is_ok_and(|until| until <= now);
        let expired = self.waiting.iter().take_while(|record| is_over(record)).last().map(|record| record.seq);
        if let Some(seq) = expired {
            self.stored_through(seq);
        }
    }

    /// Says once that noting fails.
    fn fails(&mut self, why: &str, error: Option<&std::io::Error>) {
        if !std::mem::replace(&mut self.failing, true) {
            let path = self.file.as_ref().map(|file| file.path().display().to_string()).unwrap_or_default();
            let error = error.map(ToString::to_string);
            tracing::error!(
                %path, waiting = self.waiting.len(), error,
                "retry keys cannot be noted in their file: {why}; keyed requests of routes in `live` get 503 instead of legacy"
            );
        }
    }

    fn set_unnoted(&mut self, route: UnnotedRoute, at: Timestamp) {
        let known = self.unnoted.get(&route);
        if known.is_some_and(|known| *known >= at) {
            return;
        }
        // Later than it was, so that it need not be written for each request.
        let at = at.checked_add(UNNOTED_EVERY).unwrap_or(at);
        self.unnoted.insert(route, at);
        if !self.unnoted_unwritten.contains(&route) {
            self.unnoted_unwritten.push(route);
        }
        self.write_unnoted();
    }

    fn write_unnoted(&mut self) {
        let Some(file) = &mut self.file else { return self.unnoted_unwritten.clear() };
        let unnoted = &self.unnoted;
        self.unnoted_unwritten
            .retain(|route| unnoted.get(route).is_some_and(|at| file.write_unnoted(*route, *at).is_err()));
    }
}

//! Writes the ring of retry keys to its file, on a thread of its own.
//!
//! The question it answers: "is this key in the file?" Always true: no lock that a request needs is held during a write
//! to the file; a request waits for its key at most [`NOTE_WAIT_MAX`]. While an earlier write takes longer than that, a
//! request waits only if the store takes keys quickly meanwhile, because then its key counts as noted. So a disk that
//! begins to hang delays the requests that come at that moment, and later ones by one write to the store at most.
//!
//! Example: a request with the key K. `KeyLog::note` adds K to the pending keys and wakes the thread; the request
//! waits. The thread takes K, and other keys that came meanwhile, writes their records and then the number of the last
//! one, and adds them to the waiting records; the request goes on. If the disk hangs, the request goes on after a
//! second: its key counts as not noted until the record is written after all, or until the store has the key.

use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{Builder, Thread};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use super::key_file::{KeyFile, KeyFileError, Record};
use super::key_ring::{Outstanding, Ring, Written};
use crate::clock;
use crate::flag::RetryKey;

/// How long a request waits for its key to be written.
pub(super) const NOTE_WAIT_MAX: Duration = Duration::from_secs(1);
/// The interval at which the file is synced, and at which the times of the last request that a route served unnoted are
/// written again (`UnnotedTimes::write_exact_times`): exact times that have come, and times whose write failed. Keys
/// whose write failed are not tried again.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// The interval of checks whether the file is unlocked.
const RELEASE_POLL_INTERVAL: Duration = Duration::from_millis(2);

/// What is known at once about a key that is to be noted.
#[derive(Debug)]
pub(super) enum NoteStatus {
    /// The key is in the file, or the store has it, or there is no file.
    Noted,
    /// The key cannot be noted.
    Refused,
    /// The key is to be written. The receiver gets `true` if the file or the store has the key in the end.
    Pending(RetryKey, oneshot::Receiver<bool>),
}

/// The ring of retry keys, its file, and the notifications on which requests wait until their keys are noted.
pub(super) struct KeyWriter {
    ring: Mutex<Ring>,
    /// Locked during each write. Never locked while `ring` is locked, because requests wait for that lock.
    file: Mutex<Option<OwnFile>>,
    window: Duration,
    /// Wakes the task that moves keys to the store.
    pub key_added: Notify,
    /// Notified when keys have been written, or the store has some of those that are being written.
    pub pending_changed: Notify,
    write_thread: OnceLock<Thread>,
    sync_thread: OnceLock<Thread>,
    /// In a simulation there are no threads: whoever would wake the thread writes itself.
    #[cfg(test)]
    writes_at_once: bool,
}

/// Nothing is outstanding.
struct Idle {
    /// Nothing is added any more, so the threads end.
    has_ended: bool,
}

/// This process's file.
pub(super) struct OwnFile {
    file: KeyFile,
    /// What the file says: the store has all records up to this number.
    stored: u64,
}

impl KeyWriter {
    /// Creates a writer for keys that are kept in memory only.
    pub(super) fn without_file(ring: Ring) -> Arc<Self> {
        Self::new(ring, None, Duration::ZERO)
    }

    /// Starts the threads.
    pub(super) fn start(ring: Ring, file: KeyFile, window: Duration) -> Result<Arc<Self>, KeyFileError> {
        let path = file.path().to_owned();
        let failed = |what| move |source| KeyFileError::Thread { path, what, source };
        let handle = file.handle();
        let stored = ring.stored;
        let writer = Self::new(ring, Some(OwnFile { file, stored }), window);
        #[cfg(test)]
        if writer.writes_at_once {
            return Ok(writer);
        }
        let of_thread = writer.clone();
        let write = Builder::new().name("retry-keys".into()).spawn(move || of_thread.write_until_ended());
        let write = write.map_err(failed("written"))?;
        let _only_set_here = writer.write_thread.set(write.thread().clone());
        let of_thread = writer.clone();
        let sync_until_ended = |handle: File| {
            Builder::new().name("retry-keys-sync".into()).spawn(move || of_thread.sync_until_ended(&handle))
        };
        match handle.and_then(sync_until_ended) {
            Ok(sync) => drop(writer.sync_thread.set(sync.thread().clone())),
            Err(error) => {
                tracing::warn!(%error, "the file of retry keys is not synced: a power cut may lose keys");
            }
        }
        Ok(writer)
    }

    fn new(ring: Ring, file: Option<OwnFile>, window: Duration) -> Arc<Self> {
        Arc::new(Self {
            ring: Mutex::new(ring),
            file: Mutex::new(file),
            window,
            key_added: Notify::new(),
            pending_changed: Notify::new(),
            write_thread: OnceLock::new(),
            sync_thread: OnceLock::new(),
            #[cfg(test)]
            writes_at_once: clock::simulated::is_on(),
        })
    }

    pub(super) fn ring(&self) -> MutexGuard<'_, Ring> {
        // A poisoned lock is usable: at worst a record is in the file and not in memory, and is overwritten.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the thread write what is outstanding.
    pub(super) fn wake(&self) {
        #[cfg(test)]
        if self.writes_at_once {
            while self.write_outstanding().is_ok() {}
            return;
        }
        if let Some(thread) = self.write_thread.get() {
            thread.unpark();
        }
    }

    /// Simulates a kill of the process: from now on nothing is written to the file, and what is in memory is lost. A
    /// write that has begun ends first.
    #[cfg(test)]
    pub(super) fn kill(&self) {
        let mut file = self.file();
        *file = None;
        let mut ring = self.ring();
        *ring = Ring::in_memory(ring.records, ring.gauge.clone());
    }

    /// Ends the threads once everything outstanding is written.
    pub(super) fn end(&self) {
        self.ring().threads_may_end = true;
        for thread in [&self.write_thread, &self.sync_thread] {
            thread.get().inspect(|thread| thread.unpark());
        }
    }

    /// After [`KeyWriter::end`]: waits until the file is unlocked. Returns whether that was `within` this time.
    pub(super) async fn wait_until_released(&self, within: Duration) -> bool {
        let until = Instant::now() + within;
        // A write that hangs keeps this locked.
        while !self.file.try_lock().is_ok_and(|file| file.is_none()) {
            if Instant::now() >= until {
                return false;
            }
            tokio::time::sleep(RELEASE_POLL_INTERVAL).await;
        }
        true
    }

    /// Waits for at most [`NOTE_WAIT_MAX`] until a key is noted. Returns whether it is: the file or the store has it.
    pub(super) async fn wait_until_noted(&self, note: NoteStatus) -> bool {
        let (key, mut written) = match note {
            NoteStatus::Noted => return true,
            NoteStatus::Refused => return false,
            NoteStatus::Pending(key, written) => (key, written),
        };
        match timeout(NOTE_WAIT_MAX, &mut written).await {
            Ok(told) => told.unwrap_or(false),
            Err(_) => {
                self.ring().record_stall(&key);
                self.key_added.notify_one(); // the store may take it
                // The key may have been written at this moment, or while the whole process was suspended.
                written.try_recv().unwrap_or(false)
            }
        }
    }

    /// Waits until what is outstanding now is written, or its writes have failed; for at most [`NOTE_WAIT_MAX`], and
    /// not while a write hangs.
    pub(super) async fn wait_until_written(&self) {
        if !self.ring().is_stalled() {
            let _in_time = timeout(NOTE_WAIT_MAX, self.wait_for_all()).await;
        }
    }

    /// Waits until what is outstanding now is written, or its writes have failed.
    pub(super) async fn wait_for_all(&self) {
        let written = {
            let mut ring = self.ring();
            if ring.path.is_none() {
                return;
            }
            let (tell, written) = oneshot::channel();
            ring.notify_when_written.push(tell);
            written
        };
        self.wake();
        let _writer_ended = written.await;
    }

    /// Waits until every pending key is written, or its write has failed, or the store has it.
    pub(super) async fn wait_for_pending(&self) {
        loop {
            let mut changed = std::pin::pin!(self.pending_changed.notified());
            changed.as_mut().enable();
            if self.ring().pending.unstored_count() == 0 {
                return;
            }
            self.wake();
            if timeout(NOTE_WAIT_MAX, changed).await.is_err() && self.ring().find_stall(NOTE_WAIT_MAX) {
                self.key_added.notify_one(); // the store may take them
            }
        }
    }

    /// Writes what is outstanding.
    ///
    /// # Errors
    /// Nothing is outstanding; the error says whether something may still be added.
    fn write_outstanding(&self) -> Result<(), Idle> {
        let mut file = self.file();
        let outstanding = {
            let mut ring = self.ring();
            // Both are read under one lock, so that whatever is added before the end is written.
            ring.take_outstanding().ok_or(Idle { has_ended: ring.threads_may_end })
        }?;
        let written = match &mut *file {
            Some(file) => self.write(file, &outstanding),
            None => Written::default(),
        };
        self.ring().set_written(outstanding, written);
        self.key_added.notify_one();
        self.pending_changed.notify_waiters();
        Ok(())
    }

    /// Writes on the calling thread until nothing is outstanding, and syncs the file. For the start of a process.
    pub(super) fn write_all_and_sync(&self) -> std::io::Result<()> {
        while self.write_outstanding().is_ok() {}
        self.file().as_ref().map_or(Ok(()), |file| file.file.sync())
    }

    pub(super) fn file(&self) -> MutexGuard<'_, Option<OwnFile>> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, file: &mut OwnFile, outstanding: &Outstanding) -> Written {
        let mut written = Written { keys: file.write_keys(outstanding), ..Written::default() };
        let last = written.keys.iter().flatten().last().copied();
        written.any = last.is_some();
        // The store may have taken more records since `outstanding` was made.
        let stored = self.ring().stored;
        if let Err(error) =
            file.write_progress(stored, last.unwrap_or(outstanding.first_seq - 1), outstanding.generation)
        {
            // The records are in the file. If they are lost later (by a power cut), nothing shows that they were there.
            tracing::debug!(%error, "the numbers of the records were not written to the file of retry keys");
            if outstanding.generation.is_some() {
                tracing::warn!(%error, "the store's generation was not written to the file of retry keys: an older copy of the store may not be recognised");
            }
        }
        let now = clock::now();
        for (route, at) in &outstanding.unnoted {
            match file.file.write_unnoted(*route, *at, |at| clock::window_end(at, self.window) <= now) {
                Ok(()) => written.any = true,
                Err(_) => written.unnoted_failed.push(*route),
            }
        }
        written
    }

    fn write_until_ended(&self) {
        let mut written_at = Instant::now();
        loop {
            match self.write_outstanding() {
                Ok(()) => {}
                Err(Idle { has_ended: false }) => std::thread::park_timeout(SYNC_INTERVAL),
                Err(Idle { has_ended: true }) => {
                    *self.file() = None; // unlocks it
                    return;
                }
            }
            if written_at.elapsed() >= SYNC_INTERVAL {
                written_at = Instant::now();
                self.ring().unnoted.write_exact_times(false);
            }
        }
    }

    /// Syncs the file at intervals while it has something that the store does not have.
    fn sync_until_ended(&self, handle: &File) {
        loop {
            std::thread::park_timeout(SYNC_INTERVAL);
            let is_wanted = {
                let mut ring = self.ring();
                if ring.threads_may_end {
                    return;
                }
                let has_more_than_store = !ring.waiting.is_empty() || !ring.unnoted.is_empty();
                std::mem::take(&mut ring.written_since_sync) && has_more_than_store
            };
            if is_wanted && let Err(error) = handle.sync_data() {
                tracing::warn!(%error, "the file of retry keys cannot be synced: a power cut may lose them");
            }
        }
    }
}

impl OwnFile {
    /// Writes the records of keys. Returns for each key the number of its record, or why it was not written.
    fn write_keys(&mut self, outstanding: &Outstanding) -> Vec<io::Result<u64>> {
        let Outstanding { keys, first_seq, stored, .. } = outstanding;
        let mut seq = *first_seq;
        let last = seq + keys.len() as u64 - 1;
        // The file must say that the store has a record before that record is overwritten: otherwise the next process
        // would count it as missing if this process is killed in between.
        if !keys.is_empty()
            && last > self.stored + self.file.records()
            && let Err(error) = self.write_progress(*stored, seq - 1, None)
        {
            return keys.iter().map(|_| Err(io::Error::new(error.kind(), error.to_string()))).collect();
        }
        let mut write = |(key, at): &(RetryKey, Timestamp)| {
            self.file.write(&Record { seq, at: *at, key: *key })?;
            seq += 1;
            Ok(seq - 1)
        };
        keys.iter().map(&mut write).collect()
    }

    fn write_progress(&mut self, stored: u64, last: u64, generation: Option<u64>) -> io::Result<()> {
        if let Some(generation) = generation {
            self.file.set_generation(generation);
        }
        self.file.write_progress(stored, last)?;
        self.stored = stored;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ring is full, the store takes a part of it, further keys come, and the process is killed while they are
    /// written.
    #[test]
    fn the_file_says_that_the_store_has_a_record_before_it_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.keys");
        let opened = KeyFile::open(&path, 65_536, true).unwrap();
        let records = opened.file.records();
        let mut own = OwnFile { file: opened.file, stored: 0 };
        let keys = |count: u64| (0..count).map(|n| (RetryKey([n as u8; 32]), clock::now())).collect();
        let outstanding = |first_seq, stored, count| Outstanding::of_keys(keys(count), first_seq, stored);
        assert!(own.write_keys(&outstanding(1, 0, records)).iter().all(Result::is_ok));
        own.write_progress(0, records, None).unwrap();
        assert!(own.write_keys(&outstanding(records + 1, 512, 10)).iter().all(Result::is_ok));
        drop(own);
        let opened = KeyFile::open(&path, 65_536, true).unwrap();
        assert_eq!((opened.damage, opened.stored, opened.last), (None, 512, records + 10));
    }
}

//! Writes the ring of retry keys to its file, on a thread of its own.
//!
//! The question it answers: "is this key in the file?" Always true: no lock is held during a write that a request could
//! wait for; a request waits for its key at most [`NOTE_WAIT_MAX`], and not at all while an earlier write takes longer
//! than that. A disk that hangs therefore delays the requests that come just then, and no others.
//!
//! Example: a request with the key K. `KeyLog::note` adds K to the pending keys and
//! wakes the thread; the request waits. The thread takes K, and other keys that came meanwhile, writes their records
//! and then the number of the last one, and adds them to the waiting records; the request goes on. If the disk hangs,
//! the request goes on after a second: its key counts as not noted, although the record may be written later.

use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{Builder, Thread};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use super::key_file::{KeyFile, Record};
use super::key_ring::{Outstanding, Ring, Written};
use crate::clock;
use crate::flag::RetryKey;

/// How long a request waits for its key to be written.
const NOTE_WAIT_MAX: Duration = Duration::from_secs(1);
/// The interval at which the file is synced, and at which writes that failed are tried again.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// A key that is being noted.
#[derive(Debug)]
pub(super) enum Note {
    /// It is in the file, or there is no file.
    Written,
    /// It cannot be noted.
    Refused,
    /// It is being written. The receiver is told whether that succeeded.
    Pending(RetryKey, oneshot::Receiver<bool>),
}

/// See the module.
pub(super) struct KeyWriter {
    ring: Mutex<Ring>,
    /// Locked while it is written to: never while `ring` is locked.
    file: Mutex<Option<KeyFile>>,
    window: Duration,
    /// Wakes the task that moves keys to the store.
    pub key_added: Notify,
    threads: OnceLock<[Thread; 2]>,
}

impl KeyWriter {
    pub(super) fn new(ring: Ring, file: Option<KeyFile>, window: Duration) -> Arc<Self> {
        let handle = file.as_ref().map(KeyFile::handle);
        let writer = Arc::new(Self {
            ring: Mutex::new(ring),
            file: Mutex::new(file),
            window,
            key_added: Notify::new(),
            threads: OnceLock::new(),
        });
        match handle {
            None => {}
            Some(Err(error)) => tracing::warn!(%error, "the file of retry keys is not synced"),
            Some(Ok(handle)) => writer.start(handle),
        }
        writer
    }

    fn start(self: &Arc<Self>, handle: File) {
        let (writer, syncer) = (self.clone(), self.clone());
        let write = Builder::new().name("retry-keys".into()).spawn(move || writer.write_until_ended());
        let sync = Builder::new().name("retry-keys-sync".into()).spawn(move || syncer.sync_until_ended(&handle));
        match (write, sync) {
            (Ok(write), Ok(sync)) => drop(self.threads.set([write.thread().clone(), sync.thread().clone()])),
            (Err(error), _) | (_, Err(error)) => {
                tracing::error!(%error, "the threads that write the file of retry keys could not be started");
            }
        }
    }

    pub(super) fn ring(&self) -> MutexGuard<'_, Ring> {
        // A poisoned lock is usable: at worst a record is in the file and not in memory, and is overwritten.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the thread write what is outstanding.
    pub(super) fn wake(&self) {
        if let Some([write, _]) = self.threads.get() {
            write.unpark();
        }
    }

    /// Ends the threads once everything outstanding is written.
    pub(super) fn end(&self) {
        self.ring().ended = true;
        for thread in self.threads.get().into_iter().flatten() {
            thread.unpark();
        }
    }

    /// Whether a key that is being noted is in the file in the end. Waits for at most [`NOTE_WAIT_MAX`].
    pub(super) async fn is_written(&self, note: Note) -> bool {
        let (key, written) = match note {
            Note::Written => return true,
            Note::Refused => return false,
            Note::Pending(key, written) => (key, written),
        };
        match timeout(NOTE_WAIT_MAX, written).await {
            Ok(told) => told.unwrap_or(false),
            Err(_) => {
                self.ring().note_stall(&key);
                false
            }
        }
    }

    /// Waits until what is outstanding now is written, or its writes have failed; for at most [`NOTE_WAIT_MAX`], and not
    /// while a write hangs.
    pub(super) async fn wait_until_written(&self) {
        let written = {
            let mut ring = self.ring();
            if ring.path.is_none() || ring.is_stalled {
                return;
            }
            let (tell, written) = oneshot::channel();
            ring.told_when_written.push(tell);
            written
        };
        self.wake();
        let _in_time = timeout(NOTE_WAIT_MAX, written).await;
    }

    /// Writes what is outstanding. Returns whether anything was.
    fn write_outstanding(&self) -> bool {
        let mut file = self.file();
        // Bound first, so that the ring is not locked during the writes.
        let outstanding = self.ring().take_outstanding();
        let Some(outstanding) = outstanding else { return false };
        let written = match &mut *file {
            Some(file) => self.write(file, &outstanding),
            None => Written::default(),
        };
        self.ring().set_written(outstanding, written);
        self.key_added.notify_one();
        true
    }

    /// Writes on the calling thread until nothing is outstanding, and syncs the file. For the start of a process.
    pub(super) fn write_all_and_sync(&self) -> std::io::Result<()> {
        while self.write_outstanding() {}
        self.file().as_ref().map_or(Ok(()), KeyFile::sync)
    }

    pub(super) fn file(&self) -> MutexGuard<'_, Option<KeyFile>> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, file: &mut KeyFile, outstanding: &Outstanding) -> Written {
        let mut written = Written::default();
        let mut seq = outstanding.first_seq;
        for (key, at) in &outstanding.keys {
            let result = file.write(&Record { seq, at: *at, key: *key }).map(|()| seq);
            if result.is_ok() {
                seq += 1;
                written.any = true;
            }
            written.keys.push(result);
        }
        if let Some(generation) = outstanding.generation {
            file.set_generation(generation);
        }
        // Read after the records are written: the store may have got others meanwhile.
        let stored = self.ring().stored;
        if let Err(error) = file.write_progress(stored, seq - 1) {
            // The records are in the file. If they are lost later (by a power cut), nothing shows that they were there.
            tracing::debug!(%error, "the numbers of the records were not written to the file of retry keys");
            if outstanding.generation.is_some() {
                tracing::warn!(%error, "the store's generation was not written to the file of retry keys: an older copy of the store may not be recognised");
            }
        }
        let now = clock::now();
        for (route, at) in &outstanding.unnoted {
            match file.write_unnoted(*route, *at, |at| clock::window_end(at, self.window) <= now) {
                Ok(()) => written.any = true,
                Err(_) => written.unnoted_failed.push(*route),
            }
        }
        written
    }

    fn write_until_ended(&self) {
        let mut settled = Instant::now();
        loop {
            if !self.write_outstanding() {
                if self.ring().ended {
                    *self.file() = None; // unlocks it
                    return;
                }
                std::thread::park_timeout(SYNC_INTERVAL);
            }
            if settled.elapsed() >= SYNC_INTERVAL {
                settled = Instant::now();
                self.ring().settle_unnoted(false);
            }
        }
    }

    /// Syncs the file while it has something that the store does not have.
    fn sync_until_ended(&self, handle: &File) {
        loop {
            std::thread::park_timeout(SYNC_INTERVAL);
            let is_wanted = {
                let mut ring = self.ring();
                if ring.ended {
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

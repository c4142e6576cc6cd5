//! The only thread that writes. It is never cancelled.
//!
//! Always true: appends are acknowledged after their commit, and before the write-ahead log is copied to the database
//! (checkpoint); everything that waits is committed together (group commit) without an added delay, in the order of
//! [`super::queue`].
//!
//! When the disk is slow, the next batch is larger. When the disk is gone, each append gets an error that says what is
//! certain (not written, or outcome unknown), and a probe each second finds out when the disk is back. Before each
//! batch, and each second, it checks that the files are still at their paths.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::commit::Committer;
use super::file_lock::FileLock;
use super::other_writes;
use super::queue::{NextWork, Queue};
use crate::store::StoreError;
use crate::store::commit_age::CommitAge;

/// While no work waits, the interval of checks of the files, and of probes if the store is not healthy.
const IDLE_INTERVAL: Duration = Duration::from_secs(1);

/// While no work waits, the write-ahead log is copied to the database (checkpoint) once it has grown by this many
/// pages, so that under load little is left to copy.
const CHECKPOINT_IDLE_PAGES: u32 = 250;
/// Once the write-ahead log has grown by this many pages, it is copied to the database even if work waits.
const CHECKPOINT_PAGES: u32 = 1_000;

/// The thread's own state.
pub(super) struct Writer {
    pub(super) queue: Arc<Queue>,
    pub(super) committer: Committer,
    pub(super) healthy: Arc<AtomicBool>,
    /// Covers everything for which appends have to wait.
    pub(super) commit_age: Arc<CommitAge>,
    pub(super) batch_events: metrics::Histogram,
    /// Held until the last commit at least.
    pub(super) file_lock: Arc<FileLock>,
}

/// Fails all callers that wait when the thread ends, even by a panic.
struct AbandonOnDrop(Arc<Queue>, Arc<AtomicBool>);

impl Drop for AbandonOnDrop {
    fn drop(&mut self) {
        self.1.store(false, Ordering::Release);
        self.0.abandon();
    }
}

impl Writer {
    /// Starts the thread.
    pub(super) fn start(self) -> Result<(), StoreError> {
        let run = move || self.run();
        let started = std::thread::Builder::new().name("store-writer".into()).spawn(run);
        started.map(drop).map_err(|error| StoreError(format!("no thread for the store's writer: {error}")))
    }

    /// Runs until the queue is closed and empty.
    fn run(mut self) {
        let abandon = AbandonOnDrop(self.queue.clone(), self.healthy.clone());
        let on_closed = loop {
            // No probes while closing: a dead disk must not delay the end.
            let timeout = (!self.queue.is_closed()).then_some(IDLE_INTERVAL);
            match self.queue.next(timeout) {
                NextWork::Writes(batch, other) => {
                    self.commit_age.begin();
                    self.committer.check_files(&self.healthy);
                    if !batch.is_empty() {
                        self.batch_events.record(batch.iter().map(|append| append.count()).sum::<usize>() as f64);
                        self.committer.commit(batch, &self.healthy);
                    }
                    // One other write after each batch: appends cannot starve the other writes, and wait for one of
                    // them at most.
                    if let Some(other) = other {
                        self.commit_age.begin();
                        other_writes::perform(other, &mut self.committer, &self.healthy);
                    }
                    self.commit_age.begin();
                    let is_queue_empty = self.queue.is_empty();
                    self.committer.conn.checkpoint(if is_queue_empty {
                        CHECKPOINT_IDLE_PAGES
                    } else {
                        CHECKPOINT_PAGES
                    });
                    self.commit_age.end();
                }
                NextWork::TimedOut => {
                    self.commit_age.begin();
                    self.committer.check_files(&self.healthy);
                    if !self.healthy.load(Ordering::Acquire) {
                        self.committer.probe(&self.healthy);
                    }
                    self.commit_age.end();
                }
                NextWork::Closed(on_closed) => break on_closed,
            }
        };
        self.committer.close();
        drop(self.file_lock);
        drop(abandon);
        for done in on_closed {
            // The receiver may be dropped.
            let _ = done.send(());
        }
    }
}

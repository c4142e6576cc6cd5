//! The store in a SQLite file: keeps events durably, in order, each once.
//!
//! Always true: one thread writes, on one connection ([`writer`]); a commit is on disk before it is acknowledged; the
//! file belongs to this process alone ([`file_lock`]); a crash at any moment leaves whole appends.
//!
//! When the disk is slow, appends wait in a bounded queue and are committed together; a full queue refuses at once.
//! When it is full or gone, or a file is removed ([`open_files`]), each append gets an error that says whether it may
//! have been written ([`commit`]), and the writer probes the disk. Dropping a write's future drops only its reply.

mod adoption_writes;
mod adoptions;
mod backup;
mod capture_writes;
mod captures;
mod check;
mod commit;
mod connection;
mod coordination;
mod coordination_writes;
mod file_lock;
mod foreign_log;
mod index_room;
mod instance_writes;
mod instances;
mod migrations;
mod notifier;
mod open;
mod open_files;
mod other_writes;
mod path_with_suffix;
mod queue;
mod read;
mod read_only;
mod readers;
mod record_log;
mod restored;
mod run_snapshots;
mod service_caller_writes;
mod service_callers;
mod store_backup;
mod stored_state;
mod upgrade;
mod write_append;
mod write_error;
mod writer;

use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, ready};
use futures_util::{FutureExt, TryFutureExt};
use jiff::Timestamp;
use tokio::sync::{broadcast, oneshot};
use uuid::Uuid;

pub use self::backup::Copied;
use self::backup::KEY_FILES;
use self::commit::Committer;
use self::connection::Connection;
use self::encoded::{EncodedAppend, newest_expired};
use self::file_lock::FileLock;
use self::notifier::Notifier;
use self::other_writes::{OtherWrite, RecordWrite};
use self::queue::{Queue, QueueError, Sizes};
use self::readers::Readers;
use self::writer::Writer;
use super::coordination::NOTIFICATIONS_MAX;
use super::unpurgeable::Unpurgeable;
use super::write_error::WriteError;
use super::{
    Append, AppendError, CommitAge, DeclaredState, EvidenceRecord, FlipRecord, KeyFileRecord, PinCount, PinRecord,
    PlacedPin, PutFlips, Restored, RunFilter, SampleRecord, Store, StoreError, StoreIdentity, StoreNotification,
    StoreTime, StoredEvent, StoredFirstTry, codec, encoded, stall_text, summary, validate,
};
use crate::clock::RunningTimes;
use crate::flag::{Arm, PinKey, RetryKey};
use crate::limits::Limits;
use crate::names::{PlanId, RouteId, RunId, Seq};
use crate::workflow::{RunStatus, RunSummary};

#[cfg(test)]
pub(super) use self::connection::{Options, SYNCHRONOUS};
#[cfg(test)]
pub(super) use self::migrations::NEWEST_VERSION;
#[cfg(test)]
pub(super) use self::open::{migrate_to, setup_options};

type StoreFuture<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// A store in one SQLite file.
pub struct SqliteStore {
    queue: Arc<Queue>,
    readers: Readers,
    healthy: Arc<AtomicBool>,
    write_failure: Arc<Mutex<Option<String>>>,
    commit_age: Arc<CommitAge>,
    constants: open::Constants,
    retry_window: Duration,
    inline_bytes_max: usize,
    notifications: broadcast::Sender<StoreNotification>,
    queue_max: u64,
    duration: metrics::Histogram,
    unpurgeable: Unpurgeable,
    /// Released when the writer has ended and the readers are closed.
    file_lock: Mutex<Option<Arc<FileLock>>>,
}

impl SqliteStore {
    /// Opens or creates a database and starts its writer. Registers metrics, so the recorder must be installed before.
    ///
    /// # Errors
    /// It is in use, on a network file system, of a newer version or another program, or the disk fails: see the text.
    pub async fn open(path: impl AsRef<Path>, limits: &Limits) -> Result<Self, StoreError> {
        let path = file_lock::canonical_path(path.as_ref())?;
        Self::open_with(&path, limits, connection::Options::new(&path)).await
    }

    /// Opens an existing database for reading: nothing in it is changed, and writes are refused.
    ///
    /// # Errors
    /// As [`SqliteStore::open`]; or there is no database, or its tables have another version.
    pub async fn open_for_reading(path: impl AsRef<Path>, limits: &Limits) -> Result<Self, StoreError> {
        let path = file_lock::canonical_path(path.as_ref())?;
        let open::OpenedForReading { file_lock, readers, constants } = open::open_for_reading(&path).await?;
        let store = Self::without_writer(Arc::new(file_lock), readers, constants, limits);
        store.healthy.store(false, Ordering::Release);
        store.queue.abandon();
        Ok(store)
    }

    /// Opens a database at a canonical path, with these options of the writer's connection.
    pub(super) async fn open_with(
        path: &Path,
        limits: &Limits,
        options: connection::Options,
    ) -> Result<Self, StoreError> {
        let open::Opened { file_lock, writer, room, files, readers, constants } = open::open(path, &options).await?;
        let file_lock = Arc::new(file_lock);
        let mut store = Self::without_writer(file_lock.clone(), readers, constants, limits);
        let failed = |error: WriteError| StoreError(format!("cannot read {}: {}", path.display(), error.text()));
        let notifier = Notifier::load(&writer, store.notifications.clone()).map_err(failed)?;
        let committer = Committer::new(Connection::new(options, writer, files, room), notifier, store.retry_window);
        store.write_failure = committer.write_failure.clone();
        let (queue, healthy, commit_age) = (store.queue.clone(), store.healthy.clone(), store.commit_age.clone());
        let batch_events = metrics::histogram!("pointsman_append_batch_events");
        Writer { queue, committer, healthy, commit_age, batch_events, file_lock }.start()?;
        Ok(store)
    }

    /// The store before its writer is started.
    fn without_writer(file_lock: Arc<FileLock>, readers: Readers, constants: open::Constants, limits: &Limits) -> Self {
        Self {
            queue: Arc::new(Queue::new(Sizes::of(limits))),
            readers,
            healthy: Arc::new(AtomicBool::new(true)),
            write_failure: Arc::default(),
            commit_age: Arc::new(CommitAge::new(limits)),
            constants,
            retry_window: Duration::from_secs(limits.retry_window_s),
            inline_bytes_max: queue::size(limits.payload_inline_bytes_max).max(codec::INLINE_BYTES_MIN),
            notifications: broadcast::Sender::new(NOTIFICATIONS_MAX),
            queue_max: limits.append_queue_max,
            duration: metrics::histogram!("pointsman_append_duration_seconds"),
            unpurgeable: Unpurgeable::default(),
            file_lock: Mutex::new(Some(file_lock)),
        }
    }

    fn enqueue_append(&self, append: Arc<Append>) -> Result<oneshot::Receiver<Result<(), AppendError>>, AppendError> {
        let (reply, replied) = oneshot::channel();
        let encoded = EncodedAppend::new(append, self.inline_bytes_max, reply)?;
        self.queue.push(encoded).map_err(|error| AppendError::Refused(self.queue_error_text(error, "appends")))?;
        Ok(replied)
    }

    fn enqueue_write<T: Send + 'static>(
        &self,
        make: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> OtherWrite,
    ) -> BoxFuture<'_, Result<T, StoreError>> {
        let (reply, replied) = oneshot::channel();
        let sent =
            self.queue.push_other(make(reply)).map_err(|error| StoreError(self.queue_error_text(error, "writes")));
        async move {
            sent?;
            replied.await.unwrap_or_else(|_| Err(StoreError("the store's writer has ended".into())))
        }
        .boxed()
    }

    fn queue_error_text(&self, why: QueueError, what: &str) -> String {
        match why {
            QueueError::Full => format!("{} {what} wait already (append_queue_max)", self.queue_max),
            QueueError::Closed => "the store is closed".into(),
        }
    }

    /// Stops the writer from taking work, or lets it continue.
    #[cfg(test)]
    pub(super) fn pause_writer(&self, is_paused: bool) {
        self.queue.pause(is_paused);
    }

    fn write(&self, write: RecordWrite) -> BoxFuture<'_, Result<(), StoreError>> {
        self.enqueue_write(|reply| OtherWrite::Records(write, reply))
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        // The writer finishes what is queued.
        self.queue.close(None);
    }
}

impl Store for SqliteStore {
    fn append(&self, append: Arc<Append>) -> BoxFuture<'_, Result<(), AppendError>> {
        let began = Instant::now();
        let enqueued = self.enqueue_append(append);
        async move {
            let done = enqueued?
                .await
                .unwrap_or_else(|_| Err(AppendError::Unavailable("the store's writer has ended".into())));
            self.duration.record(began.elapsed());
            done
        }
        .boxed()
    }

    fn events(&self, run: RunId, from: Seq) -> StoreFuture<'_, Vec<StoredEvent>> {
        read::events(&self.readers, run, from).boxed()
    }

    fn run(&self, run: RunId) -> StoreFuture<'_, Option<RunSummary>> {
        read::run(&self.readers, run).boxed()
    }

    fn runs(&self, filter: RunFilter) -> StoreFuture<'_, Vec<RunSummary>> {
        read::runs(&self.readers, filter).boxed()
    }

    fn open_runs(&self) -> StoreFuture<'_, Vec<(RunStatus, u64)>> {
        read::open_runs(&self.readers).boxed()
    }

    fn time(&self) -> StoreFuture<'_, StoreTime> {
        async move { Ok(StoreTime::NewestEvent(read::newest_event(self.readers.pool()?).await?)) }.boxed()
    }
    fn running_times(&self) -> StoreFuture<'_, Option<RunningTimes>> {
        async move { read::running_times(self.readers.pool()?).await.map(Some) }.boxed()
    }
    fn put_running_times(&self, times: RunningTimes) -> StoreFuture<'_, ()> {
        self.write(RecordWrite::RunningTimes(times))
    }
    fn put_plan(&self, id: PlanId, source: serde_json::Value) -> StoreFuture<'_, ()> {
        self.write(RecordWrite::Plan(id, source))
    }
    fn plan(&self, id: PlanId) -> StoreFuture<'_, Option<serde_json::Value>> {
        read::plan(&self.readers, id).boxed()
    }
    fn put_run_key(&self, run: RunId, key: Option<Vec<u8>>) -> StoreFuture<'_, ()> {
        self.write(RecordWrite::RunKey(run, key))
    }
    fn run_key(&self, run: RunId) -> StoreFuture<'_, Option<Vec<u8>>> {
        read::run_key(&self.readers, run).boxed()
    }
    fn pin(&self, key: PinKey) -> StoreFuture<'_, Option<PinRecord>> {
        read::pin(&self.readers, key).boxed()
    }
    fn detach_twin(&self, key: PinKey) -> StoreFuture<'_, ()> {
        self.write(RecordWrite::DetachTwin(key))
    }
    fn pin_counts(&self) -> StoreFuture<'_, Vec<PinCount>> {
        read::pin_counts(&self.readers).boxed()
    }
    fn pinned(&self, after: u64, limit: usize) -> StoreFuture<'_, Vec<PlacedPin>> {
        read::pinned(&self.readers, after, limit).boxed()
    }

    fn pins(&self, family: RouteId, arm: Arm, limit: usize) -> StoreFuture<'_, Vec<PinRecord>> {
        read::pins(&self.readers, family, arm, limit).boxed()
    }

    fn first_try(&self, key: RetryKey) -> StoreFuture<'_, Option<StoredFirstTry>> {
        read::first_try(&self.readers, key, newest_expired(self.retry_window)).boxed()
    }

    fn engine_took_any(&self, range: RangeInclusive<RetryKey>) -> StoreFuture<'_, bool> {
        read::engine_took_any(&self.readers, range, newest_expired(self.retry_window)).boxed()
    }
    fn engine_took_any_after(&self, _legacy_key: RetryKey, range: RangeInclusive<RetryKey>) -> StoreFuture<'_, bool> {
        self.engine_took_any(range)
    }
    fn engine_tries(&self, after: Option<RetryKey>, limit: usize) -> StoreFuture<'_, Vec<(RetryKey, Timestamp)>> {
        read::engine_tries(&self.readers, newest_expired(self.retry_window), after, limit).boxed()
    }

    fn note_legacy_tries(&self, tries: Vec<(RetryKey, Timestamp)>) -> StoreFuture<'_, Vec<RetryKey>> {
        self.write(RecordWrite::LegacyTries(tries)).map_ok(|()| Vec::new()).boxed()
    }

    fn key_files(&self) -> StoreFuture<'_, Vec<KeyFileRecord>> {
        read::records(&self.readers, KEY_FILES, None, None).boxed()
    }
    fn put_key_files(&self, put: Vec<KeyFileRecord>, remove: Vec<Uuid>) -> StoreFuture<'_, ()> {
        self.write(RecordWrite::KeyFiles { put, remove })
    }
    fn identity(&self) -> StoreIdentity {
        self.constants.identity.clone()
    }
    fn restored(&self) -> Option<Restored> {
        self.constants.restored
    }

    fn put_flips(&self, put: PutFlips) -> StoreFuture<'_, Option<Vec<u64>>> {
        self.enqueue_write(|reply| OtherWrite::Flips(put, reply))
    }

    fn flips(&self, route: Option<RouteId>, limit: usize) -> StoreFuture<'_, Vec<FlipRecord>> {
        read::flips(&self.readers, route, limit).boxed()
    }

    fn last_flips(&self) -> StoreFuture<'_, Vec<FlipRecord>> {
        super::record_log::last_flips(self).boxed()
    }

    fn declared(&self) -> StoreFuture<'_, Vec<DeclaredState>> {
        let text = "SELECT route, CAST(record AS BLOB) FROM declared ORDER BY route";
        read::records_of_routes(&self.readers, "declared", text, |state: &DeclaredState| &state.route).boxed()
    }

    fn put_samples(
        &self,
        samples: Vec<SampleRecord>,
        per_fingerprint: usize,
        fingerprints: usize,
    ) -> StoreFuture<'_, ()> {
        self.write(RecordWrite::Samples { samples, per_fingerprint, fingerprints })
    }

    fn samples(&self, route: RouteId, limit: usize) -> StoreFuture<'_, Vec<SampleRecord>> {
        read::samples(&self.readers, route, limit).boxed()
    }

    fn sample_of_run(&self, run: RunId) -> StoreFuture<'_, Option<SampleRecord>> {
        read::sample_of_run(&self.readers, run).boxed()
    }

    fn clear_samples(&self, route: RouteId) -> StoreFuture<'_, ()> {
        self.write(RecordWrite::ClearSamples(route))
    }
    fn remove_samples_before(&self, at: Timestamp) -> StoreFuture<'_, ()> {
        self.write(RecordWrite::RemoveSamplesBefore(at))
    }

    fn put_evidence(&self, evidence: Vec<EvidenceRecord>) -> StoreFuture<'_, ()> {
        self.write(RecordWrite::Evidence(evidence))
    }

    fn evidence(&self) -> StoreFuture<'_, Vec<EvidenceRecord>> {
        let text = "SELECT route, CAST(record AS BLOB) FROM evidence ORDER BY route";
        read::records_of_routes(&self.readers, "evidence", text, |of: &EvidenceRecord| &of.route).boxed()
    }

    fn secret(&self) -> StoreFuture<'_, [u8; 32]> {
        ready(Ok(self.constants.secret)).boxed()
    }
    fn default_retention(&self) -> Option<Duration> {
        self.constants.default_retention
    }
    fn is_new(&self) -> bool {
        self.constants.is_new
    }
    fn healthy(&self) -> bool {
        self.healthy.load(Ordering::Acquire) && self.stalled_for().is_none()
    }
    fn write_failure(&self) -> Option<String> {
        match self.healthy.load(Ordering::Acquire) {
            true => self.stalled_for().map(stall_text),
            false => self.write_failure.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
    fn commit_age(&self) -> Option<&CommitAge> {
        Some(&self.commit_age)
    }
    fn close(&self) -> BoxFuture<'_, ()> {
        async move {
            // Closed before the writer, whose connection keeps `-wal` and `-shm` when it is the last one to close.
            self.readers.close().await;
            let (done, closed) = oneshot::channel();
            // The reply comes after everything that was queued. If the writer has ended there is nothing to wait for.
            self.queue.close(Some(done));
            let _ = closed.await;
            drop(self.file_lock.lock().unwrap_or_else(PoisonError::into_inner).take());
        }
        .boxed()
    }
}

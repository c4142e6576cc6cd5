//! The store in PostgreSQL: keeps events durably, in order, each once, while other processes write to the same
//! database.
//!
//! Always true: one task of this process writes appends, on one session ([`writer`], [`session`]); a commit is on disk
//! before it is acknowledged; what processes must not do together is prevented by unique keys and fencing tokens in the
//! database, never by a cache of one process; all times that decide are the database's.
//!
//! When the database is slow, appends wait in a bounded queue and are committed together; a full queue refuses at once.
//! When it is gone, each append gets an error that says what is certain ([`commit`]), within the bounds `store_*_ms`;
//! [`Store::healthy`] is false, and the writer probes until it is back. To drop an append's future cancels nothing.

mod acquire;
mod address;
mod adoptions;
mod batch_statement;
mod captures;
mod check;
mod checked_rows;
mod columns;
mod commit;
mod coordination;
mod first_tries;
mod instances;
mod lease_term;
mod notifier;
mod open;
mod opening;
mod pool;
mod pooler;
mod processes;
mod purge;
mod read;
mod record_log;
mod record_writes;
mod run_changes;
mod service_callers;
mod session;
mod shared_evidence;
mod stored_state;
mod summary_cache;
mod upgrade;
mod write_error;
mod writer;

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use jiff::Timestamp;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::acquire::WriterRequest;
use self::first_tries::FirstTries;
use self::lease_term::LeaseTerm;
use self::notifier::Notifier;
use self::pool::Pool;
use self::writer::WriterQueues;
use super::commit_age::{CommitAge, stall_text};
use super::encoded::EncodedAppend;
use super::unpurgeable::Unpurgeable;
use super::{
    Append, AppendError, DeclaredState, EvidenceRecord, FlipRecord, KeyFileRecord, PinCount, PinRecord, PlacedPin,
    Priority, PutFlips, RunFilter, SampleRecord, SharedEvidence, Store, StoreError, StoreFuture, StoreIdentity,
    StoreTime, StoredEvent, StoredFirstTry,
};
use crate::flag::{Arm, PinKey, RetryKey};
use crate::names::{PlanId, RouteId, RunId, Seq};
use crate::workflow::{RunStatus, RunSummary};

/// A store in a PostgreSQL database, which other processes may use at the same time.
pub struct PostgresStore {
    queues: WriterQueues,
    pool: Arc<Pool>,
    first_tries: FirstTries,
    /// The connection for leases: a busy pool delays none.
    leases: Pool,
    lease_term: Arc<LeaseTerm>,
    notifier: Notifier,
    healthy: Arc<AtomicBool>,
    /// The last error, to show to people.
    write_failure: Arc<Mutex<Option<String>>>,
    commit_age: Arc<CommitAge>,
    secret: [u8; 32],
    default_retention: Option<Duration>,
    is_new: bool,
    identity: StoreIdentity,
    retry_window_ns: i64,
    queue_max: u64,
    inline_bytes_max: usize,
    duration: metrics::Histogram,
    unpurgeable: Unpurgeable,
    stop_listening: CancellationToken,
}

impl PostgresStore {
    fn enqueue(&self, append: Arc<Append>) -> Result<oneshot::Receiver<Result<(), AppendError>>, AppendError> {
        let (reply, replied) = oneshot::channel();
        let queue = match append.priority {
            Priority::Real => &self.queues.real,
            Priority::Dark => &self.queues.dark,
        };
        queue.try_send(EncodedAppend::new(append, self.inline_bytes_max, reply)?).map_err(|error| {
            AppendError::Refused(match error {
                TrySendError::Full(_) => format!("{} appends wait already (append_queue_max)", self.queue_max),
                TrySendError::Closed(_) => "the store is closed".into(),
            })
        })?;
        Ok(replied)
    }
}

impl Drop for PostgresStore {
    fn drop(&mut self) {
        self.stop_listening.cancel();
    }
}

impl Store for PostgresStore {
    fn append(&self, append: Arc<Append>) -> BoxFuture<'_, Result<(), AppendError>> {
        let began = Instant::now();
        let enqueued = self.enqueue(append);
        async move {
            let done = enqueued?
                .await
                .unwrap_or_else(|_| Err(AppendError::Unavailable("the store's writer has ended".into())));
            self.duration.record(began.elapsed());
            done
        }
        .boxed()
    }

    fn events(&self, run: RunId, from: Seq) -> BoxFuture<'_, Result<Vec<StoredEvent>, StoreError>> {
        read::events(&self.pool, run, from).boxed()
    }

    fn run(&self, run: RunId) -> BoxFuture<'_, Result<Option<RunSummary>, StoreError>> {
        read::run(&self.pool, run).boxed()
    }

    fn runs(&self, filter: RunFilter) -> BoxFuture<'_, Result<Vec<RunSummary>, StoreError>> {
        read::runs(&self.pool, filter).boxed()
    }

    fn open_runs(&self) -> BoxFuture<'_, Result<Vec<(RunStatus, u64)>, StoreError>> {
        read::open_runs(&self.pool).boxed()
    }

    fn time(&self) -> BoxFuture<'_, Result<StoreTime, StoreError>> {
        self.server_time().boxed()
    }

    fn put_plan(&self, id: PlanId, source: serde_json::Value) -> BoxFuture<'_, Result<(), StoreError>> {
        record_writes::plan(&self.pool, id, source).boxed()
    }

    fn plan(&self, id: PlanId) -> BoxFuture<'_, Result<Option<serde_json::Value>, StoreError>> {
        read::plan(&self.pool, id).boxed()
    }

    fn put_run_key(&self, run: RunId, key: Option<Vec<u8>>) -> BoxFuture<'_, Result<(), StoreError>> {
        record_writes::run_key(&self.pool, run, key).boxed()
    }

    fn run_key(&self, run: RunId) -> BoxFuture<'_, Result<Option<Vec<u8>>, StoreError>> {
        read::run_key(&self.pool, run).boxed()
    }

    fn pin(&self, key: PinKey) -> BoxFuture<'_, Result<Option<PinRecord>, StoreError>> {
        read::pin(&self.pool, key).boxed()
    }

    fn detach_twin(&self, key: PinKey) -> BoxFuture<'_, Result<(), StoreError>> {
        record_writes::detach_twin(&self.pool, key).boxed()
    }

    fn pin_counts(&self) -> BoxFuture<'_, Result<Vec<PinCount>, StoreError>> {
        read::pin_counts(&self.pool).boxed()
    }

    fn pinned(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<PlacedPin>, StoreError>> {
        read::pinned(&self.pool, after, limit).boxed()
    }

    fn pins(&self, family: RouteId, arm: Arm, limit: usize) -> BoxFuture<'_, Result<Vec<PinRecord>, StoreError>> {
        read::pins(&self.pool, family, arm, limit).boxed()
    }

    fn first_try(&self, key: RetryKey) -> BoxFuture<'_, Result<Option<StoredFirstTry>, StoreError>> {
        self.first_tries.read(key).boxed()
    }

    fn engine_took_any(&self, range: RangeInclusive<RetryKey>) -> BoxFuture<'_, Result<bool, StoreError>> {
        read::engine_took_any(&self.pool, self.retry_window_ns, range).boxed()
    }

    fn engine_took_any_after(
        &self,
        legacy_key: RetryKey,
        range: RangeInclusive<RetryKey>,
    ) -> BoxFuture<'_, Result<bool, StoreError>> {
        read::engine_took_any_after(&self.pool, self.retry_window_ns, legacy_key, range).boxed()
    }

    fn engine_tries(
        &self,
        after: Option<RetryKey>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<(RetryKey, Timestamp)>, StoreError>> {
        read::engine_tries(&self.pool, self.retry_window_ns, after, limit).boxed()
    }

    fn note_legacy_tries(&self, tries: Vec<(RetryKey, Timestamp)>) -> StoreFuture<'_, Vec<RetryKey>> {
        record_writes::legacy_tries(&self.pool, tries, self.retry_window_ns).boxed()
    }

    fn key_files(&self) -> BoxFuture<'_, Result<Vec<KeyFileRecord>, StoreError>> {
        let text = "SELECT value FROM meta WHERE starts_with(key, 'key_file:') ORDER BY key";
        read::records(&self.pool, text, None, None).boxed()
    }

    fn put_key_files(&self, put: Vec<KeyFileRecord>, remove: Vec<Uuid>) -> BoxFuture<'_, Result<(), StoreError>> {
        record_writes::key_files(&self.pool, put, remove).boxed()
    }

    fn identity(&self) -> StoreIdentity {
        self.identity.clone()
    }

    fn put_flips(&self, put: PutFlips) -> BoxFuture<'_, Result<Option<Vec<u64>>, StoreError>> {
        record_writes::flips(&self.pool, put).boxed()
    }

    fn flips(&self, route: Option<RouteId>, limit: usize) -> BoxFuture<'_, Result<Vec<FlipRecord>, StoreError>> {
        checked_rows::flips(&self.pool, route, limit).boxed()
    }

    fn last_flips(&self) -> BoxFuture<'_, Result<Vec<FlipRecord>, StoreError>> {
        super::record_log::last_flips(self).boxed()
    }
    fn declared(&self) -> BoxFuture<'_, Result<Vec<DeclaredState>, StoreError>> {
        checked_rows::declared(&self.pool).boxed()
    }
    fn put_samples(
        &self,
        samples: Vec<SampleRecord>,
        per_fingerprint: usize,
        fingerprints: usize,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        record_writes::samples(&self.pool, samples, per_fingerprint, fingerprints).boxed()
    }

    fn samples(&self, route: RouteId, limit: usize) -> BoxFuture<'_, Result<Vec<SampleRecord>, StoreError>> {
        let text = "SELECT record FROM samples WHERE route = $1 ORDER BY pos DESC LIMIT $2";
        async move { read::records(&self.pool, text, Some(&route), Some(limit)).await }.boxed()
    }

    fn sample_of_run(&self, run: RunId) -> BoxFuture<'_, Result<Option<SampleRecord>, StoreError>> {
        read::sample_of_run(&self.pool, run).boxed()
    }

    fn clear_samples(&self, route: RouteId) -> BoxFuture<'_, Result<(), StoreError>> {
        record_writes::clear_samples(&self.pool, route).boxed()
    }
    fn remove_samples_before(&self, at: Timestamp) -> BoxFuture<'_, Result<(), StoreError>> {
        record_writes::remove_samples_before(&self.pool, at).boxed()
    }
    fn put_evidence(&self, evidence: Vec<EvidenceRecord>) -> BoxFuture<'_, Result<(), StoreError>> {
        record_writes::evidence(&self.pool, evidence).boxed()
    }

    fn evidence(&self) -> BoxFuture<'_, Result<Vec<EvidenceRecord>, StoreError>> {
        checked_rows::evidence(&self.pool).boxed()
    }
    fn shared_evidence(&self) -> Option<&dyn SharedEvidence> {
        Some(self)
    }

    fn secret(&self) -> BoxFuture<'_, Result<[u8; 32], StoreError>> {
        ready(Ok(self.secret)).boxed()
    }

    fn default_retention(&self) -> Option<Duration> {
        self.default_retention
    }
    fn is_new(&self) -> bool {
        self.is_new
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
            let (done, closed) = oneshot::channel();
            // Waits for room in the queue, because closing comes after what was queued. If the writer has ended there
            // is nothing to wait for.
            if self.queues.requests.send(WriterRequest::Close(done)).await.is_ok() {
                let _ = closed.await;
            }
            self.stop_listening.cancel();
            tokio::join!(self.pool.close(), self.leases.close());
        }
        .boxed()
    }
}

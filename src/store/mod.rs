//! Are these events durable, in this order, once?
//!
//! Always true: after [`Store::append`] returns `Ok`, a restart finds the events, contiguous from 1 in their run, and
//! the summary, pins and retry claim that came with them; a batch whose reply was lost and is appended again is
//! recognised by its batch id and not repeated. What events mean is `workflow`'s business.
//!
//! When the disk is slow, appends wait in a bounded queue and are committed together; when it is full or gone, the
//! caller gets [`AppendError::Refused`] (nothing was written, for sure) or [`AppendError::Unavailable`] (outcome
//! unknown: read back first).

mod append_row;
mod check;
mod codec;
mod coordination;
mod encoded;
mod error;
mod memory;
mod postgres;
mod records;
mod sqlite;
mod summary;
#[cfg(test)]
pub(crate) mod tests;
mod validate;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::Timestamp;

pub use check::{StoreChecked, StoreFinding};
pub use coordination::{News, Owned, Purged, Remains, Taken, Work, no_such_run, run_has_ended};
pub use error::{AppendError, Conflict, StoreError};
pub use memory::MemoryStore;
pub use postgres::PostgresStore;
pub use records::{
    Append, Birth, Claim, DeclaredState, EventsSize, EvidenceRecord, FileState, FlipRecord, LockChange, LockRow,
    NewPin, Notice, OrderRecord, PinRecord, Priority, ReplacedScope, RetryScopes, RunFilter, RunSnapshot, SampleRecord,
    StoredEvent,
};
pub use sqlite::SqliteStore;

use crate::flag::{Arm, PinKey, RetryKey};
use crate::names::{PlanId, RouteId, RunId, Seq};
use crate::workflow::{RunStatus, RunSummary};

/// What a store knows of the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreTime {
    /// Of a store that belongs to one process: when its newest event happened, where it has one.
    NewestEvent(Option<Timestamp>),
    /// Of a store that several processes share: what time it is for all of them.
    Now(Timestamp),
}

/// A first try that is remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstTry {
    /// Who took it.
    pub arm: Arm,
    /// The engine's run.
    pub run: Option<RunId>,
    /// A hash of the request, where the engine took it.
    pub request: Option<[u8; 32]>,
}

/// A pinned instance with its place in the order of pins, and the arm that owns it.
pub type PlacedPin = (u64, PinKey, Arm);

/// How many instances of a family an arm owns.
pub type PinCount = (RouteId, Arm, u64);

/// How long a store that is made new keeps runs after their end, where nobody says it.
pub const NEW_STORE_RETENTION: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// A shared store.
pub type SharedStore = Arc<dyn Store>;

/// The one truth about runs, flips, pins, retry keys, samples and evidence. The same contract tests run on every
/// implementation.
pub trait Store: Work {
    /// Appends events. After `Ok`, a restart finds them and all that came with them. The future may be dropped at
    /// any time: the writer goes on by itself.
    fn append(&self, append: Arc<Append>) -> BoxFuture<'_, Result<(), AppendError>>;
    /// The events of a run from a place on, in order. Empty where the run is unknown.
    fn events(&self, run: RunId, from: Seq) -> BoxFuture<'_, Result<Vec<StoredEvent>, StoreError>>;
    /// The summary of a run.
    fn run(&self, run: RunId) -> BoxFuture<'_, Result<Option<RunSummary>, StoreError>>;
    /// Summaries, newest first.
    fn runs(&self, filter: RunFilter) -> BoxFuture<'_, Result<Vec<RunSummary>, StoreError>>;
    /// How many durable runs have not ended, by status, in the order of statuses.
    fn open_runs(&self) -> BoxFuture<'_, Result<Vec<(RunStatus, u64)>, StoreError>>;
    /// What the store knows of the time.
    fn time(&self) -> BoxFuture<'_, Result<StoreTime, StoreError>> {
        Box::pin(std::future::ready(Ok(StoreTime::NewestEvent(None))))
    }
    /// Keeps a plan's source, by its id: a run keeps the plan that it started with. Durable before it returns.
    fn put_plan(&self, id: PlanId, source: serde_json::Value) -> BoxFuture<'_, Result<(), StoreError>>;
    /// A plan's source.
    fn plan(&self, id: PlanId) -> BoxFuture<'_, Result<Option<serde_json::Value>, StoreError>>;

    /// Keeps what opens a run's sealed credentials, itself sealed; `None` takes it away. Durable before it returns;
    /// gone with the commit that ends the run.
    fn put_run_key(&self, run: RunId, key: Option<Vec<u8>>) -> BoxFuture<'_, Result<(), StoreError>>;
    /// What opens a run's sealed credentials, while it has not ended.
    fn run_key(&self, run: RunId) -> BoxFuture<'_, Result<Option<Vec<u8>>, StoreError>>;

    /// Who owns an instance.
    fn pin(&self, key: PinKey) -> BoxFuture<'_, Result<Option<PinRecord>, StoreError>>;
    /// How many instances each arm owns, by family.
    fn pin_counts(&self) -> BoxFuture<'_, Result<Vec<PinCount>, StoreError>>;
    /// All pinned instances: at most so many, in the order in which they were pinned, after a place in it; each with its
    /// place.
    fn pinned(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<PlacedPin>, StoreError>>;
    /// Instances of a family owned by an arm, newest first.
    fn pins(&self, family: RouteId, arm: Arm, limit: usize) -> BoxFuture<'_, Result<Vec<PinRecord>, StoreError>>;

    /// Which arm took a first try, within the window.
    fn first_try(&self, key: RetryKey) -> BoxFuture<'_, Result<Option<FirstTry>, StoreError>>;
    /// First tries that runs claimed within the window, each with when it was claimed: at most so many, in the order of
    /// their keys, after a key.
    fn engine_tries(
        &self,
        after: Option<RetryKey>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<(RetryKey, Timestamp)>, StoreError>>;
    /// Notes first tries that legacy took. A key that the engine's run claimed stays the engine's.
    fn note_legacy_tries(&self, keys: Vec<RetryKey>) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Records flips in one transaction; returns their numbers, in order. Where `declared` is given it replaces what
    /// was remembered of the files, in the same transaction. Durable before it returns; all of it or nothing.
    fn put_flips(
        &self,
        flips: Vec<FlipRecord>,
        declared: Option<Vec<DeclaredState>>,
    ) -> BoxFuture<'_, Result<Vec<u64>, StoreError>>;
    /// Flips, newest first, of one route or of all.
    fn flips(&self, route: Option<RouteId>, limit: usize) -> BoxFuture<'_, Result<Vec<FlipRecord>, StoreError>>;
    /// The last flip of every route, and of the kill switch.
    fn last_flips(&self) -> BoxFuture<'_, Result<Vec<FlipRecord>, StoreError>>;
    /// What the files declared when they were last read.
    fn declared(&self) -> BoxFuture<'_, Result<Vec<DeclaredState>, StoreError>>;

    /// Keeps samples. The oldest of the same route and fingerprint beyond `per_fingerprint` go, and so do the least
    /// recent fingerprints of a route beyond `fingerprints`.
    fn put_samples(
        &self,
        samples: Vec<SampleRecord>,
        per_fingerprint: usize,
        fingerprints: usize,
    ) -> BoxFuture<'_, Result<(), StoreError>>;
    /// Samples of a route, newest first.
    fn samples(&self, route: RouteId, limit: usize) -> BoxFuture<'_, Result<Vec<SampleRecord>, StoreError>>;
    /// Drops the samples of a route: its evidence starts anew.
    fn clear_samples(&self, route: RouteId) -> BoxFuture<'_, Result<(), StoreError>>;
    /// Replaces the evidence of some routes.
    fn put_evidence(&self, evidence: Vec<EvidenceRecord>) -> BoxFuture<'_, Result<(), StoreError>>;
    /// All evidence.
    fn evidence(&self) -> BoxFuture<'_, Result<Vec<EvidenceRecord>, StoreError>>;

    /// The secret that keys shares, cohorts and idempotency keys: made at random on first use, the same ever after.
    fn secret(&self) -> BoxFuture<'_, Result<[u8; 32], StoreError>>;
    /// How long runs are kept after their end where nobody says it: [`NEW_STORE_RETENTION`] in a store that was made with
    /// it, for ever in one that is older.
    fn usual_retention(&self) -> Option<Duration> {
        None
    }
    /// A cheap look whether the store takes appends now.
    fn healthy(&self) -> bool;
    /// While it is not healthy: what it said when it last took nothing, where that is known.
    fn trouble(&self) -> Option<String> {
        None
    }
    /// Finishes what was handed in and closes. Appends after that are refused.
    fn close(&self) -> BoxFuture<'_, ()>;
}

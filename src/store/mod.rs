//! The store: keeps the events of runs durably, in order, each once.
//!
//! Always true: after [`Store::append`] returns `Ok`, a restart finds the events, numbered without a gap from 1 in
//! their run, and everything that was committed with them. An append that is retried after a lost reply is recognised
//! by its batch id and not repeated. What events mean is left to `workflow`.
//!
//! When the disk is slow, appends wait in a bounded queue and are committed together. When it is full or gone, the
//! caller gets [`AppendError::Refused`] (certainly nothing was written) or [`AppendError::Unavailable`] (unknown: read
//! the run back first).
//!
//! Tables and columns have the names of the schema's first version: `births` is the outbox of runs that are to be
//! created, `orders` are commands to runs, `notices` are messages to webhooks, `runs.turn` is when a run without an
//! owner is due (NULL while a process owns it), `runs.remains` is the input and output that a purged run keeps, and
//! `place` is the position in a lock's queue.

mod adoptions;
mod append_row;
mod bound_keys;
mod candidate_record;
mod captures;
mod check;
mod codec;
mod commit_age;
mod coordination;
mod declared_promote;
mod declared_state;
mod encoded;
mod error;
mod follower_requests;
mod guard_record;
mod instances;
mod judged_gate;
mod key_files;
mod memory;
mod open_creators;
mod open_plans;
mod pin_collisions;
mod postgres;
mod processes;
mod put_flips;
mod record_log;
mod records;
mod repeated_failures;
mod retry_scopes;
mod run_changes;
mod run_filter;
mod run_version;
mod sample_record;
mod service_callers;
mod shared_evidence;
mod sqlite;
mod summary;
#[cfg(test)]
pub(crate) mod tests;
mod unpurgeable;
mod validate;
mod write_error;

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use uuid::Uuid;

pub(crate) use adoptions::AdoptionCount;
pub use adoptions::{Adoption, AdoptionClaim, AdoptionOutcome, AdoptionState, AdoptionStore, NewAdoption, PinAdoption};
pub use bound_keys::{RetryKeyPage, RetryKeyPosition};
pub use candidate_record::{CandidateAction, CandidateRecord, candidate_key, route_of_candidate};
pub use captures::{CaptureBounds, CaptureRecord, CaptureStore};
pub use check::{StoreChecked, StoreFinding};
pub use commit_age::{CommitAge, stall_text};
pub use coordination::{
    AcquireResult, OwnedRun, Purged, RunBodies, RunCoordination, StoreNotification, no_such_run, run_has_ended,
};
pub use declared_promote::{DeclaredPromote, PromoteChange};
pub use declared_state::{DeclaredState, FileState, ForcedState, LiveBasis};
pub use error::{AppendConflict, AppendError, ClaimedRequest, StoreError};
pub use follower_requests::{EarlierFollowerRequests, FollowerRequests};
pub use guard_record::{GuardAction, GuardRecord, guard_key};
pub use instances::{InstanceChange, InstanceCount, InstanceStore, LegacyInstance};
pub use judged_gate::{JudgedCondition, JudgedGate};
pub use key_files::{KeyFileRecord, Restored, StoreIdentity, UnreadKeyFile};
pub use memory::MemoryStore;
pub use open_creators::{OpenCreators, families_of_open_runs};
pub use open_plans::{OpenPlans, child_plans_of, plans_of_open_runs};
pub use pin_collisions::{PinCollision, PinCollisionStore};
pub use postgres::PostgresStore;
pub use processes::{
    Announcement, GoneProcess, LivingProcess, LivingProcesses, ProcessRecord, ToldUnknownRetries, process_name,
};
pub use put_flips::{PutFlips, StandingAnnouncement};
pub use record_log::{ChainHead, CheckedRow, RecordEntry, RecordLog, UnreadableRow};
pub use records::{
    Append, Claim, CommandRecord, EventsSize, EvidenceRecord, FlipRecord, LockChange, LockRow, NewPin, OutboxRow,
    Overridden, PinRecord, Priority, RunSnapshot, StoredEvent, WebhookMessage,
};
pub use repeated_failures::RepeatedFailures;
pub use retry_scopes::{
    CohortRule, DroppedReason, ForcedCohort, ReplacedMatch, ReplacedScope, RetryScopes, UnrecordedBecause,
};
pub use run_changes::{ChangedRuns, RunCursor};
pub use run_filter::RunFilter;
pub use run_version::run_began_with;
pub use sample_record::{RehearsedChild, RehearsedEvent, SampleRecord};
pub use service_callers::{DECLARED, ServiceCaller, ServiceCallerStore, UNDER_WAY, WatchedTime};
pub use shared_evidence::{EvidenceReplacement, EvidenceVersion, SharedEvidence};
pub use sqlite::{Copied, SqliteStore};

use crate::clock::RunningTimes;
use crate::flag::{Arm, PinKey, RetryKey};
use crate::names::{PlanId, RouteId, RunId, Seq};
use crate::workflow::{RunStatus, RunSummary};

/// The time that a store can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreTime {
    /// In a store of one process: when its newest event happened, if it has one.
    NewestEvent(Option<Timestamp>),
    /// In a store that processes share: the current time by its server's clock.
    Now(Timestamp),
}

/// The first try of a request that carried a retry key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredFirstTry {
    /// The arm that took the first try.
    pub arm: Arm,
    /// The run, if the engine took it.
    pub run: Option<RunId>,
    /// A hash of the request, if the engine took it.
    pub request: Option<[u8; 32]>,
    /// When this was stored.
    pub at: Timestamp,
}

/// The position of a pin in the order of pins, the instance, and the arm that owns it.
pub type PlacedPin = (u64, PinKey, Arm);

/// How many instances of a family an arm owns.
pub type PinCount = (RouteId, Arm, u64);

/// How long a store that this version creates keeps runs after their end, unless the configuration says otherwise.
pub const NEW_STORE_RETENTION: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// What a method of a store returns.
type StoreFuture<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// A store to which several owners in this process refer; not "shared" as in [`RunCoordination::is_shared`].
pub type StoreHandle = Arc<dyn Store>;

/// Keeps runs, flips, pins, retry keys, samples and evidence. Every implementation passes the same contract tests.
pub trait Store:
    RunCoordination + InstanceStore + PinCollisionStore + AdoptionStore + RecordLog + ServiceCallerStore + CaptureStore
{
    /// Appends events. After `Ok`, a restart finds them and everything that was committed with them. Dropping the
    /// future does not cancel the write.
    fn append(&self, append: Arc<Append>) -> BoxFuture<'_, Result<(), AppendError>>;
    /// The events of a run from a seq on, in order. Empty if the run is unknown.
    fn events(&self, run: RunId, from: Seq) -> BoxFuture<'_, Result<Vec<StoredEvent>, StoreError>>;
    /// The summary of a run.
    fn run(&self, run: RunId) -> BoxFuture<'_, Result<Option<RunSummary>, StoreError>>;
    /// Summaries, newest first.
    fn runs(&self, filter: RunFilter) -> BoxFuture<'_, Result<Vec<RunSummary>, StoreError>>;
    /// The number of runs that have not ended, for each status, in the order of statuses.
    fn open_runs(&self) -> BoxFuture<'_, Result<Vec<(RunStatus, u64)>, StoreError>>;
    /// The time that the store can tell.
    fn time(&self) -> BoxFuture<'_, Result<StoreTime, StoreError>> {
        Box::pin(std::future::ready(Ok(StoreTime::NewestEvent(None))))
    }
    /// When processes of this store ran; `None` in a store that does not survive its process, or whose server tells the
    /// time.
    fn running_times(&self) -> BoxFuture<'_, Result<Option<RunningTimes>, StoreError>> {
        Box::pin(std::future::ready(Ok(None)))
    }
    /// Stores when processes of this store ran. Durable before it returns.
    fn put_running_times(&self, _times: RunningTimes) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(std::future::ready(Ok(())))
    }
    /// Stores a plan's source by its id, because a run keeps the plan that it started with. Durable before it returns.
    fn put_plan(&self, id: PlanId, source: serde_json::Value) -> BoxFuture<'_, Result<(), StoreError>>;
    /// A plan's source.
    fn plan(&self, id: PlanId) -> BoxFuture<'_, Result<Option<serde_json::Value>, StoreError>>;

    /// Stores the sealed key that decrypts a run's credentials; `None` removes it. Durable before it returns. The
    /// commit that ends the run removes it too.
    fn put_run_key(&self, run: RunId, key: Option<Vec<u8>>) -> BoxFuture<'_, Result<(), StoreError>>;
    /// The sealed key that decrypts a run's credentials.
    fn run_key(&self, run: RunId) -> BoxFuture<'_, Result<Option<Vec<u8>>, StoreError>>;

    /// The pin of an instance: which arm owns it; `None` if it is not pinned.
    fn pin(&self, key: PinKey) -> BoxFuture<'_, Result<Option<PinRecord>, StoreError>>;
    /// Records that the twin of an instance of legacy is incomplete: its pin stays, without a run. Changes nothing if
    /// the engine owns the instance, or if it has no pin. After this returns, a restart finds it so.
    fn detach_twin(&self, key: PinKey) -> BoxFuture<'_, Result<(), StoreError>>;
    /// The number of instances that each arm owns, for each family.
    fn pin_counts(&self) -> BoxFuture<'_, Result<Vec<PinCount>, StoreError>>;
    /// At most `limit` pins with a position after `after`, in the order in which they were made.
    fn pinned(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<PlacedPin>, StoreError>>;
    /// Instances of a family that an arm owns, newest first.
    fn pins(&self, family: RouteId, arm: Arm, limit: usize) -> BoxFuture<'_, Result<Vec<PinRecord>, StoreError>>;

    /// The first try with this key, if the key is bound: for the retry window after the first try, and if a run claimed
    /// it, while the newest run of that run's job is open and for the retry window after its end.
    fn first_try(&self, key: RetryKey) -> BoxFuture<'_, Result<Option<StoredFirstTry>, StoreError>>;
    /// Whether a run that was not abandoned claimed a bound key in this range.
    fn engine_took_any(&self, range: RangeInclusive<RetryKey>) -> BoxFuture<'_, Result<bool, StoreError>>;
    /// Like [`Store::engine_took_any`]. `legacy_key` is a key that the store has as legacy's: in a store that several
    /// processes share, this waits for the appends under way that may not have found it ([`Claim::legacy_keys`]), so
    /// that they count too. No append waits for this.
    fn engine_took_any_after(
        &self,
        legacy_key: RetryKey,
        range: RangeInclusive<RetryKey>,
    ) -> BoxFuture<'_, Result<bool, StoreError>>;
    /// At most `limit` keys after `after` that runs claimed within the retry window, in order, each with its time.
    fn engine_tries(
        &self,
        after: Option<RetryKey>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<(RetryKey, Timestamp)>, StoreError>>;
    /// Records first tries that legacy took, each with its time: its key is bound for the retry window after that. A
    /// key that is bound now stays as it is, also if a run has claimed it, unless that run was abandoned: it was given
    /// back to legacy. In a store that several processes share, returns those of the keys that runs have claimed.
    fn note_legacy_tries(&self, tries: Vec<(RetryKey, Timestamp)>) -> StoreFuture<'_, Vec<RetryKey>>;

    /// The files in which processes of this store may hold retry keys that are not in the store.
    fn key_files(&self) -> BoxFuture<'_, Result<Vec<KeyFileRecord>, StoreError>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }
    /// Adds or replaces the records of some such files, and removes those with these ids, in one transaction.
    fn put_key_files(&self, put: Vec<KeyFileRecord>, remove: Vec<Uuid>) -> BoxFuture<'_, Result<(), StoreError>> {
        let _ = (put, remove);
        Box::pin(std::future::ready(Ok(())))
    }
    /// The location and the incarnation of the store, which tell it from a copy of it. Both are empty in a store that
    /// cannot be copied.
    fn identity(&self) -> StoreIdentity {
        StoreIdentity::default()
    }
    /// Set if this store is a restored backup; `None` also if other tools than `pointsman store backup` made it.
    fn restored(&self) -> Option<Restored> {
        None
    }

    /// Records flips and declarations in one transaction, durable before it returns. Returns the numbers of the flips,
    /// in order; `None` if the newest flip in the store has another number than `put.after`: then nothing was recorded.
    fn put_flips(&self, put: PutFlips) -> BoxFuture<'_, Result<Option<Vec<u64>>, StoreError>>;
    /// Flips, newest first, of one route or of all.
    fn flips(&self, route: Option<RouteId>, limit: usize) -> BoxFuture<'_, Result<Vec<FlipRecord>, StoreError>>;
    /// The last flip of every route, and of the kill switch; and the last action of every guard ([`guard_key`]).
    fn last_flips(&self) -> BoxFuture<'_, Result<Vec<FlipRecord>, StoreError>>;
    /// The declarations of the files that were last put in force.
    fn declared(&self) -> BoxFuture<'_, Result<Vec<DeclaredState>, StoreError>>;

    /// Stores samples. Of one route and fingerprint the newest `per_fingerprint` samples are kept, and of one route
    /// those of the `fingerprints` most recent fingerprints. Idempotent: a sample that equals a stored one of its route
    /// and fingerprint takes its place as the newest and is not stored a second time.
    fn put_samples(
        &self,
        samples: Vec<SampleRecord>,
        per_fingerprint: usize,
        fingerprints: usize,
    ) -> BoxFuture<'_, Result<(), StoreError>>;
    /// Samples of a route, newest first.
    fn samples(&self, route: RouteId, limit: usize) -> BoxFuture<'_, Result<Vec<SampleRecord>, StoreError>>;
    /// The newest sample that has events of this run ([`SampleRecord::rehearsed_runs`]), of whatever route; found
    /// without reading other samples.
    fn sample_of_run(&self, run: RunId) -> BoxFuture<'_, Result<Option<SampleRecord>, StoreError>>;
    /// Removes the samples of a route, because its evidence starts from zero.
    fn clear_samples(&self, route: RouteId) -> BoxFuture<'_, Result<(), StoreError>>;
    /// Removes the samples of pairs that were compared before this time.
    fn remove_samples_before(&self, at: Timestamp) -> BoxFuture<'_, Result<(), StoreError>>;
    /// Replaces the evidence of some routes.
    fn put_evidence(&self, evidence: Vec<EvidenceRecord>) -> BoxFuture<'_, Result<(), StoreError>>;
    /// All evidence.
    fn evidence(&self) -> BoxFuture<'_, Result<Vec<EvidenceRecord>, StoreError>>;
    /// The evidence as several processes write it; `None` if the store belongs to one process.
    fn shared_evidence(&self) -> Option<&dyn SharedEvidence> {
        None
    }

    /// The key of the hashes behind shares, cohorts and idempotency keys. It is random and never changes.
    fn secret(&self) -> BoxFuture<'_, Result<[u8; 32], StoreError>>;
    /// How long runs are kept after their end unless the configuration says otherwise: [`NEW_STORE_RETENTION`], or for
    /// ever (`None`) in a store that an older version created.
    fn default_retention(&self) -> Option<Duration> {
        None
    }
    /// Whether this opening created the store: no process served a request with it before.
    fn is_new(&self) -> bool {
        false
    }
    /// Whether the store takes appends now, as of the last commit, and no commit has stalled; does not ask the
    /// database.
    fn healthy(&self) -> bool;
    /// The error of the last commit that failed, or that a commit has stalled, while the store is not healthy.
    fn write_failure(&self) -> Option<String> {
        None
    }
    /// When the present commit began. `None` in a store without a disk.
    fn commit_age(&self) -> Option<&CommitAge> {
        None
    }
    /// How long the present commit has been under way, if that is longer than `store_stall_ms`. Whatever is handed to
    /// the writer now waits for the end of that commit, which may never come.
    fn stalled_for(&self) -> Option<Duration> {
        self.commit_age()?.stalled_for()
    }
    /// Writes what waits in the queues, then closes. Later appends are refused.
    fn close(&self) -> BoxFuture<'_, ()>;
}

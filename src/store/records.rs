//! What is kept beside events, and what goes in with them.

use std::sync::OnceLock;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::{StoreError, codec};
use crate::compare::Difference;
use crate::flag::{Arm, PinKey, RetryKey, RetryScope, Shares, State};
use crate::names::{Fence, JobId, RouteId, RunId, Seq, ServiceName, StepId, WorkerId};
use crate::workflow::{Event, Mode, RunStatus, RunSummary};

/// Events of one run, with what must become durable in the same commit.
#[derive(Clone, Debug)]
pub struct Append {
    /// The run.
    pub run_id: RunId,
    /// The seq of the first event; the rest follow without a gap.
    pub first: Seq,
    /// At least one.
    pub events: Vec<(Timestamp, Event)>,
    /// The run's summary after these events.
    pub summary: RunSummary,
    /// Names this append, so that one whose reply was lost is recognised and not repeated.
    pub batch: Uuid,
    /// What the run created.
    pub pins: Vec<NewPin>,
    /// A retry key to take with this run: conflicts where another run has it.
    pub claim: Option<Claim>,
    /// Live goes first.
    pub priority: Priority,
    /// Who moves the run.
    pub worker: WorkerId,
    /// Under which number: refused where the run has a newer owner. The first append makes the run the worker's.
    pub fence: Fence,
    /// The run is nobody's after this: it waits for its `wake`, for somebody's word, or has ended.
    pub release: bool,
    /// Changes of locks' queues.
    pub locks: Vec<LockChange>,
    /// Messages to webhooks.
    pub notices: Vec<Notice>,
    /// What was asked of the run through the store and is settled by these events, with the answers.
    pub settled: Vec<(Uuid, Value)>,
    /// Runs that these events decide to begin.
    pub births: Vec<Birth>,
    /// How large its events are.
    pub size: EventsSize,
}

/// How many bytes the events of an append take as JSON. A store that encodes them notes it; else they are counted when
/// somebody asks.
#[derive(Clone, Debug, Default)]
pub struct EventsSize(OnceLock<usize>);

impl EventsSize {
    /// They were encoded, and this is their size.
    pub(super) fn note(&self, bytes: usize) {
        let _ = self.0.set(bytes); // the same bytes as the last time
    }
}

impl Append {
    /// How many bytes its events take as JSON.
    pub fn events_bytes(&self) -> usize {
        let counted = |event: &Event| serde_json::to_vec(event).map_or(0, |json| json.len());
        *self.size.0.get_or_init(|| self.events.iter().map(|(_, event)| counted(event)).sum())
    }
}

/// A run that is to begin: a row of an outbox. It is written by the append that decides it and removed by the append
/// that holds the first event of the run, so that a crash between the two leaves it to be delivered again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Birth {
    /// The run that is to begin. One row per run: a second one, and one of a run that has events, is ignored.
    pub run: RunId,
    /// The run that decided it, where a run did. It is not purged while this row is there.
    pub parent: Option<RunId>,
    /// What is needed to begin it, opaque to the store.
    pub record: Value,
    /// When it was decided.
    pub at: Timestamp,
}

/// Which appends go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Somebody waits for it.
    Live,
    /// A dark run: nobody waits, and a batch of them is bounded.
    Dark,
}

/// An instance that a run created.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NewPin {
    /// Family and id. For a dark run legacy's id, under which the follow-ups will come.
    pub key: PinKey,
    /// [`Arm::Engine`] where the engine owns it; [`Arm::Legacy`] where the run is the dark twin of legacy's.
    pub arm: Arm,
}

/// A retry key that a run takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The key.
    pub key: RetryKey,
    /// A hash of the request, so that the same key with another request is told apart.
    pub request: [u8; 32],
    /// The same request under any credential, where nobody verified the caller's: the run has it too.
    pub any_caller: Option<RetryKey>,
}

impl Claim {
    /// The rows that it takes.
    pub fn keys(&self) -> impl Iterator<Item = RetryKey> + use<> {
        std::iter::once(self.key).chain(self.any_caller)
    }
}

/// A change of a lock's queue that goes in with an append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockChange {
    /// The step (the item) stands at the end of the queue, unless it stands there already.
    Queue {
        /// The lock.
        name: String,
        /// The step.
        step: StepId,
        /// The item of a `for_each`.
        item: Option<u32>,
    },
    /// It stands there no more.
    Leave {
        /// The lock.
        name: String,
        /// The step.
        step: StepId,
        /// The item of a `for_each`.
        item: Option<u32>,
    },
}

/// A message to a webhook, recorded before it is sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    /// Counts up; given by the store, 0 when it is handed in.
    pub number: u64,
    /// Of which run.
    pub run: RunId,
    /// What `notify:` says in the workflow: its messages are sent in order. Empty where an older version recorded it.
    #[serde(default)]
    pub destination: String,
    /// The service that receives it; not known where an older version recorded it.
    #[serde(default)]
    pub service: Option<ServiceName>,
    /// Who recorded it, and sends it.
    #[serde(default)]
    pub by: Option<WorkerId>,
    /// Where to.
    pub url: String,
    /// What: no bodies, no secrets.
    pub body: Value,
    /// When it was recorded.
    pub at: Timestamp,
}

/// One event as stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoredEvent {
    /// Its place.
    pub seq: Seq,
    /// When it happened.
    pub at: Timestamp,
    /// The fact.
    pub event: Event,
}

/// A run as it stood after an event, opaque to the store: whoever takes the run folds only the events after it. It can be
/// made again from events at any time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunSnapshot {
    /// The run.
    pub run: RunId,
    /// The last event that is in it.
    pub seq: Seq,
    /// When that event happened.
    pub at: Timestamp,
    /// Names the rules by which events were folded ([`crate::workflow::FOLD`]): who folds by others does not use it.
    pub fold: String,
    /// The run, at least one byte.
    pub body: Vec<u8>,
}

impl RunSnapshot {
    /// Itself, where this is the hash of its body.
    pub(super) fn checked(self, hash: &[u8]) -> Result<Self, StoreError> {
        match codec::hash(&self.body) == hash {
            true => Ok(self),
            false => Err(StoreError(format!("the snapshot of {} at event {} is damaged", self.run, self.seq))),
        }
    }
}

/// Which runs to list; newest first.
#[derive(Clone, Debug, Default)]
pub struct RunFilter {
    /// Only these statuses; empty is all.
    pub statuses: Vec<RunStatus>,
    /// Only of this workflow.
    pub workflow: Option<String>,
    /// Only of this route.
    pub route: Option<RouteId>,
    /// Only of this mode.
    pub mode: Option<Mode>,
    /// Only runs of this job.
    pub job: Option<JobId>,
    /// Only runs that this one began.
    pub parent: Option<RunId>,
    /// Only runs before this one (a page's cursor).
    pub before: Option<RunId>,
    /// At most this many.
    pub limit: usize,
}

/// Who owns an instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PinRecord {
    /// Family and id.
    pub key: PinKey,
    /// Whose it is.
    pub arm: Arm,
    /// The run that created it (the dark twin, where it is legacy's).
    pub run: Option<RunId>,
    /// Since when.
    pub at: Timestamp,
}

/// Something asked of a run that another process moves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OrderRecord {
    /// Names the asking, so that it is done once.
    pub id: Uuid,
    /// Of which run.
    pub run: RunId,
    /// What, as JSON of `workflow::Order`.
    pub order: Value,
    /// Who asks.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// What came of it, once it is settled: opaque here.
    pub answer: Option<Value>,
}

/// One place in a lock's queue; the first holds the lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockRow {
    /// The lock.
    pub name: String,
    /// Counts up over all locks: first come, first served.
    pub place: u64,
    /// The run.
    pub run: RunId,
    /// The step.
    pub step: StepId,
    /// The item of a `for_each`.
    pub item: Option<u32>,
    /// Since when.
    pub since: Timestamp,
}

/// One change of a route's flag (or of the kill switch, where `route` is `None`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlipRecord {
    /// Counts up; given by the store, 0 when it is handed in.
    pub number: u64,
    /// The route; `None` is the kill switch.
    pub route: Option<RouteId>,
    /// From which state (for the kill switch `no`, `instances`, `effects`).
    pub from: String,
    /// To which.
    pub to: String,
    /// The shares from now on.
    pub shares: Option<Shares>,
    /// Who: a token's name, `NAME (unverified)`, `file`, `guard`.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// Why, as said.
    pub reason: Option<String>,
    /// Whether the gate was passed by hand.
    pub forced: bool,
    /// The evidence at that moment, as JSON.
    pub evidence: Value,
}

/// What is remembered of what the files said of a route.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "DeclaredRow", into = "DeclaredRow")]
pub struct DeclaredState {
    /// The route.
    pub route: RouteId,
    /// What its file declared when it was last taken over; `None`: nothing was, or the route is in no file now.
    pub file: Option<FileState>,
    /// What its retry keys are scoped by; `None` in a row that an older binary wrote.
    pub retry: Option<RetryScopes>,
}

/// The same as it is stored. Older binaries wrote all but `retry`.
#[derive(Serialize, Deserialize)]
struct DeclaredRow {
    route: RouteId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    state: Option<State>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shares: Option<Shares>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry: Option<RetryScopes>,
}

impl From<DeclaredRow> for DeclaredState {
    fn from(DeclaredRow { route, state, shares, retry }: DeclaredRow) -> Self {
        let file = state.zip(shares).map(|(state, shares)| FileState { state, shares });
        Self { route, file, retry }
    }
}

impl From<DeclaredState> for DeclaredRow {
    fn from(DeclaredState { route, file, retry }: DeclaredState) -> Self {
        let (state, shares) = file.map(|FileState { state, shares }| (state, shares)).unzip();
        Self { route, state, shares, retry }
    }
}

/// What a file declares of a route: only a change of that is a flip by `file`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FileState {
    /// Its state in the file.
    pub state: State,
    /// Its shares in the file.
    pub shares: Shares,
}

/// What a route's retry keys are scoped by, and were before.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RetryScopes {
    /// By the files that were read last; `None` where no key is noted, since the route has no workflow or is gone.
    pub now: Option<RetryScope>,
    /// Those before it under which retries may still come, the newest first.
    pub earlier: Vec<ReplacedScope>,
    /// When the newest of those was replaced that are not among them, because they were too many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forgotten: Option<Timestamp>,
}

/// A scope that files replaced.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplacedScope {
    /// What it was.
    pub scope: RetryScope,
    /// When.
    pub at: Timestamp,
}

/// One kept comparison, redacted before it came here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SampleRecord {
    /// The route.
    pub route: RouteId,
    /// The set of paths and kinds.
    pub fingerprint: String,
    /// When.
    pub at: Timestamp,
    /// The engine's run.
    pub run: Option<RunId>,
    /// Where the arms differed.
    pub differences: Vec<Difference>,
    /// Legacy's reply, redacted and shortened, as text.
    pub legacy: String,
    /// The engine's reply, redacted and shortened, as text.
    pub engine: String,
    /// The request's line and redacted body, as text.
    pub request: String,
}

/// What comparisons of a route add up to, as `evidence` keeps it: opaque here, one row a route, replaced whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvidenceRecord {
    /// The route.
    pub route: RouteId,
    /// When it was written.
    pub at: Timestamp,
    /// The content.
    pub value: Value,
}

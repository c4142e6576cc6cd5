//! The records that a store keeps: appends with what is committed together with them, and the rows of every other
//! table.

use std::sync::OnceLock;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::candidate_record::CandidateRecord;
use super::guard_record::GuardRecord;
use super::judged_gate::JudgedGate;
use super::{ClaimedRequest, PinAdoption, StoreError, codec};
use crate::flag::{Arm, PinKey, RetryKey, Shares, State};
use crate::names::{Fence, RouteId, RunId, Seq, ServiceName, StepId, WorkerId};
use crate::workflow::{Event, RunSummary};

/// Events of one run, with everything that must become durable in the same commit.
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
    /// Identifies this append: when it is retried after a lost reply, the store recognises it and does not repeat it.
    pub batch: Uuid,
    /// The instances that the run created.
    pub pins: Vec<NewPin>,
    /// A retry key that the run claims: a conflict if another run or legacy holds it.
    pub claim: Option<Claim>,
    /// Appends of real runs are written before those of dark runs.
    pub priority: Priority,
    /// The worker that executes the run. The first append makes it the owner.
    pub worker: WorkerId,
    /// The worker's fencing token: an append with another token than the run's is refused.
    pub fence: Fence,
    /// The run has no owner after this append: it waits until its `wake` or for a command, or has ended.
    pub release: bool,
    /// Changes of the queues of locks.
    pub locks: Vec<LockChange>,
    /// Messages to send to webhooks.
    pub webhook_messages: Vec<WebhookMessage>,
    /// Commands to the run that these events carry out or refuse, each with its answer.
    pub answered_commands: Vec<(Uuid, Value)>,
    /// Runs that these events begin.
    pub pending_runs: Vec<OutboxRow>,
    /// The size of the events as JSON.
    pub size: EventsSize,
}

/// The size of the events of an append as JSON. Set by a store that encodes them; otherwise computed on first use.
#[derive(Clone, Debug, Default)]
pub struct EventsSize(OnceLock<usize>);

impl EventsSize {
    /// Sets the size when the events are encoded.
    pub(super) fn set(&self, bytes: usize) {
        let _ = self.0.set(bytes); // fails if the append was encoded before, with the same size
    }
}

impl Append {
    /// How many bytes the events take as JSON.
    pub fn events_bytes(&self) -> usize {
        let json_bytes = |event: &Event| serde_json::to_vec(event).map_or(0, |json| json.len());
        *self.size.0.get_or_init(|| self.events.iter().map(|(_, event)| json_bytes(event)).sum())
    }
}

/// A run that is to begin: a row of an outbox. The append whose events begin the run writes it, and the append with the
/// run's own first event removes it. After a crash between the two the row is delivered again. A row may also ask for
/// something else that follows from an append: then `run` is an id that no run has, and the task that has done it
/// removes the row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OutboxRow {
    /// The run that is to begin. A second row for the same run is ignored, and so is one for a run that has events.
    pub run: RunId,
    /// The run whose event began `run`; `None` if no run did. The parent is not purged while this row exists.
    pub parent: Option<RunId>,
    /// Everything that is needed to begin it; opaque to the store.
    pub record: Value,
    /// When the event that began the run happened.
    pub at: Timestamp,
}

/// The order in which waiting appends are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Of a real run: written first, because a caller may wait for it.
    Real,
    /// Of a dark run: nobody waits for it, and one batch takes a bounded number of such events.
    Dark,
}

/// An instance that a run created.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NewPin {
    /// Family and id. For a dark run it is legacy's id, because follow-up requests carry that one.
    pub key: PinKey,
    /// [`Arm::Engine`] if the engine owns it; [`Arm::Legacy`] if legacy does and the run is its dark twin.
    pub arm: Arm,
}

/// A retry key that a run claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The key.
    pub key: RetryKey,
    /// A hash of the request: tells whether a later request with the same key is the same request.
    pub request: [u8; 32],
    /// The key under which retries with another credential find this very request: [`RetryKey::of_request`] where the
    /// caller's credential was not verified, else [`RetryKey::of_verified_request`]. The run claims it too.
    pub of_request: Option<RetryKey>,
    /// Keys that it does not claim, and that legacy must not have: under them legacy may have taken a try of the same
    /// request with another credential. Given where another process may have passed such a try to legacy meanwhile;
    /// tries that this process passed to legacy are known before the append.
    pub legacy_keys: [Option<RetryKey>; 2],
    /// The number of the flag set that decided the request; `None` if none did.
    pub decided_in: Option<u64>,
}

impl Claim {
    /// The claim of one key.
    pub fn new(key: RetryKey, request: [u8; 32]) -> Self {
        Self { key, request, of_request: None, legacy_keys: [None; 2], decided_in: None }
    }
    /// All keys that it claims.
    pub fn keys(&self) -> impl Iterator<Item = RetryKey> + use<> {
        std::iter::once(self.key).chain(self.of_request)
    }
    /// All keys that decide whether it is refused.
    pub(super) fn looked_up_keys(&self) -> impl Iterator<Item = RetryKey> + use<> {
        self.keys().chain(self.legacy_keys.into_iter().flatten())
    }

    /// How the request of the run that has one of these keys compares with this one; `held` is its hash, if it is
    /// known. `of_request` is a hash of the request too, so a run that has that key has the same request.
    pub(super) fn compare(&self, key: RetryKey, held: Option<[u8; 32]>) -> ClaimedRequest {
        if key != self.key {
            ClaimedRequest::UnderAnotherCredential
        } else if held == Some(self.request) {
            ClaimedRequest::Same
        } else {
            ClaimedRequest::Other
        }
    }
}

/// A change of a lock's queue, committed with an append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockChange {
    /// The step (or its item) is added at the end of the queue; no effect if it is in the queue already.
    Queue {
        /// The lock.
        name: String,
        /// The step.
        step: StepId,
        /// The item of a `for_each`.
        item: Option<u32>,
    },
    /// The step (or its item) is removed from the queue.
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
pub struct WebhookMessage {
    /// Ascending; assigned by the store, 0 before.
    pub number: u64,
    /// The run that the message is about.
    pub run: RunId,
    /// The `notify:` of the workflow; messages to one destination are sent in order. Empty in rows of older versions.
    #[serde(default)]
    pub destination: String,
    /// The service that receives the message; `None` in rows of older versions.
    #[serde(default)]
    pub service: Option<ServiceName>,
    /// The worker that recorded the message and sends it.
    #[serde(default)]
    pub by: Option<WorkerId>,
    /// The path and query, which follow the base URL that the service has when the message is sent; `None` in rows of
    /// older versions.
    #[serde(default)]
    pub path: Option<String>,
    /// The whole address when it was recorded, for messages without a path and for services that are no longer in the
    /// files. Empty where the service was not in the files.
    pub url: String,
    /// The content. It holds no bodies of calls and no secrets.
    pub body: Value,
    /// When it was recorded.
    pub at: Timestamp,
}

/// One stored event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoredEvent {
    /// Its number in the run.
    pub seq: Seq,
    /// When it happened.
    pub at: Timestamp,
    /// What happened.
    pub event: Event,
}

/// The state of a run after one of its events, opaque to the store. Loading the run then folds only the events after
/// it. It can be rebuilt from the events at any time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunSnapshot {
    /// The run.
    pub run: RunId,
    /// The last event that the snapshot includes.
    pub seq: Seq,
    /// When that event happened.
    pub at: Timestamp,
    /// The version of the fold that made the snapshot ([`crate::workflow::FOLD`]); a binary with another version
    /// ignores it.
    pub fold: String,
    /// The encoded run, at least one byte.
    pub body: Vec<u8>,
}

impl RunSnapshot {
    /// Fails if `hash` is not the hash of the snapshot's body.
    pub(super) fn checked(self, hash: &[u8]) -> Result<Self, StoreError> {
        match codec::hash(&self.body) == hash {
            true => Ok(self),
            false => Err(StoreError(format!("the snapshot of {} at event {} is damaged", self.run, self.seq))),
        }
    }
}

/// Who owns an instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PinRecord {
    /// Family and id.
    pub key: PinKey,
    /// The arm that owns the instance.
    pub arm: Arm,
    /// The run that created the instance; for an instance of legacy's, its dark twin.
    pub run: Option<RunId>,
    /// When it was pinned.
    pub at: Timestamp,
    /// Of an instance that legacy made: how far the engine has adopted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adoption: Option<PinAdoption>,
}

/// A command (such as pause or cancel) to a run that another process executes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommandRecord {
    /// Identifies the command, so that it is carried out once.
    pub id: Uuid,
    /// The run that the command is for.
    pub run: RunId,
    /// A `workflow::ControlCommand` as JSON.
    #[serde(rename = "order")]
    pub command: Value,
    /// Who gave it.
    pub by: String,
    /// When it was given.
    pub at: Timestamp,
    /// The answer, once there is one; opaque to the store.
    pub answer: Option<Value>,
}

/// One entry of a lock's queue. The first entry holds the lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockRow {
    /// The lock.
    pub name: String,
    /// Ascending over all locks: first come, first served.
    pub position: u64,
    /// The run.
    pub run: RunId,
    /// The step.
    pub step: StepId,
    /// The item of a `for_each`.
    pub item: Option<u32>,
    /// When it was added.
    pub since: Timestamp,
}

/// One change of a route's flag (or of the kill switch, where `route` is `None`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlipRecord {
    /// Ascending; assigned by the store, 0 before.
    pub number: u64,
    /// The route; `None` is the kill switch.
    pub route: Option<RouteId>,
    /// The previous state (for the kill switch `no`, `instances`, `effects`).
    pub from: String,
    /// The new state.
    pub to: String,
    /// The new shares.
    pub shares: Option<Shares>,
    /// Who flipped: a token's name, `NAME (unverified)`, `file`, `guard`.
    pub by: String,
    /// When it was recorded.
    pub at: Timestamp,
    /// The reason that was given.
    pub reason: Option<String>,
    /// Whether a gate was overridden with `--force`: by this flip, or by an earlier one if the evidence has not opened
    /// that gate since.
    pub forced: bool,
    /// The overridden gate; `None` where none was, and in records of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overridden: Option<Overridden>,
    /// The evidence at that moment, as JSON.
    pub evidence: Value,
    /// The gates on its way with their conditions, as they were judged; empty where it had to pass none, and in records
    /// of older versions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<JudgedGate>,
    /// What the guard did, or what ended that; then `route` is [`super::guard_key`], and `from` and `to` are states in
    /// force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<GuardRecord>,
    /// What became of the route's candidate; then `route` is [`super::candidate_key`], and `from` and `to` are stages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<CandidateRecord>,
}

/// The lowest gate, up to the flip's new state, that force overrides: it was shut when the flip was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overridden {
    /// The rung below the gate.
    pub from: State,
    /// The reason that was given.
    pub reason: String,
    /// When a person last gave `--force` for it; `None` if only a file did, and in records of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forced_at: Option<Timestamp>,
    /// The rung below the lowest gate that the move of this record itself overrode; `None` if only moves before it did,
    /// and in records of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_this_move: Option<State>,
}

/// The evidence of a route, opaque to the store. There is one row for each route, and it is replaced as a whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvidenceRecord {
    /// The route.
    pub route: RouteId,
    /// When it was written.
    pub at: Timestamp,
    /// The content.
    pub value: Value,
}

//! A store that simulated processes share, and that fails at random.
//!
//! It wraps the memory store and adds the properties of a database that several processes share: leases that end in
//! simulated time, a clock of its own, and notifications that get lost. It also adds the faults of a network: an
//! operation fails before it is done, or is done and its reply is lost, or is slow, or is not answered until the caller
//! gives up. An operation that has begun is not cancelled with its caller, who only misses the reply. Each process
//! reaches it over a [`Link`], which can be cut; a process that is stopped, or was killed, gets no reply.

mod link;
mod processes;
mod shared;

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tokio::sync::broadcast;
use tokio::time::sleep;
use uuid::Uuid;

pub(crate) use self::link::{Link, LinkState};
use self::processes::Processes;
pub(crate) use self::shared::Shared;
use crate::clock;
use crate::names::{Fence, RunId, WorkerId};
use crate::store::{
    AcquireResult, Append, AppendError, CommandRecord, DeclaredState, EvidenceRecord, FlipRecord, LockRow, MemoryStore,
    OwnedRun, PinRecord, Purged, RunBodies, RunCoordination, RunFilter, RunSnapshot, SampleRecord, Store, StoreError,
    StoreNotification, StoredEvent, StoredFirstTry, WebhookMessage,
};
use crate::workflow::{Mode, RunStatus, RunSummary};

/// What happens to one operation.
#[derive(Clone, Copy)]
enum Fault {
    None,
    /// The operation fails and was not done.
    Before,
    /// The operation was done, and its result is unknown.
    After,
    /// The operation is done after this time.
    Slow(Duration),
    /// The operation is done, and its result arrives after this time.
    LateReply(Duration),
    /// An append is done twice; any other operation is done once, as without a fault.
    Twice,
    /// The operation is not answered for a long time, and then its result is unknown. The flag tells whether it was
    /// done.
    Silent(bool),
}

/// How long a silent operation is not answered.
const SILENCE: Duration = Duration::from_secs(8);

/// A protection that the store switches off, to show that a simulation finds what follows from that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Omission {
    /// None.
    #[default]
    None,
    /// Each process seems to have acknowledged whatever the others announce, and sees neither announcements nor
    /// notifications.
    Acknowledgements,
    /// A run gets a retry key although legacy has it.
    ClaimsOfRuns,
    /// Keys of legacy that are handed to the store are not stored.
    KeysOfLegacy,
}

/// The simulated store.
pub(crate) struct SimStore {
    inner: MemoryStore,
    /// Whether several processes share the store; otherwise one process uses it at a time.
    shared: bool,
    omission: Omission,
    notifications: broadcast::Sender<StoreNotification>,
    state: Mutex<State>,
}

struct State {
    random: fastrand::Rng,
    /// The percentage of operations that get a fault.
    percent: u8,
    faults: u64,
    owners: HashMap<RunId, WorkerId>,
    /// The keys of legacy that appends which are not committed have looked for.
    looked_for: Vec<crate::flag::RetryKey>,
    /// The fencing token of the last acquisition of each run.
    fences: HashMap<RunId, Fence>,
    processes: Processes,
    /// Workers whose heartbeats do not reach the store.
    blocked: HashSet<WorkerId>,
    acquisitions: HashMap<RunId, u64>,
    /// Due runs that were acquired for a worker whose reply was lost; the next `acquire_due` returns them.
    unreported: HashMap<WorkerId, Vec<OwnedRun>>,
    /// Events that were appended with a time in the future.
    events_in_the_future: Vec<String>,
}

impl SimStore {
    pub(crate) fn new(seed: u64, percent: u8, shared: bool) -> Arc<Self> {
        Self::with_omission(seed, percent, shared, Omission::None)
    }
    pub(crate) fn with_omission(seed: u64, percent: u8, shared: bool, omission: Omission) -> Arc<Self> {
        let state = State {
            random: fastrand::Rng::with_seed(seed),
            percent,
            faults: 0,
            owners: HashMap::new(),
            looked_for: Vec::new(),
            fences: HashMap::new(),
            processes: Processes::default(),
            blocked: HashSet::new(),
            acquisitions: HashMap::new(),
            unreported: HashMap::new(),
            events_in_the_future: Vec::new(),
        };
        let (inner, notifications) = (MemoryStore::new(), broadcast::Sender::new(256));
        let store = Self { inner, shared, omission, notifications, state: Mutex::new(state) };
        let store = Arc::new(store);
        let (weak, mut inner) = (Arc::downgrade(&store), store.inner.notifications());
        tokio::spawn(async move {
            while let (Ok(notifications), Some(store)) = (inner.recv().await, weak.upgrade()) {
                store.notify(notifications);
            }
        });
        store
    }
    /// Tells those who listen, unless the notification is lost.
    fn notify(&self, notification: StoreNotification) {
        let is_lost = {
            let mut state = self.state.lock().unwrap();
            let percent = if self.shared { state.percent } else { 0 };
            state.random.u8(0..100) < percent
        };
        if !is_lost && self.omission != Omission::Acknowledgements {
            let _nobody_listens = self.notifications.send(notification);
        }
    }
    /// From now on this percentage of operations gets a fault.
    pub(crate) fn set_faults(&self, percent: u8) {
        self.state.lock().unwrap().percent = percent;
    }
    /// Ends all faults.
    pub(crate) fn heal(&self) {
        let mut state = self.state.lock().unwrap();
        state.percent = 0;
        state.blocked.clear();
        clock::simulated::skew(SignedDuration::ZERO);
    }
    /// Keeps the heartbeats of a living worker from the store: other processes take its runs over.
    pub(crate) fn block_heartbeats(&self, worker: WorkerId, blocked: bool) {
        let mut state = self.state.lock().unwrap();
        if blocked {
            state.blocked.insert(worker)
        } else {
            state.blocked.remove(&worker)
        };
    }
    /// Records events with a time in the future: no process's time may be ahead, whatever its machine's clock
    /// shows.
    fn check_times(&self, append: &Append) {
        let time = clock::simulated::time();
        for (at, event) in append.events.iter().filter(|(at, _)| Some(*at) > time) {
            let text = format!("{}: {} at {at}, and it is {time:?}", append.run_id, event.kind());
            self.state.lock().unwrap().events_in_the_future.push(text);
        }
    }
    /// Events that were appended with a time in the future.
    pub(crate) fn events_in_the_future(&self) -> Vec<String> {
        self.state.lock().unwrap().events_in_the_future.clone()
    }
    /// The number of faults so far.
    pub(crate) fn faults(&self) -> u64 {
        self.state.lock().unwrap().faults
    }
    /// How often a run was acquired.
    pub(crate) fn acquisitions(&self, run: RunId) -> u64 {
        self.state.lock().unwrap().acquisitions.get(&run).copied().unwrap_or(0)
    }
    /// The wrapped store, which has no faults.
    pub(crate) fn memory(&self) -> &MemoryStore {
        &self.inner
    }
    /// Appends, unless it begins a real run outside of the term of its process.
    async fn append_in_term(&self, append: Arc<Append>) -> Result<(), AppendError> {
        if append.first == crate::names::Seq::FIRST
            && append.summary.mode == Mode::Real
            && append.summary.parent.is_none()
            && !self.state.lock().unwrap().processes.may_begin_run(&append)
            && self.inner.run(append.run_id).await.is_ok_and(|stored| stored.is_none())
        {
            return Err(AppendError::LeaseOver("the lease is over".into()));
        }
        self.inner.append(append).await
    }
    fn draw(&self) -> Fault {
        let mut state = self.state.lock().unwrap();
        if state.random.u8(0..100) >= state.percent {
            return Fault::None;
        }
        state.faults += 1;
        match state.random.u8(0..11) {
            0..=2 => Fault::Before,
            3..=5 => Fault::After,
            6 => Fault::Twice,
            7..=8 => Fault::Slow(Duration::from_millis(state.random.u64(1..3_000))),
            9 => Fault::LateReply(Duration::from_millis(state.random.u64(1..3_000))),
            _ => Fault::Silent(state.random.bool()),
        }
    }
    async fn with_fault<T, E: From<StoreError>>(
        self: Arc<Self>,
        operation: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        match self.draw() {
            Fault::None | Fault::Twice => operation.await,
            Fault::Before => Err(unknown_result().into()),
            Fault::After => operation.await.and_then(|_| Err(unknown_result().into())),
            Fault::Slow(time) => {
                sleep(time).await;
                operation.await
            }
            Fault::LateReply(time) => {
                let result = operation.await;
                sleep(time).await;
                result
            }
            Fault::Silent(done) => {
                if done {
                    operation.await?;
                }
                sleep(SILENCE).await;
                Err(unknown_result().into())
            }
        }
    }
    /// The other live worker that owns the run, if any.
    fn other_owner(&self, worker: WorkerId, run: RunId) -> Option<WorkerId> {
        let state = self.state.lock().unwrap();
        if !self.shared {
            return None;
        }
        let owner = state.owners.get(&run).copied().filter(|owner| *owner != worker)?;
        state.processes.is_alive(owner).then_some(owner)
    }
    /// Sets the owner of a run after an append. A repeated append of a worker that has lost the run since changes
    /// nothing.
    fn set_owner(&self, worker: Option<WorkerId>, run: RunId, fence: Fence) {
        let mut state = self.state.lock().unwrap();
        if state.fences.get(&run).is_some_and(|last| *last != fence) {
            return;
        }
        match worker {
            Some(worker) => drop(state.owners.insert(run, worker)),
            None => drop(state.owners.remove(&run)),
        }
    }
    async fn acquire_for(&self, worker: WorkerId, run: RunId) -> Result<AcquireResult, StoreError> {
        if let Some(worker) = self.other_owner(worker, run) {
            return Ok(AcquireResult::Elsewhere { worker, name: "the other".into() });
        }
        let taken = self.inner.acquire(worker, run).await?;
        if let AcquireResult::Acquired(owned) = &taken {
            let mut state = self.state.lock().unwrap();
            state.fences.insert(run, owned.fence);
            state.owners.insert(run, worker);
            *state.acquisitions.entry(run).or_default() += 1;
        }
        Ok(taken)
    }
    async fn acquire_due_for(&self, worker: WorkerId, limit: usize) -> Result<Vec<OwnedRun>, StoreError> {
        let runs = self.inner.runs(RunFilter { limit: 10_000, ..RunFilter::default() }).await?;
        let mut due = Vec::new();
        let unreported = self.state.lock().unwrap().unreported.remove(&worker).unwrap_or_default();
        for owned in unreported {
            let run = owned.summary.run_id;
            let is_still_owned = self.state.lock().unwrap().fences.get(&run) == Some(&owned.fence);
            if is_still_owned && let AcquireResult::Acquired(owned) = self.acquire_for(worker, run).await? {
                due.push(owned);
            }
        }
        for run in runs.iter().rev().filter(|run| !run.status.is_final()) {
            let owner = self.state.lock().unwrap().owners.get(&run.run_id).copied();
            let is_due = match owner {
                Some(owner) => owner != worker && self.other_owner(worker, run.run_id).is_none(),
                None => {
                    run.status == RunStatus::Queued
                        || run.wake.is_some_and(|at| Some(at) <= clock::simulated::time())
                        || !self.inner.commands(run.run_id).await?.is_empty()
                }
            };
            if is_due
                && due.len() < limit
                && let AcquireResult::Acquired(owned) = self.acquire_for(worker, run.run_id).await?
            {
                due.push(owned);
            }
        }
        Ok(due)
    }
}

type StoreReply<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

fn unknown_result() -> StoreError {
    StoreError("the result is unknown".into())
}

/// The error of an append: of the wrapped store, or of a fault.
enum FaultyAppend {
    Fault,
    Inner(AppendError),
}

impl From<StoreError> for FaultyAppend {
    fn from(_: StoreError) -> Self {
        FaultyAppend::Fault
    }
}

//! A store that two simulated processes share, and that fails by lot.
//!
//! Behind it is the memory store. What it adds is what several processes on one database have: each lives as long as it
//! says so, in simulated time, and it has a clock of its own; news get lost. And what networks do: an operation is refused before it happened, or done
//! with its reply lost, or slow, or silent until the caller gives up. Nobody cancels what was handed in: a caller that
//! goes away only misses the reply.

mod shared;

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tokio::sync::broadcast;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

pub(super) use self::shared::Shared;
use crate::clock;
use crate::names::{Fence, RunId, WorkerId};
use crate::store::{
    Append, AppendError, DeclaredState, EvidenceRecord, FirstTry, FlipRecord, LockRow, MemoryStore, OrderRecord,
    OwnedRun, PinRecord, Purged, Remains, RunFilter, RunSnapshot, SampleRecord, Store, StoreError, StoreNotification,
    StoredEvent, TakeResult, WebhookMessage, Work,
};
use crate::workflow::{RunStatus, RunSummary};

/// What becomes of one operation.
#[derive(Clone, Copy)]
enum Luck {
    Fine,
    Before,
    After,
    Slow(Duration),
    /// It arrives twice.
    Twice,
    /// Nothing is heard for long, and then that nothing is known; it was done, or not.
    Silent(bool),
}

/// How long a store of this kind may say nothing.
const SILENCE: Duration = Duration::from_secs(8);

/// See the module.
pub(super) struct SimStore {
    inner: MemoryStore,
    /// Several processes; else one at a time, and whatever the last one left is the next one's.
    shared: bool,
    news: broadcast::Sender<StoreNotification>,
    state: Mutex<State>,
}

struct State {
    random: fastrand::Rng,
    /// Operations of a hundred that go wrong.
    percent: u8,
    faults: u64,
    owners: HashMap<RunId, WorkerId>,
    /// Under which number a run was taken last.
    fences: HashMap<RunId, Fence>,
    alive: HashMap<WorkerId, Instant>,
    /// Their word does not reach the store, though they live.
    mute: HashSet<WorkerId>,
    takes: HashMap<RunId, u64>,
    /// What they took with whatever was due, and were not told: it is said when they ask again.
    untold: HashMap<WorkerId, Vec<OwnedRun>>,
    early: Vec<String>,
}

impl SimStore {
    pub(super) fn new(seed: u64, percent: u8, shared: bool) -> Arc<Self> {
        let state = State {
            random: fastrand::Rng::with_seed(seed),
            percent,
            faults: 0,
            owners: HashMap::new(),
            fences: HashMap::new(),
            alive: HashMap::new(),
            mute: HashSet::new(),
            takes: HashMap::new(),
            untold: HashMap::new(),
            early: Vec::new(),
        };
        let (inner, news) = (MemoryStore::new(), broadcast::Sender::new(256));
        let store = Self { inner, shared, news, state: Mutex::new(state) };
        let store = Arc::new(store);
        let (weak, mut inner) = (Arc::downgrade(&store), store.inner.notifications());
        tokio::spawn(async move {
            while let (Ok(news), Some(store)) = (inner.recv().await, weak.upgrade()) {
                let lost = {
                    let mut state = store.state.lock().unwrap();
                    let percent = if store.shared { state.percent } else { 0 };
                    state.random.u8(0..100) < percent
                };
                if !lost {
                    let _nobody_listens = store.news.send(news);
                }
            }
        });
        store
    }
    /// Nothing goes wrong from now on.
    pub(super) fn heal(&self) {
        let mut state = self.state.lock().unwrap();
        state.percent = 0;
        state.mute.clear();
        clock::simulated::skew(SignedDuration::ZERO);
    }
    /// The worker lives, and the store does not hear it: others take its runs.
    pub(super) fn mute(&self, worker: WorkerId, mute: bool) {
        let mut state = self.state.lock().unwrap();
        if mute {
            state.mute.insert(worker)
        } else {
            state.mute.remove(&worker)
        };
    }
    /// No process is ahead of the time, whatever its machine's clock says: no wait ends early, no time is negative.
    fn look_at_times(&self, append: &Append) {
        let time = clock::simulated::time();
        for (at, event) in append.events.iter().filter(|(at, _)| Some(*at) > time) {
            let early = format!("{} at {at}, and it is {time:?}", event.kind());
            self.state.lock().unwrap().early.push(format!("{}: {early}", append.run_id));
        }
    }
    /// Events that were handed in before their time.
    pub(super) fn early(&self) -> Vec<String> {
        self.state.lock().unwrap().early.clone()
    }
    /// Operations that went wrong.
    pub(super) fn faults(&self) -> u64 {
        self.state.lock().unwrap().faults
    }
    /// How often a run was taken.
    pub(super) fn takes(&self, run: RunId) -> u64 {
        self.state.lock().unwrap().takes.get(&run).copied().unwrap_or(0)
    }
    /// What is kept, without any luck.
    pub(super) fn kept(&self) -> &MemoryStore {
        &self.inner
    }
    fn luck(&self) -> Luck {
        let mut state = self.state.lock().unwrap();
        if state.random.u8(0..100) >= state.percent {
            return Luck::Fine;
        }
        state.faults += 1;
        match state.random.u8(0..11) {
            0..=2 => Luck::Before,
            3..=5 => Luck::After,
            6 => Luck::Twice,
            7..=9 => Luck::Slow(Duration::from_millis(state.random.u64(1..3_000))),
            _ => Luck::Silent(state.random.bool()),
        }
    }
    async fn through<T, E: From<StoreError>>(
        self: Arc<Self>,
        operation: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        match self.luck() {
            Luck::Fine | Luck::Twice => operation.await,
            Luck::Before => Err(lost().into()),
            Luck::After => operation.await.and_then(|_| Err(lost().into())),
            Luck::Slow(time) => {
                sleep(time).await;
                operation.await
            }
            Luck::Silent(done) => {
                if done {
                    operation.await?;
                }
                sleep(SILENCE).await;
                Err(lost().into())
            }
        }
    }
    /// Another worker that lives owns the run.
    fn elsewhere(&self, worker: WorkerId, run: RunId) -> Option<WorkerId> {
        let state = self.state.lock().unwrap();
        if !self.shared {
            return None;
        }
        let owner = state.owners.get(&run).copied().filter(|owner| *owner != worker)?;
        state.alive.get(&owner).is_some_and(|until| *until > Instant::now()).then_some(owner)
    }
    /// Whose the run is after an append; one that is known already, of somebody who has lost the run since, changes
    /// nothing.
    fn owns(&self, worker: Option<WorkerId>, run: RunId, fence: Fence) {
        let mut state = self.state.lock().unwrap();
        if state.fences.get(&run).is_some_and(|last| *last != fence) {
            return;
        }
        match worker {
            Some(worker) => drop(state.owners.insert(run, worker)),
            None => drop(state.owners.remove(&run)),
        }
    }
    async fn taken(&self, worker: WorkerId, run: RunId) -> Result<TakeResult, StoreError> {
        if let Some(worker) = self.elsewhere(worker, run) {
            return Ok(TakeResult::Elsewhere { worker, name: "the other".into() });
        }
        let taken = self.inner.take(worker, run).await?;
        if let TakeResult::Taken(owned) = &taken {
            let mut state = self.state.lock().unwrap();
            state.fences.insert(run, owned.fence);
            state.owners.insert(run, worker);
            *state.takes.entry(run).or_default() += 1;
        }
        Ok(taken)
    }
    async fn due(&self, worker: WorkerId, limit: usize) -> Result<Vec<OwnedRun>, StoreError> {
        let runs = self.inner.runs(RunFilter { limit: 10_000, ..RunFilter::default() }).await?;
        let mut due = Vec::new();
        let untold = self.state.lock().unwrap().untold.remove(&worker).unwrap_or_default();
        for owned in untold {
            let run = owned.summary.run_id;
            let still = self.state.lock().unwrap().fences.get(&run) == Some(&owned.fence);
            if still && let TakeResult::Taken(owned) = self.taken(worker, run).await? {
                due.push(owned);
            }
        }
        for run in runs.iter().rev().filter(|run| !run.status.is_final()) {
            let owner = self.state.lock().unwrap().owners.get(&run.run_id).copied();
            let turn = match owner {
                Some(owner) => owner != worker && self.elsewhere(worker, run.run_id).is_none(),
                None => {
                    run.status == RunStatus::Queued
                        || run.wake.is_some_and(|at| Some(at) <= clock::simulated::time())
                        || !self.inner.orders(run.run_id).await?.is_empty()
                }
            };
            if turn
                && due.len() < limit
                && let TakeResult::Taken(owned) = self.taken(worker, run.run_id).await?
            {
                due.push(owned);
            }
        }
        Ok(due)
    }
}

fn lost() -> StoreError {
    StoreError("nobody knows".into())
}

/// As an append says it.
enum Unkept {
    Store,
    Append(AppendError),
}

impl From<StoreError> for Unkept {
    fn from(_: StoreError) -> Self {
        Unkept::Store
    }
}

type StoreReply<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

//! Who may move a run, and what processes that share a store ask of each other.
//!
//! Always true: a run that has not ended is either owned by one living worker or by nobody; whoever takes it over gets
//! a higher fence, and an append under a lower one is refused ([`super::AppendError::Fenced`]). Whether an owner lives
//! is judged by the store's clock alone. A lock's holder is whoever stands first in its queue; places are given out by
//! the append that queues, and are gone with the append that releases them or ends their run.
//!
//! Where a store belongs to one process (SQLite, memory), every other owner is dead, and news come from this process
//! alone.

use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::broadcast;
use uuid::Uuid;

use super::StoreError;
use crate::names::{Fence, RunId, StepId, WorkerId};
use crate::workflow::RunSummary;

/// A run that was taken.
#[derive(Clone, Debug, PartialEq)]
pub struct Owned {
    /// The run as it stands.
    pub summary: RunSummary,
    /// Under which number it is owned from now on.
    pub fence: Fence,
}

/// What became of asking for one run.
#[derive(Clone, Debug, PartialEq)]
pub enum Taken {
    /// It is the asker's now.
    Mine(Owned),
    /// Another living worker moves it.
    Elsewhere {
        /// Which.
        worker: WorkerId,
        /// Its name, for people.
        name: String,
    },
    /// It has ended.
    Ended(RunSummary),
    /// There is no such run.
    Unknown,
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

/// A message to a webhook, recorded before it is sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    /// Counts up; given by the store, 0 when it is handed in.
    pub number: u64,
    /// Of which run.
    pub run: RunId,
    /// Where to.
    pub url: String,
    /// What: no bodies, no secrets.
    pub body: Value,
    /// When it was recorded.
    pub at: Timestamp,
}

/// What happened in the store that a waiting process wants to know at once. Lossy: whoever lags looks for itself, and
/// a slow sweep stands behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// The run is nobody's and its turn has come, or something is asked of it.
    Run(RunId),
    /// The run has ended.
    Ended(RunId),
    /// Somebody left this lock's queue.
    Lock(String),
    /// What was asked is settled.
    Order(Uuid),
    /// A notice was recorded.
    Notice,
}

/// What a purge took away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// Runs whose events are gone.
    pub runs: u64,
    /// Of those, runs whose summary was kept because they are pinned.
    pub pinned: u64,
    /// Payloads that nobody refers to any more.
    pub payloads: u64,
}

/// Ownership, orders, locks, notices, retention.
pub trait Work: Send + Sync + 'static {
    /// The worker lives for so long from now on. Where the store belongs to one process it costs nothing.
    fn beat(&self, worker: WorkerId, name: String, lives: Duration) -> BoxFuture<'_, Result<(), StoreError>>;
    /// The worker goes: what it owns is nobody's.
    fn leave(&self, worker: WorkerId) -> BoxFuture<'_, Result<(), StoreError>>;
    /// Takes a run that has not ended: one that is nobody's, one whose owner does not live, or the asker's own (under a
    /// new fence). Durable before it returns.
    fn take(&self, worker: WorkerId, run: RunId) -> BoxFuture<'_, Result<Taken, StoreError>>;
    /// Takes at most so many runs that have not ended, are nobody's or whose owner does not live, and whose turn has
    /// come: their `wake` is over, or they wait for nothing but a mover, or something is asked of them. Oldest first;
    /// two processes that ask at the same time never get the same one.
    fn take_due(&self, worker: WorkerId, limit: usize) -> BoxFuture<'_, Result<Vec<Owned>, StoreError>>;
    /// The next times at which runs that are nobody's want to be taken, earliest first.
    fn wakes(&self, limit: usize) -> BoxFuture<'_, Result<Vec<(Timestamp, RunId)>, StoreError>>;

    /// Asks something of a run that another process moves. Asked again under the same id it changes nothing.
    fn put_order(&self, order: OrderRecord) -> BoxFuture<'_, Result<(), StoreError>>;
    /// What is asked of a run and not settled, oldest first.
    fn orders(&self, run: RunId) -> BoxFuture<'_, Result<Vec<OrderRecord>, StoreError>>;
    /// One asking, with its answer once it is settled.
    fn order(&self, id: Uuid) -> BoxFuture<'_, Result<Option<OrderRecord>, StoreError>>;
    /// Settles what was asked; the first answer stands.
    fn settle_order(&self, id: Uuid, answer: Value) -> BoxFuture<'_, Result<(), StoreError>>;

    /// The queues of these locks, or of all, in the order of places; at most so many rows.
    fn locks(&self, names: Option<Vec<String>>, limit: usize) -> BoxFuture<'_, Result<Vec<LockRow>, StoreError>>;

    /// Notices that were not sent, oldest first.
    fn notices(&self, limit: usize) -> BoxFuture<'_, Result<Vec<Notice>, StoreError>>;
    /// It was sent, or given up.
    fn notice_done(&self, number: u64) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Drops at most so many runs that ended before a time, with their events; a pinned one keeps its summary. Never
    /// holds up appends for longer than one small batch.
    fn purge(&self, ended_before: Timestamp, limit: usize) -> BoxFuture<'_, Result<Purged, StoreError>>;

    /// What happens from now on.
    fn news(&self) -> broadcast::Receiver<News>;
    /// Whether several processes may work on this store at the same time.
    fn is_shared(&self) -> bool;
}

/// Stands in until a store has it.
macro_rules! no_work {
    ($store:ty) => {
        impl $crate::store::Work for $store {
            fn beat(&self, _: WorkerId, _: String, _: Duration) -> BoxFuture<'_, Result<(), StoreError>> {
                Box::pin(std::future::ready(Ok(())))
            }
            fn leave(&self, _: WorkerId) -> BoxFuture<'_, Result<(), StoreError>> {
                Box::pin(std::future::ready(Ok(())))
            }
            fn take(&self, _: WorkerId, _: RunId) -> BoxFuture<'_, Result<Taken, StoreError>> {
                Box::pin(std::future::ready(Ok(Taken::Unknown)))
            }
            fn take_due(&self, _: WorkerId, _: usize) -> BoxFuture<'_, Result<Vec<Owned>, StoreError>> {
                Box::pin(std::future::ready(Ok(Vec::new())))
            }
            fn wakes(&self, _: usize) -> BoxFuture<'_, Result<Vec<(Timestamp, RunId)>, StoreError>> {
                Box::pin(std::future::ready(Ok(Vec::new())))
            }
            fn put_order(&self, _: OrderRecord) -> BoxFuture<'_, Result<(), StoreError>> {
                Box::pin(std::future::ready(Ok(())))
            }
            fn orders(&self, _: RunId) -> BoxFuture<'_, Result<Vec<OrderRecord>, StoreError>> {
                Box::pin(std::future::ready(Ok(Vec::new())))
            }
            fn order(&self, _: Uuid) -> BoxFuture<'_, Result<Option<OrderRecord>, StoreError>> {
                Box::pin(std::future::ready(Ok(None)))
            }
            fn settle_order(&self, _: Uuid, _: Value) -> BoxFuture<'_, Result<(), StoreError>> {
                Box::pin(std::future::ready(Ok(())))
            }
            fn locks(&self, _: Option<Vec<String>>, _: usize) -> BoxFuture<'_, Result<Vec<LockRow>, StoreError>> {
                Box::pin(std::future::ready(Ok(Vec::new())))
            }
            fn notices(&self, _: usize) -> BoxFuture<'_, Result<Vec<Notice>, StoreError>> {
                Box::pin(std::future::ready(Ok(Vec::new())))
            }
            fn notice_done(&self, _: u64) -> BoxFuture<'_, Result<(), StoreError>> {
                Box::pin(std::future::ready(Ok(())))
            }
            fn purge(&self, _: Timestamp, _: usize) -> BoxFuture<'_, Result<Purged, StoreError>> {
                Box::pin(std::future::ready(Ok(Purged::default())))
            }
            fn news(&self) -> broadcast::Receiver<News> {
                broadcast::channel(1).1
            }
            fn is_shared(&self) -> bool {
                false
            }
        }
    };
}
no_work!(super::MemoryStore);
no_work!(super::SqliteStore);

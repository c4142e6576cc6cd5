//! Who may move a run, and what processes that share a store ask of each other.
//!
//! Always true: a run that has not ended is either owned by one living worker or by nobody; whoever takes it over gets
//! a higher fence, and an append to a run under another number than its own is refused
//! ([`super::AppendError::Fenced`]), after the look whether it is a batch that comes again and before every other look.
//! Whether an owner lives is judged by the store's clock alone; one that was never heard of does not.
//!
//! When a run's turn has come: one that was released comes at its `wake`, and without one only when something is asked
//! of it (whoever released it saw to that), but for a `queued` one, which waits for nothing but a mover; one whose owner
//! left or died comes at once.
//! A lock's holder is whoever stands first in its queue; places are given out by
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

use super::{Birth, LockRow, Notice, OrderRecord, RunSnapshot, StoreError};
use crate::names::{Fence, RunId, WorkerId};
use crate::workflow::{Event, Run, RunStatus, RunSummary, fold};

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
    /// A run is to begin: see [`Work::births`].
    Birth,
}

/// What is kept beside the summary of a pinned run that was purged: what those who follow it up may ask of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Remains {
    /// The body of its request.
    pub input: Option<Value>,
    /// The body of its answer.
    pub output: Option<Value>,
}

impl Remains {
    /// What remains of a run with these events; nothing of one that cannot be read.
    pub fn of<'a>(events: impl IntoIterator<Item = &'a Event>) -> Option<Self> {
        fold(events).ok().as_ref().map(Self::of_run)
    }
    /// What remains of a run.
    pub fn of_run(run: &Run) -> Self {
        let input = run.started().request.get("body").cloned();
        Self { input, output: run.answer().map(|answer| answer.body.value()) }
    }
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

/// What the asker gets where the run ended before it came to what was asked.
pub fn run_has_ended() -> Value {
    serde_json::json!({ "refused": "the run has ended" })
}

/// What the asker gets where there is no such run.
pub fn no_such_run() -> Value {
    serde_json::json!({ "refused": "there is no such run" })
}

/// When a run that its mover released with this summary wants to be taken; `None` is when something is asked of it.
pub(super) fn due_at_of(summary: &RunSummary) -> Option<Timestamp> {
    if summary.status.is_final() {
        return None;
    }
    let at_once = || (summary.status == RunStatus::Queued).then_some(Timestamp::UNIX_EPOCH);
    summary.wake.or_else(at_once)
}

/// News that wait for a slow listener; what is beyond is lost to it, and it looks for itself.
pub(super) const NEWS_MAX: usize = 1_024;

/// Ownership, orders, locks, notices, snapshots of runs, retention.
pub trait Work: Send + Sync + 'static {
    /// The worker lives for so long from now on; what time it is for the store, where several processes share it (their
    /// own clocks may differ). Where the store belongs to one process it costs nothing.
    fn beat(
        &self,
        worker: WorkerId,
        name: String,
        lives: Duration,
    ) -> BoxFuture<'_, Result<Option<Timestamp>, StoreError>>;
    /// The worker goes: what it owns is nobody's.
    fn leave(&self, worker: WorkerId) -> BoxFuture<'_, Result<(), StoreError>>;
    /// Takes a run that has not ended: one that is nobody's, one whose owner does not live, or the asker's own (under a
    /// new fence). Durable before it returns.
    fn take(&self, worker: WorkerId, run: RunId) -> BoxFuture<'_, Result<Taken, StoreError>>;
    /// Takes at most so many runs that have not ended, are nobody's or whose owner does not live, and whose turn has
    /// come: their `wake` is over, or they wait for nothing but a mover, or something is asked of them. Oldest first;
    /// two processes that ask at the same time never get the same one.
    fn take_due(&self, worker: WorkerId, limit: usize) -> BoxFuture<'_, Result<Vec<Owned>, StoreError>>;
    /// The times at which runs that are nobody's want to be taken, earliest first, those that are over too. A run that
    /// waits for nothing but a mover stands at the beginning of 1970.
    fn wakes(&self, limit: usize) -> BoxFuture<'_, Result<Vec<(Timestamp, RunId)>, StoreError>>;

    /// Asks something of a run that another process moves. Asked again under the same id it changes nothing. What is
    /// asked of a run that has ended, or ends before it is settled, is settled with [`run_has_ended`]; of one that does
    /// not exist with [`no_such_run`].
    fn put_order(&self, order: OrderRecord) -> BoxFuture<'_, Result<(), StoreError>>;
    /// What is asked of a run and not settled, oldest first.
    fn orders(&self, run: RunId) -> BoxFuture<'_, Result<Vec<OrderRecord>, StoreError>>;
    /// One asking, with its answer once it is settled.
    fn order(&self, id: Uuid) -> BoxFuture<'_, Result<Option<OrderRecord>, StoreError>>;
    /// Settles what was asked; the first answer stands.
    fn settle_order(&self, id: Uuid, answer: Value) -> BoxFuture<'_, Result<(), StoreError>>;

    /// The queues of these locks, or of all, in the order of places; at most so many rows.
    fn locks(&self, names: Option<Vec<String>>, limit: usize) -> BoxFuture<'_, Result<Vec<LockRow>, StoreError>>;

    /// Notices with a number beyond this one that were not sent, oldest first; at most so many.
    fn notices(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<Notice>, StoreError>>;
    /// It was sent, or given up.
    fn notice_done(&self, number: u64) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Runs that are to begin and have no event yet, in the order in which that was decided; at most so many.
    fn births(&self, limit: usize) -> BoxFuture<'_, Result<Vec<Birth>, StoreError>>;
    /// The run is not to begin any more: its row is removed. Durable before it returns; nothing happens where there is
    /// none.
    fn drop_birth(&self, run: RunId) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Keeps a run as it stood after an event, in place of what was kept of it for fewer events. Nothing happens where the
    /// run is not there, has fewer events, or is purged. Appends go first: one that is handed in meanwhile waits for a
    /// portion of it at most.
    fn put_run_snapshot(&self, snapshot: RunSnapshot) -> BoxFuture<'_, Result<(), StoreError>>;
    /// What was kept of a run for the most events; what is not whole is not there. An error where it is damaged.
    fn run_snapshot(&self, run: RunId) -> BoxFuture<'_, Result<Option<RunSnapshot>, StoreError>>;

    /// Drops at most so many runs that ended in this way before a time, the longest ended first, with their events and
    /// what was asked of them. A pinned one keeps its summary and its [`Remains`]. A run whose retry key may not have run
    /// out stays, and so does one that another began which has not ended (that one may not know yet how it ended), and
    /// one that decided on a run which has not begun. Holds up appends for no longer than dropping so many takes: hand in
    /// small numbers.
    fn purge(
        &self,
        status: RunStatus,
        ended_before: Timestamp,
        limit: usize,
    ) -> BoxFuture<'_, Result<Purged, StoreError>>;
    /// Drops retry keys that have run out, whoever took them, at most so many; how many went.
    fn prune_retry_keys(&self, limit: usize) -> BoxFuture<'_, Result<u64, StoreError>>;
    /// What is kept of a pinned run that was purged; `None` of every other.
    fn remains(&self, run: RunId) -> BoxFuture<'_, Result<Option<Remains>, StoreError>>;

    /// The name of the living worker that moves a run, for people; `None` where nobody does, and where the store belongs
    /// to one process.
    fn owner(&self, _run: RunId) -> BoxFuture<'_, Result<Option<String>, StoreError>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    /// What happens from now on.
    fn news(&self) -> broadcast::Receiver<News>;
    /// Whether several processes may work on this store at the same time.
    fn is_shared(&self) -> bool;
}

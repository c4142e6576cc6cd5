//! Which worker may execute a run, and how processes that share a store coordinate: commands, locks, notifications. A
//! command is what a person or a program tells a run to do, such as pause or cancel.
//!
//! Always true: a run that has not ended has at most one owner. A worker that takes it over gets a higher fencing
//! token, and an append with another token is refused ([`super::AppendError::Fenced`]). Only the check whether the
//! append is already stored comes before the check of the token. Whether an owner is alive is decided by the store's
//! clock alone; an owner without a heartbeat counts as dead.
//!
//! A released run is due at its `wake`, or as soon as there is a command for it. A released run in status `queued`, and
//! a run whose owner left or died, are due at once.
//!
//! The first entry of a lock's queue holds the lock. The append that adds an entry assigns its position. An append
//! removes the entry when its step leaves the queue or when the run ends.
//!
//! In a store that belongs to one process (SQLite, memory) every other owner is dead, and only this process sends
//! notifications.

use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::broadcast;
use uuid::Uuid;

use super::{
    Append, ChangedRuns, CommandRecord, GoneProcess, LivingProcesses, LockRow, OutboxRow, ProcessRecord, RetryKeyPage,
    RetryKeyPosition, RunCursor, RunSnapshot, StoreError, WebhookMessage,
};
use crate::flag::RetryKey;
use crate::names::{Fence, RunId, WorkerId};
use crate::workflow::{Creates, Event, Run, RunStatus, RunSummary, fold};

/// A run that a process acquired.
#[derive(Clone, Debug, PartialEq)]
pub struct OwnedRun {
    /// Its current summary.
    pub summary: RunSummary,
    /// The fencing token of its new owner.
    pub fence: Fence,
}

/// The result of acquiring one run.
#[derive(Clone, Debug, PartialEq)]
pub enum AcquireResult {
    /// The caller owns the run now.
    Acquired(OwnedRun),
    /// Another living process owns the run.
    Elsewhere {
        /// That process.
        worker: WorkerId,
        /// Its name, for people.
        name: String,
    },
    /// The run has ended.
    Ended(RunSummary),
    /// The run's summary cannot be read.
    Unreadable {
        /// Its fencing token, if the caller owns it now; `None` if it has ended.
        fence: Option<Fence>,
        /// The error.
        why: String,
    },
    /// There is no such run.
    Unknown,
}

/// A change in the store that processes wait for. A notification can be lost (a slow receiver, a lost connection), so
/// each receiver also polls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreNotification {
    /// The run has no owner and is due, or there is a command for it.
    Run(RunId),
    /// The run has ended.
    Ended {
        /// The run.
        run: RunId,
        /// Whether this process wrote its last append.
        by_this_process: bool,
    },
    /// An entry left the queue of this lock.
    Lock(String),
    /// The command is answered.
    Command(Uuid),
    /// A message to a webhook was recorded.
    WebhookMessage,
    /// A run is to begin: see [`RunCoordination::pending_runs`].
    PendingRun,
    /// Another process has changed what it says about itself: see [`RunCoordination::exchange_processes`].
    Process,
}

/// The bodies of a run's request and answer, for workflows that follow up the instance that the run created. Of a
/// pinned run they are stored when it is purged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunBodies {
    /// The body of its request.
    pub input: Option<Value>,
    /// The body of its answer.
    pub output: Option<Value>,
    /// Of the twin of an instance of legacy: the headers of its answer, one of which may have the id that the engine
    /// gave to the twin. Empty in what an earlier version kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
}

impl RunBodies {
    /// The bodies of the run with these events; `None` if they cannot be folded.
    pub fn of<'a>(events: impl IntoIterator<Item = &'a Event>) -> Option<Self> {
        fold(events).ok().as_ref().map(Self::of_run)
    }
    /// The bodies of this run.
    pub fn of_run(run: &Run) -> Self {
        let input = run.started().request.get("body").cloned();
        let is_twin = matches!(run.started().creates, Some(Creates::Twin { .. }));
        let headers = run.answer().filter(|_| is_twin).map(|answer| answer.headers.clone()).unwrap_or_default();
        Self { input, output: run.answer().map(|answer| answer.value()), headers }
    }
}

impl Append {
    /// Whether the run's summary and bodies are kept when it is purged: it pins an instance, or its result is what
    /// follow-up requests see of an instance that an earlier run of its job pinned.
    pub fn is_pinned(&self) -> bool {
        let follows_pins = |(_, event): &(_, Event)| match event {
            Event::RunStarted(started) => !started.pinned_before.is_empty(),
            _ => false,
        };
        !self.pins.is_empty() || self.events.first().is_some_and(follows_pins)
    }
}

/// What a purge removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// Runs whose events were removed.
    pub runs: u64,
    /// Of those, runs whose summary was kept because they are pinned.
    pub pinned: u64,
    /// Payloads that were removed, since no event refers to them any more.
    pub payloads: u64,
}

/// The answer to a command to a run that had ended, or ended before it carried the command out.
pub fn run_has_ended() -> Value {
    serde_json::json!({ "refused": "the run has ended" })
}

/// The answer to a command to a run that does not exist.
pub fn no_such_run() -> Value {
    serde_json::json!({ "refused": "there is no such run" })
}

/// When a run that was released with this summary is due; `None` if only a command makes it due.
pub(super) fn due_at_of(summary: &RunSummary) -> Option<Timestamp> {
    if summary.status.is_final() {
        return None;
    }
    let at_once = || (summary.status == RunStatus::Queued).then_some(Timestamp::UNIX_EPOCH);
    summary.wake.or_else(at_once)
}

/// Notifications that are kept for a slow receiver. Older ones are lost to it: it polls.
pub(super) const NOTIFICATIONS_MAX: usize = 1_024;

/// Ownership of runs, commands, locks, messages to webhooks, snapshots of runs, retention.
pub trait RunCoordination: Send + Sync + 'static {
    /// Records that the worker counts as alive for this long from now on. Returns the store's time if processes share
    /// the store, because their own clocks may differ. In a store of one process it does nothing.
    fn heartbeat(
        &self,
        worker: WorkerId,
        name: String,
        alive_for: Duration,
    ) -> BoxFuture<'_, Result<Option<Timestamp>, StoreError>>;
    /// Releases all runs that the worker owns, because the worker stops.
    fn deregister(&self, worker: WorkerId) -> BoxFuture<'_, Result<(), StoreError>>;
    /// Acquires a run that has not ended and has no owner, a dead owner, or the caller as its owner; the fencing token
    /// is new in each case. Durable before it returns.
    fn acquire(&self, worker: WorkerId, run: RunId) -> BoxFuture<'_, Result<AcquireResult, StoreError>>;
    /// Acquires at most `limit` due runs, oldest first. Two processes that call it at the same time never get the same
    /// run.
    fn acquire_due(&self, worker: WorkerId, limit: usize) -> BoxFuture<'_, Result<Vec<OwnedRun>, StoreError>>;
    /// Like [`Self::acquire_due`], but leaves out these runs, which this worker cannot read, if their owner is dead or
    /// has given them up ([`Self::give_up`]) and there is no open command for them. A store of one process acquires
    /// them too.
    fn acquire_due_except(
        &self,
        worker: WorkerId,
        limit: usize,
        unreadable: Vec<RunId>,
    ) -> BoxFuture<'_, Result<Vec<OwnedRun>, StoreError>> {
        let _ = unreadable;
        self.acquire_due(worker, limit)
    }
    /// Gives up a run that the worker owns under this fencing token and cannot read: any worker may acquire it from now
    /// on, as if its owner had died. No effect if the run has another owner or token or has ended, and in a store of
    /// one process.
    fn give_up(&self, worker: WorkerId, run: RunId, fence: Fence) -> BoxFuture<'_, Result<(), StoreError>> {
        let _ = (worker, run, fence);
        Box::pin(std::future::ready(Ok(())))
    }
    /// When runs without an owner are due, earliest first; past times are included. For a run that is due at once it is
    /// the beginning of 1970.
    fn due_times(&self, limit: usize) -> BoxFuture<'_, Result<Vec<(Timestamp, RunId)>, StoreError>>;

    /// Stores a command to a run that another process executes; no effect if a command with its id exists. If the run
    /// has ended, or ends before it answers, the answer is [`run_has_ended`]; if it does not exist, [`no_such_run`].
    fn put_command(&self, command: CommandRecord) -> BoxFuture<'_, Result<(), StoreError>>;
    /// The unanswered commands to a run, oldest first.
    fn commands(&self, run: RunId) -> BoxFuture<'_, Result<Vec<CommandRecord>, StoreError>>;
    /// One command, with its answer once there is one.
    fn command(&self, id: Uuid) -> BoxFuture<'_, Result<Option<CommandRecord>, StoreError>>;
    /// Answers a command; no effect if it has an answer.
    fn answer_command(&self, id: Uuid, answer: Value) -> BoxFuture<'_, Result<(), StoreError>>;

    /// The queues of these locks, or of all, in the order of positions; at most `limit` rows.
    fn locks(&self, names: Option<Vec<String>>, limit: usize) -> BoxFuture<'_, Result<Vec<LockRow>, StoreError>>;

    /// At most `limit` messages that are still to be sent and have a higher number than `after`, oldest first.
    fn webhook_messages(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<WebhookMessage>, StoreError>>;
    /// Removes a message that was sent or given up.
    fn remove_webhook_message(&self, number: u64) -> BoxFuture<'_, Result<(), StoreError>>;

    /// At most `limit` runs that are to begin and have no event yet, oldest row first.
    fn pending_runs(&self, limit: usize) -> BoxFuture<'_, Result<Vec<OutboxRow>, StoreError>>;
    /// Removes the row of a run that is not to begin any more. Durable before it returns; no effect without such a row.
    fn remove_pending_run(&self, run: RunId) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Stores a snapshot, which replaces those of fewer events. No effect if the run does not exist, has fewer events
    /// or is purged. A large snapshot is written in parts, so that an append waits for one part at most.
    fn put_run_snapshot(&self, snapshot: RunSnapshot) -> BoxFuture<'_, Result<(), StoreError>>;
    /// The snapshot of a run that includes the most events. Incomplete ones are ignored, a damaged one is an error.
    fn run_snapshot(&self, run: RunId) -> BoxFuture<'_, Result<Option<RunSnapshot>, StoreError>>;

    /// Removes at most `limit` runs that ended with this status before this time, earliest end first, with their events
    /// and commands. A pinned run keeps its summary and its [`RunBodies`]. A run is kept while its retry key may be
    /// valid, while its parent has not ended (the parent may not have recorded its end), while an earlier run of its
    /// job is kept (that run has at most one successor, and has to know it), and while an [`OutboxRow`] names it. A
    /// pinned run whose events cannot be read is left out until the next process. As long as runs are left to remove,
    /// it removes at least one. Appends wait meanwhile: keep `limit` small.
    fn purge(
        &self,
        status: RunStatus,
        ended_before: Timestamp,
        limit: usize,
    ) -> BoxFuture<'_, Result<Purged, StoreError>>;
    /// Examines at most `limit` retry keys of both arms after a position, of those whose window after the first try is
    /// over. Removes the ones that no run keeps bound, and returns how many.
    fn prune_retry_keys(
        &self,
        after: Option<RetryKeyPosition>,
        limit: usize,
    ) -> BoxFuture<'_, Result<RetryKeyPage<u64>, StoreError>>;
    /// Examines at most `limit` retry keys of both arms after a position, of those whose window after the first try is
    /// over, or will be within `ahead`. Returns the ones that stay bound because of their run.
    fn long_bound_keys(
        &self,
        ahead: Duration,
        after: Option<RetryKeyPosition>,
        limit: usize,
    ) -> BoxFuture<'_, Result<RetryKeyPage<Vec<RetryKey>>, StoreError>>;
    /// The bodies that are kept of a purged pinned run; `None` for every other run.
    fn purged_run_bodies(&self, run: RunId) -> BoxFuture<'_, Result<Option<RunBodies>, StoreError>>;

    /// The living worker that owns a run, and its name, to show to people; `None` if there is none, and always in a
    /// store of one process.
    fn owner(&self, _run: RunId) -> BoxFuture<'_, Result<Option<(WorkerId, String)>, StoreError>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Stores what this process says about itself, beside its lease, and returns all processes whose leases are not
    /// over. Without a lease nothing is stored. `None` in a store of one process.
    fn exchange_processes(
        &self,
        _worker: WorkerId,
        _record: ProcessRecord,
    ) -> BoxFuture<'_, Result<Option<LivingProcesses>, StoreError>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    /// The processes that hang, have lost the store or were killed: their leases are over, and they have not called
    /// [`Self::deregister`]. None in a store of one process. For a retry window, or a day if that is longer.
    fn gone_processes(&self) -> BoxFuture<'_, Result<Vec<GoneProcess>, StoreError>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    /// At most `limit` runs that a worker owns, those after this one, in the order of their ids, each with its token.
    /// None in a store of one process, whose next process resumes them.
    fn owned_runs(
        &self,
        _worker: WorkerId,
        _after: Option<RunId>,
        _limit: usize,
    ) -> BoxFuture<'_, Result<Vec<(RunId, Fence)>, StoreError>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    /// Gives up one run that a worker owns with this token: it is due at once for the others. Not done in a store of
    /// one process, whose next process resumes it.
    fn release_run(&self, _worker: WorkerId, _run: RunId, _fence: Fence) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Gives up all runs of a worker, which are due at once then; its lease stays. In a store of one process, and in
    /// others that do not tell the two apart, as [`RunCoordination::deregister`].
    fn release_runs(&self, worker: WorkerId) -> BoxFuture<'_, Result<(), StoreError>> {
        self.deregister(worker)
    }

    /// At most `limit` keys after a position that runs claimed at `since` or later, oldest first, each with its time.
    /// None in a store of one process, which knows what its engine takes.
    fn engine_tries_since(
        &self,
        _since: Timestamp,
        _after: Option<RetryKeyPosition>,
        _limit: usize,
    ) -> BoxFuture<'_, Result<RetryKeyPage<Vec<RetryKeyPosition>>, StoreError>> {
        Box::pin(std::future::ready(Ok(RetryKeyPage { result: Vec::new(), next: None })))
    }

    /// Returns once no process whose lease is over is about to commit the first append of a real run: from then on none
    /// does before its next term ([`Self::begin_runs_under`]). At once in a store of one process.
    fn wait_for_ended_leases(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// From now on, an append that begins a real run is refused ([`AppendError::LeaseOver`](super::AppendError))
    /// unless the lease of this process is in this term ([`LivingProcess::term`](super::LivingProcess::term)) and not
    /// over; with `None`, each is refused. If the term is another one than before, so is one that claims a retry key,
    /// and whose request was decided by an older flag set than `newest_set`, which is in force now. Nothing is refused
    /// before this was called, nor in a store of one process.
    fn begin_runs_under(&self, _worker: WorkerId, _term: Option<i64>, _newest_set: u64) {}

    /// The runs that have changed since this cursor, at most `limit` (for stores that sort them by kind: of each kind);
    /// without a cursor none, only where to begin.
    fn changed_runs(&self, since: Option<RunCursor>, limit: usize) -> BoxFuture<'_, Result<ChangedRuns, StoreError>>;

    /// Subscribes to all notifications from now on.
    fn notifications(&self) -> broadcast::Receiver<StoreNotification>;
    /// Whether several processes may use this store at the same time.
    fn is_shared(&self) -> bool;
}

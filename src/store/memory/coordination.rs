//! [`RunCoordination`] in memory: ownership of runs, and retention.

use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tokio::sync::broadcast;
use uuid::Uuid;

use super::MemoryStore;
use super::tables::{StoredRun, Tables};
use crate::clock;
use crate::flag::RetryKey;
use crate::names::{JobId, RunId, WorkerId};
use crate::store::{
    AcquireResult, ChangedRuns, CommandRecord, LockRow, OutboxRow, OwnedRun, Purged, RetryKeyPage, RetryKeyPosition,
    RunBodies, RunCoordination, RunCursor, RunSnapshot, StoreError, StoreNotification, WebhookMessage, no_such_run,
    run_has_ended,
};
use crate::workflow::RunStatus;

impl StoredRun {
    fn assign_to(&mut self, worker: WorkerId) -> OwnedRun {
        self.owner = Some(worker);
        self.due_at = None;
        self.fence = self.fence.next();
        OwnedRun { summary: self.summary.clone(), fence: self.fence }
    }
}

impl Tables {
    fn deregister(&mut self, worker: WorkerId, notifications: &mut Vec<StoreNotification>) {
        for (id, run) in self.runs.iter_mut().filter(|(_, run)| run.owner == Some(worker)) {
            run.owner = None;
            run.due_at = Some(Timestamp::UNIX_EPOCH);
            notifications.push(StoreNotification::Run(*id));
        }
    }

    fn acquire(&mut self, worker: WorkerId, run: RunId) -> AcquireResult {
        match self.runs.get_mut(&run) {
            None => AcquireResult::Unknown,
            Some(run) if run.summary.status.is_final() => AcquireResult::Ended(run.summary.clone()),
            Some(run) => AcquireResult::Acquired(run.assign_to(worker)),
        }
    }

    fn acquire_due(&mut self, worker: WorkerId, limit: usize, now: Timestamp) -> Vec<OwnedRun> {
        // Only one process uses this store, so every other worker is dead.
        for run in self.runs.values_mut().filter(|run| run.owner.is_some_and(|owner| owner != worker)) {
            run.owner = None;
            run.due_at = Some(Timestamp::UNIX_EPOCH);
        }
        let coordination = &self.coordination;
        let waiting = |run: &StoredRun| run.owner.is_none() && !run.summary.status.is_final();
        let due = self.runs.iter_mut().filter(|(id, run)| {
            waiting(run) && (run.due_at.is_some_and(|due_at| due_at <= now) || coordination.has_open_command(**id))
        });
        due.take(limit).map(|(_, run)| run.assign_to(worker)).collect()
    }

    fn due_times(&self, limit: usize) -> Vec<(Timestamp, RunId)> {
        let mut wakes: Vec<_> = self.runs.iter().filter_map(|(id, run)| Some((run.due_at?, *id))).collect();
        wakes.sort();
        wakes.truncate(limit);
        wakes
    }

    fn put_command(&mut self, command: CommandRecord, notifications: &mut Vec<StoreNotification>) {
        let refused = match self.runs.get(&command.run) {
            None => Some(no_such_run()),
            Some(run) => run.summary.status.is_final().then(run_has_ended),
        };
        self.coordination.put_command(command, refused, notifications);
    }

    fn put_run_snapshot(&mut self, snapshot: RunSnapshot) {
        let run = self.runs.get_mut(&snapshot.run).filter(|run| run.summary.seq >= snapshot.seq && !run.purged);
        if let Some(run) = run
            && run.snapshot.as_ref().is_none_or(|stored| stored.seq <= snapshot.seq)
        {
            run.snapshot = Some(snapshot);
        }
    }

    fn purge(&mut self, status: RunStatus, ended_before: Timestamp, limit: usize, now: Timestamp) -> Purged {
        // A run that ended before this time keeps no retry key bound any more, and claimed its own even earlier.
        let ended_before = now.checked_sub(self.window).map_or(ended_before, |since| ended_before.min(since));
        let ended = self.runs.iter().filter(|(_, run)| run.summary.status == status && status.is_final());
        let old = ended.filter(|(_, run)| run.summary.updated < ended_before && !run.purged);
        let is_running = |id| self.runs.get(&id).is_some_and(|parent| !parent.summary.status.is_final());
        let old = old.filter(|(_, run)| !run.summary.parent.is_some_and(is_running));
        let old = old.filter(|(id, _)| !self.pending_runs.iter().any(|pending| pending.parent == Some(**id)));
        let has_earlier_run = |id: RunId, job: JobId| {
            let before = self.runs.range(..id).filter(|(_, run)| !run.purged);
            before.into_iter().any(|(earlier, run)| earlier.0 == job.0 || run.summary.job == Some(job))
        };
        let old = old.filter(|(id, run)| !run.summary.job.is_some_and(|job| has_earlier_run(**id, job)));
        let mut old: Vec<_> = old.map(|(id, run)| (run.summary.updated, *id)).collect();
        old.sort();
        let mut purged = Purged::default();
        for (_, id) in old.into_iter().take(limit) {
            self.coordination.purge_run(id);
            purged.runs += 1;
            match self.runs.get_mut(&id).filter(|run| run.pinned) {
                Some(run) => {
                    purged.pinned += 1;
                    run.purged = true;
                    run.bodies = RunBodies::of(run.events.iter().map(|(_, stored)| &stored.event));
                    run.events = Vec::new();
                    run.snapshot = None;
                }
                None => {
                    self.runs.remove(&id);
                }
            }
        }
        purged
    }
}

type StoreFuture<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

impl RunCoordination for MemoryStore {
    fn heartbeat(&self, _: WorkerId, _: String, _: Duration) -> StoreFuture<'_, Option<Timestamp>> {
        self.with(|_| None)
    }

    fn deregister(&self, worker: WorkerId) -> StoreFuture<'_, ()> {
        self.with_notifications(|tables, notifications| tables.deregister(worker, notifications))
    }

    fn acquire(&self, worker: WorkerId, run: RunId) -> StoreFuture<'_, AcquireResult> {
        self.with(|tables| tables.acquire(worker, run))
    }

    fn acquire_due(&self, worker: WorkerId, limit: usize) -> StoreFuture<'_, Vec<OwnedRun>> {
        self.with(|tables| tables.acquire_due(worker, limit, clock::now()))
    }

    fn due_times(&self, limit: usize) -> StoreFuture<'_, Vec<(Timestamp, RunId)>> {
        self.with(|tables| tables.due_times(limit))
    }

    fn put_command(&self, command: CommandRecord) -> StoreFuture<'_, ()> {
        self.with_notifications(|tables, notifications| tables.put_command(command, notifications))
    }

    fn commands(&self, run: RunId) -> StoreFuture<'_, Vec<CommandRecord>> {
        self.with(|tables| tables.coordination.commands(run))
    }

    fn command(&self, id: Uuid) -> StoreFuture<'_, Option<CommandRecord>> {
        self.with(|tables| tables.coordination.command(id))
    }

    fn answer_command(&self, id: Uuid, answer: Value) -> StoreFuture<'_, ()> {
        self.with_notifications(|tables, notifications| tables.coordination.answer_command(id, answer, notifications))
    }

    fn locks(&self, names: Option<Vec<String>>, limit: usize) -> StoreFuture<'_, Vec<LockRow>> {
        self.with(|tables| tables.coordination.locks(names.as_deref(), limit))
    }

    fn webhook_messages(&self, after: u64, limit: usize) -> StoreFuture<'_, Vec<WebhookMessage>> {
        self.with(|tables| tables.coordination.webhook_messages(after, limit))
    }

    fn remove_webhook_message(&self, number: u64) -> StoreFuture<'_, ()> {
        self.with(|tables| tables.coordination.remove_webhook_message(number))
    }

    fn pending_runs(&self, limit: usize) -> StoreFuture<'_, Vec<OutboxRow>> {
        self.with(|tables| tables.pending_runs.iter().take(limit).cloned().collect())
    }

    fn remove_pending_run(&self, run: RunId) -> StoreFuture<'_, ()> {
        self.with(|tables| tables.pending_runs.retain(|pending| pending.run != run))
    }

    fn put_run_snapshot(&self, snapshot: RunSnapshot) -> StoreFuture<'_, ()> {
        self.with(|tables| tables.put_run_snapshot(snapshot))
    }

    fn run_snapshot(&self, run: RunId) -> StoreFuture<'_, Option<RunSnapshot>> {
        self.with(|tables| tables.runs.get(&run).and_then(|run| run.snapshot.clone()))
    }

    fn purge(&self, status: RunStatus, ended_before: Timestamp, limit: usize) -> StoreFuture<'_, Purged> {
        self.with(|tables| tables.purge(status, ended_before, limit, clock::now()))
    }

    fn prune_retry_keys(&self, after: Option<RetryKeyPosition>, limit: usize) -> StoreFuture<'_, RetryKeyPage<u64>> {
        self.with(|tables| tables.prune_retry_keys(after, limit, clock::now()))
    }

    fn long_bound_keys(
        &self,
        ahead: Duration,
        after: Option<RetryKeyPosition>,
        limit: usize,
    ) -> StoreFuture<'_, RetryKeyPage<Vec<RetryKey>>> {
        let ahead = SignedDuration::try_from(ahead).unwrap_or(SignedDuration::MAX);
        self.with(|tables| tables.long_bound_keys(ahead, after, limit, clock::now()))
    }

    fn purged_run_bodies(&self, run: RunId) -> StoreFuture<'_, Option<RunBodies>> {
        self.with(|tables| tables.runs.get(&run).and_then(|run| run.bodies.clone()))
    }

    fn changed_runs(&self, since: Option<RunCursor>, limit: usize) -> StoreFuture<'_, ChangedRuns> {
        self.with(|tables| {
            let (changed, next) = tables.coordination.changed_runs(since, limit);
            let are_all = changed.len() < limit;
            let runs = changed.into_iter().filter_map(|run| tables.run(run)).collect();
            ChangedRuns { runs, are_all, next }
        })
    }

    fn notifications(&self) -> broadcast::Receiver<StoreNotification> {
        self.notifications.subscribe()
    }

    fn engine_tries_since(
        &self,
        since: Timestamp,
        after: Option<RetryKeyPosition>,
        limit: usize,
    ) -> StoreFuture<'_, RetryKeyPage<Vec<RetryKeyPosition>>> {
        self.with(|tables| {
            let result: Vec<_> = tables.retry_keys.claimed_since(since, after).take(limit).collect();
            let next = result.last().copied().filter(|_| result.len() >= limit);
            RetryKeyPage { result, next }
        })
    }

    fn is_shared(&self) -> bool {
        self.is_shared.load(std::sync::atomic::Ordering::Acquire)
    }
}

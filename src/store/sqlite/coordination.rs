//! [`RunCoordination`] for SQLite: writes go to the writer ([`super::coordination_writes`]), reads to the readers.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::broadcast;
use uuid::Uuid;

use super::coordination_writes::{CoordinationResult, CoordinationWrite};
use super::encoded::{nanos, newest_expired};
use super::other_writes::OtherWrite;
use super::run_snapshots::{self, PARTS_DELETED_MAX};
use super::{SqliteStore, read};
use crate::clock;
use crate::flag::RetryKey;
use crate::names::{RunId, Seq, WorkerId};
use crate::store::bound_keys::page_of;
use crate::store::error::EventsError;
use crate::store::{
    AcquireResult, ChangedRuns, CommandRecord, LockRow, OutboxRow, OwnedRun, Purged, RetryKeyPage, RetryKeyPosition,
    RunBodies, RunCoordination, RunCursor, RunSnapshot, StoreError, StoreNotification, WebhookMessage,
};
use crate::workflow::RunStatus;

type StoreFuture<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

impl SqliteStore {
    fn write_coordination<T>(
        &self,
        write: CoordinationWrite,
        extract: impl FnOnce(CoordinationResult) -> Option<T> + Send + 'static,
    ) -> StoreFuture<'_, T> {
        let result = self.enqueue_write(|done| OtherWrite::Coordination(write, done));
        async move {
            extract(result.await?).ok_or_else(|| StoreError("the writer returned another result than expected".into()))
        }
        .boxed()
    }

    async fn purge_batch(
        &self,
        status: RunStatus,
        ended_before: Timestamp,
        limit: usize,
    ) -> Result<Purged, StoreError> {
        // A run that ended before this time claimed its retry key even earlier, so that the key has expired.
        let since = newest_expired(self.retry_window);
        let before = nanos(ended_before).min(since);
        let mut runs = Vec::new();
        // Further pages are read while a page holds only runs that turn out to be unreadable.
        while runs.is_empty() {
            let (left_out, mut unreadable) = (self.unpurgeable.runs(), Vec::new());
            let page = limit.saturating_add(left_out.len());
            let mut found = read::purgeable_runs(&self.readers, status, before, page).await?;
            found.retain(|(run, _)| !left_out.contains(run));
            found.truncate(limit);
            if found.is_empty() {
                break;
            }
            for (run, pinned) in found {
                match if pinned { self.bodies_of(run).await.map(Some) } else { Ok(None) } {
                    Ok(bodies) => runs.push((run, bodies)),
                    Err(EventsError::Unreadable(error)) => unreadable.push((run, error)),
                    Err(EventsError::NoAnswer(error)) => return Err(error),
                }
            }
            self.unpurgeable.add(unreadable);
        }
        let mut purged =
            Purged { pinned: runs.iter().filter(|(_, bodies)| bodies.is_some()).count() as u64, ..Purged::default() };
        if !runs.is_empty() {
            purged.runs = self
                .write_coordination(CoordinationWrite::MarkPurged(runs), |result| {
                    if let CoordinationResult::Marked(runs) = result { Some(runs) } else { None }
                })
                .await?;
        }
        while read::is_purging(&self.readers).await? {
            let deleted = |result| {
                if let CoordinationResult::Deleted(payloads, done) = result { Some((payloads, done)) } else { None }
            };
            let (payloads, done) = self.write_coordination(CoordinationWrite::DeletePurged, deleted).await?;
            purged.payloads += payloads;
            if done {
                break;
            }
        }
        Ok(purged)
    }

    async fn write_snapshot(&self, snapshot: RunSnapshot) -> Result<(), StoreError> {
        let written = |result| if let CoordinationResult::SnapshotParts(count) = result { Some(count) } else { None };
        let (writing, parts) = run_snapshots::parts(&snapshot);
        for part in parts {
            if self.write_coordination(CoordinationWrite::PutSnapshot(part), written).await? == 0 {
                return Ok(());
            }
        }
        while self.write_coordination(CoordinationWrite::DropSnapshots(snapshot.run, writing), written).await?
            == PARTS_DELETED_MAX as usize
        {}
        Ok(())
    }

    /// The bodies of a pinned run, as JSON; `null` if its events cannot be folded.
    async fn bodies_of(&self, run: RunId) -> Result<Vec<u8>, EventsError> {
        let events = read::try_events(&self.readers, run, Seq::FIRST).await?;
        let bodies = RunBodies::of(events.iter().map(|stored| &stored.event));
        serde_json::to_vec(&bodies).map_err(|error| {
            EventsError::Unreadable(StoreError(format!("the bodies of {run} cannot be written as JSON: {error}")))
        })
    }
}

fn nothing(result: CoordinationResult) -> Option<()> {
    matches!(result, CoordinationResult::Nothing).then_some(())
}

impl RunCoordination for SqliteStore {
    fn heartbeat(&self, _: WorkerId, _: String, _: Duration) -> StoreFuture<'_, Option<Timestamp>> {
        ready(Ok(None)).boxed()
    }

    fn deregister(&self, worker: WorkerId) -> StoreFuture<'_, ()> {
        self.write_coordination(CoordinationWrite::ReleaseAll(worker), nothing)
    }

    fn acquire(&self, worker: WorkerId, run: RunId) -> StoreFuture<'_, AcquireResult> {
        let acquired = |result| if let CoordinationResult::Acquired(acquired) = result { Some(acquired) } else { None };
        self.write_coordination(CoordinationWrite::Acquire(worker, run), acquired)
    }

    fn acquire_due(&self, worker: WorkerId, limit: usize) -> StoreFuture<'_, Vec<OwnedRun>> {
        let due = |result| if let CoordinationResult::Due(due) = result { Some(due) } else { None };
        self.write_coordination(CoordinationWrite::AcquireDue(worker, read::sql_limit(limit)), due)
    }

    fn due_times(&self, limit: usize) -> StoreFuture<'_, Vec<(Timestamp, RunId)>> {
        read::due_times(&self.readers, limit).boxed()
    }

    fn put_command(&self, command: CommandRecord) -> StoreFuture<'_, ()> {
        self.write_coordination(CoordinationWrite::PutCommand(Box::new(command)), nothing)
    }

    fn commands(&self, run: RunId) -> StoreFuture<'_, Vec<CommandRecord>> {
        read::commands(&self.readers, run).boxed()
    }

    fn command(&self, id: Uuid) -> StoreFuture<'_, Option<CommandRecord>> {
        read::command(&self.readers, id).boxed()
    }

    fn answer_command(&self, id: Uuid, answer: Value) -> StoreFuture<'_, ()> {
        self.write_coordination(CoordinationWrite::AnswerCommand(id, answer), nothing)
    }

    fn locks(&self, names: Option<Vec<String>>, limit: usize) -> StoreFuture<'_, Vec<LockRow>> {
        read::locks(&self.readers, names, limit).boxed()
    }

    fn webhook_messages(&self, after: u64, limit: usize) -> StoreFuture<'_, Vec<WebhookMessage>> {
        read::webhook_messages(&self.readers, after, limit).boxed()
    }

    fn remove_webhook_message(&self, number: u64) -> StoreFuture<'_, ()> {
        self.write_coordination(CoordinationWrite::DeleteMessage(number.cast_signed()), nothing)
    }

    fn pending_runs(&self, limit: usize) -> StoreFuture<'_, Vec<OutboxRow>> {
        read::pending_runs(&self.readers, limit).boxed()
    }

    fn remove_pending_run(&self, run: RunId) -> StoreFuture<'_, ()> {
        self.write_coordination(CoordinationWrite::DropPendingRun(run), nothing)
    }

    fn put_run_snapshot(&self, snapshot: RunSnapshot) -> StoreFuture<'_, ()> {
        self.write_snapshot(snapshot).boxed()
    }

    fn run_snapshot(&self, run: RunId) -> StoreFuture<'_, Option<RunSnapshot>> {
        async move {
            let found = run_snapshots::read_newest(self.readers.pool()?, run).await;
            found.map_err(read::read_error)?.transpose()
        }
        .boxed()
    }

    fn purge(&self, status: RunStatus, ended_before: Timestamp, limit: usize) -> StoreFuture<'_, Purged> {
        self.purge_batch(status, ended_before, limit).boxed()
    }

    fn prune_retry_keys(&self, after: Option<RetryKeyPosition>, limit: usize) -> StoreFuture<'_, RetryKeyPage<u64>> {
        let since = newest_expired(self.retry_window);
        async move {
            if after.is_none() {
                self.unpurgeable.log_keys(read::unreadable_keys(&self.readers, since).await);
            }
            // A reader looks for the expired keys, so that the writer is not delayed by keys that stay.
            let old = read::old_keys(&self.readers, (since, since), after, limit).await?;
            let RetryKeyPage { result: expired, next } = page_of(&old, limit, false);
            if expired.is_empty() {
                return Ok(RetryKeyPage { result: 0, next });
            }
            let pruned = |result| if let CoordinationResult::Pruned(keys) = result { Some(keys) } else { None };
            let result = self.write_coordination(CoordinationWrite::PruneRetryKeys(expired), pruned).await?;
            Ok(RetryKeyPage { result, next })
        }
        .boxed()
    }

    fn long_bound_keys(
        &self,
        ahead: Duration,
        after: Option<RetryKeyPosition>,
        limit: usize,
    ) -> StoreFuture<'_, RetryKeyPage<Vec<RetryKey>>> {
        let since = newest_expired(self.retry_window);
        let soon_since = nanos(clock::window_start(ahead, self.retry_window));
        async move {
            let old = read::old_keys(&self.readers, (since, soon_since), after, limit).await?;
            Ok(page_of(&old, limit, true))
        }
        .boxed()
    }

    fn purged_run_bodies(&self, run: RunId) -> StoreFuture<'_, Option<RunBodies>> {
        read::purged_run_bodies(&self.readers, run).boxed()
    }

    fn changed_runs(&self, since: Option<RunCursor>, limit: usize) -> StoreFuture<'_, ChangedRuns> {
        read::changed_runs(&self.readers, since, limit).boxed()
    }

    fn notifications(&self) -> broadcast::Receiver<StoreNotification> {
        self.notifications.subscribe()
    }

    fn is_shared(&self) -> bool {
        false
    }
}

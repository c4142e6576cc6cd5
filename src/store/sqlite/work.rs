//! The second trait: what is written goes to the writer ([`super::moves`]), what is read to the readers.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::broadcast;
use uuid::Uuid;

use super::aside::Aside;
use super::job::nanos;
use super::moves::{Move, Moved};
use super::run_snapshots::{self, DROPPED_AT_ONCE};
use super::{SqliteStore, read};
use crate::clock;
use crate::names::{RunId, Seq, WorkerId};
use crate::store::{
    Birth, LockRow, News, Notice, OrderRecord, Owned, Purged, Remains, RunSnapshot, StoreError, Taken, Work,
};
use crate::workflow::RunStatus;

type Answer<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

impl SqliteStore {
    fn moves<T>(&self, asked: Move, told: impl FnOnce(Moved) -> Option<T> + Send + 'static) -> Answer<'_, T> {
        let moved = self.hand_aside(|done| Aside::Move(asked, done));
        async move { told(moved.await?).ok_or_else(|| StoreError("the store answered something else".into())) }.boxed()
    }

    async fn purge_some(&self, status: RunStatus, ended_before: Timestamp, limit: usize) -> Result<Purged, StoreError> {
        // A run that ended before this has claimed its retry key before it too.
        let since = nanos(clock::now()).saturating_sub(self.window_ns);
        let mut runs = Vec::new();
        for (run, pinned) in read::old(&self.readers, status, nanos(ended_before).min(since), limit).await? {
            let remains = match pinned {
                false => None,
                true => Some(self.remains_of(run).await?),
            };
            runs.push((run, remains));
        }
        let mut purged =
            Purged { pinned: runs.iter().filter(|(_, remains)| remains.is_some()).count() as u64, ..Purged::default() };
        if !runs.is_empty() {
            purged.runs = self
                .moves(Move::Doom(runs), |moved| if let Moved::Doomed(runs) = moved { Some(runs) } else { None })
                .await?;
        }
        while read::is_purging(&self.readers).await? {
            let swept = |moved| if let Moved::Swept(payloads, done) = moved { Some((payloads, done)) } else { None };
            let (payloads, done) = self.moves(Move::Sweep, swept).await?;
            purged.payloads += payloads;
            if done {
                break;
            }
        }
        Ok(purged)
    }

    async fn keep_snapshot(&self, snapshot: RunSnapshot) -> Result<(), StoreError> {
        let written = |moved| if let Moved::Portions(count) = moved { Some(count) } else { None };
        let (put, portions) = run_snapshots::portions(&snapshot);
        for portion in portions {
            if self.moves(Move::PutSnapshot(portion), written).await? == 0 {
                return Ok(());
            }
        }
        while self.moves(Move::DropSnapshots(snapshot.run, put), written).await? == DROPPED_AT_ONCE as usize {}
        Ok(())
    }

    /// As JSON: `null` where its events tell nothing.
    async fn remains_of(&self, run: RunId) -> Result<Vec<u8>, StoreError> {
        let events = read::events(&self.readers, run, Seq::FIRST).await?;
        let remains = Remains::of(events.iter().map(|stored| &stored.event));
        serde_json::to_vec(&remains).map_err(|error| StoreError(format!("what remains of {run}: {error}")))
    }
}

fn nothing(moved: Moved) -> Option<()> {
    matches!(moved, Moved::Nothing).then_some(())
}

impl Work for SqliteStore {
    fn beat(&self, _: WorkerId, _: String, _: Duration) -> Answer<'_, Option<Timestamp>> {
        ready(Ok(None)).boxed()
    }

    fn leave(&self, worker: WorkerId) -> Answer<'_, ()> {
        self.moves(Move::Leave(worker), nothing)
    }

    fn take(&self, worker: WorkerId, run: RunId) -> Answer<'_, Taken> {
        let taken = |moved| if let Moved::Taken(taken) = moved { Some(taken) } else { None };
        self.moves(Move::Take(worker, run), taken)
    }

    fn take_due(&self, worker: WorkerId, limit: usize) -> Answer<'_, Vec<Owned>> {
        let due = |moved| if let Moved::Due(due) = moved { Some(due) } else { None };
        self.moves(Move::TakeDue(worker, read::rows(limit)), due)
    }

    fn wakes(&self, limit: usize) -> Answer<'_, Vec<(Timestamp, RunId)>> {
        read::wakes(&self.readers, limit).boxed()
    }

    fn put_order(&self, order: OrderRecord) -> Answer<'_, ()> {
        self.moves(Move::Ask(Box::new(order)), nothing)
    }

    fn orders(&self, run: RunId) -> Answer<'_, Vec<OrderRecord>> {
        read::orders(&self.readers, run).boxed()
    }

    fn order(&self, id: Uuid) -> Answer<'_, Option<OrderRecord>> {
        read::order(&self.readers, id).boxed()
    }

    fn settle_order(&self, id: Uuid, answer: Value) -> Answer<'_, ()> {
        self.moves(Move::Settle(id, answer), nothing)
    }

    fn locks(&self, names: Option<Vec<String>>, limit: usize) -> Answer<'_, Vec<LockRow>> {
        read::locks(&self.readers, names, limit).boxed()
    }

    fn notices(&self, after: u64, limit: usize) -> Answer<'_, Vec<Notice>> {
        read::notices(&self.readers, after, limit).boxed()
    }

    fn notice_done(&self, number: u64) -> Answer<'_, ()> {
        self.moves(Move::NoticeDone(number.cast_signed()), nothing)
    }

    fn births(&self, limit: usize) -> Answer<'_, Vec<Birth>> {
        read::births(&self.readers, limit).boxed()
    }

    fn drop_birth(&self, run: RunId) -> Answer<'_, ()> {
        self.moves(Move::DropBirth(run), nothing)
    }

    fn put_run_snapshot(&self, snapshot: RunSnapshot) -> Answer<'_, ()> {
        self.keep_snapshot(snapshot).boxed()
    }

    fn run_snapshot(&self, run: RunId) -> Answer<'_, Option<RunSnapshot>> {
        async move { run_snapshots::newest(&self.readers, run).await.map_err(read::unread)?.transpose() }.boxed()
    }

    fn purge(&self, status: RunStatus, ended_before: Timestamp, limit: usize) -> Answer<'_, Purged> {
        self.purge_some(status, ended_before, limit).boxed()
    }

    fn prune_retry_keys(&self, limit: usize) -> Answer<'_, u64> {
        let pruned = |moved| if let Moved::Pruned(keys) = moved { Some(keys) } else { None };
        self.moves(Move::PruneRetryKeys(read::rows(limit)), pruned)
    }

    fn remains(&self, run: RunId) -> Answer<'_, Option<Remains>> {
        read::remains(&self.readers, run).boxed()
    }

    fn news(&self) -> broadcast::Receiver<News> {
        self.news.subscribe()
    }

    fn is_shared(&self) -> bool {
        false
    }
}

//! [`RunCoordination`] for PostgreSQL: statements on the pool. Acquiring runs is left to [`super::acquire`].

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use serde_json::Value;
use sqlx::postgres::PgRow;
use tokio::sync::{broadcast, oneshot};
use uuid::Uuid;

use super::PostgresStore;
use super::acquire::WriterRequest;
use super::columns::{Result, column, escape, json, parse, record, run_id, sql_limit, time, unescape, utf8_text, uuid};
use super::{read, run_changes};
use crate::flag::RetryKey;
use crate::names::{Fence, RunId, StepId, WorkerId};
use crate::store::{
    AcquireResult, ChangedRuns, CommandRecord, GoneProcess, LivingProcesses, LockRow, OutboxRow, OwnedRun,
    ProcessRecord, Purged, RetryKeyPage, RetryKeyPosition, RunBodies, RunCoordination, RunCursor, RunSnapshot,
    StoreError, StoreNotification, StoreTime, WebhookMessage, no_such_run, run_has_ended,
};
use crate::workflow::RunStatus;

/// The owner of runs that were given up: no worker has this id.
const NOBODY: Uuid = Uuid::nil();

impl PostgresStore {
    async fn write_heartbeat(&self, worker: WorkerId, name: String, alive_for: Duration) -> Result<Option<Timestamp>> {
        let text = "WITH gone AS (DELETE FROM workers WHERE alive_until < clock_timestamp() - make_interval(secs => $4)), \
                   over AS (SELECT FROM workers WHERE worker = $1 AND alive_until <= clock_timestamp() FOR UPDATE) \
                   INSERT INTO workers AS known (worker, name, alive_until, term) \
                   VALUES ($1, $2, clock_timestamp() + make_interval(secs => $3), now_ns()) \
                   ON CONFLICT (worker) DO UPDATE SET name = excluded.name, alive_until = excluded.alive_until, \
                   term = CASE WHEN EXISTS (SELECT FROM over) THEN greatest(known.term + 1, excluded.term) \
                   ELSE known.term END RETURNING now_ns()";
        let make = || {
            let query = sqlx::query(text).bind(worker.0.as_bytes().as_slice()).bind(escape(&name));
            query.bind(alive_for.as_secs_f64()).bind(self.worker_row_kept_s())
        };
        let rows = self.leases.query(make).await?;
        // The time of the statement, which is before the reply: a process that sets its time by it is never ahead.
        rows.first().map(|row| time(column(row, 0)?)).transpose()
    }

    /// The database's time at the statement, which is before the reply: a process that sets its time by it is never
    /// ahead.
    pub(super) async fn server_time(&self) -> Result<StoreTime> {
        let rows = self.pool.query(|| sqlx::query("SELECT now_ns()")).await?;
        let now = rows.first().ok_or_else(|| StoreError("the database did not return its time".to_owned()))?;
        Ok(StoreTime::Now(time(column(now, 0)?)?))
    }

    fn request_writer<T: Send + 'static>(
        &self,
        make: impl FnOnce(oneshot::Sender<Result<T>>) -> WriterRequest,
    ) -> BoxFuture<'_, Result<T>> {
        let (reply, replied) = oneshot::channel();
        let sent = self.queues.requests.try_send(make(reply)).map_err(|_| {
            StoreError(
                "the store is closed, or its queue of requests is full (append_queue_max): nothing was done".to_owned(),
            )
        });
        async move {
            sent?;
            replied.await.unwrap_or_else(|_| Err(StoreError("the store's writer has ended".into())))
        }
        .boxed()
    }

    /// Publishes within this process the notifications that a statement returned; the database sends them to the other
    /// processes.
    fn publish(&self, found: &[PgRow]) -> Result<()> {
        if let Some(row) = found.first() {
            self.notifier.publish(&column::<Vec<String>>(row, 0)?);
        }
        Ok(())
    }

    async fn read_due_times(&self, limit: usize) -> Result<Vec<(Timestamp, RunId)>> {
        // The column `turn`: when the run is due.
        let text = "SELECT turn, run_id FROM runs WHERE NOT ended AND owner IS NULL AND turn IS NOT NULL \
                    ORDER BY turn, run_id LIMIT $1";
        let found = self.pool.query(|| sqlx::query(text).bind(sql_limit(limit))).await?;
        found.iter().map(|row| Ok((time(column(row, 0)?)?, run_id(column(row, 1)?)?))).collect()
    }

    async fn write_command(&self, command: CommandRecord) -> Result<()> {
        let record = json(&CommandRecord { answer: None, ..command.clone() })?;
        let (unknown, ended) = (json(&no_such_run())?, json(&run_has_ended())?);
        let (id, run) = (command.id.as_bytes().as_slice(), command.run.0.as_bytes().as_slice());
        let make = || {
            let query = sqlx::query("SELECT put_order($1, $2, $3, $4, $5, $6)").bind(&*self.notifier.origin);
            query.bind(id).bind(run).bind(&record[..]).bind(&unknown[..]).bind(&ended[..])
        };
        self.publish(&self.pool.query(make).await?)
    }

    async fn write_answer(&self, id: Uuid, answer: Value) -> Result<()> {
        let answer = json(&answer)?;
        let make = || {
            let query = sqlx::query("SELECT settle_order($1, $2, $3)").bind(&*self.notifier.origin);
            query.bind(id.as_bytes().as_slice()).bind(&answer[..])
        };
        self.publish(&self.pool.query(make).await?)
    }

    /// Calls a function with the origin of notifications and this worker; it returns notifications.
    async fn call_for_worker(&self, text: &'static str, worker: WorkerId) -> Result<()> {
        let make = || sqlx::query(text).bind(&*self.notifier.origin).bind(worker.0.as_bytes().as_slice());
        self.publish(&self.pool.query(make).await?)
    }

    /// Makes [`NOBODY`] the owner, which counts as a dead worker: any worker may then acquire the run.
    async fn set_dead_owner(&self, worker: WorkerId, run: RunId, fence: Fence) -> Result<()> {
        let text = "UPDATE runs SET owner = $4, turn = NULL, taken = NULL \
                    WHERE run_id = $1 AND owner = $2 AND fence = $3 AND NOT ended";
        let make = || {
            let query = sqlx::query(text).bind(run.0.as_bytes().as_slice()).bind(worker.0.as_bytes().as_slice());
            query.bind(fence.0.cast_signed()).bind(NOBODY.as_bytes().as_slice())
        };
        self.pool.query(make).await.map(drop)
    }

    async fn read_locks(&self, names: Option<Vec<String>>, limit: usize) -> Result<Vec<LockRow>> {
        let names: Option<Vec<&[u8]>> = names.as_ref().map(|names| names.iter().map(String::as_bytes).collect());
        let text = "SELECT name, place, run_id, step, item, since FROM locks \
                   WHERE $1::bytea[] IS NULL OR sha256(name) IN (SELECT sha256(n) FROM unnest($1) AS n) \
                   ORDER BY place LIMIT $2";
        let found = self.pool.query(|| sqlx::query(text).bind(names.as_deref()).bind(sql_limit(limit))).await?;
        let row = |row: &PgRow| {
            Ok(LockRow {
                name: utf8_text(column(row, 0)?)?,
                position: column::<i64>(row, 1)?.cast_unsigned(),
                run: run_id(column(row, 2)?)?,
                step: StepId::new(unescape(column(row, 3)?)),
                item: u32::try_from(column::<i64>(row, 4)?).ok(),
                since: time(column(row, 5)?)?,
            })
        };
        found.iter().map(row).collect()
    }

    async fn read_messages(&self, after: u64, limit: usize) -> Result<Vec<WebhookMessage>> {
        let text = "SELECT number, record FROM notices WHERE number > $1 ORDER BY number LIMIT $2";
        let after = i64::try_from(after).unwrap_or(i64::MAX);
        let found = self.pool.query(|| sqlx::query(text).bind(after).bind(sql_limit(limit))).await?;
        let row = |row: &PgRow| {
            let number = column::<i64>(row, 0)?.cast_unsigned();
            Ok(WebhookMessage { number, ..record(row, 1)? })
        };
        found.iter().map(row).collect()
    }
}

impl RunCoordination for PostgresStore {
    fn heartbeat(
        &self,
        worker: WorkerId,
        name: String,
        alive_for: Duration,
    ) -> BoxFuture<'_, Result<Option<Timestamp>>> {
        self.write_heartbeat(worker, name, alive_for).boxed()
    }

    fn deregister(&self, worker: WorkerId) -> BoxFuture<'_, Result<()>> {
        self.call_for_worker("SELECT leave_all($1, $2)", worker).boxed()
    }

    fn owned_runs(
        &self,
        worker: WorkerId,
        after: Option<RunId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<(RunId, Fence)>>> {
        async move {
            let text = "SELECT run_id, fence FROM runs WHERE owner = $1 AND NOT ended AND ($2::bytea IS NULL OR run_id > $2) \
                        ORDER BY run_id LIMIT $3";
            let after = after.map(|run| run.0.as_bytes().to_vec());
            let make = || {
                let query = sqlx::query(text).bind(worker.0.as_bytes().as_slice());
                query.bind(after.as_deref()).bind(sql_limit(limit))
            };
            let found = self.pool.query(make).await?;
            let row = |row: &PgRow| Ok((run_id(column(row, 0)?)?, Fence(column::<i64>(row, 1)?.cast_unsigned())));
            found.iter().map(row).collect()
        }
        .boxed()
    }

    fn release_run(&self, worker: WorkerId, run: RunId, fence: Fence) -> BoxFuture<'_, Result<()>> {
        async move {
            let make = || {
                let query = sqlx::query("SELECT release_run($1, $2, $3, $4)").bind(&*self.notifier.origin);
                let (worker, run) = (worker.0.as_bytes().as_slice(), run.0.as_bytes().as_slice());
                query.bind(worker).bind(run).bind(fence.0.cast_signed())
            };
            self.publish(&self.pool.query(make).await?)
        }
        .boxed()
    }

    fn release_runs(&self, worker: WorkerId) -> BoxFuture<'_, Result<()>> {
        self.call_for_worker("SELECT release_runs($1, $2)", worker).boxed()
    }

    fn acquire(&self, worker: WorkerId, run: RunId) -> BoxFuture<'_, Result<AcquireResult>> {
        self.request_writer(|reply| WriterRequest::Acquire(worker, run, reply))
    }

    fn acquire_due(&self, worker: WorkerId, limit: usize) -> BoxFuture<'_, Result<Vec<OwnedRun>>> {
        self.acquire_due_except(worker, limit, Vec::new())
    }

    fn acquire_due_except(
        &self,
        worker: WorkerId,
        limit: usize,
        unreadable: Vec<RunId>,
    ) -> BoxFuture<'_, Result<Vec<OwnedRun>>> {
        self.request_writer(|reply| WriterRequest::AcquireDue(worker, limit, unreadable, reply))
    }

    fn give_up(&self, worker: WorkerId, run: RunId, fence: Fence) -> BoxFuture<'_, Result<()>> {
        self.set_dead_owner(worker, run, fence).boxed()
    }

    fn due_times(&self, limit: usize) -> BoxFuture<'_, Result<Vec<(Timestamp, RunId)>>> {
        self.read_due_times(limit).boxed()
    }

    fn put_command(&self, command: CommandRecord) -> BoxFuture<'_, Result<()>> {
        self.write_command(command).boxed()
    }

    fn commands(&self, run: RunId) -> BoxFuture<'_, Result<Vec<CommandRecord>>> {
        async move {
            let text = "SELECT record FROM orders WHERE run_id = $1 AND answer IS NULL ORDER BY number";
            let found = self.pool.query(|| sqlx::query(text).bind(run.0.as_bytes().as_slice())).await?;
            found.iter().map(|row| record(row, 0)).collect()
        }
        .boxed()
    }

    fn command(&self, id: Uuid) -> BoxFuture<'_, Result<Option<CommandRecord>>> {
        async move {
            let text = "SELECT record, answer FROM orders WHERE id = $1";
            let found = self.pool.query(|| sqlx::query(text).bind(id.as_bytes().as_slice())).await?;
            let Some(row) = found.first() else { return Ok(None) };
            let answer = column::<Option<&[u8]>>(row, 1)?.map(parse).transpose()?;
            Ok(Some(CommandRecord { answer, ..record(row, 0)? }))
        }
        .boxed()
    }

    fn answer_command(&self, id: Uuid, answer: Value) -> BoxFuture<'_, Result<()>> {
        self.write_answer(id, answer).boxed()
    }

    fn locks(&self, names: Option<Vec<String>>, limit: usize) -> BoxFuture<'_, Result<Vec<LockRow>>> {
        self.read_locks(names, limit).boxed()
    }

    fn webhook_messages(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<WebhookMessage>>> {
        self.read_messages(after, limit).boxed()
    }

    fn remove_webhook_message(&self, number: u64) -> BoxFuture<'_, Result<()>> {
        async move {
            let make = || sqlx::query("DELETE FROM notices WHERE number = $1").bind(number.cast_signed());
            self.pool.query(make).await.map(drop)
        }
        .boxed()
    }

    fn pending_runs(&self, limit: usize) -> BoxFuture<'_, Result<Vec<OutboxRow>>> {
        async move {
            // The table `births` holds the pending runs.
            let text = "SELECT run_id, parent, at, record FROM births ORDER BY number LIMIT $1";
            let found = self.pool.query(|| sqlx::query(text).bind(sql_limit(limit))).await?;
            let pending_run = |row: &PgRow| {
                let parent = column::<Option<&[u8]>>(row, 1)?.map(run_id).transpose()?;
                Ok(OutboxRow {
                    run: run_id(column(row, 0)?)?,
                    parent,
                    at: time(column(row, 2)?)?,
                    record: record(row, 3)?,
                })
            };
            found.iter().map(pending_run).collect()
        }
        .boxed()
    }

    fn remove_pending_run(&self, run: RunId) -> BoxFuture<'_, Result<()>> {
        async move {
            let text = "DELETE FROM births WHERE run_id = $1";
            self.pool.query(|| sqlx::query(text).bind(run.0.as_bytes().as_slice())).await.map(drop)
        }
        .boxed()
    }

    fn put_run_snapshot(&self, snapshot: RunSnapshot) -> BoxFuture<'_, Result<()>> {
        async move { super::record_writes::run_snapshot(&self.pool, &snapshot).await }.boxed()
    }

    fn run_snapshot(&self, run: RunId) -> BoxFuture<'_, Result<Option<RunSnapshot>>> {
        read::run_snapshot(&self.pool, run).boxed()
    }

    fn purge(&self, status: RunStatus, ended_before: Timestamp, limit: usize) -> BoxFuture<'_, Result<Purged>> {
        self.purge_batch(status, ended_before, limit).boxed()
    }

    fn prune_retry_keys(
        &self,
        after: Option<RetryKeyPosition>,
        limit: usize,
    ) -> BoxFuture<'_, Result<RetryKeyPage<u64>>> {
        async move {
            if after.is_none() {
                self.unpurgeable.log_keys(read::unreadable_keys(&self.pool, self.retry_window_ns).await);
            }
            super::record_writes::prune_retry_keys(&self.pool, self.retry_window_ns, after, limit).await
        }
        .boxed()
    }

    fn long_bound_keys(
        &self,
        ahead: Duration,
        after: Option<RetryKeyPosition>,
        limit: usize,
    ) -> BoxFuture<'_, Result<RetryKeyPage<Vec<RetryKey>>>> {
        let ahead_ns = i64::try_from(ahead.as_nanos()).unwrap_or(i64::MAX);
        read::long_bound_keys(&self.pool, (self.retry_window_ns, ahead_ns), after, limit).boxed()
    }

    fn purged_run_bodies(&self, run: RunId) -> BoxFuture<'_, Result<Option<RunBodies>>> {
        async move {
            // The column `remains`: the bodies that a purge left.
            let text = "SELECT remains FROM runs WHERE run_id = $1 AND remains IS NOT NULL";
            let found = self.pool.query(|| sqlx::query(text).bind(run.0.as_bytes().as_slice())).await?;
            found.first().map(|row| record(row, 0)).transpose()
        }
        .boxed()
    }

    fn gone_processes(&self) -> BoxFuture<'_, Result<Vec<GoneProcess>>> {
        self.read_gone_processes().boxed()
    }

    fn exchange_processes(
        &self,
        worker: WorkerId,
        record: ProcessRecord,
    ) -> BoxFuture<'_, Result<Option<LivingProcesses>>> {
        async move { self.exchange(worker, record).await.map(Some) }.boxed()
    }

    fn owner(&self, run: RunId) -> BoxFuture<'_, Result<Option<(WorkerId, String)>>> {
        async move {
            let text = "SELECT w.worker, w.name FROM runs r JOIN workers w ON w.worker = r.owner \
                        WHERE r.run_id = $1 AND NOT r.ended AND w.alive_until > statement_timestamp()";
            let found = self.pool.query(|| sqlx::query(text).bind(run.0.as_bytes().as_slice())).await?;
            found.first().map(|row| Ok((WorkerId(uuid(column(row, 0)?)?), unescape(column(row, 1)?)))).transpose()
        }
        .boxed()
    }

    fn engine_tries_since(
        &self,
        since: Timestamp,
        after: Option<RetryKeyPosition>,
        limit: usize,
    ) -> BoxFuture<'_, Result<RetryKeyPage<Vec<RetryKeyPosition>>>> {
        read::engine_tries_since(&self.pool, since, after, limit).boxed()
    }

    fn wait_for_ended_leases(&self) -> BoxFuture<'_, Result<()>> {
        self.lock_ended_leases().boxed()
    }

    fn begin_runs_under(&self, worker: WorkerId, term: Option<i64>, newest_set: u64) {
        self.lease_term.set(worker, term, newest_set);
    }

    fn changed_runs(&self, since: Option<RunCursor>, limit: usize) -> BoxFuture<'_, Result<ChangedRuns>> {
        run_changes::changed_runs(&self.pool, since, limit).boxed()
    }

    fn notifications(&self) -> broadcast::Receiver<StoreNotification> {
        self.notifier.subscribe()
    }

    fn is_shared(&self) -> bool {
        true
    }
}

//! Reads of due runs, commands, locks, messages and outbox rows, and of runs to purge.
//!
//! The names of tables and columns are explained in [`crate::store`].

use jiff::Timestamp;
use sqlx::{QueryBuilder, Sqlite};
use uuid::Uuid;

use super::super::readers::Readers;
use super::super::stored_state::run_id;
use super::{Result, parse, read_error, sql_limit, time};
use crate::names::{RunId, StepId};
use crate::store::{CommandRecord, LockRow, OutboxRow, RunBodies, StoreError, WebhookMessage};
use crate::workflow::RunStatus;

pub(in crate::store::sqlite) async fn due_times(readers: &Readers, limit: usize) -> Result<Vec<(Timestamp, RunId)>> {
    let text = "SELECT turn, run_id FROM runs WHERE turn IS NOT NULL ORDER BY turn, run_id LIMIT ?";
    let found: Vec<(i64, Vec<u8>)> =
        sqlx::query_as(text).bind(sql_limit(limit)).fetch_all(readers.pool()?).await.map_err(read_error)?;
    found.into_iter().map(|(turn, run)| Ok((time(turn)?, parse_run_id(run)?))).collect()
}

type CommandRow = (Vec<u8>, Option<Vec<u8>>);

fn command_record((record, answer): CommandRow) -> Result<CommandRecord> {
    let answer = answer.map(|answer| parse(&answer)).transpose()?;
    Ok(CommandRecord { answer, ..parse(&record)? })
}

pub(in crate::store::sqlite) async fn commands(readers: &Readers, run: RunId) -> Result<Vec<CommandRecord>> {
    let text = "SELECT record, answer FROM orders WHERE run_id = ? AND answer IS NULL ORDER BY pos";
    let found: Vec<CommandRow> =
        sqlx::query_as(text).bind(run.0.as_bytes().as_slice()).fetch_all(readers.pool()?).await.map_err(read_error)?;
    found.into_iter().map(command_record).collect()
}

pub(in crate::store::sqlite) async fn command(readers: &Readers, id: Uuid) -> Result<Option<CommandRecord>> {
    let text = "SELECT record, answer FROM orders WHERE id = ?";
    let found: Option<CommandRow> = sqlx::query_as(text)
        .bind(id.as_bytes().as_slice())
        .fetch_optional(readers.pool()?)
        .await
        .map_err(read_error)?;
    found.map(command_record).transpose()
}

pub(in crate::store::sqlite) async fn locks(
    readers: &Readers,
    names: Option<Vec<String>>,
    limit: usize,
) -> Result<Vec<LockRow>> {
    let mut query: QueryBuilder<Sqlite> = QueryBuilder::new("SELECT place, run_id, name, step, item, since FROM locks");
    if let Some(names) = names {
        query.push(" WHERE name IN (");
        let mut list = query.separated(", ");
        for name in names {
            list.push_bind(name);
        }
        query.push(")");
    }
    query.push(" ORDER BY place LIMIT ").push_bind(sql_limit(limit));
    type Row = (i64, Vec<u8>, String, String, i64, i64);
    let found: Vec<Row> = query.build_query_as().fetch_all(readers.pool()?).await.map_err(read_error)?;
    let row = |(position, run, name, step, item, since): Row| {
        Ok(LockRow {
            name,
            position: position.cast_unsigned(),
            run: parse_run_id(run)?,
            step: StepId::new(step),
            item: u32::try_from(item).ok(),
            since: time(since)?,
        })
    };
    found.into_iter().map(row).collect()
}

pub(in crate::store::sqlite) async fn webhook_messages(
    readers: &Readers,
    after: u64,
    limit: usize,
) -> Result<Vec<WebhookMessage>> {
    let text = "SELECT number, record FROM notices WHERE number > ? ORDER BY number LIMIT ?";
    let found: Vec<(i64, Vec<u8>)> = sqlx::query_as(text)
        .bind(i64::try_from(after).unwrap_or(i64::MAX))
        .bind(sql_limit(limit))
        .fetch_all(readers.pool()?)
        .await
        .map_err(read_error)?;
    let message =
        |(number, record): &(i64, Vec<u8>)| Ok(WebhookMessage { number: number.cast_unsigned(), ..parse(record)? });
    found.iter().map(message).collect()
}

pub(in crate::store::sqlite) async fn pending_runs(readers: &Readers, limit: usize) -> Result<Vec<OutboxRow>> {
    type Row = (Vec<u8>, Option<Vec<u8>>, i64, Vec<u8>);
    let text = "SELECT run_id, parent, at, record FROM births ORDER BY number LIMIT ?";
    let found: Vec<Row> =
        sqlx::query_as(text).bind(sql_limit(limit)).fetch_all(readers.pool()?).await.map_err(read_error)?;
    let pending_run = |(run, parent, at, record): Row| {
        let parent = parent.map(parse_run_id).transpose()?;
        Ok(OutboxRow { run: parse_run_id(run)?, parent, record: parse(&record)?, at: time(at)? })
    };
    found.into_iter().map(pending_run).collect()
}

/// Runs that ended with this status before a time, in the order of their end, and whether each is pinned. Left out:
/// runs whose parent has not ended, runs with an earlier run of their job that is not purged, and runs for which the
/// outbox still has a run to create.
pub(in crate::store::sqlite) async fn purgeable_runs(
    readers: &Readers,
    status: RunStatus,
    before: i64,
    limit: usize,
) -> Result<Vec<(RunId, bool)>> {
    // A parent that has not recorded the end of its child would begin the child again. An earlier run of the same job
    // could be run again if its successor were forgotten.
    let text = "SELECT run_id, pinned FROM runs WHERE status = ? AND ended = 1 AND remains IS NULL AND updated < ? \
                AND NOT EXISTS (SELECT 1 FROM runs AS above WHERE above.run_id = runs.parent AND above.ended = 0) \
                AND NOT EXISTS (SELECT 1 FROM births WHERE births.parent = runs.run_id) \
                AND NOT EXISTS (SELECT 1 FROM runs AS first WHERE first.run_id = runs.job \
                    AND first.run_id < runs.run_id AND first.remains IS NULL) \
                AND NOT EXISTS (SELECT 1 FROM runs AS earlier WHERE earlier.job = runs.job \
                    AND earlier.run_id < runs.run_id AND earlier.remains IS NULL) \
                ORDER BY updated, run_id LIMIT ?";
    let found: Vec<(Vec<u8>, bool)> = sqlx::query_as(text)
        .bind(status.as_str())
        .bind(before)
        .bind(sql_limit(limit))
        .fetch_all(readers.pool()?)
        .await
        .map_err(read_error)?;
    found.into_iter().map(|(run, pinned)| Ok((parse_run_id(run)?, pinned))).collect()
}

/// Whether rows of purged runs are left.
pub(in crate::store::sqlite) async fn is_purging(readers: &Readers) -> Result<bool> {
    let (left,): (bool,) =
        sqlx::query_as("SELECT EXISTS (SELECT 1 FROM purging)").fetch_one(readers.pool()?).await.map_err(read_error)?;
    Ok(left)
}

pub(in crate::store::sqlite) async fn purged_run_bodies(readers: &Readers, run: RunId) -> Result<Option<RunBodies>> {
    let found: Option<(Vec<u8>,)> = sqlx::query_as("SELECT remains FROM runs WHERE run_id = ? AND remains IS NOT NULL")
        .bind(run.0.as_bytes().as_slice())
        .fetch_optional(readers.pool()?)
        .await
        .map_err(read_error)?;
    Ok(found.map(|(remains,)| parse(&remains)).transpose()?.flatten())
}

fn parse_run_id(bytes: Vec<u8>) -> Result<RunId> {
    let why = "a stored run id is not 16 bytes long, as a UUID is: the record cannot be read";
    run_id(bytes).ok_or_else(|| StoreError(why.into()))
}

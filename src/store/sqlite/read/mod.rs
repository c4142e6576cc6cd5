//! Reads, on a small pool of connections of their own. Each statement is a transaction of its own: a long read
//! transaction would block checkpoints of the WAL.

mod coordination;
mod list;
mod lookups;
mod run_changes;

use std::collections::HashMap;

use jiff::Timestamp;
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row, Sqlite, SqliteExecutor, SqlitePool};

pub(super) use self::coordination::{
    command, commands, due_times, is_purging, locks, pending_runs, purgeable_runs, purged_run_bodies, webhook_messages,
};
pub(super) use self::list::{open_runs, runs};
pub(super) use self::lookups::{
    engine_took_any, engine_tries, first_try, flip_rows, flips, old_keys, pin, pin_counts, pinned, pins, plan, records,
    records_of_routes, rows_after, run_key, sample_of_run, samples, unreadable_keys,
};
pub(super) use self::run_changes::changed_runs;
use super::readers::Readers;
use super::write_error;
use crate::clock::RunningTimes;
use crate::names::{RunId, Seq};
use crate::store::append_row::{AppendRow, PayloadsBySeq};
use crate::store::error::EventsError;
use crate::store::summary::decode_summary;
use crate::store::{StoreError, StoredEvent};
use crate::workflow::RunSummary;

type Result<T> = std::result::Result<T, StoreError>;

pub(super) fn read_error(error: sqlx::Error) -> StoreError {
    StoreError(format!("the store did not answer: {error}"))
}

fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| StoreError(format!("a stored record cannot be read: {error}")))
}

pub(super) fn sql_limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

pub(super) async fn events(readers: &Readers, run: RunId, from: Seq) -> Result<Vec<StoredEvent>> {
    Ok(try_events(readers, run, from).await?)
}

type EventsResult<T> = std::result::Result<T, EventsError>;

/// Like [`events`]; the error says whether the events are unreadable.
pub(super) async fn try_events(readers: &Readers, run: RunId, from: Seq) -> EventsResult<Vec<StoredEvent>> {
    let missing = || StoreError(format!("payloads of {run} are missing: run `pointsman store check`"));
    match events_with_payloads(readers, run, from).await? {
        Some(events) => Ok(events),
        // The run was purged between the statements: reading again finds no events.
        None => events_with_payloads(readers, run, from).await?.ok_or_else(|| EventsError::Unreadable(missing())),
    }
}

fn events_error(error: sqlx::Error) -> EventsError {
    match write_error::is_damage(&error) {
        true => EventsError::Unreadable(StoreError(error.to_string())),
        false => EventsError::NoAnswer(read_error(error)),
    }
}

fn pool(readers: &Readers) -> EventsResult<&SqlitePool> {
    readers.pool().map_err(EventsError::NoAnswer)
}

/// How many of the last rows are searched for the newest event: appends of one commit are not ordered by time.
const NEWEST_ROWS_SEARCHED: i64 = 1_000;

pub(super) async fn newest_event(conn: impl SqliteExecutor<'_>) -> Result<Option<Timestamp>> {
    newest_in(conn, "SELECT max(at) FROM (SELECT at FROM appends ORDER BY pos DESC LIMIT ?)").await
}

/// The time of the newest event in an older file, which has a row for each event.
pub(super) async fn newest_older_event(conn: impl SqliteExecutor<'_>) -> Result<Option<Timestamp>> {
    newest_in(conn, "SELECT max(at) FROM (SELECT at FROM events ORDER BY pos DESC LIMIT ?)").await
}

async fn newest_in(conn: impl SqliteExecutor<'_>, text: &'static str) -> Result<Option<Timestamp>> {
    let (newest,): (Option<i64>,) =
        sqlx::query_as(text).bind(NEWEST_ROWS_SEARCHED).fetch_one(conn).await.map_err(read_error)?;
    let time = |nanos: i64| Timestamp::from_nanosecond(i128::from(nanos));
    newest.map(time).transpose().map_err(|error| StoreError(format!("the time of an event cannot be read: {error}")))
}

/// The row of the table `meta` with the [`RunningTimes`].
pub(super) const RUNNING_TIMES: &str = "running_times";

/// When processes of this store ran; empty in a store of an older version.
pub(super) async fn running_times(conn: impl SqliteExecutor<'_>) -> Result<RunningTimes> {
    let row = meta_value(conn, RUNNING_TIMES).await?;
    row.map_or_else(|| Ok(RunningTimes::default()), |row| parse(&row))
}

/// The value of a row of the table `meta`.
pub(super) async fn meta_value(conn: impl SqliteExecutor<'_>, key: &str) -> Result<Option<Vec<u8>>> {
    let text = "SELECT CAST(value AS BLOB) FROM meta WHERE key = ?";
    let row: Option<(Vec<u8>,)> = sqlx::query_as(text).bind(key).fetch_optional(conn).await.map_err(read_error)?;
    Ok(row.map(|(value,)| value))
}

/// The events of a run; `None` if a payload is missing.
async fn events_with_payloads(readers: &Readers, run: RunId, from: Seq) -> EventsResult<Option<Vec<StoredEvent>>> {
    let text = "SELECT first, last, version, parts, events FROM appends WHERE run_id = ?1 AND last >= ?2 AND first >= \
                coalesce((SELECT max(before.first) FROM appends AS before \
                          WHERE before.run_id = ?1 AND before.first <= ?2), 0) \
                AND NOT EXISTS (SELECT 1 FROM purging WHERE run_id = ?1) ORDER BY first";
    let id = run.0.as_bytes().as_slice();
    let from_seq = i64::try_from(from.0).unwrap_or(i64::MAX);
    let found = sqlx::query(text).bind(id).bind(from_seq).fetch_all(pool(readers)?).await.map_err(events_error)?;
    let mut appends = Vec::with_capacity(found.len());
    let mut expected = 0;
    for row in &found {
        expected += row.try_get::<i64, _>(3).map_err(events_error)?;
        appends.push(append_row(row, 4).map_err(events_error)?);
    }
    let mut refs: Vec<(i64, String, Vec<u8>)> = Vec::new();
    if let Some(append) = appends.first().filter(|_| expected > 0) {
        let text = "SELECT seq, path, hash FROM payload_refs WHERE run_id = ? AND seq >= ? ORDER BY seq, path";
        let found = sqlx::query_as(text).bind(id).bind(append.first).fetch_all(pool(readers)?);
        refs = found.await.map_err(events_error)?;
        let last = appends.last().map_or(0, |append| append.last);
        // Ignores payloads of appends that were committed after the first statement.
        refs.retain(|(seq, ..)| *seq <= last);
    }
    if refs.len() as i64 != expected {
        return Ok(None);
    }
    let payloads = payloads(readers, refs.iter().map(|(.., hash)| hash.clone()).collect()).await?;
    let mut parts = PayloadsBySeq::new();
    for (seq, path, hash) in &refs {
        let Some(body) = payloads.get(hash) else { return Ok(None) };
        if let Ok(parts) = parts.entry(seq.cast_unsigned()).or_insert_with(|| Ok(Vec::new())) {
            parts.push((path.as_str(), body.as_slice()));
        }
    }
    let mut events = Vec::new();
    for append in &appends {
        append.read(from, &parts, &mut events).map_err(EventsError::Unreadable)?;
    }
    Ok(Some(events))
}

/// Reads the first three columns, and the column that contains the events.
pub(super) fn append_row(row: &SqliteRow, events: usize) -> sqlx::Result<AppendRow<'_>> {
    let (first, last, version) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    Ok(AppendRow { first, last, version, events: row.try_get(events)? })
}

/// Payloads that one statement reads.
const PAYLOADS_AT_ONCE: usize = 500;

async fn payloads(readers: &Readers, mut hashes: Vec<Vec<u8>>) -> EventsResult<HashMap<Vec<u8>, Vec<u8>>> {
    hashes.sort();
    hashes.dedup();
    let mut payloads = HashMap::new();
    for chunk in hashes.chunks(PAYLOADS_AT_ONCE) {
        let mut query: QueryBuilder<Sqlite> = QueryBuilder::new("SELECT hash, body FROM payloads WHERE hash IN (");
        let mut list = query.separated(", ");
        for hash in chunk {
            list.push_bind(hash.clone());
        }
        query.push(")");
        let found: Vec<(Vec<u8>, Vec<u8>)> =
            query.build_query_as().fetch_all(pool(readers)?).await.map_err(events_error)?;
        payloads.extend(found);
    }
    Ok(payloads)
}

/// The most rows that one query of a check reads.
pub(super) const FOUND_MAX: usize = 10_000;

pub(super) fn time(ns: i64) -> Result<jiff::Timestamp> {
    let failed = |error| StoreError(format!("a stored time cannot be read: {error}"));
    jiff::Timestamp::from_nanosecond(i128::from(ns)).map_err(failed)
}

pub(super) async fn run(readers: &Readers, run: RunId) -> Result<Option<RunSummary>> {
    let row: Option<(Vec<u8>, i64, i64)> = sqlx::query_as("SELECT summary, seq, updated FROM runs WHERE run_id = ?")
        .bind(run.0.as_bytes().as_slice())
        .fetch_optional(readers.pool()?)
        .await
        .map_err(read_error)?;
    row.map(|(summary, seq, updated)| decode_summary(&summary, seq, Some(updated))).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;
    use crate::store::SqliteStore;

    #[tokio::test]
    async fn events_are_not_unreadable_because_all_readers_are_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(dir.path().join("test.db"), &Limits::default()).await.unwrap();
        let pool = store.readers.pool().unwrap();
        let mut in_use = Vec::new();
        for _ in 0..pool.options().get_max_connections() {
            in_use.push(pool.acquire().await.unwrap());
        }
        tokio::time::pause(); // the wait for a reader ends at once
        let run = RunId(uuid::Uuid::from_u128(1));
        let busy = try_events(&store.readers, run, Seq::FIRST).await;
        assert!(matches!(busy, Err(EventsError::NoAnswer(_))), "{busy:?}");
        tokio::time::resume();
        drop(in_use);
        assert_eq!(try_events(&store.readers, run, Seq::FIRST).await, Ok(Vec::new()));
    }
}

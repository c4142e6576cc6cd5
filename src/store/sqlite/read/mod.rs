//! Reads, on a small pool of their own. Each is a statement or two of its own: a long read would keep the log from
//! being folded back.

mod beside;
mod between;
mod list;

use std::collections::HashMap;

use jiff::Timestamp;
use sqlx::sqlite::{SqlitePool, SqliteRow};
use sqlx::{QueryBuilder, Row, Sqlite};

pub(super) use self::beside::{engine_tries, first_try, pin, pin_counts, pins, plan, records, run_key};
pub(super) use self::between::{births, is_purging, locks, notices, old, order, orders, remains, wakes};
pub(super) use self::list::{open_runs, runs};
use super::codec;
use crate::names::{RunId, Seq};
use crate::store::{StoreError, StoredEvent};
use crate::workflow::{Event, RunSummary};

type Result<T> = std::result::Result<T, StoreError>;

fn unread(error: sqlx::Error) -> StoreError {
    StoreError(format!("the store did not answer: {error}"))
}

fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| StoreError(format!("a stored record cannot be read: {error}")))
}

pub(super) fn rows(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

pub(super) async fn events(pool: &SqlitePool, run: RunId, from: Seq) -> Result<Vec<StoredEvent>> {
    match whole_events(pool, run, from).await? {
        Some(events) => Ok(events),
        // Its payloads went while it was read: it is purged, and its events are gone by now.
        None => whole_events(pool, run, from)
            .await?
            .ok_or_else(|| StoreError(format!("payloads of {run} are missing: `pointsman store check` says which"))),
    }
}

/// Events among which the newest is looked for. They stand in the order of their commits, and those that were committed
/// together may be out of order by what their runs' clocks differ.
const NEWEST: i64 = 1_000;

pub(super) async fn newest_event(pool: &SqlitePool) -> Result<Option<Timestamp>> {
    let text = "SELECT max(at) FROM (SELECT at FROM events ORDER BY pos DESC LIMIT ?)";
    let (newest,): (Option<i64>,) = sqlx::query_as(text).bind(NEWEST).fetch_one(pool).await.map_err(unread)?;
    let time = |nanos: i64| Timestamp::from_nanosecond(i128::from(nanos));
    newest.map(time).transpose().map_err(|error| StoreError(format!("the time of an event cannot be read: {error}")))
}

/// `None` where a payload is missing.
async fn whole_events(pool: &SqlitePool, run: RunId, from: Seq) -> Result<Option<Vec<StoredEvent>>> {
    let text = "SELECT events.seq, events.at, events.version, events.event, refs.path, refs.hash \
                FROM events LEFT JOIN payload_refs AS refs ON refs.run_id = events.run_id AND refs.seq = events.seq \
                WHERE events.run_id = ?1 AND events.seq >= ?2 \
                AND NOT EXISTS (SELECT 1 FROM purging WHERE run_id = ?1) ORDER BY events.seq";
    let rows = sqlx::query(text)
        .bind(run.0.as_bytes().as_slice())
        .bind(i64::try_from(from.0).unwrap_or(i64::MAX))
        .fetch_all(pool)
        .await
        .map_err(unread)?;
    let mut hashes = Vec::new();
    for row in &rows {
        hashes.extend(row.try_get::<Option<Vec<u8>>, _>(5).map_err(unread)?);
    }
    let payloads = payloads(pool, hashes).await?;
    let mut events = Vec::with_capacity(rows.len());
    let mut rows = rows.iter().peekable();
    while let Some(row) = rows.next() {
        let seq: i64 = row.try_get(0).map_err(unread)?;
        let mut parts = Vec::new();
        let mut part = Some(row);
        while let Some(row) = part {
            if let Some(path) = row.try_get::<Option<&str>, _>(4).map_err(unread)? {
                let Some(body) = payloads.get(row.try_get::<&[u8], _>(5).map_err(unread)?) else { return Ok(None) };
                parts.push((path, body.as_slice()));
            }
            part = rows.next_if(|next| next.try_get::<i64, _>(0).is_ok_and(|next| next == seq));
        }
        events.push(event(row, seq, parts)?);
    }
    Ok(Some(events))
}

/// Payloads that one statement asks for.
const PAYLOADS_AT_ONCE: usize = 500;

async fn payloads(pool: &SqlitePool, mut hashes: Vec<Vec<u8>>) -> Result<HashMap<Vec<u8>, Vec<u8>>> {
    hashes.sort();
    hashes.dedup();
    let mut payloads = HashMap::new();
    for some in hashes.chunks(PAYLOADS_AT_ONCE) {
        let mut query: QueryBuilder<Sqlite> = QueryBuilder::new("SELECT hash, body FROM payloads WHERE hash IN (");
        let mut list = query.separated(", ");
        for hash in some {
            list.push_bind(hash.clone());
        }
        query.push(")");
        let found: Vec<(Vec<u8>, Vec<u8>)> = query.build_query_as().fetch_all(pool).await.map_err(unread)?;
        payloads.extend(found);
    }
    Ok(payloads)
}

fn event(row: &SqliteRow, seq: i64, parts: Vec<(&str, &[u8])>) -> Result<StoredEvent> {
    let version: i64 = row.try_get(2).map_err(unread)?;
    if version > i64::from(Event::VERSION) {
        return Err(StoreError(format!(
            "event {seq} has version {version}, this binary reads events up to version {}",
            Event::VERSION
        )));
    }
    let at = time(row.try_get(1).map_err(unread)?)?;
    let event = codec::join(row.try_get(3).map_err(unread)?, parts)
        .map_err(|error| StoreError(format!("event {seq}: {error}")))?;
    Ok(StoredEvent { seq: Seq(seq.cast_unsigned()), at, event })
}

/// Findings of one kind that are read.
pub(super) const FOUND_MAX: usize = 10_000;

pub(super) fn time(ns: i64) -> Result<jiff::Timestamp> {
    jiff::Timestamp::from_nanosecond(i128::from(ns)).map_err(|error| StoreError(format!("a stored time: {error}")))
}

pub(super) async fn run(pool: &SqlitePool, run: RunId) -> Result<Option<RunSummary>> {
    let row: Option<(Vec<u8>,)> = sqlx::query_as("SELECT summary FROM runs WHERE run_id = ?")
        .bind(run.0.as_bytes().as_slice())
        .fetch_optional(pool)
        .await
        .map_err(unread)?;
    row.map(|(summary,)| parse(&summary)).transpose()
}

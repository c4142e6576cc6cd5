//! Moves the events of an older file, which has a row for each event, to rows of whole appends.
//!
//! Always true: each batch is one transaction that writes appends and deletes their events. A process that is killed at
//! any moment leaves every event in exactly one of the two tables, and the next start continues. The file gets the new
//! version before the first batch, so that an older binary refuses it from then on.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use sqlx::sqlite::SqliteConnection;
use sqlx::{Executor, SqlSafeStr};

use super::stored_state::run_id;
use crate::store::check::newer_events_problem;
use crate::store::codec;
use crate::workflow::Event;

/// Events that one transaction moves.
const EVENTS_AT_ONCE: i64 = 1_000;
/// The interval of progress messages.
const LOG_INTERVAL: Duration = Duration::from_secs(2);

/// Why the events were not moved.
pub(super) enum UpgradeError {
    Database(sqlx::Error),
    /// A newer version wrote some of them.
    Newer(String),
}

impl From<sqlx::Error> for UpgradeError {
    fn from(error: sqlx::Error) -> Self {
        UpgradeError::Database(error)
    }
}

/// Whether the table of the older version still exists, so that events have to be moved out of it.
pub(super) async fn has_events_table(conn: &mut SqliteConnection) -> sqlx::Result<bool> {
    let text = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'events')";
    Ok(sqlx::query_as::<_, (bool,)>(text).fetch_one(conn).await?.0)
}

/// An upper bound on the number of events in the older table: too high if some were purged.
pub(super) async fn count(conn: &mut SqliteConnection) -> sqlx::Result<i64> {
    let text = "SELECT coalesce(max(pos) - min(pos) + 1, 0) FROM events";
    Ok(sqlx::query_as::<_, (i64,)>(text).fetch_one(conn).await?.0)
}

/// Moves all events; `shown` is the file's name in messages.
pub(super) async fn move_events(conn: &mut SqliteConnection, shown: &str) -> Result<(), UpgradeError> {
    refuse_newer(conn).await?;
    let total = count(conn).await?;
    let (began, mut logged, mut moved) = (Instant::now(), Instant::now(), 0);
    loop {
        conn.execute("BEGIN IMMEDIATE".into_sql_str()).await?;
        let done = match move_batch(conn).await {
            Ok(count) => conn.execute("COMMIT".into_sql_str()).await.map(|_| count),
            Err(error) => Err(error),
        };
        let count = match done {
            Ok(count) => count,
            Err(error) => {
                // The first error is returned. ROLLBACK fails if there is no transaction, which is fine.
                let _ = conn.execute("ROLLBACK".into_sql_str()).await;
                return Err(error.into());
            }
        };
        if count == 0 {
            break;
        }
        moved += count;
        if logged.elapsed() >= LOG_INTERVAL {
            logged = Instant::now();
            let percent = (moved * 100).checked_div(total).unwrap_or(100).min(100);
            tracing::info!(store = shown, "upgrading the store: {moved} of about {total} events moved ({percent} %)");
        }
    }
    if moved > 0 {
        tracing::info!(store = shown, took = ?began.elapsed(), "the store is upgraded: {moved} events moved");
    }
    Ok(())
}

async fn refuse_newer(conn: &mut SqliteConnection) -> Result<(), UpgradeError> {
    // `version > 2` selects the partial index.
    let text = "SELECT run_id, seq, version FROM events WHERE version > 2 AND version > ? \
                ORDER BY version DESC, run_id, seq LIMIT 1";
    let newest: Option<(Vec<u8>, i64, i64)> =
        sqlx::query_as(text).bind(i64::from(Event::VERSION)).fetch_optional(conn).await?;
    let newer_event = newest.map(|(run, seq, version)| (run_id(run), seq, version));
    newer_events_problem(None, newer_event).map_or(Ok(()), |why| Err(UpgradeError::Newer(why)))
}

/// The columns: position, run, seq, time, version, batch, event, number of its payloads.
type EventColumns = (i64, Vec<u8>, i64, i64, i64, Vec<u8>, Vec<u8>, i64);

struct EventRow {
    run_id: Vec<u8>,
    seq: i64,
    at: i64,
    version: i64,
    batch: Vec<u8>,
    event: Vec<u8>,
    parts: i64,
}

/// An append that is put together from its events.
struct MergedAppend {
    first: EventRow,
    last: i64,
    parts: i64,
    events: Vec<u8>,
}

impl MergedAppend {
    fn new(mut first: EventRow) -> Self {
        let mut events = Vec::new();
        codec::copy_line(&mut events, first.at, &std::mem::take(&mut first.event));
        Self { last: first.seq, parts: first.parts, events, first }
    }

    fn continues_with(&self, row: &EventRow) -> bool {
        row.run_id == self.first.run_id
            && row.batch == self.first.batch
            && row.version == self.first.version
            && row.seq == self.last + 1
    }

    fn add(&mut self, row: &EventRow) {
        codec::copy_line(&mut self.events, row.at, &row.event);
        self.last = row.seq;
        self.first.at = self.first.at.max(row.at);
        self.parts += row.parts;
    }
}

/// Moves one batch within a transaction; returns how many events.
async fn move_batch(conn: &mut SqliteConnection) -> sqlx::Result<i64> {
    let text = "SELECT pos, run_id, seq, at, version, batch, event, \
                    (SELECT count(*) FROM payload_refs AS refs WHERE refs.run_id = events.run_id \
                     AND refs.seq = events.seq) AS parts \
                FROM events ORDER BY pos LIMIT ?";
    let rows: Vec<EventColumns> = sqlx::query_as(text).bind(EVENTS_AT_ONCE).fetch_all(&mut *conn).await?;
    let Some(last) = rows.last().map(|row| row.0) else { return Ok(0) };
    let moved = i64::try_from(rows.len()).unwrap_or(i64::MAX);
    let mut appends: Vec<MergedAppend> = Vec::new();
    // The index of each run's newest append in `appends`, because rows of several runs alternate.
    let mut newest: HashMap<Vec<u8>, usize> = HashMap::new();
    for (_, run_id, seq, at, version, batch, event, parts) in rows {
        let row = EventRow { run_id, seq, at, version, batch, event, parts };
        let append = newest.get(&row.run_id).and_then(|index| appends.get_mut(*index));
        match append.filter(|append| append.continues_with(&row)) {
            Some(append) => append.add(&row),
            None => {
                newest.insert(row.run_id.clone(), appends.len());
                appends.push(MergedAppend::new(row));
            }
        }
    }
    for MergedAppend { first, last, parts, events } in appends {
        let text = "INSERT INTO appends (run_id, first, last, at, version, batch, parts, events) VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
        sqlx::query(text)
            .bind(first.run_id)
            .bind(first.seq)
            .bind(last)
            .bind(first.at)
            .bind(first.version)
            .bind(first.batch)
            .bind(parts)
            .bind(events)
            .execute(&mut *conn)
            .await?;
    }
    sqlx::query("DELETE FROM events WHERE pos <= ?").bind(last).execute(conn).await?;
    Ok(moved)
}

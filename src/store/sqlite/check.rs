//! Checks a whole database while another process may be using it.
//!
//! Always true: nothing is written; a page of runs is read within one short transaction, so that each run is seen at
//! one moment, and a checkpoint of the WAL is not blocked for longer than one page takes.
//!
//! The names of tables and columns are explained in [`crate::store`].

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use futures_util::TryStreamExt;
use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Connection as _, Executor, Row, SqlSafeStr};

use super::encoded::newest_expired;
use super::stored_state::run_id;
use super::{SqliteStore, codec, file_lock, open, read, read_only, run_snapshots};
use crate::names::{PlanId, RunId};
use crate::store::append_row::PayloadsBySeq;
use crate::store::check::{
    EventRow, HARMLESS, RESTORE, RecordCheck, RunRows, StoreChecked, check_flip, check_record, check_run, check_secret,
};
use crate::store::record_log::{CHAIN_HEAD, checked_entry, checked_flip, checked_record};
use crate::store::{DeclaredState, EvidenceRecord, StoreError};

/// Runs that are read in one transaction.
const PAGE_RUNS: i64 = 64;

/// SQLite's message for a file whose first pages it cannot read.
const MALFORMED: &str = "malformed";

type Result<T> = std::result::Result<T, StoreError>;

impl SqliteStore {
    /// Whether a process has the lock of a database.
    pub fn is_in_use(path: impl AsRef<Path>) -> bool {
        file_lock::is_held(path.as_ref())
    }

    /// Refuses a database that a newer version wrote, as [`SqliteStore::open`] would; another process may be using it.
    ///
    /// # Errors
    /// A newer version wrote it, it is another program's, or it cannot be read.
    pub async fn refuse_newer(path: impl AsRef<Path>) -> Result<()> {
        let mut conn = read_only::open(path.as_ref()).await?;
        let refused = open::refuse_newer(&mut conn, path.as_ref()).await;
        let _ = conn.close().await; // nothing was written
        refused
    }

    /// Checks a whole database and changes nothing; another process may be using it. A claim of a retry key that is
    /// older than `retry_window` and whose run is missing is no finding, because that run may have been purged. Time in
    /// which no process ran counts here, unlike in a purge, so that no run that was purged is a finding.
    ///
    /// # Errors
    /// There is no database, it belongs to another program, or its tables have another version. Inconsistencies are
    /// findings, not errors.
    pub async fn check(path: impl AsRef<Path>, retry_window: Duration) -> Result<StoreChecked> {
        check(path.as_ref(), newest_expired(retry_window)).await
    }

    /// Checks a copy that [`SqliteStore::back_up`] made. If its tables are older, only the file's integrity is checked.
    ///
    /// # Errors
    /// As [`SqliteStore::check`].
    pub async fn check_copy(path: impl AsRef<Path>, retry_window: Duration) -> Result<StoreChecked> {
        check_copy(path.as_ref(), newest_expired(retry_window)).await
    }
}

/// Checks a copy. If its tables are older than this binary can check, only the file's integrity is checked.
pub(super) async fn check_copy(path: &Path, purgeable_until: i64) -> Result<StoreChecked> {
    let mut conn = read_only::open(path).await?;
    let older = open::is_older(&mut conn, path).await?;
    let mut checked = StoreChecked::default();
    let done = if older { check_older(&mut conn, &mut checked).await } else { Ok(()) };
    let _ = conn.close().await; // it was only read
    if !older {
        return check(path, purgeable_until).await;
    }
    if let Err(error) = done {
        checked.add_finding(None, format!("the database cannot be read to its end: {error}"), RESTORE);
    }
    Ok(checked)
}

async fn check_older(conn: &mut SqliteConnection, checked: &mut StoreChecked) -> sqlx::Result<()> {
    check_integrity(conn, checked).await?;
    let count = async |conn: &mut SqliteConnection, text: &'static str| -> sqlx::Result<u64> {
        Ok(sqlx::query_as::<_, (i64,)>(text).fetch_one(conn).await?.0.cast_unsigned())
    };
    checked.runs = count(conn, "SELECT count(*) FROM runs").await?;
    // The events are in one of these tables, or in both of them after an interrupted upgrade.
    if count(conn, "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'events'").await? > 0 {
        checked.events += count(conn, "SELECT count(*) FROM events").await?;
    }
    if count(conn, "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'appends'").await? > 0 {
        checked.events += count(conn, "SELECT coalesce(sum(last - first + 1), 0) FROM appends").await?;
    }
    Ok(())
}

async fn check_integrity(conn: &mut SqliteConnection, checked: &mut StoreChecked) -> sqlx::Result<()> {
    let damage: Vec<(String,)> = sqlx::query_as("PRAGMA quick_check(20)").fetch_all(&mut *conn).await?;
    for (line,) in damage.into_iter().filter(|(line,)| line != "ok") {
        checked.add_finding(None, format!("the file is damaged: {line}"), RESTORE);
    }
    let secret: Option<(Vec<u8>,)> =
        sqlx::query_as("SELECT value FROM meta WHERE key = 'secret'").fetch_optional(&mut *conn).await?;
    check_secret(secret.as_ref().map(|(secret,)| secret.as_slice()), checked);
    Ok(())
}

async fn open_current(path: &Path) -> Result<SqliteConnection> {
    let mut conn = read_only::open(path).await?;
    open::require_current_tables(&mut conn, path).await?;
    Ok(conn)
}

/// Checks a database. The run of a retry key that was claimed at `purgeable_until` or earlier may have been purged.
pub(super) async fn check(path: &Path, purgeable_until: i64) -> Result<StoreChecked> {
    let mut checked = StoreChecked::default();
    let mut conn = match open_current(path).await {
        Ok(conn) => conn,
        // Damage is a finding, not an error.
        Err(StoreError(why)) if why.contains(MALFORMED) => {
            checked.add_finding(None, format!("the file is damaged: {why}"), RESTORE);
            return Ok(checked);
        }
        Err(error) => return Err(error),
    };
    let done = check_all(&mut conn, &mut checked, purgeable_until).await;
    let closed = conn.close().await;
    if let Err(error) = done {
        checked.add_finding(None, format!("the database cannot be read to its end: {error}"), RESTORE);
    } else if let Err(error) = closed {
        tracing::warn!(%error, "the database did not close cleanly; it was only read");
    }
    Ok(checked)
}

async fn check_all(conn: &mut SqliteConnection, checked: &mut StoreChecked, purgeable_until: i64) -> sqlx::Result<()> {
    check_integrity(conn, checked).await?;
    let mut after = Vec::new();
    loop {
        conn.execute("BEGIN".into_sql_str()).await?;
        let page = check_page(conn, &mut after, checked).await;
        conn.execute("ROLLBACK".into_sql_str()).await?;
        if page? == 0 {
            break;
        }
    }
    let (payloads,): (i64,) = sqlx::query_as("SELECT count(*) FROM payloads").fetch_one(&mut *conn).await?;
    checked.payloads = payloads.cast_unsigned();
    check_records(conn, checked).await?;
    check_references(conn, checked, purgeable_until).await
}

/// Checks the flips, the record, and what is kept of each route.
async fn check_records(conn: &mut SqliteConnection, checked: &mut StoreChecked) -> sqlx::Result<()> {
    let text = "SELECT number, CAST(route AS TEXT), CAST(record AS BLOB) FROM flips ORDER BY number";
    let mut flips = sqlx::query_as::<_, (i64, Option<String>, Vec<u8>)>(text).fetch(&mut *conn);
    while let Some((number, route, record)) = flips.try_next().await? {
        check_flip(checked_flip(number, route.as_deref(), &record), checked);
    }
    drop(flips);
    let text = "SELECT number, CAST(source AS TEXT), CAST(record AS BLOB) FROM record_entries ORDER BY number";
    let head: Option<(Vec<u8>,)> = sqlx::query_as("SELECT CAST(value AS BLOB) FROM meta WHERE key = ?")
        .bind(CHAIN_HEAD)
        .fetch_optional(&mut *conn)
        .await?;
    let mut record = RecordCheck::new(head.as_ref().map(|(value,)| value.as_slice()));
    let mut entries = sqlx::query_as::<_, (i64, String, Vec<u8>)>(text).fetch(&mut *conn);
    while let Some((number, source, content)) = entries.try_next().await? {
        record.entry(checked_entry(number, &source, &content), checked);
    }
    drop(entries);
    record.end(checked);
    type Row = (String, Vec<u8>);
    let declared: Vec<Row> =
        sqlx::query_as("SELECT route, CAST(record AS BLOB) FROM declared").fetch_all(&mut *conn).await?;
    for (route, record) in &declared {
        check_record(checked_record("declared", route, record, |state: &DeclaredState| &state.route), checked);
    }
    let evidence: Vec<Row> = sqlx::query_as("SELECT route, CAST(record AS BLOB) FROM evidence").fetch_all(conn).await?;
    for (route, record) in &evidence {
        check_record(checked_record("evidence", route, record, |of: &EvidenceRecord| &of.route), checked);
    }
    Ok(())
}

/// Checks one page of runs; returns how many.
async fn check_page(
    conn: &mut SqliteConnection,
    after: &mut Vec<u8>,
    checked: &mut StoreChecked,
) -> sqlx::Result<usize> {
    let plans: Vec<(String,)> = sqlx::query_as("SELECT id FROM plans").fetch_all(&mut *conn).await?;
    let plans: BTreeSet<PlanId> = plans.into_iter().map(|(id,)| PlanId::new(id)).collect();
    let text = "SELECT run_id, summary, seq, updated, remains IS NOT NULL FROM runs WHERE run_id > ? \
                ORDER BY run_id LIMIT ?";
    type Row = (Vec<u8>, Vec<u8>, i64, i64, bool);
    let runs: Vec<Row> = sqlx::query_as(text).bind(after.clone()).bind(PAGE_RUNS).fetch_all(&mut *conn).await?;
    for (id, summary, seq, updated, purged) in &runs {
        let Some(run) = run_id(id.clone()) else {
            checked.add_finding(None, format!("a run has the broken id {id:02x?}"), RESTORE);
            continue;
        };
        let events = if *purged { Vec::new() } else { events(conn, run).await? };
        let snapshot = run_snapshots::read_newest(&mut *conn, run).await?;
        let (seq, updated, purged) = (*seq, Some(*updated), *purged);
        let rows = RunRows { run, summary, seq, updated, purged, events, snapshot };
        check_run(rows, &plans, checked);
    }
    if let Some((id, ..)) = runs.last() {
        after.clone_from(id);
    }
    Ok(runs.len())
}

async fn events(conn: &mut SqliteConnection, run: RunId) -> sqlx::Result<Vec<EventRow>> {
    let id = run.0.as_bytes().as_slice();
    let text = "SELECT refs.seq, refs.path, payloads.hash, payloads.body FROM payload_refs AS refs \
                LEFT JOIN payloads ON payloads.hash = refs.hash WHERE refs.run_id = ?";
    let found = sqlx::query(text).bind(id).fetch_all(&mut *conn).await?;
    let mut parts = PayloadsBySeq::new();
    for row in &found {
        let path: &str = row.try_get(1)?;
        let parts = parts.entry(row.try_get::<i64, _>(0)?.cast_unsigned()).or_insert_with(|| Ok(Vec::new()));
        let body = match (row.try_get::<Option<&[u8]>, _>(2)?, row.try_get::<Option<&[u8]>, _>(3)?) {
            (Some(hash), Some(body)) if codec::hash(body) == hash => Ok(body),
            (Some(_), Some(_)) => Err(format!("its payload at {path} does not match its hash")),
            _ => Err(format!("its payload at {path} is missing")),
        };
        match (body, &mut *parts) {
            (Ok(body), Ok(parts)) => parts.push((path, body)),
            (Err(why), _) => *parts = Err(why),
            (Ok(_), Err(_)) => {}
        }
    }
    let text = "SELECT first, last, version, events, parts, \
                    (SELECT count(*) FROM payload_refs AS refs WHERE refs.run_id = appends.run_id \
                     AND refs.seq BETWEEN appends.first AND appends.last) \
                FROM appends WHERE run_id = ? ORDER BY first";
    let found = sqlx::query(text).bind(id).fetch_all(conn).await?;
    let mut events = Vec::new();
    for row in &found {
        let append = read::append_row(row, 3)?;
        let (expected, found): (i64, i64) = (row.try_get(4)?, row.try_get(5)?);
        if expected != found {
            let why = format!("its append refers to {expected} payloads, but there are {found}");
            parts.insert(append.first.cast_unsigned(), Err(why));
        }
        append.read_for_check(&parts, &mut events);
    }
    Ok(events)
}

/// Queries for rows that contradict other tables. Each returns run ids, each with a word that replaces `{}` in the text
/// of the finding; the third column says what to do.
const REFERENCE_CHECKS: &[(&str, &str, &str)] = &[
    (
        "SELECT DISTINCT run_id, '' FROM appends WHERE NOT EXISTS (SELECT 1 FROM runs WHERE runs.run_id = appends.run_id) \
         AND NOT EXISTS (SELECT 1 FROM purging WHERE purging.run_id = appends.run_id)",
        "it has events but no row, so that listings do not show it",
        RESTORE,
    ),
    (
        "SELECT run_id, family || ' ' || id FROM pins WHERE run_id IS NOT NULL \
         AND (adoption IS NULL OR adoption = 'adopted') \
         AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.run_id = pins.run_id)",
        "the instance `{}` is pinned to it, and it does not exist",
        RESTORE,
    ),
    (
        "SELECT pins.run_id, pins.family || ' ' || pins.id FROM pins JOIN runs ON runs.run_id = pins.run_id \
         WHERE runs.pinned = 0 AND (adoption IS NULL OR adoption = 'adopted')",
        "the instance `{}` is pinned to it, but its row does not say so: retention would purge it",
        "keep `retention` off until this is repaired",
    ),
    // The id of a job is that of its first run. If that run is purged, a start with its key is answered with the newest
    // run of the job.
    (
        "SELECT run_id, '' FROM retry_keys WHERE run_id IS NOT NULL AND at > ?1 \
         AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.run_id = retry_keys.run_id) \
         AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.job = retry_keys.run_id)",
        "it has claimed a retry key, but does not exist: a client that tries again gets no answer",
        RESTORE,
    ),
    (
        "SELECT locks.run_id, locks.name FROM locks LEFT JOIN runs ON runs.run_id = locks.run_id \
         WHERE runs.ended IS NULL OR runs.ended = 1",
        "it is in the queue of the lock `{}`, but has ended or does not exist: runs behind it wait for ever",
        "cancel the runs that wait for the lock",
    ),
    (
        "SELECT orders.run_id, hex(orders.id) FROM orders LEFT JOIN runs ON runs.run_id = orders.run_id \
         WHERE orders.answer IS NULL AND (runs.ended IS NULL OR runs.ended = 1)",
        "the command {} to it is unanswered, but it has ended or does not exist",
        "give the command again",
    ),
    (
        "SELECT run_keys.run_id, '' FROM run_keys JOIN runs ON runs.run_id = run_keys.run_id WHERE runs.ended = 1",
        "it has ended, but the key to its caller's credentials still exists",
        "report it to the maintainers: the run's end should have removed the key",
    ),
    (
        "SELECT run_id, '' FROM runs WHERE ended = 1 AND (owner IS NOT NULL OR turn IS NOT NULL)",
        "it has ended, but has an owner or is due",
        HARMLESS,
    ),
    (
        "SELECT DISTINCT run_id, '' FROM run_snapshots WHERE NOT EXISTS \
         (SELECT 1 FROM runs WHERE runs.run_id = run_snapshots.run_id AND runs.remains IS NULL) \
         AND NOT EXISTS (SELECT 1 FROM purging WHERE purging.run_id = run_snapshots.run_id)",
        "it has a snapshot but no events",
        HARMLESS,
    ),
    (
        "SELECT births.run_id, '' FROM births JOIN runs ON runs.run_id = births.run_id",
        "it is listed as a run that is to begin, but has begun",
        HARMLESS,
    ),
    (
        "SELECT births.parent, hex(births.run_id) FROM births WHERE parent IS NOT NULL \
         AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.run_id = births.parent)",
        "the run {} is to begin for it, but it does not exist",
        RESTORE,
    ),
    (
        "SELECT run_id, seq FROM payload_refs WHERE payload_refs.seq > coalesce((SELECT last FROM appends \
         WHERE appends.run_id = payload_refs.run_id AND appends.first <= payload_refs.seq \
         ORDER BY appends.first DESC LIMIT 1), 0) \
         AND NOT EXISTS (SELECT 1 FROM purging WHERE purging.run_id = payload_refs.run_id)",
        "a payload belongs to its event {}, which does not exist",
        RESTORE,
    ),
    (
        "SELECT NULL, hex(hash) FROM payloads \
         WHERE NOT EXISTS (SELECT 1 FROM payload_refs WHERE payload_refs.hash = payloads.hash)",
        "nothing refers to the payload {}",
        HARMLESS,
    ),
];

async fn check_references(
    conn: &mut SqliteConnection,
    checked: &mut StoreChecked,
    purgeable_until: i64,
) -> sqlx::Result<()> {
    for (text, what, todo) in REFERENCE_CHECKS {
        let text = format!("{text} LIMIT {}", read::FOUND_MAX);
        let mut query = sqlx::query(AssertSqlSafe(text.clone()).into_sql_str());
        if text.contains("?1") {
            query = query.bind(purgeable_until);
        }
        for row in query.fetch_all(&mut *conn).await? {
            let run = row.try_get::<Option<Vec<u8>>, _>(0)?.and_then(run_id);
            let word = row.try_get::<String, _>(1).or_else(|_| row.try_get::<i64, _>(1).map(|n| n.to_string()))?;
            checked.add_finding(run, what.replace("{}", &word), todo);
        }
    }
    Ok(())
}

//! Checks a whole database while other processes may be using it.
//!
//! Always true: nothing is written; a page of runs is read within one short transaction, so that each run is seen at
//! one moment.

use std::collections::BTreeSet;

use futures_util::TryStreamExt;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _, Executor, Row, SqlSafeStr};

use super::address::Address;
use super::columns::{run_id, unescape};
use super::{open, read};
use crate::names::{PlanId, RunId};
use crate::store::append_row::{AppendRow, PayloadsBySeq};
use crate::store::check::{
    EventRow, HARMLESS, RESTORE, RecordCheck, RunRows, StoreChecked, check_flip, check_record, check_run, check_secret,
};
use crate::store::record_log::{CHAIN_HEAD, checked_entry, checked_flip, checked_record};
use crate::store::{DeclaredState, EvidenceRecord, StoreError, codec};

/// Runs that are read in one transaction.
const PAGE_RUNS: i64 = 64;
/// The most rows that one query of a check reads.
const FOUND_MAX: i64 = 1_000;

/// Checks a database. Retry keys older than the window may name runs that were purged.
pub(super) async fn check(address: &Address, retry_window_ns: i64) -> Result<StoreChecked, StoreError> {
    let mut conn = open::open_read_only(address).await?;
    let mut checked = StoreChecked::default();
    if let Err(error) = check_all(&mut conn, &mut checked, retry_window_ns).await {
        checked.add_finding(None, format!("the database cannot be read to its end: {error}"), RESTORE);
    }
    if let Err(error) = address.within(conn.close()).await {
        tracing::warn!(%error, "the connection did not close cleanly; it was only read from");
    }
    Ok(checked)
}

async fn check_all(conn: &mut PgConnection, checked: &mut StoreChecked, retry_window_ns: i64) -> sqlx::Result<()> {
    // Queries over all rows may take long.
    conn.execute("SET statement_timeout = 0".into_sql_str()).await?;
    let secret = sqlx::query("SELECT value FROM meta WHERE key = 'secret'").fetch_optional(&mut *conn).await?;
    check_secret(secret.as_ref().map(|row| row.try_get(0)).transpose()?, checked);
    let mut after = Vec::new();
    loop {
        conn.execute("BEGIN ISOLATION LEVEL REPEATABLE READ".into_sql_str()).await?;
        let page = check_page(conn, &mut after, checked).await;
        conn.execute("ROLLBACK".into_sql_str()).await?;
        if page? == 0 {
            break;
        }
    }
    let payloads: i64 = sqlx::query("SELECT count(*) FROM payloads").fetch_one(&mut *conn).await?.try_get(0)?;
    checked.payloads = payloads.cast_unsigned();
    check_records(conn, checked).await?;
    check_references(conn, checked, retry_window_ns).await
}

/// Checks the flips, the record, and what is kept of each route.
async fn check_records(conn: &mut PgConnection, checked: &mut StoreChecked) -> sqlx::Result<()> {
    let mut flips = sqlx::query("SELECT number, route, record FROM flips ORDER BY number").fetch(&mut *conn);
    while let Some(row) = flips.try_next().await? {
        check_flip(checked_flip(row.try_get(0)?, row.try_get(1)?, row.try_get(2)?), checked);
    }
    drop(flips);
    let text = "SELECT number, source, record FROM record_entries ORDER BY number";
    // The head is read before the entries: another process may be adding to both.
    let of_meta = sqlx::query("SELECT value FROM meta WHERE key = $1").bind(CHAIN_HEAD);
    let head = of_meta.fetch_optional(&mut *conn).await?;
    let mut record = RecordCheck::new(head.as_ref().map(|row| row.try_get(0)).transpose()?);
    let mut entries = sqlx::query(text).fetch(&mut *conn);
    while let Some(row) = entries.try_next().await? {
        record.entry(checked_entry(row.try_get(0)?, row.try_get(1)?, row.try_get(2)?), checked);
    }
    drop(entries);
    record.end(checked);
    for row in &sqlx::query("SELECT route, record FROM declared").fetch_all(&mut *conn).await? {
        let (route, record) = (row.try_get(0)?, row.try_get(1)?);
        check_record(checked_record("declared", route, record, |state: &DeclaredState| &state.route), checked);
    }
    for row in &sqlx::query("SELECT route, record FROM evidence").fetch_all(conn).await? {
        let (route, record) = (row.try_get(0)?, row.try_get(1)?);
        check_record(checked_record("evidence", route, record, |of: &EvidenceRecord| &of.route), checked);
    }
    Ok(())
}

/// Checks one page of runs; returns how many.
async fn check_page(conn: &mut PgConnection, after: &mut Vec<u8>, checked: &mut StoreChecked) -> sqlx::Result<usize> {
    let mut plans = BTreeSet::new();
    for row in sqlx::query("SELECT id FROM plans").fetch_all(&mut *conn).await? {
        plans.insert(PlanId::new(row.try_get::<String, _>(0)?));
    }
    let text = "SELECT run_id, summary, seq, purged, last_at FROM runs WHERE run_id > $1 ORDER BY run_id LIMIT $2";
    let rows = sqlx::query(text).bind(after.as_slice()).bind(PAGE_RUNS).fetch_all(&mut *conn).await?;
    for row in &rows {
        let id: &[u8] = row.try_get(0)?;
        let (Ok(run), purged) = (run_id(id), row.try_get(3)?) else {
            checked.add_finding(None, format!("a run has the broken id {id:02x?}"), RESTORE);
            continue;
        };
        let events = if purged { Vec::new() } else { events(conn, run).await? };
        let snapshot = sqlx::query(read::RUN_SNAPSHOT).bind(id).fetch_optional(&mut *conn).await?;
        let snapshot = snapshot.map(|row| read::snapshot_of(&row, run));
        let (summary, seq, updated) = (row.try_get(1)?, row.try_get(2)?, row.try_get(4)?);
        check_run(RunRows { run, summary, seq, updated, purged, events, snapshot }, &plans, checked);
    }
    if let Some(row) = rows.last() {
        *after = row.try_get(0)?;
    }
    Ok(rows.len())
}

async fn events(conn: &mut PgConnection, run: RunId) -> sqlx::Result<Vec<EventRow>> {
    let id = run.0.as_bytes().as_slice();
    let text = "SELECT f.seq, f.path, f.hash, p.body FROM payload_refs f LEFT JOIN payloads p ON p.hash = f.hash \
                WHERE f.run_id = $1 ORDER BY f.seq";
    let refs = sqlx::query(text).bind(id).fetch_all(&mut *conn).await?;
    let mut paths = Vec::with_capacity(refs.len());
    for row in &refs {
        paths.push((row.try_get::<i64, _>(0)?.cast_unsigned(), unescape(row.try_get(1)?)));
    }
    let mut parts = PayloadsBySeq::new();
    for (row, (seq, path)) in refs.iter().zip(&paths) {
        let parts = parts.entry(*seq).or_insert_with(|| Ok(Vec::new()));
        let body = match (row.try_get::<&[u8], _>(2)?, row.try_get::<Option<&[u8]>, _>(3)?) {
            (hash, Some(body)) if codec::hash(body) == hash => Ok(body),
            (_, Some(_)) => Err(format!("its payload at {path} does not match its hash")),
            (_, None) => Err(format!("its payload at {path} is missing")),
        };
        match (body, &mut *parts) {
            (Ok(body), Ok(parts)) => parts.push((path.as_str(), body)),
            (Err(why), _) => *parts = Err(why),
            (Ok(_), Err(_)) => {}
        }
    }
    let text = "SELECT a.first, a.last, a.version, a.events, a.parts, \
                    (SELECT count(*) FROM payload_refs f WHERE f.run_id = a.run_id AND f.seq BETWEEN a.first AND a.last) \
                FROM appends a WHERE a.run_id = $1 ORDER BY a.first";
    let found = sqlx::query(text).bind(id).fetch_all(conn).await?;
    let mut events = Vec::new();
    for row in &found {
        let version = i64::from(row.try_get::<i16, _>(2)?);
        let (first, last) = (row.try_get(0)?, row.try_get(1)?);
        let append = AppendRow { first, last, version, events: row.try_get(3)? };
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
/// of the finding; the third column says what to do. `$1` is the retry window.
const REFERENCE_CHECKS: &[(&str, &str, &str)] = &[
    (
        "SELECT DISTINCT run_id, ''::bytea FROM appends WHERE NOT EXISTS (SELECT FROM runs WHERE runs.run_id = appends.run_id)",
        "it has events but no row, so that listings do not show it",
        RESTORE,
    ),
    (
        "SELECT run_id, convert_to(family || ' ', 'UTF8') || id FROM pins WHERE run_id IS NOT NULL \
         AND (adoption IS NULL OR adoption = 'adopted') \
         AND NOT EXISTS (SELECT FROM runs WHERE runs.run_id = pins.run_id)",
        "the instance `{}` is pinned to it, and it does not exist",
        RESTORE,
    ),
    (
        "SELECT pins.run_id, convert_to(pins.family || ' ', 'UTF8') || pins.id FROM pins \
         JOIN runs ON runs.run_id = pins.run_id WHERE NOT runs.pinned \
         AND (adoption IS NULL OR adoption = 'adopted')",
        "the instance `{}` is pinned to it, but its row does not say so: retention would purge it",
        "keep `retention` off until this is repaired",
    ),
    // The id of a job is that of its first run. If that run is purged, a start with its key is answered with the newest
    // run of the job.
    (
        "SELECT run_id, ''::bytea FROM retry_keys WHERE run_id IS NOT NULL AND at > now_ns() - $1 \
         AND NOT EXISTS (SELECT FROM runs WHERE runs.run_id = retry_keys.run_id) \
         AND NOT EXISTS (SELECT FROM runs WHERE runs.job = retry_keys.run_id)",
        "it has claimed a retry key, but does not exist: a client that tries again gets no answer",
        RESTORE,
    ),
    (
        "SELECT locks.run_id, locks.name FROM locks LEFT JOIN runs ON runs.run_id = locks.run_id \
         WHERE runs.ended IS NULL OR runs.ended",
        "it is in the queue of the lock `{}`, but has ended or does not exist: runs behind it wait for ever",
        "cancel the runs that wait for the lock",
    ),
    (
        "SELECT orders.run_id, convert_to(encode(orders.id, 'hex'), 'UTF8') FROM orders \
         LEFT JOIN runs ON runs.run_id = orders.run_id \
         WHERE orders.answer IS NULL AND (runs.ended IS NULL OR runs.ended)",
        "the command {} to it is unanswered, but it has ended or does not exist",
        "give the command again",
    ),
    (
        "SELECT run_keys.run_id, ''::bytea FROM run_keys JOIN runs ON runs.run_id = run_keys.run_id WHERE runs.ended",
        "it has ended, but the key to its caller's credentials still exists",
        "report it to the maintainers: the run's end should have removed the key",
    ),
    (
        "SELECT run_id, ''::bytea FROM runs WHERE ended AND (owner IS NOT NULL OR turn IS NOT NULL)",
        "it has ended, but has an owner or is due",
        HARMLESS,
    ),
    (
        "SELECT run_id, ''::bytea FROM run_snapshots WHERE NOT EXISTS \
         (SELECT FROM runs WHERE runs.run_id = run_snapshots.run_id AND NOT runs.purged)",
        "it has a snapshot but no events",
        HARMLESS,
    ),
    (
        "SELECT births.run_id, ''::bytea FROM births JOIN runs ON runs.run_id = births.run_id",
        "it is listed as a run that is to begin, but has begun",
        HARMLESS,
    ),
    (
        "SELECT births.parent, convert_to(encode(births.run_id, 'hex'), 'UTF8') FROM births WHERE parent IS NOT NULL \
         AND NOT EXISTS (SELECT FROM runs WHERE runs.run_id = births.parent)",
        "the run {} is to begin for it, but it does not exist",
        RESTORE,
    ),
    (
        "SELECT run_id, convert_to(seq::text, 'UTF8') FROM payload_refs WHERE seq > coalesce((SELECT last FROM appends \
         WHERE appends.run_id = payload_refs.run_id AND first <= payload_refs.seq ORDER BY first DESC LIMIT 1), 0)",
        "a payload belongs to its event {}, which does not exist",
        RESTORE,
    ),
    (
        "SELECT NULL::bytea, convert_to(encode(hash, 'hex'), 'UTF8') FROM payloads \
         WHERE NOT EXISTS (SELECT FROM payload_refs WHERE payload_refs.hash = payloads.hash)",
        "nothing refers to the payload {}",
        HARMLESS,
    ),
];

async fn check_references(
    conn: &mut PgConnection,
    checked: &mut StoreChecked,
    retry_window_ns: i64,
) -> sqlx::Result<()> {
    for (text, what, todo) in REFERENCE_CHECKS {
        let mut query = sqlx::query(AssertSqlSafe(format!("{text} LIMIT {FOUND_MAX}")).into_sql_str());
        if text.contains("$1") {
            query = query.bind(retry_window_ns);
        }
        for row in query.fetch_all(&mut *conn).await? {
            let run = row.try_get::<Option<&[u8]>, _>(0)?.and_then(|id| run_id(id).ok());
            let word = String::from_utf8_lossy(row.try_get(1)?);
            checked.add_finding(run, what.replace("{}", &word), todo);
        }
    }
    Ok(())
}

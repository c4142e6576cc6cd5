//! Reads. Each is one statement; a listing in which summaries cannot be read is several.

use std::ops::RangeInclusive;

use jiff::Timestamp;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, SqlSafeStr};

use super::columns::{Result, arm, column, escape, parse, run_id, sql_limit, time, unescape, utf8_text};
use super::pool::{Pool, no_answer};
use super::write_error::is_damage;
use crate::flag::{Arm, PinKey, RetryKey};
use crate::names::{PlanId, RouteId, RunId, Seq};
use crate::store::append_row::{AppendRow, PayloadsBySeq};
use crate::store::bound_keys::{
    OldKey, RetryKeyPage, RetryKeyPosition, has_run_since, is_bound, is_given_back, page_of,
};
use crate::store::encoded::nanos;
use crate::store::error::EventsError;
use crate::store::summary::{add_readable, decode_summary};
use crate::store::unpurgeable::UNREADABLE_EXAMINED_MAX;
use crate::store::{
    PinAdoption, PinCount, PinRecord, PlacedPin, RunFilter, RunSnapshot, SampleRecord, StoreError, StoredEvent,
};
use crate::workflow::{RunStatus, RunSummary};

/// How long a look-up for legacy waits for appends under way, in milliseconds: less than its caller waits for it.
const APPENDS_END_WITHIN_MS: i64 = 800;

pub(super) async fn events(pool: &Pool, run: RunId, from: Seq) -> Result<Vec<StoredEvent>> {
    Ok(try_events(pool, run, from).await?)
}

/// Reads appends and their payloads in one statement: a purge could remove payloads between two statements. The error
/// says whether the events are unreadable.
pub(super) async fn try_events(
    pool: &Pool,
    run: RunId,
    from: Seq,
) -> std::result::Result<Vec<StoredEvent>, EventsError> {
    let text = "SELECT a.first, a.last, a.version, a.events, a.parts, r.seqs, r.paths, r.bodies FROM appends a \
                LEFT JOIN LATERAL (SELECT array_agg(f.seq) AS seqs, array_agg(f.path) AS paths, \
                        array_agg(p.body) AS bodies \
                    FROM payload_refs f JOIN payloads p ON p.hash = f.hash \
                    WHERE f.run_id = a.run_id AND f.seq BETWEEN a.first AND a.last) AS r ON a.parts > 0 \
                WHERE a.run_id = $1 AND a.last >= $2 AND a.first >= \
                    coalesce((SELECT max(first) FROM appends WHERE run_id = $1 AND first <= $2), 0) \
                ORDER BY a.first";
    let seq = i64::try_from(from.0).unwrap_or(i64::MAX);
    let failed = |error| match is_damage(&error) {
        true => EventsError::Unreadable(StoreError(error.to_string())),
        false => EventsError::NoAnswer(no_answer(error)),
    };
    let query = || sqlx::query(text).bind(run.0.as_bytes().as_slice()).bind(seq);
    let found = pool.try_query(query).await.map_err(failed)?;
    let mut events = Vec::new();
    for row in &found {
        read_append(row, run, from, &mut events).map_err(EventsError::Unreadable)?;
    }
    Ok(events)
}

fn read_append(row: &PgRow, run: RunId, from: Seq, into: &mut Vec<StoredEvent>) -> Result<()> {
    let append = append_row(row)?;
    let expected: i64 = column(row, 4)?;
    let seqs: Vec<i64> = column::<Option<_>>(row, 5)?.unwrap_or_default();
    let paths: Vec<String> =
        column::<Option<Vec<String>>>(row, 6)?.unwrap_or_default().into_iter().map(unescape).collect();
    let bodies: Vec<Vec<u8>> = column::<Option<_>>(row, 7)?.unwrap_or_default();
    if seqs.len() as i64 != expected {
        return Err(StoreError(format!("payloads of {run} are missing: run `pointsman store check`")));
    }
    let mut parts = PayloadsBySeq::new();
    for ((seq, path), body) in seqs.iter().zip(&paths).zip(&bodies) {
        if let Ok(parts) = parts.entry(seq.cast_unsigned()).or_insert_with(|| Ok(Vec::new())) {
            parts.push((path.as_str(), body.as_slice()));
        }
    }
    append.read(from, &parts, into)
}

pub(super) const RUN_SNAPSHOT: &str = "SELECT seq, at, fold, hash, body FROM run_snapshots WHERE run_id = $1";

pub(super) async fn run_snapshot(pool: &Pool, run: RunId) -> Result<Option<RunSnapshot>> {
    let found = pool.query(|| sqlx::query(RUN_SNAPSHOT).bind(run.0.as_bytes().as_slice())).await?;
    found.first().map(|row| snapshot_of(row, run)).transpose()
}

/// Decodes a row of [`RUN_SNAPSHOT`].
pub(super) fn snapshot_of(row: &PgRow, run: RunId) -> Result<RunSnapshot> {
    let (seq, at) = (Seq(column::<i64>(row, 0)?.cast_unsigned()), time(column(row, 1)?)?);
    let (fold, body) = (column(row, 2)?, column(row, 4)?);
    RunSnapshot { run, seq, at, fold, body }.checked(column(row, 3)?)
}

/// Decodes the first four columns.
fn append_row(row: &PgRow) -> Result<AppendRow<'_>> {
    let version = i64::from(column::<i16>(row, 2)?);
    Ok(AppendRow { first: column(row, 0)?, last: column(row, 1)?, version, events: column(row, 3)? })
}

pub(super) async fn run(pool: &Pool, run: RunId) -> Result<Option<RunSummary>> {
    let text = "SELECT summary, seq, last_at FROM runs WHERE run_id = $1";
    let found = pool.query(|| sqlx::query(text).bind(run.0.as_bytes().as_slice())).await?;
    found.first().map(|row| summary(row, 0)).transpose()
}

/// Decodes a run's summary from three columns: the stored summary, the last seq, the time of the last event.
pub(super) fn summary(row: &PgRow, at: usize) -> Result<RunSummary> {
    decode_summary(column(row, at)?, column(row, at + 1)?, column(row, at + 2)?)
}

/// The conditions of a listing with their values. The statement contains only those of the filter, so that the planner
/// finds the index.
#[derive(Default)]
struct Conditions {
    text: String,
    values: Vec<Value>,
}

enum Value {
    Text(String),
    Texts(Vec<&'static str>),
    Bytes(Vec<u8>),
}

impl Conditions {
    /// Adds a condition, in which `$` stands for the value.
    fn add(&mut self, condition: &str, value: Value) {
        self.values.push(value);
        self.text.push_str(" AND ");
        self.text.push_str(&condition.replace('$', &format!("${}", self.values.len())));
    }
}

pub(super) async fn runs(pool: &Pool, filter: RunFilter) -> Result<Vec<RunSummary>> {
    let mut page = Vec::new();
    let mut rest = Some(filter);
    while let Some(filter) = rest {
        let found = listed_rows(pool, filter.clone()).await?;
        let decode = |row: &PgRow| Ok((column::<Vec<u8>>(row, 3)?, summary(row, 0)));
        rest = add_readable(found.iter().map(decode).collect::<Result<_>>()?, filter, &mut page);
    }
    Ok(page)
}

/// The rows of a listing: the columns of [`summary`], and the run's id.
async fn listed_rows(pool: &Pool, filter: RunFilter) -> Result<Vec<PgRow>> {
    let RunFilter { statuses, workflow, route, mode, job, parent, before, limit } = filter;
    let mut all = Conditions::default();
    if !statuses.is_empty() {
        if statuses.iter().all(|status| !status.is_final()) {
            // The condition of the partial index of open runs.
            all.text.push_str(" AND NOT ended");
        }
        all.add("status = ANY ($)", Value::Texts(statuses.iter().map(|status| status.as_str()).collect()));
    }
    if let Some(workflow) = workflow {
        all.add("workflow = $", Value::Text(escape(&workflow).into_owned()));
    }
    if let Some(route) = route {
        all.add("route = $", Value::Text(route.as_str().to_owned()));
    }
    if let Some(mode) = mode {
        all.add("mode = $", Value::Text(mode.as_str().to_owned()));
    }
    if let Some(job) = job {
        // A job's first run has the job's id.
        all.add("(job = $ OR run_id = $)", Value::Bytes(job.0.as_bytes().to_vec()));
    }
    if let Some(parent) = parent {
        all.add("parent = $", Value::Bytes(parent.0.as_bytes().to_vec()));
    }
    if let Some(before) = before {
        all.add("run_id < $", Value::Bytes(before.0.as_bytes().to_vec()));
    }
    let Conditions { text, values } = all;
    let text = format!(
        "SELECT summary, seq, last_at, run_id FROM runs WHERE true{text} ORDER BY run_id DESC LIMIT {}",
        sql_limit(limit)
    );
    let text = AssertSqlSafe(text).into_sql_str();
    let make = || {
        // Not cached as a prepared statement: there are many combinations of filters and limits.
        values.iter().fold(sqlx::query(text.clone()).persistent(false), |query, value| match value {
            Value::Text(value) => query.bind(value.as_str()),
            Value::Texts(value) => query.bind(value.as_slice()),
            Value::Bytes(value) => query.bind(value.as_slice()),
        })
    };
    pool.query(make).await
}

/// The number of runs that have not ended, by status.
pub(super) async fn open_runs(pool: &Pool) -> Result<Vec<(RunStatus, u64)>> {
    let text = "SELECT status, count(*) FROM runs WHERE NOT ended GROUP BY status";
    let found = pool.query(|| sqlx::query(text)).await?;
    let count = |row: &PgRow| {
        let (status, count): (&str, i64) = (column(row, 0)?, column(row, 1)?);
        let known = RunStatus::OPEN.into_iter().find(|known| known.as_str() == status);
        let known = known.ok_or_else(|| StoreError(format!("a run that has not ended is `{status}`")))?;
        Ok((known, count.cast_unsigned()))
    };
    let mut counts = found.iter().map(count).collect::<Result<Vec<_>>>()?;
    counts.sort();
    Ok(counts)
}

pub(super) async fn plan(pool: &Pool, id: PlanId) -> Result<Option<serde_json::Value>> {
    let found = pool.query(|| sqlx::query("SELECT source FROM plans WHERE id = $1").bind(id.as_str())).await?;
    found.first().map(|row| parse(column::<&[u8]>(row, 0)?)).transpose()
}

pub(super) async fn run_key(pool: &Pool, run: RunId) -> Result<Option<Vec<u8>>> {
    let text = "SELECT key FROM run_keys WHERE run_id = $1";
    let found = pool.query(|| sqlx::query(text).bind(run.0.as_bytes().as_slice())).await?;
    found.first().map(|row| column(row, 0)).transpose()
}

pub(super) async fn pin(pool: &Pool, key: PinKey) -> Result<Option<PinRecord>> {
    let text = "SELECT family, id, arm, run_id, at, adoption FROM pins WHERE family = $1 AND sha256(id) = sha256($2)";
    let found = pool.query(|| sqlx::query(text).bind(key.family.as_str()).bind(key.id.as_bytes())).await?;
    found.first().map(pin_record).transpose()
}

pub(super) async fn pins(pool: &Pool, family: RouteId, arm: Arm, limit: usize) -> Result<Vec<PinRecord>> {
    let text = "SELECT family, id, arm, run_id, at, adoption FROM pins WHERE family = $1 AND arm = $2 ORDER BY pos DESC LIMIT $3";
    let found =
        pool.query(|| sqlx::query(text).bind(family.as_str()).bind(arm.as_str()).bind(sql_limit(limit))).await?;
    found.iter().map(pin_record).collect()
}

fn pin_record(row: &PgRow) -> Result<PinRecord> {
    let key = PinKey { family: RouteId::new(column::<String>(row, 0)?), id: utf8_text(column(row, 1)?)?.into() };
    let run = column::<Option<&[u8]>>(row, 3)?.map(run_id).transpose()?;
    let adoption = column::<Option<&str>>(row, 5)?.map(PinAdoption::parse).transpose()?;
    Ok(PinRecord { key, arm: arm(column(row, 2)?)?, run, at: time(column(row, 4)?)?, adoption })
}

pub(super) async fn pin_counts(pool: &Pool) -> Result<Vec<PinCount>> {
    let found = pool.query(|| sqlx::query("SELECT family, arm, count(*) FROM pins GROUP BY family, arm")).await?;
    let count = |row: &PgRow| {
        let count: i64 = column(row, 2)?;
        Ok((RouteId::new(column::<String>(row, 0)?), arm(column(row, 1)?)?, count.cast_unsigned()))
    };
    let mut counts = found.iter().map(count).collect::<Result<Vec<PinCount>>>()?;
    counts.sort();
    Ok(counts)
}

pub(super) async fn engine_took_any(
    pool: &Pool,
    retry_window_ns: i64,
    range: RangeInclusive<RetryKey>,
) -> Result<bool> {
    // MATERIALIZED, so that the keys are found by the primary key. Otherwise the planner may choose the index of runs'
    // keys by time, and read all of it.
    const TEXT: &str = concat!(
        "WITH near AS MATERIALIZED (SELECT run_id, at FROM retry_keys WHERE key BETWEEN $1 AND $2) \
         SELECT 1 FROM near WHERE run_id IS NOT NULL AND ",
        is_bound!("near", "(now_ns() - $3)"),
        " AND NOT ",
        is_given_back!("near"),
        " LIMIT 1"
    );
    let (least, greatest) = (range.start().0, range.end().0);
    let query = || sqlx::query(TEXT).bind(least.as_slice()).bind(greatest.as_slice()).bind(retry_window_ns);
    Ok(!pool.query(query).await?.is_empty())
}

pub(super) async fn engine_took_any_after(
    pool: &Pool,
    retry_window_ns: i64,
    legacy_key: RetryKey,
    range: RangeInclusive<RetryKey>,
) -> Result<bool> {
    const TEXT: &str = "SELECT engine_took_any_after($1, $2, $3, now_ns() - $4, $5)";
    let keys = [legacy_key, *range.start(), *range.end()];
    let with_keys = || keys.iter().fold(sqlx::query(TEXT), |query, key| query.bind(key.0));
    let found = pool.query(|| with_keys().bind(retry_window_ns).bind(APPENDS_END_WITHIN_MS)).await?;
    let found = found.first().map_or(Ok(None), |row| column::<Option<bool>>(row, 0))?;
    found.ok_or_else(|| StoreError("an append is under way that may claim the same request".to_owned()))
}

pub(super) async fn engine_tries(
    pool: &Pool,
    retry_window_ns: i64,
    after: Option<RetryKey>,
    limit: usize,
) -> Result<Vec<(RetryKey, Timestamp)>> {
    let text = "SELECT key, at FROM retry_keys WHERE key > $1 AND run_id IS NOT NULL AND at > now_ns() - $2 \
                AND octet_length(key) = 32 ORDER BY key LIMIT $3";
    let after = after.as_ref().map_or([].as_slice(), |key| key.0.as_slice());
    let found = pool.query(|| sqlx::query(text).bind(after).bind(retry_window_ns).bind(sql_limit(limit))).await?;
    found.iter().map(|row| Ok((retry_key(row)?, time(column(row, 1)?)?))).collect()
}

pub(super) async fn engine_tries_since(
    pool: &Pool,
    since: Timestamp,
    after: Option<RetryKeyPosition>,
    limit: usize,
) -> Result<RetryKeyPage<Vec<RetryKeyPosition>>> {
    let text = "SELECT key, at FROM retry_keys WHERE run_id IS NOT NULL AND at >= $1 AND (at, key) > ($2, $3) \
                AND octet_length(key) = 32 ORDER BY at, key LIMIT $4";
    let (at, key) = position(&after);
    let make = || sqlx::query(text).bind(nanos(since)).bind(at).bind(key).bind(sql_limit(limit));
    let found = pool.query(make).await?;
    let position = |row: &PgRow| Ok(RetryKeyPosition { key: retry_key(row)?, at: time(column(row, 1)?)? });
    let result: Vec<_> = found.iter().map(position).collect::<Result<_>>()?;
    let next = result.last().copied().filter(|_| result.len() >= limit);
    Ok(RetryKeyPage { result, next })
}

/// Decodes the key in the first column.
pub(super) fn retry_key(row: &PgRow) -> Result<RetryKey> {
    let key = column::<&[u8]>(row, 0)?.try_into();
    Ok(RetryKey(key.map_err(|_| StoreError("a stored retry key has a wrong length".into()))?))
}

/// The columns `at` and `key` of a position.
pub(super) fn position(after: &Option<RetryKeyPosition>) -> (i64, &[u8]) {
    after.as_ref().map_or((i64::MIN, &[]), |after| (nanos(after.at), &after.key.0))
}

/// The keys of a page after a position that only their run keeps bound: the window after their first try is over, or
/// will be within `ahead_ns`.
pub(super) async fn long_bound_keys(
    pool: &Pool,
    (retry_window_ns, ahead_ns): (i64, i64),
    after: Option<RetryKeyPosition>,
    limit: usize,
) -> Result<RetryKeyPage<Vec<RetryKey>>> {
    const TEXT: &str = concat!(
        "SELECT key, at, ",
        has_run_since!(
            "retry_keys",
            "(CASE WHEN retry_keys.at <= now_ns() - $1 THEN now_ns() - $1 ELSE now_ns() - $1 + $2 END)"
        ),
        " FROM retry_keys WHERE at <= now_ns() - $1 + $2 AND (at, key) > ($3, $4) AND octet_length(key) = 32 \
          ORDER BY at, key LIMIT $5"
    );
    let (at, key) = position(&after);
    let make = || sqlx::query(TEXT).bind(retry_window_ns).bind(ahead_ns).bind(at).bind(key).bind(sql_limit(limit));
    let old_key = |row: &PgRow| {
        let position = RetryKeyPosition { at: time(column(row, 1)?)?, key: retry_key(row)? };
        Ok(OldKey { position, is_bound: column(row, 2)? })
    };
    let old: Vec<OldKey> = pool.query(make).await?.iter().map(old_key).collect::<Result<_>>()?;
    Ok(page_of(&old, limit, true))
}

/// Counts the unreadable keys among the oldest whose window after the first try is over. No page of keys has them, so
/// they are never removed and become the oldest.
pub(super) async fn unreadable_keys(pool: &Pool, retry_window_ns: i64) -> Result<u64> {
    let text = "SELECT count(*) FROM (SELECT key FROM retry_keys WHERE at <= now_ns() - $1 ORDER BY at LIMIT $2) oldest \
                WHERE octet_length(key) <> 32";
    let found = pool.query(|| sqlx::query(text).bind(retry_window_ns).bind(sql_limit(UNREADABLE_EXAMINED_MAX))).await?;
    found.first().map_or(Ok(0), |row| column::<i64>(row, 0).map(i64::cast_unsigned))
}

pub(super) async fn pinned(pool: &Pool, after: u64, limit: usize) -> Result<Vec<PlacedPin>> {
    let text = "SELECT family, id, arm, run_id, at, adoption, pos FROM pins WHERE pos > $1 ORDER BY pos LIMIT $2";
    let found = pool.query(|| sqlx::query(text).bind(after.cast_signed()).bind(sql_limit(limit))).await?;
    let pin_of = |row: &PgRow| {
        let pin = pin_record(row)?;
        Ok((column::<i64>(row, 6)?.cast_unsigned(), pin.key, pin.arm))
    };
    found.iter().map(pin_of).collect()
}

/// Decodes the JSON records of a statement, whose parameters are an optional route and an optional limit.
pub(super) async fn records<T: serde::de::DeserializeOwned>(
    pool: &Pool,
    text: &'static str,
    route: Option<&RouteId>,
    limit: Option<usize>,
) -> Result<Vec<T>> {
    let make = || {
        let mut query = sqlx::query(text);
        if let Some(route) = route {
            query = query.bind(route.as_str());
        }
        if let Some(limit) = limit {
            query = query.bind(sql_limit(limit));
        }
        query
    };
    let found = pool.query(make).await?;
    found.iter().map(|row| parse(column::<&[u8]>(row, 0)?)).collect()
}

pub(super) async fn sample_of_run(pool: &Pool, run: RunId) -> Result<Option<SampleRecord>> {
    let text = "SELECT record FROM samples WHERE pos = (SELECT max(pos) FROM sample_runs WHERE run = $1)";
    let found = pool.query(|| sqlx::query(text).bind(run.0.as_bytes().as_slice())).await?;
    found.first().map(|row| parse(column::<&[u8]>(row, 0)?)).transpose()
}

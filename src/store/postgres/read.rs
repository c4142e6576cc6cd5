//! Reads of what appends wrote. Each is one statement.

use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, SqlSafeStr};

use super::pool::Pool;
use super::text::{Result, arm, column, name, parse, plain, record, rows, run_id, text, time};
use crate::flag::{Arm, PinKey, RetryKey};
use crate::names::{PlanId, RouteId, RunId, Seq};
use crate::store::codec;
use crate::store::{EngineTries, FirstTry, FlipRecord, PinCount, PinRecord, RunFilter, StoreError, StoredEvent};
use crate::workflow::{Event, RunStatus, RunSummary};

/// Payloads come with the event that they belong to, in one look: a purge may take them a moment later.
pub(super) async fn events(pool: &Pool, run: RunId, from: Seq) -> Result<Vec<StoredEvent>> {
    let text = "SELECT e.seq, e.at, e.version, e.event, r.paths, r.bodies FROM events e LEFT JOIN LATERAL \
                (SELECT array_agg(f.path) AS paths, array_agg(p.body) AS bodies \
                 FROM payload_refs f JOIN payloads p ON p.hash = f.hash \
                 WHERE f.run_id = e.run_id AND f.seq = e.seq) AS r ON e.parts > 0 \
                WHERE e.run_id = $1 AND e.seq >= $2 ORDER BY e.seq";
    let from = i64::try_from(from.0).unwrap_or(i64::MAX);
    let found = pool.ask(|| sqlx::query(text).bind(run.0.as_bytes().as_slice()).bind(from)).await?;
    found.iter().map(event).collect()
}

fn event(row: &PgRow) -> Result<StoredEvent> {
    let seq: i64 = column(row, 0)?;
    let version: i16 = column(row, 2)?;
    if i32::from(version) > i32::from(Event::VERSION) {
        return Err(StoreError(format!(
            "event {seq} has version {version}, this binary reads events up to version {}",
            Event::VERSION
        )));
    }
    let paths: Vec<String> =
        column::<Option<Vec<String>>>(row, 4)?.unwrap_or_default().into_iter().map(plain).collect();
    let bodies: Vec<Vec<u8>> = column::<Option<Vec<Vec<u8>>>>(row, 5)?.unwrap_or_default();
    let parts = paths.iter().map(String::as_str).zip(bodies.iter().map(Vec::as_slice));
    let event = codec::join(column(row, 3)?, parts).map_err(|why| StoreError(format!("event {seq}: {why}")))?;
    Ok(StoredEvent { seq: Seq(seq.cast_unsigned()), at: time(column(row, 1)?)?, event })
}

pub(super) async fn run(pool: &Pool, run: RunId) -> Result<Option<RunSummary>> {
    let text = "SELECT summary FROM runs WHERE run_id = $1";
    let found = pool.ask(|| sqlx::query(text).bind(run.0.as_bytes().as_slice())).await?;
    found.first().map(|row| record(row, 0)).transpose()
}

/// Conditions of a listing with their values: only what is asked for stands in the statement, so that it finds its
/// index.
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
    /// `$` stands for the value.
    fn add(&mut self, condition: &str, value: Value) {
        self.values.push(value);
        self.text.push_str(" AND ");
        self.text.push_str(&condition.replace('$', &format!("${}", self.values.len())));
    }
}

pub(super) async fn runs(pool: &Pool, filter: RunFilter) -> Result<Vec<RunSummary>> {
    let RunFilter { statuses, workflow, route, mode, job, parent, before, limit } = filter;
    let mut all = Conditions::default();
    if !statuses.is_empty() {
        if statuses.iter().all(|status| !status.is_final()) {
            // Said as the index of open runs says it.
            all.text.push_str(" AND NOT ended");
        }
        all.add("status = ANY ($)", Value::Texts(statuses.iter().map(|status| status.as_str()).collect()));
    }
    if let Some(workflow) = workflow {
        all.add("workflow = $", Value::Text(text(&workflow).into_owned()));
    }
    if let Some(route) = route {
        all.add("route = $", Value::Text(route.as_str().to_owned()));
    }
    if let Some(mode) = mode {
        all.add("mode = $", Value::Text(mode.as_str().to_owned()));
    }
    if let Some(job) = job {
        // Its first run has its id.
        all.add("(job = $ OR run_id = $)", Value::Bytes(job.0.as_bytes().to_vec()));
    }
    if let Some(parent) = parent {
        all.add("parent = $", Value::Bytes(parent.0.as_bytes().to_vec()));
    }
    if let Some(before) = before {
        all.add("run_id < $", Value::Bytes(before.0.as_bytes().to_vec()));
    }
    let Conditions { text, values } = all;
    let text = format!("SELECT summary FROM runs WHERE true{text} ORDER BY run_id DESC LIMIT {}", rows(limit));
    let text = AssertSqlSafe(text).into_sql_str();
    let make = || {
        // A text for every limit and mixture is not worth keeping prepared.
        values.iter().fold(sqlx::query(text.clone()).persistent(false), |query, value| match value {
            Value::Text(value) => query.bind(value.as_str()),
            Value::Texts(value) => query.bind(value.as_slice()),
            Value::Bytes(value) => query.bind(value.as_slice()),
        })
    };
    let found = pool.ask(make).await?;
    found.iter().map(|row| record(row, 0)).collect()
}

/// How many runs have not ended, by status.
pub(super) async fn open_runs(pool: &Pool) -> Result<Vec<(RunStatus, u64)>> {
    let text = "SELECT status, count(*) FROM runs WHERE NOT ended GROUP BY status";
    let found = pool.ask(|| sqlx::query(text)).await?;
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
    let found = pool.ask(|| sqlx::query("SELECT source FROM plans WHERE id = $1").bind(id.as_str())).await?;
    found.first().map(|row| record(row, 0)).transpose()
}

pub(super) async fn run_key(pool: &Pool, run: RunId) -> Result<Option<Vec<u8>>> {
    let text = "SELECT key FROM run_keys WHERE run_id = $1";
    let found = pool.ask(|| sqlx::query(text).bind(run.0.as_bytes().as_slice())).await?;
    found.first().map(|row| column(row, 0)).transpose()
}

pub(super) async fn pin(pool: &Pool, key: PinKey) -> Result<Option<PinRecord>> {
    let ask = "SELECT family, id, arm, run_id, at FROM pins WHERE family = $1 AND sha256(id) = sha256($2)";
    let found = pool.ask(|| sqlx::query(ask).bind(key.family.as_str()).bind(key.id.as_bytes())).await?;
    found.first().map(pin_record).transpose()
}

pub(super) async fn pins(pool: &Pool, family: RouteId, arm: Arm, limit: usize) -> Result<Vec<PinRecord>> {
    let ask = "SELECT family, id, arm, run_id, at FROM pins WHERE family = $1 AND arm = $2 ORDER BY pos DESC LIMIT $3";
    let found = pool.ask(|| sqlx::query(ask).bind(family.as_str()).bind(arm.as_str()).bind(rows(limit))).await?;
    found.iter().map(pin_record).collect()
}

fn pin_record(row: &PgRow) -> Result<PinRecord> {
    let key = PinKey { family: RouteId::new(column::<String>(row, 0)?), id: name(column(row, 1)?)?.into() };
    let run = column::<Option<&[u8]>>(row, 3)?.map(run_id).transpose()?;
    Ok(PinRecord { key, arm: arm(column(row, 2)?)?, run, at: time(column(row, 4)?)? })
}

pub(super) async fn pin_counts(pool: &Pool) -> Result<Vec<PinCount>> {
    let found = pool.ask(|| sqlx::query("SELECT family, arm, count(*) FROM pins GROUP BY family, arm")).await?;
    let count = |row: &PgRow| {
        let count: i64 = column(row, 2)?;
        Ok((RouteId::new(column::<String>(row, 0)?), arm(column(row, 1)?)?, count.cast_unsigned()))
    };
    let mut counts = found.iter().map(count).collect::<Result<Vec<PinCount>>>()?;
    counts.sort();
    Ok(counts)
}

pub(super) async fn first_try(pool: &Pool, key: RetryKey, window_ns: i64) -> Result<Option<FirstTry>> {
    let text = "SELECT arm, run_id, request FROM retry_keys WHERE key = $1 AND at > now_ns() - $2";
    let found = pool.ask(|| sqlx::query(text).bind(key.0.as_slice()).bind(window_ns)).await?;
    let Some(row) = found.first() else { return Ok(None) };
    let run = column::<Option<&[u8]>>(row, 1)?.map(run_id).transpose()?;
    let request = column::<Option<&[u8]>>(row, 2)?.and_then(|bytes| bytes.try_into().ok());
    Ok(Some(FirstTry { arm: arm(column(row, 0)?)?, run, request }))
}

pub(super) async fn engine_tries(pool: &Pool, window_ns: i64, limit: usize) -> Result<EngineTries> {
    let text = "SELECT k.key, r.route, k.at FROM retry_keys k JOIN runs r ON r.run_id = k.run_id \
                WHERE k.at > now_ns() - $1 AND r.route IS NOT NULL ORDER BY k.at DESC LIMIT $2";
    let one_more = rows(limit.saturating_add(1));
    let found = pool.ask(|| sqlx::query(text).bind(window_ns).bind(one_more)).await?;
    let mut tries = EngineTries::default();
    for row in found.iter().take(limit) {
        if let Ok(key) = column::<&[u8]>(row, 0)?.try_into() {
            tries.keys.push((RetryKey(key), RouteId::new(column::<String>(row, 1)?), time(column(row, 2)?)?));
        }
    }
    if found.len() > limit {
        let text = "SELECT DISTINCT route FROM runs WHERE mode = 'real' AND route IS NOT NULL";
        for row in &pool.ask(|| sqlx::query(text)).await? {
            tries.beyond.push(RouteId::new(column::<String>(row, 0)?));
        }
    }
    Ok(tries)
}

/// Records of JSON, by a statement of ours that takes an optional route and an optional limit.
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
            query = query.bind(rows(limit));
        }
        query
    };
    let found = pool.ask(make).await?;
    found.iter().map(|row| parse(column::<&[u8]>(row, 0)?)).collect()
}

pub(super) async fn flips(pool: &Pool, route: Option<RouteId>, limit: usize) -> Result<Vec<FlipRecord>> {
    let ask = match route {
        Some(_) => "SELECT number, record FROM flips WHERE route = $1 ORDER BY number DESC LIMIT $2",
        None => "SELECT number, record FROM flips WHERE $1::text IS NULL ORDER BY number DESC LIMIT $2",
    };
    let route = route.as_ref().map(RouteId::as_str);
    let found = pool.ask(|| sqlx::query(ask).bind(route).bind(rows(limit))).await?;
    found.iter().map(flip).collect()
}

pub(super) async fn last_flips(pool: &Pool) -> Result<Vec<FlipRecord>> {
    let text = "SELECT DISTINCT ON (route) number, record FROM flips ORDER BY route NULLS FIRST, number DESC";
    let found = pool.ask(|| sqlx::query(text)).await?;
    found.iter().map(flip).collect()
}

fn flip(row: &PgRow) -> Result<FlipRecord> {
    let number = column::<i64>(row, 0)?.cast_unsigned();
    Ok(FlipRecord { number, ..record(row, 1)? })
}

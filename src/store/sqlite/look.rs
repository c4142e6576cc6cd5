//! Reads what is stored of all that a batch touches, in few statements.

use std::collections::HashMap;

use sqlx::sqlite::{SqliteArguments, SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, Row as _, SqlSafeStr, SqlStr};
use uuid::Uuid;

use super::fault::Fault;
use super::job::{Job, arm};
use super::judge::Known;
use super::statements::{LARGEST, Row, round};
use crate::flag::{PinKey, RetryKey};
use crate::names::{Fence, RouteId, RunId};

const HEADS: &str = "SELECT want.column1, want.column2, \
    runs.seq, runs.fence, \
    (SELECT batch FROM (SELECT batch, last FROM appends WHERE appends.run_id = want.column1 \
        AND appends.first <= want.column2 ORDER BY appends.first DESC LIMIT 1) WHERE last >= want.column2) \
    FROM (VALUES {rows}) AS want LEFT JOIN runs ON runs.run_id = want.column1 WHERE want.column1 IS NOT NULL";
const CLAIMS: &str = "SELECT retry_keys.key, retry_keys.run_id, retry_keys.request, retry_keys.at \
    FROM (VALUES {rows}) AS want CROSS JOIN retry_keys ON retry_keys.key = want.column1 \
    WHERE retry_keys.run_id IS NOT NULL";
const PINS: &str = "SELECT pins.family, pins.id, pins.arm, pins.run_id \
    FROM (VALUES {rows}) AS want \
    CROSS JOIN pins ON pins.family = want.column1 AND pins.id = want.column2";

/// What is stored; of runs only where `heads` asks for it, since the schema holds them together by itself. Retry keys
/// from before `since` have run out.
pub(super) async fn look(conn: &mut SqliteConnection, jobs: &[Job], heads: bool, since: i64) -> Result<Known, Fault> {
    let mut known = Known::default();
    if heads {
        let mut last = HashMap::new();
        for jobs in jobs.chunks(LOOKUP_ROWS_MAX) {
            let mut values = Row(SqliteArguments::default());
            for job in jobs {
                values.blob(job.run_id.0.as_bytes());
                values.int(job.first.cast_signed());
            }
            for row in fetch(conn, HEADS, 2, jobs.len(), values).await? {
                let Some(run) = run_id(row.try_get(0)?) else { continue };
                let first: i64 = row.try_get(1)?;
                if let Some(seq) = row.try_get::<Option<i64>, _>(2)? {
                    let fence: i64 = row.try_get(3)?;
                    last.insert(run, (seq.cast_unsigned(), Fence(fence.cast_unsigned())));
                }
                if let Some(batch) = row.try_get::<Option<Vec<u8>>, _>(4)?.and_then(|b| Uuid::from_slice(&b).ok()) {
                    known.batches.insert((run, first.cast_unsigned()), batch);
                }
            }
        }
        known.heads = Some(last);
    }
    let claims: Vec<RetryKey> = jobs.iter().filter_map(|job| job.claim.map(|claim| claim.key)).collect();
    for keys in claims.chunks(LOOKUP_ROWS_MAX) {
        let mut values = Row(SqliteArguments::default());
        keys.iter().for_each(|key| values.blob(&key.0));
        for row in fetch(conn, CLAIMS, 1, keys.len(), values).await? {
            let key = row.try_get::<Vec<u8>, _>(0)?.try_into().ok().map(RetryKey);
            let (Some(key), Some(run)) = (key, run_id(row.try_get(1)?)) else { continue };
            let request = row.try_get::<Option<Vec<u8>>, _>(2)?.and_then(|request| request.try_into().ok());
            if row.try_get::<i64, _>(3)? > since {
                known.claims.insert(key, (run, request));
            }
        }
    }
    let pins: Vec<&PinKey> = jobs.iter().flat_map(|job| job.append.pins.iter().map(|pin| &pin.key)).collect();
    for keys in pins.chunks(LOOKUP_ROWS_MAX) {
        let mut values = Row(SqliteArguments::default());
        for key in keys {
            values.text(key.family.as_str());
            values.text(&key.id);
        }
        for row in fetch(conn, PINS, 2, keys.len(), values).await? {
            let key =
                PinKey { family: RouteId::new(row.try_get::<String, _>(0)?), id: row.try_get::<String, _>(1)?.into() };
            let Some(arm) = arm(row.try_get(2)?) else { continue };
            known.pins.insert(key, (arm, row.try_get::<Option<Vec<u8>>, _>(3)?.and_then(run_id)));
        }
    }
    Ok(known)
}

async fn fetch(
    conn: &mut SqliteConnection,
    template: &str,
    columns: usize,
    rows: usize,
    values: Row,
) -> Result<Vec<SqliteRow>, Fault> {
    Ok(sqlx::query_with(lookup(template, columns, rows), values.0).fetch_all(conn).await?)
}

/// A run's id as a column has it.
pub(super) fn run_id(bytes: Vec<u8>) -> Option<RunId> {
    Uuid::from_slice(&bytes).ok().map(RunId)
}

/// The text of a look-up over so many rows of so many values, and how many values it binds: `{rows}` is replaced.
fn lookup(template: &str, columns: usize, rows: usize) -> SqlStr {
    let row = format!("({})", vec!["?"; columns].join(","));
    let rows = vec![row.as_str(); round(rows)].join(",");
    AssertSqlSafe(template.replace("{rows}", &rows)).into_sql_str()
}

/// The most rows that one look-up takes.
const LOOKUP_ROWS_MAX: usize = LARGEST;

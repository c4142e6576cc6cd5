//! The entries of the record, the flips, and what is kept of each route, in PostgreSQL.

use futures_util::future::{BoxFuture, FutureExt};
use sqlx::postgres::PgRow;

use super::PostgresStore;
use super::columns::{Result, column, json, sql_limit};
use super::pool::Pool;
use crate::names::RouteId;
use crate::store::record_log::{CheckedRow, above, checked_entry, checked_flip, checked_record, readable_flips};
use crate::store::{DeclaredState, EvidenceRecord, FlipRecord, RecordEntry, RecordLog};

impl RecordLog for PostgresStore {
    fn put_record_entry(&self, entry: RecordEntry) -> BoxFuture<'_, Result<()>> {
        async move {
            let record = json(&entry)?;
            let text = "INSERT INTO record_entries (number, source, record) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
            let make = || sqlx::query(text).bind(entry.number.cast_signed()).bind(&entry.source).bind(&record);
            self.pool.query(make).await.map(drop)
        }
        .boxed()
    }

    fn record_rows(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<CheckedRow<RecordEntry>>>> {
        async move {
            let text = "SELECT number, source, record FROM record_entries WHERE number > $1 ORDER BY number LIMIT $2";
            let make = || sqlx::query(text).bind(above(after)).bind(sql_limit(limit));
            self.pool.query(make).await?.iter().map(entry).collect()
        }
        .boxed()
    }

    fn newest_record_row(&self) -> BoxFuture<'_, Result<Option<CheckedRow<RecordEntry>>>> {
        async move {
            let text = "SELECT number, source, record FROM record_entries ORDER BY number DESC LIMIT 1";
            let found = self.pool.query(|| sqlx::query(text)).await?;
            found.first().map(entry).transpose()
        }
        .boxed()
    }

    fn flip_rows(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<CheckedRow<FlipRecord>>>> {
        async move {
            let text = "SELECT number, route, record FROM flips WHERE number > $1 ORDER BY number LIMIT $2";
            let make = || sqlx::query(text).bind(above(after)).bind(sql_limit(limit));
            self.pool.query(make).await?.iter().map(flip).collect()
        }
        .boxed()
    }
}

/// Decodes a row with the columns `number`, `source` and `record`.
fn entry(row: &PgRow) -> Result<CheckedRow<RecordEntry>> {
    Ok(checked_entry(column(row, 0)?, column(row, 1)?, column(row, 2)?))
}

/// Decodes the JSON records of a statement without parameters, each in a row under its route.
async fn records_of_routes<T: serde::de::DeserializeOwned>(
    pool: &Pool,
    table: &'static str,
    text: &'static str,
    route_of: fn(&T) -> &RouteId,
) -> Result<Vec<T>> {
    let found = pool.query(|| sqlx::query(text)).await?;
    found.iter().map(|row| checked_record(table, column(row, 0)?, column(row, 1)?, route_of)).collect()
}

/// What the files declared, in the order of routes.
pub(super) async fn declared(pool: &Pool) -> Result<Vec<DeclaredState>> {
    let text = "SELECT route, record FROM declared ORDER BY route";
    records_of_routes(pool, "declared", text, |state: &DeclaredState| &state.route).await
}

/// The evidence, in the order of routes.
pub(super) async fn evidence(pool: &Pool) -> Result<Vec<EvidenceRecord>> {
    let text = "SELECT route, record FROM evidence ORDER BY route";
    records_of_routes(pool, "evidence", text, |evidence: &EvidenceRecord| &evidence.route).await
}

/// Flips, newest first, of one route or of all.
pub(super) async fn flips(pool: &Pool, route: Option<RouteId>, limit: usize) -> Result<Vec<FlipRecord>> {
    let text = match route {
        Some(_) => "SELECT number, route, record FROM flips WHERE route = $1 ORDER BY number DESC LIMIT $2",
        None => "SELECT number, route, record FROM flips WHERE $1::text IS NULL ORDER BY number DESC LIMIT $2",
    };
    let route = route.as_ref().map(RouteId::as_str);
    let found = pool.query(|| sqlx::query(text).bind(route).bind(sql_limit(limit))).await?;
    readable_flips(found.iter().map(flip).collect::<Result<_>>()?)
}

/// Decodes a row with the columns `number`, `route` and `record`.
fn flip(row: &PgRow) -> Result<CheckedRow<FlipRecord>> {
    Ok(checked_flip(column(row, 0)?, column(row, 1)?, column(row, 2)?))
}

//! Reads entries of the record, flips, and what is kept of each route, from PostgreSQL. A row counts only if its
//! columns say the same as its content.

use sqlx::postgres::PgRow;

use super::columns::{Result, column, sql_limit};
use super::pool::Pool;
use crate::names::RouteId;
use crate::store::record_log::{CheckedRow, checked_entry, checked_flip, checked_record, readable_flips};
use crate::store::{DeclaredState, EvidenceRecord, FlipRecord, RecordEntry};

/// Decodes a row with the columns `number`, `source` and `record`.
pub(super) fn entry(row: &PgRow) -> Result<CheckedRow<RecordEntry>> {
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
pub(super) fn flip(row: &PgRow) -> Result<CheckedRow<FlipRecord>> {
    Ok(checked_flip(column(row, 0)?, column(row, 1)?, column(row, 2)?))
}

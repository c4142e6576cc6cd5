//! The record of moves.

use axum::Json;
use serde::Deserialize;
use serde_json::Value;

use super::error::ApiError;
use super::extract::QueryParams;
use super::state::{Admin, JsonResult};
use super::types::RecordPage;
use crate::store::{CheckedRow, UnreadableRow};

#[derive(Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RecordQuery {
    /// Only those with a number above this one.
    after: Option<u64>,
    limit: Option<std::num::NonZeroU32>,
}

/// How many entries a page has unless the request says otherwise.
const ROWS: usize = 100;

pub(super) async fn record(admin: Admin, QueryParams(query): QueryParams<RecordQuery>) -> JsonResult<RecordPage> {
    let RecordQuery { after, limit } = query;
    let store = &admin.parts.store;
    // Before the entries, because another process may add one meanwhile.
    let head = store.chain_head().await?;
    let newest = store.newest_record_row().await?;
    let rows = store.record_rows(after.unwrap_or(0), admin.rows(limit, ROWS)).await?;
    let entries = readable(rows).map_err(|row| ApiError::unreadable("Entry", row))?;
    let (newest, newest_hash) = match newest {
        None => (0, String::new()),
        Some(Ok(entry)) => (entry.number, entry.hash),
        Some(Err(unreadable)) => (u64::try_from(unreadable.number).unwrap_or(0), String::new()),
    };
    Ok(Json(RecordPage { entries, newest, newest_hash, head, read_at: crate::clock::now() }))
}

/// The flips in the store as they are, the oldest first, to be compared with the record.
pub(super) async fn flips(admin: Admin, QueryParams(query): QueryParams<RecordQuery>) -> JsonResult<Vec<Value>> {
    let RecordQuery { after, limit } = query;
    let rows = admin.parts.store.flip_rows(after.unwrap_or(0), admin.rows(limit, ROWS)).await?;
    let flips = readable(rows).map_err(|row| ApiError::unreadable("Flip", row))?;
    Ok(Json(flips.iter().map(|flip| serde_json::to_value(flip).unwrap_or_default()).collect()))
}

/// The rows before the first that cannot be read.
///
/// # Errors
/// The first row cannot be read. A later unreadable row ends the page before it, so the next page reports it.
fn readable<T>(rows: Vec<CheckedRow<T>>) -> Result<Vec<T>, UnreadableRow> {
    let mut read = Vec::with_capacity(rows.len());
    for row in rows {
        match row {
            Ok(row) => read.push(row),
            Err(unreadable) if read.is_empty() => return Err(unreadable),
            Err(_) => break,
        }
    }
    Ok(read)
}

//! The record of moves.

use axum::Json;
use serde::Deserialize;
use serde_json::Value;

use super::extract::QueryParams;
use super::state::{Admin, JsonResult};
use super::types::RecordPage;

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
    let newest = store.newest_record_entry().await?;
    let entries = store.record_entries(after.unwrap_or(0), admin.rows(limit, ROWS)).await?;
    let (newest, newest_hash) = newest.map_or((0, String::new()), |entry| (entry.number, entry.hash));
    Ok(Json(RecordPage { entries, newest, newest_hash }))
}

/// The flips in the store as they are, the oldest first, to be held against the record.
pub(super) async fn flips(admin: Admin, QueryParams(query): QueryParams<RecordQuery>) -> JsonResult<Vec<Value>> {
    let RecordQuery { after, limit } = query;
    let flips = admin.parts.store.flips_after(after.unwrap_or(0), admin.rows(limit, ROWS)).await?;
    Ok(Json(flips.iter().map(|flip| serde_json::to_value(flip).unwrap_or_default()).collect()))
}

//! The captures of a route.

use axum::Json;
use serde::Deserialize;

use super::error::ApiError;
use super::extract::{PathParams, QueryParams};
use super::route_lookup::find;
use super::state::{Admin, JsonResult};
use super::types::CapturePage;
use crate::names::RouteId;
use crate::store::StoreError;

#[derive(Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CapturesQuery {
    /// Only captures with a position above this one.
    after: Option<u64>,
}

/// How many captures a page has: together at most 5 MiB.
const ROWS: usize = 20;

pub(super) async fn captures(
    admin: Admin,
    PathParams(id): PathParams<String>,
    QueryParams(query): QueryParams<CapturesQuery>,
) -> JsonResult<CapturePage> {
    let parts = &admin.parts;
    let ids: Vec<RouteId> = find(&parts.ladder.flags(), &id)?.route.ids().cloned().collect();
    // Captures are written in the background; flushed here, so that the newest are returned too.
    if let Err(error) = parts.captures.flush().await {
        tracing::warn!(%error, "the newest captures could not be written to the store and are not returned");
    }
    let page = parts.captures.page(&ids, query.after.unwrap_or(0), ROWS).await?;
    let next = page.last().map(|(position, _)| *position);
    let parse = |(position, capture): (u64, crate::store::CaptureRecord)| {
        serde_json::from_slice(&capture.body)
            .map_err(|error| ApiError::from(StoreError(format!("the capture at {position} cannot be read: {error}"))))
    };
    Ok(Json(CapturePage { captures: page.into_iter().map(parse).collect::<Result<_, _>>()?, next }))
}

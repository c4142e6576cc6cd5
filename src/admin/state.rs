//! The state that every handler receives: the parts of the API, access control, and texts that are computed once.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use serde_json::Value;

use super::access::AccessControl;
use super::error::ApiError;
use super::events::ChangeFeed;
use super::parts::AdminParts;
use super::stream_slots::StreamSlots;

/// How long a response waits for numbers from the store that it can do without.
pub(super) const STORE_WAIT: Duration = Duration::from_millis(500);

/// The state that all handlers share.
pub(super) struct ApiState {
    pub parts: AdminParts,
    pub access: AccessControl,
    /// The document at `/openapi.json`.
    pub openapi: Value,
    /// The text at `/`.
    pub index: String,
    pub stream_slots: StreamSlots,
    /// What has changed lately, for the event stream over all runs and routes.
    pub changes: Arc<ChangeFeed>,
    /// Held during a scrape, so that no other scrape changes the gauges between publishing and rendering them.
    pub scrape: tokio::sync::Mutex<()>,
    /// Held while samples are judged again: that work is bounded for one request at a time.
    pub rejudging: tokio::sync::Mutex<()>,
}

/// The state, as axum hands it to a handler.
pub(super) type Admin = State<Arc<ApiState>>;
/// What a handler returns: JSON or a problem.
pub(super) type JsonResult<T> = Result<axum::Json<T>, ApiError>;

impl ApiState {
    /// The number of rows to return: as requested, else the default, and never more than `api_rows_max`.
    pub fn rows(&self, requested: Option<NonZeroU32>, default: usize) -> usize {
        let max = usize::try_from(self.parts.limits.api_rows_max).unwrap_or(usize::MAX).max(1);
        let requested = requested.map_or(default, |rows| usize::try_from(rows.get()).unwrap_or(usize::MAX));
        requested.clamp(1, max)
    }
}

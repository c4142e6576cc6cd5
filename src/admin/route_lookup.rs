//! Finds a route by its id, and its status in the ladder.

use std::sync::Arc;

use super::error::ApiError;
use super::state::ApiState;
use super::types::NextRung;
use crate::flag::{FlagSet, RouteFlag};
use crate::ladder::RouteStatus;
use crate::names::RouteId;

/// The route with this id; the error lists the ids that exist.
pub(super) fn find<'a>(set: &'a FlagSet, id: &str) -> Result<&'a Arc<RouteFlag>, ApiError> {
    set.route(&RouteId::from(id))
        .ok_or_else(|| ApiError::unknown("route", id, set.routes.iter().map(|flag| flag.route.id.as_str())))
}

/// The ladder's status of a route.
pub(super) fn ladder_status(state: &ApiState, id: &RouteId) -> Option<RouteStatus> {
    state.parts.ladder.status_of(id)
}

/// The next rung and what it still requires, as the API shows it.
pub(super) fn next_rung(status: &RouteStatus) -> Option<NextRung> {
    status.next.as_ref().map(|next| {
        let (missing, conditions) = (next.missing.clone(), next.conditions.clone());
        NextRung { to: next.to, verdict: next.verdict(), missing, conditions }
    })
}

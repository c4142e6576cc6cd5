//! What the guard of a route did: shown, and released.

use axum::Json;

use super::error::ApiError;
use super::extract::{JsonBody, PathParams};
use super::flips::flip_row;
use super::route_lookup::find;
use super::state::{Admin, ApiState, JsonResult};
use super::types::{GuardReleaseRequest, GuardReleaseResponse, GuardRow};
use crate::flag::{RouteFlag, State};
use crate::ladder::{GuardRelease, GuardReleased, GuardStatus};
use crate::store::GuardAction;

pub(super) async fn release(
    admin: Admin,
    PathParams(id): PathParams<String>,
    JsonBody(request, caller): JsonBody<GuardReleaseRequest>,
) -> JsonResult<GuardReleaseResponse> {
    let GuardReleaseRequest { reason, force, by } = request;
    let by = caller.recorded_name(by.as_deref())?;
    let set = admin.parts.ladder.flags();
    let route = find(&set, &id)?.route.id.clone();
    if reason.trim().is_empty() {
        return Err(ApiError::inconsistent("a release needs a `reason`"));
    }
    let released = admin.parts.ladder.release_guard(route.clone(), GuardRelease { reason, force, by }).await;
    let ids = set.routes.iter().map(|flag| &flag.route.id);
    let GuardReleased { record, effective, still_shut } = released.map_err(|error| ApiError::flip(error, ids))?;
    Ok(Json(GuardReleaseResponse { route, record: flip_row(record), effective, still_shut }))
}

/// What the guard of a route that answers callers does not count, because legacy's own rate is not known.
pub(super) fn not_guarded(state: &ApiState, flag: &RouteFlag) -> Vec<String> {
    if flag.effective.state < State::Live {
        return Vec::new();
    }
    let windows = state.parts.evidence.guard_windows(&flag.route.id).into_iter();
    windows.filter(|window| window.accepted.is_none()).map(|window| window.counted).collect()
}

/// What the guard of a route did, as the API shows it.
pub(super) fn row(status: GuardStatus) -> GuardRow {
    let GuardStatus {
        action,
        limit,
        condition,
        bad,
        of,
        runs,
        at,
        reason,
        is_recorded,
        release,
        clean_pairs,
        clean_pairs_wanted,
    } = status;
    GuardRow {
        // Clean evidence has raised the limit to `dark`, and the route is still lowered.
        action: if limit.is_some() { GuardAction::Lowered } else { action },
        limit,
        condition,
        bad,
        of,
        runs: runs.iter().map(ToString::to_string).collect(),
        at,
        reason,
        unrecorded: !is_recorded,
        release,
        clean_pairs,
        clean_pairs_wanted,
    }
}

//! Flips and the kill switch.

use axum::Json;
use axum::http::StatusCode;
use serde::Deserialize;

use super::error::ApiError;
use super::extract::{JsonBody, PathParams, QueryParams};
use super::route_lookup::find;
use super::state::{Admin, JsonResult, STORE_WAIT};
use super::types::{FlipRequest, FlipResponse, FlipRow, FreezeRequest, FreezeResponse};

use crate::flag::{FlagSet, Freeze, Instance, Percent, State};
use crate::ladder::{self, FlipError};
use crate::names::RouteId;
use crate::record::RefusedMove;
use crate::store::{FlipRecord, RunFilter, StoreError, candidate_key, guard_key};
use crate::workflow::RunStatus;

pub(super) async fn flip(
    admin: Admin,
    PathParams(id): PathParams<String>,
    JsonBody(request, caller): JsonBody<FlipRequest>,
) -> Result<(StatusCode, Json<FlipResponse>), ApiError> {
    let FlipRequest { to, percent, reason, force, acknowledge, by } = request;
    let by = caller.recorded_name(by.as_deref())?;
    let set = admin.parts.ladder.flags();
    let route = find(&set, &id)?.route.id.clone();
    let percent = percent.map(Percent::exact).transpose().map_err(|why| ApiError::bad(format!("percent: {why}")))?;
    let asked = to.as_str().to_owned();
    let refused = RefusedMove { candidate: None, to: asked, percent, by: by.clone(), reason: reason.clone() };
    let flip_request = ladder::MoveRequest { to, percent, reason, force, acknowledge, by };
    let flipped = admin.parts.ladder.flip(route.clone(), flip_request).await;
    match &flipped {
        Ok(_) => admin.parts.recorder.move_accepted(&route, false),
        Err(FlipError::GateShut { reasons, .. }) => {
            let evidence = admin.parts.ladder.evidence_now(&route, false);
            admin.parts.recorder.move_refused(&route, refused, reasons, evidence);
        }
        Err(_) => {}
    }
    let ids = set.routes.iter().map(|flag| &flag.route.id);
    let flipped = flipped.map_err(|error| ApiError::flip(error, ids))?;
    let ladder::Flipped { flip, changed, recorded, newest_flip, share_is_pending, effective, horizon, still_required } =
        flipped;
    let shares = admin.parts.ladder.flags().route(&route).map(|flag| flag.shares).or(flip.shares).unwrap_or_default();
    let counted = tokio::time::timeout(STORE_WAIT, open_runs(&admin, &route)).await;
    let counted = counted.unwrap_or_else(|_| Err(StoreError("it does not answer".to_owned())));
    let runs_in_flight = counted.unwrap_or_else(|error| {
        // The flip is in force: a count that cannot be read must not make it look refused.
        tracing::warn!(%error, %route, "the flip is done; its runs in flight cannot be counted and are shown as 0");
        0
    });
    let status = if recorded { StatusCode::OK } else { StatusCode::ACCEPTED };
    // One without a record of its own is in force where the newest one is.
    let number = if flip.number > 0 { flip.number } else { newest_flip };
    let flip = flip_row(flip);
    let unrecorded = flip_note(recorded, share_is_pending).map(str::to_owned);
    let unlisted = unlisted_note(&set, &route).filter(|_| to == State::Only && changed);
    let not_in_force_in = behind(&admin, number, recorded).await;
    let notes: Vec<String> = unrecorded.into_iter().chain(unlisted).chain(behind_note(&not_in_force_in)).collect();
    let note = (!notes.is_empty()).then(|| notes.join("; "));
    let response = FlipResponse {
        flip,
        changed,
        recorded,
        note,
        not_in_force_in,
        effective,
        shares,
        horizon,
        still_required,
        runs_in_flight,
    };
    Ok((status, Json(response)))
}

/// How many runs of a route have not ended; counted up to `api_rows_max`.
async fn open_runs(admin: &Admin, route: &RouteId) -> Result<u64, StoreError> {
    let mut open = 0;
    for id in all_ids(admin, route) {
        let filter = RunFilter {
            statuses: RunStatus::OPEN.to_vec(),
            route: Some(id),
            limit: admin.rows(None, usize::MAX),
            ..RunFilter::default()
        };
        open += admin.parts.store.runs(filter).await?.len() as u64;
    }
    Ok(open)
}

/// The route's present id and its former ids, under which runs and flips were recorded.
fn all_ids(admin: &Admin, route: &RouteId) -> Vec<RouteId> {
    match admin.parts.ladder.flags().route(route) {
        Some(flag) => flag.route.ids().cloned().collect(),
        None => vec![route.clone()],
    }
}

/// The note in the response to a flip down that the store has not recorded.
const UNRECORDED_FLIP: &str = "the store has not recorded the flip, which is in force: pointsman tries again until it has; \
                               if the process ends before that, the route returns to the state in the store";
/// The note in the response to a flip down whose larger share waits for the store.
const PENDING_SHARE: &str = "the flip down itself is in force and recorded, but it is not known yet whether the larger \
                             share is recorded; until it is, the larger share is not in force";
/// The note in the response to a freeze that the store has not recorded.
const UNRECORDED_FREEZE: &str = "the freeze is in force, but the store has not recorded it yet: pointsman tries again \
                                 until it has; if the process stops or is killed before that, the next one \
                                 starts without the freeze, and other processes on the same store do not know of it \
                                 before";

fn flip_note(recorded: bool, share_is_pending: bool) -> Option<&'static str> {
    (!recorded).then_some(if share_is_pending { PENDING_SHARE } else { UNRECORDED_FLIP })
}

/// The note in the response to a flip to `only` of a route whose family has followers and no `alive:`.
fn unlisted_note(set: &FlagSet, route: &RouteId) -> Option<String> {
    let flag = set.route(route)?;
    let creator = match flag.route.instance.as_ref()? {
        Instance::Creates { .. } => flag,
        Instance::Follows { creator, .. } => set.route(creator)?,
    };
    let id = &creator.route.id;
    let has_followers = set.followers(&creator.family).next().is_some();
    (has_followers && creator.route.lifetime.alive.is_none()).then(|| {
        format!(
            "legacy's instances of `{id}` that no request has shown are not known, and in `only` nobody answers for them: \
             `alive:` in `instance:` of `{id}` asks legacy for all (pointsman help ladder)"
        )
    })
}

/// The processes that do not have the flip with this number in force in time: all others, if it is not recorded. The
/// number is 0 if the store has no flip at all.
async fn behind(admin: &Admin, number: u64, recorded: bool) -> Vec<String> {
    match (recorded, number) {
        (true, 0) => Vec::new(),
        (true, number) => (admin.parts.wait_followed)(Some(number)).await,
        (false, _) => (admin.parts.wait_followed)(None).await,
    }
}

fn behind_note(names: &[String]) -> Option<String> {
    (!names.is_empty()).then(|| {
        format!(
            "not in force yet in these processes on the same store: {}. Each follows as soon as the store answers it, or \
             is out when its lease is over (`pointsman processes`)",
            names.join(", ")
        )
    })
}

pub(super) async fn freeze(
    admin: Admin,
    JsonBody(request, caller): JsonBody<FreezeRequest>,
) -> Result<(StatusCode, Json<FreezeResponse>), ApiError> {
    let FreezeRequest { on, effects, reason, by } = request;
    let by = caller.recorded_name(by.as_deref())?;
    let to = match (on, effects) {
        (true, false) => Freeze::Instances,
        (true, true) => Freeze::Effects,
        (false, false) => Freeze::No,
        (false, true) => return Err(ApiError::inconsistent("`effects` needs `on: true`")),
    };
    let ladder::Frozen { flip, recorded } =
        admin.parts.ladder.freeze(to, reason, by).await.map_err(ApiError::freeze)?;
    let freeze = admin.parts.ladder.flags().freeze;
    let runs_in_flight = (admin.parts.process_status)().runs_in_flight;
    let open_runs = match tokio::time::timeout(STORE_WAIT, admin.parts.store.open_runs()).await {
        Ok(Ok(counts)) => Some(counts.into_iter().map(|(_, count)| count).sum()),
        Ok(Err(_)) | Err(_) => None, // the freeze is in force: a count that cannot be read must not make it look refused
    };
    let status = if recorded { StatusCode::OK } else { StatusCode::ACCEPTED };
    let not_in_force_in = behind(&admin, flip.number, recorded).await;
    let unrecorded = (!recorded).then(|| UNRECORDED_FREEZE.to_owned());
    let notes: Vec<String> = unrecorded.into_iter().chain(behind_note(&not_in_force_in)).collect();
    let note = (!notes.is_empty()).then(|| notes.join("; "));
    let flip = flip_row(flip);
    let response = FreezeResponse { freeze, flip, recorded, note, not_in_force_in, runs_in_flight, open_runs };
    Ok((status, Json(response)))
}

#[derive(Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FlipsQuery {
    route: Option<String>,
    limit: Option<std::num::NonZeroU32>,
}

pub(super) async fn flips(admin: Admin, QueryParams(filter): QueryParams<FlipsQuery>) -> JsonResult<Vec<FlipRow>> {
    let FlipsQuery { route, limit } = filter;
    let rows = admin.rows(limit, 100);
    let Some(route) = route else {
        let flips = admin.parts.store.flips(None, rows).await?;
        return Ok(Json(flips.into_iter().map(flip_row).collect()));
    };
    // Flips of a route that was removed from the files remain, so an unknown id is no error.
    let route = RouteId::from(route.as_str());
    let mut flips = Vec::new();
    for id in all_ids(&admin, &route) {
        flips.extend(admin.parts.store.flips(Some(guard_key(&id)), rows).await?);
        flips.extend(admin.parts.store.flips(Some(candidate_key(&id)), rows).await?);
        flips.extend(admin.parts.store.flips(Some(id), rows).await?);
    }
    flips.sort_by_key(|flip| std::cmp::Reverse(flip.number));
    flips.truncate(rows);
    Ok(Json(flips.into_iter().map(flip_row).collect()))
}

/// A flip as the API shows it.
pub(super) fn flip_row(flip: FlipRecord) -> FlipRow {
    let FlipRecord {
        number,
        route,
        from,
        to,
        shares,
        by,
        at,
        reason,
        forced,
        overridden,
        evidence: _,
        gates: _,
        guard,
        candidate,
    } = flip;
    let (mut route, guard) = match guard {
        Some(guard) => (Some(guard.route), Some(guard.action)),
        None => (route, None),
    };
    let candidate = candidate.map(|candidate| {
        route = Some(candidate.route);
        candidate.action
    });
    let forced_now_above = overridden.as_ref().and_then(|overridden| overridden.by_this_move);
    let forced_above = overridden.map(|overridden| overridden.from);
    FlipRow {
        number,
        route,
        from,
        to,
        shares,
        by,
        at,
        reason,
        forced,
        forced_above,
        forced_now_above,
        guard,
        candidate,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_note_of_a_flip_says_what_is_unrecorded() {
        assert_eq!(flip_note(true, false), None);
        assert_eq!(flip_note(false, false), Some(UNRECORDED_FLIP));
        assert_eq!(flip_note(false, true), Some(PENDING_SHARE));
    }

    #[test]
    fn the_note_names_the_processes_where_it_is_not_in_force() {
        assert_eq!(behind_note(&[]), None);
        let note = behind_note(&["process 7 on a".into(), "process 8 on b".into()]).unwrap();
        assert!(note.contains("process 7 on a, process 8 on b."), "{note}");
    }
}

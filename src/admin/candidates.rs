//! The candidate of a route: shown, and put in force.

use axum::Json;
use axum::http::StatusCode;

use super::error::ApiError;
use super::extract::{JsonBody, PathParams};
use super::parts::CandidateMoveError;
use super::route_lookup::{find, ladder_status};
use super::state::{Admin, ApiState, JsonResult};
use super::types::{CandidateRequest, CandidateResponse, CandidateRow, CandidateStage};
use crate::evidence::overall;
use crate::flag::Percent;
use crate::ladder::{CandidateMove, CandidateStatus, RouteStatus};
use crate::record::RefusedMove;
use crate::store::candidate_key;

const TITLE: &str = "The candidate was not moved";

pub(super) async fn move_candidate(
    admin: Admin,
    PathParams(id): PathParams<String>,
    JsonBody(request, caller): JsonBody<CandidateRequest>,
) -> JsonResult<CandidateResponse> {
    let CandidateRequest { to, percent, plan, reason, force, by } = request;
    let by = caller.recorded_name(by.as_deref())?;
    let set = admin.parts.ladder.flags();
    let route = find(&set, &id)?.route.id.clone();
    let share = match (to, percent.map(Percent::exact).transpose()) {
        (_, Err(why)) => return Err(ApiError::inconsistent(format!("`percent`: {why}"))),
        (CandidateStage::Live, Ok(Some(share))) => Some(share),
        (CandidateStage::Live, Ok(None)) => {
            return Err(ApiError::inconsistent("`live` needs `percent`, the share of new requests"));
        }
        (_, Ok(Some(_))) => return Err(ApiError::inconsistent("`percent` goes with `live`")),
        (CandidateStage::Shadow, Ok(None)) => Some(Percent::NONE),
        (CandidateStage::InForce, Ok(None)) => None,
    };
    if force && reason.as_deref().is_none_or(|reason| reason.trim().is_empty()) {
        return Err(ApiError::inconsistent("`force` needs a `reason`"));
    }
    let status = ladder_status(&admin, &route).and_then(|status| status.candidate);
    let Some(CandidateStatus { in_force, candidate, missing, share: before, .. }) = status else {
        let why = format!("`{route}` has no candidate: the plan in force is that of the files, or it is below `live`");
        return Err(refused(why));
    };
    if let Some(plan) = plan.filter(|plan| *plan != candidate.label()) {
        let label = candidate.label();
        let why = format!(
            "the candidate of `{route}` is {label}, and not {plan}: the files were changed since that one was looked at, \
             and nothing was moved"
        );
        let hint = format!(
            "look at it (`pointsman evidence {route} --candidate`), then ask again with `plan` (`--plan {label}`)"
        );
        return Err(refused(why).hint(hint));
    }
    let move_refused = |why: &[String]| {
        let (by, reason) = (by.clone(), reason.clone());
        let asked =
            RefusedMove { candidate: Some(candidate.label()), to: to.as_str().to_owned(), percent: share, by, reason };
        let evidence = admin.parts.ladder.evidence_now(&route, true);
        admin.parts.recorder.move_refused(&route, asked, why, evidence);
    };
    let grows = share.is_none_or(|share| share > before);
    if grows && !missing.is_empty() && !force {
        move_refused(&missing);
        return Err(ApiError::new(StatusCode::CONFLICT, "gate-shut", TITLE, "the gate is shut")
            .reasons(missing)
            .hint("do what each reason says, or pass the gate with `force` and a `reason`"));
    }
    let (asked_by, because) = (by.clone(), reason.clone());
    let plans = candidate.clone();
    let asked = CandidateMove { route: route.clone(), candidate: plans, share, force, reason: because, by: asked_by };
    (admin.parts.move_candidate)(asked).await.map_err(|error| not_moved(error, move_refused))?;
    admin.parts.recorder.move_accepted(&route, true);
    let (before, candidate) = (in_force.label(), candidate.label());
    let in_force = if share.is_some() { before.clone() } else { candidate.clone() };
    let share = share.unwrap_or(Percent::NONE).as_f64();
    Ok(Json(CandidateResponse { route, candidate, in_force, before, share, forced: force }))
}

/// The response to a move that was not made. `note_refusal` records the reasons of a refused one.
fn not_moved(error: CandidateMoveError, note_refusal: impl FnOnce(&[String])) -> ApiError {
    let unavailable = |kind: &str, why: String| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, kind, TITLE, why);
    match error {
        CandidateMoveError::Refused(sentences) => {
            note_refusal(&sentences);
            refused(sentences.join("; "))
        }
        CandidateMoveError::Waits(why) => unavailable("move-waits", why),
        CandidateMoveError::Failed(why) => unavailable("store", why),
    }
}

fn refused(why: String) -> ApiError {
    ApiError::new(StatusCode::CONFLICT, "candidate-refused", TITLE, why)
}

/// The candidate of a route, as the API shows it.
pub(super) fn row(state: &ApiState, status: &RouteStatus) -> Option<CandidateRow> {
    let CandidateStatus { in_force: _, candidate, share, since, conditions, missing } = status.candidate.clone()?;
    let evidence = state.parts.evidence.of(&candidate_key(&status.route));
    Some(CandidateRow {
        plan: candidate.label(),
        stage: if share == Percent::NONE { CandidateStage::Shadow } else { CandidateStage::Live },
        share: share.as_f64(),
        since: since.as_ref().map(|flip| flip.at),
        stopped_by_guard: since.filter(|flip| flip.by == "guard").and_then(|flip| flip.reason),
        pairs: evidence.pairs(),
        mismatched: evidence.mismatched,
        verdict: overall(&conditions),
        missing,
        conditions,
    })
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;

    use super::*;

    #[test]
    fn a_move_that_waits_is_not_recorded_as_refused() {
        let response = |error| {
            let mut noted = 0;
            let status = not_moved(error, |reasons| noted = reasons.len()).into_response().status();
            (status, noted)
        };
        let why = || "files are being put in force".to_owned();
        assert_eq!(response(CandidateMoveError::Waits(why())), (StatusCode::SERVICE_UNAVAILABLE, 0));
        assert_eq!(response(CandidateMoveError::Failed(why())), (StatusCode::SERVICE_UNAVAILABLE, 0));
        assert_eq!(response(CandidateMoveError::Refused(vec![why()])), (StatusCode::CONFLICT, 1));
    }
}

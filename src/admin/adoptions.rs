//! Instances of legacy that the engine adopts.

use axum::Json;
use axum::http::StatusCode;

use super::error::ApiError;
use super::extract::{JsonBody, PathParams};
use super::parts::AdoptionRefused;
use super::route_lookup::find;
use super::state::{Admin, JsonResult};
use super::types::{AdoptRequest, AdoptionDecisionRequest, AdoptionsView};

/// The most ids of one request.
const IDS_MAX: usize = 10_000;

pub(super) async fn show(admin: Admin, PathParams(id): PathParams<String>) -> JsonResult<AdoptionsView> {
    let route = find(&admin.parts.ladder.flags(), &id)?.route.id.clone();
    Ok(Json(admin.parts.adoptions.view(&route).await?))
}

pub(super) async fn adopt(
    admin: Admin,
    PathParams(id): PathParams<String>,
    JsonBody(request, caller): JsonBody<AdoptRequest>,
) -> Result<(StatusCode, Json<AdoptionsView>), ApiError> {
    let AdoptRequest { all, ids, by } = request;
    let by = caller.recorded_name(by.as_deref())?;
    let route = find(&admin.parts.ladder.flags(), &id)?.route.id.clone();
    if all != ids.is_empty() {
        return Err(ApiError::inconsistent("say `all`, or name some `ids`"));
    }
    if ids.len() > IDS_MAX || ids.iter().any(String::is_empty) {
        return Err(ApiError::inconsistent(format!("there are at most {IDS_MAX} `ids`, and none is empty")));
    }
    let instances = (!all).then_some(ids.len());
    admin.parts.adoptions.start(&route, (!all).then_some(ids), by.clone()).await?;
    admin.parts.recorder.adoption_started(&route, instances, &by);
    Ok((StatusCode::ACCEPTED, Json(admin.parts.adoptions.view(&route).await?)))
}

pub(super) async fn decide(
    admin: Admin,
    PathParams(id): PathParams<String>,
    JsonBody(request, caller): JsonBody<AdoptionDecisionRequest>,
) -> JsonResult<AdoptionsView> {
    let AdoptionDecisionRequest { id: instance, owner, reason, by } = request;
    let by = caller.recorded_name(by.as_deref())?;
    let route = find(&admin.parts.ladder.flags(), &id)?.route.id.clone();
    if reason.trim().is_empty() {
        return Err(ApiError::inconsistent("a decision needs a `reason`"));
    }
    admin.parts.adoptions.decide(&route, &instance, owner, by.clone(), reason.clone()).await?;
    admin.parts.recorder.instance_decided(&route, &instance, owner, &by, &reason);
    Ok(Json(admin.parts.adoptions.view(&route).await?))
}

impl From<AdoptionRefused> for ApiError {
    fn from(refused: AdoptionRefused) -> Self {
        match refused {
            AdoptionRefused::Refused(why) => {
                Self::new(StatusCode::CONFLICT, "adoption-refused", "Nothing was moved", why)
            }
            AdoptionRefused::Store(error) => error.into(),
        }
    }
}

//! Rules that are not in force: what they would make of the samples that are kept.

use axum::Json;
use http::StatusCode;

use super::error::ApiError;
use super::extract::{JsonBody, PathParams};
use super::rejudged;
use super::reload::file_problems;
use super::samples::SamplesOfRoute;
use super::state::{Admin, ApiState, JsonResult};
use super::types::{TriedRules, TryRules};
use crate::config::{CheckedRules, Finding, RouteRules};
use crate::names::RouteId;

/// Judges the samples again under the rules of the request.
pub(super) async fn try_rules(
    admin: Admin,
    PathParams(id): PathParams<String>,
    JsonBody(TryRules { rules }, _): JsonBody<TryRules>,
) -> JsonResult<TriedRules> {
    let of_route = SamplesOfRoute::load(&admin, &id).await?;
    let in_force = rules_of(&admin, &of_route.route)?;
    let CheckedRules { rules, warnings } = in_force.check(RULES_NAME, &rules).map_err(|findings| {
        let lines = findings.0.iter().map(Finding::one_line).collect();
        let title = "The rules are not valid";
        let detail = format!("{}; nothing was judged", findings.summary());
        ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "rules-refused", title, detail)
            .reasons(lines)
            .problems(file_problems(&findings))
    })?;
    let limits = admin.parts.limits.clone();
    let _one_at_a_time = admin.rejudging.lock().await;
    let judge = move || (rejudged::tried(&of_route, &in_force.rules, &rules, &limits), of_route);
    let (groups, of_route) = tokio::task::spawn_blocking(judge).await.map_err(|_| not_judged())?;
    let SamplesOfRoute { route, evidence, .. } = of_route;
    let (samples, warnings) = (rejudged::total(&groups), file_problems(&warnings));
    Ok(Json(TriedRules { route, pairs: evidence.pairs(), mismatched: evidence.mismatched, samples, groups, warnings }))
}

/// What the rules of a request are called in what is wrong with them.
const RULES_NAME: &str = "rules";

fn not_judged() -> ApiError {
    let title = "The samples were not judged";
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "not-judged", title, "a comparison failed; nothing was changed")
}

/// The rules of a route that is in the flag set.
fn rules_of(admin: &ApiState, route: &RouteId) -> Result<RouteRules, ApiError> {
    (admin.parts.rules)(route).ok_or_else(|| {
        let detail = format!("the files are being replaced: the rules of `{route}` are not known now");
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "files-changing", "The rules are not known", detail)
    })
}

//! Rules that are not in force: what they would make of the samples that are kept.

use axum::Json;
use http::StatusCode;

use super::error::ApiError;
use super::extract::{JsonBody, PathParams, QueryParams};
use super::rejudged;
use super::reload::file_problems;
use super::samples::{CandidateQuery, SamplesOfRoute};
use super::state::{Admin, ApiState, JsonResult};
use super::types::{
    HiddenPlace, StricterRuleRow, SuggestedRuleRow, SuggestedRules, TriedRules, TryRules, UnexplainedPlace,
};
use crate::compare::{Difference, HiddenValues, StricterRule, SuggestedRule, Unexplained};
use crate::config::{CheckedRules, Finding, RouteRules, rules_yaml};
use crate::names::RouteId;

/// Judges the samples again under the rules of the request.
pub(super) async fn try_rules(
    admin: Admin,
    PathParams(id): PathParams<String>,
    QueryParams(filter): QueryParams<CandidateQuery>,
    JsonBody(TryRules { rules }, _): JsonBody<TryRules>,
) -> JsonResult<TriedRules> {
    let of_route = SamplesOfRoute::load(&admin, &id, filter.candidate).await?;
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

/// Proposes rules that explain the samples, and judges the samples again under the text that it returns.
pub(super) async fn suggest(
    admin: Admin,
    PathParams(id): PathParams<String>,
    QueryParams(filter): QueryParams<CandidateQuery>,
) -> JsonResult<SuggestedRules> {
    let of_route = SamplesOfRoute::load(&admin, &id, filter.candidate).await?;
    let in_force = rules_of(&admin, &of_route.route)?;
    let limits = admin.parts.limits.clone();
    let _one_at_a_time = admin.rejudging.lock().await;
    let judge = move || {
        let found = rejudged::suggested(&of_route, &in_force, &limits);
        let text = rules_yaml(&found.rules);
        let CheckedRules { rules, .. } = in_force.check(RULES_NAME, &text).ok()?;
        let samples = rejudged::total(&rejudged::tried(&of_route, &in_force.rules, &rules, &limits));
        Some((of_route, found, text, samples))
    };
    let judged = tokio::task::spawn_blocking(judge).await.map_err(|_| not_judged())?;
    let (SamplesOfRoute { route, evidence, .. }, found, rules, samples) = judged.ok_or_else(not_judged)?;
    Ok(Json(SuggestedRules {
        route,
        pairs: evidence.pairs(),
        mismatched: evidence.mismatched,
        rules,
        added: found.added.into_iter().map(suggested_rule).collect(),
        stricter_rules: if found.stricter.is_empty() { String::new() } else { rules_yaml(&found.stricter_rules) },
        stricter: found.stricter.into_iter().map(stricter_rule).collect(),
        unexplained: found.unexplained.into_iter().map(unexplained).collect(),
        samples,
    }))
}

fn suggested_rule(SuggestedRule { rule, hides, samples, pairs, warning }: SuggestedRule) -> SuggestedRuleRow {
    let hidden = |HiddenValues { path, examples }: HiddenValues| HiddenPlace {
        path,
        examples: examples.into_iter().map(cut).collect(),
    };
    let hides = hides.into_iter().map(hidden).collect();
    SuggestedRuleRow { rule: rules_yaml(&rule), hides, samples, pairs, warning: warning.map(str::to_owned) }
}

fn stricter_rule(StricterRule { compares, samples }: StricterRule) -> StricterRuleRow {
    StricterRuleRow { compares, samples }
}

fn unexplained(place: Unexplained) -> UnexplainedPlace {
    let Unexplained { path, kind, samples, pairs, why, example } = place;
    UnexplainedPlace { path, kind, samples, pairs, why, example: example.map(cut) }
}

/// Cuts long values. They need no masking, because what is kept of a pair has nothing secret in it.
fn cut(mut difference: Difference) -> Difference {
    difference.mask_and_cut(str::to_owned);
    difference
}

/// The name of the request's rules in the messages about their errors.
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

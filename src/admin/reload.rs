//! Reads the files again on request.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use http::StatusCode;
use tokio::time::timeout;

use super::error::ApiError;
use super::extract::JsonBody;
use super::flips::flip_row;
use super::parts::Reloaded;
use super::state::{Admin, ApiState, JsonResult};
use super::types::{
    CandidateOfRoute, ChangedRoute, FileProblem, LimitedRoute, MovedRoute, ReloadRequest, ReloadResponse,
    RestartedRoute,
};
use crate::config::{Finding, Findings};
use crate::evidence::EvidenceRestart;
use crate::flag::FlagSet;
use crate::ladder::RouteStatus;
use crate::limits::Limits;
use crate::names::RouteId;
use crate::problem::Severity;
use crate::store::FlipRecord;

const TITLE: &str = "The files are not in force";

/// Requests that the files are read, and waits up to `move_answer_ms` for the outcome of that reading.
pub(super) async fn reload(
    admin: Admin,
    JsonBody(request, caller): JsonBody<ReloadRequest>,
) -> JsonResult<ReloadResponse> {
    let by = caller.recorded_name(request.by.as_deref())?;
    tracing::info!(by, "the flag files are read again, as requested");
    let wait_ms = admin.parts.limits.move_answer_ms;
    let before = Before { flags: admin.parts.ladder.flags(), restarts: restarts(&admin) };
    match timeout(Limits::ms(wait_ms), (admin.parts.reload)()).await {
        Ok(Ok(reloaded)) => answer(&admin, &before, reloaded),
        Ok(Err(_)) => {
            let detail = "the process is stopping and no longer reads its files; nothing was changed";
            Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", TITLE, detail))
        }
        Err(_) => {
            let title = "It is not known yet whether the files are in force";
            let detail = format!(
                "the files were not read, or the store did not record what they declare, within {wait_ms} ms \
                 (move_answer_ms); once the store answers they come into force as a whole or not at all"
            );
            Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "outcome-unknown", title, detail)
                .hint("`pointsman status` shows the age of the files in force, and what is wrong with the newest ones"))
        }
    }
}

/// The state before the files were read.
struct Before {
    flags: Arc<FlagSet>,
    restarts: BTreeMap<RouteId, EvidenceRestart>,
}

/// The last restart of each route's evidence.
fn restarts(admin: &ApiState) -> BTreeMap<RouteId, EvidenceRestart> {
    let ids = admin.parts.ladder.flags().routes.iter().map(|flag| flag.route.id.clone()).collect::<Vec<_>>();
    ids.into_iter().filter_map(|id| Some((id.clone(), admin.parts.evidence.of(&id).restarted?))).collect()
}

fn restarted_routes(admin: &ApiState, before: &Before) -> Vec<RestartedRoute> {
    let new = restarts(admin).into_iter().filter(|(route, restart)| before.restarts.get(route) != Some(restart));
    new.map(|(route, restart)| RestartedRoute { route, restart }).collect()
}

fn answer(admin: &ApiState, before: &Before, reloaded: Reloaded) -> JsonResult<ReloadResponse> {
    let refused = |detail: &str, reasons: Vec<String>| {
        ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "files-refused", TITLE, detail).reasons(reasons)
    };
    match reloaded {
        Reloaded::InForce { changed, since, flips, warnings, needs_restart } => Ok(Json(ReloadResponse {
            changed,
            in_force_s: since.elapsed().as_secs_f64(),
            generation: admin.parts.ladder.flags().set_number,
            moved: moved_routes(&before.flags, &admin.parts.ladder.flags(), &flips),
            flips: flips.into_iter().map(flip_row).collect(),
            changed_since_evidence: admin.parts.ladder.status().into_iter().filter_map(changed_route).collect(),
            limited: admin.parts.ladder.status().into_iter().filter_map(limited_route).collect(),
            candidates: admin.parts.ladder.status().into_iter().filter_map(candidate_of).collect(),
            evidence_restarted: restarted_routes(admin, before),
            warnings: file_problems(&warnings),
            needs_restart: needs_restart.into_iter().map(str::to_owned).collect(),
        })),
        Reloaded::Refused(failed) => {
            // What refuses the files comes first.
            let of = |is_error| move |finding: &&Finding| (finding.severity == Severity::Error) == is_error;
            let all = &failed.findings.0;
            let in_order = all.iter().filter(of(true)).chain(all.iter().filter(of(false)));
            let lines = in_order.map(Finding::one_line).collect();
            let detail = format!("{}; the last good set stays in force", failed.findings.summary());
            Err(refused(&detail, lines).problems(file_problems(&failed.findings)))
        }
        Reloaded::RefusedByLadder(sentences) => {
            let detail = "the files are valid, but cannot be put in force now; the last good set stays in force";
            Err(refused(detail, sentences))
        }
        Reloaded::NotRecorded(why) => Err(tried_again("store", &why)),
        Reloaded::Waits(why) => Err(tried_again("move-waits", &why)),
    }
}

/// 503: the files are not in force yet.
fn tried_again(kind: &str, why: &str) -> ApiError {
    let detail = format!("{why}; the last good set stays in force, and the files are tried again");
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, kind, TITLE, detail)
}

/// The routes of both sets whose state has changed, except those that `flips` moved.
fn moved_routes(before: &FlagSet, after: &FlagSet, flips: &[FlipRecord]) -> Vec<MovedRoute> {
    let is_flipped = |id: &RouteId| flips.iter().any(|flip| flip.route.as_ref() == Some(id));
    let moved = after.routes.iter().filter_map(|flag| {
        let (id, from) = (&flag.route.id, before.route(&flag.route.id)?.effective.state);
        let is_moved = from != flag.effective.state && !is_flipped(id);
        is_moved.then(|| MovedRoute { route: id.clone(), from, effective: flag.effective })
    });
    moved.collect()
}

fn limited_route(status: RouteStatus) -> Option<LimitedRoute> {
    let RouteStatus { route, declared, effective, refused, .. } = status;
    (!refused.is_empty()).then_some(LimitedRoute { route, declared, state: effective.state, reasons: refused })
}

fn candidate_of(RouteStatus { route, candidate, .. }: RouteStatus) -> Option<CandidateOfRoute> {
    Some(CandidateOfRoute { route, percent: candidate?.share.as_f64() })
}

fn changed_route(RouteStatus { route, changed, .. }: RouteStatus) -> Option<ChangedRoute> {
    Some(ChangedRoute { route, reason: changed? })
}

pub(super) fn file_problems(findings: &Findings) -> Vec<FileProblem> {
    let problem = |finding: &Finding| FileProblem {
        severity: match finding.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        }
        .to_owned(),
        file: finding.file.clone(),
        line: finding.line,
        column: finding.column,
        message: finding.message.clone(),
        hint: finding.hint.clone(),
    };
    findings.0.iter().map(problem).collect()
}

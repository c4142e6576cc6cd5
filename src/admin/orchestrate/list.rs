//! Lists runs, newest first, by page.

use axum::Json;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Deserialize;

use super::load::{parse_job_id, parse_run_id};
use crate::admin::error::ApiError;
use crate::admin::extract::QueryParams;
use crate::admin::state::{Admin, JsonResult};
use crate::admin::types::{CheckpointRow, RunList, RunRow};
use crate::names::{JobId, RouteId};
use crate::store::RunFilter;
use crate::workflow::{Mode, RunStatus, RunSummary};

/// Which runs to list, newest first.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct ListQuery {
    /// Only of this status, or of these, separated by commas; `open` means every status of a run that has not ended.
    #[schemars(regex(
        pattern = r"^(open|queued|running|waiting_checkpoint|waiting_signal|paused|compensating|completed|failed|cancelled|abandoned)(,(open|queued|running|waiting_checkpoint|waiting_signal|paused|compensating|completed|failed|cancelled|abandoned))*$"
    ))]
    status: Option<String>,
    /// Only of this workflow.
    workflow: Option<String>,
    /// Only of this route.
    route: Option<String>,
    /// Only of this mode.
    #[schemars(regex(pattern = r"^(real|dark)$"))]
    mode: Option<String>,
    /// Only runs of this job.
    #[schemars(regex(pattern = r"^job_[0-9a-f]{32}$"))]
    job: Option<String>,
    /// Only runs that this run started as steps.
    #[schemars(regex(pattern = r"^run_[0-9a-f]{32}$"))]
    parent: Option<String>,
    /// Only runs started at or after this time (RFC 3339).
    since: Option<Timestamp>,
    /// Only runs before this one, for the next page.
    #[schemars(regex(pattern = r"^run_[0-9a-f]{32}$"))]
    before: Option<String>,
    /// How many to return at most; 50 by default.
    limit: Option<std::num::NonZeroU32>,
}

pub(in crate::admin) async fn list(admin: Admin, QueryParams(filter): QueryParams<ListQuery>) -> JsonResult<RunList> {
    let ListQuery { status, workflow, route, mode, job, parent, since, before, limit } = filter;
    let limit = admin.rows(limit, 50);
    let filter = RunFilter {
        statuses: parse_statuses(status.as_deref())?,
        workflow,
        route: route.as_deref().map(RouteId::from),
        mode: mode.as_deref().map(parse_mode).transpose()?,
        job: job.as_deref().map(parse_job_id).transpose()?,
        parent: parent.as_deref().map(parse_run_id).transpose()?,
        before: before.as_deref().map(parse_run_id).transpose()?,
        // One run more than requested shows whether there is another page.
        limit: limit.saturating_add(1),
    };
    let mut runs = admin.parts.store.runs(filter).await?;
    let mut has_more = runs.len() > limit;
    runs.truncate(limit);
    if let Some(since) = since {
        // Run ids sort by start time: after the first run that is too old, all are too old.
        let recent = runs.iter().take_while(|run| run.started >= since).count();
        has_more &= recent == runs.len();
        runs.truncate(recent);
    }
    let next = runs.last().filter(|_| has_more).map(|run| run.run_id.to_string());
    let row = |run: RunSummary| {
        let trouble = admin.parts.engine.why_stuck(run.run_id).filter(|_| !run.status.is_final());
        run_row(run, trouble.map(|why| why.to_string()))
    };
    Ok(Json(RunList { runs: runs.into_iter().map(row).collect(), next }))
}

fn run_row(run: RunSummary, trouble: Option<String>) -> RunRow {
    let RunSummary {
        run_id,
        workflow,
        plan_id,
        route,
        mode,
        status,
        seq: _,
        started,
        updated,
        note,
        job,
        parent,
        wake,
        checkpoint,
    } = run;
    RunRow {
        run_id: run_id.to_string(),
        job_id: job.unwrap_or(JobId(run_id.0)).to_string(),
        workflow,
        plan_id,
        route,
        parent: parent.map(|parent| parent.to_string()),
        mode,
        status,
        checkpoint: checkpoint.map(|(id, risk)| CheckpointRow { id: id.to_string(), risk }),
        started,
        updated,
        wake,
        note,
        trouble,
    }
}

fn parse_mode(text: &str) -> Result<Mode, ApiError> {
    let modes = [Mode::Real, Mode::Dark];
    modes.into_iter().find(|mode| mode.as_str() == text).ok_or_else(|| {
        ApiError::bad(format!("mode: `{text}` is not one of real, dark (rehearsed runs are not stored)"))
    })
}

fn parse_statuses(text: Option<&str>) -> Result<Vec<RunStatus>, ApiError> {
    let mut statuses = Vec::new();
    for name in text.into_iter().flat_map(|text| text.split(',')) {
        if name == "open" {
            statuses.extend(RunStatus::OPEN);
            continue;
        }
        let known = RunStatus::OPEN.into_iter().chain(RunStatus::ENDED);
        let status = known.clone().find(|status| status.as_str() == name).ok_or_else(|| {
            let names: Vec<&str> = known.map(RunStatus::as_str).collect();
            ApiError::bad(format!("status: `{name}` is not one of open, {}", names.join(", ")))
        })?;
        statuses.push(status);
    }
    Ok(statuses)
}

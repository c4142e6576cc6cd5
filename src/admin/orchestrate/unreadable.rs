//! Shows a run whose events cannot be read: the fields of its row in the store, and why the events cannot be read.
//!
//! Always true: a run that the store lists is shown, unless its events were purged (410). When the store does not
//! answer, the response is 503. Once a start or a command is on disk, however, the response says so even if nothing can
//! be read afterwards: a client that was told 503 would repeat the request.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::Value;

use super::envelope::{envelope, links};
use super::load::RunForDisplay;
use crate::admin::error::ApiError;
use crate::admin::state::ApiState;
use crate::admin::types::{
    AuditReceipt, AuthMode, Delivery, Durability, JobKind, JobObject, JobPart, Orchestration, OrchestrationObject,
    ReceiptObject, ReceiptSource, RunData, RunObject, RunPart,
};
use crate::engine::Started;
use crate::names::{JobId, RunId};
use crate::workflow::RunSummary;

/// The envelope of a run; if its events cannot be read, an envelope with only what its row in the store has.
pub(super) async fn envelope_or_row(
    state: &ApiState,
    run: RunId,
    delivery: Delivery,
) -> Result<Orchestration, ApiError> {
    let unread = match RunForDisplay::load(state, run).await {
        Ok(loaded) => return Ok(envelope(state, &loaded, delivery)),
        // The run does not exist, or was purged.
        Err(error) if error.0.status < 500 => return Err(error),
        Err(error) => error,
    };
    match state.parts.store.run(run).await? {
        Some(row) => Ok(of_row(row, format!("its events cannot be read: {}", unread.0.detail), delivery)),
        None => Err(unread),
    }
}

/// The envelope of a run after a command that is on disk. `row` is the run as the engine returned it.
pub(super) async fn envelope_after_command(state: &ApiState, row: RunSummary, delivery: Delivery) -> Orchestration {
    match RunForDisplay::load(state, row.run_id).await {
        Ok(loaded) => envelope(state, &loaded, delivery),
        Err(error) => of_row(row, format!("its events cannot be read: {}", error.0.detail), delivery),
    }
}

/// The response to a start that is on disk, if the run could not be read for the response; `error` itself if it says
/// that the run is gone.
pub(super) fn response_to_start(started: &Started, error: ApiError) -> Result<Response, ApiError> {
    // A run that an earlier start began may have been purged since.
    if error.0.status < 500 {
        return Err(error);
    }
    let trouble = format!("it was started, but its events cannot be read: {}", error.0.detail);
    let shown = of_row((*started.summary).clone(), trouble, Delivery::Sync);
    Ok((StatusCode::ACCEPTED, Json(shown)).into_response())
}

fn of_row(row: RunSummary, trouble: String, delivery: Delivery) -> Orchestration {
    let RunSummary { run_id, workflow, plan_id, route, mode, status, seq, started, updated, note, .. } = row;
    let (run, job) = (run_id.to_string(), row.job.unwrap_or(JobId(run_id.0)).to_string());
    let (auth_mode, source) = match (&row.parent, &route) {
        (Some(parent), _) => (AuthMode::Run, parent.to_string()),
        (None, Some(route)) => (AuthMode::Route, route.to_string()),
        // Unknown: only the run's first event says who started the run, and events cannot be read.
        (None, None) => (AuthMode::Loopback, String::new()),
    };
    Orchestration {
        object: OrchestrationObject::Orchestration,
        data: RunData {
            job_id: job.clone(),
            run_id: run.clone(),
            plan_id: plan_id.clone(),
            status,
            job: JobPart {
                object: JobObject::Job,
                id: job.clone(),
                kind: JobKind::Orchestration,
                status,
                mode: delivery,
                durability: Durability::Persisted,
                run_id: run.clone(),
            },
            run: RunPart {
                object: RunObject::Run,
                id: run,
                job_id: job,
                status,
                mode,
                plan_id,
                workflow,
                route,
                parent: row.parent.map(|parent| parent.to_string()),
                rerun_of: None,
                started_by: None,
                started,
                updated,
                seq: seq.0,
                note,
            },
            steps: Vec::new(),
            pending_checkpoint: None,
            checkpoints: Vec::new(),
            conflicts: Vec::new(),
            output: Value::Null,
            undone: Vec::new(),
            error: None,
            waits: Vec::new(),
            trouble: Some(trouble),
            audit_receipt: AuditReceipt {
                object: ReceiptObject::AuditReceipt,
                request_id: format!("req_{}", run_id.0.simple()),
                auth_mode,
                source: ReceiptSource { method: String::new(), route: source },
            },
            links: links(run_id),
        },
    }
}

//! Sends commands, answers to checkpoints and signals to a run.
//!
//! Always true: an accepted command is on disk before the response is sent, and the response shows the run after the
//! command; a refusal names the run's status and the reason.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};

use super::envelope::{RUN_PATH, envelope};
use super::idempotency_key::{KEY_RULE_TEXT, is_valid};
use super::load::{self, RunForDisplay, parse_run_id, resolve_id};
use super::unreadable;
use crate::admin::caller::ApiCaller;
use crate::admin::error::ApiError;
use crate::admin::extract::{JsonBody, PathParams};
use crate::admin::state::{Admin, JsonResult};
use crate::admin::types::{
    AdjustRequest, AnswerRequest, CancelRequest, ChoiceName, Delivery, Orchestration, PauseRequest, RerunRequest,
    ResolveRequest, RetryRequest, SignalRequest, SkipRequest,
};

use crate::flag::Freeze;
use crate::names::{CheckpointId, RunId, StepId};
use crate::workflow::{CheckpointAnswer, Choice, ControlCommand};

/// How long an error response waits for the checkpoint's first answer to be on disk, in order to show its time.
const FIRST_ANSWER_WAIT_MAX: Duration = Duration::from_secs(2);

/// Sends the run a command and returns the run after the command.
async fn send_command(
    admin: &Admin,
    id: &str,
    caller: &ApiCaller,
    by: Option<&str>,
    command: ControlCommand,
) -> JsonResult<Orchestration> {
    let by = caller.recorded_name(by)?;
    let run = resolve_id(admin, id).await?;
    let step = match &command {
        ControlCommand::Skip { step, .. }
        | ControlCommand::Adjust { step, .. }
        | ControlCommand::Resolve { step, .. } => Some(step.clone()),
        ControlCommand::Retry { step, .. } => step.clone(),
        ControlCommand::Pause { .. }
        | ControlCommand::Resume { .. }
        | ControlCommand::Cancel { .. }
        | ControlCommand::Answer { .. }
        | ControlCommand::HandOver { .. }
        | ControlCommand::Signal { .. } => None,
    };
    match admin.parts.engine.give_command(run, command, by).await {
        Ok(row) => Ok(Json(unreadable::envelope_after_command(admin, row, Delivery::Sync).await)),
        Err(error) => {
            Err(with_run_details(admin, run, step.as_ref(), ApiError::command_failed(error, &run.to_string())).await)
        }
    }
}

/// Adds to an error what a person needs to know of the run: the steps that exist, or when the first answer was given.
async fn with_run_details(admin: &Admin, run: RunId, step: Option<&StepId>, mut error: ApiError) -> ApiError {
    if error.0.kind.ends_with(":unknown-step")
        && let (Some(step), Ok(loaded)) = (step, RunForDisplay::load(admin, run).await)
    {
        let known = loaded.planned_steps().chain(loaded.view.steps.iter().map(|step| step.step.as_str()));
        let known: std::collections::BTreeSet<&str> = known.collect();
        error = ApiError::unknown("step", step.as_str(), known.into_iter());
        // Not 404: the path names a run that exists; the body names a step that does not.
        error.0.status = StatusCode::UNPROCESSABLE_ENTITY.as_u16();
        error.0.run_id = Some(run.to_string());
        error.0.run_status = Some(loaded.view.status);
    }
    if let Some(first) = &mut error.0.first {
        // The first answer may not be written to the store yet.
        let before = crate::names::Seq(first.seq.saturating_sub(1));
        admin.parts.engine.wait_for_events_after(run, before, FIRST_ANSWER_WAIT_MAX).await;
    }
    if let Some(first) = &mut error.0.first
        && let Ok(events) = admin.parts.store.events(run, crate::names::Seq(first.seq)).await
    {
        first.at = events.first().map(|stored| stored.at);
    }
    error
}

pub(in crate::admin) async fn pause(
    admin: Admin,
    PathParams(id): PathParams<String>,
    JsonBody(request, caller): JsonBody<PauseRequest>,
) -> JsonResult<Orchestration> {
    let PauseRequest { reason, by } = request;
    send_command(&admin, &id, &caller, by.as_deref(), ControlCommand::Pause { reason }).await
}

pub(in crate::admin) async fn resume(
    admin: Admin,
    PathParams(id): PathParams<String>,
    JsonBody(request, caller): JsonBody<PauseRequest>,
) -> JsonResult<Orchestration> {
    let PauseRequest { reason, by } = request;
    send_command(&admin, &id, &caller, by.as_deref(), ControlCommand::Resume { reason }).await
}

/// Cancels a run. If the kill switch delays the undoing of its effects, the response is 202 and lists what waits.
pub(in crate::admin) async fn cancel(
    admin: Admin,
    PathParams(id): PathParams<String>,
    JsonBody(request, caller): JsonBody<CancelRequest>,
) -> Result<Response, ApiError> {
    let CancelRequest { compensate, reason, by } = request;
    let command = ControlCommand::Cancel { compensate, reason, automatic: false };
    let Json(mut shown) = send_command(&admin, &id, &caller, by.as_deref(), command).await?;
    let is_frozen = admin.parts.ladder.flags().freeze == Freeze::Effects;
    if shown.data.status.is_final() || !is_frozen {
        return Ok(Json(shown).into_response());
    }
    let run = parse_run_id(&shown.data.run_id)?;
    // The cancel is on disk already, so a failure to explain the run is no error: the client can ask `explain` later.
    shown.data.waits = admin.parts.engine.explain(run).await.map(|known| known.waits).unwrap_or_default();
    Ok((StatusCode::ACCEPTED, Json(shown)).into_response())
}

pub(in crate::admin) async fn skip(
    admin: Admin,
    PathParams(id): PathParams<String>,
    JsonBody(request, caller): JsonBody<SkipRequest>,
) -> JsonResult<Orchestration> {
    let SkipRequest { step, reason, by } = request;
    send_command(&admin, &id, &caller, by.as_deref(), ControlCommand::Skip { step: step.as_str().into(), reason }).await
}

pub(in crate::admin) async fn adjust(
    admin: Admin,
    PathParams(id): PathParams<String>,
    JsonBody(request, caller): JsonBody<AdjustRequest>,
) -> JsonResult<Orchestration> {
    let AdjustRequest { step, item, input, reason, by } = request;
    let command = ControlCommand::Adjust { step: step.as_str().into(), item, input: Arc::new(input), reason };
    send_command(&admin, &id, &caller, by.as_deref(), command).await
}

pub(in crate::admin) async fn retry(
    admin: Admin,
    PathParams(id): PathParams<String>,
    JsonBody(request, caller): JsonBody<RetryRequest>,
) -> JsonResult<Orchestration> {
    let RetryRequest { step, attempt, by } = request;
    if attempt.is_some() && step.is_none() {
        return Err(ApiError::inconsistent("`attempt` needs `step`"));
    }
    let command = ControlCommand::Retry { step: step.as_deref().map(StepId::from), attempt };
    send_command(&admin, &id, &caller, by.as_deref(), command).await
}

pub(in crate::admin) async fn resolve(
    admin: Admin,
    PathParams(id): PathParams<String>,
    JsonBody(request, caller): JsonBody<ResolveRequest>,
) -> JsonResult<Orchestration> {
    let ResolveRequest { step, item, attempt, choice, input, output, compensate, reason, by } = request;
    let choice = match (choice, input, output, compensate) {
        (ChoiceName::RetryWith, Some(input), None, None) => Choice::RetryWith { input: Arc::new(input) },
        (ChoiceName::Take, None, Some(output), None) => Choice::Take { output: Arc::new(output) },
        (ChoiceName::Cancel, None, None, compensate) => Choice::Cancel { compensate: compensate.unwrap_or(true) },
        (ChoiceName::CancelWithoutUndo, None, None, None | Some(false)) => Choice::Cancel { compensate: false },
        (ChoiceName::Retry, None, None, None) => Choice::Retry,
        (ChoiceName::Skip, None, None, None) => Choice::Skip,
        (ChoiceName::Fallback, None, None, None) => Choice::Fallback,
        (ChoiceName::Wait, None, None, None) => Choice::Wait,
        (ChoiceName::RetryWith, None, _, _) => return Err(ApiError::inconsistent("`retry_with` needs `input`")),
        (ChoiceName::Take, _, None, _) => return Err(ApiError::inconsistent("`take` needs `output`")),
        _ => {
            let detail = "`input` is only for `retry_with`, `output` only for `take`, `compensate` only for `cancel`";
            return Err(ApiError::inconsistent(detail));
        }
    };
    let command = ControlCommand::Resolve { step: step.as_str().into(), item, attempt, choice, reason };
    send_command(&admin, &id, &caller, by.as_deref(), command).await
}

pub(in crate::admin) async fn answer(
    admin: Admin,
    PathParams((id, checkpoint)): PathParams<(String, String)>,
    JsonBody(request, caller): JsonBody<AnswerRequest>,
) -> JsonResult<Orchestration> {
    let AnswerRequest { approve, values, approved, struck, note, by } = request;
    let has_content = values.is_some() || !approved.is_empty() || !struck.is_empty();
    let Some(approve) = approve.or(has_content.then_some(true)) else {
        return Err(ApiError::inconsistent("give `approve`, `values`, `approved` or `struck`"));
    };
    let answer = CheckpointAnswer { approve, values: values.map(Arc::new), approved, struck, note };
    let command = ControlCommand::Answer { checkpoint: CheckpointId::from(checkpoint.as_str()), answer };
    send_command(&admin, &id, &caller, by.as_deref(), command).await
}

pub(in crate::admin) async fn signal(
    admin: Admin,
    PathParams((id, name)): PathParams<(String, String)>,
    JsonBody(request, caller): JsonBody<SignalRequest>,
) -> JsonResult<Orchestration> {
    let SignalRequest { payload, id: delivery, by } = request;
    if delivery.as_deref().is_some_and(|id| !is_valid(id)) {
        return Err(ApiError::bad(format!("the signal's id {KEY_RULE_TEXT}")));
    }
    let command = ControlCommand::Signal { name, payload: Arc::new(payload), id: delivery };
    send_command(&admin, &id, &caller, by.as_deref(), command).await
}

/// Starts another run of the same job. The response is 202, since that run has only begun.
pub(in crate::admin) async fn rerun(
    admin: Admin,
    PathParams(id): PathParams<String>,
    JsonBody(request, caller): JsonBody<RerunRequest>,
) -> Result<Response, ApiError> {
    let RerunRequest { from, by } = request;
    let by = caller.recorded_name(by.as_deref())?;
    let run = resolve_id(&admin, &id).await?;
    let step = StepId::from(from.as_str());
    let started = match admin.parts.engine.rerun(run, step.clone(), by).await {
        Ok(started) => started,
        Err(crate::engine::StartError::NoRun) => return Err(ApiError::no_run(&id)),
        Err(error) => {
            if let Some(purged) = load::purged(&admin, run).await {
                return Err(purged);
            }
            let mut error = with_run_details(&admin, run, Some(&step), ApiError::not_started(error)).await;
            if let (None, Ok(loaded)) = (error.0.run_status, RunForDisplay::load(&admin, run).await) {
                error.0.run_id = Some(run.to_string());
                error.0.run_status = Some(loaded.view.status);
            }
            return Err(error);
        }
    };
    let mut response = match RunForDisplay::load(&admin, started.run).await {
        Ok(loaded) => (StatusCode::ACCEPTED, Json(envelope(&admin, &loaded, Delivery::Sync))).into_response(),
        Err(error) => unreadable::response_to_start(&started, error)?,
    };
    if let Ok(location) = HeaderValue::from_str(&format!("{}/{}", RUN_PATH, started.run)) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

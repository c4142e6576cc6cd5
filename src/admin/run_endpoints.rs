//! The endpoints of runs.

use axum::routing::{get, post};
use http::Method;
use serde_json::Value;

use super::content::{Content, Header};
use super::endpoint::{Access, Endpoint};
use super::orchestrate as runs;
use super::types::{
    AdjustRequest, AnswerRequest, CancelRequest, EventRow, ExplanationView, Orchestration, PauseRequest, RerunRequest,
    ResolveRequest, RetryRequest, RunGraph, RunList, SignalRequest, SkipRequest, StartRequest,
};
use crate::config::TokenScope;

const KEY: Header = Header {
    name: "Idempotency-Key",
    about: "The idempotency key of the start: a repetition with the same key returns the same run.",
    pattern: Some("^[!#-~]{1,255}$"),
};
const PREFER: Header = Header {
    name: "Prefer",
    about: "`wait=N`: answer after N seconds at the latest; `respond-async`: answer at once (RFC 7240).",
    // No pattern: an unknown preference is ignored (RFC 7240), not refused.
    pattern: None,
};
const LAST_EVENT_ID: Header = Header {
    name: "Last-Event-ID",
    about: "The sequence number of the last event that the client has: the stream continues after it. A run that has \
            fewer events is streamed from its first. A rerun numbers its events anew.",
    pattern: Some("^[0-9]{1,9}$"),
};

/// The endpoints that start and show runs.
pub(super) fn run_endpoints() -> Vec<Endpoint> {
    let read = |path, handler, id, about| {
        Endpoint::new(Method::GET, path, Access::Scope(TokenScope::Read), handler, id, about).for_applications()
    };
    let start = |path, access, handler, id, about| {
        Endpoint::new(Method::POST, path, access, handler, id, about)
            .body::<StartRequest>()
            .returns::<Orchestration>()
            .responds(202, Content::Json(|generator| generator.subschema_for::<Orchestration>()))
            .responds(200, Content::EventStream)
            .responds(204, Content::Empty)
            .header(KEY)
            .header(PREFER)
            .header(LAST_EVENT_ID)
            .errors(&[404, 422, 429, 501])
            .links_to_run()
            .for_applications()
    };
    vec![
        start(
            "/api/v2/orchestrate/run",
            Access::Scope(TokenScope::Run),
            post(runs::start),
            "startRun",
            "Run a workflow: {\"workflow\": \"...\", \"input\": ...}",
        ),
        start(
            "/api/maestro/produce",
            Access::DeprecatedStart,
            post(runs::produce),
            "produce",
            "Run a workflow (deprecated)",
        ),
        read("/api/v2/orchestrate/runs", get(runs::list), "runs", "Runs, newest first")
            .query::<runs::ListQuery>()
            .returns::<RunList>(),
        read("/api/v2/orchestrate/run/{id}", get(runs::show), "run", "One run, or the newest of a job")
            .returns::<Orchestration>()
            .errors(&[404, 410, 500]),
        read(
            "/api/v2/orchestrate/run/{id}/stream",
            get(runs::stream),
            "streamRun",
            "The events of a run as they happen (server-sent events)",
        )
        .responds(200, Content::EventStream)
        .responds(204, Content::Empty)
        .header(LAST_EVENT_ID)
        .errors(&[404, 410, 429, 500]),
        read("/api/v2/orchestrate/run/{id}/events", get(runs::events), "runEvents", "The audit trail of a run")
            .query::<runs::EventsQuery>()
            .returns::<Vec<EventRow>>()
            .errors(&[404, 410, 500]),
        read("/api/v2/orchestrate/run/{id}/plan", get(runs::plan), "runPlan", "The plan that a run was started with")
            .returns::<Value>()
            .errors(&[404, 500]),
        read(
            "/api/v2/orchestrate/run/{id}/graph",
            get(runs::graph),
            "runGraph",
            "The plan of a run as a graph, with states",
        )
        .returns::<RunGraph>()
        .errors(&[404, 410, 500]),
        read("/api/v2/orchestrate/run/{id}/explain", get(runs::explain), "explainRun", "What a run waits for")
            .returns::<ExplanationView>()
            .errors(&[404, 409, 500]),
        read("/api/v2/orchestrate/run/{id}/steps/{step}/output", get(runs::output), "stepOutput", "A step's output")
            .returns::<Value>()
            .errors(&[404, 410, 500]),
    ]
}

/// The endpoints that give commands to runs.
pub(super) fn command_endpoints() -> Vec<Endpoint> {
    const ERRORS: &[u16] = &[404, 409, 410, 422, 500];
    let command = |path, scope, handler, id, about| {
        Endpoint::new(Method::POST, path, Access::Scope(scope), handler, id, about)
            .returns::<Orchestration>()
            .errors(ERRORS)
            .for_applications()
    };
    let decide = |path, handler, id, about| command(path, TokenScope::Decide, handler, id, about);
    vec![
        decide("/api/v2/orchestrate/run/{id}/pause", post(runs::pause), "pauseRun", "Pause a run")
            .body::<PauseRequest>(),
        decide("/api/v2/orchestrate/run/{id}/resume", post(runs::resume), "resumeRun", "Resume a run")
            .body::<PauseRequest>(),
        decide("/api/v2/orchestrate/run/{id}/cancel", post(runs::cancel), "cancelRun", "Cancel a run")
            .body::<CancelRequest>()
            .responds(202, Content::Json(|generator| generator.subschema_for::<Orchestration>())),
        decide("/api/v2/orchestrate/run/{id}/skip", post(runs::skip), "skipStep", "Skip a step").body::<SkipRequest>(),
        decide("/api/v2/orchestrate/run/{id}/adjust", post(runs::adjust), "adjustStep", "Replace a step's input")
            .body::<AdjustRequest>(),
        decide("/api/v2/orchestrate/run/{id}/retry", post(runs::retry), "retryRun", "Start the next attempt now")
            .body::<RetryRequest>(),
        decide("/api/v2/orchestrate/run/{id}/resolve", post(runs::resolve), "resolveConflict", "Resolve a conflict")
            .body::<ResolveRequest>(),
        Endpoint::new(
            Method::POST,
            "/api/v2/orchestrate/run/{id}/rerun",
            Access::Scope(TokenScope::Decide),
            post(runs::rerun),
            "rerun",
            "Run again from a step",
        )
        .body::<RerunRequest>()
        .responds(202, Content::Json(|generator| generator.subschema_for::<Orchestration>()))
        .errors(ERRORS)
        .for_applications(),
        decide(
            "/api/v2/orchestrate/run/{id}/checkpoints/{checkpoint}",
            post(runs::answer),
            "answerCheckpoint",
            "Answer a checkpoint",
        )
        .body::<AnswerRequest>(),
        command(
            "/api/v2/orchestrate/run/{id}/signals/{name}",
            TokenScope::Run,
            post(runs::signal),
            "signalRun",
            "Deliver a signal",
        )
        .body::<SignalRequest>(),
    ]
}

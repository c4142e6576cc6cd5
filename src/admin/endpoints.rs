//! Every endpoint of the API: the router, `/openapi.json` and `/` are all made from this table.
//!
//! Always true: a path that is served is listed here with its request, its responses and the scope that it requires, so
//! that none is missing in the OpenAPI document.

use std::sync::Arc;

use axum::routing::{MethodRouter, get, post};
use http::Method;
use schemars::JsonSchema;
use serde_json::Value;

use super::content::{Content, Header, SchemaFn};
use super::state::ApiState;
use super::types::{
    AdjustRequest, AdoptRequest, AdoptionDecisionRequest, AdoptionsView, AnswerRequest, CancelRequest,
    CandidateRequest, CandidateResponse, CapturePage, Diffs, EgressView, EventRow, EvidenceView, ExplanationView,
    FlipRequest, FlipResponse, FlipRow, FreezeRequest, FreezeResponse, GuardReleaseRequest, GuardReleaseResponse,
    Orchestration, PauseRequest, RecordPage, ReloadRequest, ReloadResponse, RerunRequest, ResolveRequest, RetryRequest,
    RouteDetail, RouteRow, RunList, ServiceCallers, ServiceRow, SignalRequest, SkipRequest, StartRequest, Status,
    SuggestedRules, TriedRules, TryRules,
};
use super::{
    adoptions, callers, candidates, captures, differences, egress, flips, guard, orchestrate as runs, process, record,
    reference, reload, routes, rule_trials, samples, services,
};
use crate::config::TokenScope;

/// Who may call an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Everybody, probes and scrapers included.
    Public,
    /// Callers who have this scope.
    Scope(TokenScope),
    /// Callers on this machine, and holders of tokens that may start runs.
    DeprecatedStart,
}

/// An endpoint: a method of a path.
pub(super) struct Endpoint {
    pub method: Method,
    pub path: &'static str,
    pub access: Access,
    /// Whether it is also served on the listener for applications.
    pub for_applications: bool,
    pub id: &'static str,
    pub about: &'static str,
    pub query: Option<SchemaFn>,
    pub body: Option<SchemaFn>,
    pub headers: Vec<Header>,
    pub responses: Vec<(u16, Content)>,
    /// Whether the response names a run: then OpenAPI links lead from it to the endpoints of that run.
    pub links_to_run: bool,
    /// Error statuses in addition to those that follow from `access` and the request.
    pub errors: &'static [u16],
    pub handler: MethodRouter<Arc<ApiState>>,
}

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

impl Endpoint {
    fn new(
        method: Method,
        path: &'static str,
        access: Access,
        handler: MethodRouter<Arc<ApiState>>,
        id: &'static str,
        about: &'static str,
    ) -> Self {
        Self {
            method,
            path,
            access,
            for_applications: false,
            id,
            about,
            query: None,
            body: None,
            headers: Vec::new(),
            responses: Vec::new(),
            links_to_run: false,
            errors: &[],
            handler,
        }
    }
    fn returns<T: JsonSchema>(self) -> Self {
        self.responds(200, Content::Json(|generator| generator.subschema_for::<T>()))
    }
    fn responds(mut self, status: u16, content: Content) -> Self {
        self.responses.push((status, content));
        self
    }
    fn body<T: JsonSchema>(mut self) -> Self {
        self.body = Some(|generator| generator.subschema_for::<T>());
        self
    }
    /// Each field of `T` is a query parameter.
    fn query<T: JsonSchema>(mut self) -> Self {
        self.query = Some(|generator| T::json_schema(generator));
        self
    }
    fn header(mut self, header: Header) -> Self {
        self.headers.push(header);
        self
    }
    fn errors(mut self, errors: &'static [u16]) -> Self {
        self.errors = errors;
        self
    }
    fn links_to_run(mut self) -> Self {
        self.links_to_run = true;
        self
    }
    fn for_applications(mut self) -> Self {
        self.for_applications = true;
        self
    }
}

/// Every endpoint, in the order in which `/` lists them.
pub(super) fn endpoints() -> Vec<Endpoint> {
    let mut all = process_endpoints();
    all.extend(flag_endpoints());
    all.extend(run_endpoints());
    all.extend(command_endpoints());
    all
}

fn process_endpoints() -> Vec<Endpoint> {
    let public = |path, handler, id, about| Endpoint::new(Method::GET, path, Access::Public, handler, id, about);
    vec![
        public("/", get(process::index), "index", "This list, for people")
            .responds(200, Content::Text)
            .for_applications(),
        public("/metrics", get(process::metrics), "metrics", "Metrics for Prometheus").responds(200, Content::Text),
        public("/healthz", get(process::healthz), "healthz", "Whether the process runs").responds(200, Content::Text),
        public("/readyz", get(process::readyz), "readyz", "Whether runs are taken (200 at runs_in_flight_max too)")
            .responds(200, Content::Text)
            .responds(503, Content::Text),
        public("/openapi.json", get(process::openapi), "openapi", "This description")
            .returns::<Value>()
            .for_applications(),
        public("/docs", get(reference::index), "docs", "The topics of the reference")
            .responds(200, Content::TextOrHtml)
            .for_applications(),
        public("/docs/{topic}", get(reference::topic), "topic", "One topic of the reference")
            .responds(200, Content::TextOrHtml)
            .errors(&[404])
            .for_applications(),
    ]
}

fn flag_endpoints() -> Vec<Endpoint> {
    let read = |path, handler, id, about| {
        Endpoint::new(Method::GET, path, Access::Scope(TokenScope::Read), handler, id, about)
    };
    let flip = |path, handler, id, about| {
        Endpoint::new(Method::POST, path, Access::Scope(TokenScope::Flip), handler, id, about)
    };
    vec![
        read("/api/v2/status", get(routes::status), "status", "The state of the process and of all routes")
            .returns::<Status>(),
        read("/api/v2/routes", get(routes::list), "routes", "Every route with its state").returns::<Vec<RouteRow>>(),
        read("/api/v2/routes/{id}", get(routes::show), "route", "One route in full")
            .returns::<RouteDetail>()
            .errors(&[404, 409]),
        flip("/api/v2/routes/{id}/flip", post(flips::flip), "flip", "Move a route to another state")
            .body::<FlipRequest>()
            .returns::<FlipResponse>()
            .responds(202, Content::Json(|generator| generator.subschema_for::<FlipResponse>()))
            .errors(&[404, 409, 422]),
        flip("/api/v2/routes/{id}/candidate", post(candidates::move_candidate), "moveCandidate", "Move a candidate")
            .body::<CandidateRequest>()
            .returns::<CandidateResponse>()
            .errors(&[404, 409, 422]),
        flip(
            "/api/v2/routes/{id}/guard/release",
            post(guard::release),
            "releaseGuard",
            "Release what the guard of a route did",
        )
        .body::<GuardReleaseRequest>()
        .returns::<GuardReleaseResponse>()
        .errors(&[404, 409, 422]),
        read("/api/v2/routes/{id}/adoptions", get(adoptions::show), "adoptions", "What the engine adopted of legacy's")
            .returns::<AdoptionsView>()
            .errors(&[404]),
        flip("/api/v2/routes/{id}/adoptions", post(adoptions::adopt), "adopt", "Have the engine adopt instances")
            .body::<AdoptRequest>()
            .responds(202, Content::Json(|generator| generator.subschema_for::<AdoptionsView>()))
            .errors(&[404, 409, 422]),
        flip("/api/v2/routes/{id}/adoptions/decide", post(adoptions::decide), "decideAdoption", "Decide who owns it")
            .body::<AdoptionDecisionRequest>()
            .returns::<AdoptionsView>()
            .errors(&[404, 409, 422]),
        read("/api/v2/routes/{id}/diffs", get(differences::diffs), "diffs", "Where legacy and engine differ")
            .query::<differences::DiffsQuery>()
            .returns::<Diffs>()
            .errors(&[404]),
        Endpoint::new(
            Method::POST,
            "/api/v2/routes/{id}/diffs/try",
            Access::Scope(TokenScope::Read),
            post(rule_trials::try_rules),
            "tryRules",
            "Compare the samples by other rules; changes nothing",
        )
        .query::<samples::CandidateQuery>()
        .body::<TryRules>()
        .returns::<TriedRules>()
        .errors(&[404, 422]),
        read("/api/v2/routes/{id}/diffs/suggestions", get(rule_trials::suggest), "suggestRules", "Proposed rules")
            .query::<samples::CandidateQuery>()
            .returns::<SuggestedRules>()
            .errors(&[404]),
        read("/api/v2/routes/{id}/evidence", get(differences::evidence), "evidence", "What comparisons add up to")
            .query::<samples::CandidateQuery>()
            .returns::<EvidenceView>()
            .errors(&[404]),
        read(
            "/api/v2/routes/{id}/captures",
            get(captures::captures),
            "captures",
            "Captured pairs, to rehearse them again",
        )
        .query::<captures::CapturesQuery>()
        .returns::<CapturePage>()
        .errors(&[404]),
        read("/api/v2/routes/{id}/egress", get(egress::egress), "egress", "The calls that legacy makes")
            .returns::<EgressView>()
            .errors(&[404]),
        flip("/api/v2/freeze", post(flips::freeze), "freeze", "The kill switch")
            .body::<FreezeRequest>()
            .returns::<FreezeResponse>()
            .responds(202, Content::Json(|generator| generator.subschema_for::<FreezeResponse>()))
            .errors(&[409, 422]),
        read("/api/v2/flips", get(flips::flips), "flips", "The history of flips and freezes: who, when, why")
            .query::<flips::FlipsQuery>()
            .returns::<Vec<FlipRow>>(),
        read("/api/v2/record", get(record::record), "record", "The record of all moves, as a chain of hashes")
            .query::<record::RecordQuery>()
            .returns::<RecordPage>()
            .errors(&[500]),
        read("/api/v2/record/flips", get(record::flips), "recordFlips", "The flips in the store, as they are")
            .query::<record::RecordQuery>()
            .returns::<Vec<serde_json::Value>>()
            .errors(&[500]),
        flip("/api/v2/reload", post(reload::reload), "reload", "Read the files again now")
            .body::<ReloadRequest>()
            .returns::<ReloadResponse>()
            .errors(&[422]),
        read("/api/v2/services", get(services::list), "services", "Addresses, breakers, calls in flight, rates")
            .returns::<Vec<ServiceRow>>(),
        read(
            "/api/v2/services/{name}/callers",
            get(callers::callers),
            "callers",
            "Who calls a service, and when each caller last did",
        )
        .returns::<ServiceCallers>()
        .errors(&[404]),
    ]
}

fn run_endpoints() -> Vec<Endpoint> {
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
        read("/api/v2/orchestrate/run/{id}/explain", get(runs::explain), "explainRun", "What a run waits for")
            .returns::<ExplanationView>()
            .errors(&[404, 409, 500]),
        read("/api/v2/orchestrate/run/{id}/steps/{step}/output", get(runs::output), "stepOutput", "A step's output")
            .returns::<Value>()
            .errors(&[404, 410, 500]),
    ]
}

fn command_endpoints() -> Vec<Endpoint> {
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

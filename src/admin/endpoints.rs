//! Every endpoint of the API: the router, `/openapi.json` and `/` are all made from this table.
//!
//! Always true: a path that is served is listed here with its request, its responses and the scope that it requires, so
//! that none is missing in the OpenAPI document.

use axum::routing::{get, post};
use http::Method;
use serde_json::Value;

use super::content::{Content, Header};
use super::endpoint::{Access, Endpoint};
use super::run_endpoints::{command_endpoints, run_endpoints};
use super::types::{
    AdoptRequest, AdoptionDecisionRequest, AdoptionsView, CandidateRequest, CandidateResponse, CapturePage, ChangeData,
    Diffs, EgressView, EvidenceView, FlipRequest, FlipResponse, FlipRow, FreezeRequest, FreezeResponse,
    GuardReleaseRequest, GuardReleaseResponse, ProcessRow, RecordPage, ReloadRequest, ReloadResponse, RouteDetail,
    RouteRow, ServiceCallers, ServiceRow, Status, SuggestedRules, TriedRules, TryRules,
};
use super::{
    adoptions, callers, candidates, captures, differences, egress, events, flips, guard, process, processes, record,
    reference, reload, routes, rule_trials, samples, services,
};
use crate::config::TokenScope;

const LAST_CHANGE: Header = Header {
    name: "Last-Event-ID",
    about: "The id of the last event that the client has: the stream continues after it, or begins with `reset`.",
    pattern: None,
};

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
        read("/api/v2/events", get(events::stream), "changes", "What changes, as it happens (server-sent events)")
            .query::<events::ChangesQuery>()
            .responds(200, Content::ChangeStream(|generator| generator.subschema_for::<ChangeData>()))
            .header(LAST_CHANGE)
            .errors(&[429]),
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
        read("/api/v2/processes", get(processes::list), "processes", "The processes that share the store")
            .returns::<Vec<ProcessRow>>(),
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

//! What probes, scrapers and a person with a browser ask: plain text.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};

use super::Admin;

/// The text format of Prometheus.
const EXPOSITION: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

pub(super) async fn metrics(admin: Admin) -> Response {
    let _one_at_a_time = admin.scrape.lock().await;
    ([(header::CONTENT_TYPE, EXPOSITION)], (admin.parts.render)()).into_response()
}

/// The process runs.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether traffic may be sent here. An engine that is not well is no reason against: legacy answers.
pub(super) async fn readyz(admin: Admin) -> Response {
    match (admin.parts.vitals)().not_ready {
        None => "ready\n".into_response(),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")).into_response(),
    }
}

/// What is here.
pub(super) async fn index() -> &'static str {
    "pointsman

GET  /metrics                                  for Prometheus
GET  /healthz  /readyz                         for probes
GET  /api/v2/status                            everything at a glance
GET  /api/v2/routes                            where each route stands
GET  /api/v2/routes/{id}                       one route in full
POST /api/v2/routes/{id}/flip                  move it: {\"to\": \"shadow\", \"percent\": 5, \"reason\": \"...\"}
GET  /api/v2/routes/{id}/diffs                 where legacy and engine differ
GET  /api/v2/routes/{id}/evidence              what comparisons add up to
POST /api/v2/freeze                            the kill switch: {\"on\": true, \"reason\": \"...\"}
GET  /api/v2/flips                             who moved what, when and why
GET  /api/v2/services                          breakers, calls under way, rates
GET  /api/v2/orchestrate/runs                  runs, newest first
GET  /api/v2/orchestrate/run/{id}              one run with its steps
GET  /api/v2/orchestrate/run/{id}/events       its audit trail
GET  /api/v2/orchestrate/run/{id}/steps/{step}/output

The same on a terminal: pointsman status | flip | freeze | diffs | services | runs
"
}

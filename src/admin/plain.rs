//! What probes, scrapers and a person with a browser ask: plain text.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::Value;

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
pub(super) async fn index(admin: Admin) -> String {
    admin.index.clone()
}

/// The same for programs.
pub(super) async fn openapi(admin: Admin) -> Json<Value> {
    Json(admin.description.clone())
}

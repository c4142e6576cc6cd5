//! The process itself: metrics, health and readiness probes, the list of endpoints, the OpenAPI document.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::Value;

use super::state::Admin;

/// The content type of Prometheus's text format.
const PROMETHEUS_TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

pub(super) async fn metrics(admin: Admin) -> Response {
    let _scrape = admin.scrape.lock().await;
    ([(header::CONTENT_TYPE, PROMETHEUS_TEXT)], (admin.parts.render_metrics)()).into_response()
}

/// Always 200 while the process runs.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// 200 if the engine can take runs now, else 503 with the reason. Also 200 while `runs_in_flight_max` runs are in
/// flight, so that a load balancer does not move the load to the next process.
pub(super) async fn readyz(admin: Admin) -> Response {
    match (admin.parts.process_status)().not_ready {
        None => "ready\n".into_response(),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")).into_response(),
    }
}

/// The list of endpoints, for people.
pub(super) async fn index(admin: Admin) -> String {
    admin.index.clone()
}

/// The list of endpoints, for programs.
pub(super) async fn openapi(admin: Admin) -> Json<Value> {
    Json(admin.openapi.clone())
}

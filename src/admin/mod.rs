//! What people and programs see of routes, differences and runs, and how they move a route.
//!
//! The question it answers: "what is going on, and may I change it?" Always true: every change is made by the ladder
//! and recorded with who asked for it; nothing that is shown is executed by whoever looks at it (plain text and JSON
//! only); bodies, rows and waits are bounded. Shapes stand in [`types`], errors become responses in `problem`, who may
//! come in is decided in `guard`.
//!
//! When the store is slow or gone, what needs it gets 503 within its own bound, and the rest goes on; a caller that
//! sends nothing is cut after a bound.

mod differences;
mod guard;
mod moves;
mod parts;
mod plain;
mod problem;
mod routes;
mod runs;
mod serve;
mod services;
#[cfg(test)]
mod tests;
pub mod types;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequest, Query, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::{HeaderValue, Method, StatusCode, header};
use serde::de::DeserializeOwned;

pub use self::parts::{AdminParts, Moves, Traffic, Vitals};
pub use self::serve::serve;

use self::guard::{Guard, Scope, Who};
use self::problem::Refusal;

/// A call's body arrives within this time.
const BODY_READ_MAX: Duration = Duration::from_secs(10);

/// What handlers share.
struct Shared {
    parts: AdminParts,
    guard: Guard,
    /// One scrape at a time, so that what is published right before is rendered from one look.
    scrape: tokio::sync::Mutex<()>,
}

/// Handlers' state.
type Admin = State<Arc<Shared>>;
/// What handlers give.
type Answer<T> = Result<axum::Json<T>, Refusal>;

/// The API as a router.
pub fn router(parts: AdminParts) -> Router {
    let guard = Guard::new(&parts.tokens, parts.bound);
    let shared = Arc::new(Shared { parts, guard, scrape: tokio::sync::Mutex::default() });
    let reads = Router::new()
        .route("/status", get(routes::status))
        .route("/routes", get(routes::list))
        .route("/routes/{id}", get(routes::show))
        .route("/routes/{id}/diffs", get(differences::diffs))
        .route("/routes/{id}/evidence", get(differences::evidence))
        .route("/flips", get(moves::flips))
        .route("/services", get(services::list))
        .route("/orchestrate/runs", get(runs::list))
        .route("/orchestrate/run/{id}", get(runs::show))
        .route("/orchestrate/run/{id}/events", get(runs::events))
        .route("/orchestrate/run/{id}/steps/{step}/output", get(runs::output))
        .route_layer(middleware::from_fn_with_state((shared.clone(), Scope::Read), admit));
    let changes = Router::new()
        .route("/routes/{id}/flip", post(moves::flip))
        .route("/freeze", post(moves::freeze))
        .route_layer(middleware::from_fn_with_state((shared.clone(), Scope::Flip), admit));
    Router::new()
        .nest("/api/v2", reads.merge(changes))
        // Without a token: what probes and scrapers ask.
        .route("/metrics", get(plain::metrics))
        .route("/healthz", get(plain::healthz))
        .route("/readyz", get(plain::readyz))
        .route("/", get(plain::index))
        .fallback(nothing_here)
        .method_not_allowed_fallback(wrong_method)
        // Outermost: no path is for another site's browser window, and no answer for a cache.
        .layer(middleware::from_fn_with_state(shared.clone(), outermost))
        .with_state(shared)
}

async fn outermost(State(shared): Admin, request: Request, next: Next) -> Response {
    let mut response = match shared.guard.same_origin(request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
    );
    response
}

async fn admit(
    State((shared, wants)): State<(Arc<Shared>, Scope)>,
    mut request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    let who = shared.guard.admit(request.method(), request.headers(), wants)?;
    request.extensions_mut().insert(who);
    Ok(next.run(request).await)
}

async fn nothing_here(request: Request) -> Refusal {
    let detail = format!("nothing is at {}", request.uri().path());
    Refusal::new(StatusCode::NOT_FOUND, "no-such-path", "There is nothing here", detail)
        .hint("GET / lists what is here")
}

async fn wrong_method(method: Method, request: Request) -> Refusal {
    let detail = format!("{} does not take {method}", request.uri().path());
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "wrong-method", "The path does not take this method", detail)
}

/// A JSON body, read within bounds; what is wrong with it is said with line and column.
struct Ask<T>(T, Who);

impl<T: DeserializeOwned> FromRequest<Arc<Shared>> for Ask<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, shared: &Arc<Shared>) -> Result<Self, Refusal> {
        let (mut head, body) = request.into_parts();
        let who = head.extensions.remove::<Who>().unwrap_or(Who::Anybody(None));
        let bytes = read(body, shared.parts.limits.api_body_bytes_max).await?;
        let asked = serde_json::from_slice(&bytes).map_err(|error| Refusal::bad(format!("the body: {error}")))?;
        Ok(Self(asked, who))
    }
}

async fn read(body: Body, bytes_max: u64) -> Result<bytes::Bytes, Refusal> {
    let max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
    match tokio::time::timeout(BODY_READ_MAX, http_body_util::BodyExt::collect(http_body_util::Limited::new(body, max)))
        .await
    {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            let detail = format!("the body is larger than {max} bytes (api_body_bytes_max)");
            Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The body is too large", detail))
        }
        Ok(Err(_)) => Err(Refusal::bad("the body broke off")),
        Err(_) => {
            let detail = format!("the body did not arrive within {} s", BODY_READ_MAX.as_secs());
            Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "too-slow", "The body is too slow", detail))
        }
    }
}

/// The query of a call; an unknown name in it is an error, as a misspelt filter would show too much.
struct Asked<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> axum::extract::FromRequestParts<S> for Asked<T> {
    type Rejection = Refusal;

    async fn from_request_parts(head: &mut http::request::Parts, _state: &S) -> Result<Self, Refusal> {
        match Query::<T>::try_from_uri(&head.uri) {
            Ok(Query(asked)) => Ok(Self(asked)),
            Err(error) => Err(Refusal::bad(format!("the query: {}", error.body_text()))),
        }
    }
}

impl Shared {
    /// A bound on rows: as asked for, within the limit.
    fn rows(&self, asked: Option<usize>, default: usize) -> usize {
        let max = usize::try_from(self.parts.limits.api_rows_max).unwrap_or(usize::MAX).max(1);
        asked.unwrap_or(default).clamp(1, max)
    }
}

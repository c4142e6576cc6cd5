//! The HTTP API for people and programs: it shows routes, differences and runs, moves routes, starts runs and sends
//! them commands.
//!
//! The question it answers: "what is going on, and may I change it?" Always true: every change is made by the ladder or
//! the engine and recorded with the name of the caller; responses are plain text, JSON, server-sent events or escaped
//! HTML, so that no browser executes what they show; bodies, rows, streams and waits are bounded. Every path is listed
//! in `endpoints`, every JSON type is in [`types`]; errors become responses in `error`; `access` decides who may call
//! what.
//!
//! When the store is slow or gone, an endpoint that needs it answers 503 within its own bound; the other endpoints go
//! on. A client that sends nothing is disconnected after a bound, and earlier if others need its connection.

mod access;
mod adoptions;
mod caller;
mod callers;
mod candidates;
mod captures;
mod connections;
mod content;
mod differences;
mod egress;
mod endpoint;
mod endpoints;
mod error;
mod event_response;
mod events;
mod extract;
mod flips;
mod guard;
mod local;
mod openapi;
mod orchestrate;
mod parts;
mod process;
mod processes;
mod record;
mod reference;
mod rejudged;
mod reload;
pub mod replay;
mod route_lookup;
mod routes;
mod rule_trials;
mod run_endpoints;
mod samples;
mod serve;
mod services;
mod state;
mod stream_slots;
#[cfg(test)]
pub(crate) mod tests;
pub mod types;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, Method, StatusCode, header};
use tokio::time::timeout;

pub use self::caller::Viewer;
pub use self::local::LocalApi;
pub use self::parts::{
    AdminParts, AdoptionControl, AdoptionRefused, CallersOfService, CandidateMoveError, EngineControl, LadderControl,
    MoveCandidate, ProcessStatus, Reloaded, RouteTraffic, RulesOfRoute,
};
pub use self::serve::serve;

use self::access::AccessControl;
use self::endpoint::{Access, Endpoint};
use self::error::ApiError;
use self::events::ChangeFeed;
use self::serve::PeerAddress;
use self::state::{Admin, ApiState};
use self::stream_slots::StreamSlots;
use crate::config::TokenScope;
use crate::store::StoreError;

/// How long a request that only reads may take. The command line waits a little longer, so that it receives the error
/// response rather than a timeout of its own.
const READ_MAX: Duration = Duration::from_secs(8);

/// The whole API.
pub fn api(parts: AdminParts) -> LocalApi {
    router_of(parts, endpoints::endpoints())
}

/// Only the endpoints for applications: runs, and the documentation.
pub fn applications(parts: AdminParts) -> Router {
    let endpoints = endpoints::endpoints().into_iter().filter(|endpoint| endpoint.for_applications).collect();
    router_of(parts, endpoints).router()
}

fn router_of(parts: AdminParts, endpoints: Vec<Endpoint>) -> LocalApi {
    let access = AccessControl::new(&parts.tokens, parts.listen);
    let state = Arc::new(ApiState {
        openapi: openapi::document(&endpoints, access.requires_token()),
        index: openapi::index(&endpoints),
        stream_slots: StreamSlots::new(&parts.limits),
        changes: Arc::new(ChangeFeed::new()),
        access,
        parts,
        scrape: tokio::sync::Mutex::default(),
        rejudging: tokio::sync::Mutex::default(),
    });
    let mut router = Router::new();
    for endpoint in endpoints {
        let handler = match endpoint.access {
            Access::Public => endpoint.handler,
            Access::Scope(scope) => {
                endpoint.handler.route_layer(middleware::from_fn_with_state((state.clone(), scope), authorize))
            }
            Access::DeprecatedStart => endpoint
                .handler
                .route_layer(middleware::from_fn_with_state(state.clone(), authorize_deprecated_start))
                .route_layer(middleware::from_fn(orchestrate::add_deprecation_headers)),
        };
        router = router.route(endpoint.path, handler);
    }
    let router = router
        .fallback(no_such_path)
        .method_not_allowed_fallback(wrong_method)
        // Outermost, so that it also covers unknown paths.
        .layer(middleware::from_fn_with_state(state.clone(), check_origin_and_secure))
        .with_state(state.clone());
    LocalApi::new(router, state)
}

/// Refuses a request whose Host or Origin header names another site, and adds the security headers to every response.
async fn check_origin_and_secure(State(state): Admin, request: Request, next: Next) -> Response {
    let mut response = match state.access.check_origin(request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
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

async fn authorize(
    State((state, scope)): State<(Arc<ApiState>, TokenScope)>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let viewer = request.extensions().get::<Viewer>();
    let caller = state.access.authorize(request.method(), request.headers(), viewer, scope)?;
    request.extensions_mut().insert(caller);
    let answer = next.run(request);
    match scope {
        TokenScope::Read => {
            let late = |_| StoreError(format!("there was no answer within {} s", READ_MAX.as_secs())).into();
            timeout(READ_MAX, answer).await.map_err(late)
        }
        TokenScope::Run | TokenScope::Flip | TokenScope::Decide => Ok(answer.await),
    }
}

async fn authorize_deprecated_start(
    State(state): Admin,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let peer = request.extensions().get::<PeerAddress>().copied();
    let caller = state.access.authorize_deprecated_start(request.method(), request.uri(), request.headers(), peer)?;
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

async fn no_such_path(request: Request) -> ApiError {
    let detail = format!("no endpoint has the path {}", request.uri().path());
    ApiError::new(StatusCode::NOT_FOUND, "no-such-path", "There is no such path", detail)
        .hint("GET / lists the endpoints")
}

async fn wrong_method(method: Method, request: Request) -> ApiError {
    let detail = format!("{} does not take {method}", request.uri().path());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "wrong-method", "The path does not take this method", detail)
}

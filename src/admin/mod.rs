//! What people and programs see of routes, differences and runs, and how they move a route.
//!
//! The question it answers: "what is going on, and may I change it?" Always true: every change is made by the ladder
//! and recorded with who asked for it; nothing that is shown is executed by whoever looks at it (plain text and JSON
//! only); bodies, rows, streams and waits are bounded. Every path stands in `table`, shapes in [`types`]; errors become
//! responses in `problem`, who may come in is decided in `guard`.
//!
//! When the store is slow or gone, what needs it gets 503 within its own bound, and the rest goes on; a caller that
//! sends nothing is cut after a bound.

mod describe;
mod differences;
mod extract;
mod guard;
mod moves;
mod orchestrate;
mod parts;
mod plain;
mod problem;
mod reference;
pub mod replay;
mod routes;
mod serve;
mod services;
mod table;
#[cfg(test)]
mod tests;
pub mod types;

use std::num::NonZeroU32;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, Method, StatusCode, header};
use serde_json::Value;

pub use self::parts::{AdminParts, Desk, Moves, Traffic, Vitals};
pub use self::serve::serve;

use self::guard::{Guard, Scope};
use self::orchestrate::Streams;
use self::problem::Refusal;
use self::serve::Peer;
use self::table::{Door, Row};

/// What handlers share.
struct Shared {
    parts: AdminParts,
    guard: Guard,
    /// What `/openapi.json` says.
    description: Value,
    /// What `/` says.
    index: String,
    streams: Streams,
    /// One scrape at a time, so that what is published right before is rendered from one look.
    scrape: tokio::sync::Mutex<()>,
}

/// Handlers' state.
type Admin = State<Arc<Shared>>;
/// What handlers give.
type Answer<T> = Result<axum::Json<T>, Refusal>;

/// The API as a router.
pub fn router(parts: AdminParts) -> Router {
    built(parts, table::table())
}

/// The part of it that applications may reach: runs alone.
pub fn applications(parts: AdminParts) -> Router {
    built(parts, table::table().into_iter().filter(|row| row.apps).collect())
}

fn built(parts: AdminParts, rows: Vec<Row>) -> Router {
    let guard = Guard::new(&parts.tokens, parts.bound);
    let shared = Arc::new(Shared {
        description: describe::document(&rows, guard.wants_tokens()),
        index: describe::index(&rows),
        streams: Streams::new(&parts.limits),
        guard,
        parts,
        scrape: tokio::sync::Mutex::default(),
    });
    let mut router = Router::new();
    for row in rows {
        let handler = match row.door {
            Door::Open => row.handler,
            Door::Wants(scope) => {
                row.handler.route_layer(middleware::from_fn_with_state((shared.clone(), scope), admit))
            }
            Door::Older => row
                .handler
                .route_layer(middleware::from_fn_with_state(shared.clone(), admit_older))
                .route_layer(middleware::from_fn(orchestrate::mark)),
        };
        router = router.route(row.path, handler);
    }
    router
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

async fn admit_older(State(shared): Admin, mut request: Request, next: Next) -> Result<Response, Refusal> {
    let peer = request.extensions().get::<Peer>().copied();
    let who = shared.guard.admit_older(request.method(), request.headers(), peer)?;
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

impl Shared {
    /// A bound on rows: as asked for, within the limit.
    fn rows(&self, asked: Option<NonZeroU32>, default: usize) -> usize {
        let max = usize::try_from(self.parts.limits.api_rows_max).unwrap_or(usize::MAX).max(1);
        let asked = asked.map_or(default, |asked| usize::try_from(asked.get()).unwrap_or(usize::MAX));
        asked.clamp(1, max)
    }
}

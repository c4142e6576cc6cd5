//! The paths of the page, and what holds for each of its requests.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, FromRequestParts, Query, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use jiff::Timestamp;
use maud::html;
use serde::Deserialize;
use tower::ServiceExt;

use crate::admin::LocalApi;
use crate::admin::types::ApiProblem;
use crate::page::actions::bulk;
use crate::page::actions::run_actions;
use crate::page::assets;
use crate::page::client::problem;
use crate::page::differences::groups_page;
use crate::page::events;
use crate::page::failure::{Failure, problem_box};
use crate::page::html::{Frame, form_key, respond};
use crate::page::request::{Known, PageState, Submitted, Visit, add_cookie, is_own_path, read_form, see_other};
use crate::page::routes::flip;
use crate::page::routes::freeze;
use crate::page::routes::overview;
use crate::page::routes::record;
use crate::page::routes::route;
use crate::page::runs::list_page;
use crate::page::runs::run;
use crate::page::session::{Session, delete_cookie};

/// The largest form that is read before a person has logged in.
const LOGIN_BYTES_MAX: usize = 8 << 10;
/// The largest form.
const FORM_BYTES_MAX: usize = 1 << 20;
/// What a browser may load for a page: only the files of this server; no script or style in the markup is executed.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// The page and the API: what is no path of the page goes to the API.
pub fn router(api: LocalApi) -> Router {
    let state = Arc::new(PageState::new(api.clone()));
    let pages = Router::new()
        .route("/", get(home))
        .route("/login", get(login).post(log_in).layer(DefaultBodyLimit::max(LOGIN_BYTES_MAX)))
        .route("/logout", post(log_out))
        .route("/name", post(set_name))
        .route("/freeze", get(freeze::show).post(freeze::set))
        .route("/record", get(record::show))
        .route("/routes/{id}", get(route::show))
        .route("/routes/{id}/flip", get(flip::show).post(flip::perform))
        .route("/routes/{id}/differences", get(groups_page::show))
        .route("/routes/{id}/differences/try", post(groups_page::try_rules))
        .route("/runs", get(list_page::show).post(bulk::perform))
        .route("/runs/{id}", get(run::show))
        .route("/runs/{id}/{action}", get(run_actions::show).post(run_actions::perform))
        .route("/events", get(events::stream))
        .route("/waiting", get(events::waiting))
        .layer(DefaultBodyLimit::max(FORM_BYTES_MAX))
        .layer(middleware::from_fn_with_state(state.clone(), with_session))
        .merge(assets::router())
        .layer(middleware::from_fn(secure));
    pages.with_state(state).fallback_service(api.router())
}

/// Adds the headers that every response of the page has.
async fn secure(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static(POLICY));
    response
}

/// Refuses requests of other sites, and finds the session of a request or begins one.
async fn with_session(State(state): State<Arc<PageState>>, mut request: Request, next: Next) -> Response {
    let headers = request.headers();
    if request.uri().path() == "/" && !accepts_html(headers) {
        return next.run(request).await;
    }
    let key = match state.api.check_origin(request.uri(), headers) {
        Ok(()) => state.key().await,
        Err(refused) => Err(refused),
    };
    let key = match key {
        Ok(key) => key,
        Err(problem) => return failed(problem),
    };
    let now = Timestamp::now();
    let found = Session::of(headers, &key, now);
    if found.is_none() && is_from_another_site(headers) {
        return opened_from_another_site(&request);
    }
    let is_new = found.is_none();
    let session = found.unwrap_or_else(|| Session::begin(None, None, now));
    let viewer = state.viewer(&session);
    let cookie = is_new.then(|| session.set_cookie(&key, !state.api.is_on_loopback())).flatten();
    request.extensions_mut().insert(Known { session, viewer, key });
    let mut response = next.run(request).await;
    if !response.headers().contains_key(header::SET_COOKIE) {
        add_cookie(&mut response, cookie);
    }
    response
}

/// Whether another site made the browser send this request: then the browser has left out the session's cookie.
fn is_from_another_site(headers: &HeaderMap) -> bool {
    headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site")
}

/// The answer to a request of another site. A link from there leads to the same page once more, from this page, so that
/// the browser sends the cookie: a new session would replace the person's own.
fn opened_from_another_site(request: &Request) -> Response {
    let is_link = request.method() == Method::GET
        && request.headers().get("sec-fetch-mode").is_some_and(|mode| mode == "navigate");
    if !is_link {
        return failed(Box::new(problem(StatusCode::FORBIDDEN, "The request comes from another site.")));
    }
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let content = html! {
        meta http-equiv="refresh" content={ "0; url=" (path) };
        h1 { "Opened from another site" }
        p { a href=(path) { "Go on to the page" } }
    };
    let frame = Frame { viewer: None, form_key: String::new(), path: "/".into(), part: "" };
    respond(StatusCode::OK, &frame, "Opened from another site", content)
}

/// A problem before the session is known.
fn failed(problem: Box<ApiProblem>) -> Response {
    let frame = Frame { viewer: None, form_key: String::new(), path: "/".into(), part: "" };
    Failure::Api(Box::new(frame), problem).into_response()
}

/// Whether the client is a browser: programs get the list of endpoints at `/`.
fn accepts_html(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|kind| kind.trim().starts_with("text/html"))
}

async fn home(State(state): State<Arc<PageState>>, request: Request) -> Result<Response, Failure> {
    if !accepts_html(request.headers()) {
        let listed = state.api.router().oneshot(request).await;
        return Ok(listed.into_response());
    }
    let (mut parts, _) = request.into_parts();
    let visit = Visit::from_request_parts(&mut parts, &state).await?;
    overview::show(visit).await
}

#[derive(Deserialize)]
struct LoginQuery {
    next: Option<String>,
}

async fn login(Query(query): Query<LoginQuery>, Extension(known): Extension<Known>) -> Response {
    let next = query.next.filter(|path| is_own_path(path)).unwrap_or_else(|| "/".into());
    match known.viewer {
        Some(_) => see_other(&next),
        None => login_page(&known, &next, None),
    }
}

fn login_page(known: &Known, next: &str, refused: Option<&ApiProblem>) -> Response {
    let form_key_text = known.session.form_key(&known.key);
    let frame = Frame { viewer: None, form_key: form_key_text, path: next.to_owned(), part: "" };
    let status = if refused.is_some() { StatusCode::UNAUTHORIZED } else { StatusCode::OK };
    let content = html! {
        h1 { "Log in" }
        @if let Some(problem) = refused { (problem_box(problem)) }
        form.login method="post" action="/login" {
            (form_key(&frame))
            label for="token" { "Your token" }
            input #token name="token" type="password" required autocomplete="current-password" autofocus;
            p.hint { "One of the tokens under " code { "admin.tokens" } " in pointsman.yaml. It says what you may do." }
            button.primary type="submit" { "Log in" }
        }
    };
    respond(status, &frame, "Log in", content)
}

async fn log_in(State(state): State<Arc<PageState>>, Extension(known): Extension<Known>, request: Request) -> Response {
    let fields = match read_form(request, &known).await {
        Ok(fields) => fields,
        Err(problem) => return login_page(&known, "/", Some(&problem)),
    };
    let Some(viewer) = fields.get("token").and_then(|token| state.api.log_in(token)) else {
        tracing::warn!("a login with an unknown token was refused");
        let mut unknown = problem(StatusCode::UNAUTHORIZED, "No token with this text is in force.");
        unknown.title = "The token is not known".into();
        return login_page(&known, fields.back(), Some(&unknown));
    };
    let session = Session::begin(viewer.name().map(str::to_owned), viewer.token_hash(), Timestamp::now());
    let mut response = see_other(fields.back());
    add_cookie(&mut response, session.set_cookie(&known.key, !state.api.is_on_loopback()));
    response
}

async fn log_out(State(state): State<Arc<PageState>>, Extension(known): Extension<Known>, _: Submitted) -> Response {
    let mut response = see_other("/login");
    add_cookie(&mut response, delete_cookie(&known.key, !state.api.is_on_loopback()));
    response
}

/// Sets the name of a person without a token.
async fn set_name(
    State(state): State<Arc<PageState>>,
    Extension(known): Extension<Known>,
    Submitted { visit, fields }: Submitted,
) -> Result<Response, Failure> {
    let name = fields.get("name").map(str::to_owned);
    if let Some(name) = &name {
        state.api.check_name(name).map_err(|problem| visit.failed(problem))?;
    }
    let mut response = see_other(fields.back());
    if known.session.token_hash.is_none() {
        let session = known.session.renamed(name);
        add_cookie(&mut response, session.set_cookie(&known.key, !state.api.is_on_loopback()));
    }
    Ok(response)
}

//! What a handler of the page gets: who looks, the API as that person, and the fields of a form.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Form, FromRequest, FromRequestParts, Request};
use axum::response::{IntoResponse, Redirect, Response};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, header};
use tokio::sync::OnceCell;

use crate::admin::types::ApiProblem;
use crate::admin::{LocalApi, Viewer};
use crate::page::client::{Client, problem, segment};
use crate::page::failure::Failure;
use crate::page::html::Frame;
use crate::page::session::Session;

/// How long a browser may take to send a form.
const FORM_READ_MAX: Duration = Duration::from_secs(10);

/// What all handlers share.
pub(super) struct PageState {
    pub api: LocalApi,
    key: OnceCell<[u8; 32]>,
}

impl PageState {
    pub(super) fn new(api: LocalApi) -> Self {
        Self { api, key: OnceCell::new() }
    }

    /// The key for sessions and forms. Read from the store once.
    pub(super) async fn key(&self) -> Result<[u8; 32], Box<ApiProblem>> {
        self.key.get_or_try_init(|| self.api.page_key()).await.copied()
    }

    /// The person whose session this is; `None` if a token is needed and the session has none in force.
    pub(super) fn viewer(&self, session: &Session) -> Option<Viewer> {
        match (&session.name, session.token_hash) {
            (Some(name), Some(hash)) if self.api.requires_token() => self.api.holder(name, hash),
            (name, None) => self.api.unverified(name.clone()),
            // The session of a token, and there are no tokens any more.
            (_, Some(_)) => self.api.unverified(None),
        }
    }
}

/// The session of a request, as the middleware found it or began it.
#[derive(Clone)]
pub(super) struct Known {
    pub session: Session,
    pub viewer: Option<Viewer>,
    pub key: [u8; 32],
}

/// A request of a person who may look at the page.
pub(super) struct Visit {
    pub frame: Frame,
    pub client: Client,
}

impl Visit {
    /// The frame of a page of this part.
    pub(super) fn part(mut self, part: &'static str) -> Self {
        self.frame.part = part;
        self
    }

    /// Whether the viewer may make requests that need this scope.
    pub(super) fn may(&self, scope: &str) -> bool {
        self.frame.viewer.as_ref().is_some_and(|viewer| viewer.may(scope))
    }

    /// A page that shows this problem of the API.
    pub(super) fn failed(&self, problem: Box<ApiProblem>) -> Failure {
        Failure::Api(Box::new(self.frame.clone()), problem)
    }
}

impl FromRequestParts<Arc<PageState>> for Visit {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<PageState>) -> Result<Self, Failure> {
        let known = parts.extensions.get::<Known>().cloned();
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let Some(Known { session, viewer: Some(viewer), key }) = known else {
            // What a form is sent to need not be a page.
            let next = if parts.method == Method::GET { &path } else { "/" };
            let login = format!("/login?next={}", segment(next));
            return Err(Failure::Other(Box::new(Redirect::to(&login).into_response())));
        };
        let frame = Frame { viewer: Some(viewer.clone()), form_key: session.form_key(&key), path, part: "" };
        let host = parts.headers.get(header::HOST).cloned();
        Ok(Self { frame, client: Client::new(state.api.clone(), viewer, host) })
    }
}

/// A form that a person sent from the page.
pub(super) struct Submitted {
    pub visit: Visit,
    pub fields: Fields,
}

/// The fields of a form, in the order of the form. A name may occur several times.
pub(super) struct Fields(pub Vec<(String, String)>);

impl Fields {
    /// The first field with this name, without spaces around it; `None` if it is absent or empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(field, _)| field == name)?;
        Some(value.trim()).filter(|value| !value.is_empty())
    }

    /// All fields with this name.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    /// The page that the form leads back to: always one of this server.
    pub(super) fn back(&self) -> &str {
        self.get("back").filter(|path| is_own_path(path)).unwrap_or("/")
    }
}

/// Whether a path leads to another page of this server: browsers read `//` and `/\` as the beginning of another host.
pub(super) fn is_own_path(path: &str) -> bool {
    let leads_back_here = ["/login", "/logout", "/name"].iter().any(|here| path.starts_with(here));
    path.starts_with('/')
        && !leads_back_here
        && !path.starts_with("//")
        && !path.contains('\\')
        && !path.chars().any(char::is_control)
}

/// The response after a form was carried out: the browser gets the page anew, and a reload sends nothing again.
pub(super) fn see_other(path: &str) -> Response {
    Redirect::to(path).into_response()
}

/// Reads the fields of a form and checks that the page made it for this session.
pub(super) async fn read_form(request: Request, known: &Known) -> Result<Fields, Box<ApiProblem>> {
    let reading = Form::<Vec<(String, String)>>::from_request(request, &());
    let Form(fields) = tokio::time::timeout(FORM_READ_MAX, reading)
        .await
        .map_err(|_| Box::new(problem(StatusCode::REQUEST_TIMEOUT, "The form did not arrive in time.")))?
        .map_err(|error| Box::new(problem(error.status(), &error.body_text())))?;
    let fields = Fields(fields);
    if !known.session.accepts_form(&known.key, fields.get("form_key").unwrap_or_default()) {
        let mut refused = problem(StatusCode::FORBIDDEN, "The form is of another session, or of another site.");
        refused.title = "The form was not accepted".into();
        refused.hint = Some("Nothing was done. Go back, load the page again and repeat it.".into());
        return Err(Box::new(refused));
    }
    Ok(fields)
}

impl FromRequest<Arc<PageState>> for Submitted {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &Arc<PageState>) -> Result<Self, Failure> {
        let (mut parts, body) = request.into_parts();
        let mut visit = Visit::from_request_parts(&mut parts, state).await?;
        let Some(known) = parts.extensions.get::<Known>().cloned() else {
            return Err(Failure::Other(Box::new(StatusCode::INTERNAL_SERVER_ERROR.into_response())));
        };
        let fields = read_form(Request::from_parts(parts, body), &known).await.map_err(|error| visit.failed(error))?;
        visit.frame.path = fields.back().to_owned();
        Ok(Self { visit, fields })
    }
}

/// The value of the header of a cookie, if it could be made.
pub(super) fn add_cookie(response: &mut Response, cookie: Option<HeaderValue>) {
    if let Some(cookie) = cookie {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
}

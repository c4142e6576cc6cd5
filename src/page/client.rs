//! Requests to the API, in this process, as the person who looks at the page.

use axum::body::Body;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::admin::types::ApiProblem;
use crate::admin::{LocalApi, Viewer};

/// The largest response that is read.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// The API, for one viewer.
#[derive(Clone)]
pub(super) struct Client {
    api: LocalApi,
    viewer: Viewer,
    /// The host that the viewer's browser names; the API checks it.
    host: Option<HeaderValue>,
}

impl Client {
    pub(super) fn new(api: LocalApi, viewer: Viewer, host: Option<HeaderValue>) -> Self {
        Self { api, viewer, host }
    }

    /// GET of a path, as JSON.
    ///
    /// # Errors
    /// The API's problem.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Box<ApiProblem>> {
        let response = self.call(Method::GET, path, Body::empty(), &[]).await?;
        read(response).await
    }

    /// POST of a JSON body.
    ///
    /// # Errors
    /// The API's problem.
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Box<ApiProblem>> {
        let body = serde_json::to_vec(body).map_err(|error| failed(&error.to_string()))?;
        read(self.call(Method::POST, path, Body::from(body), &[]).await?).await
    }

    /// The API's response to a GET, as it is: for a stream.
    ///
    /// # Errors
    /// The path is no URI.
    pub(super) async fn stream(
        &self,
        path: &str,
        last_event_id: Option<&HeaderValue>,
    ) -> Result<axum::response::Response, Box<ApiProblem>> {
        let header = last_event_id.map(|id| (header::HeaderName::from_static("last-event-id"), id.clone()));
        self.call(Method::GET, path, Body::empty(), header.as_slice()).await
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Body,
        headers: &[(header::HeaderName, HeaderValue)],
    ) -> Result<axum::response::Response, Box<ApiProblem>> {
        let request = Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, "application/json");
        let mut request = request.body(body).map_err(|error| failed(&error.to_string()))?;
        if let Some(host) = &self.host {
            request.headers_mut().insert(header::HOST, host.clone());
        }
        request.headers_mut().extend(headers.iter().cloned());
        Ok(self.api.call(&self.viewer, request).await)
    }
}

async fn read<T: DeserializeOwned>(response: axum::response::Response) -> Result<T, Box<ApiProblem>> {
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    let bytes = body.map_err(|error| failed(&error.to_string()))?.to_bytes();
    if status.is_success() {
        return serde_json::from_slice(&bytes).map_err(|error| failed(&error.to_string()));
    }
    Err(Box::new(serde_json::from_slice(&bytes).unwrap_or_else(|_| problem(status, &String::from_utf8_lossy(&bytes)))))
}

fn failed(detail: &str) -> Box<ApiProblem> {
    Box::new(problem(StatusCode::INTERNAL_SERVER_ERROR, detail))
}

/// A problem of the page itself.
pub(super) fn problem(status: StatusCode, detail: &str) -> ApiProblem {
    ApiProblem {
        kind: "about:blank".into(),
        title: status.canonical_reason().unwrap_or("Error").to_owned(),
        status: status.as_u16(),
        detail: detail.to_owned(),
        hint: None,
        reasons: Vec::new(),
        commands: Vec::new(),
        errors: Vec::new(),
        problems: Vec::new(),
        run_id: None,
        run_status: None,
        first: None,
        row: None,
    }
}

/// A text as one segment of a path.
pub(super) fn segment(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

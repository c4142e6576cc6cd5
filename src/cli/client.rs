//! The HTTP client of a running process's API.
//!
//! If the server does not answer within [`ANSWER_TIME_MAX`], the request fails. If it cannot be reached, the error
//! says what to do. A response larger than the bound is an error. No request is retried, since a request without a
//! response may have taken effect: the person decides.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::args::Server;
use crate::admin::types::ApiProblem;

/// How long a request may take, from connecting to the last byte; for a stream, to the head of the response. A flip may
/// wait for a lease of another process.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(25);
/// How long a probe may take: less than what supervisors allow a check.
const PROBE_TIME_MAX: Duration = Duration::from_secs(2);
/// After this time a command says what it waits for.
const SHOWN_AFTER: Duration = Duration::from_millis(1_500);
/// A stream sends heartbeats: without any byte for this long it is broken.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// The largest response that is read.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum CallError {
    /// The server refused the request: its problem, parsed and as raw JSON.
    Refused(Box<ApiProblem>, Value),
    /// Every other error, such as an unreachable server, a response that cannot be parsed or a wrong option: what
    /// happened, and what to do.
    Failed(String, String),
}

/// A response of server-sent events.
pub(crate) struct Events {
    body: Incoming,
    /// The bytes that were received and not yet parsed.
    buffer: Vec<u8>,
}

/// One server-sent event.
#[derive(Debug, PartialEq)]
pub(crate) struct ServerSentEvent {
    /// The value that a client sends as `Last-Event-ID` to receive the events after this one.
    pub id: Option<String>,
    pub name: String,
    pub data: Value,
}

impl ServerSentEvent {
    /// Parses the lines of one event; `None` where they are only comments.
    fn parse(block: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(block);
        let (mut id, mut name, mut data) = (None, "message".to_owned(), String::new());
        for line in text.lines() {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "id" => id = Some(value.to_owned()),
                "event" => name = value.to_owned(),
                "data" => data.push_str(value),
                _ => {}
            }
        }
        (!data.is_empty()).then(|| Self { id, name, data: serde_json::from_str(&data).unwrap_or_default() })
    }
}

/// A client of the API.
pub(crate) struct Client {
    base: String,
    token: Option<String>,
    pool: Pool<HttpConnector, Full<Bytes>>,
    runtime: tokio::runtime::Runtime,
}

impl Client {
    /// A client for this server; nothing is sent yet.
    pub fn new(server: &Server) -> Result<Self, CallError> {
        let base = server.admin.trim_end_matches('/').to_owned();
        let base = if base.contains("://") { base } else { format!("http://{base}") };
        let uri: Uri = base.parse().map_err(|error| {
            let example = "an example is --admin http://127.0.0.1:8081";
            CallError::Failed(format!("`{base}` is not a URL: {error}"), example.to_owned())
        })?;
        if uri.scheme_str() != Some("http") {
            let hint = "this version speaks plain http to the API: use a tunnel, or an address on this machine";
            return Err(CallError::Failed(format!("`{base}` is not an http URL"), hint.to_owned()));
        }
        let token = match &server.token_file {
            Some(path) => Some(std::fs::read_to_string(path).map_err(|error| {
                let message = format!("the token file `{}` cannot be read: {error}", path.display());
                CallError::Failed(message, "check --token-file".to_owned())
            })?),
            None => std::env::var("POINTSMAN_TOKEN").ok(),
        };
        let token = token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
            CallError::Failed(format!("the runtime cannot be created: {error}"), "try again".to_owned())
        })?;
        Ok(Self { base, token, pool: Pool::builder(TokioExecutor::new()).build_http(), runtime })
    }

    /// GET; returns the response as `T` and as raw JSON.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<(T, Value), CallError> {
        self.call(Method::GET, path, None, &[])
    }

    /// GET of a probe, which is answered as text: whether the status is 2xx, and the text.
    pub fn probe(&self, path: &str) -> Result<(bool, String), CallError> {
        self.within(PROBE_TIME_MAX, async {
            let response = self.send(Method::GET, path, None, &[]).await?;
            let is_ok = response.status().is_success();
            Ok((is_ok, String::from_utf8_lossy(&self.body(response).await?).into_owned()))
        })
    }

    /// POST; returns the response as `T` and as raw JSON.
    pub fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        request_body: &impl serde::Serialize,
    ) -> Result<(T, Value), CallError> {
        let body = serde_json::to_value(request_body).unwrap_or_default();
        self.call(Method::POST, path, Some(body), &[])
    }

    /// POST of a request that the server may work on for long. What it waits for is printed once that takes a while.
    pub fn post_showing_wait<T: DeserializeOwned>(
        &self,
        path: &str,
        request_body: &impl serde::Serialize,
        within: Duration,
        what: &str,
    ) -> Result<(T, Value), CallError> {
        let body = serde_json::to_value(request_body).unwrap_or_default();
        let (status, body) = self.within(within, async {
            let work = async {
                let response = self.send(Method::POST, path, Some(&body), &[]).await?;
                let status = response.status();
                Ok((status, self.body(response).await?))
            };
            tokio::pin!(work);
            match tokio::time::timeout(SHOWN_AFTER, &mut work).await {
                Ok(answer) => answer,
                Err(_) => {
                    eprintln!("{what}");
                    work.await
                }
            }
        })?;
        self.parse(path, status, &body)
    }

    /// POST with a `Prefer` header, which says how long the server may wait.
    pub fn post_preferring<T: DeserializeOwned>(
        &self,
        path: &str,
        request_body: &impl serde::Serialize,
        prefer: &str,
    ) -> Result<(T, Value), CallError> {
        let body = serde_json::to_value(request_body).unwrap_or_default();
        self.call(Method::POST, path, Some(body), &[("prefer", prefer)])
    }

    fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        request_body: Option<Value>,
        headers: &[(&str, &str)],
    ) -> Result<(T, Value), CallError> {
        let (status, body) = self.within(ANSWER_TIME_MAX, async {
            let response = self.send(method, path, request_body.as_ref(), headers).await?;
            let status = response.status();
            Ok((status, self.body(response).await?))
        })?;
        self.parse(path, status, &body)
    }

    /// Waits for a request, at most so long.
    fn within<T>(&self, at_most: Duration, work: impl Future<Output = Result<T, CallError>>) -> Result<T, CallError> {
        self.runtime.block_on(async {
            match tokio::time::timeout(at_most, work).await {
                Ok(answer) => answer,
                Err(_) => Err(CallError::Failed(
                    format!("{} did not answer within {} s", self.base, at_most.as_secs()),
                    "a request that changes something may still take effect: look with `pointsman status` or `pointsman \
                     runs list` before you try again"
                        .to_owned(),
                )),
            }
        })
    }

    fn parse<T: DeserializeOwned>(&self, path: &str, status: StatusCode, body: &[u8]) -> Result<(T, Value), CallError> {
        let value: Value = serde_json::from_slice(body).map_err(|_| self.not_pointsman(status))?;
        if !status.is_success() {
            if !value.get("title").is_some_and(Value::is_string) {
                return Err(self.not_pointsman(status));
            }
            let problem: ApiProblem = serde_json::from_value(value.clone()).map_err(|_| self.not_pointsman(status))?;
            return Err(CallError::Refused(Box::new(problem), value));
        }
        match serde_json::from_value(value.clone()) {
            Ok(answer) => Ok((answer, value)),
            Err(error) => Err(CallError::Failed(
                format!("the answer of {} to {path} cannot be parsed by this version: {error}", self.base),
                "use the same version of pointsman for the command and the server, or --json".to_owned(),
            )),
        }
    }

    /// Opens an event stream; `None` where the run has ended and all its events were received.
    pub fn open(
        &self,
        method: Method,
        path: &str,
        request_body: Option<&Value>,
        last: Option<&str>,
    ) -> Result<Option<Events>, CallError> {
        let headers: Vec<(&str, &str)> = last.into_iter().map(|last| ("last-event-id", last)).collect();
        let response = self.within(ANSWER_TIME_MAX, self.send(method, path, request_body, &headers))?;
        let status = response.status();
        if status == StatusCode::NO_CONTENT {
            return Ok(None);
        }
        let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        if status.is_success() && kind.is_some_and(|kind| kind.starts_with("text/event-stream")) {
            return Ok(Some(Events { body: response.into_body(), buffer: Vec::new() }));
        }
        let body = self.within(ANSWER_TIME_MAX, self.body(response))?;
        Err(self.parse::<Value>(path, status, &body).err().unwrap_or_else(|| self.not_pointsman(status)))
    }

    /// The next event of a stream; `None` when the response has ended, after the last event or because the connection
    /// was closed.
    pub fn next(&self, events: &mut Events) -> Result<Option<ServerSentEvent>, CallError> {
        let broke = |why: &str| CallError::Failed(format!("the stream broke: {why}"), "try again".to_owned());
        loop {
            if let Some(end) = events.buffer.windows(2).position(|two| two == b"\n\n") {
                let block: Vec<u8> = events.buffer.drain(..end + 2).collect();
                match ServerSentEvent::parse(&block) {
                    Some(event) => return Ok(Some(event)),
                    None => continue, // a comment
                }
            }
            if events.buffer.len() > ANSWER_BYTES_MAX {
                return Err(broke("one event is larger than the largest response"));
            }
            let frame = self.runtime.block_on(async { tokio::time::timeout(IDLE_MAX, events.body.frame()).await });
            match frame {
                Ok(Some(Ok(frame))) => events.buffer.extend(frame.into_data().unwrap_or_default()),
                Ok(Some(Err(error))) => return Err(broke(&error.to_string())),
                Ok(None) => return Ok(None),
                Err(_) => return Err(broke(&format!("no byte within {} s", IDLE_MAX.as_secs()))),
            }
        }
    }

    async fn body(&self, response: Response<Incoming>) -> Result<Bytes, CallError> {
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(|error| {
            CallError::Failed(
                format!("the response of {} could not be read whole: {error}", self.base),
                "a request that changes something has probably taken effect: look with `pointsman status` or `pointsman \
                 runs list` before you try again"
                    .to_owned(),
            )
        })?;
        Ok(body.to_bytes())
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        request_body: Option<&Value>,
        headers: &[(&str, &str)],
    ) -> Result<Response<Incoming>, CallError> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        request = request.header(header::ACCEPT, "application/json, application/problem+json, text/event-stream");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let body = match request_body {
            Some(request_body) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Full::new(Bytes::from(request_body.to_string()))
            }
            None => Full::default(),
        };
        let request = request.body(body).map_err(|error| {
            CallError::Failed(
                format!("the request is not valid HTTP: {error}"),
                "check the name and the token".to_owned(),
            )
        })?;
        self.pool.request(request).await.map_err(|error| self.no_response(&error))
    }

    fn no_response(&self, error: &hyper_util::client::legacy::Error) -> CallError {
        let mut cause: &dyn std::error::Error = error;
        while let Some(next) = cause.source() {
            cause = next;
        }
        if !error.is_connect() {
            return CallError::Failed(
                format!("the connection to {} failed before an answer came: {cause}", self.base),
                "a request that changes something may have taken effect: look with `pointsman status` or `pointsman runs \
                 list` before you try again"
                    .to_owned(),
            );
        }
        CallError::Failed(
            format!("no pointsman answers at {}: {cause}", self.base),
            "start one with `pointsman serve --flags DIR`, or say where it is with --admin URL or POINTSMAN_ADMIN"
                .to_owned(),
        )
    }

    fn not_pointsman(&self, status: StatusCode) -> CallError {
        CallError::Failed(
            format!("{} answered {status}, but not in the format of pointsman's API", self.base),
            "check that this is the address of the API (`admin.listen`) and not of the proxy".to_owned(),
        )
    }
}

/// A name, percent-encoded for a path.
pub(crate) fn component(name: &str) -> String {
    percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// `?a=b&c=d` of the parameters that have a value.
pub(crate) fn query(parts: &[(&str, Option<String>)]) -> String {
    let parts = parts.iter().filter_map(|(name, value)| Some(format!("{name}={}", component(value.as_deref()?))));
    let joined = parts.collect::<Vec<_>>().join("&");
    if joined.is_empty() { joined } else { format!("?{joined}") }
}

//! A small HTTP server and client for the sample services.
//!
//! Always true: a [`Server`] listens from the moment it exists and stops when it is dropped; an [`Outage`] that its
//! [`OutageSwitch`] sets acts on open connections too, as a real outage does. A handler that returns [`Dropped`] closes
//! the connection without an answer, so that the caller cannot know what was done. The client returns an error after
//! its timeout when the other side is slow, and at once when it is gone; no request is repeated.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client as PooledClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};

/// The largest body that a sample service reads.
const BODY_BYTES_MAX: usize = 16 << 20;

/// One request, read whole.
#[derive(Debug)]
pub struct Call {
    /// The method.
    pub method: Method,
    /// The path without its query.
    pub path: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Call {
    /// A header as text; empty if it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }
    /// The body as JSON; null if it is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
    /// The parts of the path.
    pub fn segments(&self) -> Vec<&str> {
        self.path.split('/').filter(|s| !s.is_empty()).collect()
    }
}

/// The connection was closed, and no answer was sent.
#[derive(Debug, thiserror::Error)]
#[error("closed without an answer")]
pub struct Dropped;

/// What a handler returns.
pub type HandlerResult = Result<Response<Full<Bytes>>, Dropped>;

/// An answer with a JSON body.
pub fn json(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

/// An answer without a body.
pub fn empty(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

/// How a service fails as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outage {
    /// It works.
    None,
    /// It answers 503 to everything.
    Unavailable,
    /// It closes each new connection at once, and each open one at its next request.
    Gone,
}

/// Turns an outage on and off.
#[derive(Clone, Debug, Default)]
pub struct OutageSwitch(Arc<AtomicU8>);

impl OutageSwitch {
    /// Sets the outage.
    pub fn set(&self, outage: Outage) {
        self.0.store(outage as u8, Ordering::SeqCst);
    }
    /// The present outage.
    pub fn get(&self) -> Outage {
        match self.0.load(Ordering::SeqCst) {
            0 => Outage::None,
            1 => Outage::Unavailable,
            _ => Outage::Gone,
        }
    }
}

/// A listening service; dropping it stops it.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    switch: OutageSwitch,
    task: AbortHandle,
}

impl Server {
    /// Listens and answers with `handler`.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn start<H, F>(address: SocketAddr, handler: H) -> io::Result<Self>
    where
        H: Fn(Call) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = HandlerResult> + Send + 'static,
    {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let switch = OutageSwitch::default();
        let task = tokio::spawn(accept(listener, switch.clone(), handler)).abort_handle();
        Ok(Self { address, switch, task })
    }
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
    /// Its base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
    /// Its outage switch.
    pub fn switch(&self) -> &OutageSwitch {
        &self.switch
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept<H, F>(listener: TcpListener, switch: OutageSwitch, handler: H)
where
    H: Fn(Call) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = HandlerResult> + Send + 'static,
{
    // Dropped when this task ends, which closes every connection.
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(_) => continue,
            },
            Some(_) = connections.join_next() => continue,
        };
        if switch.get() == Outage::Gone {
            continue;
        }
        stream.set_nodelay(true).ok();
        let (switch, handler) = (switch.clone(), handler.clone());
        connections.spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let (switch, handler) = (switch.clone(), handler.clone());
                async move {
                    match switch.get() {
                        Outage::None => {}
                        Outage::Unavailable => return Ok(empty(StatusCode::SERVICE_UNAVAILABLE)),
                        Outage::Gone => return Err(Dropped),
                    }
                    let (head, body) = request.into_parts();
                    let Ok(body) = Limited::new(body, BODY_BYTES_MAX).collect().await else {
                        return Ok(empty(StatusCode::PAYLOAD_TOO_LARGE));
                    };
                    let call = Call {
                        method: head.method,
                        path: head.uri.path().to_owned(),
                        headers: head.headers,
                        body: body.to_bytes(),
                    };
                    handler(call).await
                }
            });
            // An error here is a client that went away, or a handler that closed on purpose.
            let _closed =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// The reply to a request.
#[derive(Debug)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Reply {
    /// The body as JSON; null if it is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

/// No reply was received; the text says why.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NoReply(pub String);

/// A client with a pool of connections and one timeout for every request.
#[derive(Clone, Debug)]
pub struct Client {
    pooled: PooledClient<HttpConnector, Full<Bytes>>,
    timeout: Duration,
}

impl Client {
    /// A client with a pool of its own.
    pub fn new(timeout: Duration) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self { pooled: PooledClient::builder(TokioExecutor::new()).build(connector), timeout }
    }
    /// Sends a request and reads the whole reply.
    ///
    /// # Errors
    /// The whole reply did not arrive in time.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Result<Reply, NoReply> {
        let exchange = async {
            let response = self.pooled.request(request).await.map_err(|e| NoReply(root_cause_text(&e)))?;
            let (head, body) = response.into_parts();
            let body = body.collect().await.map_err(|e| NoReply(root_cause_text(&e)))?.to_bytes();
            Ok(Reply { status: head.status, headers: head.headers, body })
        };
        tokio::time::timeout(self.timeout, exchange)
            .await
            .unwrap_or_else(|_| Err(NoReply(format!("no reply within {:?}", self.timeout))))
    }
    /// Sends JSON with headers; sends no body if it is null.
    ///
    /// # Errors
    /// The whole reply did not arrive in time, or the URL is invalid.
    pub async fn json(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> Result<Reply, NoReply> {
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let bytes = if body.is_null() {
            Bytes::new()
        } else {
            request = request.header(header::CONTENT_TYPE, "application/json");
            Bytes::from(body.to_string())
        };
        self.send(request.body(Full::new(bytes)).map_err(|e| NoReply(e.to_string()))?).await
    }
}

fn root_cause_text(error: &dyn std::error::Error) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

//! Outward calls.
//!
//! Always true: a [`RehearsingClient`] has one method, and it takes a [`ReadCall`], which cannot be made of anything
//! but a `read`; a [`SendingClient`] takes a [`SendCall`], which the run's mode must allow. Redirects are not
//! followed, a reply's body is bounded, each attempt ends within its time.
//!
//! When the other side is slow, the attempt times out with an unknown outcome; when it cannot be reached, the request
//! never left; when it is not the call's turn in time (too many under way, too many a second, an open breaker: `service`),
//! it never left either. A call that
//! must not be repeated goes over a connection of its own, so that no stale pooled one makes its outcome unknown.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use http::header::RETRY_AFTER;
use http::{HeaderMap, Method, Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::connect::{HttpConnector, capture_connection};
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::Instant;

use super::decode;
use super::service::Base;
use crate::limits::Limits;
use crate::workflow::{EffectClass, Heard, Mode};

/// A request, ready to leave.
pub(super) struct Outgoing {
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// One attempt, from waiting for its turn to the last byte of the reply.
    pub timeout: Duration,
    /// Sending it again does no harm.
    pub repeatable: bool,
    /// What its run may send.
    pub mode: Mode,
    /// Where it waits for its turn.
    pub base: Arc<Base>,
}

/// A call that only reads: there is no other way to make one.
pub(super) struct ReadCall(Outgoing);

impl ReadCall {
    /// Only of a `read`.
    pub fn new(effect: EffectClass, call: Outgoing) -> Option<Self> {
        match effect {
            EffectClass::Read => Some(Self(call)),
            EffectClass::Private | EffectClass::Shared => None,
        }
    }
}

/// A call that a run of its mode may send.
pub(super) struct SendCall(Outgoing);

impl SendCall {
    /// Only what the mode allows.
    pub fn new(mode: Mode, effect: EffectClass, call: Outgoing) -> Option<Self> {
        mode.sends(effect).then_some(Self(call))
    }
}

/// Performs the attempts of a run.
pub(super) trait Executor: Send + Sync {
    /// Sends a call, where this executor can; what it cannot never left.
    fn perform(&self, effect: EffectClass, call: Outgoing) -> BoxFuture<'static, Heard>;
}

/// Sends reads.
#[derive(Clone)]
pub(super) struct RehearsingClient(Wire);

impl RehearsingClient {
    pub fn new(limits: &Limits) -> Self {
        Self(Wire::new(limits))
    }
    /// Sends a read.
    pub async fn read(self, call: ReadCall) -> Heard {
        self.0.call(call.0).await
    }
}

impl Executor for RehearsingClient {
    fn perform(&self, effect: EffectClass, call: Outgoing) -> BoxFuture<'static, Heard> {
        match ReadCall::new(effect, call) {
            Some(call) => Box::pin(self.clone().read(call)),
            None => Box::pin(std::future::ready(Heard::NotSent("a rehearsal sends only reads".into()))),
        }
    }
}

/// Sends what a mode allows.
#[derive(Clone)]
pub(super) struct SendingClient {
    wire: Wire,
    mode: Mode,
}

impl SendingClient {
    pub fn new(limits: &Limits, mode: Mode) -> Self {
        Self { wire: Wire::new(limits), mode }
    }
    /// Sends a call.
    pub async fn send(self, call: SendCall) -> Heard {
        self.wire.call(call.0).await
    }
}

impl Executor for SendingClient {
    fn perform(&self, effect: EffectClass, call: Outgoing) -> BoxFuture<'static, Heard> {
        match SendCall::new(self.mode, effect, call) {
            Some(call) => Box::pin(self.clone().send(call)),
            None => Box::pin(std::future::ready(Heard::NotSent("the run's mode does not send this".into()))),
        }
    }
}

/// Connections of one kind of run.
#[derive(Clone)]
struct Wire {
    pools: Arc<Pools>,
    output_bytes_max: usize,
    output_depth_max: usize,
}

type Pool = Client<HttpConnector, Full<Bytes>>;

/// A pool for each time that connecting may take: a connector knows only one.
struct Pools {
    idle_max: usize,
    idle: Duration,
    by_connect: Mutex<HashMap<Duration, [Pool; 2]>>,
}

/// Different connect times that are remembered; a file has one for most of its services.
const POOLS_MAX: usize = 64;

impl Pools {
    /// The pool for a call; one that keeps no connections where the call must not meet a stale one.
    fn of(&self, connect: Duration, repeatable: bool) -> Pool {
        let mut pools = self.by_connect.lock().unwrap_or_else(PoisonError::into_inner);
        if pools.len() >= POOLS_MAX && !pools.contains_key(&connect) {
            pools.clear(); // files that were edited many times; what is under way goes on
        }
        let [pooled, fresh] = pools.entry(connect).or_insert_with(|| {
            let client = |idle_max: usize| {
                let mut connector = HttpConnector::new();
                connector.set_nodelay(true);
                connector.set_connect_timeout(Some(connect));
                Client::builder(TokioExecutor::new())
                    .pool_timer(TokioTimer::new())
                    .pool_idle_timeout(self.idle)
                    .pool_max_idle_per_host(idle_max)
                    .build(connector)
            };
            [client(self.idle_max), client(0)]
        });
        if repeatable { pooled.clone() } else { fresh.clone() }
    }
}

impl Wire {
    fn new(limits: &Limits) -> Self {
        let pools = Pools {
            idle_max: usize_of(limits.service_idle_connections_max),
            idle: Limits::ms(limits.service_idle_ms),
            by_connect: Mutex::default(),
        };
        Self {
            pools: Arc::new(pools),
            output_bytes_max: usize_of(limits.output_bytes_max),
            output_depth_max: decode::depth_max(limits),
        }
    }

    async fn call(self, call: Outgoing) -> Heard {
        let ends = Instant::now() + call.timeout;
        let turn = match call.base.turn(call.mode, ends).await {
            Ok(turn) => turn,
            Err(refused) => return refused,
        };
        let heard = self.send(call, ends).await;
        turn.heard(&heard);
        heard
    }

    async fn send(self, call: Outgoing, ends: Instant) -> Heard {
        let Outgoing { method, uri, headers, body, timeout, repeatable, mode: _, base } = call;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        let connection = capture_connection(&mut request);
        let client = self.pools.of(base.connect(), repeatable);
        let (head_ends, within) = match base.first_byte().filter(|first| Instant::now() + *first < ends) {
            Some(first_byte) => (Instant::now() + first_byte, first_byte),
            None => (ends, timeout),
        };
        let reply = match tokio::time::timeout_at(head_ends, client.request(request)).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(error)) if error.is_connect() => return Heard::NotSent(chain(&error)),
            Ok(Err(error)) => return Heard::CutOff(chain(&error)),
            // Without a connection not a byte has left.
            Err(_) if connection.connection_metadata().is_none() => {
                return Heard::NotSent(format!("no connection within {} ms", within.as_millis()));
            }
            Err(_) => return Heard::TimedOut(format!("within {} ms", within.as_millis())),
        };
        let (head, body) = reply.into_parts();
        let status = head.status.as_u16();
        match tokio::time::timeout_at(ends, read_whole(body, self.output_bytes_max)).await {
            Ok(Ok(Some(bytes))) => {
                let bounds = decode::Bounds { bytes: self.output_bytes_max, depth: self.output_depth_max };
                match decode::coded(&head.headers, &bytes, bounds) {
                    Ok(output) => Heard::Reply {
                        status,
                        headers: reply_headers(&head.headers),
                        output: Arc::new(output),
                        retry_after_ms: retry_after_ms(&head.headers, SystemTime::now()),
                    },
                    Err(why) => Heard::Unreadable { status, why },
                }
            }
            Ok(Ok(None)) => {
                let why = format!("its body is larger than the limit output_bytes_max ({})", self.output_bytes_max);
                Heard::Unreadable { status, why }
            }
            Ok(Err(why)) => Heard::CutOff(why),
            Err(_) => Heard::TimedOut(format!("its body did not end within {} ms", timeout.as_millis())),
        }
    }
}

/// A body, or `None` where it is larger than the bound.
async fn read_whole(mut body: hyper::body::Incoming, bytes_max: usize) -> Result<Option<Bytes>, String> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| error.to_string())?;
        if let Ok(data) = frame.into_data() {
            if whole.len() + data.len() > bytes_max {
                return Ok(None);
            }
            whole.extend_from_slice(&data);
        }
    }
    Ok(Some(whole.freeze()))
}

/// A reply's headers, less what would hand a service's session to whoever reads the events.
fn reply_headers(headers: &HeaderMap) -> BTreeMap<String, String> {
    let mut headers = decode::headers(headers);
    headers.remove("set-cookie");
    headers
}

fn retry_after_ms(headers: &HeaderMap, now: SystemTime) -> Option<u64> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(seconds.saturating_mul(1_000));
    }
    let at = httpdate::parse_http_date(text).ok()?;
    u64::try_from(at.duration_since(now).unwrap_or_default().as_millis()).ok()
}

fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}

/// A bound of `limits` as a length.
pub(super) fn usize_of(bound: u64) -> usize {
    usize::try_from(bound).unwrap_or(usize::MAX)
}

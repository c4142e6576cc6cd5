//! Outward calls.
//!
//! Always true: a [`RehearsingClient`] has one method, and it takes a [`ReadCall`], which cannot be made of anything
//! but a `read`; a [`SendingClient`] takes a [`SendCall`], which the run's mode must allow. Redirects are not
//! followed, a reply's body is bounded, each attempt ends within its time.
//!
//! When the other side is slow, the attempt times out with an unknown outcome; when it cannot be reached, the request
//! never left; when it is not the call's turn in time (too many under way, too many a second, an open breaker:
//! `service`), it never left either; and neither does a call of a run that may have become another process's while it
//! waited (`lease`), nor an effect while effects are frozen (`kill_switch`). A call that must not be repeated goes over a
//! new connection, or over one that was used just before (`links`), so that no stale pooled one makes its outcome
//! unknown.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::poll;
use http::header::RETRY_AFTER;
use http::{HeaderMap, Method, Request, Uri};
use http_body_util::Full;
use tokio::time::{Instant, timeout_at};

use crate::clock;
use crate::engine::bounds::usize_of;
use crate::engine::kill_switch::{KillSwitch, Operation};
use crate::engine::ports::connections::{self, Broken, ConnectionPool, Exchanged};
use crate::engine::ports::decode;
use crate::engine::ports::service::Upstream;
use crate::engine::scheduler::lease::LeaseProof;
use crate::limits::Limits;
use crate::names::RunId;
use crate::workflow::{AttemptResult, EffectClass, KeptHeaders, Mode};

/// A request, ready to leave.
pub(in crate::engine) struct Outgoing {
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
    /// Its run.
    pub run: RunId,
    /// Where it waits for its turn.
    pub base: Arc<Upstream>,
    /// It leaves only while this holds.
    pub lease_proof: Option<LeaseProof>,
    /// Which of the reply's headers are kept.
    pub kept_headers: Arc<KeptHeaders>,
}

/// Why a call does not leave after all, asked just before its first byte: its run may be another process's.
pub(in crate::engine) fn withheld(lease_proof: Option<&LeaseProof>) -> Option<AttemptResult> {
    let why = "the store has not heard of this process for so long that the run may be another's";
    lease_proof.filter(|proof| !proof.is_valid()).map(|_| AttemptResult::Withheld(why.into()))
}

/// A call that only reads: there is no other way to make one.
pub(in crate::engine) struct ReadCall(Outgoing);

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
pub(in crate::engine) struct SendCall(Outgoing, EffectClass);

impl SendCall {
    /// Only what the mode allows.
    pub fn new(mode: Mode, effect: EffectClass, call: Outgoing) -> Option<Self> {
        mode.sends(effect).then_some(Self(call, effect))
    }
}

/// Performs the attempts of a run.
pub(in crate::engine) trait Executor: Send + Sync {
    /// Sends a call, where this executor can; what it cannot never left.
    fn perform(&self, effect: EffectClass, call: Outgoing) -> BoxFuture<'static, AttemptResult>;
}

/// Sends reads.
#[derive(Clone)]
pub(in crate::engine) struct RehearsingClient(Wire);

impl RehearsingClient {
    pub fn new(limits: &Limits, key_secret: &[u8; 32]) -> Self {
        Self(Wire::new(limits, key_secret))
    }
    /// Sends a read.
    pub async fn read(self, call: ReadCall) -> AttemptResult {
        self.0.call(call.0, None).await
    }
}

impl Executor for RehearsingClient {
    fn perform(&self, effect: EffectClass, call: Outgoing) -> BoxFuture<'static, AttemptResult> {
        match ReadCall::new(effect, call) {
            Some(call) => Box::pin(self.clone().read(call)),
            None => Box::pin(std::future::ready(AttemptResult::NotSent("a rehearsal sends only reads".into()))),
        }
    }
}

/// Sends what a mode allows.
#[derive(Clone)]
pub(in crate::engine) struct SendingClient {
    wire: Wire,
    mode: Mode,
    kill_switch: Arc<KillSwitch>,
}

impl SendingClient {
    pub fn new(limits: &Limits, key_secret: &[u8; 32], mode: Mode, kill_switch: Arc<KillSwitch>) -> Self {
        Self { wire: Wire::new(limits, key_secret), mode, kill_switch }
    }
    /// Sends a call; what is an effect leaves only while the kill switch allows it.
    pub async fn send(self, SendCall(call, effect): SendCall) -> AttemptResult {
        let kill_switch = Some(&*self.kill_switch).filter(|_| effect != EffectClass::Read);
        self.wire.call(call, kill_switch).await
    }
}

impl Executor for SendingClient {
    fn perform(&self, effect: EffectClass, call: Outgoing) -> BoxFuture<'static, AttemptResult> {
        match SendCall::new(self.mode, effect, call) {
            Some(call) => Box::pin(self.clone().send(call)),
            None => Box::pin(std::future::ready(AttemptResult::NotSent("the run's mode does not send this".into()))),
        }
    }
}

/// Connections of one kind of run.
#[derive(Clone)]
struct Wire {
    links: Arc<ConnectionPool>,
    bounds: decode::Bounds,
}

impl Wire {
    fn new(limits: &Limits, key_secret: &[u8; 32]) -> Self {
        Self {
            links: ConnectionPool::new(
                usize_of(limits.service_idle_connections_max),
                Limits::ms(limits.service_idle_ms),
                Limits::ms(limits.service_unrepeatable_idle_ms),
            ),
            bounds: decode::Bounds::of(limits, key_secret),
        }
    }

    async fn call(self, call: Outgoing, kill_switch: Option<&KillSwitch>) -> AttemptResult {
        let ends = Instant::now() + call.timeout;
        let turn = match call.base.turn(call.mode, call.run, ends).await {
            Ok(turn) => turn,
            Err(refused) => return refused,
        };
        // What has no time left is not sent: it would only be unknown what it did.
        if Instant::now() >= ends {
            return AttemptResult::NotSent("its time was over before it left".into());
        }
        let heard = self.send(call, ends, kill_switch).await;
        turn.heard(&heard);
        heard
    }

    async fn send(self, call: Outgoing, ends: Instant, kill_switch: Option<&KillSwitch>) -> AttemptResult {
        let Outgoing {
            method,
            uri,
            headers,
            body,
            timeout,
            repeatable,
            mode: _,
            run: _,
            base,
            lease_proof,
            kept_headers,
        } = call;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        let (head_ends, within) = match base.first_byte().filter(|first| Instant::now() + *first < ends) {
            Some(first_byte) => (Instant::now() + first_byte, first_byte),
            None => (ends, timeout),
        };
        let there = request.uri().clone();
        connections::to_origin(&mut request);
        let (link, exchanged) = loop {
            let mut link = match timeout_at(head_ends, self.links.take(&there, repeatable, base.connect())).await {
                Ok(Ok(link)) => link,
                Ok(Err(why)) => return AttemptResult::NotSent(why),
                // Without a connection not a byte has left.
                Err(_) => return AttemptResult::NotSent(format!("no connection within {} ms", within.as_millis())),
            };
            if let Some(withheld) = withheld(lease_proof.as_ref()) {
                return withheld;
            }
            let pass = match kill_switch.map(|switch| switch.begin(Operation::Effect)) {
                Some(None) => return AttemptResult::Withheld("private and shared steps are frozen".into()),
                Some(pass) => pass,
                None => None,
            };
            let exchanged = {
                let mut exchange = pin!(link.exchange(request, self.bounds.bytes, head_ends, ends));
                // With the first poll the request is on the connection: it has begun.
                let first = poll!(exchange.as_mut());
                drop(pass);
                match first {
                    Poll::Ready(exchanged) => exchanged,
                    Poll::Pending => exchange.await,
                }
            };
            match exchanged {
                Ok(exchanged) => break (link, exchanged),
                // The other side had closed it: another one takes it.
                Err((Broken::NotSent(_), Some(unsent))) if link.reused => request = unsent,
                Err((Broken::NotSent(why), _)) => return AttemptResult::NotSent(why),
                Err((Broken::CutOff(why), _)) => return AttemptResult::CutOff(why),
            }
        };
        let (head, body) = match exchanged {
            Exchanged::Whole(reply) => reply,
            Exchanged::NoHead => return AttemptResult::TimedOut(format!("within {} ms", within.as_millis())),
            Exchanged::NoEnd => {
                return AttemptResult::TimedOut(format!("its body did not end within {} ms", timeout.as_millis()));
            }
        };
        let status = head.status.as_u16();
        let bytes = match body {
            Ok(bytes) => bytes,
            Err(begins) => {
                let why = format!("its body is larger than the limit output_bytes_max ({})", self.bounds.bytes);
                return AttemptResult::Unreadable { status, why, begins: decode::excerpt(&begins) };
            }
        };
        self.links.give_back(&there, link).await;
        match decode::coded(&head.headers, &bytes, self.bounds) {
            Ok(output) => AttemptResult::Reply {
                status,
                headers: reply_headers(&head.headers, &kept_headers),
                output: Arc::new(output),
                retry_after_ms: retry_after_ms(&head.headers, clock::now().into()),
            },
            Err(why) => AttemptResult::Unreadable { status, why, begins: decode::excerpt(&bytes) },
        }
    }
}

/// Those of a reply's headers that the run keeps, less what would hand a service's session to whoever reads the events.
fn reply_headers(headers: &HeaderMap, kept: &KeptHeaders) -> BTreeMap<String, String> {
    let mut shown = match kept {
        KeptHeaders::All => decode::headers(headers),
        KeptHeaders::Only(names) => decode::headers_of(headers, names.iter().map(|name| &**name)),
    };
    shown.remove("set-cookie");
    shown
}

fn retry_after_ms(headers: &HeaderMap, now: SystemTime) -> Option<u64> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(seconds.saturating_mul(1_000));
    }
    let at = httpdate::parse_http_date(text).ok()?;
    u64::try_from(at.duration_since(now).unwrap_or_default().as_millis()).ok()
}

//! Sends the calls of steps.
//!
//! Always true: a [`RehearsingClient`] sends by one method, which takes a [`ReadCall`], which can only be made of a
//! `read`; a [`SendingClient`] takes a [`SendCall`], which the run's mode must allow. Redirects are not followed, a
//! reply's body is bounded, each attempt ends within its timeout, which begins anew at each address. Of a reply that is
//! streamed (`streamed_reply`) only the head counts: its body has no bound, and ends after the attempt.
//!
//! When the other side is slow, the attempt times out with an unknown outcome; when it cannot be reached, the request
//! was never sent. If an address of a service accepts no connection, the same attempt goes to another one; it counts as
//! not sent only if none accepts one. What was handed to a connection is never sent to another address. In four more
//! cases a call is not sent: it gets no permit in time (concurrency limit, rate, open breaker: `service`); it is
//! withdrawn while it waits; another process may have acquired its run meanwhile (`lease`); or it is an effect, and
//! effects are frozen (`kill_switch`). A call that must not be repeated goes over a
//! new connection, or over one that was used just before (`connections`): a pooled connection that the server has
//! closed would make its outcome unknown. A call that the service says it has not processed (HTTP/2) is sent again over
//! another connection, a bounded number of times within its timeout.

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::poll;
use http::header::HOST;
use http::{HeaderMap, Method, Request, Uri, response};
use http_body_util::Full;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::engine::kill_switch::{KillSwitch, Operation};
use crate::engine::ports::connections::{ConnectionPool, ReusePolicy};
use crate::engine::ports::decode;
use crate::engine::ports::destination::{Destination, traffic};
use crate::engine::ports::echoed_secrets::EchoedSecrets;
use crate::engine::ports::head_time::HeadTime;
use crate::engine::ports::pooled_connection::{ExchangeError, Exchanged};
use crate::engine::ports::reply::{RecordedRead, ReplyRecorder, StreamingCall};
use crate::engine::ports::service::{CallBounds, CallPermit, ServiceLimits};
use crate::engine::ports::streamed_reply::OpenReply;
use crate::engine::scheduler::lease::LeaseProof;
use crate::limits::{CONNECTION_ENDED_MAX, Limits, NOT_PROCESSED_MAX};
use crate::names::RunId;
use crate::transport::{AddressChoice, ConnectError, NotProcessed, NotedCaller, path_pattern};
use crate::workflow::{AttemptResult, EffectClass, Mode, RecordedHeaders};

/// A request that is ready to be sent.
pub(in crate::engine) struct Outgoing {
    pub method: Method,
    /// Its target at each of the service's base URLs, in their order.
    pub uris: Vec<Uri>,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// How long the attempt may take from its permit to the last byte of the reply, anew at each address; also the
    /// longest wait for the permit.
    pub timeout: Duration,
    /// The time that the step's deadline leaves for the wait and the attempt together; `None` without a deadline.
    pub left: Option<Duration>,
    /// How much of `left` has to remain for the call when it stops waiting for its permit.
    pub reserved: Duration,
    /// Whether sending it again does no harm.
    pub repeatable: bool,
    /// The mode of its run.
    pub mode: Mode,
    /// The run that sends it.
    pub run: RunId,
    /// The step that sends it, as the record of the service's callers names it: `step create-order.price`.
    pub caller: String,
    /// The service that it goes to.
    pub service_limits: Arc<ServiceLimits>,
    /// The request is sent only while this proof is valid.
    pub lease_proof: Option<LeaseProof>,
    /// Cancelled if the request is not to be sent any more. Has no effect once it was sent.
    pub withdrawal: CancellationToken,
    /// Which headers of the reply are recorded.
    pub recorded_headers: Arc<RecordedHeaders>,
    /// The secrets in the request. They are masked in the record of the reply.
    pub secrets: EchoedSecrets,
    /// `None` where the step does not stream its reply.
    pub streaming: Option<StreamingCall>,
    /// Set where the reply is recorded for a capture.
    pub read: Option<RecordedRead>,
    /// Gets the whole reply as the service sent it.
    pub whole: Option<oneshot::Sender<(response::Parts, Bytes)>>,
}

impl Outgoing {
    /// The bounds of an attempt that begins now.
    pub fn bounds(&self) -> CallBounds {
        let until = self.left.map(|left| Instant::now() + left);
        CallBounds { timeout: self.timeout, until, reserved: self.reserved }
    }
}

/// Checks the lease just before the first byte of a call is sent. Where another process may own the run, returns the
/// result of the call, which is not sent.
pub(in crate::engine) fn withheld(lease_proof: Option<&LeaseProof>) -> Option<AttemptResult> {
    let why = "this process has not renewed its lease in the store for so long that another one may own the run";
    lease_proof.filter(|proof| !proof.is_valid()).map(|_| AttemptResult::Withheld(why.into()))
}

/// A call of a `read` step, by construction.
pub(in crate::engine) struct ReadCall(Outgoing);

impl ReadCall {
    /// `None` for a call of any other effect class.
    pub fn new(effect: EffectClass, call: Outgoing) -> Option<Self> {
        match effect {
            EffectClass::Read => Some(Self(call)),
            EffectClass::Private | EffectClass::Shared => None,
        }
    }
}

/// A call that the mode of its run may send, by construction.
pub(in crate::engine) struct SendCall(Outgoing, EffectClass);

impl SendCall {
    /// `None` for a call that the mode does not send.
    pub fn new(mode: Mode, effect: EffectClass, call: Outgoing) -> Option<Self> {
        mode.sends(effect).then_some(Self(call, effect))
    }
}

/// Performs the attempts of a run.
pub(in crate::engine) trait Executor: Send + Sync {
    /// Sends a call; one that this executor may not send results in [`AttemptResult::NotSent`].
    fn perform(&self, effect: EffectClass, call: Outgoing) -> BoxFuture<'static, AttemptResult>;
}

/// Sends reads.
#[derive(Clone)]
pub(in crate::engine) struct RehearsingClient(Transport);

impl RehearsingClient {
    pub fn new(limits: &Limits, key_secret: &[u8; 32]) -> Self {
        Self(Transport::new(limits, key_secret))
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

/// Sends the calls that a mode allows.
#[derive(Clone)]
pub(in crate::engine) struct SendingClient {
    transport: Transport,
    mode: Mode,
    kill_switch: Arc<KillSwitch>,
}

impl SendingClient {
    pub fn new(limits: &Limits, key_secret: &[u8; 32], mode: Mode, kill_switch: Arc<KillSwitch>) -> Self {
        Self { transport: Transport::new(limits, key_secret), mode, kill_switch }
    }
    /// Sends a call; an effect is sent only while the kill switch allows it.
    pub async fn send(self, SendCall(call, effect): SendCall) -> AttemptResult {
        let kill_switch = Some(&*self.kill_switch).filter(|_| effect != EffectClass::Read);
        self.transport.call(call, kill_switch).await
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

/// The connections of one kind of run.
#[derive(Clone)]
pub(super) struct Transport {
    pool: Arc<ConnectionPool>,
    bounds: decode::DecodeBounds,
}

impl Transport {
    pub(super) fn new(limits: &Limits, key_secret: &[u8; 32]) -> Self {
        Self { pool: ConnectionPool::new(limits), bounds: decode::DecodeBounds::of(limits, key_secret) }
    }

    pub(super) async fn call(self, call: Outgoing, kill_switch: Option<&KillSwitch>) -> AttemptResult {
        let acquired = tokio::select! {
            biased;
            acquired = call.service_limits.acquire(call.mode, call.run, call.bounds()) => acquired,
            () = call.withdrawal.cancelled() => Err(AttemptResult::Withdrawn),
        };
        let mut permit = match acquired {
            Ok(permit) => permit,
            Err(refused) => return refused,
        };
        let receiver = call.streaming.as_ref().and_then(|streaming| streaming.receiver.clone());
        let sent = self.send(call, &mut permit, kill_switch).await;
        let (result, open) = sent.unwrap_or_else(|result| (result, None));
        permit.record_outcome(&result);
        if let Some((open, receiver)) = open.zip(receiver) {
            open.hand_over(&receiver, permit);
        }
        result
    }

    /// Sends a call. The reply whose body is to be streamed is returned beside the result.
    ///
    /// # Errors
    /// There is no reply.
    async fn send(
        self,
        call: Outgoing,
        call_permit: &mut CallPermit,
        kill_switch: Option<&KillSwitch>,
    ) -> Result<(AttemptResult, Option<OpenReply>), AttemptResult> {
        let Outgoing {
            method,
            uris,
            headers,
            body,
            timeout: _,
            left: _,
            reserved: _,
            repeatable,
            mode,
            run: _,
            caller,
            service_limits,
            lease_proof,
            withdrawal,
            recorded_headers: headers_to_record,
            secrets,
            streaming,
            read,
            whole,
        } = call;
        let recorder = ReplyRecorder { bounds: self.bounds, headers: headers_to_record, secrets, streaming };
        if let Some(uri) = uris.first() {
            let caller = NotedCaller { source: caller, client: String::new(), path: path_pattern(&method, uri.path()) };
            service_limits.addresses().callers().note(caller, clock::now());
        }
        let names_host = headers.contains_key(HOST);
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.headers_mut() = headers;
        let mut time = HeadTime::new(&service_limits, call_permit);
        let mut choice = match AddressChoice::begin(service_limits.addresses(), traffic(mode), time.deadline).await {
            Ok(choice) => choice,
            Err(why) => return Err(AttemptResult::NotSent(why)),
        };
        Destination::of(service_limits.protocol(), &choice, &uris).put_into(&mut request, names_host);
        let usual = if repeatable { ReusePolicy::Any } else { ReusePolicy::Recent };
        let (mut reuse, mut refused, mut ended) = (usual, 0, 0);
        let (connection, exchanged) = loop {
            let destination = Destination::of(service_limits.protocol(), &choice, &uris);
            let taken = match timeout_at(time.deadline, self.pool.take(&destination, reuse)).await {
                Ok(taken) => taken,
                Err(_) => {
                    if call_permit.is_whole() {
                        choice.in_flight.unanswered();
                    }
                    Err(ConnectError::TimedOut)
                }
            };
            let mut connection = match taken {
                Ok(connection) => connection,
                // Without a connection no byte was sent.
                Err(error) => {
                    if !(choice.try_another(&error) && call_permit.begin_anew()) {
                        return Err(AttemptResult::NotSent(match error {
                            ConnectError::TimedOut => {
                                format!("no connection within {} ms", time.connect(&service_limits).as_millis())
                            }
                            error => error.to_string(),
                        }));
                    }
                    Destination::of(service_limits.protocol(), &choice, &uris).put_into(&mut request, names_host);
                    time = HeadTime::new(&service_limits, call_permit);
                    continue;
                }
            };
            if let Some(withheld) = withheld(lease_proof.as_ref()) {
                return Err(withheld);
            }
            if withdrawal.is_cancelled() {
                return Err(AttemptResult::Withdrawn);
            }
            let permit = match kill_switch.map(|switch| switch.begin(Operation::Effect)) {
                Some(None) => {
                    return Err(AttemptResult::Withheld("private and shared steps are frozen".into()));
                }
                Some(permit) => permit,
                None => None,
            };
            let exchanged = {
                let (bytes_max, deadline) = (self.bounds.bytes, call_permit.deadline());
                let mut exchange =
                    pin!(connection.exchange(request, bytes_max, time.deadline, deadline, |head, body| {
                        recorder.streams(head, body)
                    }));
                // The first poll hands the request to the connection: from then on the call has begun.
                let first = poll!(exchange.as_mut());
                drop(permit);
                match first {
                    Poll::Ready(exchanged) => exchanged,
                    Poll::Pending => exchange.await,
                }
            };
            match exchanged {
                Ok(exchanged) => break (connection, exchanged),
                // The server had closed the idle connection: the request is sent over another connection.
                Err((ExchangeError::NotSent(_), Some(unsent))) if connection.reused => request = unsent,
                Err((ExchangeError::NotProcessed(reason, why), Some(again))) => {
                    reason.count(service_limits.name());
                    let may_again = match reason {
                        NotProcessed::Refused => {
                            refused += 1;
                            refused < NOT_PROCESSED_MAX
                        }
                        NotProcessed::Unsent | NotProcessed::GoingAway => {
                            ended += 1;
                            ended < CONNECTION_ENDED_MAX
                        }
                    };
                    if !may_again {
                        return Err(AttemptResult::NotSent(why));
                    }
                    reuse = if reason == NotProcessed::Refused { ReusePolicy::None } else { usual };
                    request = again;
                }
                Err((ExchangeError::NotSent(why) | ExchangeError::NotProcessed(_, why), _)) => {
                    return Err(AttemptResult::NotSent(why));
                }
                Err((ExchangeError::CutOff(why), _)) => {
                    match connection.is_answered {
                        true => choice.in_flight.answered(),
                        false => choice.in_flight.unanswered(),
                    }
                    return Err(AttemptResult::CutOff(why));
                }
            }
        };
        match &exchanged {
            Exchanged::Whole(_) | Exchanged::Head(..) | Exchanged::BodyTimedOut => choice.in_flight.answered(),
            // An address that had less time than the step's timeout might still have answered: this does not count.
            Exchanged::HeadTimedOut if call_permit.is_whole() => choice.in_flight.unanswered(),
            Exchanged::HeadTimedOut => {}
        }
        match exchanged {
            Exchanged::Whole((head, body)) => {
                if let Ok(bytes) = &body {
                    read.into_iter().for_each(|read| read.record(&head, bytes, &recorder));
                    // The receiver may have stopped waiting.
                    whole.into_iter().for_each(|whole| drop(whole.send((head.clone(), bytes.clone()))));
                }
                if body.is_ok() {
                    self.pool.give_back(connection).await;
                }
                Ok((recorder.whole(&head, body), None))
            }
            Exchanged::Head(head, body) => {
                let open = OpenReply::new(&head, body, connection, &self.pool, choice.in_flight);
                Ok((recorder.streamed(&head), Some(open)))
            }
            Exchanged::HeadTimedOut => Err(AttemptResult::TimedOut(format!("within {} ms", time.within.as_millis()))),
            Exchanged::BodyTimedOut => Err(AttemptResult::TimedOut(format!(
                "its body did not end within {} ms",
                call_permit.time_allowed().as_millis()
            ))),
        }
    }
}

//! Copies a request and its reply: for the comparison, or, of a call that legacy makes, for `egress`, which finds the
//! request that it belongs to.
//!
//! Always true: the caller's frames are passed on first and unchanged; a copy is kept up to its bound; the
//! ticket is settled exactly once, and the exchange is offered only after the client's socket has taken the last byte
//! of the reply (see `completion`), on the thread of `settler`. `shadow` runs the engine.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;

use super::body_copy::{BodyCopy, copied_bytes};
use super::copied_call::CopiedCall;
use super::monotonic::now;
use super::noted_instance::{FollowUpAtLegacy, created_id, has_ended, note_follow_up};
use crate::clock;
use crate::compare::{Body, Observation};
use crate::exchange::{
    Affinity, Answered, ComparisonTicket, CreatedByLegacy, EffectRegistry, EffectWatch, KeysOfLegacy, NotedInstance,
    Offer, OpenRequest, RequestCopy, RequestToWatch, SentBody,
};
use crate::flag::{Arm, FlagSet, Instance, InstanceId, InstanceKey, RouteFlag, SkipReason};
use crate::workflow::{Mode, may_create_instance};

/// A request whose reply is to be copied, until legacy replies.
pub(super) struct CopiedRequest {
    /// The ticket, and the mode of the engine's run. `None`: the reply only shows something of an instance: its id, or
    /// that it has ended.
    pub compare: Option<(ComparisonTicket, Mode)>,
    /// The ticket of a request that is not compared. It is settled as skipped when it is dropped.
    pub skipped: Option<ComparisonTicket>,
    pub flags: Arc<FlagSet>,
    pub flag: Arc<RouteFlag>,
    pub request: RequestCopy,
    pub body: Option<Arc<Mutex<BodyCopy>>>,
    /// Whether the request was chosen to be sent to legacy a second time, after the client has the reply.
    pub will_repeat: bool,
    /// The headers with which legacy gets the request, if it was chosen to be sent a second time.
    pub sent: Option<Arc<HeaderMap>>,
    pub instance: Option<InstanceId>,
    /// Whether an arm took an earlier request with the same retry key.
    pub is_retry: bool,
    pub legacy_keys: KeysOfLegacy,
    /// Set if the request concerns an instance that has a twin, or gets one.
    pub open: Option<OpenRequest>,
    pub began: u64,
    /// When the request got its turn at legacy; 0 if it did not have to wait for its turn.
    pub turn_at: u64,
    pub bytes_max: usize,
    pub offer: Arc<dyn Offer>,
    pub affinity: Arc<dyn Affinity>,
    /// Is told of the request before legacy gets it; `None` if the request is not compared, or if nothing attributes
    /// the calls that legacy makes.
    pub effect_registry: Option<Arc<dyn EffectRegistry>>,
    /// Dropped when the exchange has ended: after that, calls are attributed to the request for a limited time only.
    pub effects: Option<Box<dyn EffectWatch>>,
}

impl CopiedRequest {
    /// Begins to watch the calls that legacy makes for this request, which is about to be sent with these headers.
    pub(super) fn watch_effects(&mut self, sent: &HeaderMap) {
        if let (Some(registry), Some(_)) = (&self.effect_registry, &self.compare) {
            let body = self.body.clone().map(|copy| copy as Arc<dyn SentBody>);
            let (compared, request) = (Some(&self.flag.route.id), || self.request.clone());
            self.effects = Some(registry.watch(RequestToWatch { compared, request: &request, sent, body }));
        }
    }

    /// Keeps the headers with which legacy gets the request, if it is to get it a second time.
    pub(super) fn keep_sent(&mut self, sent: &HeaderMap) {
        self.sent = self.will_repeat.then(|| Arc::new(sent.clone()));
    }

    /// Settles the ticket as skipped.
    pub(super) fn skip(mut self: Box<Self>, reason: SkipReason) {
        if let (Some(open), SkipReason::LegacyRefused) = (&mut self.open, reason) {
            open.nothing_was_done();
        }
        if let Some((ticket, _)) = self.compare.take() {
            ticket.skip(reason);
        }
    }

    /// Records the head of legacy's reply. Settles the ticket at once if the reply cannot be compared.
    fn on_reply_head(
        mut self: Box<Self>,
        status: StatusCode,
        headers: &HeaderMap,
        length: Option<u64>,
    ) -> Result<Box<CopiedReply>, NotCopied> {
        if let Some(mut ticket) = self.skipped.take() {
            ticket.set_legacy_status(status);
        }
        if let Some((ticket, _)) = &mut self.compare {
            ticket.set_legacy_status(status);
        }
        let refused = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        let streams = status == StatusCode::SWITCHING_PROTOCOLS
            || headers.get(http::header::CONTENT_TYPE).is_some_and(|t| {
                t.as_bytes().len() >= 17 && t.as_bytes()[..17].eq_ignore_ascii_case(b"text/event-stream")
            });
        let why = match () {
            () if refused => SkipReason::LegacyRefused,
            () if streams => SkipReason::Streaming,
            () if length.is_some_and(|n| n > self.bytes_max as u64) => SkipReason::BodyTooLarge,
            () => {
                let bytes_max = self.bytes_max;
                return Ok(CopiedReply::new(CopiedExchange::Request(self), status, headers, length, bytes_max));
            }
        };
        match &self.instance {
            Some(instance) => note_follow_up(&*self.affinity, instance.key.clone(), status, false),
            // The id of a created instance may be in a header.
            None => note_created(&self, status, headers, None, clock::now(), || false),
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            // A proxy in front of legacy may have answered, although legacy got the request. Dropping the announcement
            // closes the request as one that may have changed its instance.
            self.open = None;
        }
        let watch = self.effects.take();
        self.skip(why);
        Err(NotCopied(watch))
    }
}

/// Says that the reply is not copied. The watch has to be held until the exchange has ended: until then, the calls that
/// legacy makes for this request are attributed to it and not to another request.
pub(super) struct NotCopied(pub Option<Box<dyn EffectWatch>>);

/// A client's request that is not compared, and whose reply is not copied.
pub(super) struct SkippedRequest {
    /// Settled as skipped when it is dropped; only the status of the reply is noted in it.
    pub ticket: ComparisonTicket,
    /// The instance that the request follows up at legacy.
    pub seen: Option<FollowUpAtLegacy>,
}

/// What copies an exchange, until its reply begins.
pub(super) enum CopiedExchange {
    /// A client's request, for a comparison.
    Request(Box<CopiedRequest>),
    /// A client's request that is not compared.
    Skipped(Box<SkippedRequest>),
    /// A call that legacy makes.
    Call(Box<CopiedCall>),
}

impl CopiedExchange {
    /// Ends the copy without a reply, for this reason.
    pub(super) fn skip(self, reason: SkipReason) {
        match self {
            Self::Request(request) => request.skip(reason),
            Self::Skipped(_) => {}
            Self::Call(call) => call.end_without_reply(),
        }
    }

    /// Records when the request got its turn; 0 if it did not have to wait for its turn.
    pub(super) fn set_turn_at(&mut self, at: u64) {
        match self {
            Self::Request(request) => request.turn_at = at,
            Self::Skipped(_) | Self::Call(_) => {}
        }
    }

    /// Whether it is a client's request that is compared.
    pub(super) fn is_compared_request(&self) -> bool {
        matches!(self, Self::Request(request) if request.compare.is_some())
    }

    /// Records that the caller has closed its side of the connection before the reply came.
    pub(super) fn on_caller_closed(&mut self) {
        match self {
            Self::Call(call) => call.on_caller_closed(),
            Self::Request(_) | Self::Skipped(_) => {}
        }
    }

    /// Records the head of the reply.
    pub(super) fn on_reply_head(
        self,
        status: StatusCode,
        headers: &HeaderMap,
        length: Option<u64>,
    ) -> Result<Box<CopiedReply>, NotCopied> {
        match self {
            Self::Request(request) => request.on_reply_head(status, headers, length),
            Self::Skipped(mut skipped) => {
                skipped.ticket.set_legacy_status(status);
                if let Some(seen) = skipped.seen.take() {
                    seen.on_reply_head(status);
                }
                Err(NotCopied(None))
            }
            Self::Call(call) => {
                let bytes_max = call.bytes_max();
                Ok(CopiedReply::new(Self::Call(call), status, headers, length, bytes_max))
            }
        }
    }

    /// The copy of the body of a call that legacy makes.
    pub(super) fn body_of_call(&self) -> Option<&Arc<Mutex<BodyCopy>>> {
        match self {
            Self::Call(call) => call.body(),
            Self::Request(_) | Self::Skipped(_) => None,
        }
    }

    fn body(&self) -> Option<&Arc<Mutex<BodyCopy>>> {
        match self {
            Self::Request(request) => request.body.as_ref(),
            Self::Skipped(_) => None,
            Self::Call(call) => call.body(),
        }
    }
}

/// A reply that is copied, and its request.
pub(super) struct CopiedReply {
    copied: CopiedExchange,
    status: StatusCode,
    /// Empty for a call that legacy makes: [`CopiedCall`] has them.
    headers: HeaderMap,
    /// `None` once it is larger than `bytes_max`.
    bytes: Option<BytesMut>,
    bytes_max: usize,
    /// When its last frame came, in microseconds of `monotonic::now`.
    ended: u64,
}

impl CopiedReply {
    fn new(
        copied: CopiedExchange,
        status: StatusCode,
        headers: &HeaderMap,
        length: Option<u64>,
        bytes_max: usize,
    ) -> Box<Self> {
        let (length, mut copied) = (length.unwrap_or(0), copied);
        let mut headers = headers.clone();
        if let CopiedExchange::Call(call) = &mut copied {
            call.on_reply_head(status, std::mem::take(&mut headers));
        }
        let bytes = (length <= bytes_max as u64).then(|| BytesMut::with_capacity(length.min(64 << 10) as usize));
        Box::new(Self { copied, status, headers, bytes, bytes_max, ended: 0 })
    }

    /// Copies a frame that was passed on.
    pub(super) fn take(&mut self, frame: &Bytes) {
        if let Some(bytes) = &mut self.bytes {
            if bytes.len() + frame.len() > self.bytes_max {
                self.bytes = None;
            } else {
                bytes.extend_from_slice(frame);
            }
        }
    }

    /// Ends the copy: legacy's reply ended with an error.
    pub(super) fn on_legacy_error(self) {
        self.copied.skip(SkipReason::LegacyFailed);
    }

    /// Lets the observer be called directly from now on. To be called on a thread that serves no connection, because
    /// the observer may take long.
    pub(super) fn observe_directly(&mut self) {
        if let CopiedExchange::Call(call) = &mut self.copied {
            call.observe_directly();
        }
    }

    /// Records that the reply is complete: hyper has its last frame.
    pub(super) fn ended(mut self: Box<Self>) -> Box<Self> {
        self.ended = now();
        if let CopiedExchange::Request(request) = &mut self.copied
            && let Some(open) = &mut request.open
        {
            open.answered(self.ended);
        }
        self
    }

    /// How many bytes of both bodies were copied.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.as_ref().map_or(0, BytesMut::len) + copied_bytes(self.copied.body())
    }

    /// For a client's request: searches the reply for the id of a created instance, and settles the ticket: offers the
    /// exchange, or skips it for this reason. For a call that legacy made: tells the observer. A value that is dropped
    /// without this call means that the client (or legacy, as the caller) went away; the ticket is then settled, or the
    /// observer told, accordingly.
    pub(super) fn finish(self, skip: Option<SkipReason>) {
        let CopiedReply { copied, status, headers, bytes, bytes_max: _, ended } = self;
        let reply = bytes.map(BytesMut::freeze);
        let mut copied = match copied {
            CopiedExchange::Request(request) => request,
            CopiedExchange::Call(call) => return call.end(reply, skip),
            CopiedExchange::Skipped(_) => return,
        };
        // Not for a skipped exchange: the thread that serves the client may be running this, and must not wait.
        if let (Some(watch), None) = (&copied.effects, skip) {
            watch.reply_passed_on();
        }
        note_instance(&copied, status, &headers, reply.as_ref(), ended);
        if let Some(reason) = skip {
            return copied.skip(reason);
        }
        let Some((ticket, mode)) = copied.compare.take() else { return };
        let (body, sent) = match &copied.body {
            None => (Bytes::new(), copied.began),
            Some(copy) => {
                let mut copy = copy.lock().unwrap_or_else(PoisonError::into_inner);
                match (copy.too_large, copy.ended) {
                    (true, _) => return ticket.skip(SkipReason::BodyTooLarge),
                    // Legacy answered before the body ended, so there is no complete request to offer.
                    (false, None) => return ticket.skip(SkipReason::Streaming),
                    (false, Some(ended)) => (copy.whole().unwrap_or_default(), ended),
                }
            }
        };
        let Some(reply) = reply else { return ticket.skip(SkipReason::BodyTooLarge) };
        let latency = Duration::from_micros(ended.saturating_sub(sent.max(copied.turn_at)));
        let legacy = Observation::new(status, headers, Body::Whole(reply), latency, Vec::new());
        copied.request.body = body;
        let open = copied.open.take();
        let answered = Answered {
            flags: copied.flags,
            flag: copied.flag,
            mode,
            request: Arc::new(copied.request),
            legacy: Arc::new(legacy),
            instance: copied.instance,
            legacy_keys: copied.legacy_keys,
            effects: copied.effects.as_ref().and_then(|watch| watch.effects()),
            reads: None,
            repeat: copied.sent,
            candidate: None,
            at_legacy: open.as_ref().and_then(OpenRequest::time),
        };
        copied.offer.offer(ticket, answered);
        // Closed only after the offer: by then the request has got its turn on the twin.
        drop(open);
    }
}

/// Records the instance that legacy created, or that the request followed up. `ended`: when the reply ended.
fn note_instance(copied: &CopiedRequest, status: StatusCode, headers: &HeaderMap, reply: Option<&Bytes>, ended: u64) {
    let has_ended = || has_ended(&copied.flag, &copied.request, status, headers, reply);
    if let Some(instance) = &copied.instance {
        return note_follow_up(&*copied.affinity, instance.key.clone(), status, has_ended());
    }
    let replied_at = clock::now() - Duration::from_micros(now().saturating_sub(ended));
    note_created(copied, status, headers, reply, replied_at, has_ended);
}

/// Records the instance that legacy created; `reply` is `None` if the body was not copied.
fn note_created(
    copied: &CopiedRequest,
    status: StatusCode,
    headers: &HeaderMap,
    reply: Option<&Bytes>,
    replied_at: Timestamp,
    has_ended: impl FnOnce() -> bool,
) {
    if !may_create_instance(status.as_u16()) {
        return;
    }
    if let Some(id) = created_id(&copied.flag, headers, reply) {
        let key = InstanceKey { family: copied.flag.family.clone(), id: id.into() };
        if let Some(open) = &copied.open {
            open.created(key.clone());
        }
        let is_retry = copied.is_retry;
        copied.affinity.record_legacy_instance(CreatedByLegacy { key: key.clone(), replied_at, is_retry });
        let (has_ended, is_created) = (has_ended(), !is_retry);
        copied.affinity.note_instance(NotedInstance { key, arm: Arm::Legacy, run: None, is_created, has_ended });
    } else if reply.is_some() && matches!(copied.flag.route.instance, Some(Instance::Creates { .. })) {
        let route = copied.flag.route.id.to_string();
        metrics::counter!("pointsman_legacy_instances_without_id_total", "route" => route).increment(1);
    }
}

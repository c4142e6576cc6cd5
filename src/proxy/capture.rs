//! What does the other arm get to see, and when?
//!
//! A [`Tee`] rides on a reply that is to be compared. Always true: the caller's frames go by first and unchanged; a copy
//! is kept up to the capture limit; the ticket is settled exactly once, and an offer is made only when the reply has
//! ended whole, after its last frame was handed on. Offering is not async and never waits; running the other arm is
//! `shadow`'s business.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_ENCODING;
use http::{HeaderMap, StatusCode};

use super::clock::now;
use crate::compare::{Body, Observation, unpacked};
use crate::exchange::{Affinity, Answered, Offer, RequestCopy, Ticket};
use crate::flag::{FlagSet, Instance, InstanceId, InstanceKey, RetryKey, RouteFlag, SkipReason};
use crate::workflow::Mode;

/// Replies up to this size are searched for the id of what they created on the spot; larger ones on a thread that
/// nobody waits for.
const INLINE_BYTES_MAX: usize = 16 << 10;
/// A packed reply is searched for it up to this size.
const UNPACKED_BYTES_MAX: usize = 4 << 20;

/// The copy of a request's body that is taken while it streams.
#[derive(Default)]
pub(super) struct RequestCapture {
    pub bytes: BytesMut,
    pub bytes_max: usize,
    pub too_large: bool,
    /// When the last byte went by.
    pub ended: Option<u64>,
}

impl RequestCapture {
    pub(super) fn take(&mut self, frame: &Bytes) {
        if self.too_large || self.bytes.len() + frame.len() > self.bytes_max {
            self.too_large = true;
            self.bytes = BytesMut::new();
        } else {
            // A copy: a slice would keep the whole read buffer alive.
            self.bytes.extend_from_slice(frame);
        }
    }
}

/// A request that is to be compared, while legacy works on it.
pub(super) struct Watched {
    /// The duty to say how it ended, and what the other arm may send. `None`: the reply is only looked at for the id
    /// of what it created.
    pub compare: Option<(Ticket, Mode)>,
    pub flags: Arc<FlagSet>,
    pub flag: Arc<RouteFlag>,
    pub request: RequestCopy,
    pub body: Option<Arc<Mutex<RequestCapture>>>,
    pub instance: Option<InstanceId>,
    pub retry_key: Option<RetryKey>,
    pub began: u64,
    pub bytes_max: usize,
    pub offer: Arc<dyn Offer>,
    pub pins: Arc<dyn Affinity>,
}

impl Watched {
    /// It is not compared after all.
    pub(super) fn skip(mut self, reason: SkipReason) {
        if let Some((ticket, _)) = self.compare.take() {
            ticket.skip(reason);
        }
    }

    /// Legacy's reply begins. Settles at once where it will not be compared.
    pub(super) fn replying(self, status: StatusCode, headers: &HeaderMap, length: Option<u64>) -> Option<Box<Tee>> {
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
                let capacity = length.unwrap_or(0).min(64 << 10) as usize;
                let bytes = BytesMut::with_capacity(capacity);
                return Some(Box::new(Tee { watched: self, status, headers: headers.clone(), bytes: Some(bytes) }));
            }
        };
        self.skip(why);
        None
    }
}

/// A reply of legacy that is to be compared.
pub(super) struct Tee {
    watched: Watched,
    status: StatusCode,
    headers: HeaderMap,
    /// `None` once it is larger than the limit.
    bytes: Option<BytesMut>,
}

impl Tee {
    /// A frame went by.
    pub(super) fn take(&mut self, frame: &Bytes) {
        if let Some(bytes) = &mut self.bytes {
            if bytes.len() + frame.len() > self.watched.bytes_max {
                self.bytes = None;
            } else {
                bytes.extend_from_slice(frame);
            }
        }
    }

    /// Legacy broke off in the middle.
    pub(super) fn legacy_broke(self: Box<Self>) {
        self.watched.skip(SkipReason::LegacyFailed);
    }

    /// The reply has ended whole. (Dropped without this, the client went away: the ticket knows.)
    pub(super) fn finish(self: Box<Self>) {
        let Tee { mut watched, status, headers, bytes } = *self;
        let reply = bytes.map(BytesMut::freeze);
        if let Some(reply) = &reply
            && status.is_success()
        {
            note_instance(&watched, &headers, reply);
        }
        let Some((ticket, mode)) = watched.compare.take() else { return };
        let (body, sent) = match &watched.body {
            None => (Bytes::new(), watched.began),
            Some(capture) => {
                let mut capture = capture.lock().unwrap_or_else(PoisonError::into_inner);
                match (capture.too_large, capture.ended) {
                    (true, _) => return ticket.skip(SkipReason::BodyTooLarge),
                    // Legacy answered without waiting for the body: there is no whole request to give.
                    (false, None) => return ticket.skip(SkipReason::Streaming),
                    (false, Some(ended)) => (std::mem::take(&mut capture.bytes).freeze(), ended),
                }
            }
        };
        let Some(reply) = reply else { return ticket.skip(SkipReason::BodyTooLarge) };
        let latency = Duration::from_micros(now().saturating_sub(sent));
        let legacy = Observation::new(status, headers, Body::Whole(reply), latency, Vec::new());
        watched.request.body = body;
        let answered = Answered {
            flags: watched.flags,
            flag: watched.flag,
            mode,
            request: Arc::new(watched.request),
            legacy: Arc::new(legacy),
            instance: watched.instance,
            retry_key: watched.retry_key,
        };
        watched.offer.offer(ticket, answered);
    }
}

/// Tells the pins what legacy created.
fn note_instance(watched: &Watched, headers: &HeaderMap, reply: &Bytes) {
    if !matches!(watched.flag.route.instance, Some(Instance::Creates { .. })) || reply.is_empty() {
        return;
    }
    // What is packed may be large inside.
    let large = reply.len() > INLINE_BYTES_MAX || headers.contains_key(CONTENT_ENCODING);
    let (flag, pins, reply, headers) = (watched.flag.clone(), watched.pins.clone(), reply.clone(), headers.clone());
    let note = move || {
        if let Some(Instance::Creates { id }) = &flag.route.instance
            && let Some(reply) = unpacked(&headers, &reply, UNPACKED_BYTES_MAX)
            && let Ok(json) = serde_json::from_slice::<serde_json::Value>(&reply)
            && let Some(id) = id.query(&json).exactly_one().ok().and_then(text)
        {
            pins.note_legacy_instance(InstanceKey { family: flag.family.clone(), id: id.into() });
        }
    };
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) if large => drop(runtime.spawn_blocking(note)),
        _ => note(),
    }
}

/// An id as it stands in paths.
fn text(id: &serde_json::Value) -> Option<String> {
    match id {
        serde_json::Value::String(text) => Some(text.clone()),
        serde_json::Value::Number(number) => Some(number.to_string()),
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Array(_)
        | serde_json::Value::Object(_) => None,
    }
}

//! A call that legacy made while it handled one request.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};

use super::observation::{Body, Intent};
use crate::names::ServiceName;

/// A call that legacy made to the outside through the egress listener, with its reply; frozen when it is made. The
/// counterpart is the engine's [`Intent`](super::Intent).
#[derive(Clone, Debug)]
pub struct Effect {
    /// The service that was called. `None` if legacy uses the listener as its HTTP proxy and the address belongs to no
    /// service.
    pub service: Option<ServiceName>,
    /// The method.
    pub method: Method,
    /// The whole URL at which the service was called.
    pub url: String,
    /// The headers as legacy sent them, without hop-by-hop headers.
    pub headers: HeaderMap,
    /// The body that legacy sent.
    pub body: Body,
    /// The reply; `None` if no reply head came. Its body is [`Body::TooLarge`] if the body was not passed on whole.
    pub reply: Option<EffectReply>,
    /// Gives the order of calls: a call that began later has a larger number.
    pub number: u64,
    /// A call with this number or a larger one began after the head of the reply had come; `None` if that is not known.
    pub replied_before: Option<u64>,
}

/// The reply to a call by legacy.
#[derive(Clone, Debug)]
pub struct EffectReply {
    /// The status.
    pub status: StatusCode,
    /// The headers, without hop-by-hop headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Body,
    /// Which parts of the reply are known, if it was read from the events of a run.
    pub recorded: Option<RecordedParts>,
    /// Whether the caller had closed its side of the connection before the reply came: it may have given up the call
    /// and never read the reply.
    pub may_be_unread: bool,
}

/// What the events of a run have of a reply.
#[derive(Clone, Debug)]
pub struct RecordedParts {
    /// The headers that its step records, names in lower case; `None`: all.
    pub headers: Option<BTreeSet<Arc<str>>>,
    /// Whether the bytes of the body can be restored from what the step recorded: not those of a binary or streamed
    /// body.
    pub has_body: bool,
}

impl EffectReply {
    /// A reply that was seen on its way.
    pub fn new(status: StatusCode, headers: HeaderMap, body: Body) -> Self {
        Self { status, headers, body, recorded: None, may_be_unread: false }
    }

    /// What this reply lacks for a step that records these headers (`None`: all), as text. Returns `None` if the step
    /// would record the same of this reply as of the service's own.
    pub fn lacks(&self, headers: Option<&BTreeSet<Arc<str>>>) -> Option<String> {
        let recorded = self.recorded.as_ref()?;
        if !recorded.has_body {
            return Some("its body, which is bytes".to_owned());
        }
        match (headers, &recorded.headers) {
            (_, None) => None,
            (None, Some(_)) => Some("some of its headers".to_owned()),
            (Some(wanted), Some(recorded)) => {
                wanted.difference(recorded).next().map(|name| format!("the header `{name}`"))
            }
        }
    }
}

/// The approximate memory that a header map needs for each field besides its name and value.
const FIELD_BYTES: usize = 128;

impl Effect {
    /// The call that a step would have made, as if it had been made and answered: for holding another run's intents
    /// against it. Without a reply it would count as an attempt that an equal call repeats.
    pub fn of_intent(intent: &Intent, number: u64) -> Self {
        let body = match (&intent.bytes, &intent.body) {
            (Some(bytes), _) => bytes.clone(),
            (None, serde_json::Value::Null) => Bytes::new(),
            (None, value) => value.to_string().into(),
        };
        let field = |(name, value): &(String, String)| {
            Some((http::HeaderName::from_bytes(name.as_bytes()).ok()?, http::HeaderValue::from_str(value).ok()?))
        };
        Self {
            service: intent.service.clone(),
            method: intent.method.clone(),
            url: intent.url.clone(),
            headers: intent.headers.iter().filter_map(field).collect(),
            body: Body::Whole(body),
            reply: Some(EffectReply::new(StatusCode::OK, HeaderMap::new(), Body::Whole(Bytes::new()))),
            number,
            replied_before: None,
        }
    }

    /// The memory that the effect takes, in bytes: bodies and heads.
    pub fn bytes(&self) -> usize {
        let whole = |body: &Body| match body {
            Body::Whole(bytes) => Bytes::len(bytes),
            Body::TooLarge => 0,
        };
        let fields = |headers: &HeaderMap| -> usize {
            headers.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD_BYTES).sum()
        };
        let reply = self.reply.as_ref().map_or(0, |reply| whole(&reply.body) + fields(&reply.headers));
        size_of::<Self>() + self.url.len() + fields(&self.headers) + whole(&self.body) + reply
    }
}

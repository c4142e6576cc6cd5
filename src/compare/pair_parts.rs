//! The parts of one pair in which its secrets are looked for (`pair_secrets`).

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use super::capture::AnsweredRead;
use super::effect::{Effect, EffectReply};
use super::observation::{Body, Intent, Observation};

/// The parts of one pair.
pub struct PairParts<'a> {
    /// The parameters of the route's template.
    pub params: &'a [(Arc<str>, String)],
    /// The query of the request.
    pub query: Option<&'a str>,
    /// The headers of the request.
    pub headers: &'a HeaderMap,
    /// The body of the request.
    pub body: &'a Body,
    /// What legacy answered.
    pub legacy: &'a Observation,
    /// What the engine answered, where that is shown.
    pub engine: Option<&'a Observation>,
    /// Of a follow-up: what the run knew of its instance.
    pub instance: Option<&'a Value>,
    /// What the reads of the run asked and were answered.
    pub reads: &'a [AnsweredRead],
    /// What the run would have sent.
    pub intents: &'a [Intent],
    /// The calls that legacy made.
    pub effects: &'a [Arc<Effect>],
    /// What the events of the run show, where these are shown.
    pub recorded: Vec<PairMessage<'a>>,
}

/// A message of a pair, or another document in it.
pub struct PairMessage<'a> {
    /// The URL of a request; empty if there is none.
    pub url: &'a str,
    /// The headers.
    pub headers: Cow<'a, HeaderMap>,
    /// The body.
    pub body: MessageBody<'a>,
    /// Whether it is a reply: the bodies of replies are read first.
    pub is_reply: bool,
}

/// The body of a message.
pub enum MessageBody<'a> {
    /// As it was sent.
    Sent(Body),
    /// A value that holds documents, each of which may be one to which the JSONPaths of `redact:` apply.
    Value(&'a Value),
}

impl<'a> PairMessage<'a> {
    /// A document that is no message.
    pub fn document(value: &'a Value) -> Self {
        Self { url: "", headers: Cow::Owned(HeaderMap::new()), body: MessageBody::Value(value), is_reply: false }
    }
    fn sent(url: &'a str, headers: &'a HeaderMap, body: &Body) -> Self {
        Self { url, headers: Cow::Borrowed(headers), body: MessageBody::Sent(body.clone()), is_reply: false }
    }
    fn answered(observation: &'a Observation) -> Self {
        Self { is_reply: true, ..Self::sent("", observation.headers(), observation.body()) }
    }
    fn reply(reply: &'a EffectReply) -> Self {
        Self { is_reply: true, ..Self::sent("", &reply.headers, &reply.body) }
    }
    fn intent(intent: &'a Intent) -> Self {
        let body = MessageBody::Sent(Body::Whole(body_of(intent)));
        Self { url: &intent.url, headers: Cow::Owned(headers_of(&intent.headers)), body, is_reply: false }
    }
}

impl<'a> PairParts<'a> {
    /// All messages of the pair and the other documents in it.
    pub(super) fn messages(self) -> Vec<PairMessage<'a>> {
        let mut messages = vec![PairMessage::answered(self.legacy)];
        messages.extend(self.engine.map(PairMessage::answered));
        messages.push(PairMessage::sent("", self.headers, self.body));
        let of_instance = |name| self.instance.and_then(|instance| instance.get(name)).map(PairMessage::document);
        messages.extend(of_instance("output").map(|output| PairMessage { is_reply: true, ..output }));
        messages.extend(of_instance("input"));
        for AnsweredRead { asked, reply } in self.reads {
            messages.push(PairMessage::intent(asked));
            messages.extend(reply.as_ref().map(PairMessage::reply));
        }
        messages.extend(self.intents.iter().map(PairMessage::intent));
        for effect in self.effects {
            messages.push(PairMessage::sent(&effect.url, &effect.headers, &effect.body));
            messages.extend(effect.reply.as_ref().map(PairMessage::reply));
        }
        messages.extend(self.recorded);
        messages
    }
}

/// Headers by name and value; fields that are not valid in HTTP are left out.
pub fn headers_of<N: AsRef<str>, V: AsRef<str>>(fields: &[(N, V)]) -> HeaderMap {
    let field = |(name, value): &(N, V)| {
        let name = HeaderName::from_bytes(name.as_ref().as_bytes()).ok()?;
        Some((name, HeaderValue::from_bytes(value.as_ref().as_bytes()).ok()?))
    };
    fields.iter().filter_map(field).fold(HeaderMap::new(), |mut headers, (name, value)| {
        headers.append(name, value);
        headers
    })
}

/// The body of an intent as it would have been sent.
pub(super) fn body_of(intent: &Intent) -> Bytes {
    match (&intent.bytes, &intent.body) {
        (Some(bytes), _) => bytes.clone(),
        (None, Value::Null) => Bytes::new(),
        (None, Value::String(text)) => text.clone().into(),
        (None, value) => value.to_string().into(),
    }
}

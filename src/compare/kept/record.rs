//! A pair as it is stored.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde::{Deserialize, Serialize};

use super::body::KeptBody;
use crate::compare::earlier_ids::EarlierIds;
use crate::compare::effect::{Effect, EffectReply};
use crate::compare::observation::{Body, Intent, Observation};
use crate::compare::pair::InstanceIds;
use crate::names::{ServiceName, StepId};

/// What is kept of a pair, or why nothing is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PairRecord {
    /// The pair.
    Pair(Box<KeptPair>),
    /// Nothing.
    Not(NotKept),
}

/// Why nothing is kept of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum NotKept {
    /// It is larger than a sample may be.
    #[error("the pair is larger than what is kept of one (`sample_bytes_max`)")]
    TooLarge,
    /// The calls hold values that the workflow declares as sensitive.
    #[error("its calls hold values that the workflow declares as sensitive")]
    SensitiveCalls,
    /// The address of a call holds something secret.
    #[error("the address of a call holds something secret")]
    SecretAddress,
    /// The time for the pair was over.
    #[error("the time for the pair (`compare_ms`) was over before everything secret in it was replaced")]
    Time,
    /// A part of it could not be read within the bounds.
    #[error("a part of the pair could not be read")]
    Unreadable,
}

/// A pair without anything secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeptPair {
    /// The request as conditions read it, as JSON.
    pub(super) request: String,
    /// Legacy's reply.
    pub legacy: KeptReply,
    /// The engine's reply.
    pub engine: KeptReply,
    /// What the engine's steps would have sent, and what private steps sent in `dark`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub intents: Vec<Intent>,
    /// What the run read with methods that are not safe; absent if that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) sent_reads: Option<Vec<Intent>>,
    /// The steps whose `for_each` had no items.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) steps_without_items: Vec<StepId>,
    /// The steps whose calls legacy may have made for the request although none is attributed to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) unattributed_steps: Vec<StepId>,
    /// The calls that legacy made; absent if they were not watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effects: Option<Vec<KeptCall>>,
    /// The ids of the instance, of a follow-up whose instance has a twin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) instance: Option<InstanceIds>,
    /// The ids that earlier pairs of the instance bound.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) earlier_ids: Vec<EarlierIds>,
    /// Whether the engine read data that legacy had already changed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) stale_reads: bool,
    /// Whether the run could not go on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) has_stopped: bool,
}

/// A reply without anything secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeptReply {
    /// The status.
    pub(super) status: u16,
    /// The headers, except `content-encoding`: the body is kept decoded.
    pub(super) headers: Vec<(String, String)>,
    /// Whether there was a `content-encoding`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) was_encoded: bool,
    /// The body.
    pub(super) body: KeptBody,
}

/// A call by legacy without anything secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeptCall {
    /// The service that was called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) service: Option<ServiceName>,
    /// The method.
    pub(super) method: String,
    /// The whole URL.
    pub(super) url: String,
    /// The headers, except `content-encoding`.
    pub(super) headers: Vec<(String, String)>,
    /// The body.
    pub(super) body: KeptBody,
    /// The status of the reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reply_status: Option<u16>,
    /// Gives the order of calls.
    pub(super) number: u64,
    /// See [`Effect::replied_before`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) replied_before: Option<u64>,
}

impl KeptReply {
    /// The reply without its body, of which perhaps only the digest is kept.
    pub(super) fn without_body(&self) -> Self {
        Self { body: KeptBody::Empty, ..self.clone() }
    }
    /// The reply as it was observed, with placeholders in place of what is secret; `None` if only the digest of its
    /// body is kept.
    pub(super) fn observation(&self) -> Option<Observation> {
        let status = StatusCode::from_u16(self.status).ok()?;
        let body = Body::Whole(self.body.bytes()?);
        Some(Observation::new(status, header_map(&self.headers), body, Duration::ZERO, Vec::new()))
    }
}

impl KeptCall {
    /// The call as it was seen, with placeholders in place of what is secret; `None` if only the digest of its body is
    /// kept.
    pub(super) fn effect(&self) -> Option<Effect> {
        let reply = |status: u16| {
            let status = StatusCode::from_u16(status).ok()?;
            Some(EffectReply::new(status, HeaderMap::new(), Body::TooLarge))
        };
        Some(Effect {
            service: self.service.clone(),
            method: self.method.parse::<Method>().ok()?,
            url: self.url.clone(),
            headers: header_map(&self.headers),
            body: Body::Whole(self.body.bytes()?),
            reply: self.reply_status.and_then(reply),
            number: self.number,
            replied_before: self.replied_before,
        })
    }
}

fn header_map(headers: &[(String, String)]) -> HeaderMap {
    let parsed = headers.iter().filter_map(|(name, value)| {
        Some((name.parse::<HeaderName>().ok()?, HeaderValue::from_bytes(value.as_bytes()).ok()?))
    });
    let mut map = HeaderMap::new();
    parsed.for_each(|(name, value)| {
        map.append(name, value);
    });
    map
}

//! The form in which a capture is stored and exported: one JSON object.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::compare::effect::{Effect, EffectReply};
use crate::compare::observation::{Body, Observation};
use crate::names::{RouteId, ServiceName, StepId};

/// The version of the form. A reader refuses a capture of a newer version.
pub const CAPTURE_VERSION: u32 = 1;

/// One pair, without anything secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Capture {
    /// The version of this form.
    pub version: u32,
    /// Identifies the capture.
    pub id: Uuid,
    /// The route.
    pub route: RouteId,
    /// When it was compared.
    pub at: Timestamp,
    /// When the run began; `None` in captures that an older version made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
    /// The plan that the engine ran; `None` where only a request and a reply are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// What the comparison found: `matched`, `ignored` or `mismatched`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// The request.
    pub request: CapturedRequest,
    /// Legacy's reply.
    pub legacy: CapturedReply,
    /// Of a follow-up: the engine's id of the instance (`id`) and legacy's (`legacy_id`); and, if the workflow reads
    /// any part of `instance`, all of it: `input`, `output` and `status` of the run that created it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<serde_json::Value>,
    /// What the reads of the run asked, each with the reply, in the order of the replies.
    #[serde(default)]
    pub reads: Vec<CapturedCall>,
    /// What the run would have sent, or, in `dark`, sent to private services.
    #[serde(default)]
    pub intents: Vec<CapturedCall>,
    /// The calls that legacy made, in their order; `None` where they were not seen, or not all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls: Option<Vec<CapturedCall>>,
}

/// A request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CapturedRequest {
    /// The method.
    pub method: String,
    /// The path.
    pub path: String,
    /// The query, without its `?`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// The headers, without those that describe the transfer.
    pub headers: Vec<(String, String)>,
    /// The body.
    #[serde(default)]
    pub body: CapturedBody,
}

/// A reply.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CapturedReply {
    /// The status.
    pub status: u16,
    /// The headers, without those that describe the transfer.
    pub headers: Vec<(String, String)>,
    /// The body.
    #[serde(default)]
    pub body: CapturedBody,
    /// Of a call by legacy: see [`EffectReply::may_be_unread`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub may_be_unread: bool,
}

/// A call to a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CapturedCall {
    /// The step, of a call of the engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepId>,
    /// The item of a `for_each`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<u32>,
    /// The service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceName>,
    /// The method.
    pub method: String,
    /// The whole URL.
    pub url: String,
    /// The headers.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// The body.
    #[serde(default)]
    pub body: CapturedBody,
    /// The reply; `None` of an intent, and where none came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<CapturedReply>,
    /// Of a call by legacy: its place in the order of calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
    /// Of a call by legacy: a call with this number or a larger one began after the reply had come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replied_before: Option<u64>,
}

/// A body.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CapturedBody {
    /// There is none.
    #[default]
    Empty,
    /// All of it, redacted. What is not text is replaced by the keyed hash of its bytes.
    Text(String),
    /// It was larger than the capture limit.
    TooLarge,
}

/// Why a line is no capture.
#[derive(Debug, thiserror::Error)]
pub enum UnreadableCapture {
    /// It is no JSON of this form.
    #[error("it is no capture: {0}")]
    Form(#[from] serde_json::Error),
    /// A newer version wrote it.
    #[error("it has version {0} of the form, and this pointsman knows it up to {CAPTURE_VERSION}")]
    Newer(u32),
    /// A part of it is no valid HTTP.
    #[error("{0} is not valid")]
    Http(&'static str),
}

/// The version alone, of a capture in whatever form.
#[derive(Deserialize)]
struct VersionOnly {
    version: u32,
}

impl Capture {
    /// Reads a capture from its JSON.
    ///
    /// # Errors
    /// It is none, or a newer version wrote it.
    pub fn read(text: &str) -> Result<Self, UnreadableCapture> {
        // The version is read first: a newer form may lack fields of this one.
        let VersionOnly { version } = serde_json::from_str(text)?;
        if version > CAPTURE_VERSION {
            return Err(UnreadableCapture::Newer(version));
        }
        Ok(serde_json::from_str(text)?)
    }

    /// What legacy did.
    ///
    /// # Errors
    /// The reply is no valid HTTP.
    pub fn legacy(&self) -> Result<Observation, UnreadableCapture> {
        let reply = self.legacy.reply()?;
        Ok(Observation::new(reply.status, reply.headers, reply.body, Duration::ZERO, Vec::new()).of_capture())
    }

    /// The calls that legacy made; `None` where they are not known.
    ///
    /// # Errors
    /// One of them is no valid HTTP.
    pub fn effects(&self) -> Result<Option<Vec<Effect>>, UnreadableCapture> {
        let Some(calls) = &self.calls else { return Ok(None) };
        let effects = calls.iter().enumerate().map(|(index, call)| call.effect(index as u64));
        effects.collect::<Result<Vec<_>, _>>().map(Some)
    }
}

impl CapturedRequest {
    /// The method and the headers.
    ///
    /// # Errors
    /// They are no valid HTTP.
    pub fn head(&self) -> Result<(Method, HeaderMap), UnreadableCapture> {
        let method = self.method.parse().map_err(|_| UnreadableCapture::Http("the request's method"))?;
        Ok((method, header_map(&self.headers)?))
    }
}

impl CapturedReply {
    pub(super) fn reply(&self) -> Result<EffectReply, UnreadableCapture> {
        let status = StatusCode::from_u16(self.status).map_err(|_| UnreadableCapture::Http("a reply's status"))?;
        let reply = EffectReply::new(status, header_map(&self.headers)?, self.body.body());
        Ok(EffectReply { may_be_unread: self.may_be_unread, ..reply })
    }
}

impl CapturedCall {
    fn effect(&self, index: u64) -> Result<Effect, UnreadableCapture> {
        Ok(Effect {
            service: self.service.clone(),
            method: self.method.parse().map_err(|_| UnreadableCapture::Http("a call's method"))?,
            url: self.url.clone(),
            headers: header_map(&self.headers)?,
            body: self.body.body(),
            reply: self.reply.as_ref().map(CapturedReply::reply).transpose()?,
            number: self.number.unwrap_or(index),
            replied_before: self.replied_before,
        })
    }
}

impl CapturedBody {
    /// The body as it is compared.
    pub fn body(&self) -> Body {
        match self {
            Self::Empty => Body::Whole(Bytes::new()),
            Self::Text(text) => Body::Whole(text.clone().into()),
            Self::TooLarge => Body::TooLarge,
        }
    }
    /// The text of it.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Empty | Self::TooLarge => "",
        }
    }
}

fn header_map(fields: &[(String, String)]) -> Result<HeaderMap, UnreadableCapture> {
    let mut headers = HeaderMap::with_capacity(fields.len());
    for (name, value) in fields {
        let name = http::HeaderName::try_from(name).map_err(|_| UnreadableCapture::Http("a header's name"))?;
        let value = http::HeaderValue::try_from(value).map_err(|_| UnreadableCapture::Http("a header's value"))?;
        headers.try_append(name, value).map_err(|_| UnreadableCapture::Http("the number of headers"))?;
    }
    Ok(headers)
}

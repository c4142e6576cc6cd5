//! What is recorded of a reply to a call.
//!
//! Always true: the secrets of the request are masked in it; of its headers only those are recorded that the plan
//! reads. The body of an accepted reply to a step that streams is not parsed: without its content encoding, it is
//! recorded as bytes, or, where the run's caller gets it as the service sends it, as a value that represents them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER, SET_COOKIE};
use http::{HeaderMap, response};
use hyper::body::{Body, Incoming};
use serde_json::Value;

use super::decode::{self, DecodeBounds};
use super::echoed_secrets::EchoedSecrets;
use crate::clock;
use crate::compare::{self, AnsweredRead, EffectReply, Intent, decoded_body};
use crate::exchange::{Reads, StreamedBody};
use crate::names::StepId;
use crate::transport::has_known_coding;
use crate::workflow::{AttemptResult, LegacyResult, RecordedHeaders, Statuses};

/// The call of a step that streams its reply.
pub(in crate::engine) struct StreamingCall {
    pub step: StepId,
    /// The statuses of a reply that is streamed.
    pub accept: Statuses,
    /// Receives the reply while the service sends its body. `None`: the body is read whole.
    pub receiver: Option<StreamedBody>,
}

/// How the reply to a call is recorded.
pub(in crate::engine) struct ReplyRecorder {
    pub bounds: DecodeBounds,
    /// Which headers of the reply are recorded.
    pub headers: Arc<RecordedHeaders>,
    /// The secrets in the request.
    pub secrets: EchoedSecrets,
    /// `None` for a step that does not stream.
    pub streaming: Option<StreamingCall>,
}

impl ReplyRecorder {
    /// Whether the body of a reply is not read, but handed to the run's caller. An encoded one is read and decoded: the
    /// caller has not said that it takes the encoding.
    pub fn streams(&self, head: &response::Parts, body: &Incoming) -> bool {
        let is_plain = head.headers.get_all(CONTENT_ENCODING).iter().all(|coding| coding == "identity");
        let has_receiver = self.accepted(head).is_some_and(|streaming| streaming.receiver.is_some());
        has_receiver && is_plain && has_known_coding(&head.headers) && !body.is_end_stream()
    }

    /// The call of a step that streams, if it accepts this reply.
    fn accepted(&self, head: &response::Parts) -> Option<&StreamingCall> {
        self.streaming.as_ref().filter(|streaming| streaming.accept.contains(head.status.as_u16()))
    }

    /// The result of a call whose reply has this body; `Err` holds the first bytes of one that is larger than the
    /// bound.
    pub fn whole(&self, head: &response::Parts, body: Result<Bytes, Bytes>) -> AttemptResult {
        let (status, mark) = (head.status.as_u16(), self.bounds.bytes_mark);
        if !has_known_coding(&head.headers) {
            let why = "it has a transfer coding other than `chunked`".to_owned();
            return AttemptResult::Unreadable { status, why, body_start: self.secrets.excerpt(&[], false) };
        }
        let bytes = match body {
            Ok(bytes) => bytes,
            Err(body_start) => {
                let why = format!("its body is larger than the limit output_bytes_max ({})", self.bounds.bytes);
                let body_start = self.secrets.excerpt(&body_start, true);
                return self.secrets.masked(AttemptResult::Unreadable { status, why, body_start }, mark);
            }
        };
        let output = match self.accepted(head) {
            // The bytes that the run's caller would get.
            Some(_) => match decoded_body(&head.headers, &bytes, self.bounds.bytes) {
                Some(plain) => Ok(mark.value(&plain, content_type(&head.headers))),
                None => Err("has a content-encoding that cannot be decoded here within the limits".to_owned()),
            },
            None => decode::body_with_headers(&head.headers, &bytes, self.bounds),
        };
        let result = match output {
            Ok(output) => self.reply(head, output),
            Err(why) => {
                let body_start = self.secrets.excerpt(&bytes, false);
                AttemptResult::Unreadable { status, why: format!("its body {why}"), body_start }
            }
        };
        self.secrets.masked(result, mark)
    }

    /// The result of a call whose reply's body is not read.
    pub fn streamed(&self, head: &response::Parts) -> AttemptResult {
        let mark = self.bounds.bytes_mark;
        let mut result = self.secrets.masked(self.reply(head, Value::Null), mark);
        if let (AttemptResult::Reply { output, .. }, Some(streaming)) = (&mut result, &self.streaming) {
            *output = Arc::new(mark.streamed(&streaming.step, content_type(&head.headers)));
        }
        result
    }

    fn reply(&self, head: &response::Parts, output: Value) -> AttemptResult {
        AttemptResult::Reply {
            status: head.status.as_u16(),
            headers: reply_headers(&head.headers, &self.headers),
            output: Arc::new(output),
            retry_after_ms: retry_after_ms(&head.headers, clock::now().into()),
        }
    }
}

/// The reply to a call by legacy, decoded as one to a call of the engine would be.
pub(in crate::engine) fn of_legacy(
    reply: &EffectReply,
    recorded: Arc<RecordedHeaders>,
    bounds: DecodeBounds,
) -> LegacyResult {
    let status = reply.status.as_u16();
    let output = match &reply.body {
        compare::Body::TooLarge => Err("was not captured whole (body_capture_bytes_max)".to_owned()),
        compare::Body::Whole(bytes) if bytes.len() > bounds.bytes => {
            Err(format!("is larger than the limit output_bytes_max ({})", bounds.bytes))
        }
        compare::Body::Whole(bytes) => decode::body_with_headers(&reply.headers, bytes, bounds),
    };
    match output {
        Ok(output) => {
            LegacyResult::Reply { status, headers: reply_headers(&reply.headers, &recorded), output: Arc::new(output) }
        }
        Err(why) => LegacyResult::Unreadable { status, why: format!("its body {why}") },
    }
}

/// A read whose reply is recorded for a capture.
pub(in crate::engine) struct RecordedRead {
    pub reads: Arc<dyn Reads>,
    /// What it asks, with stars in place of secrets.
    pub asked: Intent,
}

impl RecordedRead {
    /// Records a reply that was read whole, without the secrets of its request.
    pub(super) fn record(self, head: &response::Parts, body: &Bytes, recorder: &ReplyRecorder) {
        let Self { reads, asked } = self;
        let mut headers = head.headers.clone();
        let plain = match decoded_body(&headers, body, recorder.bounds.bytes) {
            Some(plain) => plain,
            None => body.clone(),
        };
        headers.remove(CONTENT_ENCODING);
        headers.remove(SET_COOKIE);
        recorder.secrets.mask_headers(&mut headers);
        let body = compare::Body::Whole(recorder.secrets.masked_body(plain));
        reads.record(AnsweredRead { asked, reply: Some(EffectReply::new(head.status, headers, body)) });
    }
}

/// The result of a read that is answered from a capture. Without an answer it counts as not sent.
pub(in crate::engine) fn of_captured(answer: Result<EffectReply, String>, recorder: &ReplyRecorder) -> AttemptResult {
    let EffectReply { status, headers, body, .. } = match answer {
        Ok(reply) => reply,
        Err(why) => return AttemptResult::NotSent(why),
    };
    let mut head = http::Response::new(()).into_parts().0;
    (head.status, head.headers) = (status, headers);
    match body {
        compare::Body::Whole(bytes) if bytes.len() <= recorder.bounds.bytes => recorder.whole(&head, Ok(bytes)),
        compare::Body::Whole(_) | compare::Body::TooLarge => recorder.whole(&head, Err(Bytes::new())),
    }
}

fn content_type(headers: &HeaderMap) -> Option<&str> {
    headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok())
}

/// The headers of a reply that are recorded; never `set-cookie`, with which anybody who reads the events could take
/// over the session.
fn reply_headers(headers: &HeaderMap, recorded: &RecordedHeaders) -> BTreeMap<String, String> {
    let mut shown = match recorded {
        RecordedHeaders::All => decode::headers(headers),
        RecordedHeaders::Only(names) => decode::headers_of(headers, names.iter().map(|name| &**name)),
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

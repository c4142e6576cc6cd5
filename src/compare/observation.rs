//! What one arm did with one request.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use serde::{Deserialize, Serialize};

use crate::names::{ServiceName, StepId};

/// What one arm did with one request; frozen when it is made.
#[derive(Clone, Debug)]
pub struct Observation {
    status: StatusCode,
    headers: HeaderMap,
    body: Body,
    latency: Duration,
    intents: Vec<Intent>,
    steps_without_items: Vec<StepId>,
    has_stopped: bool,
    sent_reads: Option<Vec<Intent>>,
    unattributed_steps: Vec<StepId>,
    is_captured: bool,
}

/// A body as it was observed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// The whole body.
    Whole(Bytes),
    /// Larger than the capture limit: its bytes were not captured.
    TooLarge,
}

/// A step's outward request that was recorded and not sent; in `dark` also the record of what a private step sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Intent {
    /// The step.
    pub step: StepId,
    /// The item of a `for_each`.
    pub item: Option<u32>,
    /// The method.
    #[serde(with = "method_text")]
    pub method: Method,
    /// The whole URL.
    pub url: String,
    /// Headers as they would have been sent, without secrets.
    pub headers: Vec<(String, String)>,
    /// The body as JSON if it is JSON, otherwise as text; `null` if it is empty or not text.
    pub body: serde_json::Value,
    /// The service that the request would have gone to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceName>,
    /// The exact bytes of the body, unless it is empty, or a JSON object or array that is declared as
    /// `application/json`: then `body` is enough.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "base64_bytes")]
    pub bytes: Option<Bytes>,
    /// The number of the call by legacy whose reply the step took (`rehearse: legacy`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken_from: Option<u64>,
}

impl Observation {
    /// Freezes what was seen. `latency` is the time from the request's last byte to the reply's last byte.
    pub fn new(status: StatusCode, headers: HeaderMap, body: Body, latency: Duration, intents: Vec<Intent>) -> Self {
        let (steps_without_items, unattributed_steps, has_stopped, sent_reads, is_captured) = Default::default();
        Self {
            status,
            headers,
            body,
            latency,
            intents,
            steps_without_items,
            unattributed_steps,
            has_stopped,
            sent_reads,
            is_captured,
        }
    }
    /// Replaces the intents.
    pub fn with_intents(self, intents: Vec<Intent>) -> Self {
        Self { intents, ..self }
    }
    /// Adds the steps whose `for_each` had no items: their intents are an empty list.
    pub fn with_steps_without_items(self, steps: Vec<StepId>) -> Self {
        Self { steps_without_items: steps, ..self }
    }
    /// Adds the reads with a method that is not safe: those that the run sent, and those that were answered in place of
    /// their services.
    pub fn with_sent_reads(self, reads: Option<Vec<Intent>>) -> Self {
        Self { sent_reads: reads, ..self }
    }
    /// Adds the steps whose calls legacy may have made too, although none of its calls is known to be for the request:
    /// that such a call is missing is no difference.
    pub fn with_unattributed_steps(self, steps: Vec<StepId>) -> Self {
        Self { unattributed_steps: steps, ..self }
    }
    /// Marks the observation as that of a run that could not go on, because the output of a rehearsed step is not
    /// known: only the calls that the run made until then are compared.
    pub fn of_stopped_run(self) -> Self {
        Self { has_stopped: true, ..self }
    }
    /// Marks the observation as read from a capture: hashes stand in place of what is secret in it.
    pub(super) fn of_capture(self) -> Self {
        Self { is_captured: true, ..self }
    }
    /// The reply's status.
    pub fn status(&self) -> StatusCode {
        self.status
    }
    /// The reply's headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }
    /// The reply's body.
    pub fn body(&self) -> &Body {
        &self.body
    }
    /// The time from the request's last byte to the reply's last byte.
    pub fn latency(&self) -> Duration {
        self.latency
    }
    /// What rehearsed steps would have sent, and what private steps sent in `dark`.
    pub fn intents(&self) -> &[Intent] {
        &self.intents
    }
    /// The reads with a method that is not safe; `None` if it is not known which the run made.
    pub fn sent_reads(&self) -> Option<&[Intent]> {
        self.sent_reads.as_deref()
    }
    /// The steps whose calls legacy may have made for the request although none is attributed to it.
    pub fn unattributed_steps(&self) -> &[StepId] {
        &self.unattributed_steps
    }
    /// Whether it was read from a capture, and so were the calls that legacy made.
    pub(super) fn is_captured(&self) -> bool {
        self.is_captured
    }
    /// Whether the run could not go on, so that the reply says nothing.
    pub fn has_stopped(&self) -> bool {
        self.has_stopped
    }
    /// The steps whose `for_each` had no items.
    pub fn steps_without_items(&self) -> &[StepId] {
        &self.steps_without_items
    }
}

mod method_text {
    use http::Method;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(method: &Method, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(method.as_str())
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Method, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

mod base64_bytes {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(bytes: &Option<Bytes>, serializer: S) -> Result<S::Ok, S::Error> {
        match bytes {
            Some(bytes) => serializer.serialize_str(&STANDARD.encode(bytes)),
            None => serializer.serialize_none(),
        }
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Bytes>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        let decoded = text.map(|text| STANDARD.decode(text)).transpose();
        decoded.map(|bytes| bytes.map(Bytes::from)).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_intent_of_an_earlier_version_is_read_and_bytes_are_kept() {
        let earlier =
            r#"{"step":"charge","item":null,"method":"POST","url":"http://bank/charges","headers":[],"body":5}"#;
        let mut intent: Intent = serde_json::from_str(earlier).expect("an intent of an earlier version is read");
        assert_eq!((&intent.service, &intent.bytes), (&None, &None));
        assert_eq!(serde_json::to_string(&intent).expect("JSON"), earlier);
        intent.service = Some("bank".into());
        intent.bytes = Some(Bytes::from_static(b"\xff\x00"));
        let text = serde_json::to_string(&intent).expect("JSON");
        assert_eq!(serde_json::from_str::<Intent>(&text).expect("JSON"), intent);
    }
}

//! Bytes in what is recorded of a run: in answers, and in the items that people review.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::bytes::{BYTES, BytesMark, CONTENT_TYPE, DESCRIBED_SIZE, describe_bytes};
use super::{AnswerRecord, Payload, ReviewItem};

impl BytesMark {
    /// The bytes and content type that a value represents; `None` for any other value.
    pub fn bytes(&self, value: &Value) -> Option<(Payload, Option<String>)> {
        let (text, content_type) = self.parts(value)?;
        Some((Payload::of(&Payload::Base64(text.to_owned()).bytes()), content_type.map(str::to_owned)))
    }
}

impl AnswerRecord {
    /// The value of the body where it is not bytes: plain text stays text, also where it could be read as JSON.
    pub fn value(&self) -> Value {
        match &self.body {
            Payload::Text(text) if self.is_plain_text => Value::String(text.clone()),
            Payload::Empty if self.is_plain_text => Value::String(String::new()),
            body => body.value(),
        }
    }
    /// The body of a child's answer as the output of its parent's step: bytes stay bytes, and text stays text.
    pub fn output(&self, mark: BytesMark) -> Value {
        let bytes = match &self.body {
            Payload::Base64(text) => STANDARD.decode(text).ok(),
            Payload::Text(text) if self.bytes_as_text => Some(text.as_bytes().to_vec()),
            Payload::Text(_) | Payload::Empty => None,
        };
        let content_type = self.headers.iter().find(|(name, _)| name == "content-type").map(|(_, value)| &**value);
        bytes.map_or_else(|| self.value(), |bytes| mark.value(&bytes, content_type))
    }
    /// As [`AnswerRecord::output`], for people: of bytes only size and content type are shown. The size of sensitive
    /// bytes is not shown, because the store has only their ciphertext.
    pub fn shown_output(&self) -> Value {
        let mut shown = match self.sensitive_body().is_empty() {
            true => self.output(BytesMark::new(&[0; 32])),
            false => self.value(),
        };
        describe_bytes(&mut shown);
        shown
    }
    /// Whether two answers are the same for the caller. How the body was made, and which parts are sensitive, is not
    /// compared: earlier versions recorded nothing or less about that.
    pub(super) fn is_same_for_caller(&self, other: &Self) -> bool {
        let AnswerRecord {
            status,
            headers,
            body,
            bytes_as_text: _,
            is_plain_text: _,
            is_type_of_unsent_body: _,
            streamed_from: _,
            sensitive: _,
        } = self;
        (status, headers, body) == (&other.status, &other.headers, &other.body)
    }
}

/// The items that would be shown, each with the recorded value if the two differ only in how bytes are described.
pub(super) fn as_recorded_earlier(was: &[ReviewItem], would: &[ReviewItem]) -> Vec<ReviewItem> {
    let mut items = would.to_vec();
    for (item, was) in items.iter_mut().zip(was) {
        if is_same_description(&was.value, &item.value) {
            item.value = was.value.clone();
        }
    }
    items
}

/// Whether a value that was recorded for people is the same as one that would be now, or differs only in how bytes are
/// described: earlier versions recorded the beginning of their encoding. Their size is not compared then.
fn is_same_description(was: &Value, would: &Value) -> bool {
    match (was, would) {
        (Value::Array(was), Value::Array(would)) => {
            was.len() == would.len() && was.iter().zip(would).all(|(was, would)| is_same_description(was, would))
        }
        (Value::Object(was), Value::Object(would)) if was.contains_key(BYTES) && would.contains_key(DESCRIBED_SIZE) => {
            was.get(CONTENT_TYPE) == would.get(CONTENT_TYPE)
        }
        (Value::Object(was), Value::Object(would)) => {
            let is_same = |(name, was)| would.get(name).is_some_and(|would| is_same_description(was, would));
            was.len() == would.len() && was.iter().all(is_same)
        }
        (was, would) => was == would,
    }
}

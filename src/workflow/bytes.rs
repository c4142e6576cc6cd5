//! Bytes that are neither JSON nor text, represented as a JSON value that expressions can pass on.
//!
//! Always true: such a value is recognised by its mark, a hash of the bytes and their type that is keyed with a secret
//! of the store. Nobody outside can make a mark, so a JSON body that only looks like such a value (`{"$bytes": …}`),
//! from a caller or from a service, stays JSON wherever it is passed on.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::expression::{ExpressionError, parse_json};
use crate::names::StepId;

/// The member that holds the bytes: `{"$bytes": base64, "content_type": …, "$mark": …}`.
pub(super) const BYTES: &str = "$bytes";
pub(super) const CONTENT_TYPE: &str = "content_type";
const MARK: &str = "$mark";
/// The member of a description that holds the number of bytes.
pub(super) const DESCRIBED_SIZE: &str = "bytes";
/// The member that names the step whose reply's body is streamed. Such a value represents bytes that are not in it.
const STREAMED_FROM: &str = "$stream";
/// Hexadecimal digits of a mark: 128 bits.
const MARK_DIGITS: usize = 32;

/// Makes values that represent bytes, and tells them from JSON that only looks like them.
#[derive(Clone, Copy)]
pub struct BytesMark {
    key: [u8; 32],
    /// Values without a mark are accepted too. Only for runs that began under a version that wrote none.
    accepts_unmarked: bool,
}

impl BytesMark {
    /// Marks that are keyed with this secret of the store.
    pub fn new(key_secret: &[u8; 32]) -> Self {
        let key = *blake3::keyed_hash(key_secret, b"bytes that expressions pass on").as_bytes();
        Self { key, accepts_unmarked: false }
    }
    /// These marks; values without one are accepted too, if that is set.
    pub(super) fn accepting_unmarked(self, accepts_unmarked: bool) -> Self {
        Self { accepts_unmarked, ..self }
    }
    /// Represents bytes as a value.
    pub fn value(&self, bytes: &[u8], content_type: Option<&str>) -> Value {
        let text = STANDARD.encode(bytes);
        let mark = self.mark(&text, content_type);
        json!({ BYTES: text, CONTENT_TYPE: content_type, MARK: mark })
    }
    /// Represents the body of a reply to a step's call that is passed on while the service sends it.
    pub fn streamed(&self, step: &StepId, content_type: Option<&str>) -> Value {
        let mark = self.mark(&streamed_text(step.as_str()), content_type);
        json!({ BYTES: "", STREAMED_FROM: step.as_str(), CONTENT_TYPE: content_type, MARK: mark })
    }
    /// The step, if a value represents the streamed body of the reply to its call.
    pub(super) fn streamed_from(&self, value: &Value) -> Option<StepId> {
        let step = value.get(STREAMED_FROM)?.as_str()?;
        (value.get(MARK).is_some() && self.is_bytes(value)).then(|| StepId::new(step))
    }
    /// Whether a value has the member that bytes have. Cheap: the mark is not computed.
    pub fn may_be_bytes(value: &Value) -> bool {
        value.get(BYTES).is_some()
    }
    /// Whether a value represents bytes.
    pub fn is_bytes(&self, value: &Value) -> bool {
        self.parts(value).is_some()
    }
    /// Whether a list or map contains bytes, at any depth.
    pub fn are_within(&self, value: &Value) -> bool {
        let is_or_contains = |member: &Value| self.is_bytes(member) || self.are_within(member);
        match value {
            Value::Array(items) => items.iter().any(is_or_contains),
            Value::Object(members) => members.values().any(is_or_contains),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
        }
    }
    /// The encoded bytes and the content type of a value that represents bytes.
    pub(super) fn parts<'a>(&self, value: &'a Value) -> Option<(&'a str, Option<&'a str>)> {
        let members = value.as_object()?;
        let text = members.get(BYTES)?.as_str()?;
        let content_type = members.get(CONTENT_TYPE).and_then(Value::as_str);
        let streamed = members.get(STREAMED_FROM).map(|step| streamed_text(step.as_str().unwrap_or_default()));
        let is_marked = match members.get(MARK) {
            Some(mark) => mark.as_str() == Some(self.mark(streamed.as_deref().unwrap_or(text), content_type).as_str()),
            None => self.accepts_unmarked,
        };
        is_marked.then_some((text, content_type))
    }
    fn mark(&self, text: &str, content_type: Option<&str>) -> String {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(text.as_bytes()).update(b"\n").update(content_type.unwrap_or_default().as_bytes());
        hasher.finalize().to_hex().as_str().chars().take(MARK_DIGITS).collect()
    }
}

/// What the mark of a streamed body is computed of, in place of its bytes: no base 64 has a line feed.
fn streamed_text(step: &str) -> String {
    format!("stream\n{step}")
}

/// The error where bytes stand within another value: they have no form there that the receiver could read.
pub(super) fn bytes_within_error() -> ExpressionError {
    ExpressionError::new(
        "bytes (a body that is neither JSON, nor a form, nor text) cannot be a part of a body or an answer",
    )
}

/// Replaces values that represent bytes, at any depth, by a description: the number of bytes and their content type.
/// For people and other readers: whoever knew a mark could make the engine send its bytes. The form of a value decides,
/// because the mark cannot be verified where values are shown.
pub fn describe_bytes(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(describe_bytes),
        Value::Object(members) => match marked_text(members).map(encoded_size) {
            Some(size) => {
                members.retain(|name, _| name == CONTENT_TYPE);
                members.insert(DESCRIBED_SIZE.to_owned(), size.into());
            }
            None => members.values_mut().for_each(describe_bytes),
        },
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The JSON in a text, or in a value that represents bytes. The mark of bytes is not checked.
pub(super) fn json_within(value: &Value) -> Option<Value> {
    match value {
        Value::String(text) => parse_json(text.as_bytes()).ok(),
        Value::Object(members) => parse_json(&STANDARD.decode(members.get(BYTES)?.as_str()?).ok()?).ok(),
        Value::Array(_) | Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

/// Whether [`describe_bytes`] replaces this value.
pub(super) fn is_marked_bytes(value: &Value) -> bool {
    value.as_object().is_some_and(|members| marked_text(members).is_some())
}

/// The encoded bytes in an object that has the form of a value with a mark.
fn marked_text(members: &Map<String, Value>) -> Option<&str> {
    let mark = members.get(MARK)?.as_str()?;
    let has_form = members.len() == 3 && members.contains_key(CONTENT_TYPE) && mark.len() == MARK_DIGITS;
    let is_hexadecimal = mark.bytes().all(|digit| digit.is_ascii_hexdigit());
    members.get(BYTES)?.as_str().filter(|_| has_form && is_hexadecimal)
}

/// The number of bytes that a text in base 64 encodes.
fn encoded_size(text: &str) -> usize {
    let digits = text.trim_end_matches('=').len();
    digits / 4 * 3 + digits % 4 * 3 / 4
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workflow::Payload;

    #[test]
    fn bytes_are_shown_as_a_description_and_other_json_as_it_is() {
        let mark = BytesMark::new(&[7; 32]);
        for size in 0..6 {
            let value = mark.value(&vec![255; size], Some("image/png"));
            let mut shown = json!({ "a": [1, value], "b": { "$bytes": "AQ==", "content_type": null } });
            describe_bytes(&mut shown);
            let described = json!({ "bytes": size, "content_type": "image/png" });
            assert_eq!(shown, json!({ "a": [1, described], "b": { "$bytes": "AQ==", "content_type": null } }));
        }
    }

    #[test]
    fn only_values_with_a_valid_mark_are_bytes() {
        let mark = BytesMark::new(&[7; 32]);
        let value = mark.value(&[0, 159, 146], Some("image/png"));
        let (payload, content_type) = mark.bytes(&value).unwrap();
        assert_eq!((payload.bytes(), content_type.as_deref()), (vec![0, 159, 146], Some("image/png")));
        let mut unmarked = value.clone();
        unmarked.as_object_mut().unwrap().remove(MARK);
        let mut forged = value.clone();
        forged[MARK] = json!("0123456789abcdef0123456789abcdef");
        let mut other = value.clone();
        other[CONTENT_TYPE] = json!("text/html");
        for value in [&unmarked, &forged, &other, &json!("text"), &json!({})] {
            assert_eq!(mark.bytes(value), None, "{value}");
        }
        assert_eq!(BytesMark::new(&[8; 32]).bytes(&value), None, "another store's");
        let streamed = mark.streamed(&StepId::new("file"), Some("image/png"));
        assert_eq!(mark.streamed_from(&streamed), Some(StepId::new("file")));
        assert_eq!(mark.bytes(&streamed), Some((Payload::Empty, Some("image/png".into()))));
        let mut of_other = streamed.clone();
        of_other[STREAMED_FROM] = json!("other");
        let mut renamed = value.clone();
        renamed[STREAMED_FROM] = json!("file");
        for value in [&value, &of_other, &renamed, &json!({ "$bytes": "", "$stream": "file" })] {
            assert_eq!(mark.streamed_from(value), None, "{value}");
        }
        let earlier = BytesMark { accepts_unmarked: true, ..mark };
        assert!(earlier.bytes(&unmarked).is_some() && earlier.bytes(&value).is_some());
        assert_eq!(earlier.bytes(&forged), None);
    }
}

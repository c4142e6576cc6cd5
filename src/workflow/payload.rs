//! How events store bytes.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::expression::parse_json;

/// Bytes, readable where they are text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Payload {
    /// No bytes.
    Empty,
    /// UTF-8 text.
    Text(String),
    /// Anything else, in base64.
    Base64(String),
}

impl Payload {
    /// Wraps bytes.
    pub fn of(bytes: &[u8]) -> Self {
        use base64::Engine as _;
        match std::str::from_utf8(bytes) {
            Ok("") => Payload::Empty,
            Ok(text) => Payload::Text(text.to_owned()),
            Err(_) => Payload::Base64(base64::engine::general_purpose::STANDARD.encode(bytes)),
        }
    }
    /// The bytes; none where the base64 is invalid.
    pub fn bytes(&self) -> Vec<u8> {
        use base64::Engine as _;
        match self {
            Payload::Empty => Vec::new(),
            Payload::Text(text) => text.as_bytes().to_vec(),
            Payload::Base64(text) => base64::engine::general_purpose::STANDARD.decode(text).unwrap_or_default(),
        }
    }
    /// The value of the bytes: JSON where they parse, else text; `null` where there are none, or they are not text.
    pub fn value(&self) -> Value {
        match self {
            Payload::Empty | Payload::Base64(_) => Value::Null,
            Payload::Text(text) => parse_json(text.as_bytes()).unwrap_or_else(|_| Value::String(text.clone())),
        }
    }
}

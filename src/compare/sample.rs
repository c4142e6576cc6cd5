//! How a sample stores a body.

use super::bounds::Bounds;
use super::digest::digest;
use super::observation::{Body, Observation};
use super::parsed_body::ParsedBody;
use super::redact::redact;

/// A body as a sample stores it: redacted JSON, or the digest of anything else. The caller shortens it.
pub fn sample_text(headers: &http::HeaderMap, body: &Body, bounds: &Bounds) -> String {
    let observation =
        Observation::new(http::StatusCode::OK, headers.clone(), body.clone(), std::time::Duration::ZERO, Vec::new());
    match ParsedBody::of(&observation, bounds) {
        Ok(ParsedBody::Empty) => String::new(),
        Ok(ParsedBody::Json(value)) => {
            serde_json::to_string_pretty(&redact(&value)).unwrap_or_else(|_| "unreadable".to_owned())
        }
        Ok(ParsedBody::Text(text)) => format!("text, {}", digest(text.as_bytes())),
        Ok(ParsedBody::Bytes(bytes)) => digest(&bytes),
        Err(exceeded) => exceeded.to_string(),
    }
}

//! How a sample stores a body.

use serde_json::Value;

use super::bounds::CompareBounds;
use super::digest::digest;
use super::observation::Body;
use super::parsed_body::ParsedBody;
use super::redact::redact;
use crate::secret::STARS;

/// Returns a body as a sample stores it: redacted JSON, or the digest of anything else; nothing of an empty body, and
/// the reason of one that could not be read. Before this, `hide` replaces what is sensitive in the body. The caller
/// shortens the result.
pub fn sample_text(
    headers: &http::HeaderMap,
    body: &Body,
    bounds: &CompareBounds,
    hide: &dyn Fn(&mut Value),
) -> String {
    match ParsedBody::of_parts(headers, body, bounds) {
        Ok(ParsedBody::Empty) => String::new(),
        Ok(ParsedBody::Json(mut value, _)) => {
            hide(&mut value);
            serde_json::to_string_pretty(&redact(&value)).unwrap_or_else(|_| "unreadable".to_owned())
        }
        Ok(ParsedBody::Text(text)) => {
            // A sensitive text is hidden instead of digested: a short text may be guessed from its digest.
            let mut text = Value::from(&*text);
            hide(&mut text);
            match text.as_str().unwrap_or(STARS) {
                STARS => STARS.to_owned(),
                text => format!("text, {}", digest(text.as_bytes())),
            }
        }
        Ok(ParsedBody::Bytes(bytes)) => {
            let mut shown = Value::from(digest(&bytes));
            hide(&mut shown);
            shown.as_str().unwrap_or(STARS).to_owned()
        }
        Err(exceeded) => exceeded.to_string(),
    }
}

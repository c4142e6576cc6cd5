//! How a sample stores a body.

use serde_json::Value;

use super::bounds::{BoundExceeded, CompareBounds};
use super::digest::digest;
use super::observation::Body;
use super::parsed_body::ParsedBody;
use super::redact::redact;
use super::structure::{names_its_values, rendered_document};
use crate::expression::MediaType;
use crate::secret::STARS;

/// What a sample has in place of a body for which there was no time.
const NO_TIME: &str = "not kept: the time for the pair (`compare_ms`) was over";

/// How a form writes [`STARS`].
const STARS_IN_FORM: &str = "%2A%2A%2A";

/// Returns a body as a sample stores it: redacted JSON, a redacted text of a format that names its values, or the
/// digest of anything else; nothing of an empty body, and the reason of one that could not be read. Before this, `hide`
/// replaces what is sensitive in the body. If the time is over before all of it is redacted, only that is said. The
/// caller shortens the result.
pub fn sample_text(
    headers: &http::HeaderMap,
    body: &Body,
    bounds: &CompareBounds,
    hide: &dyn Fn(&mut Value),
    expired: &dyn Fn() -> bool,
) -> String {
    if matches!(body, Body::Whole(bytes) if bytes.is_empty()) {
        return String::new();
    }
    if expired() {
        return NO_TIME.to_owned();
    }
    // After the time is over, `hide` may hide more than is sensitive.
    let hide = |value: &mut Value| {
        if !expired() {
            hide(value);
        }
    };
    let shown = redacted_text(headers, body, bounds, &hide, expired);
    if expired() { NO_TIME.to_owned() } else { shown }
}

fn redacted_text(
    headers: &http::HeaderMap,
    body: &Body,
    bounds: &CompareBounds,
    hide: &dyn Fn(&mut Value),
    expired: &dyn Fn() -> bool,
) -> String {
    match ParsedBody::of_parts(headers, body, bounds) {
        Ok(ParsedBody::Empty) => String::new(),
        Ok(ParsedBody::Json(mut value, _)) => {
            hide(&mut value);
            if expired() {
                return String::new();
            }
            serde_json::to_string_pretty(&redact(&value)).unwrap_or_else(|_| "unreadable".to_owned())
        }
        Ok(ParsedBody::Text(text) | ParsedBody::NotJson(text)) => {
            // A sensitive text is hidden instead of digested: a short text may be guessed from its digest.
            let mut shown = Value::from(&*text);
            hide(&mut shown);
            match shown.as_str().unwrap_or(STARS) {
                STARS => STARS.to_owned(),
                shown => match document_text(headers, &text, bounds, hide) {
                    Ok(document) => document.unwrap_or_else(|| format!("text, {}", digest(shown.as_bytes()))),
                    Err(exceeded) => exceeded.to_string(),
                },
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

/// A text of a format that names its values, with what is secret in them replaced; `None` if it is none.
fn document_text(
    headers: &http::HeaderMap,
    text: &str,
    bounds: &CompareBounds,
    hide: &dyn Fn(&mut Value),
) -> Result<Option<String>, BoundExceeded> {
    if !names_its_values(headers) {
        return Ok(None);
    }
    let mut redacted = |document: &Value| {
        let mut hidden = document.clone();
        hide(&mut hidden);
        redact(&hidden)
    };
    let rendered = rendered_document(headers, text, bounds, &mut redacted)?;
    let content_type = headers.get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let is_form = content_type.is_some_and(|value| MediaType::of(value).is_form());
    Ok(rendered.map(|text| if is_form { text.replace(STARS_IN_FORM, STARS) } else { text }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;

    fn shown(content_type: &str, text: &str) -> String {
        let headers = [(http::header::CONTENT_TYPE, content_type.parse().unwrap())].into_iter().collect();
        let hide = |value: &mut Value| match value {
            Value::String(text) if text.contains("all of it") => *value = STARS.into(),
            Value::Object(members) => members.iter_mut().filter(|(key, _)| *key == "nick").for_each(|(_, nick)| {
                *nick = STARS.into();
            }),
            _ => {}
        };
        let body = Body::Whole(text.to_owned().into());
        sample_text(&headers, &body, &CompareBounds::of(&Limits::default()), &hide, &|| false)
    }

    #[test]
    fn a_text_whose_values_have_names_is_shown_without_its_secrets() {
        let xml = "<o><n>17</n><password><![CDATA[hun&ter2]]></password><pin>&#x31;2</pin></o>";
        assert_eq!(shown("application/xml", xml), "<o><n>17</n><password>***</password><pin>***</pin></o>");
        let form = "a=b+c&token=hunter2&nick=Jane";
        assert_eq!(shown("application/x-www-form-urlencoded", form), "a=b%20c&token=***&nick=***");
        assert_eq!(shown("text/csv", "sku,password\na,hunter2\n"), "sku,password\na,***\n");
        assert_eq!(shown("text/csv", "sku;password\na;hunter2\n"), "sku;password\na;***\n");
        assert_eq!(shown("application/x-ndjson", "{\"n\":1,\"otp\":\"x\"}\n"), "{\"n\":1,\"otp\":\"***\"}\n");
    }

    #[test]
    fn a_text_whose_values_have_no_names_is_a_digest_and_a_sensitive_one_is_hidden() {
        for (content_type, text) in [
            ("text/plain", "hunter2"),
            ("text/csv; header=absent", "hunter2,1\n"),
            ("application/xml", "<p>a <b>hunter2</b></p>"),
        ] {
            let shown = shown(content_type, text);
            assert!(shown.starts_with("text, ") && !shown.contains("hunter2"), "{content_type}: {shown}");
        }
        assert_eq!(shown("application/xml", "<p>all of it</p>"), STARS);
    }
}

//! The names of headers in rules.

use http::HeaderName;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};

use crate::problem::{Problems, Site};

/// Parses the name of a header.
pub(super) fn header(name: &str, site: &Site, problems: &mut Problems) -> Option<HeaderName> {
    let parsed = name.parse().ok();
    if parsed.is_none() {
        problems.error(site, format!("`{name}` is no header name"));
    }
    parsed
}

/// Parses the name of a header that is to be compared. Refuses those that say how a body is transferred: the engine's
/// answer gets them only when it is sent, after the comparison, and legacy's depend on the encoding and the spacing of
/// the body, which is compared by its content.
pub(super) fn compared_header(name: &str, site: &Site, problems: &mut Problems) -> Option<HeaderName> {
    let name = header(name, site, problems)?;
    if name == CONTENT_LENGTH || name == TRANSFER_ENCODING {
        let message = format!("`{name}` cannot be compared: the engine's side has none until its answer is sent");
        problems.error(site, message).hint(
            "remove it: bodies are compared by their content, whatever their length. A length that matters can be \
             compared by an `assert`, such as `${size(engine.body) == size(legacy.body)}` for a text",
        );
        return None;
    }
    Some(name)
}
